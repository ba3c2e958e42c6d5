"""Which families of prompts are for training, which for tuning, which are read once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

from palate.records import Split


def assign(families: Iterable[str], *, dev: int, test: int, seed: int) -> dict[str, Split]:
    """A split for every family, so that about `dev` and `test` of the prompts given (one family name per prompt) fall
    there. Whole families move; at least half of the prompts stay for training."""
    sizes = Counter(families)
    order = sorted(sizes)
    random.Random(f"{seed} split").shuffle(order)
    total = sizes.total()
    scale = min(1.0, 0.5 * total / max(dev + test, 1))
    room: dict[Split, float] = {"test": test * scale, "dev": dev * scale}
    found: dict[str, Split] = {}
    for family in order:
        split: Split = next((name for name, left in room.items() if left >= sizes[family]), "train")
        if split != "train":
            room[split] -= sizes[family]
        found[family] = split
    return found
