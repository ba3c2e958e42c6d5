import math

import pytest
import torch

from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.masked import whiten
from palate.objectives.policy import policy_loss, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"), [(2.0, 1.0, -1.2), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (2.0, -1.0, 2.0)]
)
def test_policy_loss_by_hand(ratio: float, advantage: float, expected: float) -> None:
    mask = torch.tensor([[1.0, 0.0]])  # the second token must not count
    logp = torch.tensor([[math.log(ratio), 9.0]])
    total, weight = policy_loss(logp, torch.zeros(1, 2), torch.full((1, 2), advantage), mask, clip=0.2)
    torch.testing.assert_close(total / weight, torch.tensor(expected), rtol=0, atol=1e-6)


def test_value_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    total, weight = value_loss(
        torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.ones(1, 1), clip=0.2
    )
    torch.testing.assert_close(total / weight, torch.tensor(0.5 * 1.8**2))


def test_advantages_equal_the_sum_written_out() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    mask = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]], dtype=torch.float64)
    gamma, lam = 0.9, 0.7
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for row in range(3):
        places = mask[row].nonzero().flatten().tolist()
        for i, t in enumerate(places):
            total = 0.0
            for j, u in enumerate(places[i:]):
                ahead = values[row, u + 1].item() if u != places[-1] else 0.0
                total += (gamma * lam) ** j * (rewards[row, u].item() + gamma * ahead - values[row, u].item())
            assert advantages[row, t].item() == pytest.approx(total, abs=1e-12)
            assert returns[row, t].item() == pytest.approx(total + values[row, t].item(), abs=1e-12)
    assert (advantages[mask == 0] == 0).all()


def test_the_score_lands_on_the_last_reply_token_only() -> None:
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    logp = torch.zeros(2, 4)
    rewards = shaped_rewards(torch.tensor([5.0, -2.0]), logp, logp, mask, kl_weight=0.3)
    assert rewards.tolist() == [[0, 0, 5, 0], [0, 0, 0, -2]]


def test_whitening_ignores_padding() -> None:
    torch.manual_seed(0)
    values, mask = torch.randn(2, 5), torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    changed = torch.where(mask == 0, torch.full_like(values, 1e6), values)
    torch.testing.assert_close(whiten(values, mask), whiten(changed, mask))
    picked = whiten(values, mask)[mask == 1]
    assert picked.mean().abs() < 1e-6
    assert abs(picked.var(unbiased=False).item() - 1) < 1e-4
