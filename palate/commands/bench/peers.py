"""What people would pick instead, made for the measurements: a plain PyTorch GPT of nanoGPT's shape, transformers'
LLaMA of our own shape, and the training step that both get."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from palate.device import DTYPES
from palate.nn.config import Shape

VARIANTS = {
    "float32": {"dtype": "float32", "compiled": False},
    "bfloat16": {"dtype": "bfloat16", "compiled": False},
    "float32_compiled": {"dtype": "float32", "compiled": True},
    "bfloat16_compiled": {"dtype": "bfloat16", "compiled": True},
}
"""Every peer runs in its default (the first) and in what a person could switch on: autocast, torch.compile, both."""
DEFAULT = "float32"
TRL_VARIANTS = ("default", "float32", "bf16", "bfloat16_weights")
"""Of TRL's trainers: float32 that computes activations twice (gradient checkpointing, their default); without that;
with their argument bf16, that is accelerate's autocast; and models loaded in bfloat16."""


def library(name: str) -> Any:
    """A peer's module; only who measures against it has it."""
    return importlib.import_module(name)


def trl_dtype(variant: str) -> torch.dtype:
    """What the weights are loaded in."""
    return torch.bfloat16 if variant == "bfloat16_weights" else torch.float32


# --- a plain GPT ------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, dim = x.shape
        parts = self.qkv(x).view(batch, time, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, dim))  # type: ignore[no-any-return]


class GptBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(dim, bias=False)
        self.attention = SelfAttention(dim, heads)
        self.before_feed_forward = nn.LayerNorm(dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        return x + self.feed_forward(self.before_feed_forward(x))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """The network that nanoGPT trains (github.com/karpathy/nanoGPT; Radford et al. 2019) in plain PyTorch, as a person
    would write it: LayerNorm and linear layers without biases, GELU, learned positions, tied head, no dropout, torch's
    fused attention. Width, depth and vocabulary are `shape`'s."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab, shape.dim)
        self.places = nn.Embedding(shape.context, shape.dim)
        self.blocks = nn.ModuleList(GptBlock(shape.dim, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.dim, bias=False)
        self.head = nn.Linear(shape.dim, shape.vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                writes = name.endswith(("out.weight", "feed_forward.2.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.layers) ** 0.5 if writes else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (batch, time) -> logits (batch, time, vocab)."""
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


# --- transformers' LLaMA ----------------------------------------------------------------------------------------------


def llama_config(shape: Shape, **more: Any) -> Any:
    """transformers' configuration of exactly this shape."""
    return library("transformers").LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.dim,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied,
        **more,
    )


class Llama(nn.Module):
    """transformers' LlamaForCausalLM, ids in and logits out."""

    def __init__(self, shape: Shape, **more: Any) -> None:
        super().__init__()
        self.inner = library("transformers").LlamaForCausalLM(llama_config(shape, **{"use_cache": False, **more}))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (batch, time) -> logits (batch, time, vocab)."""
        return self.inner(ids).logits  # type: ignore[no-any-return]


def tokenizer(vocab: int) -> Any:
    """A tokenizer of `vocab` words that no text is read with: trainers ask for one. Id 0 is BOS, EOS and padding."""
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocab)}, unk_token="w0"))
    transformers = library("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", eos_token="w0", pad_token="w0")


NETWORKS: dict[str, Callable[[Shape], nn.Module]] = {"gpt": Gpt, "llama": Llama}

# --- one optimizer step -----------------------------------------------------------------------------------------------


def crops(tokens: NDArray[np.unsignedinteger], rows: int, width: int) -> Tensor:
    """Rows (rows, width + 1) at random places of `tokens`, as nanoGPT draws them."""
    starts = torch.randint(len(tokens) - width, (rows,)).tolist()
    return torch.from_numpy(np.stack([tokens[start : start + width + 1].astype(np.int64) for start in starts]))


def optimizer(network: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW as ours: matrices decay, vectors do not, one fused kernel."""
    parameters = list(network.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=lr,
        betas=betas,
        fused=True,
    )


def trainer(
    network: nn.Module, adamw: torch.optim.Optimizer, *, dtype: str, compiled: bool, max_norm: float
) -> Callable[[Tensor], float]:
    """A function that takes rows (batch, time + 1) through forward, backward, clipping and step, and gives the loss."""
    kind = next(network.parameters()).device.type

    def loss_of(rows: Tensor) -> Tensor:
        logits = network(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())

    loss_of_rows = torch.compile(loss_of) if compiled else loss_of

    def step(rows: Tensor) -> float:
        products = contextlib.nullcontext() if dtype == DEFAULT else torch.autocast(kind, dtype=DTYPES[dtype])
        with products:
            loss = loss_of_rows(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step
