"""Masks, the key-value cache and attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.nn.config import Shape
from palate.nn.linear import Linear
from palate.nn.norms import Norm
from palate.nn.rotary import rotate

FUSED = {"cuda"}
"""Kinds of device on which attention is one kernel."""


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
    """Keys and values of every layer, kept from one reading: (batch, kv_heads, time, head_dim) each."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def keep(self, key: Tensor, value: Tensor) -> None:
        """Those of the next layer."""
        self.keys.append(key)
        self.values.append(value)


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
        self, x: Tensor, mask: Tensor, angles: tuple[Tensor, Tensor] | None, cache: Cache | None
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
        if cache is not None:
            cache.keep(key, value)
        if self.kv_heads != self.heads:
            key = key.repeat_interleave(self.heads // self.kv_heads, dim=1)
            value = value.repeat_interleave(self.heads // self.kv_heads, dim=1)
        mixed = attend(query, key, value, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(head_dim) + mask) value (Vaswani et al. 2017, eq. 1): query (batch, heads, time,
    head_dim), key and value (batch, heads, room, head_dim), additive mask (batch or 1, 1, time, room).

    Written out: on CPUs this is two to three times faster in bfloat16 than torch's fused kernel (docs/log.md), which
    never holds the scores and is taken where FUSED says so.
    """
    if query.device.type in FUSED:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores.add_(mask).softmax(dim=-1).to(value.dtype) @ value
