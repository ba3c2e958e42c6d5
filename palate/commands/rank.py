"""`palate rank RUN`: a person at the terminal orders K answers, blind and shuffled; every order is kept at once."""

from __future__ import annotations

import datetime
import random
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from palate.errors import BadInput
from palate.feedback.store import Store, open_store
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id
from palate.workspace import Workspace

Read = Callable[[str], str]
Write = Callable[[str], None]

HELP = """  b>a=c>d   b is best, a and c tie, d is worst (answers you leave out stay unranked)
  bacd      the same without ties, best first
  s         skip this prompt
  u         undo: go back to the prompt before
  q         stop; everything so far is kept"""


class NotAnOrder(ValueError):
    """What was typed is not an order of the answers shown."""


def parse_order(text: str, labels: Sequence[str]) -> dict[str, int]:
    """Competition ranks from "b>a=c>d" or "bacd".

    >>> parse_order("b>a=c>d", "abcd")
    {'b': 1, 'a': 2, 'c': 2, 'd': 4}

    Raises NotAnOrder when a letter is unknown, comes twice, or fewer than two answers are named.
    """
    compact = re.sub(r"\s+", "", text.lower())
    groups = [g.split("=") for g in compact.split(">")] if set(compact) & set(">=") else [[c] for c in compact]
    ranks: dict[str, int] = {}
    for group in groups:
        rank = len(ranks) + 1
        for label in group:
            if label not in set(labels):
                raise NotAnOrder(f"{label or 'nothing'!r} is not one of {', '.join(labels)}.")
            if label in ranks:
                raise NotAnOrder(f"{label} comes twice.")
            ranks[label] = rank
    if len(ranks) < 2:
        raise NotAnOrder("name at least two answers, best first, for example b>a.")
    return ranks


def ask(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Response]],
    *,
    read: Read,
    write: Write,
    annotator: str,
    rng: random.Random,
) -> Iterator[Judgement]:
    """One judgement for every prompt a person orders, as it is given. "u" asks the prompt before again; the new
    judgement supersedes the old one."""
    given: dict[str, Judgement] = {}
    place = 0
    while place < len(prompts):
        prompt = prompts[place]
        shown = list(responses[prompt.id])
        rng.shuffle(shown)
        labels = string.ascii_lowercase[: len(shown)]
        _show(prompt, shown, labels, write, f"{place + 1}/{len(prompts)}")
        started = time.monotonic()
        answer = _typed(labels, read, write)
        if answer == "q":
            return
        if answer == "u":
            place = max(0, place - 1)
        elif answer == "s":
            place += 1
        else:
            assert not isinstance(answer, str)
            before = given.get(prompt.id)
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            judgement = Judgement(
                id=stable_id("judgement", annotator, prompt.id, now, str(rng.random())),
                prompt_id=prompt.id,
                annotator=annotator,
                ranks={shown[labels.index(label)].id: rank for label, rank in answer.items()},
                presented_order=tuple(r.id for r in shown),
                seconds=round(time.monotonic() - started, 1),
                created_at=now,
                supersedes=before.id if before else None,
                source="terminal",
            )
            given[prompt.id] = judgement
            yield judgement
            place += 1


def _show(prompt: Prompt, shown: Sequence[Response], labels: str, write: Write, number: str) -> None:
    write(f"\n--- {number} " + "-" * 60)
    for message in prompt.messages:
        write(f"{message.role}: {message.content}")
    write("")
    for label, response in zip(labels, shown, strict=True):
        write(f"  {label})  {response.text or '(no answer)'}")


def _typed(labels: str, read: Read, write: Write) -> dict[str, int] | str:
    while True:
        try:
            text = read(f"\nbest first ({'>'.join(labels)}; ? for help): ").strip()
        except EOFError:
            return "q"
        if text in ("q", "u", "s"):
            return text
        if text in ("?", "h", "help"):
            write(HELP)
            continue
        try:
            return parse_order(text, labels)
        except NotAnOrder as error:
            write(f"  {error} Type ? for help.")


def rank(
    run: Path,
    *,
    url: str,
    campaign: str,
    annotator: str,
    count: int | None,
    read: Read,
    write: Write,
    prompts: Sequence[Prompt] | None = None,
) -> list[Judgement]:
    """Let `annotator` rank the answers of a run and keep each judgement in the store; those given are returned.

    Prompts this annotator has ranked already are not asked again; `prompts` limits what is asked.
    """
    samples = Workspace(run).read("samples")
    every = list(read_jsonl(samples / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(samples / "responses.jsonl", Response))
    with open_store(url) as store:
        store.add_prompts(every, campaign)
        store.add_responses(responses, campaign)
        return _ask_for(store, prompts or every, responses, campaign, annotator, count, read, write, run)


def rank_fresh(
    run: Path, *, url: str, campaigns: Sequence[str], annotator: str, count: int | None, read: Read, write: Write
) -> list[Judgement]:
    """The same with the answers that training policies queued ([fresh]), which lie in the store already. Raises
    BadInput when none does."""
    with open_store(url) as store:
        for campaign in campaigns:
            if prompts := store.prompts(campaign):
                responses = store.responses(campaign)
                return _ask_for(store, prompts, responses, campaign, annotator, count, read, write, run)
    raise BadInput("nothing was queued.", run, "A policy queues answers while it trains when the recipe has [fresh].")


def _ask_for(
    store: Store,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    campaign: str,
    annotator: str,
    count: int | None,
    read: Read,
    write: Write,
    run: Path,
) -> list[Judgement]:
    answers: dict[str, list[Response]] = {}
    for response in responses:
        others = answers.setdefault(response.prompt_id, [])
        if response.text not in {r.text for r in others}:  # nobody can prefer one of two equal answers
            others.append(response)
    done = {j.prompt_id for j in store.judgements(campaign) if j.annotator == annotator}
    todo = [p for p in prompts if p.id not in done and len(answers.get(p.id, ())) > 1]
    if not todo:
        raise BadInput("you have ranked every prompt of this run.", run, "Sample more, or take another name.")
    rng = random.Random()  # people see each prompt in a fresh order; nothing has to repeat it
    given = []
    for judgement in ask(todo[:count], answers, read=read, write=write, annotator=annotator, rng=rng):
        store.add_judgements([judgement], campaign)
        given.append(judgement)
    write(f"\n{len(given)} judgements kept in {store.url} (annotator {annotator}).")
    return given
