"""A model that reads one token of many rows at a time: their keys and values, and the step that adds one position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.device import Device
from palate.nn.attention import Cache
from palate.nn.lora import Adapted
from palate.nn.norms import LayerNorm, Norm
from palate.nn.transformer import Block, LanguageModel, SwiGLU

CHUNK = 32  # positions by which the room grows


class Decoder:
    """Places for rows. A row's token at position p is stored at column p, whatever its neighbours' positions.

    Keys and values are (rows, kv_heads, room, head_dim) per layer. Every product reads the whole room, and a mask hides
    what a row has not written: a product whose operand is a slice would copy it first. So the room is kept only a
    little wider than the longest row. `position` (rows) is where the next token of each row stands.

    What `Trunk.run` computes, written for one position per row in the fewest operations: of a token that is decoded
    alone each costs more than its arithmetic.
    """

    few = 128
    """Rows up to which a CPU keeps keys and values in float32: torch's small products cost it least."""

    def __init__(self, model: LanguageModel, rows: int, device: Device) -> None:
        self.model, self.shape = model, model.shape
        self.blocks = [_Block(block) for block in model.trunk.blocks if isinstance(block, Block)]
        self.norm = _Norm(model.trunk.norm)
        self.head = model.head.rows
        dtype = torch.float32 if device.kind == "cpu" and rows <= self.few else model.trunk.dtype
        self.position = torch.zeros(rows, dtype=torch.long, device=device.torch)
        empty = torch.zeros(rows, self.shape.kv_heads, 0, self.shape.head_dim, dtype=dtype, device=device.torch)
        self._hold([empty] * self.shape.layers, [empty] * self.shape.layers)

    def _hold(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values = keys, values
        rows, heads, self.room, dim = keys[0].shape
        # Of each layer what a step writes to, one head's numbers a row, and what its products read.
        self._flat = [(key.view(-1, dim), value.view(-1, dim)) for key, value in zip(keys, values, strict=True)]
        self._read = [(k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)) for k, v in zip(keys, values, strict=True)]
        where = keys[0].device
        self._columns = torch.arange(self.room, device=where)
        self._first = torch.arange(rows * heads, device=where).view(rows, heads) * self.room

    def fit(self, positions: int) -> None:
        """Make the room hold so many positions and hardly more; what lies beyond is lost."""
        if not positions <= self.room <= positions + 2 * CHUNK:
            room = min(-(-positions // CHUNK) * CHUNK, self.shape.context)
            wider = (0, 0, 0, room - self.room)
            self._hold([F.pad(key, wider) for key in self.keys], [F.pad(value, wider) for value in self.values])

    def put(self, places: Tensor, read: Cache, rows: Tensor, lengths: Tensor) -> None:
        """Row `rows[i]` of what was `read`, `lengths[i]` positions of it, takes the place `places[i]`."""
        time = min(read.keys[0].shape[2], self.room)  # what is beyond the room is padding
        for layer in range(self.shape.layers):
            self.keys[layer][places, :, :time] = read.keys[layer][rows, :, :time].to(self.keys[layer].dtype)
            self.values[layer][places, :, :time] = read.values[layer][rows, :, :time].to(self.values[layer].dtype)
        self.position[places] = lengths

    def keep(self, rows: Tensor) -> None:
        """Only these rows (indices) go on."""
        self._hold([key[rows] for key in self.keys], [value[rows] for value in self.values])
        self.position = self.position[rows]

    def step(self, token: Tensor) -> Tensor:
        """Read `token` (rows) of each row at its position: logits (rows, vocab) of the token after it."""
        shape, position, dtype = self.shape, self.position.unsqueeze(1), self.keys[0].dtype
        trunk = self.model.trunk
        x: Tensor = trunk.embed(token)
        if trunk.place is not None:
            x = x + trunk.place(self.position)
        turn = None
        if trunk.rotary is not None:
            # (a, b) turned is (a, b) (cos, cos) + (b, a) (-sin, sin).
            cos, sin = (part.squeeze(1).to(dtype) for part in trunk.rotary.at(position))
            turn = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
        unseen = self._columns > position
        if shape.window is not None:
            unseen |= self._columns <= position - shape.window
        mask = torch.zeros(unseen.shape, dtype=dtype, device=x.device).masked_fill_(unseen, -math.inf).unsqueeze(1)
        places = (self._first + position).flatten()
        for block, store, read in zip(self.blocks, self._flat, self._read, strict=True):
            x = x + block.attend(block.norm_attention(x), turn, mask, places, store, read)
            x = x + block.feed(block.norm_feed_forward(x))
        self.position += 1
        return product(self.norm(x), self.head)


def _held(linear: nn.Module | Tensor) -> tuple[Tensor, Tensor | None]:
    assert isinstance(linear, (nn.Linear, Adapted))
    return linear.weight, linear.bias


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b in the weight's dtype."""
    return F.linear(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype))


class _Norm:
    def __init__(self, norm: Norm | LayerNorm) -> None:
        self.norm = norm
        n = norm.weight.shape[0]
        self.weight = norm.weight * math.sqrt(n)
        self.least = norm.weight.new_tensor(math.sqrt(n * norm.eps))

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, LayerNorm):
            normed: Tensor = self.norm(x)
            return normed
        # x / sqrt(|x|^2 / n + eps), the root of a sum of squares as one operation.
        size: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / size.hypot_(self.least)).mul_(self.weight)


