"""Which language a text is in: py3langid (after langid.py, Lui and Baldwin 2012), whose model is in its wheel."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

SHORT = 60  # letters; below it the classifier guesses, and a short text is dropped by other rules or kept
SURE = 0.5  # a wanted language that has a tenth of the mass against an unsure winner gets the benefit of the doubt
POSSIBLE = 0.1
READ = 4_000  # characters; more change no verdict


@functools.cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def guess(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, probability) of the most probable language.

    >>> guess("Voici une recette facile que les enfants aiment beaucoup.")[0]
    'fr'
    """
    code, probability = _classifier().classify(text[:READ])
    return str(code), float(probability)


def judge(text: str, wanted: Sequence[str]) -> tuple[str, str | None]:
    """(language, reason to drop the text or None). An empty `wanted` keeps everything.

    A text too short to tell is kept and its language is "" unless only one is wanted.
    """
    if sum(1 for c in text[:READ] if c.isalpha()) < SHORT:
        return (wanted[0] if len(wanted) == 1 else ""), None
    code, probability = guess(text)
    if not wanted or code in wanted:
        return code, None
    if probability < SURE:
        for other, likely in _classifier().rank(text[:READ])[:5]:
            if other in wanted and float(likely) >= POSSIBLE:
                return str(other), None
    return code, f"language {code}"
