"""The doors, one check after the other: what must not come in does not, and what goes out is told what it may do."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.testclient import TestClient
from tests_people import PASSWORD, Clock, quick_hashes, visiting, with_team
from tests_studio import CAMPAIGN, fill

from palate.errors import PalateError
from palate.feedback import people as accounts
from palate.feedback.people import Person
from palate.feedback.store import Store
from palate.feedback.tables import METADATA
from palate.studio import doors, drafts, home
from palate.studio.app import ROUTERS
from palate.studio.doors import HEADERS, LARGEST, POLICY, address_of
from palate.studio.here import Studio
from palate.studio.limits import MOST_KEYS, Limit, Limits, network

from .test_roles import named, routes

FORM = {"accept": "text/html"}
SAFE = ("GET", "HEAD", "OPTIONS")
UNSAFE = [route for route in routes() if route.split()[0] not in SAFE]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_hashes():
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def studio(store: Store, clock: Clock) -> Studio:
    return with_team(store, clock)


@pytest.fixture
def alone(store: Store) -> Studio:
    """Where nobody logs in."""
    fill(store)
    who = Person("ann", frozenset({"lead"}))
    return Studio(store, "dinner", lambda: CAMPAIGN, title="Dinner", single=who, hosts=frozenset({"127.0.0.1:8484"}))


def everything(store: Store) -> str:
    with store.reading("every table") as connection:
        return "\n".join(str(row) for table in METADATA.sorted_tables for row in connection.execute(sa.select(table)))


# --- 1: what another site sends --------------------------------------------------------------------------------------


def test_nothing_is_changed_by_another_site(alone: Studio, store: Store) -> None:
    """By its login's cookie, or where there is none, on every route that changes something."""
    before, ours, browser = everything(store), "http://127.0.0.1:8484", visiting(alone)
    del browser.headers["sec-fetch-site"]
    for route in UNSAFE:
        method, path = named(route)
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "origin": ours},
            {"origin": "http://elsewhere.example"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:8484.elsewhere.example"},
            {"origin": "http://127.0.0.1:9999"},
            {},
        ):
            told = browser.request(method, path, headers=headers)
            assert told.status_code == 403 and "another site" in told.text, (route, headers)
    assert everything(store) == before


def test_our_own_pages_and_programs_come_in(alone: Studio) -> None:
    for headers in (
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "http://127.0.0.1:8484"},
    ):
        browser = visiting(alone)
        del browser.headers["sec-fetch-site"]
        assert browser.post("/api/v1/rank/next", headers=headers).status_code == 200, headers


def test_behind_a_proxy_it_is_the_whole_origin_that_counts(studio: Studio) -> None:
    browser = visiting(studio, "bob", origin="https://studio.example.org")
    del browser.headers["sec-fetch-site"]
    for origin, status in (
        ("https://studio.example.org", 200),
        ("http://studio.example.org", 403),
        ("https://studio.example.org:444", 403),
    ):
        assert browser.post("/api/v1/rank/next", headers={"origin": origin}).status_code == status, origin


def test_a_token_needs_no_origin_and_is_not_helped_by_a_cookie(studio: Studio) -> None:
    secret = studio.people.make_token("bob", "x")
    program = visiting(studio, authorization=f"Bearer {secret}")
    del program.headers["sec-fetch-site"]
    assert program.post("/api/v1/rank/next").status_code == 200
    ann = visiting(studio, "ann", authorization=f"Bearer {secret}")
    assert ann.get("/api/v1/me").json()["name"] == "bob"  # the token is who asks, the lead's cookie is not looked at
    assert ann.get("/api/v1/people").status_code == 403
    wrong = visiting(studio, "ann", authorization="Bearer plt_wrong")
    assert wrong.get("/api/v1/me").status_code == 401
    for kind in ("Basic YW5uOng=", "Bearer", "bearer ", "Token x"):
        cookie = visiting(studio, "ann", authorization=kind)
        assert cookie.get("/api/v1/me").json()["name"] == "ann"
        del cookie.headers["sec-fetch-site"]
        assert cookie.post("/api/v1/rank/next").status_code == 403  # it is the cookie that lets in: its rules hold


