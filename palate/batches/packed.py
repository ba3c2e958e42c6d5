"""Rows that hold several texts which do not see each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


def pack(texts: Sequence[tuple[Sequence[int], Sequence[int]]], *, width: int, pad: int) -> Packed:
    """Put (ids, weights) of whole texts into as few rows of `width` as first-fit, longest first, finds.

    weights[i] belongs to ids[i] as a *target*: position i-1 predicts it. A text longer than `width` is a ValueError.
    """
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i][0]), i))
    rows: list[list[int]] = []
    room: list[int] = []
    for i in order:
        length = len(texts[i][0]) - 1  # inputs are all ids but the last
        if length > width:
            raise ValueError(f"a text of {length + 1} tokens does not fit rows of {width}.")
        place = next((r for r, left in enumerate(room) if left >= length), None)
        if place is None:
            rows.append([])
            room.append(width)
            place = len(rows) - 1
        rows[place].append(i)
        room[place] -= length
    shape = (len(rows), width)
    ids = torch.full(shape, pad, dtype=torch.long)
    targets = torch.full(shape, pad, dtype=torch.long)
    weights = torch.zeros(shape)
    segments = torch.zeros(shape, dtype=torch.long)
    for r, members in enumerate(rows):
        at = 0
        for number, i in enumerate(members, start=1):
            text, counted = texts[i]
            end = at + len(text) - 1
            ids[r, at:end] = torch.tensor(text[:-1])
            targets[r, at:end] = torch.tensor(text[1:])
            weights[r, at:end] = torch.tensor(counted[1:], dtype=torch.float32)
            segments[r, at:end] = number
            at = end
    return Packed(ids, targets, weights, segments)
