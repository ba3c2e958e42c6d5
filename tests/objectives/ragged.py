"""Unpadded rows <-> padded tensors: a random prompt before each reply, random padding after it, rubbish in both."""

import random

import torch
from torch import Tensor

RUBBISH = (1e3, -7.0, 0.0)
"""What stands where nothing counts."""


class Ragged:
    """Where each row of a batch lies in its padded tensor. mask (batch, time) is float64, 1 on the row's numbers."""

    def __init__(self, rng: random.Random, lengths: list[int]) -> None:
        self.rng, self.lengths = rng, lengths
        self.starts = [rng.randrange(4) for _ in lengths]
        width = max(s + n for s, n in zip(self.starts, lengths)) + rng.randrange(3)
        self.mask = torch.zeros(len(lengths), max(width, 1), dtype=torch.float64)
        for row, (start, length) in enumerate(zip(self.starts, lengths)):
            self.mask[row, start : start + length] = 1.0

    def rows(self, low: float, high: float) -> list[list[float]]:
        """Random numbers, one list per row."""
        return [[self.rng.uniform(low, high) for _ in range(n)] for n in self.lengths]

    def pad(self, rows: list[list[float]]) -> Tensor:
        """(batch, time) with gradients on."""
        padded = torch.tensor(
            [[self.rng.choice(RUBBISH) for _ in range(self.mask.shape[1])] for _ in rows], dtype=torch.float64
        )
        for row, (start, values) in enumerate(zip(self.starts, rows)):
            padded[row, start : start + len(values)] = torch.tensor(values, dtype=torch.float64)
        return padded.requires_grad_()

    def unpad(self, padded: Tensor) -> list[list[float]]:
        """The rows again. What is not theirs must be 0."""
        assert (padded.detach()[self.mask == 0] == 0).all(), "something outside the rows counts"
        return [row[start : start + n].tolist() for row, start, n in zip(padded, self.starts, self.lengths)]


def batches(count: int, *, most_rows: int = 5, longest: int = 6, shortest: int = 1) -> list[Ragged]:
    """`count` batches from fixed seeds; the first is one row of one token."""
    made = [Ragged(random.Random(0), [1])]
    for seed in range(1, count):
        rng = random.Random(seed)
        made.append(Ragged(rng, [rng.randint(shortest, longest) for _ in range(rng.randint(1, most_rows))]))
    return made


def close(ours: object, wanted: object, within: float) -> None:
    """Numbers, or nested lists of them, that differ by at most `within` times the wanted one (or 1 if it is less)."""
    if isinstance(ours, list):
        assert isinstance(wanted, list) and len(ours) == len(wanted)
        for a, b in zip(ours, wanted):
            close(a, b, within)
        return
    a, b = (x.item() if isinstance(x, Tensor) else x for x in (ours, wanted))
    assert abs(a - b) <= within * max(1.0, abs(b)), (a, b)
