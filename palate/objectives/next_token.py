"""Cross-entropy of the next token, and the log-probabilities of given tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def next_token_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """-sum_t w_t log p(target_t | before t) and sum_t w_t (Bengio et al. 2003, eq. 2), in nats.

    logits (batch, time, vocab), targets and weights (batch, time). Positions of weight 0 cost nothing to compute.
    """
    counted = weights != 0
    losses = F.cross_entropy(logits[counted].float(), targets[counted], reduction="none")
    return (losses * weights[counted]).sum(), weights.sum()


def token_logp(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) at each position under softmax(logits / temperature), float32: (batch, time)."""
    scaled = logits.float() / temperature
    return scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(dim=-1)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats of softmax(logits / temperature) at each position: (batch, time)."""
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)