def test_nothing_is_shared_with_other_sites(studio: Studio) -> None:
    ann = visiting(studio, "ann")
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for told in (ann.options("/api/v1/judgements", headers=asked), ann.get("/api/v1/me", headers=asked)):
        assert not [name for name in told.headers if name.startswith("access-control-")]


# --- names of this machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["elsewhere.example", "elsewhere.example:8484", "127.0.0.1:9999", "127.0.0.1", "", "[::1]"]
)
def test_a_name_that_somebody_points_at_this_machine_opens_nothing(host: str, alone: Studio) -> None:
    for path in ("/", "/api/v1/health", "/static/studio.css", "/api/v1/openapi.json"):
        told = visiting(alone).get(path, headers={"host": host})
        assert told.status_code == 403 and "does not answer to the name" in told.text
    assert visiting(alone).get("/").status_code == 200


def test_with_accounts_numbers_are_names_too(studio: Studio) -> None:
    """Nobody can point a number elsewhere, and people type them; names have to be ours."""
    studio = dataclasses.replace(studio, hosts=frozenset({"inn.local:8484"}))
    stranger = visiting(studio)
    for host, status in (
        ("inn.local:8484", 200),
        ("192.168.1.7:8484", 200),
        ("[fe80::1]:8484", 200),
        ("elsewhere.example:8484", 403),
        ("192.168.1.7.elsewhere.example", 403),
    ):
        assert stranger.get("/login", headers={"host": host}).status_code == status, host
    behind = dataclasses.replace(studio, hosts=frozenset({"studio.example.org"}))
    proxied = visiting(behind, origin="https://studio.example.org")
    assert proxied.get("/login").status_code == 200
    assert proxied.get("/login", headers={"host": "192.168.1.7"}).status_code == 403


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-anything", "Forwarded", "X-Real-IP", "Via"]
)
def test_where_nobody_logs_in_no_proxy_is_let_through(name: str, alone: Studio, studio: Studio) -> None:
    told = visiting(alone).get("/", headers={name: "1.2.3.4"})
    assert told.status_code == 403 and "--login" in told.text
    assert visiting(studio, "ann").get("/", headers={name: "1.2.3.4"}).status_code == 200


def test_whom_a_proxy_speaks_for(studio: Studio) -> None:
    def found(studio: Studio, peer: str, told: str) -> str:
        headers = [(b"x-forwarded-for", told.encode())] if told else []
        return address_of(studio, Request({"type": "http", "client": (peer, 1), "headers": headers}))

    behind = dataclasses.replace(studio, origin="https://studio.example.org")
    assert found(behind, "127.0.0.1", "6.6.6.6, 1.2.3.4") == "1.2.3.4"  # what comes before it anybody can write
    assert found(behind, "127.0.0.1", "") == "127.0.0.1"
    assert found(behind, "8.8.8.8", "1.2.3.4") == "8.8.8.8"  # that is no proxy of ours
    assert found(studio, "127.0.0.1", "1.2.3.4") == "127.0.0.1"


# --- 3, 15: what browsers are told -----------------------------------------------------------------------------------


def told_everywhere(headers: Any, *, own_policy: bool = False) -> None:
    for name, value in HEADERS.items():
        if not own_policy or name not in ("content-security-policy", "x-frame-options"):
            assert headers[name] == value, name
    policy = headers["content-security-policy"]
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0] and "unsafe-eval" not in policy


def test_every_route_tells_browsers_what_they_may_do(studio: Studio) -> None:
    ann, stranger = visiting(studio, "ann"), visiting(studio)
    for route in routes():
        method, path = named(route)
        for client in (ann, stranger):
            if path != "/report/frame":  # tests/studio/test_see.py
                told_everywhere_but_kept(client.request(method, path, headers=FORM).headers)


def told_everywhere_but_kept(headers: Any) -> None:
    told_everywhere(headers)
    assert headers["cache-control"] == "no-store"


