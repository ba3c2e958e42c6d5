"""Files of pairs, the better answer and the worse one: TRL's preferences and labels, OpenAI's DPO, HH-RLHF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from palate.feedback.exchange.conversations import one_question, rest
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.turns import (
    MARK,
    Left,
    Turn,
    beside_of,
    messages_of,
    parting,
    read_transcript,
    read_turns,
    text_of,
    together,
    write_transcript,
    write_turns,
)
from palate.records import Judgement, Message, Prompt, Response

Row = Mapping[str, Any]


def add_pair(
    pile: Pile, name: str, liked: Sequence[Turn], other: Sequence[Turn], left: Extra, **noted: Any
) -> Judgement:
    """Two conversations of which somebody liked the first better, compared where they part. Raises Left."""
    place = parting(liked, other)
    prompt = pile.ask(messages_of(liked[:place]), remembered(name, turns=beside_of(liked[:place])))
    better, worse = (
        pile.answer(
            prompt,
            turns[place].message.content,
            remembered(name, turn=turns[place].beside, after=[_kept(turn) for turn in turns[place + 1 :]]),
        )
        for turns in (liked, other)
    )
    noted["asked"] = (noted.get("asked", place) - place) or None
    extra = remembered(name, left, always=True, **noted)
    return pile.judge(prompt, [(better, 1), (worse, 2)], extra)


def whole(prompt: Prompt, response: Response, name: str) -> list[Turn]:
    """A prompt, an answer to it, and what came after."""
    asked = together(prompt.messages, details(prompt, name).get("turns", {}))
    told = details(response, name)
    said = Turn(Message(role="assistant", content=response.text), told.get("turn", {}))
    after = [Turn(Message.from_json(kept["message"]), kept["beside"]) for kept in told.get("after", [])]
    return [*asked, said, *after]


def _kept(turn: Turn) -> dict[str, Any]:
    return {"message": turn.message.to_json(), "beside": turn.beside}


def _conversations(pile: Pile, name: str) -> Iterator[tuple[Judgement, int, list[Turn], list[Turn]]]:
    """(judgement, turns that stand before, better conversation, worse one) of every pair."""
    for judgement, prompt, better, worse in pile.pairs():
        before = len(prompt.messages) + details(judgement, name).get("asked", 0)
        yield judgement, before, whole(prompt, better, name), whole(prompt, worse, name)


# --- TRL, explicit ---------------------------------------------------------------------------------------------------


def _lists(row: Row, *keys: str) -> bool:
    return all(isinstance(row.get(key), list) for key in keys)


def _texts(row: Row, *keys: str) -> bool:
    return all(isinstance(row.get(key), str) for key in keys)


def _asks(turns: Any) -> bool:
    """Whether a list of messages begins with somebody else than the assistant."""
    return bool(turns) and isinstance(turns[0], Mapping) and turns[0].get("role") != "assistant"


def is_preference(row: Row) -> bool:
    """{"prompt", "chosen", "rejected"}, lists of messages; the prompt does not stand in the other two again."""
    return _lists(row, "prompt", "chosen", "rejected") and not _asks(row["chosen"])


def read_preference(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    prompt, chosen, rejected = (read_turns(row.get(key)) for key in ("prompt", "chosen", "rejected"))
    left = rest(row, "prompt", "chosen", "rejected")
    add_pair(pile, "trl-preference", prompt + chosen, prompt + rejected, left, asked=len(prompt))


def write_preference(pile: Pile) -> Iterator[Row]:
    """A row a pair."""
    for judgement, before, better, worse in _conversations(pile, "trl-preference"):
        yield {
            "prompt": write_turns(better[:before]),
            "chosen": write_turns(better[before:]),
            "rejected": write_turns(worse[before:]),
            **left_of(judgement, "trl-preference"),
        }


def is_preference_text(row: Row) -> bool:
    """{"prompt", "chosen", "rejected"}, all text."""
    return _texts(row, "prompt", "chosen", "rejected")


def read_preference_text(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    asked = Turn.of("user", text_of(row, "prompt"))
    liked, other = ([asked, Turn.of("assistant", text_of(row, key))] for key in ("chosen", "rejected"))
    add_pair(pile, "trl-preference-text", liked, other, rest(row, "prompt", "chosen", "rejected"))


def write_preference_text(pile: Pile) -> Iterator[Row]:
    """A row a pair of answers to one question."""
    for judgement, prompt, better, worse in pile.pairs():
        if one_question(prompt.messages):
            asked, left = prompt.messages[0].content, left_of(judgement, "trl-preference-text")
            yield {"prompt": asked, "chosen": better.text, "rejected": worse.text, **left}
        else:
            pile.dropped["a conversation of more than one question"] += 1


# --- TRL, implicit ---------------------------------------------------------------------------------------------------


def is_implicit(row: Row) -> bool:
    """{"chosen", "rejected"}, whole conversations as lists of messages."""
    return _lists(row, "chosen", "rejected") and _asks(row["chosen"])


def read_implicit(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    liked, other = read_turns(row.get("chosen")), read_turns(row.get("rejected"))
    add_pair(pile, "trl-implicit", liked, other, rest(row, "chosen", "rejected"))


def write_implicit(pile: Pile) -> Iterator[Row]:
    """A row a pair."""
    for judgement, _, better, worse in _conversations(pile, "trl-implicit"):
        left = left_of(judgement, "trl-implicit")
        yield {"chosen": write_turns(better), "rejected": write_turns(worse), **left}


def is_implicit_text(row: Row) -> bool:
    """{"chosen", "rejected"}, whole texts that begin alike and are no transcripts."""
    if not _texts(row, "chosen", "rejected") or {"prompt", "instruction"} & set(row):
        return False
    return not MARK.search(row["chosen"])


def read_implicit_text(pile: Pile, row: Row) -> None:
    """One judgement of two answers. What is asked is what both texts begin with, up to its last white space."""
    liked, other = text_of(row, "chosen"), text_of(row, "rejected")
    if liked.strip() == other.strip():
        raise Left("both answers are the same")
    alike = liked[: next((n for n, (a, b) in enumerate(zip(liked, other)) if a != b), min(len(liked), len(other)))]
    asked = alike[: max((n for n, letter in enumerate(alike, start=1) if letter.isspace()), default=0)]
    if not asked.strip():
        raise Left("the two texts do not begin alike")
    name, left = "trl-implicit-text", rest(row, "chosen", "rejected")
    prompt = pile.ask((Message(role="user", content=asked),), remembered(name, always=True))
    better, worse = (pile.answer(prompt, text[len(asked) :]) for text in (liked, other))
    pile.judge(prompt, [(better, 1), (worse, 2)], remembered(name, left, always=True))


def write_implicit_text(pile: Pile) -> Iterator[Row]:
    """A row a pair of answers to one question; an empty line stands between them unless the file had it otherwise."""
    name = "trl-implicit-text"
    for judgement, prompt, better, worse in pile.pairs():
        if one_question(prompt.messages):
            asked = prompt.messages[0].content + ("" if details(prompt, name) else "\n\n")
            yield {"chosen": asked + better.text, "rejected": asked + worse.text, **left_of(judgement, name)}
        else:
            pile.dropped["a conversation of more than one question"] += 1


# --- HH-RLHF ---------------------------------------------------------------------------------------------------------


def is_hh(row: Row) -> bool:
    """{"chosen", "rejected"}, transcripts."""
    return _texts(row, "chosen", "rejected") and "prompt" not in row and bool(MARK.search(row["chosen"]))


def read_hh(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    liked, other = (read_transcript(text_of(row, key)) for key in ("chosen", "rejected"))
    add_pair(pile, "hh", liked, other, rest(row, "chosen", "rejected"))


def write_hh(pile: Pile) -> Iterator[Row]:
    """A row a pair; what a transcript cannot hold is counted and left out."""
    for judgement, _, better, worse in _conversations(pile, "hh"):
        try:
            texts = {"chosen": write_transcript(better), "rejected": write_transcript(worse)}
        except Left as reason:
            pile.dropped[str(reason)] += 1
        else:
            yield {**texts, **left_of(judgement, "hh")}


# --- OpenAI DPO ------------------------------------------------------------------------------------------------------


def is_dpo(row: Row) -> bool:
    """{"input": {"messages"}, "preferred_output", "non_preferred_output"}."""
    return isinstance(row.get("input"), Mapping) and {"preferred_output", "non_preferred_output"} <= set(row)


def read_dpo(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    told = row.get("input")
    if not isinstance(told, Mapping):
        raise ValueError("input is no object with messages")
    prompt = read_turns(told.get("messages"))
    liked, other = read_turns(row.get("preferred_output")), read_turns(row.get("non_preferred_output"))
    left = rest(row, "input", "preferred_output", "non_preferred_output")
    beside = rest(told, "messages")
    add_pair(pile, "openai-dpo", prompt + liked, prompt + other, left, asked=len(prompt), input=beside)


def write_dpo(pile: Pile) -> Iterator[Row]:
    """A row a pair."""
    for judgement, before, better, worse in _conversations(pile, "openai-dpo"):
        beside = details(judgement, "openai-dpo").get("input", {})
        yield {
            "input": {"messages": write_turns(better[:before]), **beside},
            "preferred_output": write_turns(better[before:]),
            "non_preferred_output": write_turns(worse[before:]),
            **left_of(judgement, "openai-dpo"),
        }


# --- TRL, unpaired ---------------------------------------------------------------------------------------------------


def is_unpaired(row: Row) -> bool:
    """{"prompt", "completion", "label"}, lists of messages and whether they are good."""
    return _lists(row, "prompt", "completion") and isinstance(row.get("label"), bool)


def is_unpaired_text(row: Row) -> bool:
    """{"prompt", "completion", "label"}, texts and whether the second is a good answer."""
    return _texts(row, "prompt", "completion") and isinstance(row.get("label"), bool)


def read_unpaired(pile: Pile, row: Row) -> None:
    """One answer with its label, which orders nothing: no judgement is made of it."""
    before, after = read_turns(row.get("prompt")), read_turns(row.get("completion"))
    _label(pile, "trl-unpaired", before, after, row)


def read_unpaired_text(pile: Pile, row: Row) -> None:
    """One answer with its label, which orders nothing: no judgement is made of it."""
    before, after = [Turn.of("user", text_of(row, "prompt"))], [Turn.of("assistant", text_of(row, "completion"))]
    _label(pile, "trl-unpaired-text", before, after, row)


def _label(pile: Pile, name: str, before: list[Turn], after: list[Turn], row: Row) -> None:
    if not isinstance(row.get("label"), bool):
        raise ValueError("label is neither true nor false")
    if before[-1].message.role != "user" or after[0].message.role != "assistant":
        raise Left("the completion does not answer the person")
    prompt = pile.ask(messages_of(before), remembered(name, turns=beside_of(before)))
    told = {"turn": after[0].beside, "after": [_kept(turn) for turn in after[1:]], "label": row["label"]}
    left = rest(row, "prompt", "completion", "label")
    pile.answer(prompt, after[0].message.content, remembered(name, left, **told), again=True)


def write_unpaired(pile: Pile) -> Iterator[Row]:
    """A row a labelled answer; then, of every judgement, the best as good and the last as bad."""
    for prompt, response, label, left in _labelled(pile, "trl-unpaired"):
        turns, before = whole(prompt, response, "trl-unpaired"), len(prompt.messages)
        yield {
            "prompt": write_turns(turns[:before]), "completion": write_turns(turns[before:]), "label": label, **left
        }  # fmt: skip


def write_unpaired_text(pile: Pile) -> Iterator[Row]:
    """The same where there is one question."""
    for prompt, response, label, left in _labelled(pile, "trl-unpaired-text"):
        if one_question(prompt.messages):
            yield {"prompt": prompt.messages[0].content, "completion": response.text, "label": label, **left}
        else:
            pile.dropped["a conversation of more than one question"] += 1


def _labelled(pile: Pile, name: str) -> Iterator[tuple[Prompt, Response, bool, Extra]]:
    for response in pile.responses.values():
        told = details(response, name)
        if "label" in told:
            yield pile.prompts[response.prompt_id], response, told["label"], left_of(response, name)
    for judgement in pile.judgements.values():
        ends = {min(judgement.ranks.values(), default=0), max(judgement.ranks.values(), default=0)}
        if len(ends) < 2:
            pile.dropped["a judgement that puts nothing above another"] += 1
            continue
        for id_, rank in judgement.ranks.items():
            if rank in ends:
                yield pile.prompts[judgement.prompt_id], pile.responses[id_], rank == min(ends), {}
