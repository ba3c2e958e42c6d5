"""A studio on a store of its own, asked in-process: no socket is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import tests_postgres
from playwright.sync_api import Browser
from starlette.testclient import TestClient
from tests_browser import Served, browsing, items, serving
from tests_studio import ADDRESS, CAMPAIGN, fill

from palate.feedback.people import Person
from palate.feedback.store import Store, open_store
from palate.studio.app import build
from palate.studio.here import Studio

ON_A_SERVER = pytest.param("postgresql", marks=[pytest.mark.slow, pytest.mark.soak])


@pytest.fixture(params=["sqlite", ON_A_SERVER])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """In a file; and by `make soak`, because it takes minutes, on a server, where the same must hold."""
    url = f"sqlite:///{tmp_path / 'feedback.sqlite'}"
    if request.param == "postgresql":
        url = tests_postgres.empty(request.getfixturevalue("postgresql"))
    with open_store(url) as found:
        yield found


@pytest.fixture
def studio(store: Store) -> Studio:
    """One person alone, six prompts with four answers each."""
    fill(store)
    return Studio(store, "dinner", lambda: CAMPAIGN, title="Dinner", single=Person("ann", frozenset({"lead"})))


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    """Her browser."""
    with asking(studio) as found:
        yield found


def asking(studio: Studio, name: str = "") -> TestClient:
    """A browser in front of a studio; where nobody logs in it may be somebody else's."""
    if name:
        studio = dataclasses.replace(studio, single=Person(name, frozenset({"lead"})))
    return TestClient(build(studio), base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"})


def in_turn(client: TestClient, count: int = 6) -> list[str]:
    """What somebody is asked to rank, who ranks `count` prompts."""
    seen = []
    for _ in range(count):
        item = client.post("/api/v1/rank/next").json()
        seen.append(item["messages"][0]["content"])
        client.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    return seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; a context of it for each person."""
    with browsing() as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A file of prompts and answers, served as a user does."""
    with serving(items(tmp_path / "dinner.jsonl")) as found:
        yield found
