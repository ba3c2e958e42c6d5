"""Rows that hold several texts which do not see each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Packed:
    """Tensors (batch, time). Each position predicts `targets`; `weights` says how much that counts; positions with the
    same number in `segments` belong to one text, 0 is padding."""

    ids: Tensor
    targets: Tensor
    weights: Tensor
    segments: Tensor

    def split(self, rows: int) -> Iterator[Packed]:
        """The same rows in pieces of at most `rows`."""
        for start in range(0, len(self.ids), rows):
            cut = slice(start, start + rows)
            yield Packed(self.ids[cut], self.targets[cut], self.weights[cut], self.segments[cut])

    def rows(self, numbers: Sequence[int]) -> Packed:
        """Some of the rows."""
        return Packed(self.ids[numbers], self.targets[numbers], self.weights[numbers], self.segments[numbers])

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        return Packed(*(t.to(device) for t in (self.ids, self.targets, self.weights, self.segments)))


def few_sizes(count: int, bits: int = 4) -> int:
    """`count` or a little more: the next number of which only the leading `bits` are set. With 4 it is an eighth more
    at most, and there are eight between a number and its double; with 3 a quarter, and four. Libraries make code for
    every new size of a product, which takes longer than a small product itself (docs/log.md)."""
    step = 1 << max(0, count.bit_length() - bits)
    return -(-count // step) * step


def filled_up(values: Tensor) -> Tensor:
    """values (n), with zeros behind them until there are as many as are met often."""
    return F.pad(values, (0, few_sizes(len(values)) - len(values)))


class Place(NamedTuple):
    """Where a text stands: in which row, from which column, and as which text of its row (1, 2, ...)."""

    row: int
    start: int
    number: int


def first_fit(lengths: Sequence[int], *, width: int) -> list[Place]:
    """Places for texts of these lengths, none of which is longer than `width`, in rows of it: longest first, each in
    the first row with room."""
    room: list[int] = []
    count: list[int] = []
    places = [Place(0, 0, 1)] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, left in enumerate(room) if left >= lengths[i]), len(room))
        if row == len(room):
            room.append(width)
            count.append(0)
        count[row] += 1
        places[i] = Place(row, width - room[row], count[row])
        room[row] -= lengths[i]
    return places


def pack(texts: Sequence[tuple[Sequence[int], Sequence[int]]], *, width: int, pad: int) -> Packed:
    """Put (ids, weights) of whole texts into as few rows of `width` as first-fit, longest first, finds.

    weights[i] belongs to ids[i] as a *target*: position i-1 predicts it. A text longer than `width` is a ValueError.
    """
    lengths = [len(ids) - 1 for ids, _ in texts]  # inputs are all ids but the last
    if lengths and max(lengths) > width:
        raise ValueError(f"a text of {max(lengths) + 1} tokens does not fit rows of {width}.")
    places = first_fit(lengths, width=width)
    shape = (1 + max((place.row for place in places), default=-1), width)
    ids = torch.full(shape, pad, dtype=torch.long)
    targets = torch.full(shape, pad, dtype=torch.long)
    weights = torch.zeros(shape)
    segments = torch.zeros(shape, dtype=torch.long)
    for (text, counted), place in zip(texts, places, strict=True):
        where = (place.row, slice(place.start, place.start + len(text) - 1))
        ids[where] = torch.tensor(text[:-1])
        targets[where] = torch.tensor(text[1:])
        weights[where] = torch.tensor(counted[1:], dtype=torch.float32)
        segments[where] = place.number
    return Packed(ids, targets, weights, segments)
