"""Replies in batches: prompts are read once, rows are decoded together, a finished row gives its place to the next.

Ids in, ids out; knows neither text nor files.

What a reply depends on. Its random numbers come from its own seed, and a row sees only itself, so it does not depend
on its companions, on their order, or on when a place became free. What is left is rounding: the order in which a
product sums may depend on how many rows it has and how wide the room is. So the same reply made in two batches has
log-probs equal to 3e-6 in float32 and 1e-2 in bfloat16 (docs/generate.md), and where a random number falls that close
to the border between two tokens the other one is drawn. In batches of the same shapes (prompts of the same lengths,
replies of the same lengths in the same order) everything is equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.batches.packed import few_sizes
from palate.device import Device
from palate.generate.compiled import decoder
from palate.generate.sampling import Sampling, draw, uniforms
from palate.nn.attention import Cache, causal_mask
from palate.nn.transformer import LanguageModel

ROWS = 512  # rows decoded together (docs/log.md)
REFILL = 4  # free places are filled once one in so many is free
STEP = 32  # rows are dropped down to multiples of it: products of a new size are set up first, a millisecond each
READ = 8192  # tokens of prompts read together


@dataclass(frozen=True)
class Reply:
    """The sampled ids, the stop id included when one was reached (`ended`), and the log-probability of each under the
    distribution it was drawn from (`sampling.draw`)."""

    ids: tuple[int, ...]
    ended: bool
    logps: tuple[float, ...]


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    device: Device,
    answers: int = 1,
    rows: int = ROWS,
) -> list[list[Reply]]:
    """`answers` replies to each prompt, in the order of `prompts`; `seeds` has one number per prompt.

    A reply ends with a stop id, after `max_new_tokens`, or where the model's context does. At most `rows` are decoded
    together. Raises ValueError for a prompt that is empty or leaves no room in the context.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds")
    if not prompts or answers < 1:
        return [[] for _ in prompts]
    was_training = model.training
    batch = _Batch(model.eval(), prompts, sampling, seeds, device, answers, min(rows, len(prompts) * answers))
    while batch.advance():
        pass
    model.train(was_training)
    return [batch.replies[start : start + answers] for start in range(0, len(batch.replies), answers)]


@torch.no_grad()
def stream(
    model: LanguageModel, prompt: Sequence[int], sampling: Sampling, *, seed: int, device: Device
) -> Iterator[int]:
    """The ids of one reply, one at a time as they are sampled; a stop id ends it and is not given."""
    batch = _Batch(model.eval(), [prompt], sampling, [seed], device, 1, 1)
    more = True
    while more:
        more = batch.advance()
        token = int(batch.token)
        if token in sampling.stops:
            return
        yield token


