"""Files of conversations and prompts: messages (TRL, OpenAI), TRL's prompt-only and prompt-completion, ShareGPT."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.turns import (
    Left,
    Turn,
    beside_of,
    messages_of,
    read_turns,
    text_of,
    together,
    write_turns,
)
from palate.records import Conversation, Demonstration, Prompt

Row = Mapping[str, Any]
ANSWERS = re.compile(r"(answer|response|completion|output|chosen|rejected|messages|text|ranks)|.*\.responses")
"""Keys that hold answers, response_a and answers among them. A row with one of them is no bare prompt."""


def rest(row: Row, *used: str) -> Extra:
    """What a row holds beyond the keys that were used."""
    return {key: value for key, value in row.items() if key not in used}


def one_question(messages: Conversation) -> bool:
    """Whether a conversation is one question, and one answer perhaps."""
    return [m.role for m in messages] in (["user"], ["user", "assistant"])


def demonstrations(pile: Pile) -> Iterator[Demonstration]:
    """Those a model should learn from; what was not accepted is counted and left out."""
    for record in pile.demonstrations.values():
        if record.status != "accepted":
            pile.dropped[f"a demonstration that is {record.status}"] += 1
        else:
            yield record


def _ended(turns: list[Turn]) -> list[Turn]:
    if turns[-1].message.role != "assistant":
        raise Left("the last turn is not the assistant's")
    return turns


# --- messages --------------------------------------------------------------------------------------------------------


def is_messages(row: Row) -> bool:
    """{"messages": [{"role", "content"}]}, and tools perhaps."""
    return isinstance(row.get("messages"), list) and not {"chosen", "rejected"} & set(row)


def read_messages(pile: Pile, row: Row) -> None:
    """One demonstration; one prompt where the person has the last word."""
    turns = read_turns(row.get("messages"))
    left, noted = rest(row, "messages"), beside_of(turns)
    if turns[-1].message.role == "user":
        pile.ask(messages_of(turns), remembered("messages", left, always=True, turns=noted), again=True)
    else:
        pile.demonstrate(messages_of(_ended(turns)), remembered("messages", left, turns=noted))


def write_messages(pile: Pile) -> Iterator[Row]:
    """A row a demonstration, then a row a prompt that such a file asked."""
    asked = [record for record in pile.prompts.values() if details(record, "messages")]
    every: Iterator[Demonstration | Prompt] = itertools.chain(demonstrations(pile), asked)
    for record in every:
        turns = together(record.messages, details(record, "messages").get("turns", {}))
        yield {"messages": write_turns(turns), **left_of(record, "messages")}


# --- ShareGPT --------------------------------------------------------------------------------------------------------

SHAREGPT = {"user": "human", "assistant": "gpt"}


def is_sharegpt(row: Row) -> bool:
    """{"conversations": [{"from", "value"}]}."""
    return isinstance(row.get("conversations"), list) and not {"chosen", "rejected"} & set(row)


def read_sharegpt(pile: Pile, row: Row) -> None:
    """One demonstration."""
    turns = []
    for turn in read_turns(row.get("conversations"), "from", "value"):
        spelt = turn.beside.get("role", turn.message.role)
        usual = SHAREGPT.get(turn.message.role, turn.message.role)
        told = {key: value for key, value in turn.beside.items() if key != "role"}
        turns.append(Turn(turn.message, told if spelt == usual else {**told, "role": spelt}))
    _ended(turns)
    extra = remembered("sharegpt", rest(row, "conversations"), turns=beside_of(turns))
    pile.demonstrate(messages_of(turns), extra)


def write_sharegpt(pile: Pile) -> Iterator[Row]:
    """A row a demonstration."""
    for record in demonstrations(pile):
        turns = together(record.messages, details(record, "sharegpt").get("turns", {}))
        yield {**left_of(record, "sharegpt"), "conversations": write_turns(turns, "from", "value", SHAREGPT)}


# --- TRL: prompt and completion --------------------------------------------------------------------------------------


def is_completion(row: Row) -> bool:
    """{"prompt", "completion"}, both lists of messages."""
    return isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list) and "label" not in row


def read_completion(pile: Pile, row: Row) -> None:
    """One demonstration."""
    before, after = read_turns(row.get("prompt")), read_turns(row.get("completion"))
    turns = _ended(before + after)
    asked = len(before) if len(after) > 1 else None
    extra = remembered("trl-completion", rest(row, "prompt", "completion"), turns=beside_of(turns), asked=asked)
    pile.demonstrate(messages_of(turns), extra)


def write_completion(pile: Pile) -> Iterator[Row]:
    """A row a demonstration; the completion is its last turn."""
    for record in demonstrations(pile):
        told = details(record, "trl-completion")
        turns = write_turns(together(record.messages, told.get("turns", {})))
        asked = told.get("asked", len(turns) - 1)
        yield {"prompt": turns[:asked], "completion": turns[asked:], **left_of(record, "trl-completion")}


def is_completion_text(row: Row) -> bool:
    """{"prompt", "completion"}, both text."""
    return isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str) and "label" not in row


def read_completion_text(pile: Pile, row: Row) -> None:
    """One demonstration."""
    turns = [Turn.of("user", text_of(row, "prompt")), Turn.of("assistant", text_of(row, "completion"))]
    pile.demonstrate(messages_of(turns), remembered("trl-completion-text", rest(row, "prompt", "completion")))


def write_completion_text(pile: Pile) -> Iterator[Row]:
    """A row a demonstration of one question and one answer."""
    for record in demonstrations(pile):
        if not one_question(record.messages):
            pile.dropped["a conversation of more than one question"] += 1
            continue
        asked, said = record.messages
        yield {"prompt": asked.content, "completion": said.content, **left_of(record, "trl-completion-text")}


# --- TRL: prompts ----------------------------------------------------------------------------------------------------


def is_prompt(row: Row) -> bool:
    """{"prompt"}, a list of messages, without an answer."""
    return isinstance(row.get("prompt"), list) and not any(ANSWERS.match(key) for key in row)


def read_prompt(pile: Pile, row: Row) -> None:
    """One prompt."""
    turns = read_turns(row.get("prompt"))
    if turns[-1].message.role != "user":
        raise Left("the last turn is not the person's")
    extra = remembered("trl-prompt", rest(row, "prompt"), turns=beside_of(turns))
    pile.ask(messages_of(turns), extra, again=True)


def write_prompt(pile: Pile) -> Iterator[Row]:
    """A row a prompt."""
    for record in pile.prompts.values():
        turns = together(record.messages, details(record, "trl-prompt").get("turns", {}))
        yield {"prompt": write_turns(turns), **left_of(record, "trl-prompt")}


def is_prompt_text(row: Row) -> bool:
    """{"prompt"}, a text, without an answer."""
    return isinstance(row.get("prompt"), str) and not any(ANSWERS.match(key) for key in row)


def read_prompt_text(pile: Pile, row: Row) -> None:
    """One prompt."""
    turns = [Turn.of("user", text_of(row, "prompt"))]
    pile.ask(messages_of(turns), remembered("trl-prompt-text", rest(row, "prompt")), again=True)


def write_prompt_text(pile: Pile) -> Iterator[Row]:
    """A row a prompt of one turn."""
    for record in pile.prompts.values():
        if one_question(record.messages):
            yield {"prompt": record.messages[0].content, **left_of(record, "trl-prompt-text")}
        else:
            pile.dropped["a conversation of more than one question"] += 1
