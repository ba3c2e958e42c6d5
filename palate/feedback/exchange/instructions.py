"""Files of instructions: Alpaca (with a system prompt and a history, as LLaMA-Factory has it), its ranked and paired
kinds, and Dolly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import demonstrations, one_question, rest
from palate.feedback.exchange.pile import Any_, Extra, Pile, details, left_of, remembered
from palate.feedback.exchange.turns import Left, text_of
from palate.records import Conversation, Message, conversation

Row = Mapping[str, Any]
ASKED = ("instruction", "input", "system", "history")


def asked_of(row: Row, beside: str = "input") -> tuple[Conversation, Extra]:
    """The messages before the answer, and what is needed to write them again. An input follows its instruction behind
    an empty line; white space around both is none of what is asked."""
    instruction, below = text_of(row, "instruction"), text_of(row, beside) if row.get(beside) is not None else ""
    if not f"{instruction}{below}".strip():
        raise Left("an empty instruction")
    history = row.get("history") or []
    if not isinstance(history, list) or not all(_two_texts(turn) for turn in history):
        raise ValueError("history is no list of question and answer")
    system = text_of(row, "system") if row.get("system") else None
    whole = f"{instruction}\n\n{below}" if below else instruction
    asked = whole.strip()
    said = (*(text for turn in history for text in turn), asked)
    start = whole.index(asked)
    empty = {key: row[key] for key in (beside, *ASKED[2:]) if key in row and not row[key]}
    if empty.get(beside) == "":
        del empty[beside]  # which is usual
    noted = {
        "instruction": len(instruction) if below else None,
        "empty": empty,
        "bare": beside not in row or None,
        "space": [whole[:start], whole[start + len(asked) :]] if asked != whole else [],
    }
    return conversation(*said, system=system), noted


def _two_texts(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)


def write_asked(messages: Conversation, record: Any_, name: str, beside: str = "input") -> Extra | None:
    """The keys of an instruction; None, where the turns before the answer are others."""
    told = details(record, name)
    system, turns = ([messages[0]], messages[1:]) if messages[0].role == "system" else ([], messages)
    if len(turns) % 2 == 0 or any(m.role != ("user", "assistant")[n % 2] for n, m in enumerate(turns)):
        return None
    before, after = told.get("space", ("", ""))
    asked, split = f"{before}{turns[-1].content}{after}", told.get("instruction")
    row: Extra = {"instruction": asked if split is None else asked[:split]}
    if not told.get("bare"):
        row[beside] = "" if split is None else asked[split + 2 :]
    if system:
        row["system"] = system[0].content
    if len(turns) > 1:
        said = [message.content for message in turns[:-1]]
        row["history"] = [list(turn) for turn in zip(said[::2], said[1::2], strict=True)]
    row |= told.get("empty", {})
    return row


ODD = "turns that are not a question, an answer, a question..."


# --- Alpaca ----------------------------------------------------------------------------------------------------------


def is_alpaca(row: Row) -> bool:
    """{"instruction", "input", "output"}."""
    return isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)


def read_alpaca(pile: Pile, row: Row) -> None:
    """One demonstration."""
    messages, noted = asked_of(row)
    said = Message(role="assistant", content=text_of(row, "output"))
    extra = remembered("alpaca", rest(row, *ASKED, "output"), **noted)
    pile.demonstrate((*messages, said), extra)


def write_alpaca(pile: Pile) -> Iterator[Row]:
    """A row a demonstration."""
    for record in demonstrations(pile):
        row = write_asked(record.messages[:-1], record, "alpaca")
        if row is None:
            pile.dropped[ODD] += 1
        else:
            yield {**row, "output": record.messages[-1].content, **left_of(record, "alpaca")}


# --- Dolly -----------------------------------------------------------------------------------------------------------


def is_dolly(row: Row) -> bool:
    """{"instruction", "context", "response", "category"}."""
    return isinstance(row.get("instruction"), str) and isinstance(row.get("response"), str)


def read_dolly(pile: Pile, row: Row) -> None:
    """One demonstration; its category is its skill."""
    messages, noted = asked_of(rest(row, "system", "history"), "context")
    said, category = Message(role="assistant", content=text_of(row, "response")), row.get("category")
    skill = category if isinstance(category, str) and category else ""
    used = ("instruction", "context", "response", "category" if skill else "")
    pile.demonstrate((*messages, said), remembered("dolly", rest(row, *used), always=True, **noted), skill=skill)


def write_dolly(pile: Pile) -> Iterator[Row]:
    """A row a demonstration of one question and one answer."""
    for record in demonstrations(pile):
        row = write_asked(record.messages[:-1], record, "dolly", "context")
        if row is None or not one_question(record.messages):
            pile.dropped["a conversation of more than one question"] += 1
            continue
        category = {"category": record.skill} if record.skill or not details(record, "dolly") else {}
        yield {**row, "response": record.messages[-1].content, **category, **left_of(record, "dolly")}


# --- Alpaca with several outputs -------------------------------------------------------------------------------------


def is_alpaca_ranked(row: Row) -> bool:
    """{"instruction", "input", "output": [best, ..., worst]}."""
    return isinstance(row.get("instruction"), str) and isinstance(row.get("output"), list)


def read_alpaca_ranked(pile: Pile, row: Row) -> None:
    """One judgement; an answer that stands twice has the better of its places."""
    outputs = row.get("output")
    if not isinstance(outputs, list) or not all(isinstance(text, str) for text in outputs):
        raise ValueError("output is no list of texts, best first")
    different = list(dict.fromkeys(outputs))
    if len(different) < 2:
        raise Left("fewer than two different answers")
    messages, noted = asked_of(row)
    prompt = pile.ask(messages, remembered("alpaca-ranked", **noted))
    answers = [pile.answer(prompt, text) for text in different]
    order = [different.index(text) for text in outputs] if len(different) < len(outputs) else None
    extra = remembered("alpaca-ranked", rest(row, *ASKED, "output"), always=True, order=order)
    pile.judge(prompt, [(answer, rank) for rank, answer in enumerate(answers, start=1)], extra)


def write_alpaca_ranked(pile: Pile) -> Iterator[Row]:
    """A row a judgement, without the answers that were not ranked."""
    for judgement in pile.judgements.values():
        prompt = pile.prompts[judgement.prompt_id]
        row = write_asked(prompt.messages, prompt, "alpaca-ranked")
        if row is None:
            pile.dropped[ODD] += 1
        elif len(judgement.ranks) < 2 or len(set(judgement.ranks.values())) < len(judgement.ranks):
            pile.dropped["a tie or no order, which a list of outputs cannot say"] += 1
        else:
            ranked = [pile.responses[id_].text for id_ in sorted(judgement.ranks, key=judgement.ranks.__getitem__)]
            order = details(judgement, "alpaca-ranked").get("order", range(len(ranked)))
            yield {**row, "output": [ranked[n] for n in order], **left_of(judgement, "alpaca-ranked")}


def is_alpaca_preference(row: Row) -> bool:
    """{"instruction", "input", "chosen", "rejected"}."""
    return all(isinstance(row.get(key), str) for key in ("instruction", "chosen", "rejected"))


def read_alpaca_preference(pile: Pile, row: Row) -> None:
    """One judgement of two answers."""
    name = "alpaca-preference"
    liked, other = text_of(row, "chosen"), text_of(row, "rejected")
    if liked.strip() == other.strip():
        raise Left("both answers are the same")
    messages, noted = asked_of(row)
    prompt = pile.ask(messages, remembered(name, **noted))
    left = rest(row, *ASKED, "chosen", "rejected")
    better, worse = (pile.answer(prompt, text) for text in (liked, other))
    pile.judge(prompt, [(better, 1), (worse, 2)], remembered(name, left, always=True))


def write_alpaca_preference(pile: Pile) -> Iterator[Row]:
    """A row a pair."""
    for judgement, prompt, better, worse in pile.pairs():
        row = write_asked(prompt.messages, prompt, "alpaca-preference")
        if row is None:
            pile.dropped[ODD] += 1
        else:
            left = left_of(judgement, "alpaca-preference")
            yield {**row, "chosen": better.text, "rejected": worse.text, **left}
