"""Sums and moments over the positions that count."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where mask is 1, over all dimensions. Zero weight gives 0."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """`values` shifted and scaled to mean 0 and variance 1 over mask (both (batch, time)); 0 elsewhere.

    Over the whole rollout batch, not per row (peers: checklist row 19): it sets the scale of the policy's step.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + eps) * mask
