"""Who may do what, and to whose things: every route of the application has a rule here, or the tests fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient
from tests_people import PASSWORD, TEAM, Clock, quick_hashes, visiting, with_team
from tests_studio import CAMPAIGN, fill

from palate.feedback import demonstrations
from palate.feedback.campaigns import Settings
from palate.feedback.queue import Queue
from palate.feedback.store import Store
from palate.records import Demonstration, Judgement, conversation
from palate.studio import drafts
from palate.studio.app import ROUTERS
from palate.studio.here import Studio

OPEN, ANYBODY = "open", "anybody"
"""Needs no login; needs one and no role."""
RULES = {
    OPEN: """
        GET /api/v1/health
        GET /login
        POST /login
        POST /logout
        GET /invite/{secret}
        POST /invite/{secret}
        POST /api/v1/login
        POST /api/v1/join
    """,
    ANYBODY: """
        GET /
        GET /api
        GET /guidelines
        GET /guidelines/text
        GET /api/v1/guidelines
        GET /api/v1/drafts/{key}
        PUT /api/v1/drafts/{key}
        DELETE /api/v1/drafts/{key}
        GET /chat
        GET /chat/{id_}
        GET /api/v1/chat/models
        GET /api/v1/chat/conversations
        POST /api/v1/chat/conversations
        GET /api/v1/chat/conversations/{id_}
        DELETE /api/v1/chat/conversations/{id_}
        PUT /api/v1/chat/at
        POST /api/v1/chat/say
        POST /api/v1/chat/stop
        POST /api/v1/logout
        GET /me
        POST /me/password
        POST /me/wishes
        GET /api/v1/me/wishes
        PUT /api/v1/me/wishes
        POST /me/tokens
        POST /me/tokens/{id_}/revoke
        GET /me/data.json
        GET /me/delete
        POST /me/delete
        GET /api/v1/me
        DELETE /api/v1/me
        PUT /api/v1/me/password
        GET /api/v1/me/tokens
        POST /api/v1/me/tokens
        DELETE /api/v1/me/tokens/{id_}
        GET /api/v1/me/data
        GET /api/v1/me/used
        GET /see
        GET /see/part/{name}
        GET /report
        GET /report/frame
        GET /api/v1/see
        GET /api/v1/see/curve
        GET /api/v1/live
    """,
    "evaluator": """
        GET /rank
        GET /rank/again/{id_}
        GET /rank/mine
        POST /rank
        POST /api/v1/rank/next
        POST /api/v1/rank/{lease}/renew
        POST /api/v1/rank/{lease}/skip
        POST /api/v1/judgements
        DELETE /api/v1/judgements/{id_}
        POST /api/v1/chat/vote
        POST /api/v1/chat/prefer
        POST /api/v1/chat/improve
        GET /see/changed
        GET /api/v1/see/me
        GET /api/v1/see/changed
    """,
    "author": """
        GET /write
        GET /write/new
        GET /write/{id_:path}
        POST /write
        POST /write/back
        GET /review
        GET /review/{id_:path}
        POST /review
        GET /api/v1/reviews
        POST /api/v1/reviews
        POST /api/v1/reviews/next
        GET /api/v1/demonstrations
        POST /api/v1/demonstrations
        GET /api/v1/demonstrations/progress
        GET /api/v1/demonstrations/{id_}
        DELETE /api/v1/demonstrations/{id_}
        POST /api/v1/demonstrations/alike
        POST /api/v1/demonstrations/preview
        POST /api/v1/demonstrations/draft
        DELETE /api/v1/demonstrations/draft/{token}
        GET /api/v1/prompts
        POST /api/v1/prompts
    """,
    "lead": """
        POST /guidelines
        GET /queue
        POST /queue/settings
        POST /queue/free
        GET /queue/items/{number}
        POST /queue/items/{number}
        POST /queue/import
        GET /queue/export
        GET /api/v1/queue
        GET /api/v1/queue/settings
        PUT /api/v1/queue/settings
        GET /api/v1/queue/items
        GET /api/v1/queue/items/{number}
        GET /api/v1/queue/items/{number}/judgements
        PUT /api/v1/queue/items/{number}/gold
        DELETE /api/v1/queue/items/{number}/gold
        GET /api/v1/queue/leases
        DELETE /api/v1/queue/leases/{lease}
        GET /api/v1/queue/unrankable
        PUT /api/v1/files/{name}
        GET /api/v1/files/{format}
        GET /people
        GET /people/log
        POST /people/invites
        POST /people/invites/{id_}/end
        POST /people/{name}/roles
        POST /people/{name}/access
        POST /people/{name}/link
        GET /api/v1/people
        PATCH /api/v1/people/{name}
        POST /api/v1/people/{name}/link
        GET /api/v1/invites
        POST /api/v1/invites
        DELETE /api/v1/invites/{id_}
        GET /api/v1/audit
        GET /api/v1/see/arms
        GET /see/surprises
        GET /api/v1/see/surprises
    """,
}
RULE = {line.strip(): role for role, lines in RULES.items() for line in lines.splitlines() if line.strip()}

SHARED = {
    "GET /write/{id_:path}": "authors read each other's examples",
    "GET /review/{id_:path}": "and review them",
    "GET /api/v1/demonstrations/{id_}": "the same",
    "GET /invite/{secret}": "who has the secret was given it",
    "POST /invite/{secret}": "the same",
    "GET /see/part/{name}": "a part of a page",
}
"""Routes that name a thing of which nobody is the owner. Those that only a lead may use need no owner either."""


def routes() -> list[str]:
    found = [route for router in ROUTERS for route in router.routes]
    return sorted(f"{m} {r.path}" for r in found if isinstance(r, APIRoute) for m in r.methods)


def named(route: str) -> tuple[str, str]:
    """Method, and an address with something in every place."""
    method, path = route.split()
    values = {"number": "1", "id_": "0123456789abcdef", "key": "x", "name": "bob", "format": "trl"}
    return method, re.sub(r"\{(\w+)(:\w+)?\}", lambda found: values.get(found[1], "x"), path)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_hashes():
        yield


@pytest.fixture
def studio(store: Store) -> Studio:
    return with_team(store, Clock())


def test_every_route_has_a_rule() -> None:
    assert sorted(RULE) == routes()


def test_every_route_that_names_a_thing_has_an_owner_or_a_reason() -> None:
    with_things = {route for route in routes() if "{" in route and RULE[route] != "lead"}
    assert with_things == set(SHARED) | set(OTHERS)


def may(name: str, role: str) -> bool:
    return role in (OPEN, ANYBODY) or role in TEAM[name] or "lead" in TEAM[name]


def test_who_may_and_who_may_not(studio: Studio) -> None:
    """Nobody, each role, and a program with the token of each, on every route. What is let in may still be told that it
    makes no sense."""
    tokens = {name: studio.people.make_token(name, "x") for name in ("bob", "cleo", "ann")}
    for route in routes():
        method, path = named(route)
        role = RULE.get(route, "")
        told = visiting(studio).request(method, path)
        if role == OPEN:
            let_in(route, told)
        else:
            assert told.status_code == 401, (route, told.status_code)
            if method == "GET" and "/api/" not in path:
                page = visiting(studio).get(path, headers={"accept": "text/html"})
                assert page.status_code == 303 and page.headers["location"].startswith("/login?next="), route
        for name, token in tokens.items():
            told = visiting(studio, name).request(method, path)
            program = visiting(studio, authorization=f"Bearer {token}").request(method, path)
            if may(name, role):
                let_in(route, told)
                assert program.status_code != 401, (route, name)
                assert ("needs you to log in" in program.text) is (route in IN_PERSON), (route, name)
            else:
                assert told.status_code == program.status_code == 403, (route, name, told.status_code)
                assert "needs the role" in told.text, (route, name)


def let_in(route: str, told: Any) -> None:
    wrong_password = route.endswith("/login") and told.status_code == 401
    assert told.status_code not in (401, 403) or wrong_password, (route, told.text)
    assert told.status_code < 500, (route, told.text)


IN_PERSON = {
    "POST /me/password",
    "POST /me/tokens",
    "POST /me/delete",
    "DELETE /api/v1/me",
    "PUT /api/v1/me/password",
    "POST /api/v1/me/tokens",
}
"""What no token opens."""


# --- whose things ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """What eve has, who is author and evaluator: `ids` by kind."""

    studio: Studio
    ids: dict[str, str]
    eve: TestClient
    mallory: TestClient
    """Has every role but is not eve."""


@pytest.fixture
def world(studio: Studio, store: Store) -> World:
    """Mallory is ann, who leads: not even she may act as another."""
    eve, mallory = visiting(studio, "eve"), visiting(studio, "ann")
    item = eve.post("/api/v1/rank/next").json()
    judgement = eve.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}}).json()["id"]
    lease = eve.post("/api/v1/rank/next").json()["lease"]
    eve.put("/api/v1/drafts/write:new", json={"content": {"text": "of eve"}})
    talk = eve.post("/api/v1/chat/conversations", json={}).json()
    messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "That."}]
    example = eve.post("/api/v1/demonstrations", json={"messages": messages, "token": "t"}).json()["id"]
    eve.post("/api/v1/me/tokens", json={"label": "of eve"})
    token = eve.get("/api/v1/me/tokens").json()[0]["id"]
    drafts.keep(studio, "eve", "model:t2", {"text": "of eve"})
    ids = {"judgement": judgement, "lease": lease, "talk": talk["id"], "example": example, "token": token}
    return World(studio, ids, eve, mallory)


def refused(path: str, **body: object) -> Callable[[World, str], None]:
    """As if it did not exist, or not theirs, in a line that does not tell which."""

    def check(world: World, route: str) -> None:
        method = route.split()[0]
        address = path.format(**world.ids)
        told = world.mallory.request(method, address, **({"json": body} if body else {}))
        assert told.status_code in (403, 404, 422), told.status_code
        assert "of eve" not in told.text

    return check


def untouched(world: World, route: str) -> None:
    """A draft has a key of one's own: another person's under the same key is another draft."""
    for key in ("write:new", "model:t2"):
        assert world.mallory.get(f"/api/v1/drafts/{key}").json() is None
    world.mallory.put("/api/v1/drafts/write:new", json={"content": {"text": "of mallory"}})
    world.mallory.delete("/api/v1/drafts/write:new")
    world.mallory.delete("/api/v1/demonstrations/draft/t2")
    for key in ("write:new", "model:t2"):
        assert world.eve.get(f"/api/v1/drafts/{key}").json()["content"] == {"text": "of eve"}


OTHERS: dict[str, Callable[[World, str], None]] = {
    "GET /api/v1/drafts/{key}": untouched,
    "PUT /api/v1/drafts/{key}": untouched,
    "DELETE /api/v1/drafts/{key}": untouched,
    "DELETE /api/v1/demonstrations/draft/{token}": untouched,
    "GET /rank/again/{id_}": refused("/rank/again/{judgement}"),
    "DELETE /api/v1/judgements/{id_}": refused("/api/v1/judgements/{judgement}"),
    "POST /api/v1/rank/{lease}/renew": refused("/api/v1/rank/{lease}/renew"),
    "POST /api/v1/rank/{lease}/skip": refused("/api/v1/rank/{lease}/skip"),
    "GET /chat/{id_}": refused("/chat/{talk}"),
    "GET /api/v1/chat/conversations/{id_}": refused("/api/v1/chat/conversations/{talk}"),
    "DELETE /api/v1/chat/conversations/{id_}": refused("/api/v1/chat/conversations/{talk}"),
    "DELETE /api/v1/demonstrations/{id_}": refused("/api/v1/demonstrations/{example}"),
    "POST /me/tokens/{id_}/revoke": refused("/me/tokens/{token}/revoke"),
    "DELETE /api/v1/me/tokens/{id_}": refused("/api/v1/me/tokens/{token}"),
}
"""Route -> how it answers somebody who names another person's thing."""


