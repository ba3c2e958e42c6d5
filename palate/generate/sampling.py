"""How a token is chosen: temperature, what is cut off a distribution, and the random numbers of a request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64  # tokens summed together when a distribution is inverted
_WHOLE = 2**64
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How replies are drawn. The defaults draw from the model's whole distribution, which is what PPO needs.

    Raises ValueError for numbers that cannot be.
    """

    max_new_tokens: int
    stops: tuple[int, ...] = ()
    """Ids that end a reply; the one that did is its last."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token."""
    top_k: int = 0
    """Only the k most likely tokens; 0 is all of them."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability."""
    min_p: float = 0.0
    """Only tokens at least this many times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that stand in the prompt or the reply become less likely."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1),
            ("temperature", 0 <= self.temperature < math.inf),
            ("top_k", self.top_k >= 0),
            ("top_p", 0 < self.top_p <= 1),
            ("min_p", 0 <= self.min_p <= 1),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf),
        ):
            if not allowed:
                raise ValueError(f"{name} is {getattr(self, name)}")


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability, both (rows), from logits (rows, vocab) and numbers `uniform` (rows) in
    [0, 1), at which the distribution function is inverted.

    The log-probability is that of the distribution drawn from, after temperature, penalty and cuts; at temperature 0,
    where nothing is drawn, that of temperature 1. `seen` (rows, vocab) marks the tokens the penalty is for.
    """
    if sampling.repetition_penalty != 1 and seen is not None:
        logits = repetition_penalty(logits.float(), seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        token = logits.argmax(dim=-1, keepdim=True)
        return token.squeeze(1), logits.log_softmax(dim=-1, dtype=torch.float32).gather(1, token).squeeze(1)
    if sampling.temperature != 1:
        logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p > 0:
        logits = min_p(logits, sampling.min_p)
    probabilities = logits.softmax(dim=-1, dtype=torch.float32)
    token = _inverse(probabilities, uniform.unsqueeze(1))
    return token.squeeze(1), probabilities.gather(1, token).log_().squeeze(1)


def _inverse(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first token (rows, 1) at which the running sum passes `uniform` (rows, 1): never one of probability 0.

    Sums of BLOCK tokens first, then inside one block: running sums over a whole vocabulary cost more than its softmax.
    """
    blocks = F.pad(probabilities, (0, over)) if (over := -probabilities.shape[1] % BLOCK) else probabilities
    blocks = blocks.view(len(blocks), -1, BLOCK)
    edges = F.pad(blocks.sum(dim=-1).cumsum(dim=-1), (1, 0))
    target = _below(uniform * edges[:, -1:], edges[:, -1:])
    block = torch.searchsorted(edges, target, right=True) - 1
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, 1, BLOCK)).squeeze(1).cumsum(dim=-1)
    rest = _below(target - edges.gather(1, block), inside[:, -1:])
    return block * BLOCK + torch.searchsorted(inside, rest, right=True)


def _below(value: Tensor, limit: Tensor) -> Tensor:
    """`value`, kept under `limit`, which rounding may have let it reach."""
    return torch.minimum(value, limit * (1 - 2**-23))


def top_k(logits: Tensor, k: int) -> Tensor:
    """The `k` largest logits of each row, the others -inf (Fan et al. 2018, section 5)."""
    return logits.masked_fill(logits < logits.topk(k, dim=-1).values[..., -1:], -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest most likely tokens of each row whose probabilities sum to at least `p`, the others -inf (nucleus
    sampling, Holtzman et al. 2020, eq. 2)."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1, dtype=torch.float32)
    out = probabilities.cumsum(dim=-1) - probabilities >= p  # those before it were enough
    out[..., 0] = False
    return logits.masked_fill(out.scatter(-1, order, out), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Tokens at least `p` times as likely as the most likely one, the others -inf (Nguyen et al. 2024, section 3)."""
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits of `seen` tokens (rows, vocab) divided by `penalty` where positive, times it where negative (Keskar et al.
    2019, section 4.1, whose equation leaves the sign out)."""
    changed: Tensor = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, changed, logits)


def uniforms(seeds: Sequence[int], answers: int, count: int) -> Tensor:
    """(len(seeds), answers, count) numbers in [0, 1), multiples of 2^-24. Number c of answer k to a request with seed s
    is a function of (s, k, c) and of nothing else: SplitMix64 (Steele et al. 2014, figure 17) counts from s to give
    answer k its own seed, and from that again."""
    start = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64).view(-1, 1)
    own = _mixed(start + _steps(answers)).unsqueeze(2)
    return _high(_mixed(own + _steps(count)), 24).to(torch.float32) * 2**-24


def _steps(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.int64) + 1) * _signed(_GOLDEN)


def _mixed(z: Tensor) -> Tensor:
    """SplitMix64's scrambling of 64-bit numbers; products of int64 wrap around."""
    z = (z ^ _high(z, 34)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _high(z, 37)) * _signed(0x94D049BB133111EB)
    return torch.bitwise_xor(z, _high(z, 33))


def _high(z: Tensor, bits: int) -> Tensor:
    """The highest `bits` of 64, as a number that is not negative."""
    return torch.bitwise_and(z >> (64 - bits), 2**bits - 1)


def _signed(number: int) -> int:
    """The int64 with the same 64 bits."""
    return (number + _WHOLE // 2) % _WHOLE - _WHOLE // 2
