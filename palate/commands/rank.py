"""`palate rank RUN`: a person at the terminal orders K answers, blind and shuffled; every order is kept at once."""

from __future__ import annotations

import datetime
import random
import re
import shutil
import string
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from palate.errors import BadInput
from palate.feedback import asked, care
from palate.feedback.store import FLAGGED, Store, open_store
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id
from palate.workspace import Workspace

Read = Callable[[str], str]
Write = Callable[[str], None]

HELP = """
  b>a=c   b is best, a and c are equally good
  bac     the same without ties
  s       skip this prompt
  u       undo: back to the prompt before
  q       quit; every order you gave is kept
  ?       this help
Answers you leave out stay unranked."""
WORDS = {"quit": "q", "exit": "q", "skip": "s", "undo": "u", "help": "?", "h": "?"}
WIDEST = 100
"""Columns: longer lines are hard to read, however wide the terminal is."""


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


def written(judgement: Judgement) -> str:
    """An order as people read it, by the letters that were on the screen: "b > a = c (d not ranked)"."""
    groups: dict[int, list[str]] = {}
    left_out = []
    for label, answer in zip(string.ascii_lowercase, judgement.presented_order, strict=False):
        if answer in judgement.ranks:
            groups.setdefault(judgement.ranks[answer], []).append(label)
        else:
            left_out.append(label)
    order = " > ".join(" = ".join(groups[rank]) for rank in sorted(groups))
    return f"{order} ({', '.join(left_out)} not ranked)" if left_out else order


def ask(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Response]],
    *,
    read: Read,
    write: Write,
    annotator: str,
    rng: random.Random,
    upsetting: Mapping[str, Sequence[str]],
) -> Iterator[Judgement]:
    """One judgement for every prompt a person orders, as it is given. "u" asks the prompt before again, its answers in
    the places they had; the new judgement supersedes the old one. upsetting: prompt id -> why it is shown only to who
    wants to see it."""
    given: dict[str, Judgement] = {}
    shuffled: dict[str, list[Response]] = {}
    place = 0
    while True:
        if place == len(prompts):
            if _ends(read, write):
                return
            place -= 1
        prompt = prompts[place]
        number = f"{place + 1} of {len(prompts)}"
        answer: dict[str, int] | str = ""
        if prompt.id in upsetting and prompt.id not in shuffled:
            answer = _warned(upsetting[prompt.id], number, read, write)
        if not answer:
            if prompt.id not in shuffled:
                shuffled[prompt.id] = rng.sample(responses[prompt.id], len(responses[prompt.id]))
            shown = shuffled[prompt.id]
            labels = string.ascii_lowercase[: len(shown)]
            _show(prompt, shown, labels, write, number)
            before = given.get(prompt.id)
            if before is not None:
                write("")
                _tell(write, f"You said {written(before)}. That counts until you give another order; s leaves it.")
            started = time.monotonic()
            answer = _typed(labels, read, write)
        if answer == "q":
            return
        if answer == "u":
            if place == 0:
                write("  This is the first prompt; there is none before it.")
            place = max(0, place - 1)
        elif answer == "s":
            place += 1
        else:
            assert not isinstance(answer, str)
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


def _warned(topics: Sequence[str], number: str, read: Read, write: Write) -> str:
    """What a person says before they see what may upset: s, u, q, or nothing, which shows it."""
    _rule(number, write)
    _tell(write, f"This may upset you: {', '.join(topics).replace(FLAGGED, 'somebody called it harmful')}.")
    while True:
        try:
            text = read("Enter shows it, s skips it: ").strip().lower()
        except EOFError:
            return "q"
        if (word := WORDS.get(text, text)) in ("", "s", "u", "q"):
            return word


def _rule(number: str, write: Write) -> None:
    write("\n" + f"--- {number} ".ljust(_width(), "-"))


