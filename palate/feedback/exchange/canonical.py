"""Palate's own lines: whole records, and plain K-way rankings (prompt, responses, ranks)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palate.feedback.exchange.conversations import one_question, rest
from palate.feedback.exchange.pile import Pile, details, left_of, remembered, who
from palate.feedback.exchange.turns import Left, beside_of, competition, messages_of, read_turns, together, write_turns
from palate.records import Demonstration, Judgement, Message, Prompt, Record, Response

Row = Mapping[str, Any]


def is_palate(row: Row) -> bool:
    """{"prompt": record, "responses": [record, ...], "judgements": [record, ...]}, or {"demonstration": record}."""
    prompt = row.get("prompt")
    return "demonstration" in row or (isinstance(prompt, Mapping) and "messages" in prompt)


def read_palate(pile: Pile, row: Row) -> None:
    """The records as they are."""
    unknown = sorted(set(row) - {"prompt", "responses", "judgements", "demonstration"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    if "demonstration" in row:
        record = Demonstration.from_json(row["demonstration"])
        _same(pile.demonstrations.setdefault(record.id, record), record)
        return
    prompt = Prompt.from_json(row.get("prompt") or {})
    responses = [Response.from_json(told) for told in _listed(row, "responses")]
    judgements = [Judgement.from_json(told) for told in _listed(row, "judgements")]
    _check_ids(prompt, responses, judgements)
    _same(pile.prompts.setdefault(prompt.id, prompt), prompt)
    for response in responses:
        _same(pile.add_response(response), response)
    for judgement in judgements:
        _same(pile.judgements.setdefault(judgement.id, judgement), judgement)


def _listed(row: Row, key: str) -> list[Any]:
    told = row.get(key, [])
    if not isinstance(told, list):
        raise ValueError(f"{key} is no list")
    return told


def _check_ids(prompt: Prompt, responses: Sequence[Response], judgements: Sequence[Judgement]) -> None:
    known = {response.id: response for response in responses}
    if any(known[response.id] != response for response in responses):
        raise ValueError("two different responses have the same id")
    told = [(r.id, r.prompt_id) for r in responses] + [(j.id, j.prompt_id) for j in judgements]
    for id_, prompt_id in told:
        if prompt_id != prompt.id:
            raise ValueError(f"{id_} belongs to the prompt {prompt_id}, this one is {prompt.id}")
    for judgement in judgements:
        unknown = sorted((set(judgement.ranks) | set(judgement.criteria)) - set(known))
        if unknown:
            raise ValueError(f"the ranking names the answer {unknown[0]}, which is not among the responses")


def _same(known: Any, record: Record) -> None:
    if known != record:
        raise ValueError(f"another record has the id {known.id}")


def write_palate(pile: Pile) -> Iterator[Row]:
    """A row a demonstration, then a row a prompt with all its answers and judgements."""
    for record in pile.demonstrations.values():
        yield {"demonstration": record.to_json()}
    judged = pile.judged()
    for prompt in pile.prompts.values():
        yield {
            "prompt": prompt.to_json(),
            "responses": [response.to_json() for response in pile.answers(prompt.id)],
            "judgements": [judgement.to_json() for judgement in judged.get(prompt.id, [])],
        }


# --- plain rankings --------------------------------------------------------------------------------------------------


def is_kway(row: Row) -> bool:
    """{"prompt", "responses": [text, ...], "ranks": [1, 2, ...], "annotator"}; without ranks it is to be ranked."""
    told = row.get("responses")
    asked = isinstance(row.get("prompt"), str | list)
    return asked and isinstance(told, list) and all(isinstance(text, str) for text in told)


def read_kway(pile: Pile, row: Row) -> None:
    """One judgement, or a prompt with its answers."""
    told, texts = row.get("prompt"), row.get("responses")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("responses are no list of texts")
    if len(set(texts)) < 2:
        raise Left("fewer than two different answers")
    if len(set(texts)) < len(texts):
        raise Left("an answer that stands twice")
    if not isinstance(told, str | list):
        raise ValueError("prompt is neither text nor a list of messages")
    turns = read_turns(told) if isinstance(told, list) else []
    messages = messages_of(turns) if turns else (Message(role="user", content=str(told)),)
    if messages[-1].role != "user":
        raise Left("the last turn is not the person's")
    if not messages[-1].content.strip():
        raise Left("an empty prompt")
    ranks = row.get("ranks")
    left = rest(row, "prompt", "responses", "ranks", "annotator" if ranks is not None else "")
    chat = bool(turns) or None
    noted = remembered("kway", left if ranks is None else {}, chat=chat, turns=beside_of(turns))
    prompt = pile.ask(messages, noted, again=ranks is None)
    answers = [pile.answer(prompt, text) for text in texts]
    if ranks is None:
        return
    if not isinstance(ranks, list) or len(ranks) != len(texts):
        raise ValueError("ranks are no list of as many numbers as there are responses")
    if any(rank is not None and type(rank) is not int for rank in ranks):
        raise ValueError("a rank is a whole number, or null")
    annotator = row.get("annotator", "")
    if not isinstance(annotator, str):
        raise ValueError("annotator is no text")
    ordered = [(answer, rank) for answer, rank in zip(answers, ranks) if rank is not None]
    places = competition([rank for _, rank in ordered])
    odd = ranks if places != [rank for _, rank in ordered] else None
    extra = remembered("kway", left, always=True, answers=[answer.id for answer in answers], ranks=odd)
    pile.judge(prompt, [(a, place) for (a, _), place in zip(ordered, places)], extra, annotator=annotator)


def write_kway(pile: Pile) -> Iterator[Row]:
    """A row a judgement, then a row a prompt that nobody judged."""
    judged = pile.judged()
    for judgement in pile.judgements.values():
        answers = pile.shown(judgement, "kway")
        ranks = details(judgement, "kway").get("ranks", [judgement.ranks.get(answer.id) for answer in answers])
        annotator = {"annotator": judgement.annotator} if who(judgement) else {}
        asked = _asked(pile, judgement.prompt_id)
        texts = [answer.text for answer in answers]
        yield {"prompt": asked, "responses": texts, "ranks": ranks, **annotator, **left_of(judgement, "kway")}
    for prompt in pile.prompts.values():
        answers = pile.answers(prompt.id)
        if prompt.id not in judged and answers:
            texts = [answer.text for answer in answers]
            yield {"prompt": _asked(pile, prompt.id), "responses": texts, **left_of(prompt, "kway")}


def _asked(pile: Pile, prompt_id: str) -> Any:
    prompt = pile.prompts[prompt_id]
    told = details(prompt, "kway")
    if told.get("chat") or not one_question(prompt.messages):
        return write_turns(together(prompt.messages, told.get("turns", {})))
    return prompt.messages[0].content