def test_and_so_does_everything_that_goes_wrong(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = visiting(studio, "ann")
    for method, path, status in (
        ("GET", "/nothing/here", 404),
        ("GET", "/static/nothing.js", 404),
        ("DELETE", "/rank", 405),
        ("POST", "/api/v1/judgements", 422),
    ):
        told = ann.request(method, path)
        assert told.status_code == status, (path, told.status_code)
        told_everywhere(told.headers)
    told_everywhere(ann.post("/api/v1/judgements", content=b"x" * (LARGEST + 1)).headers)
    told_everywhere(visiting(studio).get("/", headers=FORM).headers)
    told_everywhere(visiting(studio).post("/login", headers={"sec-fetch-site": "cross-site"}).headers)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(home, "page", broken)
    told = ann.get("/", headers=FORM)
    assert told.status_code == 500 and "Something went wrong" in told.text and "secret" not in told.text
    told_everywhere(told.headers)


def test_what_is_kept_are_files_of_ours_alone(studio: Studio) -> None:
    told = visiting(studio).get("/static/studio.css?version")
    assert told.status_code == 200 and "immutable" in told.headers["cache-control"]
    told_everywhere({**told.headers, "cache-control": "no-store"})


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["object-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["form-action"] == rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"


def test_behind_https_browsers_are_told_to_stay_there(studio: Studio) -> None:
    safe = visiting(studio, "ann", origin="https://studio.example.org")
    assert safe.get("/").headers["strict-transport-security"].startswith("max-age=")
    assert "strict-transport-security" not in visiting(studio, "ann").get("/").headers


def test_no_page_has_a_script_or_style_in_it() -> None:
    for template in Path(home.__file__).parent.glob("pages/*.html"):
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|\|\s*safe\b", text), (
            template.name
        )
        for address in re.findall(r"""(?:src|href|action)=["']([^"'{]+)""", text):
            assert not re.match(r"(\w+:)?//", address), template.name


# --- 4: what is put into questions to the database -------------------------------------------------------------------


INJECTED = [
    "' OR '1'='1",
    "'; DROP TABLE accounts; --",
    '" OR 1=1 --',
    "1); DELETE FROM judgements; --",
    "%",
    "_",
    "\\",
    "' UNION SELECT password FROM accounts --",
    "x" * 5000,
    "\u0000",
    "١",
    "1e9",
    "-1",
    "9" * 30,
    "NaN",
    "../../etc/passwd",
    "{{7*7}}",
]


def parameters() -> list[tuple[str, str, list[str]]]:
    """Method, address, and the names that can be in its query, of every route."""
    found = []
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            names = [parameter.alias for parameter in route.dependant.query_params]
            if names or "{" in route.path:
                found += [(method, route.path, names) for method in sorted(route.methods)]
    return found


def rows(store: Store) -> dict[str, int]:
    with store.reading("every table") as connection:
        count = sa.func.count()
        return {
            t.name: connection.execute(sa.select(count).select_from(t)).scalar_one() for t in METADATA.sorted_tables
        }


@pytest.mark.parametrize("value", INJECTED)
def test_what_is_injected_stays_text(value: str, studio: Studio, store: Store) -> None:
    """In every part of every address and in every query: nothing breaks, nothing is shown, nothing is gone."""
    before, address = rows(store), quote(value[:200], safe="")
    for method, path, names in parameters():
        ann = visiting(studio, "ann")  # some of these log out
        asked = [(re.sub(r"\{[^}]+\}", address.replace("\\", "\\\\"), path), {})] if "{" in path else []
        for where, query in [*asked, *((named(f"{method} {path}")[1], {name: value}) for name in names)]:
            told = ann.request(method, where, params=query)
            assert told.status_code < 500, (where, query, told.text)
            assert "$argon2" not in told.text and "OperationalError" not in told.text
    for table, count in rows(store).items():
        assert count >= before[table], table


# --- 6: how often ----------------------------------------------------------------------------------------------------


def test_a_window_slides() -> None:
    limit = Limit(3, 10.0)
    assert [limit.take("a", at) for at in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    assert limit.take("a", 4.0) == 6.0 and limit.take("b", 4.0) == 0.0
    assert limit.take("a", 10.0) == 0.0 and limit.take("a", 10.5) == 0.5  # what was refused does not count
    limit.give_back("a")
    assert limit.take("a", 10.5) == 0.0
    limit.give_back("nobody")


def test_it_remembers_no_more_than_it_can() -> None:
    limit = Limit(1, 10.0)
    for number in range(MOST_KEYS + 100):
        limit.take(str(number), number / 1000)
    assert len(limit._times) <= MOST_KEYS
    assert limit.take(str(MOST_KEYS + 99), (MOST_KEYS + 99) / 1000) > 0  # the newest are not forgotten


def test_one_household_is_one_address() -> None:
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2:ffff::1") != network("2001:db8:1:3::1")
    assert network("1.2.3.4") == network("::ffff:1.2.3.4") != network("1.2.3.5")
    assert network("testclient") == "testclient"


def wrong(client: TestClient, name: str = "bob") -> Any:
    return client.post("/login", data={"name": name, "password": "wrong password"}, headers=FORM)


def test_passwords_cannot_be_tried_for_long(studio: Studio, clock: Clock) -> None:
    stranger = visiting(studio)
    for _ in range(10):
        assert wrong(stranger).status_code == 401
        clock.at += 1
    told = wrong(stranger)
    assert told.status_code == 429 and "too many wrong passwords" in told.text and told.headers["retry-after"] == "890"
    right = stranger.post("/api/v1/login", json={"name": " BOB", "password": PASSWORD})  # nor by another door
    assert right.status_code == 429 and int(right.headers["retry-after"]) == 890
    assert wrong(stranger, "eve").status_code == 401
    clock.at += 890
    assert stranger.post("/login", data={"name": "bob", "password": PASSWORD}).status_code == 303


def test_one_address_cannot_try_many_names(studio: Studio) -> None:
    stranger = visiting(studio)
    told = [wrong(stranger, f"nobody {n}").status_code for n in range(51)]
    assert told == [401] * 50 + [429]


def test_many_addresses_cannot_try_one_name(studio: Studio) -> None:
    behind = dataclasses.replace(studio, origin="https://studio.example.org")
    told = []
    for number in range(51):
        client = visiting(behind, origin="https://studio.example.org")
        client._transport.client = ("127.0.0.1", 1)  # type: ignore[attr-defined]
        told.append(
            client.post(
                "/login",
                data={"name": "bob", "password": "wrong password"},
                headers=FORM | {"x-forwarded-for": f"{number}.1.1.1"},
            ).status_code
        )
    assert told == [401] * 50 + [429]


def test_right_passwords_do_not_count(studio: Studio) -> None:
    """A team comes to work at nine, from one address."""
    for _ in range(60):
        assert visiting(studio).post("/login", data={"name": "bob", "password": PASSWORD}).status_code == 303


def test_the_password_one_has_is_not_guessed_from_inside(studio: Studio) -> None:
    """By somebody who found a browser that is logged in."""
    bob = visiting(studio, "bob")
    told = [
        bob.put("/api/v1/me/password", json={"old": "x" * 12, "new": "another sentence"}).status_code for _ in range(11)
    ]
    assert told == [422] * 10 + [429]
    assert bob.request("DELETE", "/api/v1/me", json={"password": PASSWORD}).status_code == 429


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/judgements", "judge"),
        ("/rank", "judge"),
        ("/api/v1/chat/vote", "judge"),
        ("/api/v1/chat/say", "generate"),
        ("/api/v1/demonstrations/draft", "generate"),
    ],
)
def test_nobody_floods_it(path: str, name: str, studio: Studio, clock: Clock) -> None:
    few = dataclasses.replace(studio, limits=Limits(**{name: Limit(3, 60.0)}))
    eve, bob = visiting(few, "eve"), visiting(few, "bob")
    assert all(eve.post(path).status_code != 429 for _ in range(3))
    told = eve.post(path)
    assert told.status_code == 429 and told.headers["retry-after"] == "60" and "60 seconds" in told.text
    assert bob.post(path).status_code != 429 and eve.get("/rank", headers=FORM).status_code == 200
    program = visiting(few, authorization=f"Bearer {few.people.make_token('eve', 'x')}")
    assert program.post(path).status_code == 429  # a person is one, whatever they come with
    clock.at += 61
    assert eve.post(path).status_code != 429


