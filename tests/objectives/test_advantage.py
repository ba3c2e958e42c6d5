"""Rewards and advantages of padded batches against each row alone."""

import random

import pytest
import torch
from objectives import reference
from objectives.ragged import batches, close

from palate.objectives.advantage import generalised_advantages, shaped_rewards


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.9, 0.0)])
def test_advantages_equal_those_of_each_row_alone(gamma: float, lam: float) -> None:
    for case in batches(25, longest=8):
        rewards, values = case.rows(-2, 2), case.rows(-2, 2)
        padded = case.pad(rewards), case.pad(values)
        advantages, returns = generalised_advantages(*padded, case.mask, gamma=gamma, lam=lam)
        wanted = [reference.gae(r, v, gamma, lam) for r, v in zip(rewards, values)]
        close(case.unpad(advantages), wanted, 1e-12)
        close(case.unpad(returns), [[a + b for a, b in zip(*rows)] for rows in zip(wanted, values)], 1e-12)
        first = [torch.autograd.grad(advantages.sum(), tensor, retain_graph=True)[0] for tensor in padded]
        for slopes, at, of in (
            (
                first[0],
                rewards,
                lambda at, vs=values: sum(sum(reference.gae(r, v, gamma, lam)) for r, v in zip(at, vs)),
            ),
            (
                first[1],
                values,
                lambda at, rs=rewards: sum(sum(reference.gae(r, v, gamma, lam)) for r, v in zip(rs, at)),
            ),
        ):
            close(case.unpad(slopes), reference.gradient(of, at), 1e-8)


def test_a_row_without_a_token_has_no_advantage() -> None:
    mask = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    advantages, returns = generalised_advantages(torch.ones(2, 3), torch.full((2, 3), 9.0), mask, gamma=1.0, lam=0.9)
    assert advantages.tolist() == [[0, 0, 0], [0, -8, 0]]
    assert returns.tolist() == [[0, 0, 0], [0, 1, 0]]


def test_rewards_equal_the_penalty_of_each_token_and_the_score_at_the_end() -> None:
    for case in batches(25):
        rng = random.Random(len(case.lengths))
        logp, ref_logp = case.rows(-4, 0), case.rows(-4, 0)
        scores = [rng.uniform(-2, 2) for _ in case.lengths]
        shaped = shaped_rewards(
            torch.tensor(scores, dtype=torch.float64), case.pad(logp), case.pad(ref_logp), case.mask, kl_weight=0.3
        )
        wanted = [reference.rewards(s, now, ref, 0.3) for s, now, ref in zip(scores, logp, ref_logp)]
        close(case.unpad(shaped), wanted, 1e-12)


def test_the_score_lands_on_the_last_reply_token_only() -> None:
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    logp = torch.zeros(3, 4)
    rewards = shaped_rewards(torch.tensor([5.0, -2.0, 3.0]), logp, logp, mask, kl_weight=0.3)
    assert rewards.tolist() == [[0, 0, 5, 0], [0, 0, 0, -2], [3, 0, 0, 0]]


def test_the_whole_return_is_the_score_minus_the_reply_kl() -> None:
    """gamma = lambda = 1 and no critic: the first token's advantage is Ziegler et al. 2019, eq. 2."""
    for case in batches(10):
        logp, ref_logp = case.pad(case.rows(-4, 0)), case.pad(case.rows(-4, 0))
        score = torch.arange(len(case.lengths), dtype=torch.float64)
        rewards = shaped_rewards(score, logp, ref_logp, case.mask, kl_weight=0.3)
        advantages, _ = generalised_advantages(rewards, torch.zeros_like(rewards), case.mask, gamma=1.0, lam=1.0)
        ratios = [sum(a) - sum(b) for a, b in zip(case.unpad(logp * case.mask), case.unpad(ref_logp * case.mask))]
        wanted = [float(s) - 0.3 * ratio for s, ratio in zip(score, ratios)]
        close([row[0] for row in case.unpad(advantages)], wanted, 1e-12)
