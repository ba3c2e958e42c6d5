"""What an answer is worth, without people and without torch: your function, a verifier, a judge ([scoring], and
docs/scoring.md). `contract` says what a scorer is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from palate.recipe import Scoring
from palate.scorers import function
from palate.scorers.contract import Scorer, Weighted, checked, combined, score_each
from palate.scorers.judge import Judge, instructions
from palate.scorers.verifier import verifier

__all__ = ["GRADES", "Scorer", "Weighted", "checked", "combined", "fingerprint", "open", "score_each"]

GRADES = "judge.jsonl"
"""In the run folder: every grade that was paid for. A control's are in the folder of its run."""


def open(settings: Scoring, *, memory: Path | None) -> list[Weighted]:
    """(name, weight, scorer) of everything the section names, the reward model not among them.

    memory: the file in which a judge's grades are kept between runs of one folder; None forgets them. Raises BadInput
    for a function that cannot be loaded and a key that is not there; nobody is asked anything yet.
    """
    found: list[Weighted] = []
    if (own := settings.function) is not None:
        found.append(Weighted(function.short(own.name), own.weight, function.load(own.name)))
    if (right := settings.verifier) is not None:
        found.append(Weighted(f"verifier {right.kind}", right.weight, verifier(right.kind)))
    if settings.judge is not None:
        asked = Judge(settings.judge, memory)
        found.append(Weighted(asked.name, settings.judge.weight, asked))
    return found


def fingerprint(settings: Scoring) -> dict[str, str]:
    """What tells that scores would be others now, for a stage's `outside`: each scorer's weight, the hash of a
    function's file, a judge's address, model and instructions. Not in it: how long and how often a judge is asked, the
    name of its key, and `learned`, which is the policies' own. Raises BadInput when a function's file cannot be read.
    """
    told: dict[str, str] = {}
    if (own := settings.function) is not None:
        told[own.name] = f"{own.weight} {function.fingerprint(own.name)}"
    if (right := settings.verifier) is not None:
        told[f"verifier {right.kind}"] = str(right.weight)
    if (asked := settings.judge) is not None:
        words = hashlib.sha256(instructions(asked).encode()).hexdigest()
        told[f"judge {asked.model}"] = f"{asked.weight} {asked.url} {words}"
    return told
