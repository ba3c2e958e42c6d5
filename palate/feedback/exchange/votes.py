"""Questions with answers that people voted on, as forums of the Stack Exchange kind have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import rest
from palate.feedback.exchange.pile import Pile, details, left_of, remembered
from palate.feedback.exchange.turns import Left, competition, text_of
from palate.records import Message

Row = Mapping[str, Any]
NAME = "stackexchange"


def is_votes(row: Row) -> bool:
    """{"title", "body", "answers": [{"text", "score"}]}."""
    return isinstance(row.get("answers"), list) and bool({"title", "body"} & set(row))


def read_votes(pile: Pile, row: Row) -> None:
    """One judgement: more votes rank higher, as many rank alike."""
    told = _votes(row)
    if len({text for text, _ in told}) < 2:
        raise Left("fewer than two different answers")
    parts = {key: text_of(row, key) for key in ("title", "body") if key in row}
    if not "".join(parts.values()).strip():
        raise Left("an empty question")
    asked = "\n\n".join(part for part in parts.values() if part)
    said = [key for key, part in parts.items() if part]
    noted = {
        "title": len(parts["title"]) if len(said) == 2 else None,
        "only": said[0] if len(said) == 1 else None,
        "empty": [key for key, part in parts.items() if not part],
    }
    extra = remembered(NAME, rest(row, "title", "body", "answers"), always=True, **noted)
    prompt = pile.ask((Message(role="user", content=asked),), extra, again=True)
    ranked = [
        pile.answer(prompt, answer["text"], remembered(NAME, rest(answer, "text"), always=True), again=True)
        for answer in row["answers"]
    ]
    ranks = competition([-score for _, score in told])
    pile.judge(prompt, list(zip(ranked, ranks)), remembered(NAME, always=True))


def _votes(row: Row) -> list[tuple[str, int]]:
    """(text, votes) of the answers."""
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(answer, Mapping) for answer in answers):
        raise ValueError("answers is no list of objects")
    for answer in answers:
        if type(answer.get("score")) is not int:
            raise ValueError(f"the score {answer.get('score')!r} is no whole number")
    return [(text_of(answer, "text"), answer["score"]) for answer in answers]


def write_votes(pile: Pile) -> Iterator[Row]:
    """A row a question whose answers have votes. Votes are not made up: what people ranked elsewhere has none."""
    for judgement in pile.judgements.values():
        prompt = pile.prompts[judgement.prompt_id]
        told = details(prompt, NAME)
        if not told or not details(judgement, NAME):
            pile.dropped["a judgement that has no votes"] += 1
            continue
        asked = prompt.messages[0].content
        title = told.get("title")
        parts = {"title": asked[:title], "body": asked[title + 2 :]} if title else {told["only"]: asked}
        answers = [
            {"text": answer.text, **left_of(answer, NAME)}
            for answer in pile.answers(prompt.id)
            if details(answer, NAME)
        ]
        yield {**parts, **dict.fromkeys(told.get("empty", ()), ""), **left_of(prompt, NAME), "answers": answers}
