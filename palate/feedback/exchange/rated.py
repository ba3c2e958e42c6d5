"""UltraFeedback: answers of several models with the scores a model gave them, which are `simulated`: nobody judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import rest
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.turns import Left, competition, text_of
from palate.records import Message, Prompt, Response

Row = Mapping[str, Any]
NAME = "ultrafeedback"
ASPECTS = {"helpfulness": "helpfulness", "truthfulness": "accuracy"}
"""Their aspects -> our criteria; honesty and instruction_following have none and stay in `extra`."""
MISREAD, SURE, LOW = 10, 4.0, 2.0
"""The first edition read the score "1" as 10. Its authors' correction (issue 8 of OpenBMB/UltraFeedback): where the
mean of the fine-grained ratings is at most LOW the score is 1, above SURE it is 10; in between they asked again, and we
do not know."""


def is_rated(row: Row) -> bool:
    """{"instruction", "models", "completions": [{"model", "response", "annotations", "overall_score"}]}."""
    return isinstance(row.get("instruction"), str) and isinstance(row.get("completions"), list)


def read_rated(pile: Pile, row: Row) -> None:
    """One judgement by the overall scores, with the ratings of two aspects as criteria."""
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(told, Mapping) for told in completions):
        raise ValueError("completions is no list of objects")
    texts = [text_of(told, "response") for told in completions]
    scores = [_score(pile, told) for told in completions]
    usable = {text for text, score in zip(texts, scores) if score is not None}
    if len(usable) < 2:
        raise Left("fewer than two different answers with a score")
    message = Message(role="user", content=text_of(row, "instruction"))
    prompt = pile.ask((message,), remembered(NAME, rest(row, "instruction", "completions"), always=True), again=True)
    answers = [_answer(pile, prompt, told) for told in completions]
    ranked = [(answer, score) for answer, score in zip(answers, scores) if score is not None]
    ranks = competition([-score for _, score in ranked])
    pile.judge(
        prompt,
        [(answer, rank) for (answer, _), rank in zip(ranked, ranks)],
        remembered(NAME, always=True, answers=[answer.id for answer in answers]),
        criteria={answer.id: marks for answer, told in zip(answers, completions) if (marks := _marks(told))},
        simulated=True,
    )


def _score(pile: Pile, told: Row) -> float | None:
    score = told.get("overall_score")
    if score is None:
        return None
    if not isinstance(score, int | float) or isinstance(score, bool):
        raise ValueError(f"the overall_score {score!r} is no number")
    if score != MISREAD:
        return float(score)
    fine = told.get("fine-grained_score")
    mean = float(fine) if isinstance(fine, int | float) and not isinstance(fine, bool) else _mean(told)
    if mean is None or LOW < mean <= SURE:
        pile.noted["overall scores of 10 that may have been 1, not ranked"] += 1
        return None
    if mean <= LOW:
        pile.noted["overall scores of 10 taken for 1"] += 1
        return 1.0
    return float(score)


def _ratings(told: Row) -> Iterator[tuple[str, str]]:
    annotations = told.get("annotations")
    for aspect, note in annotations.items() if isinstance(annotations, Mapping) else ():
        if isinstance(note, Mapping) and note.get("Rating") in ("1", "2", "3", "4", "5"):
            yield aspect, note["Rating"]


def _mean(told: Row) -> float | None:
    ratings = [int(rating) for _, rating in _ratings(told)]
    return sum(ratings) / len(ratings) if ratings else None


def _marks(told: Row) -> dict[str, float]:
    return {ASPECTS[aspect]: float(rating) for aspect, rating in _ratings(told) if aspect in ASPECTS}


def _answer(pile: Pile, prompt: Prompt, told: Row) -> Response:
    left = rest(told, "response", "model")
    marked = [aspect for aspect, _ in _ratings(told) if aspect in ASPECTS]
    if marked:
        left["annotations"] = {
            aspect: rest(note, "Rating") if aspect in marked else note for aspect, note in told["annotations"].items()
        }
    model = told["model"] if isinstance(told.get("model"), str) else ""
    if not model and "model" in told:
        left["model"] = told["model"]
    extra = remembered(NAME, left, always=True)
    return pile.answer(prompt, told["response"], extra, origin="model", model=model, again=True)


def write_rated(pile: Pile) -> Iterator[Row]:
    """A row a judgement that has overall scores. Scores are not made up: what people ranked has none."""
    for judgement in pile.judgements.values():
        prompt, told = pile.prompts[judgement.prompt_id], details(judgement, NAME)
        if not told:
            pile.dropped["a judgement that has no overall scores"] += 1
            continue
        completions = []
        for answer in pile.shown(judgement, NAME):
            left = left_of(answer, NAME)
            _write_marks(left, judgement.criteria.get(answer.id, {}))
            model = {"model": answer.model} if answer.model else {}
            completions.append({**model, "response": answer.text, **left})
        yield {"instruction": prompt.messages[0].content, "completions": completions, **left_of(prompt, NAME)}


def _write_marks(left: Extra, marks: Mapping[str, float]) -> None:
    if marks:
        rated = {aspect: f"{marks[ours]:g}" for aspect, ours in ASPECTS.items() if ours in marks}
        left["annotations"] = {
            aspect: {**note, "Rating": rated[aspect]} if aspect in rated else note
            for aspect, note in left["annotations"].items()
        }