# --- 10: how much ----------------------------------------------------------------------------------------------------


def test_what_is_too_large_is_refused_before_it_is_read(studio: Studio) -> None:
    ann = visiting(studio, "ann")
    for path in ("/api/v1/judgements", "/rank", "/login", "/api/v1/drafts/x"):
        method = "PUT" if "drafts" in path else "POST"
        assert ann.request(method, path, content=b"x" * (LARGEST + 1)).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(LARGEST // 2**16 + 2):
            yield b"x" * 2**16

    told = ann.post("/api/v1/judgements", content=pieces())  # without a header that says how much it is
    assert told.status_code == 413 and "content-length" not in told.request.headers


def test_files_may_be_larger_and_only_leads_bring_them(studio: Studio) -> None:
    content = b'{"prompt": "a", "responses": ["b", "c"]}\n' + b" " * (LARGEST + 10)
    assert visiting(studio, "ann").put("/api/v1/files/x.jsonl", content=content).status_code == 200
    assert visiting(studio, "bob").put("/api/v1/files/x.jsonl", content=content).status_code == 403
    assert visiting(studio).put("/api/v1/files/x.jsonl", content=content).status_code == 401


def test_headers_have_an_end(studio: Studio) -> None:
    told = visiting(studio, "ann").get("/", headers={"x-long": "x" * 40_000})
    assert told.status_code == 431


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 50_000, b'{"lease": "\xff"}', b'"\\ud800"', b'{"lease": NaN}', b"\x00", b"nul"]
)
def test_json_that_is_made_to_break_readers(body: bytes, studio: Studio) -> None:
    bob = visiting(studio, "bob")
    for method, path in (("POST", "/api/v1/judgements"), ("PUT", "/api/v1/drafts/x"), ("POST", "/api/v1/login")):
        told = bob.request(method, path, content=body, headers={"content-type": "application/json"})
        assert 400 <= told.status_code < 500, (path, told.status_code, told.text[:200])
        assert "content-security-policy" in told.headers


