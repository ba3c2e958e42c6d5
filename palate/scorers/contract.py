"""What every scorer promises, and what holds it to it.

A scorer says what each of several answers is worth: `scorer(prompts, texts) -> list[float]`, one finite number per
text, where `prompts[i]` is what `texts[i]` answers. It has no state that changes what it says: the same answer to the
same prompt is worth the same, otherwise a run that was killed would not go on as it began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from palate.errors import ScorerFailed
from palate.records import Prompt

Scorer = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
"""(prompts, texts), both (batch) -> scores (batch), higher is better."""


class Weighted(NamedTuple):
    """A scorer with the name it has in records and errors, and its weight in the sum."""

    name: str
    weight: float
    scorer: Scorer


def checked(given: object, name: str, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
    """What a scorer returned, as one finite float per text: numbers of any kind that `float` takes, True and False too.

    Raises ScorerFailed, which names the scorer, the prompt and the value.
    """
    if isinstance(given, str | bytes | Mapping | set) or not isinstance(given, Iterable):
        raise ScorerFailed(
            f"{name} returned {brief(given)}, not a list of {len(texts)} numbers. Return one number per text."
        )
    values = list(given)
    if len(values) != len(texts):
        raise ScorerFailed(f"{name} returned {len(values)} values for {len(texts)} texts. Return one number per text.")
    return [_finite(value, name, prompt, text) for value, prompt, text in zip(values, prompts, texts, strict=True)]


def _finite(value: object, name: str, prompt: Prompt, text: str) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ScorerFailed(
            f"{name} returned {brief(value)} for the answer {brief(text)} to {about(prompt)}; a score is a finite "
            f"number, and what cannot be scored is an error, not a low score."
        )
    return score


def score_each(scorers: Iterable[Weighted], prompts: Sequence[Prompt], texts: Sequence[str]) -> dict[str, list[float]]:
    """Name of each scorer -> its scores (batch), unweighted. Raises ScorerFailed."""
    return {one.name: checked(one.scorer(prompts, texts), one.name, prompts, texts) for one in scorers}


def combined(scorers: Iterable[Weighted], scores: Mapping[str, Sequence[float]]) -> list[float]:
    """The weighted sum (batch) of what `score_each` gave."""
    columns = [[one.weight * score for score in scores[one.name]] for one in scorers]
    return [math.fsum(row) for row in zip(*columns, strict=True)]  # fsum: the order of scorers makes no difference


def about(prompt: Prompt) -> str:
    """A prompt in an error: its id and how its last turn begins."""
    return f"prompt {prompt.id} ({brief(prompt.messages[-1].content)})"


def brief(value: object) -> str:
    """A value in an error, 60 characters of it."""
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:60]}..."
