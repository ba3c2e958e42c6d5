"""Conversations with models as trees: an edited question and an answer asked for again are branches beside the old.

Which model gave which of two blind answers is not in here but in a table of its own, which no page and no API serves
until somebody has chosen.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import sqlalchemy as sa
from fastapi import HTTPException
from pydantic import BaseModel, Field

from palate.feedback.tables import CHATS, DUELS
from palate.records import Message
from palate.studio.here import Studio
from palate.studio.text import shown

State = Literal["whole", "cut", "stopped"]
"""Of an answer: the model came to its end; there was no room for more; somebody stopped it or went away."""
Slot = Literal["a", "b"]
Verdict = Literal["a", "b", "tie", "both_bad"]
MOST_TURNS = 400
MOST_ALTERNATIVES = 9
LONGEST_PATH = 40_000
"""Characters of one conversation from its first turn to its last."""
TITLE = 60
LISTED = 30


class Side(BaseModel):
    """One of two blind answers."""

    text: str
    state: State = "whole"
    html: str = ""
    """What is shown; made when it is served."""


class Turn(BaseModel):
    """What a person said, what a model answered, or two answers side by side (`duel`)."""

    id: str
    parent: str
    """The turn before it; empty for the first."""
    role: Literal["user", "assistant", "duel"]
    text: str = ""
    state: State = "whole"
    html: str = ""
    model: str = ""
    """Of one answer; empty where a person wrote it, and in a duel."""
    checkpoint: str = ""
    temperature: float = 0.0
    seed: int = 0
    by_person: bool = False
    a: Side | None = None
    b: Side | None = None
    verdict: Verdict | None = None
    kept: Slot | None = None
    """With which of two answers the conversation goes on."""
    names: dict[Slot, str] | None = None
    """Which models they were, from the moment on in which somebody has chosen."""
    preferred: str = ""
    """Of what a person said: the answer to it that was called the best of several."""
    judgement: str = ""


class Talk(BaseModel):
    """One conversation. `at` is the turn that its person is at."""

    id: str
    title: str = ""
    system: str = ""
    at: str = ""
    blind: bool = False
    models: list[str] = []
    temperature: float = 0.7
    turns: list[Turn] = []

    def turn(self, id_: str) -> Turn:
        """404 where there is none."""
        for turn in self.turns:
            if turn.id == id_:
                return turn
        raise HTTPException(404, "There is no such turn in this conversation.")

    def path(self, id_: str) -> list[Turn]:
        """The turns from the first to this one."""
        by_id = {turn.id: turn for turn in self.turns}
        found: list[Turn] = []
        while id_:
            found.append(by_id[id_])
            id_ = by_id[id_].parent
        return found[::-1]

    def answers(self, question: str) -> list[Turn]:
        """What was answered to one question, in the order it came."""
        return [turn for turn in self.turns if turn.parent == question and turn.role != "user"]

    def messages(self, id_: str) -> tuple[Message, ...]:
        """What was said up to a turn, as a model reads it. 409 where nobody has chosen between two answers yet."""
        said = [Message(role="system", content=self.system)] if self.system else []
        for turn in self.path(id_):
            if turn.role == "user":
                said.append(Message(role="user", content=turn.text))
            else:
                said.append(Message(role="assistant", content=the_answer(turn).text))
        return tuple(said)


class Title(BaseModel):
    """A conversation in the list of somebody's."""

    id: str
    title: str
    updated_at: float = Field(description="Seconds since 1970.")


def the_answer(turn: Turn) -> Turn | Side:
    """With what the conversation goes on after an answer. 409 where that is not decided."""
    if turn.role != "duel":
        return turn
    side = turn.a if turn.kept == "a" else turn.b if turn.kept == "b" else None
    if side is None:
        raise HTTPException(409, "Say first which of the two answers is better, or ask again.")
    return side


def begin(studio: Studio, account: str, system: str) -> Talk:
    """A conversation in which nothing was said yet."""
    talk = Talk(id=new_id(), system=system)
    with studio.store.writing() as connection:
        connection.execute(
            sa.insert(CHATS).values(id=talk.id, account=account, content=_content(talk), updated_at=studio.now())
        )
    return talk


def read(studio: Studio, account: str, id_: str) -> Talk:
    """A conversation of one's own. 404 for anybody else's, so that nobody learns what exists."""
    with studio.store.reading("chats") as connection:
        row = connection.execute(_own(account, id_)).one_or_none()
    return _talk(row)


@contextmanager
def changing(studio: Studio, account: str, id_: str) -> Iterator[tuple[sa.Connection, Talk]]:
    """A conversation of one's own; what is changed in it is kept, all or nothing. Two who change it take turns."""
    with studio.store.writing() as connection:
        talk = _talk(connection.execute(_own(account, id_).with_for_update()).one_or_none())
        yield connection, talk
        connection.execute(
            sa.update(CHATS).where(CHATS.c.id == id_).values(content=_content(talk), updated_at=studio.now())
        )


def listed(studio: Studio, account: str) -> list[Title]:
    """Somebody's last conversations in which something was said, the newest first."""
    title = CHATS.c.content["title"].as_string()
    query = (
        sa.select(CHATS.c.id, title.label("title"), CHATS.c.updated_at)
        .where(CHATS.c.account == account, title != "")
        .order_by(CHATS.c.updated_at.desc())
        .limit(LISTED)
    )
    with studio.store.reading("chats") as connection:
        return [Title(id=row.id, title=row.title, updated_at=row.updated_at) for row in connection.execute(query)]


def forget(studio: Studio, account: str, id_: str) -> None:
    """A conversation that its person no longer wants; judgements made of it stay."""
    talk = read(studio, account, id_)
    duels = [turn.id for turn in talk.turns if turn.role == "duel"]
    with studio.store.writing() as connection:
        connection.execute(sa.delete(CHATS).where(CHATS.c.id == id_, CHATS.c.account == account))
        for turn in duels:
            connection.execute(sa.delete(DUELS).where(DUELS.c.id == turn, DUELS.c.account == account))


def titled(text: str) -> str:
    """The beginning of what was asked first, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE else line[: TITLE - 1].rstrip() + "…"


def viewed(turn: Turn) -> Turn:
    """A turn with what is shown of it."""
    made = turn.model_copy(deep=True)
    if made.role == "assistant":
        made.html = str(shown(made.text))
    for side in (made.a, made.b):
        if side is not None:
            side.html = str(shown(side.text))
    return made


def all_viewed(talk: Talk) -> Talk:
    """A conversation with what is shown of it."""
    return talk.model_copy(update={"turns": [viewed(turn) for turn in talk.turns]})


def new_id() -> str:
    """Of a conversation or a turn: it tells nothing."""
    return secrets.token_hex(12)


def _own(account: str, id_: str) -> sa.Select[Any]:
    return sa.select(CHATS.c.content).where(CHATS.c.id == id_, CHATS.c.account == account)


def _talk(row: Any) -> Talk:
    if row is None:
        raise HTTPException(404, "You have no such conversation.")
    return Talk.model_validate(row.content)


def _content(talk: Talk) -> dict[str, Any]:
    return talk.model_dump(mode="json")


def too_long(messages: Sequence[Message]) -> bool:
    """Whether a conversation has become longer than it may."""
    return sum(len(message.content) for message in messages) > LONGEST_PATH