@pytest.mark.parametrize("route", sorted(OTHERS))
def test_what_is_another_persons_is_not_there(route: str, world: World) -> None:
    before = world.eve.get("/api/v1/me/data").json()
    OTHERS[route](world, route)
    after = world.eve.get("/api/v1/me/data").json()
    assert after == before, "something of eve's changed"


TURNS = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/judgements", {"lease": "{lease}", "ranks": {"1": 1, "2": 2}}),
        ("/api/v1/judgements", {"supersedes": "{judgement}", "ranks": {"1": 2, "2": 1}}),
        ("/api/v1/demonstrations", {"supersedes": "{example}", "messages": TURNS}),
        ("/api/v1/chat/say", {"conversation": "{talk}", "text": "x", "models": ["ppo"]}),
        ("/api/v1/chat/vote", {"conversation": "{talk}", "turn": "x", "verdict": "a"}),
        ("/api/v1/chat/prefer", {"conversation": "{talk}", "turn": "x"}),
        ("/api/v1/chat/improve", {"conversation": "{talk}", "turn": "x", "text": "y"}),
        ("/api/v1/chat/stop", {}),
    ],
)
def test_nor_when_it_is_named_in_a_body(path: str, body: dict[str, object], world: World) -> None:
    before = world.eve.get("/api/v1/me/data").json()
    text = json.dumps(body)
    for kind, id_ in world.ids.items():
        text = text.replace(f"{{{kind}}}", id_)
    told = world.mallory.post(path, json=json.loads(text))
    assert told.status_code in (403, 404, 409, 422) or path.endswith("stop"), told.text
    assert world.eve.get("/api/v1/me/data").json() == before


