"""The shape of a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything that decides the network's parameters and what they compute."""

    vocab: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.heads

    @property
    def parameters(self) -> int:
        """How many numbers are trained, embeddings included (a tied embedding counts once)."""
        attention = self.dim * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        block = attention + 3 * self.dim * self.hidden + 2 * self.dim
        return self.vocab * self.dim * (1 if self.tied else 2) + self.layers * block + self.dim

    def flops_per_token(self, time: int) -> int:
        """Floating-point operations of one trained token at sequence length `time`: 6 per parameter in a matrix
        product (forward 2, backward 4; Kaplan et al. 2020, section 2.1) and 12 * layers * dim * time for attention."""
        matrices = self.parameters - (0 if self.tied else self.vocab * self.dim)
        return 6 * matrices + 12 * self.layers * self.dim * time


def swiglu_hidden(dim: int) -> int:
    """8/3 dim rounded up to a multiple of 32: as many parameters as a 4 dim two-matrix layer (Shazeer 2020)."""
    return -(-8 * dim // 3 // 32) * 32 if (8 * dim // 3) % 32 else 8 * dim // 3
