"""Cross-entropy of the next token, and the log-probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def next_token_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """-sum_t w_t log p(target_t | before t) and sum_t w_t (Bengio et al. 2003, eq. 2), in nats.

    logits (..., vocab), targets and weights (...). Positions of weight 0 count for nothing; whoever can leaves them
    out before the logits are made.
    """
    return -(token_logp(logits, targets) * weights).sum(), weights.sum()


def token_logp(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) at each position under softmax(logits / temperature), in float32 (float64 stays): logits
    (..., vocab), targets (...) -> (...)."""
    flat: Tensor = _TokenLogp.apply(logits.flatten(0, -2), targets.flatten(), temperature)  # type: ignore[no-untyped-call]
    return flat.view(targets.shape)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature) at each position: (..., vocab) -> (...). No gradient."""
    rows = logits.detach().flatten(0, -2)
    entropy = torch.empty(len(rows), dtype=_wide(rows.dtype), device=rows.device)
    for part in _chunks(rows):
        logp = torch.log_softmax(rows[part].to(entropy.dtype) / temperature, dim=-1)
        entropy[part] = -(logp.exp() * logp).sum(dim=-1)
    return entropy.view(logits.shape[:-1])


class _TokenLogp(torch.autograd.Function):
    """log softmax(logits / T) at the targets, with its gradient

        d logp_t / d logits = (onehot(target) - softmax(logits / T)) / T

    a few hundred rows at a time: the float32 copy of those stays in the processor's cache, and one of all logits never
    exists.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        logp = torch.empty(len(targets), dtype=_wide(logits.dtype), device=logits.device)
        total = torch.empty_like(logp)  # log of the softmax's denominator
        for part in _chunks(logits):
            scaled = logits[part].to(logp.dtype) / temperature
            total[part] = scaled.logsumexp(dim=-1)
            logp[part] = scaled.gather(-1, targets[part].unsqueeze(-1)).squeeze(-1) - total[part]
        ctx.save_for_backward(logits, targets, total)
        ctx.temperature = temperature
        return logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, total = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        scale = (upstream / ctx.temperature).unsqueeze(-1)
        for part in _chunks(logits):
            scaled = logits[part].to(total.dtype) / ctx.temperature
            probabilities = scaled.sub_(total[part].unsqueeze(-1)).exp_()
            here = probabilities.mul_(-scale[part])
            gradient[part] = here.scatter_add_(-1, targets[part].unsqueeze(-1), scale[part])
        return gradient, None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of rows (n, vocab): about a megabyte of float32 each, and not so few rows that launching costs more."""
    size = max(256, 2**18 // rows.shape[-1])
    return (slice(start, start + size) for start in range(0, len(rows), size))
