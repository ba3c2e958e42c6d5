"""PPO's losses (Schulman et al. 2017) and the estimators that are watched beside them."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""|log ratio| is clamped here before exp, so that one wild token cannot overflow (verl, OpenRLHF: 20)."""


def policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate. Schulman et al. 2017, eq. 7, negated because we minimise:

        L = -E_t[ min( r_t A_t, clip(r_t, 1 - eps, 1 + eps) A_t ) ],   r_t = exp(logp_t - old_logp_t)

    all tensors (batch, time); mask is 1 on reply tokens. Returns (sum, number of tokens).
    """
    ratio = (logp - old_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -(surrogate * mask).sum(), mask.sum()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """1/2 max of the unclipped and clipped squared error (OpenAI baselines' PPO2; Engstrom et al. 2020, section 2).

    all tensors (batch, time). Returns (sum, number of tokens).
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    losses = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return (losses * mask).sum(), mask.sum()


def clip_fraction(logp: Tensor, old_logp: Tensor, mask: Tensor, *, clip: float) -> Tensor:
    """Share of reply tokens whose ratio left [1 - clip, 1 + clip]."""
    outside = ((logp - old_logp).exp() - 1).abs() > clip
    return (outside * mask).sum() / mask.sum().clamp(min=1)


def approximate_kl(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """Mean over tokens of 1/2 (log ratio)^2 between the policy being trained and the one that sampled (k2 of
    Schulman's "Approximating KL divergence"); 0 in the first minibatch of every round."""
    return (0.5 * (logp - old_logp) ** 2 * mask).sum() / mask.sum().clamp(min=1)


def reply_kl(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Per reply, the summed log-ratio policy/reference of its sampled tokens, in nats: (batch)."""
    return ((logp - ref_logp) * mask).sum(dim=1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over reply tokens: 1 is a perfect critic, 0 a constant one."""
    picked = mask.bool()
    error, target = (returns - values)[picked], returns[picked]
    return 1 - error.var(unbiased=False) / target.var(unbiased=False).clamp(min=1e-8)