def _show(prompt: Prompt, shown: Sequence[Response], labels: str, write: Write, number: str) -> None:
    width = _width()
    _rule(number, write)
    for message in prompt.messages:
        write("\n" + laid_out(message.content, f"{message.role}: ", "  ", width))
    for label, response in zip(labels, shown, strict=True):
        write("\n" + laid_out(response.text or "(an empty answer)", f"  {label})  ", "      ", width))


def _width() -> int:
    """Columns now: people change the size of a terminal while they work."""
    return max(20, min(WIDEST, shutil.get_terminal_size().columns))


def _tell(write: Write, text: str) -> None:
    write(laid_out(text, "", "", _width()))


def laid_out(text: str, first: str, rest: str, width: int) -> str:
    """`text` in lines of at most `width` columns, `first` before its first line and `rest` before the others. Its own
    line breaks stay; control characters are written out, because an answer must not steer a terminal."""
    plain = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text.strip().expandtabs(4))
    lines: list[str] = []
    for line in plain.split("\n"):
        start = rest if lines else first
        wrapped = textwrap.wrap(line, width, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False)
        lines += wrapped or [start.rstrip()]
    return "\n".join(lines)


def _typed(labels: str, read: Read, write: Write) -> dict[str, int] | str:
    while True:
        write("")
        try:
            text = read(f"{' '.join(labels)}, best first (? for help): ").strip().lower()
        except EOFError:  # Ctrl-D
            return "q"
        text = WORDS.get(text, text)
        if text in ("q", "u", "s"):
            return text
        if text == "?":
            write(HELP)
            continue
        try:
            return parse_order(text, labels)
        except NotAnOrder as error:
            write(laid_out(f"{error} Type ? for help.", "  ", "  ", _width()))