def test_what_is_of_another_campaign_is_not_there(world: World, store: Store) -> None:
    """Not even for its owner: one studio is about one campaign."""
    import random

    fill(store, "other:1")
    lease = Queue(store, "other:1").claim("eve", Settings(), now=world.studio.now(), rng=random.Random(0))
    assert lease is not None
    one, two, *_ = lease.presented
    given = Judgement(
        id="j", prompt_id=lease.prompt_id, annotator="eve", ranks={one: 1, two: 2}, presented_order=lease.presented
    )
    store.add_judgements([given], "other:1")
    written = Demonstration(id="d", messages=conversation("x", "y"), family="f", author="eve")
    store.add_demonstrations([written], "other:write")
    assert demonstrations.Shelf(store, "other:write").standing()
    for method, path in (
        ("GET", "/rank/again/j"),
        ("DELETE", "/api/v1/judgements/j"),
        ("POST", f"/api/v1/rank/{lease.id}/renew"),
        ("GET", "/write/d"),
        ("GET", "/api/v1/demonstrations/d"),
        ("DELETE", "/api/v1/demonstrations/d"),
    ):
        assert world.eve.request(method, path).status_code in (404, 422), path
    told = world.eve.post("/api/v1/judgements", json={"lease": lease.id, "ranks": {"1": 1, "2": 2}})
    assert told.status_code == 404 and len(store.judgements("other:1")) == 1