class _Block:
    """The weights of one layer, and what it does with them."""

    def __init__(self, block: Block) -> None:
        attention, feed = block.attention, block.feed_forward
        self.heads, self.kv_heads, self.dim = attention.heads, attention.kv_heads, attention.head_dim
        self.norm_attention, self.norm_feed_forward = _Norm(block.norm_attention), _Norm(block.norm_feed_forward)
        self.query_norm = None if attention.query_norm is None else _Norm(attention.query_norm)
        self.key_norm = None if attention.key_norm is None else _Norm(attention.key_norm)
        self.gated = isinstance(feed, SwiGLU)
        up = feed.gate_up if self.gated else feed.up
        self.qkv, self.out, self.up, self.down = (
            _held(linear) for linear in (attention.qkv, attention.out, up, feed.down)
        )

    def attend(
        self,
        x: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        mask: Tensor,
        places: Tensor,
        store: tuple[Tensor, Tensor],
        read: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Attention of one query per row, x (rows, dim), over its row's room, after its own key and value were stored
        in their `places`; mask (rows, 1, room) is 0 or -inf."""
        rows, heads, kv_heads, dim = len(x), self.heads, self.kv_heads, self.dim
        qkv = product(x, *self.qkv).to(mask.dtype).view(rows, heads + 2 * kv_heads, dim)
        turned, value = qkv[:, :-kv_heads], qkv[:, -kv_heads:]
        if self.query_norm is not None and self.key_norm is not None:
            query, key = turned[:, :heads].float(), turned[:, heads:].float()
            turned = torch.cat((self.query_norm(query), self.key_norm(key)), dim=1).to(mask.dtype)
        if turn is not None:
            turned = (turned * turn[0]).addcmul_(turned.roll(dim // 2, dims=-1), turn[1])
        store[0].index_copy_(0, places, turned[:, heads:].reshape(-1, dim))
        store[1].index_copy_(0, places, value.reshape(-1, dim))
        # Queries that share a key-value head are rows of one product.
        query = (turned[:, :heads] * dim**-0.5).view(rows * kv_heads, -1, dim)
        scores = torch.bmm(query, read[0]).view(rows, heads, -1)
        weights = scores.add_(mask).softmax(dim=-1).view(rows * kv_heads, heads // kv_heads, -1)
        return product(torch.bmm(weights, read[1]).view(rows, heads * dim), *self.out)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward layer of x (rows, dim)."""
        wide = product(x, *self.up)
        if self.gated:
            gate, up = wide.chunk(2, dim=-1)
            return product(F.silu(gate).mul_(up), *self.down)
        return product(F.gelu(wide, approximate="tanh"), *self.down)
