"""The decoder and the heads that make it a language model or a scorer.

One network, and a `Shape` that says which parts it is made of: LLaMA's (Touvron et al. 2023) by default, that is
normalisation before each layer (RMSNorm), rotary positions, a gated feed-forward (SwiGLU), no biases; or Mistral's,
Qwen's or GPT-2's (`palate/weights/families.py`). Never dropout. A reward model is another type, not a flag.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from palate.nn.attention import Attention, Cache, causal_mask
from palate.nn.config import Shape
from palate.nn.linear import Embedding, Head, Linear
from palate.nn.norms import norm
from palate.nn.rotary import Rotary


class SwiGLU(nn.Module):
    """(silu(x W_gate) * x W_up) W_down (Shazeer 2020, eq. 6)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        # Gate and up in one product; on disk they are two matrices with Hugging Face's names.
        self.gate_up = Linear(shape.dim, 2 * shape.hidden, bias=shape.feed_forward_bias)
        self.down = Linear(shape.hidden, shape.dim, bias=shape.feed_forward_bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


class Gelu(nn.Module):
    """gelu(x W_up) W_down, with the tanh form of GELU (Hendrycks & Gimpel 2016, section 2) that GPT-2 was trained
    with."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.up = Linear(shape.dim, shape.hidden, bias=shape.feed_forward_bias)
        self.down = Linear(shape.hidden, shape.dim, bias=shape.feed_forward_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # type: ignore[no-any-return]


FEED_FORWARDS = {"swiglu": SwiGLU, "gelu": Gelu}


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm_attention = norm(shape)
        self.attention = Attention(shape)
        self.norm_feed_forward = norm(shape)
        self.feed_forward = FEED_FORWARDS[shape.feed_forward](shape)

    def forward(
        self, x: Tensor, mask: Tensor, angles: tuple[Tensor, Tensor] | None, cache: Cache | None = None
    ) -> Tensor:
        x = x + self.attention(self.norm_attention(x), mask, angles, cache)
        return x + self.feed_forward(self.norm_feed_forward(x))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Token ids -> one vector per position. All heads sit on this."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = Embedding(shape.vocab, shape.dim)
        # Where a token stands is either added to its embedding (GPT-2) or turns queries and keys.
        self.place = Embedding(shape.context, shape.dim) if shape.positions == "learned" else None
        self.rotary = Rotary(shape) if shape.positions == "rotary" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = norm(shape)
        self.recompute = False
        """Whether blocks keep only what comes into them and are computed again in the backward pass (Chen et al. 2016,
        "Training deep nets with sublinear memory cost"): a third more work for a fraction of the memory."""

    @property
    def dtype(self) -> torch.dtype:
        """What its products run in: the dtype its matrices are held in."""
        return self.embed.weight.dtype

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:  # (batch, time, dim)
        """ids (batch, time). segments (batch, time) says which text each position belongs to, 0 is padding;
        None means every row is one text. Positions count from the start of each text."""
        if segments is None:
            segments = torch.ones_like(ids)
        return self.run(ids, positions_in(segments), causal_mask(segments, self.shape.window))

    def run(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: Cache | None = None) -> Tensor:
        """The forward pass with positions (batch, time) and additive mask (batch or 1, 1, time, time) given. A cache
        keeps every layer's keys and values."""
        x = self.embed(ids)
        if self.place is not None:
            x = x + self.place(positions)
        angles = self.rotary.at(positions) if self.rotary is not None else None
        mask = mask.to(self.dtype)
        angles = (angles[0].to(self.dtype), angles[1].to(self.dtype)) if angles is not None else None
        for block in self.blocks:
            if cache is None and self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, angles, use_reentrant=False)
            elif cache is None:
                x = block(x, mask, angles)
            else:  # not through `__call__`, behind which a block may be compiled for training
                x = block.forward(x, mask, angles, cache)
        return self.norm(x)  # type: ignore[no-any-return]


def positions_in(segments: Tensor) -> Tensor:
    """(batch, time) positions that start at 0 with every segment; those of padding (0) are all 0, so that there may be
    more of it than a text is long."""
    time = segments.shape[1]
    index = torch.arange(time, device=segments.device).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(starts, index, torch.zeros_like(index)).cummax(dim=1).values
    return (index - first).masked_fill(segments == 0, 0)


class Network(nn.Module):
    """A trunk with a head."""

    trunk: Trunk

    @property
    def shape(self) -> Shape:
        """The shape it was built with."""
        return self.trunk.shape

    def compile_blocks(self) -> None:
        """Have torch.compile make one code for all blocks and all lengths: what is computed differs from before by
        rounding. It is made here, on rows of a length of their own, so that it never depends on which rows came first,
        and a run that was killed goes on to the same bits."""
        for block in self.trunk.blocks:
            block.compile(dynamic=True)
        # No two sizes alike: the compiler takes equal ones for one and the same.
        ids = torch.zeros(3, min(53, self.shape.context), dtype=torch.long, device=self.trunk.embed.weight.device)
        with torch.no_grad():
            self(ids)
        if any(parameter.requires_grad for parameter in self.parameters()):
            self(ids).sum().backward()
            self.zero_grad(set_to_none=True)


class LanguageModel(Network):
    """A trunk that predicts the next token."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = Head(trunk.shape.dim, trunk.shape.vocab, trunk.shape.known)
        if trunk.shape.tied:
            self.head.weight = trunk.embed.weight

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Logits (batch, time, vocab) of the token after each position, in the dtype of the products."""
        return self.head(self.trunk(ids, segments))  # type: ignore[no-any-return]


class ScalarModel(Network):
    """A trunk with scores per position: a reward model (five scores) or a critic (one).

    `rng` draws the head's first weights; without one torch's own generator does, for a head that is filled later.
    """

    def __init__(self, trunk: Trunk, outputs: int, rng: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.score = nn.Linear(trunk.shape.dim, outputs, bias=False)
        # N(0, 1/sqrt(d+1)): scores of order one at the start (Stiennon et al. 2020, code of the paper).
        if not self.score.weight.is_meta:
            nn.init.normal_(self.score.weight, std=1 / math.sqrt(trunk.shape.dim + 1), generator=rng)

    def on(self, trunk: Trunk) -> ScalarModel:
        """The same head on another trunk."""
        other = ScalarModel(trunk, self.score.out_features)
        other.score = self.score
        return other

    def forward(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Scores (batch, time, outputs) in float32: the trunk ends in it, and so the head is held in it."""
        return self.score(self.trunk(ids, segments))  # type: ignore[no-any-return]


def pooled(scores: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One score per reply: scores (batch, time, outputs) -> (batch, outputs).

    mask (batch, time) is 1 on the reply's tokens. "last" reads the last of them (Ouyang et al. 2022); "mean" averages
    over them, which learns from fewer rankings when the network is small (docs/reward.md has the comparison).
    """
    if pooling == "mean":
        weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bto,bt->bo", scores, weights)
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
    return scores[torch.arange(len(scores), device=scores.device), last]


def initialise(model: nn.Module, shape: Shape, rng: torch.Generator) -> None:
    """Every initial weight of a fresh network, in one place.

    Normal with std 0.02, and 0.02/sqrt(2 layers) for the matrices that write to the residual stream, so that its size
    does not grow with depth (Radford et al. 2019, section 2.3). Biases are 0, norm weights stay 1.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
        if parameter.dim() < 2:
            continue
        writes = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
        std = 0.02 / math.sqrt(2 * shape.layers) if writes else 0.02
        with torch.no_grad():
            parameter.normal_(0.0, std, generator=rng)
