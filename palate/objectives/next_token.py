"""Cross-entropy of the next token, and the log-probabilities of given tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # a target that counts for nothing, here and in torch


def next_token_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """-sum_t w_t log p(target_t | before t) and sum_t w_t (Bengio et al. 2003, eq. 2), in nats.

    logits (batch, time, vocab), targets and weights (batch, time). Positions of weight 0 count for nothing.
    """
    counted = targets.masked_fill(weights == 0, IGNORED)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), counted.flatten(), ignore_index=IGNORED, reduction="none")
    return (losses * weights.flatten()).sum(), weights.sum()


def token_logp(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) at each position under softmax(logits / temperature), float32: (batch, time)."""
    scaled = logits.float() / temperature
    return scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(dim=-1)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature) at each position: (batch, time)."""
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)