@pytest.mark.parametrize("depth", [10, 5000])
def test_a_deep_draft_is_kept_or_refused(depth: int, studio: Studio) -> None:
    bob = visiting(studio, "bob")
    body = b'{"content": {"a": ' + b"[" * depth + b"]" * depth + b"}}"
    told = bob.put("/api/v1/drafts/x", content=body, headers={"content-type": "application/json"})
    assert told.status_code < 500
    assert bob.get("/api/v1/drafts/x").status_code == 200
    assert bob.get("/me/data.json").status_code == 200


@pytest.mark.parametrize(
    "content", [b'{"a": "\\ud800"}', b'{"\\udc00": 1}', b'{"a": NaN}', b'{"a": 1e999}', b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_what_could_not_be_given_back_is_not_kept(content: bytes, studio: Studio) -> None:
    bob = visiting(studio, "bob")
    told = bob.put(
        "/api/v1/drafts/x", content=b'{"content": ' + content + b"}", headers={"content-type": "application/json"}
    )
    assert told.status_code in (400, 422)
    assert bob.get("/api/v1/drafts/x").json() is None and bob.get("/me/data.json").status_code == 200


def test_drafts_have_an_end_and_what_the_studio_notes_is_its_own(studio: Studio) -> None:
    bob = visiting(studio, "bob")
    for key in ("model:x", "skipped:0123456789abcdef"):
        drafts.keep(studio, "bob", key, {"text": "noted"})
        assert bob.put(f"/api/v1/drafts/{key}", json={"content": {"prompts": 5}}).status_code == 403
        assert bob.delete(f"/api/v1/drafts/{key}").status_code == 403
        assert bob.get(f"/api/v1/drafts/{key}").json()["content"] == {"text": "noted"}
    assert bob.put("/api/v1/drafts/x", json={"content": {"a": "x" * drafts.LARGEST}}).status_code == 413
    for number in range(drafts.MOST):
        drafts.keep(studio, "bob", f"write:{number}", {})
    assert bob.put("/api/v1/drafts/write:one-more", json={"content": {}}).status_code == 413
    assert bob.put("/api/v1/drafts/write:7", json={"content": {"a": 1}}).status_code == 200


# --- 11, 14 ----------------------------------------------------------------------------------------------------------


def test_no_route_takes_anything_out_of_the_log(studio: Studio) -> None:
    ann = visiting(studio, "ann")
    before = accounts.log(studio.store, most=1000)
    for route in routes():
        method, path = named(route)
        ann.request(method, path)
    after = accounts.log(studio.store, most=1000)
    assert after[len(after) - len(before) :] == before
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert ann.request(method, "/api/v1/audit").status_code in (401, 405)


PATHS = [
    "../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd",
    "..\\..\\..\\etc\\passwd", "....//....//etc/passwd", "%252e%252e%252fetc%252fpasswd", "studio.css/../../doors.py",
    "file:///etc/passwd", "%00/etc/passwd", "../doors.py", "..%5c..%5cdoors.py",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(path: str, studio: Studio, tmp_path: Path) -> None:
    ann = visiting(studio, "ann")
    for before in (
        "/static/",
        "/write/",
        "/review/",
        "/chat/",
        "/see/part/",
        "/api/v1/demonstrations/",
        "/api/v1/files/",
        "/",
    ):
        told = ann.get(before + path)
        assert told.status_code in (303, 307, 400, 404, 405, 422), (before, told.status_code)
        assert "root:" not in told.text and "class Doors" not in told.text
    for name in ("log", "after"):
        told = ann.get("/api/v1/live", params={name: path})
        assert told.status_code < 500 and "root:" not in told.text
    sent = ann.put(f"/api/v1/files/{path.replace('/', '%2f')}", content=b'{"prompt": "a", "responses": ["b", "c"]}\n')
    assert sent.status_code in (200, 404, 405, 422)
    form = {"file": (path, b'{"prompt": "a2", "responses": ["b", "c"]}\n', "application/jsonl")}
    assert ann.post("/queue/import", files=form).status_code in (200, 422)
    assert not list(tmp_path.glob("**/passwd*"))


# --- what else comes to the door -------------------------------------------------------------------------------------


def test_a_store_that_is_gone_is_told_in_a_line(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise PalateError("the store cannot be read.")

    ann = visiting(studio, "ann")
    monkeypatch.setattr(accounts.People, "by_session", gone)
    told = ann.get("/api/v1/me")
    assert told.status_code == 503 and told.json() == {"detail": "the store cannot be read."}
    told_everywhere(told.headers)
    assert ann.get("/static/studio.css").status_code == 200


def test_there_are_no_websockets(studio: Studio) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), visiting(studio, "ann").websocket_connect("/"):
        pass


def test_errors_of_the_api_are_json_and_of_pages_pages(studio: Studio) -> None:
    ann = visiting(studio, "ann")
    assert ann.get("/api/v1/nothing").json() == {"detail": "There is no such page."}
    assert "<h1>Not here</h1>" in ann.get("/nothing", headers=FORM).text
    hostile = ann.get("/nothing<script>alert(1)</script>", headers=FORM)
    assert "<script>alert" not in hostile.text
    named_hosts = dataclasses.replace(studio, hosts=frozenset({"127.0.0.1:8484"}))
    refused = visiting(named_hosts).get("/", headers={"host": "<script>alert(1)</script>"} | FORM)
    assert refused.status_code == 403 and refused.headers["content-type"].startswith("text/plain")
    assert json.loads(visiting(studio).get("/api/v1/me").text)["detail"] == "Log in first."


def test_the_doors_stand_before_everything(studio: Studio) -> None:
    assert doors.WITHOUT_LOGIN == ("/static/",)
