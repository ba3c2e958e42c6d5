"""The shape of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Every rotary frequency divided by `factor` (Chen et al. 2023, "Position Interpolation", eq. 4)."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """LLaMA 3.1's scaling: waves longer than original_context / low are slowed by `factor`, those shorter than
    original_context / high are kept, those between are blended (Grattafiori et al. 2024, section 3.4.2, and Meta's
    published code)."""

    factor: float
    low: float
    high: float
    original_context: int


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """NTK-by-parts (Peng et al. 2023, "YaRN", section 3.2): waves that turn less than `beta_slow` times in the original
    context are slowed by `factor`, those that turn more than `beta_fast` times are kept, those between are blended by
    their index. `attention_factor` multiplies cosines and sines (section 3.4)."""

    factor: float
    original_context: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    truncate: bool
    """Whether the two ends of the blend are rounded outwards to whole indices, as the paper's code does."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything that decides the network's parameters and what they compute. Raises ValueError when it cannot be."""

    vocab: int
    layers: int
    dim: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    head_dim: int = 0
    """Width of one attention head; 0 becomes dim / heads."""
    family: str = "llama"
    """Which published architecture this is: it decides names on disk, nothing in the computation."""
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    positions: Literal["rotary", "learned"] = "rotary"
    rope_theta: float = 10_000.0
    scaling: Linear | Llama3 | Yarn | None = None
    """How rotary frequencies were stretched for longer texts."""
    window: int | None = None
    """How many positions a query sees, itself included; None is all before it (Mistral's sliding window)."""
    qk_norm: bool = False
    """Queries and keys are normalised head by head before they are turned (Qwen3)."""
    feed_forward: Literal["swiglu", "gelu"] = "swiglu"
    qkv_bias: bool = False
    out_bias: bool = False
    feed_forward_bias: bool = False
    tied: bool = True
    known: int | None = None
    """How many of the `vocab` ids the tokenizer has, where the model has room for more; the others are never said."""

    def __post_init__(self) -> None:
        for name in ("vocab", "layers", "dim", "heads", "kv_heads", "hidden", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, less than 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if not self.head_dim:
            if self.dim % self.heads:
                raise ValueError(f"dim {self.dim} is no multiple of {self.heads} heads")
            object.__setattr__(self, "head_dim", self.dim // self.heads)  # how a frozen dataclass fills in a default
        if self.head_dim < 1 or (self.positions == "rotary" and self.head_dim % 2):
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even one")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}, less than 1")

    @property
    def parameters(self) -> int:
        """How many numbers are trained, embeddings included (a tied embedding counts once)."""
        qkv = (self.heads + 2 * self.kv_heads) * self.head_dim
        attention = self.dim * qkv + self.heads * self.head_dim * self.dim
        attention += qkv * self.qkv_bias + self.dim * self.out_bias + 2 * self.head_dim * self.qk_norm
        wide = self.hidden * (2 if self.feed_forward == "swiglu" else 1)
        feed_forward = self.dim * (wide + self.hidden) + (wide + self.dim) * self.feed_forward_bias
        norm = self.dim * (2 if self.norm == "layer" else 1)
        embeddings = self.vocab * self.dim * (1 if self.tied else 2)
        places = self.context * self.dim if self.positions == "learned" else 0
        return embeddings + places + self.layers * (attention + feed_forward + 2 * norm) + norm

    def flops_per_token(self, time: int) -> int:
        """Floating-point operations of one trained token at sequence length `time`: 6 per parameter in a matrix
        product (forward 2, backward 4; Kaplan et al. 2020, section 2.1) and 12 * layers * (heads * head_dim) * time
        for attention. Looking an embedding up is free; a tied one counts for the product with the head."""
        looked_up = 0 if self.tied else self.vocab * self.dim
        looked_up += self.context * self.dim if self.positions == "learned" else 0
        return 6 * (self.parameters - looked_up) + 12 * self.layers * self.heads * self.head_dim * time

    def activation_bytes(self, time: int, width: int, *, recompute: bool = False) -> int:
        """Bytes that one token in a row of `time` leaves behind in a forward pass for the backward pass; `width` bytes
        is a number in the products' dtype. Counted by what autograd keeps (tests/train/test_memory.py holds it against
        what it does keep): in every layer two residuals in float32, the input of each product, keys and queries before
        and after they are turned, the attention weights; at the end the logits and their gradient."""
        query, pairs = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        shared = 0 if self.kv_heads == self.heads else 2 * query  # keys and values repeated for their queries
        attention = 2 * self.dim + 2 * (query + pairs) + 2 * query + shared + self.heads * time
        feed_forward = self.hidden * (4 if self.feed_forward == "swiglu" else 2)
        layer = 8 * self.dim + width * (attention + feed_forward)
        # What comes into each layer, what comes out of the last, and that normalised; all in float32.
        layers = (self.layers + 2) * 4 * self.dim + layer if recompute else self.layers * layer
        return layers + 2 * width * self.vocab


def swiglu_hidden(dim: int) -> int:
    """8/3 dim rounded up to a multiple of 32: as many parameters as a 4 dim two-matrix layer (Shazeer 2020)."""
    return -(-8 * dim // 3 // 32) * 32 if (8 * dim // 3) % 32 else 8 * dim // 3
