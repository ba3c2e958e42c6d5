"""Care for those who read what models say: which prompts may upset, what each person wants to see of them, and how many
each has seen.

A prompt is of a topic when it or one of its answers has one of the topic's words, and FLAGGED when somebody called one
of its answers harmful. Always the whole prompt, never one answer of it: whoever is told which answer another person
flagged does not judge for themselves any more.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import sqlalchemy as sa

from palate.errors import BadInput
from palate.feedback.store import FLAGGED, SOME, Store, put, unless_there
from palate.feedback.tables import EXPOSURES, LEASES, TOPICS, WISHES
from palate.records import Prompt, Record, Response

DAY = 24 * 3600.0
"""Seconds in which "a day" is counted, back from now."""
LONGEST = 40
"""Characters of a topic's name."""
MOST = 50
"""Topics."""


@dataclass(frozen=True, kw_only=True)
class Wishes(Record):
    """What one person wants to see. Raises ValueError where a value cannot be."""

    avoid: tuple[str, ...] = ()
    """Topics that never come to them."""
    cover: bool = True
    """Whether what may upset is covered until they look."""
    a_day: int | None = None
    """How many such prompts they want in 24 hours at most; None for any number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "avoid", tuple(self.avoid))
        if len(self.avoid) > MOST or any(len(name) > LONGEST for name in self.avoid):
            raise ValueError(f"avoid has {MOST} topics of {LONGEST} characters at most")
        if self.a_day is not None and not 0 <= self.a_day <= 10_000:
            raise ValueError(f"a_day is a whole number from 0 to 10,000, not {self.a_day}")


@dataclass(frozen=True)
class Seen:
    """How many prompts that may upset came to one person."""

    day: int
    week: int
    ever: int


# --- topics ----------------------------------------------------------------------------------------------------------

WORD = re.compile(r"\w+")


@functools.lru_cache(maxsize=1)
def shipped() -> str:
    """The topics that Palate comes with; their words are English."""
    return resources.files("palate.feedback").joinpath("topics.txt").read_text(encoding="utf-8")


def topics(text: str | None = None) -> Mapping[str, tuple[str, ...]]:
    """Topic -> what `flat` text has in it when it is of the topic; of those that Palate comes with where there is no
    text. Raises BadInput with the line that cannot be read.

    >>> topics("food: egg, pea*, *berry, hot dog")
    {'food': (' egg ', ' pea', 'berry ', ' hot dog ')}
    """
    return _topics(shipped() if text is None else text)


@functools.lru_cache(maxsize=20)
def _topics(text: str) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"topics, line {number}"
        name, colon, words = line.partition(":")
        name = " ".join(name.split()).lower()
        if not colon or not name:
            raise BadInput("a topic is missing.", where, "Write it as: topic: word, other word, begin*")
        if len(name) > LONGEST or name == FLAGGED or name in found:
            reason = "is there twice" if name in found else "cannot be used"
            raise BadInput(
                f"the name {name[:60]!r} {reason}.", where, f"Choose another of {LONGEST} characters at most."
            )
        needles = tuple(needle for word in words.split(",") if (needle := _needle(word)))
        if not needles:
            raise BadInput(f"the topic {name!r} has no words.", where, "Name some, or remove the line.")
        found[name] = needles
    if len(found) > MOST:
        raise BadInput(f"there are {len(found)} topics.", "topics", f"{MOST} at most.")
    return found


def _needle(word: str) -> str:
    word = word.strip()
    middle = flat(word).strip()
    if not middle:
        return ""
    return f"{'' if word.startswith('*') else ' '}{middle}{'' if word.endswith('*') else ' '}"


def flat(text: str) -> str:
    """The words of a text in small letters, one space before, between and after them.

    >>> flat("Don't *STOP*!")
    ' don t stop '
    """
    return f" {' '.join(WORD.findall(unicodedata.normalize('NFKC', text).casefold()))} "


def of(text: str, known: Mapping[str, Sequence[str]]) -> list[str]:
    """The topics of a text, in the order they are listed.

    >>> of("A Pear.", topics("food: pea*"))
    ['food']
    """
    words = flat(text)
    return [name for name, needles in known.items() if any(needle in words for needle in needles)]


def mark(
    store: Store, campaign: str, prompts: Iterable[Prompt], responses: Iterable[Response], text: str | None
) -> dict[str, int]:
    """Note of these prompts which topics they and their answers have; what people flagged stays. How many have which is
    returned."""
    known = topics(text)
    said = {prompt.id: [m.content for m in prompt.messages] for prompt in prompts}
    for response in responses:
        if response.prompt_id in said:
            said[response.prompt_id].append(response.text)
    rows = [
        {"campaign": campaign, "prompt_id": id_, "topic": topic}
        for id_, texts in said.items()
        for topic in of("\n".join(texts), known)
    ]
    ids = list(said)
    with store.writing() as connection:
        for start in range(0, len(ids), SOME):
            connection.execute(
                sa.delete(TOPICS).where(
                    TOPICS.c.campaign == campaign,
                    TOPICS.c.prompt_id.in_(ids[start : start + SOME]),
                    TOPICS.c.topic != FLAGGED,
                )
            )
        if rows:
            connection.execute(unless_there(connection, TOPICS), rows)
    counts = dict.fromkeys(known, 0)
    for row in rows:
        counts[row["topic"]] += 1
    return counts


def mark_again(store: Store, campaign: str, text: str | None) -> dict[str, int]:
    """The same of everything that a campaign asks about: the words are others now."""
    return mark(store, campaign, store.prompts(campaign), store.responses(campaign), text)


def of_prompt(store: Store, campaign: str, prompt_id: str) -> list[str]:
    """The topics of one prompt, by name."""
    with store.reading("topics") as connection:
        return of_prompts(connection, campaign, [prompt_id]).get(prompt_id, [])


def of_prompts(connection: sa.Connection, campaign: str, ids: Collection[str] | None = None) -> dict[str, list[str]]:
    """Prompt id -> its topics, of those that have some; of all prompts where none are named."""
    these = [] if ids is None else [TOPICS.c.prompt_id.in_(ids)]
    query = (
        sa.select(TOPICS.c.prompt_id, TOPICS.c.topic)
        .where(TOPICS.c.campaign == campaign, *these)
        .order_by(TOPICS.c.topic)
    )
    found: dict[str, list[str]] = {}
    for prompt_id, topic in connection.execute(query):
        found.setdefault(prompt_id, []).append(topic)
    return found


# --- people ----------------------------------------------------------------------------------------------------------


def wishes(store: Store, account: str) -> Wishes:
    """What a person wants to see."""
    query = sa.select(WISHES.c.content).where(WISHES.c.account == account)
    with store.reading("wishes") as connection:
        told = connection.execute(query).scalar_one_or_none()
    return Wishes.from_json(told) if told is not None else Wishes()


def wish(store: Store, account: str, chosen: Wishes) -> None:
    """Set it. What lies in front of them and is of a topic that they avoid is given back."""
    marked = sa.select(TOPICS.c.prompt_id).where(
        TOPICS.c.campaign == LEASES.c.campaign, TOPICS.c.topic.in_(chosen.avoid)
    )
    with store.writing() as connection:
        put(connection, WISHES, account=account, content=chosen.to_json())
        connection.execute(sa.delete(LEASES).where(LEASES.c.annotator == account, LEASES.c.prompt_id.in_(marked)))


def avoided(store: Store, account: str, known: Iterable[str], *, now: float) -> list[str]:
    """The topics, of those known, that must not come to a person now: those they avoid, and all once they have seen as
    many prompts as they want in a day."""
    chosen = wishes(store, account)
    if chosen.a_day is None or seen(store, account, now=now).day < chosen.a_day:
        return list(chosen.avoid)
    return sorted({*chosen.avoid, *known, FLAGGED})


def expose(store: Store, account: str, campaign: str, prompt_id: str, *, now: float) -> None:
    """Count that a prompt which may upset came to a person; the same one counts once."""
    row = {"account": account, "campaign": campaign, "prompt_id": prompt_id, "at": now}
    with store.writing() as connection:
        connection.execute(unless_there(connection, EXPOSURES).values(**row))


def seen(store: Store, account: str, *, now: float) -> Seen:
    """How many came to one person."""
    return everybody(store, now=now, account=account).get(account, Seen(0, 0, 0))


def everybody(store: Store, *, now: float, account: str | None = None) -> dict[str, Seen]:
    """Account -> how many came to them, of those to whom some came."""

    def since(seconds: float) -> sa.ColumnElement[Any]:
        return sa.func.sum(sa.case((EXPOSURES.c.at > now - seconds, 1), else_=0))

    query = sa.select(EXPOSURES.c.account, since(DAY), since(7 * DAY), sa.func.count()).group_by(EXPOSURES.c.account)
    if account is not None:
        query = query.where(EXPOSURES.c.account == account)
    with store.reading("exposures") as connection:
        return {name: Seen(int(day), int(week), int(ever)) for name, day, week, ever in connection.execute(query)}
