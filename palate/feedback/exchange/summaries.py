"""OpenAI's comparisons of summaries (summarize-from-feedback): a post or an article, two summaries, a choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from palate.feedback.exchange.conversations import rest
from palate.feedback.exchange.pile import Pile, details, left_of, remembered, who
from palate.feedback.exchange.turns import Left, text_of
from palate.records import Message, Prompt, Response

Row = Mapping[str, Any]
NAME = "openai-comparisons"
TASK = "Summarise this text."
KEYS = ("info", "summaries", "choice", "worker")


def is_comparison(row: Row) -> bool:
    """{"info": {"post" or "article", "title", ...}, "summaries": [{"text", "policy"}, ...], "choice", "worker"}."""
    return isinstance(row.get("info"), Mapping) and isinstance(row.get("summaries"), list)


def read_comparison(pile: Pile, row: Row) -> None:
    """One judgement of two answers. The person is asked for a summary; the text follows its title."""
    info, summaries, choice = row.get("info"), row.get("summaries"), row.get("choice")
    if not isinstance(info, Mapping):
        raise ValueError("info is no object")
    if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(s, Mapping) for s in summaries):
        raise ValueError("summaries are no list of two objects")
    if type(choice) is not int or choice not in (0, 1):
        raise ValueError(f"the choice {choice!r} is neither 0 nor 1")
    texts = [text_of(summary, "text") for summary in summaries]
    if texts[0].strip() == texts[1].strip():
        raise Left("both answers are the same")
    kind = next((key for key in ("post", "article") if isinstance(info.get(key), str)), None)
    if kind is None:
        raise Left("there is neither a post nor an article")
    beside = rest(info, kind)
    asked = Message(role="user", content=_head(beside) + info[kind])
    prompt = pile.ask((asked,), remembered(NAME, beside, always=True, kind=kind))
    answers = [_summary(pile, prompt, summary) for summary in summaries]
    worker = row["worker"] if isinstance(row.get("worker"), str) else ""
    told = row.get("extra")
    confidence = told.get("confidence") if isinstance(told, Mapping) else None
    sure = type(confidence) is int
    left = rest(row, *KEYS[: 4 if worker else 3])
    if sure and isinstance(told, Mapping):
        left["extra"] = rest(told, "confidence")
    ranked = [(answers[choice], 1), (answers[1 - choice], 2)]
    extra = remembered(NAME, left, always=True, answers=[answer.id for answer in answers])
    pile.judge(prompt, ranked, extra, annotator=worker, confidence=confidence if sure else None)


def _head(beside: Row) -> str:
    title = beside.get("title")
    return f"{TASK}\n\n{title}\n\n" if isinstance(title, str) and title else f"{TASK}\n\n"


def _summary(pile: Pile, prompt: Prompt, summary: Row) -> Response:
    policy = summary["policy"] if isinstance(summary.get("policy"), str) else ""
    left = rest(summary, "text", *(["policy"] if policy else []))
    by_hand = policy in ("", "ref")
    return pile.answer(
        prompt, summary["text"], remembered(NAME, left), model=policy, origin="human" if by_hand else "model"
    )


def write_comparison(pile: Pile) -> Iterator[Row]:
    """A row a pair of summaries of a text that came from such a file."""
    for judgement, prompt, better, worse in pile.pairs():
        told = details(prompt, NAME)
        if not told:
            pile.dropped["a prompt that asks for no summary of a post or an article"] += 1
            continue
        beside = left_of(prompt, NAME)
        info = {**beside, told["kind"]: prompt.messages[0].content[len(_head(beside)) :]}
        order = details(judgement, NAME).get("answers", [answer.id for answer in pile.answers(prompt.id)])
        two = [better, worse]
        if worse.id in order and better.id in order:
            two.sort(key=lambda answer: order.index(answer.id))
        left = left_of(judgement, NAME)
        if judgement.confidence is not None:
            left["extra"] = {**left.get("extra", {}), "confidence": judgement.confidence}
        worker = {"worker": judgement.annotator} if who(judgement) else {}
        summaries = [
            {"text": answer.text, **({"policy": answer.model} if answer.model else {}), **left_of(answer, NAME)}
            for answer in two
        ]
        yield {"info": info, "summaries": summaries, "choice": two.index(better), **worker, **left}
