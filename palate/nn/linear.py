"""Products with weights, in the precision that the weights are held in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Linear(nn.Linear):
    """x W^T + b in W's dtype, whatever x's is: a network runs in the dtype its matrices were put into."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = self.weight.dtype
        return F.linear(x.to(dtype), self.weight, None if self.bias is None else self.bias.to(dtype))


class Head(Linear):
    """Logits of the ids that the tokenizer has. Published models often have more rows than that, for speed; no text
    was ever learned for them, so nothing may be said with them."""

    def __init__(self, inputs: int, outputs: int, known: int | None) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.known = known

    @property
    def rows(self) -> Tensor:
        """The matrix of logits: (known ids, dim)."""
        return self.weight[: self.known]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.rows)


class Embedding(nn.Embedding):
    """Rows of a matrix by number, in float32 (float64 stays)."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__(count, dim, _weight=torch.empty(count, dim))
        if not self.weight.is_meta:  # there is nothing to fill there, and torch takes a second and a half to do so
            nn.init.normal_(self.weight)

    def forward(self, ids: Tensor) -> Tensor:
        if self.weight.dtype == torch.promote_types(self.weight.dtype, torch.float32):
            return super().forward(ids)
        rows: Tensor = _Lookup.apply(self.weight, ids)  # type: ignore[no-untyped-call]
        return rows


class _Lookup(torch.autograd.Function):
    """The gradient of a row is the sum over all places that read it: in float32, because thousands of bfloat16 numbers
    added one by one stop growing after a few hundred."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return F.embedding(ids, weight).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        total = upstream.new_zeros(ctx.shape)
        return total.index_add_(0, ids.flatten(), upstream.flatten(0, -2)).to(ctx.dtype), None
