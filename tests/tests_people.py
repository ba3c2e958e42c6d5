"""A team in front of a studio where people log in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from starlette.testclient import TestClient
from tests_chat import Parrots
from tests_studio import ADDRESS, CAMPAIGN, fill

from palate.feedback import people as module
from palate.feedback.people import People
from palate.feedback.store import Store
from palate.studio.app import build
from palate.studio.here import Studio

PASSWORD = "a long sentence"
TEAM = {"ann": ["lead"], "bob": ["evaluator"], "cleo": ["author"], "eve": ["author", "evaluator"]}


@contextmanager
def quick_hashes() -> Iterator[None]:
    """argon2id that takes a millisecond instead of a tenth of a second."""
    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_hasher", lambda: cheap)
        module._nobody.cache_clear()
        yield
    module._nobody.cache_clear()


class Clock:
    """A time that does not pass by itself."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


def join(people: People) -> None:
    """Everybody of the team."""
    link = people.setup_invite()
    assert link is not None
    people.join(link, "ann", PASSWORD)
    for name, roles in TEAM.items():
        if name != "ann":
            people.join(people.invite(roles, by="ann"), name, PASSWORD)


def with_team(store: Store, clock: Clock) -> Studio:
    """A studio with the team, six prompts with four answers each, and models to talk with."""
    fill(store)
    studio = Studio(store, "dinner", lambda: CAMPAIGN, title="Dinner", now=clock, speaker=Parrots())
    join(studio.people)
    return studio


@functools.lru_cache(maxsize=4)
def _built(studio: Studio) -> FastAPI:
    return build(studio)


def visiting(studio: Studio, name: str = "", *, origin: str = "", **headers: str) -> TestClient:
    """A browser; of this person, where a name is given. Its errors are answers, as they are for people."""
    if origin:
        studio = dataclasses.replace(studio, origin=origin)
    client = TestClient(
        _built(studio),
        base_url=origin or ADDRESS,
        headers={"sec-fetch-site": "same-origin"} | headers,
        follow_redirects=False,
        raise_server_exceptions=False,
    )
    if name:
        host = "" if origin else "127.0.0.1"
        client.cookies.set("__Host-palate" if origin else "palate-8484", studio.people.open(name), domain=host)
    return client
