"""Normalisation of vectors, computed in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from palate.nn.config import Shape


class Norm(nn.Module):
    """RMSNorm (Zhang & Sennrich 2019, eq. 4): x / rms(x) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = _RmsNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normed


class _RmsNorm(torch.autograd.Function):
    """With n = x / rms(x): y = n w, dw = sum of dy n, dx = (g - n mean(g n)) / rms(x) where g = dy w. Written out
    because autograd's way through the parts keeps and reads twice as many tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.to(weight.dtype)
        scale = x.square().mean(dim=-1, keepdim=True).add(eps).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        shared = upstream * normed
        to_weight = shared.flatten(0, -2).sum(dim=0)
        inward = (shared @ weight).div_(x.shape[-1]).unsqueeze(-1)
        return (upstream * weight).sub_(normed.mul_(inward)).mul_(scale), to_weight, None


class LayerNorm(nn.LayerNorm):
    """LayerNorm (Ba et al. 2016, eq. 4), as GPT-2 has it: mean taken off, and a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def norm(shape: Shape) -> Norm | LayerNorm:
    """The network's kind, over vectors of its width."""
    return (LayerNorm if shape.norm == "layer" else Norm)(shape.dim, shape.norm_eps)
