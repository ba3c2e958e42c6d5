"""Counting optimizer steps, and what is due after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """step: how many steps are done once this tick's body has run."""

    step: int
    evaluate: bool
    save: bool


def ticks(steps: int, *, start: int, evaluate_every: int, save_every: int) -> Iterator[Tick]:
    """One tick per step after `start`. The last step is always measured; it is not saved, because what follows it is
    the finished artifact."""
    for step in range(start + 1, steps + 1):
        last = step == steps
        yield Tick(step, evaluate=last or step % evaluate_every == 0, save=not last and step % save_every == 0)
