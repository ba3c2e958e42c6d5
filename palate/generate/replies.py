"""What models think of given replies: log-probabilities under a language model, scores under a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.batches.replies import Replies, lay_out
from palate.device import Device
from palate.nn.transformer import LanguageModel, ScalarModel, pooled
from palate.objectives.next_token import token_entropy, token_logp


@dataclass(frozen=True)
class ReplyLogp:
    """logp, entropy (batch, time): of the reply's tokens, 0 elsewhere; entropy is detached."""

    logp: Tensor
    entropy: Tensor


def reply_logp(model: LanguageModel, replies: Replies, *, temperature: float, device: Device) -> ReplyLogp:
    """log p of every reply token under softmax(logits / temperature), gradients kept.

    Logits are only made where the reply is: most of a row is prompt and padding.
    """
    counted = replies.mask.bool()
    with device.products():
        hidden = model.trunk(replies.inputs, replies.segments[:, :-1])
        logits = model.head(hidden[counted])
    logp = torch.zeros_like(replies.mask)
    entropy = torch.zeros_like(replies.mask)
    logp = logp.masked_scatter(counted, token_logp(logits, replies.targets[counted], temperature))
    with torch.no_grad():
        entropy[counted] = token_entropy(logits, temperature)
    return ReplyLogp(logp, entropy)


def reply_scores(model: ScalarModel, replies: Replies, *, pooling: str, device: Device) -> Tensor:
    """A reward model's scores (batch, outputs) of whole replies, gradients kept."""
    with device.products():
        scores = model(replies.ids, replies.segments)
    return pooled(scores[:, 1:], replies.mask, pooling)


@torch.no_grad()
def score_all(
    model: ScalarModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    pooling: str,
    pad: int,
    device: Device,
    rows: int = 128,
) -> Tensor:
    """Scores (n, outputs) of n prompt-reply pairs on the CPU, `rows` at a time, rows of similar length together."""
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(replies[i]))
    result = torch.zeros(len(prompts), model.score.out_features)
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        laid = lay_out([prompts[i] for i in part], [replies[i] for i in part], pad=pad).to(device.torch)
        result[part] = reply_scores(model, laid, pooling=pooling, device=device).float().cpu()
    return result


@torch.no_grad()
def logp_all(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    pad: int,
    device: Device,
    rows: int = 128,
) -> Tensor:
    """Summed log-probabilities (n) of n replies at temperature 1, in nats."""
    model.eval()
    result = torch.zeros(len(prompts))
    for start in range(0, len(prompts), rows):
        part = slice(start, start + rows)
        laid = lay_out(prompts[part], replies[part], pad=pad).to(device.torch)
        result[part] = reply_logp(model, laid, temperature=1.0, device=device).logp.sum(dim=1).cpu()
    return result
