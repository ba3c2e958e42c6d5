"""What those who write and those who review share: what stands, what is alike, and how a demonstration is shown."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput
from palate.feedback.alike import Alike, words
from palate.feedback.demonstrations import Shelf, Standing
from palate.records import Conversation, Demonstration, Message
from palate.studio.here import Studio

SAID = {
    "waiting": "waits for a review",
    "accepted": "accepted",
    "returned": "came back",
    "rejected": "rejected",
    "withdrawn": "taken back",
}
"""A status in words."""
MANY = 1000
"""Examples that are read ahead."""
MOST_TURNS = 100
LONGEST = 200_000
"""Characters of a conversation."""
Long = Annotated[str, Field(max_length=50_000)]
Id = Annotated[str, Field(max_length=64)]


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: Long


class Told(BaseModel):
    """One message as it is served: what came in a file may be longer than what a form takes."""

    role: str
    content: str


Turns = Annotated[list[Turn], Field(min_length=1, max_length=MOST_TURNS)]


class Seen(BaseModel):
    """A demonstration and what was said of it."""

    id: str
    messages: list[Told]
    skill: str
    author: str
    status: str
    """waiting, accepted, returned, rejected or withdrawn."""
    counts: bool
    """Whether a run may learn from it."""
    reviewer: str
    comment: str
    mended_by: str
    """Who changed it and accepted it; empty where nobody did."""
    drafted: bool
    """Whether a model wrote a first version of the last answer."""
    draft: str
    """The model's words."""
    changed: float | None
    """Share of the model's words that were changed, 0 to 1."""
    created_at: str


@dataclass
class Desk:
    """Of one studio."""

    shelf: Shelf
    alike: Alike


def _desk(request: Request) -> Desk:
    state, studio = request.app.state, request.app.state.studio
    if not hasattr(state, "desk"):
        shelf = Shelf(studio.store, studio.writing)
        state.desk = Desk(shelf, Alike(shelf))
        if len(shelf.standing()) > MANY:  # so that nobody who writes has to wait for it
            threading.Thread(target=state.desk.alike.read, daemon=True).start()
    found: Desk = state.desk
    return found


AtDesk = Annotated[Desk, Depends(_desk)]


def reviewed(studio: Studio) -> bool:
    """Whether what is written now needs a second person. Where somebody is alone there is none."""
    return studio.single is None and studio.settings.review


@dataclass(frozen=True)
class Progress:
    """Of what people write."""

    counts: int
    waiting: int
    wanted: int | None
    tally: Counter[str]


def progress(studio: Studio, desk: Desk) -> Progress:
    """How far the writing is."""
    tally = desk.shelf.tally()
    return Progress(
        desk.shelf.count(review=studio.settings.review), tally["waiting"], studio.demonstrations_wanted, tally
    )


def conversation_of(turns: list[Turn]) -> Conversation:
    """Turns as they are stored: white space at their ends gone. Raises BadInput where one is empty, they do not take
    turns, or all of them are too long."""
    messages = tuple(Message(role=t.role, content=t.content.replace("\r\n", "\n").strip()) for t in turns)
    spoken = messages[1:] if messages[0].role == "system" else messages
    if not spoken:
        raise BadInput("nothing is asked.", "conversation", "Write a prompt.")
    for number, message in enumerate(spoken, start=1):
        if message.role != ("user", "assistant")[(number - 1) % 2]:
            raise BadInput(
                f"turn {number} is by the wrong one.", "conversation", "The user and the assistant alternate."
            )
    for number, message in enumerate(messages, start=1):
        if not message.content:
            name = {"system": "system message", "user": "prompt", "assistant": "answer"}[message.role]
            raise BadInput(f"turn {number}, the {name}, is empty.", "conversation", "Write it, or remove the turn.")
    if sum(len(m.content) for m in messages) > LONGEST:
        raise BadInput(f"it has more than {LONGEST:,} characters.", "conversation", "Make two of it.")
    return messages


def changed(draft: str, now: str) -> float:
    """The share of words of a draft and of what became of it that are not in both, 0 to 1.

    >>> changed("a b c d", "a b c e")
    0.25
    """
    one, other = Counter(words(draft)), Counter(words(now))
    shared = (one & other).total()
    return round(1 - 2 * shared / max(one.total() + other.total(), 1), 3)


def seen(record: Demonstration, standing: Mapping[str, Standing], *, review: bool) -> Seen:
    """A demonstration as pages and programs get it: without the name of the model that drafted it, because whoever
    reads it may rank that model's answers next."""
    now = standing.get(record.id)
    draft: dict[str, Any] = record.extra.get("draft") or {}
    return Seen(
        id=record.id,
        messages=[Told(role=m.role, content=m.content) for m in record.messages],
        skill=record.skill,
        author=record.author,
        status=now.status if now else "superseded",
        counts=now.counts(review=review) if now else False,
        reviewer=now.reviewer if now else record.reviewer,
        comment=now.comment if now else "",
        mended_by=str(record.extra.get("mended_by", "")),
        drafted=record.drafted_by == "model",
        draft=str(draft.get("text", "")),
        changed=draft.get("changed"),
        created_at=record.created_at,
    )


def find(desk: Desk, id_: str) -> Demonstration:
    """One demonstration. Raises HTTPException 404."""
    found = desk.shelf.records([id_])
    if id_ not in found:
        raise HTTPException(404, "There is no such example.")
    return found[id_]
