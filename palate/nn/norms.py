"""Normalisation of vectors, computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.nn.config import Shape


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019, eq. 4): x / rms(x) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """LayerNorm (Ba et al. 2016, eq. 4), as GPT-2 has it: mean taken off, and a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def norm(shape: Shape) -> Norm | LayerNorm:
    """The network's kind, over vectors of its width."""
    return (LayerNorm if shape.norm == "layer" else Norm)(shape.dim, shape.norm_eps)
