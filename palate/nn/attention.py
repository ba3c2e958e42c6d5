"""Masks, the key-value cache and attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.nn.config import Shape
from palate.nn.linear import Linear
from palate.nn.norms import Norm
from palate.nn.rotary import rotate

Store = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes keys and values of new positions, gives those of all positions so far: one layer of a `Cache`."""


def causal_mask(segments: Tensor, window: int | None = None) -> Tensor:
    """What each position may look at, as an additive mask (batch, 1, time, time) of 0 and -inf: itself and what came
    before it, or the last `window` of these.

    segments (batch, time): positions with the same number belong to one text; 0 is padding, which looks at itself
    only, so that no row of a softmax is empty.
    """
    time = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    past = torch.ones(time, time, dtype=torch.bool, device=segments.device).tril()
    if window is not None:
        past = past.triu(1 - window)
    itself = torch.eye(time, dtype=torch.bool, device=segments.device)
    padding = (segments == 0)[:, :, None]
    allowed = (same & past & ~padding) | itself
    mask = torch.zeros(allowed.shape, dtype=torch.float32, device=segments.device)
    return mask.masked_fill_(~allowed, -math.inf).unsqueeze(1)


class Cache:
    """Keys and values of what was read so far, for decoding one token at a time.

    One tensor per layer: keys (batch, kv_heads, head_dim, room), values (batch, kv_heads, room, head_dim). `length`
    positions are filled, the others are zeros for the mask to hide. The room grows by CHUNK, products read all of it,
    and keys lie as a product with one query reads them: so no product has to copy its operands first (docs/log.md).
    """

    CHUNK = 32

    def __init__(self, shape: Shape, batch: int, like: Tensor) -> None:
        heads, dim = shape.kv_heads, shape.head_dim
        self.keys = [like.new_zeros(batch, heads, dim, 0) for _ in range(shape.layers)]
        self.values = [like.new_zeros(batch, heads, 0, dim) for _ in range(shape.layers)]
        self.length = 0

    def room(self, time: int) -> int:
        """How many positions there is room for once `time` more are stored: the width of the mask."""
        return -(-(self.length + time) // self.CHUNK) * self.CHUNK

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store `key` and `value` (batch, kv_heads, time, head_dim) of new positions; the whole room is returned."""
        start, end = self.length, self.length + key.shape[2]
        if more := self.room(key.shape[2]) - self.values[layer].shape[2]:
            self.keys[layer] = F.pad(self.keys[layer], (0, more))
            self.values[layer] = F.pad(self.values[layer], (0, 0, 0, more))
        self.keys[layer][..., start:end] = key.transpose(-1, -2)
        self.values[layer][:, :, start:end] = value
        return self.keys[layer].transpose(-1, -2), self.values[layer]

    def keep(self, rows: Tensor) -> None:
        """Drop every row of the batch that is not named in `rows` (indices)."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]

    def repeat(self, times: int) -> None:
        """Every row `times` times in a row: K answers share the reading of their prompt."""
        self.keys = [key.repeat_interleave(times, dim=0) for key in self.keys]
        self.values = [value.repeat_interleave(times, dim=0) for value in self.values]


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017, eq. 1) with grouped queries (Ainslie et al. 2023)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        # One product for queries, keys and values; on disk they are three matrices with Hugging Face's names.
        self.qkv = Linear(shape.dim, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, bias=shape.qkv_bias)
        self.out = Linear(shape.heads * shape.head_dim, shape.dim, bias=shape.out_bias)
        self.query_norm = Norm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None
        self.key_norm = Norm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None

    def forward(
        self, x: Tensor, mask: Tensor, angles: tuple[Tensor, Tensor] | None, store: Store | None
    ) -> Tensor:  # (batch, time, dim)
        batch, time, _ = x.shape
        read = self.qkv(x).view(batch, time, self.heads + 2 * self.kv_heads, self.head_dim)
        value = read[:, :, -self.kv_heads :].transpose(1, 2)
        turned = read[:, :, : -self.kv_heads]
        if self.query_norm is not None and self.key_norm is not None:
            normed = self.query_norm(turned[:, :, : self.heads]), self.key_norm(turned[:, :, self.heads :])
            turned = torch.cat(normed, dim=2).to(read.dtype)
        if angles is not None:  # otherwise positions were added to the embeddings
            turned = rotate(turned, *angles)
        turned = turned.transpose(1, 2)
        query, key = turned[:, : self.heads], turned[:, self.heads :]  # each (batch, heads, time, head_dim)
        if store is not None:
            key, value = store(key, value)
        if self.kv_heads != self.heads:
            key = key.repeat_interleave(self.heads // self.kv_heads, dim=1)
            value = value.repeat_interleave(self.heads // self.kv_heads, dim=1)
        mixed = attend(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(head_dim) + mask) value (Vaswani et al. 2017, eq. 1): query (batch, heads, time,
    head_dim), key and value (batch, heads, room, head_dim), additive mask (batch or 1, 1, time, room).

    Written out: on CPUs this is two to three times faster in bfloat16 than the fused kernel (docs/log.md).
    """
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.add_(mask).softmax(dim=-1).to(value.dtype) @ value
