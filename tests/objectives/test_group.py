"""GRPO against loops, and KL losses against the exact gradient of the KL of a softmax."""

import random

import pytest
import torch
from objectives import reference
from objectives.ragged import batches, close
from torch import Tensor

from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.group import group_advantages, group_policy_loss, kl_loss, leave_one_out_advantages
from palate.objectives.policy import policy_loss


@pytest.mark.parametrize("replies", range(2, 10))
def test_advantages_equal_the_papers(replies: int) -> None:
    rng = random.Random(replies)
    scores = [[rng.uniform(-2, 2) for _ in range(replies)] for _ in range(4)]
    scores.append([1.0] * (replies - 1) + [0.0])  # ties, as scores of right and wrong are
    given = torch.tensor(scores, dtype=torch.float64)
    close(group_advantages(given).tolist(), reference.group_relative(scores), 1e-12)
    close(leave_one_out_advantages(given).tolist(), reference.leave_one_out(scores), 1e-12)


def test_replies_that_are_equally_good_move_nothing() -> None:
    """0.1 is not its own mean in float32; the difference must stay what it is, nothing."""
    for replies in range(2, 10):
        for level in (0.1, 0.7, -12.3, 1e3):
            for advantages in (group_advantages, leave_one_out_advantages):
                assert advantages(torch.full((1, replies), level)).abs().max() < 1e-3 * max(1.0, abs(level))


def test_a_reply_alone_is_refused() -> None:
    for advantages in (group_advantages, leave_one_out_advantages):
        with pytest.raises(ValueError, match="at least two"):
            advantages(torch.ones(3, 1))


def test_leave_one_out_has_no_bias() -> None:
    """Two replies drawn from a softmax over three actions, all nine outcomes: the mean of A grad log pi is the exact
    gradient of the mean reward. With the group's own mean as baseline it is (K - 1) / K of it."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    p = logits.softmax(dim=0)
    (exact,) = torch.autograd.grad((p * reward).sum(), logits, retain_graph=True)
    total = torch.zeros_like(logits)
    for a in range(3):
        for b in range(3):
            advantages = leave_one_out_advantages(reward[[a, b]].unsqueeze(0))[0]
            surrogate = (advantages * p[[a, b]].log()).mean()
            total += (p[a] * p[b]).detach() * torch.autograd.grad(surrogate, logits, retain_graph=True)[0]
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-12)


def test_the_loss_equals_the_papers() -> None:
    """eq. 3 with each reply's mean, which is ours with weights 1 / length; and ours, where every token counts alike."""
    for case in batches(25, most_rows=9):
        logp, old, before = case.rows(-2, 0), case.rows(-2, 0), case.rows(-2, 0)
        advantages = [case.rng.uniform(-2, 2) for _ in case.lengths]
        now = case.pad(logp)
        fixed = case.pad(old), case.pad(before), torch.tensor(advantages, dtype=torch.float64)
        per_reply = case.mask / case.mask.sum(dim=1, keepdim=True)
        loss, weight = group_policy_loss(now, *fixed, per_reply, clip=0.2, kl_weight=0.3)
        close(weight, len(logp), 1e-12)
        close(loss / weight, reference.group_policy(logp, old, before, advantages, 0.2, 0.3), 1e-12)
        (slopes,) = torch.autograd.grad(loss / weight, now)
        wanted = reference.gradient(
            lambda at: reference.group_policy(at, old, before, advantages, 0.2, 0.3),  # noqa: B023
            logp,
        )
        close(case.unpad(slopes), wanted, 1e-8)
        loss, weight = group_policy_loss(now, *fixed, case.mask, clip=0.2, kl_weight=0.3)
        spread = [[a] * len(row) for a, row in zip(advantages, logp)]
        surrogate, tokens = reference.policy(logp, old, spread, 0.2)
        close([loss, weight], [surrogate + 0.3 * reference.k2(logp, before)[0], tokens], 1e-12)


def test_the_kl_loss_equals_its_definition() -> None:
    for case in batches(20, shortest=0):
        logp, before = case.rows(-2, 0), case.rows(-2, 0)
        now = case.pad(logp)
        loss, weight = kl_loss(now, case.pad(before), case.mask)
        close([loss, weight], list(reference.k2(logp, before)), 1e-12)
        (slopes,) = torch.autograd.grad(loss, now)
        close(case.unpad(slopes), [[a - b for a, b in zip(*rows)] for rows in zip(logp, before)], 1e-12)


# --- the gradient of a KL ---------------------------------------------------------------------------------------------


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    return logp - ref_logp


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    return (ref_logp - logp).exp() - 1 - (ref_logp - logp)