TELLS = r"secret-(model|checkpoint)|0\.123|response-\d"


def test_an_evaluator_is_never_told_who_wrote_an_answer(studio: Studio) -> None:
    """Every page and every answer of the API that an evaluator may ask for, before and after judging."""
    bob = visiting(studio, "bob")
    for _ in range(2):
        for route in routes():
            method, path = named(route)
            if method == "GET" and may("bob", RULE[route]) and "{" not in route:
                told = bob.get(path, headers={"accept": "text/html"})
                assert told.status_code in (200, 303) or path == "/report/frame", path
                assert not re.search(TELLS, told.text), path
        item = bob.post("/api/v1/rank/next")
        assert not re.search(f"{TELLS}|prompt-|gold", item.text)
        kept = bob.post("/api/v1/judgements", json={"lease": item.json()["lease"], "ranks": {"1": 1, "2": 2}})
        again = bob.get(f"/rank/again/{kept.json()['id']}")
        assert not re.search(TELLS, kept.text + again.text)


def test_nobody_finds_out_which_names_exist(studio: Studio) -> None:
    stranger = visiting(studio)
    told = {
        stranger.post("/login", data={"name": n, "password": "wrong sentence"}).text.replace(n, "")
        for n in ("bob", "nob")
    }
    assert len(told) == 1
    assert visiting(studio, "bob").get("/api/v1/people").status_code == 403


def test_passwords_of_the_team_work(studio: Studio) -> None:
    """What the other tests take for granted."""
    for name in TEAM:
        assert studio.people.login(name, PASSWORD) and CAMPAIGN
