"""What the reward model makes of the judgements, asked for by pages that do not wait for it."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from palate.studio.background import Told
from palate.studio.effects import Arms, Changed, Curve
from palate.studio.here import Studio

T = TypeVar("T")
PATIENCE = 0.2
"""Seconds that a page waits for what may be nearly there."""


class Learned(BaseModel, Generic[T]):
    """What is known so far. `state`: none (there is no reward model), computing, ready, failed; while it is computed
    anew `value` is what it was before."""

    state: Literal["none", "computing", "ready", "failed"]
    value: T | None
    error: str


def curve(studio: Studio) -> Learned[list[Curve]]:
    """Accuracy by how many judgements."""
    effects = studio.effects
    if effects is None or not effects.ready:
        return Learned(state="none", value=None, error="")
    return _learned(studio.background.ask("curve", effects.key(), effects.curve, patience=PATIENCE))


def changed(studio: Studio, name: str) -> Learned[Changed]:
    """What one person's judgements changed."""
    effects = studio.effects
    if effects is None or not effects.ready:
        return Learned(state="none", value=None, error="")
    make = effects.changed
    return _learned(studio.background.ask(f"changed by {name}", effects.key(), lambda: make(name), patience=PATIENCE))


def arms(studio: Studio) -> Learned[Arms]:
    """Active choice beside chance."""
    effects = studio.effects
    if effects is None or not effects.ready:
        return Learned(state="none", value=None, error="")
    return _learned(studio.background.ask("arms", effects.key(), effects.arms, patience=PATIENCE))


def _learned(told: Told[T]) -> Learned[T]:
    state: Literal["computing", "ready", "failed"] = (
        "computing" if told.computing else "failed" if told.error else "ready"
    )
    return Learned(state=state, value=told.value, error=told.error)