def softmaxes(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(logits with gradients, log-probabilities, a reference's log-probabilities) over 6 actions, far apart."""
    rng = random.Random(seed)
    logits, reference_logits = (torch.tensor([rng.gauss(0, 1.5) for _ in range(6)], dtype=torch.float64) for _ in "ab")
    logits.requires_grad_()
    return logits, logits.log_softmax(dim=0), reference_logits.log_softmax(dim=0)


def mean_gradient(logits: Tensor, logp: Tensor, losses: Tensor) -> Tensor:
    """The gradient of a loss of sampled actions, averaged over all actions with their probabilities, exactly: the
    sample does not know the parameters, the loss does."""
    return torch.autograd.grad((logp.detach().exp() * losses).sum(), logits, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_of_the_kl_loss_is_that_of_the_exact_kl(seed: int) -> None:
    logits, logp, ref_logp = softmaxes(seed)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref_logp)).sum(), logits, retain_graph=True)
    assert exact.abs().max() > 0.05
    one = torch.ones(1, 1, dtype=torch.float64)
    ours = torch.stack([kl_loss(a.view(1, 1), b.view(1, 1), one)[0] for a, b in zip(logp, ref_logp)])
    torch.testing.assert_close(mean_gradient(logits, logp, ours), exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_other_estimators_have_another_gradient(seed: int) -> None:
    """k1's is zero on average, k3's is that of the KL from the reference to the policy. Both have the right value."""
    logits, logp, ref_logp = softmaxes(seed)
    kl = (logp.exp() * (logp - ref_logp)).sum()
    for estimator in (k1, k3):
        torch.testing.assert_close((logp.exp() * estimator(logp, ref_logp)).sum(), kl, rtol=1e-12, atol=0)
    (exact,) = torch.autograd.grad(kl, logits, retain_graph=True)
    assert mean_gradient(logits, logp, k1(logp, ref_logp)).abs().max() < 1e-12
    (other_way,) = torch.autograd.grad((ref_logp.exp() * (ref_logp - logp)).sum(), logits, retain_graph=True)
    of_k3 = mean_gradient(logits, logp, k3(logp, ref_logp))
    torch.testing.assert_close(of_k3, other_way, rtol=0, atol=1e-12)
    assert (of_k3 - exact).abs().max() > 0.1 * exact.abs().max()


def test_what_a_token_does_to_later_ones_needs_the_kl_in_the_reward() -> None:
    """Replies of two tokens, all 9 of them. As a loss, the KL moves each token's own distribution where it is; the
    gradient of the whole reply's KL has one more part, and the penalty in the reward has it."""
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)  # the first token's, then one per first token
    ref = torch.randn(4, 3, dtype=torch.float64).log_softmax(dim=1)
    now = logits.log_softmax(dim=1)
    replies = [(a, b) for a in range(3) for b in range(3)]
    logp = torch.stack([torch.stack([now[0, a], now[1 + a, b]]) for a, b in replies])
    ref_logp = torch.stack([torch.stack([ref[0, a], ref[1 + a, b]]) for a, b in replies])
    chance = logp.sum(dim=1).exp()
    sampled = chance.detach().unsqueeze(1).expand(9, 2)  # a weight of each token that makes sums expectations
    (exact,) = torch.autograd.grad((chance * (logp - ref_logp).sum(dim=1)).sum(), logits, retain_graph=True)
    states = [0] * 9, [1 + a for a, _ in replies]
    each = sum(sampled[:, t] @ (now[s].exp() * (now[s] - ref[s])).sum(dim=1) for t, s in enumerate(states))
    (where_it_is,) = torch.autograd.grad(each, logits, retain_graph=True)
    (as_loss,) = torch.autograd.grad(kl_loss(logp, ref_logp, sampled)[0], logits, retain_graph=True)
    torch.testing.assert_close(as_loss, where_it_is, rtol=0, atol=1e-12)
    assert (as_loss - exact).abs().max() > 0.1 * exact.abs().max()
    old_logp, ones = logp.detach(), torch.ones(9, 2, dtype=torch.float64)
    rewards = shaped_rewards(torch.zeros(9, dtype=torch.float64), old_logp, ref_logp, ones, kl_weight=1.0)
    advantages, _ = generalised_advantages(rewards, torch.zeros_like(rewards), ones, gamma=1.0, lam=1.0)
    loss, _ = policy_loss(logp, old_logp, advantages, sampled, clip=0.2)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], exact, rtol=0, atol=1e-12)
