"""Answers of one model at several temperatures, and what a judge says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from palate.measure.intervals import Interval, bootstrap, win_rate
from palate.records import Prompt

Scores = dict[str, float]
Judge = Callable[[Prompt, str], Scores]
"""Prompt and text -> score by name, "overall" among them."""


@dataclass(frozen=True)
class Answers:
    """One answer to each of some prompts, with its scores."""

    model: str
    temperature: float
    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    scores: tuple[Scores, ...]
    ended: float
    """Share of the answers that ended by themselves."""

    def column(self, name: str) -> list[float]:
        """One score of every answer, in the order of the prompts."""
        return [scores[name] for scores in self.scores]

    def mean(self, name: str = "overall") -> float:
        """Mean of one score."""
        values = self.column(name)
        return sum(values) / len(values)

    def intervals(self) -> dict[str, dict[str, float | int]]:
        """Every score's mean with its interval."""
        return {name: bootstrap(self.column(name)).to_json() for name in self.scores[0]}


def best_temperature(answers: Sequence[Answers]) -> float:
    """The temperature with the highest mean overall; choose it on dev, never on test."""
    return max(answers, key=lambda a: (a.mean(), -a.temperature)).temperature


def gain(ours: Answers, theirs: Answers, name: str = "overall") -> Interval:
    """Paired mean difference of one score over the same prompts."""
    _same(ours, theirs)
    return bootstrap([a - b for a, b in zip(ours.column(name), theirs.column(name), strict=True)])


def gain_by_skill(ours: Answers, theirs: Answers) -> dict[str, dict[str, object]]:
    """Per skill of the prompts: both means of overall, and the paired change with its interval."""
    _same(ours, theirs)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for prompt, a, b in zip(ours.prompts, ours.column("overall"), theirs.column("overall"), strict=True):
        pairs.setdefault(prompt.skill, []).append((a, b))
    return {
        skill: {
            theirs.model: round(sum(b for _, b in told) / len(told), 5),
            ours.model: round(sum(a for a, _ in told) / len(told), 5),
            "change": bootstrap([a - b for a, b in told]).to_json(),
        }
        for skill, told in sorted(pairs.items())
        if skill
    }


def wins(ours: Answers, theirs: Answers) -> Interval:
    """Win rate by the overall score over the same prompts."""
    _same(ours, theirs)
    return win_rate(ours.column("overall"), theirs.column("overall"))


def _same(ours: Answers, theirs: Answers) -> None:
    if [p.id for p in ours.prompts] != [p.id for p in theirs.prompts]:
        raise ValueError(f"{ours.model} and {theirs.model} did not answer the same prompts.")


def by_skill(answers: Answers, judged: Mapping[str, Callable[[Prompt, str], float]]) -> dict[str, Interval]:
    """Per task, the share of its prompts that are answered right."""
    found: dict[str, Interval] = {}
    for skill, right in judged.items():
        values = [right(p, t) for p, t in zip(answers.prompts, answers.texts, strict=True) if p.skill == skill]
        if values:
            found[skill] = bootstrap(values)
    return found
