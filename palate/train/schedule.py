"""Learning rate by step: linear warm-up to the peak, then one of four shapes."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Step (1, 2, ...) -> learning rate."""


def _constant(progress: float) -> float:
    return 1.0


def _cosine(progress: float) -> float:
    """Down to a tenth of the peak (Hoffmann et al. 2022, appendix B)."""
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float) -> float:
    return 1.0 - progress


def _wsd(progress: float) -> float:
    """Warmup-stable-decay: constant, then linear to zero over the last fifth (Hu et al. 2024, "MiniCPM")."""
    return min(1.0, (1.0 - progress) / 0.2)


SHAPES = {"constant": _constant, "cosine": _cosine, "linear": _linear, "wsd": _wsd}


def schedule(kind: str, *, peak: float, warmup: int, steps: int) -> Schedule:
    """The learning rate of each step."""
    shape = SHAPES[kind]

    def rate(step: int) -> float:
        if step <= warmup:
            return peak * step / warmup
        # The last step still learns a little: progress reaches 1 only after it.
        return peak * shape((step - 1 - warmup) / max(1, steps - warmup))

    return rate
