"""Batched decoding with a key-value cache: ids in, ids out. Knows neither text nor files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from palate.device import Device
from palate.nn.attention import Cache, causal_mask
from palate.nn.transformer import LanguageModel

BATCH_ROWS = 512  # rows decoded together; more no longer helps on two cores (docs/log.md)


@dataclass(frozen=True)
class Reply:
    """The sampled ids, the stop id included when one was reached (`ended`)."""

    ids: tuple[int, ...]
    ended: bool


def pick(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """One token per row from logits (rows, vocab): the most likely at temperature 0, otherwise a sample of
    softmax(logits / temperature) by inverting its distribution at `uniform` (rows) in [0, 1). No truncation: PPO's
    log-probs are those of the whole distribution."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    cumulative = (logits.float() / temperature).softmax(dim=-1).cumsum(dim=-1)
    # Rounding may leave the last sum below 1; scaling `uniform` keeps the choice inside the vocabulary.
    return (
        torch.searchsorted(cumulative, (uniform.unsqueeze(1) * cumulative[:, -1:]))
        .squeeze(1)
        .clamp(max=logits.shape[-1] - 1)
    )


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    stops: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    rng: torch.Generator,
    device: Device,
    answers: int = 1,
) -> list[list[Reply]]:
    """`answers` replies to each prompt, in the order of `prompts`.

    Prompts are read once for all their answers; rows of similar length are decoded together; a finished row leaves the
    batch. Every row has its own uniform numbers, so a reply does not depend on which rows it shared a batch with
    (up to the rounding of the products).
    """
    room = model.shape.context
    too_long = [len(p) for p in prompts if len(p) >= room]
    if too_long:
        raise ValueError(f"a prompt of {max(too_long)} tokens leaves no room for an answer in a context of {room}.")
    uniforms = torch.rand(len(prompts), answers, max_new_tokens, generator=rng)
    replies: list[list[Reply]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    group = max(1, BATCH_ROWS // answers)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), group):
        members = order[start : start + group]
        asked = [prompts[i] for i in members]
        rows = _decode(model, asked, uniforms[members], tuple(stops), max_new_tokens, temperature, device)
        for place, i in enumerate(members):
            replies[i] = rows[place * answers : (place + 1) * answers]
    model.train(was_training)
    return replies


def _decode(
    model: LanguageModel,
    prompts: list[Sequence[int]],
    uniforms: Tensor,
    stops: tuple[int, ...],
    max_new_tokens: int,
    temperature: float,
    device: Device,
) -> list[Reply]:
    answers = uniforms.shape[1]
    longest = max(len(p) for p in prompts)
    steps = min(max_new_tokens, model.shape.context - longest)
    # Prompts are padded on the left, so that every row's next token stands in the same column.
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    real = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        real[row, longest - len(prompt) :] = True
    ids, real, uniforms = (t.to(device.torch) for t in (ids, real, uniforms.flatten(0, 1)))
    positions = (real.cumsum(dim=1) - 1).clamp(min=0)
    cache = Cache(model.shape, len(prompts), like=_cache_like(model))
    hidden = model.trunk.run(ids, positions, _prompt_mask(real, cache.room(longest), model.shape.window), cache)
    logits = model.head(hidden[:, -1]).repeat_interleave(answers, dim=0)
    cache.repeat(answers)
    # (rows, 1, 1, room): padding stays unseen, a column of the answer is seen from when it is written.
    blocked = torch.full((len(prompts), 1, 1, cache.room(steps)), -math.inf, device=device.torch)
    blocked[:, 0, 0, :longest].masked_fill_(real, 0)
    blocked = blocked.repeat_interleave(answers, dim=0)
    position = positions[:, -1].repeat_interleave(answers) + 1
    rows = torch.arange(len(logits), device=device.torch)  # which reply each row of the batch is
    written = torch.full((len(rows), steps), -1, dtype=torch.long, device=device.torch)
    stop_ids = torch.tensor(stops, device=device.torch)
    alive = torch.ones(len(rows), dtype=torch.bool, device=device.torch)
    for step in range(steps):
        token = pick(logits, uniforms[rows, step], temperature)
        written[rows[alive], step] = token[alive]
        alive &= ~torch.isin(token, stop_ids)
        left = int(alive.sum())
        if left == 0 or step + 1 == steps:
            break
        if left <= 0.75 * len(alive):  # copying the cache pays when a quarter of the rows is done
            keep = alive.nonzero().squeeze(1)
            rows, token, position, blocked, alive = (t[keep] for t in (rows, token, position, blocked, alive))
            cache.keep(keep)
        blocked[..., cache.length] = 0
        blocked[..., : _first_seen(cache.length, model.shape.window)] = -math.inf
        mask = blocked[..., : cache.room(1)]
        hidden = model.trunk.run(token.unsqueeze(1), position.unsqueeze(1), mask, cache)
        logits = model.head(hidden[:, -1])
        position = position + 1
    return [_reply(row, stops) for row in written.tolist()]


def _reply(row: list[int], stops: tuple[int, ...]) -> Reply:
    ids = tuple(i for i in row if i >= 0)
    return Reply(ids, bool(ids) and ids[-1] in stops)


def _cache_like(model: LanguageModel) -> Tensor:
    return model.trunk.embed.weight.new_zeros(0)


def _prompt_mask(real: Tensor, room: int, window: int | None) -> Tensor:
    """Additive mask (rows, 1, time, room) for left-padded prompts; padding looks at itself only."""
    mask = causal_mask(real.long(), window)
    return F.pad(mask, (0, room - real.shape[1]), value=-math.inf)


def _first_seen(column: int, window: int | None) -> int:
    """The first column that the token in `column` looks at."""
    return 0 if window is None else max(0, column + 1 - window)


@torch.no_grad()
def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    stops: Sequence[int],
    max_new_tokens: int,
    temperature: float,
    rng: torch.Generator,
    device: Device,
) -> Iterator[int]:
    """The ids of one reply, one at a time as they are sampled; a stop id ends it and is not given."""
    model.eval()
    steps = min(max_new_tokens, model.shape.context - len(prompt))
    cache = Cache(model.shape, 1, like=_cache_like(model))
    ids = torch.tensor([list(prompt)], device=device.torch)
    positions = torch.arange(len(prompt), device=device.torch).unsqueeze(0)
    mask = _prompt_mask(torch.ones_like(ids, dtype=torch.bool), cache.room(len(prompt)), model.shape.window)
    for _ in range(steps):
        logits = model.head(model.trunk.run(ids, positions, mask, cache)[:, -1])
        token = int(pick(logits, torch.rand(1, generator=rng).to(logits.device), temperature))
        if token in stops:
            return
        yield token
        ids = torch.tensor([[token]], device=device.torch)
        positions = torch.tensor([[cache.length]], device=device.torch)
        mask = torch.full((1, 1, 1, cache.room(1)), -math.inf, device=device.torch)
        mask[..., _first_seen(cache.length, model.shape.window) : cache.length + 1] = 0
