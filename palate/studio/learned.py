"""What the reward model makes of the judgements, asked for by pages that do not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from palate.studio.effects import Arms, Changed, Curve, Effects, Surprises
from palate.studio.here import Studio

T = TypeVar("T")
State = Literal["none", "computing", "ready", "failed"]
PATIENCE = 0.2
"""Seconds that a page waits for what may be nearly there."""


class Learned(BaseModel, Generic[T]):
    """What is known so far. `state`: none (there is no reward model), computing, ready, failed; while it is computed
    anew `value` is what it was before."""

    state: State
    value: T | None
    error: str


def curve(studio: Studio) -> Learned[list[Curve]]:
    """Accuracy by how many judgements."""
    return _asked(studio, "curve", lambda effects: effects.curve())


def changed(studio: Studio, name: str) -> Learned[Changed]:
    """What one person's judgements changed."""
    return _asked(studio, f"changed by {name}", lambda effects: effects.changed(name))


def arms(studio: Studio) -> Learned[Arms]:
    """Active choice beside chance."""
    return _asked(studio, "arms", lambda effects: effects.arms())


def surprises(studio: Studio) -> Learned[Surprises]:
    """Where people and the reward model disagree most."""
    return _asked(studio, "surprises", lambda effects: effects.surprises())


def _asked(studio: Studio, what: str, compute: Callable[[Effects], T | None]) -> Learned[T]:
    effects = studio.effects
    if effects is None or not effects.ready:
        return Learned(state="none", value=None, error="")
    told = studio.background.ask(what, effects.key(), lambda: compute(effects), patience=PATIENCE)
    state: State = "computing" if told.computing else "failed" if told.error else "ready"
    return Learned(state=state, value=told.value, error=told.error)
