"""What models think of given replies: log-probabilities under a language model, scores under a reward model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from palate.batches.packed import filled_up
from palate.batches.replies import Replies, lay_out
from palate.device import Device
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, pooled
from palate.objectives.next_token import token_entropy, token_logp


def reply_logp(model: LanguageModel, replies: Replies, *, temperature: float) -> Tensor:
    """log p (batch, time) of every reply token under softmax(logits / temperature), 0 elsewhere; gradients kept."""
    counted = replies.mask.bool()
    logits, targets = _reply_logits(model, replies, counted)
    return torch.zeros_like(replies.mask).masked_scatter(counted, token_logp(logits, targets, temperature))


@torch.no_grad()
def reply_logp_and_entropy(model: LanguageModel, replies: Replies, *, temperature: float) -> tuple[Tensor, Tensor]:
    """What `reply_logp` gives, and the entropy in nats of the distribution each reply token was drawn from."""
    counted = replies.mask.bool()
    logits, targets = _reply_logits(model, replies, counted)
    zeros = torch.zeros_like(replies.mask)
    return (
        zeros.masked_scatter(counted, token_logp(logits, targets, temperature)),
        zeros.masked_scatter(counted, token_entropy(logits, temperature)),
    )


def _reply_logits(model: LanguageModel, replies: Replies, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (tokens, vocab), made only where `counted`, because the rest of a row is prompt and padding, and their
    targets (tokens). At the end there are a few that nobody asked for."""
    hidden, place = _read(model.trunk, replies)
    wanted = filled_up(place[:, :-1][counted])
    return model.head(hidden[wanted]), filled_up(replies.targets[counted])


def reply_values(critic: ScalarModel, replies: Replies) -> Tensor:
    """V (batch, time) of the state before each reply token, 0 elsewhere; gradients kept."""
    hidden, place = _read(critic.trunk, replies)
    values: Tensor = critic.score(hidden).squeeze(-1)
    return values[place[:, :-1]] * replies.mask


def reply_scores(model: ScalarModel, replies: Replies, *, pooling: str) -> Tensor:
    """A reward model's scores (batch, outputs) of whole replies, gradients kept."""
    hidden, place = _read(model.trunk, replies)
    scores: Tensor = model.score(hidden)
    return pooled(scores[place[:, 1:]], replies.mask, pooling)


def _read(trunk: Trunk, replies: Replies) -> tuple[Tensor, Tensor]:
    """What the network makes of every token that is not padding, (tokens, dim), and the place (batch, time + 1) among
    these of every token of `replies`. Reading them side by side takes a quarter less than reading padding, too."""
    ids, segments, place = replies.side_by_side()
    return trunk(ids, segments).flatten(0, 1), place


@torch.no_grad()
def features_all(
    model: ScalarModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    pooling: str,
    pad: int,
    device: Device,
    rows: int = 128,
) -> Tensor:
    """What the score heads read of n prompt-reply pairs, (n, dim) in float32 on the CPU. A head times it is the score,
    because heads are linear and `pooled` is an average."""
    model.eval()

    def features(laid: Replies) -> Tensor:
        hidden, place = _read(model.trunk, laid)
        return pooled(hidden.float()[place[:, 1:]], laid.mask, pooling)

    return _rows_at_a_time(prompts, replies, features, width=model.score.in_features, pad=pad, device=device, rows=rows)


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

    def scores(laid: Replies) -> Tensor:
        return reply_scores(model, laid, pooling=pooling)

    return _rows_at_a_time(prompts, replies, scores, width=model.score.out_features, pad=pad, device=device, rows=rows)


def _rows_at_a_time(
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    of: Callable[[Replies], Tensor],
    *,
    width: int,
    pad: int,
    device: Device,
    rows: int,
) -> Tensor:
    """What `of` makes of all pairs, (n, width), in float32 on the CPU and in their order."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(replies[i]))
    result = torch.zeros(len(prompts), width)
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        laid = lay_out([prompts[i] for i in part], [replies[i] for i in part], pad=pad).to(device.torch)
        result[part] = of(laid).float().cpu()
    return result


@torch.no_grad()
def logp_all(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    replies: Sequence[Sequence[int]],
    *,
    pad: int,
    device: Device,
    temperature: float = 1.0,
    rows: int = 128,
) -> Tensor:
    """Summed log-probabilities (n) of n replies on the CPU, in nats."""
    model.eval()
    result = torch.zeros(len(prompts))
    for start in range(0, len(prompts), rows):
        part = slice(start, start + rows)
        laid = lay_out(prompts[part], replies[part], pad=pad).to(device.torch)
        result[part] = reply_logp(model, laid, temperature=temperature).sum(dim=1).cpu()
    return result
