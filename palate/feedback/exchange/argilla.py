"""Argilla's records with a ranking question: nested, as `to_list()` gives them, and flat (`to_list(flatten=True)`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palate.feedback.exchange.conversations import one_question, rest
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered, who
from palate.feedback.exchange.sheets import ANSWER, PROMPTS
from palate.feedback.exchange.turns import Left, beside_of, competition, messages_of, read_turns, together, write_turns
from palate.records import Judgement, Message, Prompt, Response

Row = Mapping[str, Any]
NESTED, FLAT = "argilla", "argilla-flat"
QUESTION = "ranking"
"""What the ranking question is called where no file says."""


def is_nested(row: Row) -> bool:
    """{"id", "fields": {}, "responses": {question: [{"value", "user_id"}]}, "suggestions", "metadata", "vectors"}."""
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping)


def read_nested(pile: Pile, row: Row) -> None:
    """A prompt, its answers, and a judgement of everybody who ranked them."""
    fields, given = row.get("fields"), row.get("responses")
    if not isinstance(fields, Mapping) or not isinstance(given, Mapping):
        raise ValueError("fields and responses are no objects")
    for answers in given.values():
        if not isinstance(answers, list) or not all(isinstance(a, Mapping) and "value" in a for a in answers):
            raise ValueError("the responses to a question are no list of objects with a value")
    question = _question(given)
    asked, options = _fields(fields, given.get(question, []) if question else [])
    prompt, answers = _ask(
        pile,
        NESTED,
        fields,
        asked,
        options,
        rest(row, "fields", "responses"),
        question=question,
        more=rest(fields, asked, *options),
        others={name: value for name, value in given.items() if name != question},
        silent=question is None or None,
    )
    for answer in given[question] if question else ():
        user = answer["user_id"] if isinstance(answer.get("user_id"), str) else ""
        left = rest(answer, "value", "user_id" if user else "")
        _judge(pile, NESTED, prompt, answers, answer["value"], user, left)


def write_nested(pile: Pile) -> Iterator[Row]:
    """A row a prompt."""
    judged = pile.judged()
    for prompt in pile.prompts.values():
        told = details(prompt, NESTED)
        names = _names(pile, prompt, NESTED)
        responses = [
            {
                "value": _value(judgement, names),
                **({"user_id": judgement.annotator} if who(judgement) else {}),
                **left_of(judgement, NESTED),
            }
            for judgement in judged.get(prompt.id, [])
        ]
        question = {} if told.get("silent") and not responses else {told.get("question", QUESTION): responses}
        fresh: Extra = {"id": prompt.id, "metadata": {}, "suggestions": {}, "vectors": {}, "_server_id": None}
        yield {
            "fields": {**_written(pile, prompt, NESTED, names), **told.get("more", {})},
            "responses": {**question, **told.get("others", {})},
            **(left_of(prompt, NESTED) if told else fresh),
        }


# --- flat ------------------------------------------------------------------------------------------------------------

ENDS = (".responses", ".responses.users", ".responses.status")


def is_flat(row: Row) -> bool:
    """{field: text, ..., "question.responses": [...], "question.responses.users", "question.responses.status"}."""
    return any(key.endswith(ENDS[0]) for key in row) and "fields" not in row


def read_flat(pile: Pile, row: Row) -> None:
    """The same as of a nested record."""
    given = {
        key.removesuffix(ENDS[0]): [{"value": value} for value in values or ()]
        for key, values in row.items()
        if key.endswith(ENDS[0]) and isinstance(values, list | None)
    }
    question = _question(given)
    if question is None:
        raise Left("nobody ranked it")
    columns = [row.get(f"{question}{end}") for end in ENDS]
    if any(column is not None and len(column) != len(given[question]) for column in columns if _listed(column)):
        raise ValueError(f"{question}.responses and its users or status are not as many")
    keys = [f"{question}{end}" for end in ENDS]
    fields = {key: value for key, value in row.items() if "." not in key and key not in ("id", "_server_id", "status")}
    asked, options = _fields(fields, given[question])
    left = rest(row, asked, *options, *(key for key in keys if _listed(row.get(key))))
    without = [end for end, column in zip(ENDS, columns) if not _listed(column)]
    prompt, answers = _ask(pile, FLAT, fields, asked, options, left, question=question, without=without)
    for number, answer in enumerate(given[question]):
        user, status = (column[number] if isinstance(column, list) else None for column in columns[1:])
        if status == "draft":
            pile.dropped["a draft of a ranking"] += 1
            continue
        told = {"status": status if status != "submitted" else None, "nobody": (user is None) or None}
        _judge(pile, FLAT, prompt, answers, answer["value"], user or "", {}, **told)


def _listed(column: Any) -> bool:
    return isinstance(column, list)


def write_flat(pile: Pile) -> Iterator[Row]:
    """A row a prompt that somebody ranked."""
    judged = pile.judged()
    for prompt in pile.prompts.values():
        told, given, names = details(prompt, FLAT), judged.get(prompt.id, []), _names(pile, prompt, FLAT)
        if not given:
            pile.dropped["a prompt that nobody ranked"] += 1
            continue
        question = told.get("question", QUESTION)
        users = [None if details(j, FLAT).get("nobody") else j.annotator for j in given]
        status = [details(j, FLAT).get("status", "submitted" if j.ranks else "discarded") for j in given]
        columns = dict(zip(ENDS, ([_value(j, names) for j in given], users, status), strict=True))
        kept = {f"{question}{end}": column for end, column in columns.items() if end not in told.get("without", [])}
        fresh = {"id": prompt.id, "_server_id": None}
        yield {**_written(pile, prompt, FLAT, names), **kept, **(left_of(prompt, FLAT) if told else fresh)}


# --- both ------------------------------------------------------------------------------------------------------------


def _is_ranking(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "rank" in v for v in value)


def _question(given: Mapping[str, Sequence[Row]]) -> str | None:
    """The ranking question; none where nobody ranked. Raises ValueError when there are two."""
    found = [name for name, answers in given.items() if any(_is_ranking(answer["value"]) for answer in answers)]
    if len(found) > 1:
        raise ValueError(f"there are several ranking questions ({', '.join(found)}); leave one of them in the file")
    return found[0] if found else None


def _fields(fields: Row, given: Sequence[Row]) -> tuple[str, list[str]]:
    """Which field is asked and which are the answers: those that are ranked."""
    ranked = {str(one.get("value")) for told in given if _is_ranking(told["value"]) for one in told["value"]}
    if unknown := sorted(ranked - set(fields)):
        raise ValueError(f"the ranking names {unknown[0]}, which is no field")
    options = [key for key in fields if (key in ranked if ranked else ANSWER.match(key.lower()))]
    if any(not isinstance(fields[key], str) for key in options):
        raise ValueError("an answer is no text")
    if len({fields[key] for key in options}) < 2:
        raise Left("fewer than two different answers")
    others = [key for key, value in fields.items() if key not in options and isinstance(value, str | list)]
    named = [key for key in others if key.lower() in PROMPTS]
    if len(named) != 1 and len(others) != 1:
        raise ValueError(f"which field is the prompt? Name one of {', '.join(others) or 'them'} prompt")
    return (named if len(named) == 1 else others)[0], options


def _ask(
    pile: Pile, name: str, fields: Row, asked: str, options: Sequence[str], left: Extra, **told: Any
) -> tuple[Prompt, dict[str, Response]]:
    said = fields[asked]
    turns = read_turns(said) if isinstance(said, list) else []
    messages = messages_of(turns) if turns else (Message(role="user", content=said),)
    if messages[-1].role != "user":
        raise Left("the last turn is not the person's")
    chat, usual = bool(turns) or None, asked if asked != "prompt" else None
    extra = remembered(name, left, always=True, asked=usual, chat=chat, turns=beside_of(turns), **told)
    prompt = pile.ask(messages, extra, again=True)
    return prompt, {key: pile.answer(prompt, fields[key], remembered(name, field=key), again=True) for key in options}


def _judge(
    pile: Pile, name: str, prompt: Prompt, answers: Mapping[str, Response], value: Any, user: str, left: Extra,
    **told: Any,
) -> None:  # fmt: skip
    if value is None:
        extra = remembered(name, left, always=True, **told)
        pile.judge(prompt, [], extra, annotator=user, cannot_rank="discarded")
        return
    if not _is_ranking(value) or any(type(one["rank"]) is not int for one in value):
        raise ValueError("a ranking is no list of objects with value and rank")
    ranks = competition([one["rank"] for one in value])
    odd = [one["rank"] for one in value] if ranks != [one["rank"] for one in value] else None
    ranked = [(answers[str(one["value"])], rank) for one, rank in zip(value, ranks)]
    pile.judge(prompt, ranked, remembered(name, left, always=True, ranks=odd, **told), annotator=user)


def _names(pile: Pile, prompt: Prompt, name: str) -> dict[str, str]:
    """Answer -> its field."""
    found: dict[str, str] = {}
    for answer in pile.answers(prompt.id):
        field, number = details(answer, name).get("field"), len(found) + 1
        while field is None or field in found.values():
            field, number = f"response_{number}", number + 1
        found[answer.id] = field
    return found


def _written(pile: Pile, prompt: Prompt, name: str, names: Mapping[str, str]) -> Extra:
    told = details(prompt, name)
    asked: Any = prompt.messages[0].content
    if told.get("chat") or not one_question(prompt.messages):
        asked = write_turns(together(prompt.messages, told.get("turns", {})))
    texts = {names[answer.id]: answer.text for answer in pile.answers(prompt.id)}
    return {told.get("asked", "prompt"): asked, **texts}


def _value(judgement: Judgement, names: Mapping[str, str]) -> list[dict[str, Any]] | None:
    told = details(judgement, NESTED) or details(judgement, FLAT)
    ranks = told.get("ranks", judgement.ranks.values())
    return [{"value": names[id_], "rank": rank} for id_, rank in zip(judgement.ranks, ranks)] or None
