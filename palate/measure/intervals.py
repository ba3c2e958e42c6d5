"""Means with 95 % bootstrap intervals over prompts (Efron 1979; percentile method)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 2000  # the interval's ends then move by less than a hundredth of its width from seed to seed


@dataclass(frozen=True)
class Interval:
    """A mean, the ends of its 95 % interval, and how many prompts it stands on."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """{"mean", "low", "high", "n"}."""
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Mean of one value per prompt with its interval. For two models pass the paired differences.

    Raises ValueError without values: an empty measurement is not zero.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("there is nothing to average.")
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 200):  # in pieces, so that a large n does not need n * 2000 numbers at once
        picks = rng.integers(0, data.size, size=(200, data.size))
        means[start : start + 200] = data[picks].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(data.mean()), float(low), float(high), int(data.size))


def win_rate(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Interval:
    """Mean of 1, 1/2, 0 for a reply that is better than, as good as, or worse than the paired one."""
    return bootstrap([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(ours, theirs, strict=True)], seed=seed)
