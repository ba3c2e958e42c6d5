"""From a score per reply to an advantage per token."""

from __future__ import annotations

import torch
from torch import Tensor


def shaped_rewards(score: Tensor, logp: Tensor, ref_logp: Tensor, mask: Tensor, *, kl_weight: float) -> Tensor:
    """Reward per token: minus the KL penalty everywhere, plus the score on the reply's last token.

    Ziegler et al. 2019, eq. 2, spread over tokens:  r_t = -beta (log pi(a_t) - log ref(a_t)) + [t last] score.
    score (batch); logp, ref_logp, mask (batch, time); mask is 1 on the reply's tokens, end marker included (so every
    row has one).
    """
    rewards = -kl_weight * (logp - ref_logp) * mask
    time = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * time).argmax(dim=1)  # index of the last reply token
    rewards[torch.arange(len(score), device=score.device), last] += score
    return rewards


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns), both (batch, time), by GAE (Schulman et al. 2016, eq. 16).

        delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1},   R_t = A_t + V_t

    V_t is the value of the state *before* token t. Beyond the reply's end every value is 0; positions outside the
    mask give 0 and change nothing inside it. The mask must be one run of ones per row.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    ahead = rewards.new_zeros(rewards.shape[0])
    value_ahead = rewards.new_zeros(rewards.shape[0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * value_ahead - values[:, t]
        ahead = (delta + gamma * lam * ahead) * mask[:, t]
        value_ahead = values[:, t]
        advantages[:, t] = ahead
    return advantages, (advantages + values) * mask
