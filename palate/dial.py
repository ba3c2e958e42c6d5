"""One dial: a number of layers -> a whole model and how it is pretrained (docs/dial.md: the rule and its sweep)."""

from __future__ import annotations

from palate.recipe import Model

WIDTH = 64
"""Width per layer, and of every head: depth and width grow together."""


def model(layers: int, context: int) -> Model:
    """The shape of that depth."""
    return Model(layers=layers, dim=WIDTH * layers, heads=layers, context=context)


def warmup(steps: int) -> int:
    """A twentieth of the steps."""
    return max(1, steps // 20)
