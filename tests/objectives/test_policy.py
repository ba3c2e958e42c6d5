"""PPO's losses against loops, at their borders by hand, and as the policy gradient they stand for."""

import math
from collections.abc import Callable

import pytest
import torch
from objectives import reference
from objectives.ragged import Ragged, batches, close
from torch import Tensor

from palate.objectives.policy import (
    LOG_RATIO_LIMIT,
    approximate_kl,
    clip_fraction,
    explained_variance,
    policy_loss,
    reply_kl,
    value_loss,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"), [(2.0, 1.0, -1.2), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (2.0, -1.0, 2.0)]
)
def test_policy_loss_by_hand(ratio: float, advantage: float, expected: float) -> None:
    mask = torch.tensor([[1.0, 0.0]])  # the second token must not count
    logp = torch.tensor([[math.log(ratio), 9.0]])
    total, weight = policy_loss(logp, torch.zeros(1, 2), torch.full((1, 2), advantage), mask, clip=0.2)
    torch.testing.assert_close(total / weight, torch.tensor(expected), rtol=0, atol=1e-6)


Rows = list[list[float]]


def equals_the_reference(
    ours: Callable[..., tuple[Tensor, Tensor]],
    slow: Callable[..., tuple[float, float]],
    case: Ragged,
    *rows: Rows,
    clip: float,
) -> None:
    """Sum and weight, and the gradient with respect to the first of `rows` (the others are constants)."""
    now, *constants = map(case.pad, rows)
    loss, weight = ours(now, *constants, case.mask, clip=clip)
    close([loss, weight], list(slow(*rows, clip)), 1e-12)
    (slopes,) = torch.autograd.grad(loss, now)
    close(case.unpad(slopes), reference.gradient(lambda at: slow(at, *rows[1:], clip)[0], rows[0]), 1e-8)


@pytest.mark.parametrize("clip", [0.2, 0.5])
def test_policy_loss_and_gradient_equal_the_papers(clip: float) -> None:
    for case in batches(25, shortest=0):
        rows = case.rows(-2, 0), case.rows(-2, 0), case.rows(-2, 2)
        equals_the_reference(policy_loss, reference.policy, case, *rows, clip=clip)


def test_at_ratio_one_the_gradient_is_that_of_reinforce() -> None:
    """d/d logp of -A logp, per token, exactly: nothing is clipped and no half of the minimum is lost."""
    for case in batches(10):
        rows = case.rows(-3, 0)
        logp, advantages = case.pad(rows), case.rows(-2, 2)
        loss, _ = policy_loss(logp, case.pad(rows), case.pad(advantages), case.mask, clip=0.2)
        (slopes,) = torch.autograd.grad(loss, logp)
        assert case.unpad(slopes) == [[-a for a in row] for row in advantages]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize(("side", "step"), [(1.2, 1e-9), (0.8, -1e-9)])
def test_the_gradient_stops_where_the_clip_begins(advantage: float, side: float, step: float) -> None:
    """Beyond the border a token pulls only back towards ratio 1: never further in the direction it already went."""
    ones = torch.ones(1, 1, dtype=torch.float64)

    def slope(ratio: float) -> float:
        logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
        loss, _ = policy_loss(logp, 0 * ones, advantage * ones, ones, clip=0.2)
        return float(torch.autograd.grad(loss, logp)[0])

    assert slope(side - step) == pytest.approx(-advantage * side, abs=1e-6)
    away = advantage * step > 0
    assert slope(side + step) == (0.0 if away else pytest.approx(-advantage * side, abs=1e-6))


def test_a_wild_log_ratio_is_held() -> None:
    """exp(80) is no number in float16 and no step in any format."""
    ones = torch.ones(1, 1, dtype=torch.float64)
    for far in (LOG_RATIO_LIMIT + 0.5, 800.0):
        logp = (far * ones).requires_grad_()
        loss, _ = policy_loss(logp, 0 * ones, -ones, ones, clip=0.2)
        close(loss, math.exp(20.0), 1e-12)
        assert float(torch.autograd.grad(loss, logp)[0]) == 0
    just_inside = ((LOG_RATIO_LIMIT - 0.5) * ones).requires_grad_()
    loss, _ = policy_loss(just_inside, 0 * ones, -ones, ones, clip=0.2)
    close(loss, math.exp(19.5), 1e-12)
    close(float(torch.autograd.grad(loss, just_inside)[0]), math.exp(19.5), 1e-12)
    loss, _ = policy_loss(-800.0 * ones, 0 * ones, ones, ones, clip=0.2)
    close(loss, -math.exp(-20.0), 1e-12)


def test_value_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    total, weight = value_loss(
        torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.ones(1, 1), clip=0.2
    )
    torch.testing.assert_close(total / weight, torch.tensor(0.5 * 1.8**2))


@pytest.mark.parametrize("clip", [0.2, 0.7])
def test_value_loss_and_gradient_equal_the_loop(clip: float) -> None:
    for case in batches(25, shortest=0):
        rows = case.rows(-1, 1), case.rows(-1, 1), case.rows(-1, 1)
        equals_the_reference(value_loss, reference.value, case, *rows, clip=clip)


def test_what_is_watched_equals_the_loop() -> None:
    for case in batches(25):
        logp, old = case.rows(-2, 0), case.rows(-2, 0)
        now, before = case.pad(logp), case.pad(old)
        total, tokens = reference.k2(logp, old)
        close(approximate_kl(now, before, case.mask), total / tokens, 1e-12)
        close(reply_kl(now, before, case.mask).tolist(), [sum(a) - sum(b) for a, b in zip(logp, old)], 1e-12)
        ratios = [math.exp(a - b) for row, old_row in zip(logp, old) for a, b in zip(row, old_row)]
        outside = sum(ratio > 1.2 or ratio < 0.8 for ratio in ratios)
        close(clip_fraction(now, before, case.mask, clip=0.2), outside / tokens, 1e-12)
        if tokens > 1:
            errors = [[b - a for a, b in zip(row, old_row)] for row, old_row in zip(logp, old)]
            wanted = 1 - reference.moments(errors)[1] / reference.moments(old)[1]
            close(explained_variance(now, before, case.mask), wanted, 1e-9)
