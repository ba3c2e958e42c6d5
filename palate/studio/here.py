"""What one studio is about, and who is asking: what every route is handed.

What needs a model or a run (`Speaker`, ...) comes from whoever starts the studio; without it the studio needs no torch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, HTTPException, Request

from palate.feedback import campaigns, place
from palate.feedback.campaigns import Guidelines, Settings
from palate.feedback.people import People, Person
from palate.feedback.queue import Queue
from palate.feedback.store import Store
from palate.records import Message
from palate.studio.background import Background
from palate.studio.effects import Effects
from palate.studio.limits import Limits
from palate.studio.turns import Turns
from palate.workspace import Workspace


class Speaker(Protocol):
    """The models of a run that can be talked with."""

    @property
    def names(self) -> Sequence[str]:
        """What they are called in the run: ppo, sft, base..., the newest first."""

    def checkpoint(self, model: str) -> str:
        """What tells one training of a model from another."""

    def say(
        self, model: str, messages: Sequence[Message], *, temperature: float, seed: int
    ) -> Generator[str, None, bool]:
        """Pieces of the answer to a conversation as they are sampled; its value is whether the model came to an end by
        itself. Raises BadInput when the conversation is too long."""


@dataclass(frozen=True)
class Studio:
    """One campaign of one store, and the run it is about."""

    store: Store
    name: str
    """Of the run or the file; what people write and chat is kept under it."""
    asking: Callable[[], str]
    """The campaign whose answers are ranked now: a run comes to other answers while the studio is open."""
    title: str
    default: Settings = field(default_factory=Settings)
    """What holds until a lead decides otherwise; a run's recipe says it."""
    wanted: int | None = None
    """How many judgements the run waits for."""
    demonstrations_wanted: int | None = None
    """How many demonstrations the run waits for."""
    workspace: Workspace | None = None
    speaker: Speaker | None = None
    effects: Effects | None = None
    background: Background = field(default_factory=Background, compare=False)
    """Where figures are computed."""
    turns: Turns = field(default_factory=Turns, compare=False)
    """Who speaks to a model waits here for it."""
    single: Person | None = None
    """Who everybody is who comes, where nobody logs in (loopback only)."""
    origin: str = ""
    """https://... where the studio stands behind a proxy; empty where people come directly."""
    hosts: frozenset[str] = frozenset()
    """What a request's Host may be."""
    limits: Limits = field(default_factory=Limits, compare=False)
    """How often one may come."""
    now: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.SystemRandom)

    @property
    def campaign(self) -> str:
        """Whose answers are ranked now."""
        return self.asking()

    @property
    def people(self) -> People:
        """Who may come in, where people log in."""
        return People(self.store, self.now)

    @property
    def queue(self) -> Queue:
        """What is asked of people who rank."""
        return Queue(self.store, self.campaign)

    @property
    def settings(self) -> Settings:
        """What the leads decided; it stays when the run comes to other answers."""
        return campaigns.settings(self.store, self.name, self.default)

    @property
    def guidelines(self) -> Guidelines:
        """What people are told to go by now."""
        return campaigns.guidelines(self.store, self.name)

    @property
    def writing(self) -> str:
        """The campaign of demonstrations: they outlive the answers of one assistant."""
        return place.writing(self.name)

    @property
    def chats(self) -> str:
        """The campaign of what was said in the chat and judged there."""
        return place.chats(self.name)


async def _studio(request: Request) -> Studio:
    found: Studio = request.app.state.studio
    return found


async def _person(request: Request) -> Person:
    """Whoever the doors let in (doors.py)."""
    person: Person | None = getattr(request.state, "person", None)
    if person is None:
        raise HTTPException(401, "Log in first.")
    return person


def _role(role: str) -> Callable[[Person], Awaitable[Person]]:
    async def allowed(person: Annotated[Person, Depends(_person)]) -> Person:
        if not person.may(role):
            raise HTTPException(403, f"This needs the role {role}; a lead can give it to you.")
        return person

    return allowed


Here = Annotated[Studio, Depends(_studio)]
Anybody = Annotated[Person, Depends(_person)]
"""Whoever is logged in."""
Evaluator = Annotated[Person, Depends(_role("evaluator"))]
Author = Annotated[Person, Depends(_role("author"))]
Lead = Annotated[Person, Depends(_role("lead"))]