class _Batch:
    """Replies in the making; reply r is answer r % answers to prompt r // answers.

    What a step needs of a row is in tensors, so that it does nothing row by row. The random numbers, ids and log-probs
    of a row stand in rings: what belongs to step s in column s % width.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        device: Device,
        answers: int,
        rows: int,
    ) -> None:
        for prompt in prompts:
            _check(prompt, model.shape.context)
        self.model, self.prompts, self.sampling, self.device, self.answers = model, prompts, sampling, device, answers
        # Prompts of similar length together: the room is as wide as the longest row.
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        self.waiting = [i * answers + k for i in order for k in range(answers)][::-1]
        self.replies = [Reply((), False, ())] * len(self.waiting)
        self.uniforms = uniforms(seeds, answers, sampling.max_new_tokens).flatten(0, 1)
        self.decoder = decoder(model, rows, device)
        self.ask = asked_every(device)
        self.width = sampling.max_new_tokens + self.ask
        where = device.torch
        self.ring = torch.zeros(rows, self.width, device=where)
        self.ids = torch.zeros(rows, self.width, dtype=torch.long, device=where)
        self.logps = torch.zeros(rows, self.width, device=where)
        self.logits = torch.zeros(rows, len(model.head.rows), dtype=model.head.weight.dtype, device=where)
        self.token = torch.zeros(rows, dtype=torch.long, device=where)
        self.hit = torch.zeros(rows, dtype=torch.bool, device=where)  # rows that reached a stop id
        self.stops = torch.tensor(sampling.stops, dtype=torch.long, device=where)
        self.seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(self.logits.shape, dtype=torch.bool, device=where)
        self.step = 0
        self.reply: list[int | None] = [None] * rows
        self.begun = [0] * rows  # the step of each row's first token
        self.full = [0] * rows  # the step after its last one, at the latest
        self.free = list(range(rows))
        self.longest = 0  # positions of the longest row
        self.due = 0  # the first step after which a row is full

    def advance(self) -> bool:
        """One more token of every row; whether more are to come."""
        if self.waiting and len(self.free) * REFILL >= len(self.reply):
            self._fill()
        column = self.step % self.width
        self.token, logp = draw(self.logits, self.ring[:, column], self.sampling, self.seen)
        self.ids[:, column] = self.token
        self.logps[:, column] = logp
        if self.seen is not None:
            self.seen.scatter_(1, self.token.unsqueeze(1), value=True)
        if self.sampling.stops:
            self.hit |= (self.token.unsqueeze(1) == self.stops).any(dim=1)
        self.step += 1
        token = self.token
        if self.step >= self.due or (self.sampling.stops and self.step % self.ask == 0 and bool(self.hit.any())):
            kept = self._finish()
            if len(self.free) == len(self.reply):
                return bool(self.waiting)
            token = token if kept is None else token[kept]
        self.longest += 1
        self.decoder.fit(self.longest)
        self.logits = self.decoder.step(token)
        return True

    def _fill(self) -> None:
        """Read the next prompts and put their rows where places are free."""
        taken = [self.waiting.pop() for _ in range(min(len(self.free), len(self.waiting)))]
        asked = list(dict.fromkeys(reply // self.answers for reply in taken))
        size = max(1, READ // max(len(self.prompts[i]) for i in asked))
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            self._read(part, [reply for reply in taken if reply // self.answers in part])
        self._measure()

    def _read(self, asked: list[int], replies: list[int]) -> None:
        """Read prompts once and begin these replies to them."""
        where, new = self.device.torch, self.sampling.max_new_tokens
        lengths = torch.tensor([len(self.prompts[i]) for i in asked])
        # Padding stands on the right, where what comes before never sees it, or is rows for nobody.
        longest = int(lengths.max())
        width = min(few_sizes(longest), self.model.shape.context)
        ids = torch.zeros(few_sizes(len(asked)), width, dtype=torch.long)
        for row, i in enumerate(asked):
            ids[row, : lengths[row]] = torch.tensor(self.prompts[i])
        ids, lengths = ids.to(where), lengths.to(where)
        positions = torch.arange(width, device=where).expand_as(ids)
        read = Cache()
        mask = causal_mask(torch.ones_like(ids[:1]), self.model.shape.window)
        hidden = self.model.trunk.run(ids, positions, mask, read)
        last = hidden[torch.arange(len(asked), device=where), lengths - 1]

        places, self.free = self.free[: len(replies)], self.free[len(replies) :]
        of = {i: row for row, i in enumerate(asked)}
        rows = torch.tensor([of[reply // self.answers] for reply in replies], device=where)
        place = torch.tensor(places, device=where)
        self.longest = max(self.longest, longest)
        self.decoder.fit(self.longest + 1)
        self.decoder.put(place, read, rows, lengths[rows])
        self.logits[place] = self.model.head(last)[rows].to(self.logits.dtype)
        drawn = torch.zeros(len(replies), self.width)
        drawn[:, :new] = self.uniforms[replies]
        self.ring[place] = drawn.roll(self.step % self.width, dims=1).to(where)
        for row, reply in zip(places, replies, strict=True):
            room = self.model.shape.context - len(self.prompts[reply // self.answers])
            self.reply[row], self.begun[row], self.full[row] = reply, self.step, self.step + min(new, room)
        if self.seen is not None:
            said = torch.zeros(len(asked), self.seen.shape[1], dtype=torch.bool)
            for number, i in enumerate(asked):
                said[number, torch.tensor(self.prompts[i])] = True
            self.seen[place] = said.to(where)[rows]

    def _finish(self) -> Tensor | None:
        """Note the replies that are done; once none waits for their places, drop these. The rows that stay, if so."""
        hit = self.hit.tolist()
        done = [
            row
            for row, reply in enumerate(self.reply)
            if reply is not None and (hit[row] or self.full[row] <= self.step)
        ]
        ids, logps = self.ids[done].tolist(), self.logps[done].tolist()
        for number, row in enumerate(done):
            begun, count = self.begun[row] % self.width, min(self.full[row], self.step) - self.begun[row]
            said = (ids[number][begun:] + ids[number][:begun])[:count]
            ends = [place for place, token in enumerate(said) if token in self.sampling.stops]
            count = ends[0] + 1 if ends else count
            told = (logps[number][begun:] + logps[number][:begun])[:count]
            reply = self.reply[row]
            assert reply is not None
            self.replies[reply] = Reply(tuple(said[:count]), bool(ends), tuple(told))
            self.reply[row] = None
        self.free = [row for row, reply in enumerate(self.reply) if reply is None]
        busy = len(self.reply) - len(self.free)
        room = -(-busy // STEP) * STEP if busy > STEP else busy
        kept = None
        if not self.waiting and 0.75 * len(self.reply) >= room > 0:  # copying pays by then
            dropped = set(self.free[room - busy :])
            stay = [row for row in range(len(self.reply)) if row not in dropped]
            kept = torch.tensor(stay, device=self.device.torch)
            self.decoder.keep(kept)
            self.ring, self.ids, self.logps, self.hit = (t[kept] for t in (self.ring, self.ids, self.logps, self.hit))
            self.seen = None if self.seen is None else self.seen[kept]
            self.reply = [self.reply[row] for row in stay]
            self.begun, self.full = [self.begun[row] for row in stay], [self.full[row] for row in stay]
            self.free = [row for row, reply in enumerate(self.reply) if reply is None]
        if self.free:  # they compute for nobody: from the start again, where the room reaches
            idle = torch.tensor(self.free, device=self.device.torch)
            self.decoder.position[idle] = 0
            self.hit[idle] = False
        self._measure()
        return kept

    def _measure(self) -> None:
        """How long the longest row is, and when the next one will be full."""
        busy = [(row, reply) for row, reply in enumerate(self.reply) if reply is not None]
        if busy:
            self.due = min(self.full[row] for row, _ in busy)
            asked = (len(self.prompts[reply // self.answers]) - self.begun[row] for row, reply in busy)
            self.longest = self.step + max(asked)


def asked_every(device: Device) -> int:
    """Steps between two questions which rows are done: a GPU's answer waits for all that it was given to do."""
    return 8 if device.kind == "cuda" else 1


def _check(prompt: Sequence[int], context: int) -> None:
    if not prompt:
        raise ValueError("a prompt without a token: there is nothing to go on from.")
    if len(prompt) >= context:
        raise ValueError(f"a prompt of {len(prompt)} tokens leaves no room for an answer in a context of {context}.")
