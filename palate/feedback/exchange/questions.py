"""Files of questions: with a worked answer (GSM8K), and prompts alone, with the right answer beside them perhaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import ANSWERS, demonstrations, one_question, rest
from palate.feedback.exchange.instructions import ASKED, asked_of, write_asked
from palate.feedback.exchange.pile import Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.sheets import PROMPTS
from palate.feedback.exchange.turns import Left, beside_of, messages_of, read_turns, text_of, together, write_turns
from palate.records import Message, conversation

Row = Mapping[str, Any]
GSM8K, NAME = "gsm8k", "prompts"
MARK = "####"


def _right(answer: str) -> str:
    """The right answer, which follows "####" at the end of a whole solution (Cobbe et al. 2021)."""
    return answer.rpartition(MARK)[2].strip()


# --- GSM8K -----------------------------------------------------------------------------------------------------------


def is_gsm8k(row: Row) -> bool:
    """{"question", "answer"}, texts."""
    told = {key for key in row if key == "context" or ANSWERS.match(key)}
    return isinstance(row.get("question"), str) and isinstance(row.get("answer"), str) and told == {"answer"}


def read_gsm8k(pile: Pile, row: Row) -> None:
    """One demonstration, and in its `extra` the right answer, which a verifier compares with."""
    question, answer = text_of(row, "question"), text_of(row, "answer")
    extra = remembered(GSM8K, rest(row, "question", "answer"), always=True)
    pile.demonstrate(conversation(question, answer), {**extra, "answer": _right(answer)})


def write_gsm8k(pile: Pile) -> Iterator[Row]:
    """A row a demonstration of one question and one answer."""
    for record in demonstrations(pile):
        if not one_question(record.messages):
            pile.dropped["a conversation of more than one question"] += 1
            continue
        asked, said = record.messages
        yield {**left_of(record, GSM8K), "question": asked.content, "answer": said.content}


# --- prompts ---------------------------------------------------------------------------------------------------------


def is_asked(row: Row) -> bool:
    """{"prompt", "question" or "instruction"}, and anything beside it. Only who says that these are prompts can know
    that an `answer` is the right one and not somebody's."""
    return len(_keys(row)) == 1


def _keys(row: Row) -> list[str]:
    return [key for key in PROMPTS if isinstance(row.get(key), str | list if key == "prompt" else str)]


def read_asked(pile: Pile, row: Row) -> None:
    """One prompt. What else the row holds stands in its `extra`; `answer` is the right answer."""
    keys = _keys(row)
    if len(keys) != 1:
        raise ValueError(f"which is asked, {' or '.join(keys)}?" if keys else f"none of {', '.join(PROMPTS)} is there")
    (key,) = keys
    used: tuple[str, ...] = (key,)
    noted: Extra = {}
    if key == "instruction":
        beside = "context" if "context" in row else "input"
        messages, noted = asked_of(row, beside)
        used, noted["beside"] = (key, beside, *ASKED[2:]), beside
    elif isinstance(row[key], list):
        turns = read_turns(row[key])
        messages, noted = messages_of(turns), {"chat": True, "turns": beside_of(turns)}
    else:
        messages = (Message(role="user", content=row[key]),)
    if messages[-1].role != "user":
        raise Left("the last turn is not the person's")
    if not messages[-1].content.strip():
        raise Left("an empty prompt")
    left = rest(row, *used)
    answer = left.get("answer")
    if key == "question" and isinstance(answer, str) and _right(answer) != answer:
        left["answer"], noted["solution"] = _right(answer), answer
    pile.ask(messages, remembered(NAME, left, always=True, key=key, **noted), again=True)


def write_asked_rows(pile: Pile) -> Iterator[Row]:
    """A row a prompt."""
    for record in pile.prompts.values():
        told, left = details(record, NAME), left_of(record, NAME)
        if "solution" in told:
            left["answer"] = told["solution"]
        if told.get("key") == "instruction" and (row := write_asked(record.messages, record, NAME, told["beside"])):
            yield {**row, **left}
        elif one_question(record.messages) and not told.get("chat"):
            yield {told.get("key", "prompt"): record.messages[0].content, **left}
        else:
            yield {"prompt": write_turns(together(record.messages, told.get("turns", {}))), **left}
