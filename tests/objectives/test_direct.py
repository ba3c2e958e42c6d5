"""DPO against a loop over the tokens of each pair, and as what a reward model would learn."""

import random

import pytest
import torch
from objectives import reference
from objectives.ragged import close
from objectives.test_preference import judged

from palate.objectives.direct import direct_preference_loss
from palate.objectives.masked import masked_mean

FIRST_WINS = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
"""Targets, and weights, of a pair whose first reply was chosen."""


def replies(rng: random.Random, count: int) -> list[list[float]]:
    return [[rng.uniform(-4, -0.1) for _ in range(rng.randint(1, 7))] for _ in range(count)]


def summed(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([sum(row) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(10))
def test_pairs_equal_the_paper(seed: int) -> None:
    rng = random.Random(seed)
    pairs, beta = rng.randint(1, 5), rng.choice([0.05, 0.1, 1.0])
    chosen, rejected = replies(rng, pairs), replies(rng, pairs)
    ref_chosen, ref_rejected = ([[x + rng.gauss(0, 1) for x in row] for row in rows] for rows in (chosen, rejected))
    logp = torch.stack([summed(chosen), summed(rejected)], dim=1).requires_grad_()
    ref_logp = torch.stack([summed(ref_chosen), summed(ref_rejected)], dim=1)
    both = FIRST_WINS.expand(pairs, 2, 2)
    loss, weight = direct_preference_loss(logp, ref_logp, both, both, beta=beta)
    close([loss, weight], list(reference.direct(chosen, rejected, ref_chosen, ref_rejected, beta)), 1e-12)
    (slopes,) = torch.autograd.grad(loss, logp)
    wanted = reference.gradient(lambda at: reference.direct(*at, ref_chosen, ref_rejected, beta)[0], [chosen, rejected])
    for side in (0, 1):  # every token of a reply has the slope of its sum
        close([[slope.item()] * len(row) for slope, row in zip(slopes[:, side], wanted[side])], wanted[side], 1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_rankings_are_scored_by_beta_log_ratio(seed: int) -> None:
    """K replies with ties and several annotators: the reference is asked with implicit rewards as scores."""
    rng = random.Random(seed)
    candidates = [rng.randint(2, 9) for _ in range(3)]
    ranked, rankings, _ = judged(rng, candidates)
    shape = (len(candidates), max(candidates))
    logp, ref_logp = (
        -20 * torch.rand(shape, generator=torch.Generator().manual_seed(seed + n)).double() for n in (0, 1)
    )
    loss, prompts = direct_preference_loss(logp, ref_logp, ranked.targets, ranked.weights, beta=0.2)
    implied = [[0.2 * (float(logp[p, i]) - float(ref_logp[p, i])) for i in range(k)] for p, k in enumerate(candidates)]
    close([loss, prompts], list(reference.preference(implied, rankings)), 1e-12)


def test_at_the_start_every_pair_costs_log_two() -> None:
    logp = torch.tensor([[-3.0, -9.0]], dtype=torch.float64, requires_grad=True)
    loss, weight = direct_preference_loss(logp, logp.detach(), FIRST_WINS[None], FIRST_WINS[None], beta=0.1)
    close(loss, 0.6931471805599453, 1e-12)
    (slopes,) = torch.autograd.grad(loss, logp)
    close(slopes.tolist(), [[-0.05, 0.05]], 1e-12)
    assert masked_mean(loss, weight) == loss
