"""Rotary position embeddings (Su et al. 2021, "RoFormer", eq. 34), in the half-split layout of Hugging Face."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from palate.nn.config import Linear, Llama3, Shape, Yarn


def frequencies(shape: Shape) -> Tensor:
    """Radians per position of each pair of a head's numbers: (head_dim / 2), float32."""
    plain = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim)
    match shape.scaling:
        case None:
            return plain
        case Linear(factor=factor):
            return plain / factor
        case Llama3() as llama3:
            # How many whole turns a wave makes within the original context decides how much of it is kept.
            turns = llama3.original_context * plain / (2 * math.pi)
            kept = ((turns - llama3.low) / (llama3.high - llama3.low)).clamp(0, 1)
        case Yarn() as yarn:
            first, last = (_index_of(turns, yarn, shape) for turns in (yarn.beta_fast, yarn.beta_slow))
            if yarn.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, shape.head_dim - 1)
            last = last if last > first else first + 0.001
            index = torch.arange(shape.head_dim // 2, dtype=torch.float32)
            kept = 1 - ((index - first) / (last - first)).clamp(0, 1)
    return plain * kept + plain / shape.scaling.factor * (1 - kept)


def _index_of(turns: float, yarn: Yarn, shape: Shape) -> float:
    """Index of the pair that turns so many times within the original context (YaRN, eq. 17 solved for d)."""
    return shape.head_dim * math.log(yarn.original_context / (turns * 2 * math.pi)) / (2 * math.log(shape.rope_theta))


class Rotary:
    """Cosines and sines by position. Plain tensors, not parameters: made from the shape when they are first needed."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._table: tuple[Tensor, Tensor] | None = None

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin) for positions (batch, time), shaped (batch, time, 1, head_dim / 2) to go with heads."""
        if self._table is None or self._table[0].device != positions.device:
            cos, sin = self._make()
            self._table = cos.to(positions.device), sin.to(positions.device)
        cos, sin = self._table
        return cos[positions].unsqueeze(2), sin[positions].unsqueeze(2)

    def _make(self) -> tuple[Tensor, Tensor]:
        angles = torch.outer(torch.arange(self.shape.context, dtype=torch.float32), frequencies(self.shape))
        scale = self.shape.scaling.attention_factor if isinstance(self.shape.scaling, Yarn) else 1.0
        return angles.cos() * scale, angles.sin() * scale  # (context, head_dim / 2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (batch, time, heads, head_dim) turned by its positions, in x's dtype."""
    if torch.compiler.is_compiling():  # a compiler makes one loop of it by itself
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    turned: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    """Turning by an angle; its gradient is turning back. Written out because autograd's way through slices and
    concatenations touches every number three times as often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(upstream, cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = turned.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return turned
