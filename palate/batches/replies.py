"""Prompts with replies -> padded rows, for scoring, ranking and PPO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.batches.packed import few_sizes, first_fit


@dataclass(frozen=True)
class Replies:
    """Rows of prompt and reply, padded on the right; time counts *predicted* positions.

    ids, segments (batch, time + 1): the whole row, and 1 on it / 0 on padding.
    targets (batch, time): ids shifted by one; mask (batch, time): 1 where the target belongs to the reply.
    """

    ids: Tensor
    segments: Tensor
    mask: Tensor

    @property
    def inputs(self) -> Tensor:
        """(batch, time): what the model reads."""
        return self.ids[:, :-1]

    @property
    def targets(self) -> Tensor:
        """(batch, time): what it should predict there."""
        return self.ids[:, 1:]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, numbers: Tensor | Sequence[int]) -> Replies:
        """Some of the rows."""
        return Replies(self.ids[numbers], self.segments[numbers], self.mask[numbers])

    def apart(self, row: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a row's prompt, and those of its reply."""
        ids = self.ids[row, : int(self.segments[row].sum())].tolist()
        start = int(self.mask[row].argmax()) + 1  # the first token of the reply; mask counts what is predicted
        return tuple(ids[:start]), tuple(ids[start:])

    def by_length(self, numbers: Tensor, rows: int) -> list[Tensor]:
        """`numbers` of rows, shortest first, in pieces of at most `rows`, each as wide as its own longest."""
        if len(numbers) == 0:
            return []
        lengths = self.segments[numbers].sum(dim=1).cpu()
        return list(torch.split(numbers[lengths.argsort(stable=True)], rows))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.segments.sum(dim=1).max())

    def cut(self, length: int) -> Replies:
        """The first `length` columns of the rows."""
        return Replies(self.ids[:, :length], self.segments[:, :length], self.mask[:, : length - 1])

    def side_by_side(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same texts with little padding, several in a row a little wider than the longest: ids and segments (rows,
        width), and place (batch, time + 1), where each token stands among theirs, counted row by row. Padding has the
        place of a token of its row."""
        lengths = self.segments.sum(dim=1)
        width = few_sizes(int(lengths.max()), bits=3)
        places = first_fit(lengths.tolist(), width=width)
        rows = few_sizes(1 + max(place.row for place in places))
        starts = torch.tensor([place.row * width + place.start for place in places], device=self.ids.device)
        numbers = torch.tensor([place.number for place in places], device=self.ids.device)
        real = self.segments.bool()
        place = starts[:, None] + (real.cumsum(dim=1) - 1).clamp(min=0)
        ids, segments = (torch.zeros(rows * width, dtype=torch.long, device=self.ids.device) for _ in range(2))
        ids[place[real]] = self.ids[real]
        segments[place[real]] = numbers[:, None].expand_as(self.ids)[real]
        return ids.view(rows, width), segments.view(rows, width), place

    def to(self, device: torch.device) -> Replies:
        """The same on another device."""
        return Replies(self.ids.to(device), self.segments.to(device), self.mask.to(device))


def lay_out(prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], *, pad: int) -> Replies:
    """Prompt and reply ids (the reply's end marker included) as rows. Sampled ids are used as they are."""
    length = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    ids = torch.full((len(prompts), length), pad, dtype=torch.long)
    segments = torch.zeros_like(ids)
    mask = torch.zeros(len(prompts), length - 1)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        end = len(prompt) + len(reply)
        ids[row, :end] = torch.tensor([*prompt, *reply])
        segments[row, :end] = 1
        mask[row, len(prompt) - 1 : end - 1] = 1.0
    return Replies(ids, segments, mask)