def _ends(read: Read, write: Write) -> bool:
    """Behind the last prompt, whose order a person may want to take back, too."""
    write("")
    try:
        text = read("That was the last one. Enter ends, u goes back to it: ").strip().lower()
    except EOFError:
        return True
    return WORDS.get(text, text) != "u"


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
    wanted: int | None = None,
    overlap: int = 1,
) -> list[Judgement]:
    """Let `annotator` rank the answers of a run and keep each judgement in the store; those given that stand are
    returned.

    Prompts this annotator has ranked already are not asked again; `prompts` limits what is asked, and says the order.
    wanted: how many judgements of people the run waits for. overlap: how many people each prompt should be judged by.
    """
    samples = Workspace(run).read("samples")
    every = list(read_jsonl(samples / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(samples / "responses.jsonl", Response))
    with open_store(url) as store:
        store.add_prompts(every, campaign)
        store.add_responses(responses, campaign)
        sitting = Sitting(store, campaign, annotator, read, write, wanted)
        if prompts is None:
            prompts = asked.fewest_first(asked.in_turn(every), sitting.by_others(), overlap)
        todo = sitting.todo(prompts, responses)
        if not todo:
            _tell(write, f"{annotator} has ranked every prompt of {run} that has two different answers.")
            if wanted is not None and (has := sitting.counted()) < wanted:
                _tell(
                    write,
                    f"The run waits for {wanted} judgements and has {has}: let somebody else rank (--annotator NAME), "
                    f"or stop it and wait for fewer: palate run {run} --set rank.until={max(1, has)}",
                )
            return []
        _tell(write, f"{annotator} ranks the answers of {run}: {_prompts(todo[:count])}.")
        if wanted is not None and (has := sitting.counted()) < wanted:
            _tell(write, f"The run waits for {wanted} judgements and has {has}.")
        _tell(write, "Put the answers to each prompt in order, best first. They are shuffled.")
        write(HELP)
        return sitting.ask(todo[:count], responses)


def rank_fresh(
    run: Path, *, url: str, campaigns: Sequence[str], annotator: str, count: int | None, read: Read, write: Write
) -> list[Judgement]:
    """The same with the answers that training policies queued ([fresh]), which lie in the store already, one campaign
    after the other. Raises BadInput when none does."""
    with open_store(url) as store:
        queues = [name for name in campaigns if store.prompts(name)]
        if not queues:
            raise BadInput(
                "no answer is queued yet.",
                run,
                "A policy queues some at every evaluation (evaluate_every) it comes to.",
            )
        for name in queues:
            sitting, responses = Sitting(store, name, annotator, read, write), store.responses(name)
            if todo := sitting.todo(store.prompts(name), responses):
                _tell(write, f"{annotator} ranks fresh answers of {run}: {_prompts(todo[:count])}.")
                _tell(
                    write,
                    "Each prompt has two answers: what the policy said in training, and what the assistant said. "
                    "They are shuffled; put the better one first.",
                )
                write(HELP)
                return sitting.ask(todo[:count], responses)
    _tell(
        write,
        f"{annotator} has ranked all fresh answers that are queued. A policy that still trains queues more at its next "
        f"evaluation; come back then.",
    )
    return []


def _prompts(todo: Sequence[Prompt]) -> str:
    return f"{len(todo)} prompt{'s' if len(todo) != 1 else ''}"


@dataclass(frozen=True)
class Sitting:
    """One person in front of one campaign of a store."""

    store: Store
    campaign: str
    annotator: str
    read: Read
    write: Write
    wanted: int | None = None

    def counted(self) -> int:
        """Judgements of people that stand, everybody's."""
        return self.store.count_judgements(self.campaign, simulated=False)

    def by_others(self) -> Counter[str]:
        """Prompt id -> how many other people's judgements of it stand."""
        standing = self.store.judgements(self.campaign)
        return Counter(j.prompt_id for j in standing if not j.simulated and j.annotator != self.annotator)

    def todo(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Prompt]:
        """What this person has not ranked yet and can, without the topics that they avoid."""
        done = {j.prompt_id for j in self.store.judgements(self.campaign) if j.annotator == self.annotator}
        upsetting = self.upsetting()
        known = {topic for topics in upsetting.values() for topic in topics}
        avoided = set(care.avoided(self.store, self.annotator, known, now=time.time()))
        return [
            prompt
            for prompt in asked.rankable(prompts, responses)
            if prompt.id not in done and avoided.isdisjoint(upsetting.get(prompt.id, ()))
        ]

    def upsetting(self) -> dict[str, list[str]]:
        """Prompt id -> what may upset in it, as the studio noted it."""
        with self.store.reading("topics") as connection:
            return care.of_prompts(connection, self.campaign)

    def ask(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Judgement]:
        """Ask, and keep every judgement before the next prompt is shown. Those that stand are returned."""
        rng = random.Random()  # people see each prompt in an order of their own; nothing has to repeat it
        standing: dict[str, Judgement] = {}
        waits = self.wanted is not None and self.counted() < self.wanted
        upsetting = self.upsetting() if care.wishes(self.store, self.annotator).cover else {}
        try:
            for judgement in ask(
                prompts,
                asked.answers(responses),
                read=self.read,
                write=self.write,
                annotator=self.annotator,
                rng=rng,
                upsetting=upsetting,
            ):
                self.store.add_judgements([judgement], self.campaign)
                standing[judgement.prompt_id] = judgement
                has = f"   {self.counted()} of {self.wanted}" if waits else ""
                self.write(f"  kept: {written(judgement)}{has}")
                if waits and self.counted() >= (self.wanted or 0):
                    waits = False
                    self.write("")
                    _tell(
                        self.write,
                        "That is what the run waits for; where it runs, it goes on by itself. Rank on, or quit (q).",
                    )
        finally:  # Ctrl-C, too
            word = "judgement" if len(standing) == 1 else "judgements"
            self.write(f"\n{len(standing)} {word} of {self.annotator} kept in {self.store.url}")
        return list(standing.values())
