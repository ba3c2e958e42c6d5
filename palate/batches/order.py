"""Which items a step sees: epochs of random permutations, computed from (seed, step) alone."""

from __future__ import annotations

import random
from functools import lru_cache


def step_items(*, count: int, per_step: int, step: int, seed: object) -> list[int]:
    """The items of optimizer step `step` (1, 2, ...): `per_step` of them, from permutations of range(count) that
    follow each other epoch after epoch. A step may span two epochs."""
    first = (step - 1) * per_step
    return [_permutation(count, at // count, repr(seed))[at % count] for at in range(first, first + per_step)]


@lru_cache(maxsize=4)
def _permutation(count: int, epoch: int, seed: str) -> tuple[int, ...]:
    items = list(range(count))
    random.Random(f"{seed} epoch {epoch}").shuffle(items)
    return tuple(items)
