"""Logging in, joining, one's own account, and what leads do about people: by forms and by the API."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from tests_people import PASSWORD, Clock, quick_hashes, visiting, with_team
from tests_studio import CAMPAIGN, fill

from palate.feedback.people import DAY, SESSION_SECONDS, Person, log
from palate.feedback.store import Store
from palate.feedback.tables import SESSIONS
from palate.studio.entrance import local
from palate.studio.here import Studio
from palate.workspace import Job, Workspace

FORM = {"accept": "text/html"}


@pytest.fixture(autouse=True)
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
def ann(studio: Studio) -> TestClient:
    return visiting(studio, "ann")


@pytest.fixture
def bob(studio: Studio) -> TestClient:
    return visiting(studio, "bob")


@pytest.fixture
def stranger(studio: Studio) -> TestClient:
    return visiting(studio)


def log_in(client: TestClient, name: str = "bob", password: str = PASSWORD, **more: str) -> int:
    return client.post("/login", data={"name": name, "password": password, **more}, headers=FORM).status_code


# --- logging in ------------------------------------------------------------------------------------------------------


def test_who_is_not_in_is_sent_to_the_login_and_back_again(stranger: TestClient) -> None:
    told = stranger.get("/rank?kept=x&y=1", headers=FORM)
    assert told.status_code == 303 and told.headers["location"] == "/login?next=%2Frank%3Fkept%3Dx%26y%3D1"
    page = stranger.get(told.headers["location"], headers=FORM)
    assert page.status_code == 200 and 'name="next" value="/rank?kept=x&amp;y=1"' in page.text
    done = stranger.post("/login", data={"name": "bob", "password": PASSWORD, "next": "/rank?kept=x&y=1"})
    assert done.status_code == 303 and done.headers["location"] == "/rank?kept=x&y=1"
    assert stranger.get("/rank", headers=FORM).status_code == 200
    assert stranger.get("/login?next=/see", headers=FORM).headers["location"] == "/see"  # is in already


@pytest.mark.parametrize(
    "address",
    [
        "//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "\\\\elsewhere.example", "", "rank",
        "/\t/elsewhere.example", "/\n/elsewhere.example", "javascript:alert(1)", " /rank", "///x",
        "/rank\r\nset-cookie: a=b", "/%09/../" + "\x00",
    ],
)  # fmt: skip
def test_after_the_login_nobody_is_led_away(address: str, stranger: TestClient) -> None:
    assert local(address) == "/" == local("/" + "x" * 3000)
    told = stranger.post("/login", data={"name": "bob", "password": PASSWORD, "next": address[:200]})
    assert told.headers["location"] == "/"


def test_a_wrong_password_is_told_on_the_page(stranger: TestClient) -> None:
    for name in ("bob", "nobody"):
        told = stranger.post("/login", data={"name": name, "password": "wrong password"}, headers=FORM)
        assert told.status_code == 401 and "The name or the password is wrong." in told.text
        assert f'value="{name}"' in told.text and "set-cookie" not in told.headers and "wrong password" not in told.text


def test_the_session_changes_with_every_login(studio: Studio, stranger: TestClient) -> None:
    """A session that somebody planted, or that was there before, is not the one that is used afterwards."""
    stranger.cookies.set("palate-8484", "planted", domain="127.0.0.1")
    assert log_in(stranger) == 303
    first = stranger.cookies["palate-8484"]
    assert first != "planted" and log_in(stranger) == 303
    second = stranger.cookies["palate-8484"]
    assert second != first and studio.people.by_session(first) is None and studio.people.by_session(second)


def test_what_the_cookie_is_like(stranger: TestClient, studio: Studio) -> None:
    plain = stranger.post("/login", data={"name": "bob", "password": PASSWORD}).headers["set-cookie"]
    assert plain.startswith("palate-8484=") and "HttpOnly" in plain and "SameSite=lax" in plain and "Path=/" in plain
    assert "Secure" not in plain and "Domain" not in plain
    behind = visiting(studio, origin="https://studio.example.org")
    safe = behind.post("/login", data={"name": "bob", "password": PASSWORD}).headers["set-cookie"]
    assert safe.startswith("__Host-palate=") and "Secure" in safe and "HttpOnly" in safe and "Domain" not in safe


def test_logging_out_ends_the_session_on_the_server(studio: Studio, bob: TestClient) -> None:
    secret = bob.cookies["palate-8484"]
    assert bob.post("/logout").headers["location"] == "/login"
    assert studio.people.by_session(secret) is None
    assert bob.get("/rank", headers=FORM).status_code == 303 and bob.get("/api/v1/me").status_code == 401


def test_the_same_by_the_api(stranger: TestClient) -> None:
    assert stranger.get("/api/v1/me").json() == {"detail": "Log in first."}
    wrong = stranger.post("/api/v1/login", json={"name": "bob", "password": "x"})
    assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
    told = stranger.post("/api/v1/login", json={"name": "bob", "password": PASSWORD})
    assert told.json() == {"name": "bob", "roles": ["evaluator"]} == stranger.get("/api/v1/me").json()
    assert stranger.post("/api/v1/logout").status_code == 204
    assert stranger.get("/api/v1/me").status_code == 401


def test_sessions_end_by_themselves(studio: Studio, bob: TestClient, clock: Clock) -> None:
    clock.at += SESSION_SECONDS - 1
    assert bob.get("/api/v1/me").status_code == 200
    clock.at += SESSION_SECONDS + 1
    assert bob.get("/api/v1/me").status_code == 401


def test_a_session_that_ended_loses_no_draft(studio: Studio, bob: TestClient, clock: Clock) -> None:
    """The browser keeps what was typed until the server takes it (static/drafts.js); what the server has it keeps."""
    draft = {"content": {"rationale": "half a senten"}}
    assert bob.put("/api/v1/drafts/rank:1", json=draft).status_code == 200
    clock.at += SESSION_SECONDS + DAY
    later = {"content": {"rationale": "half a sentence and more"}}
    assert bob.put("/api/v1/drafts/rank:1", json=later).status_code == 401  # drafts.js keeps it and says so
    form = bob.post("/rank", data={"lease": "x"}, headers=FORM)
    assert form.status_code == 401 and "Log in in a new tab" in form.text and "load it again" in form.text
    assert log_in(bob) == 303
    assert bob.get("/api/v1/drafts/rank:1").json()["content"] == draft["content"]
    assert bob.put("/api/v1/drafts/rank:1", json=later).json()["content"] == later["content"]


# --- joining ---------------------------------------------------------------------------------------------------------


def made_link(page: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:8484(/invite/[\w-]+)", page)
    assert found
    return found.group(1)


def test_a_lead_invites_and_a_person_joins(studio: Studio, ann: TestClient, stranger: TestClient) -> None:
    page = ann.post("/people/invites", data={"roles": ["author", "evaluator"]}, headers=FORM)
    link = made_link(page.text)
    assert page.status_code == 201 and link not in ann.get("/people", headers=FORM).text  # shown once
    assert "You are invited" in stranger.get(link, headers=FORM).text
    given = {"name": "Zoë", "password": "another sentence", "again": "another sentence"}
    for change, says in (
        ({"again": "not the same one"}, "not the same"),
        ({"name": "bob"}, "Somebody has this name"),
        ({"name": "<b>"}, "A name is made of letters"),
        ({"password": "short", "again": "short"}, "10 characters"),
    ):
        told = stranger.post(link, data=given | change, headers=FORM)
        assert told.status_code == 422 and says in told.text and "another sentence" not in told.text
    assert stranger.post(link, data=given).headers["location"] == "/"
    assert stranger.get("/api/v1/me").json() == {"name": "Zoë", "roles": ["author", "evaluator"]}
    again = visiting(studio)
    assert again.get(link, headers=FORM).status_code == 404
    assert "This link opens nothing" in again.post(link, data=given | {"name": "Eli"}, headers=FORM).text
    assert "Eli" not in [account.name for account in studio.people.accounts()]


def test_the_same_invite_by_the_api(ann: TestClient, stranger: TestClient) -> None:
    link = ann.post("/api/v1/invites", json={"roles": ["author"]}).json()["link"]
    secret = link.rpartition("/")[2]
    (pending,) = ann.get("/api/v1/invites").json()
    assert pending["roles"] == ["author"] and pending["author"] == "ann" and secret not in json.dumps(pending)
    join = {"secret": secret, "name": "dan", "password": "another sentence"}
    assert stranger.post("/api/v1/join", json=join | {"password": "short"}).status_code == 422
    assert stranger.post("/api/v1/join", json=join).json() == {"name": "dan", "roles": ["author"]}
    assert stranger.get("/api/v1/me").json()["name"] == "dan"
    assert stranger.post("/api/v1/join", json=join | {"name": "don"}).status_code == 404
    other = ann.post("/api/v1/invites", json={"roles": ["lead"]}).json()["link"]
    (pending,) = ann.get("/api/v1/invites").json()
    assert ann.delete(f"/api/v1/invites/{pending['id']}").status_code == 204
    assert ann.delete(f"/api/v1/invites/{pending['id']}").status_code == 404
    assert stranger.get(other.removeprefix("http://127.0.0.1:8484"), headers=FORM).status_code == 404
    assert ann.post("/api/v1/invites", json={"roles": []}).status_code == 422
    assert ann.post("/api/v1/invites", json={"roles": ["boss"]}).status_code == 422


def test_whoever_forgot_the_password_sets_a_new_one(studio: Studio, ann: TestClient, bob: TestClient) -> None:
    page = ann.post("/people/bob/link", headers=FORM)
    link, stranger = made_link(page.text), visiting(studio)
    assert "A link for bob" in page.text and "For <strong>bob</strong>" in stranger.get(link, headers=FORM).text
    given = {"password": "another sentence", "again": "another sentence", "name": "eve"}  # the name is not asked for
    assert stranger.post(link, data=given).status_code == 303
    assert stranger.get("/api/v1/me").json()["name"] == "bob" and bob.get("/api/v1/me").status_code == 401
    assert log_in(visiting(studio), "bob", "another sentence") == 303 and log_in(visiting(studio), "bob") == 401
    assert ann.post("/api/v1/people/nobody/link").status_code == 404


def test_links_are_for_the_address_that_people_type(studio: Studio) -> None:
    ann = visiting(studio, "ann", origin="https://studio.example.org")
    assert (
        ann.post("/api/v1/invites", json={"roles": ["author"]})
        .json()["link"]
        .startswith("https://studio.example.org/invite/")
    )


# --- people ----------------------------------------------------------------------------------------------------------


def test_a_lead_changes_what_others_may_do(studio: Studio, ann: TestClient, bob: TestClient) -> None:
    assert bob.get("/write", headers=FORM).status_code == 403
    assert ann.post("/people/bob/roles", data={"roles": ["author"]}).headers["location"] == "/people"
    assert bob.get("/write", headers=FORM).status_code == 200 and bob.get("/rank", headers=FORM).status_code == 403
    told = ann.patch("/api/v1/people/bob", json={"roles": ["evaluator", "lead"]}).json()
    assert told["roles"] == ["evaluator", "lead"] and bob.get("/people", headers=FORM).status_code == 200
    assert [one["name"] for one in ann.get("/api/v1/people").json()] == ["ann", "bob", "cleo", "eve"]


def test_who_is_shut_out_is_out_at_once(studio: Studio, ann: TestClient, bob: TestClient) -> None:
    token = studio.people.make_token("bob", "script")
    assert ann.post("/people/bob/access", data={"access": "out"}).status_code == 303
    assert bob.get("/api/v1/me").status_code == 401 and log_in(visiting(studio)) == 401
    assert visiting(studio, authorization=f"Bearer {token}").get("/api/v1/me").status_code == 401
    assert "shut out" in ann.get("/people", headers=FORM).text
    assert ann.patch("/api/v1/people/bob", json={"disabled": False}).json()["disabled_at"] is None
    assert log_in(visiting(studio)) == 303


def test_the_last_lead_stays(ann: TestClient) -> None:
    told = ann.post("/people/ann/access", data={"access": "out"}, headers=FORM)
    assert told.status_code == 422 and "somebody has to lead" in told.text
    assert ann.patch("/api/v1/people/ann", json={"roles": ["author"]}).status_code == 422
    assert ann.patch("/api/v1/people/nobody", json={"disabled": True}).status_code == 404
    assert ann.patch("/api/v1/people/bob", json={"name": "x"}).status_code == 422


def test_what_was_done_is_read_page_by_page(studio: Studio, ann: TestClient) -> None:
    for number in range(120):
        studio.people.make_token("ann", f"t{number}") if number < 40 else studio.people.open("eve")
    first = ann.get("/people/log", headers=FORM)
    older = re.search(r'href="(/people/log\?before=\d+)"', first.text)
    assert older and "logged in" in first.text and "made a token" not in first.text
    pages, address = [first.text], older.group(1)
    while address:
        pages.append(ann.get(address, headers=FORM).text)
        found = re.search(r'href="(/people/log\?before=\d+)">Older', pages[-1])
        address = found.group(1) if found else ""
    assert "".join(pages).count("<tr><td") == len(log(studio.store, most=1000))
    assert (
        "label: t39" in "".join(pages) and "Nothing before that" in ann.get("/people/log?before=0", headers=FORM).text
    )
    told = ann.get("/api/v1/audit?most=3").json()
    assert [one["number"] for one in ann.get(f"/api/v1/audit?before={told[0]['number']}&most=2").json()] == [
        told[1]["number"], told[2]["number"],
    ]  # fmt: skip
    for wrong in ("before=x", "before=-1", "most=501", "before=99999999999999999999"):
        assert ann.get(f"/api/v1/audit?{wrong}").status_code == 422


# --- oneself ---------------------------------------------------------------------------------------------------------


def test_a_new_password_ends_the_other_sessions(studio: Studio, bob: TestClient) -> None:
    elsewhere = visiting(studio, "bob")
    form = {"old": PASSWORD, "new": "another sentence", "again": "another sentence"}
    for change, says in (
        ({"old": "wrong"}, "This is not the one you have now"),
        ({"again": "x"}, "not the same"),
        ({"new": "short", "again": "short"}, "10 characters"),
    ):
        told = bob.post("/me/password", data=form | change, headers=FORM)
        assert told.status_code == 422 and says in told.text
    assert elsewhere.get("/api/v1/me").status_code == 200
    before = bob.cookies["palate-8484"]
    assert bob.post("/me/password", data=form).headers["location"] == "/me?done=password"
    assert bob.cookies["palate-8484"] != before and bob.get("/api/v1/me").status_code == 200
    assert elsewhere.get("/api/v1/me").status_code == 401
    assert "Your password is another one now" in bob.get("/me?done=password", headers=FORM).text
    assert bob.put("/api/v1/me/password", json={"old": "another sentence", "new": PASSWORD}).status_code == 204
    assert bob.get("/api/v1/me").status_code == 200 and log_in(visiting(studio)) == 303


def test_a_token_is_made_used_and_revoked(studio: Studio, bob: TestClient) -> None:
    page = bob.post("/me/tokens", data={"label": "export script"}, headers=FORM)
    token = re.search(r'value="(plt_[\w-]+)"', page.text)
    assert page.status_code == 201 and token and token.group(1) not in bob.get("/me", headers=FORM).text
    program = visiting(studio, authorization=f"Bearer {token.group(1)}")
    assert program.get("/api/v1/me").json()["name"] == "bob"
    assert program.post("/api/v1/rank/next").json()["lease"] and program.get("/api/v1/people").status_code == 403
    (held,) = bob.get("/api/v1/me/tokens").json()
    assert held["label"] == "export script"
    assert visiting(studio, "eve").delete(f"/api/v1/me/tokens/{held['id']}").status_code == 404
    assert bob.post(f"/me/tokens/{held['id']}/revoke").status_code == 303
    told = program.get("/api/v1/me")
    assert (
        told.status_code == 401 and told.headers["www-authenticate"] == "Bearer" and "revoked" in told.json()["detail"]
    )
    assert bob.post("/api/v1/me/tokens", json={"label": "two"}).json()["token"].startswith("plt_")


def test_a_token_says_how_long_it_lasts(studio: Studio, bob: TestClient, clock: Clock) -> None:
    bob.post("/me/tokens", data={"label": "usual"}, headers=FORM)
    bob.post("/me/tokens", data={"label": "ever", "days": "0"}, headers=FORM)
    made = bob.post("/api/v1/me/tokens", json={"label": "week", "days": 7}).json()["token"]
    for days in (0, -1, 3651, 1.5, "x"):
        assert bob.post("/api/v1/me/tokens", json={"label": "odd", "days": days}).status_code == 422
    lasts = {
        t["label"]: t["expires_at"] and (t["expires_at"] - clock.at) / 86_400
        for t in bob.get("/api/v1/me/tokens").json()
    }
    assert lasts == {"usual": 90, "ever": None, "week": 7}
    clock.at += 8 * 86_400
    assert visiting(studio, authorization=f"Bearer {made}").get("/api/v1/me").status_code == 401
    page = visiting(studio, "bob").get("/me", headers=FORM).text
    assert "lasts until you revoke it" in page and "over since" in page


def test_a_token_cannot_make_itself_last_or_delete(studio: Studio, bob: TestClient) -> None:
    program = visiting(studio, authorization=f"Bearer {studio.people.make_token('bob', 'x')}")
    assert program.post("/api/v1/me/tokens", json={"label": "more"}).status_code == 403
    assert program.put("/api/v1/me/password", json={"old": PASSWORD, "new": "another sentence"}).status_code == 403
    assert program.request("DELETE", "/api/v1/me", json={"password": PASSWORD}).status_code == 403
    for path in ("/me/tokens", "/me/password", "/me/delete"):
        assert program.post(path, data={"label": "x", "old": "x", "new": "x", "again": "x"}).status_code == 403


def test_everything_of_mine_as_a_file(studio: Studio, bob: TestClient) -> None:
    item = bob.post("/api/v1/rank/next").json()
    bob.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}, "rationale": "my words"})
    told = bob.get("/me/data.json")
    assert told.headers["content-disposition"] == 'attachment; filename="palate-my-data.json"'
    assert told.json() == bob.get("/api/v1/me/data").json()
    (judgement,) = told.json()["judgements"]
    assert judgement["rationale"] == "my words" and "$argon2" not in told.text and "ann" not in told.json()["name"]
    assert visiting(studio, "eve").get("/api/v1/me/data").json()["judgements"] == []


def test_deleting_my_data_names_what_was_made_of_it(studio: Studio, store: Store, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "dinner"
    run.mkdir(parents=True)
    (run / "recipe.toml").touch()
    bob = visiting(dataclasses.replace(studio, workspace=Workspace(run)), "bob")
    item = bob.post("/api/v1/rank/next").json()
    bob.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}, "rationale": "my words"})
    digest = ""
    for artifact, content in (("rankings", store.judgements(CAMPAIGN)[0].to_json()), ("reward", {"x": 1})):
        inputs = {"rankings": digest} if digest else {}
        with Workspace(run).doing(Job("x", artifact, "k", inputs, {})).publish() as folder:
            (folder / "judgements.jsonl").write_text(json.dumps(content) + "\n")
        digest = Workspace(run).manifest(artifact)["digest"]
    page = bob.get("/me/delete", headers=FORM).text
    assert (
        "<strong>1</strong> judgement," in page
        and "07-rankings" in page
        and "08-reward" in page
        and digest[:12] in page
    )
    assert [one["artifact"] for one in bob.get("/api/v1/me/used").json()] == ["rankings", "reward"]
    wrong = bob.post("/me/delete", data={"password": "wrong password"}, headers=FORM)
    assert wrong.status_code == 422 and "The password is wrong" in wrong.text and store.count_judgements(CAMPAIGN) == 1
    done = bob.post("/me/delete", data={"password": PASSWORD}, headers=FORM)
    assert done.status_code == 200 and "08-reward" in done.text and "my words" not in done.text
    assert store.count_judgements(CAMPAIGN) == 0 and "palate-8484" not in bob.cookies
    assert bob.get("/api/v1/me").status_code == 401 and log_in(visiting(studio)) == 401
    assert log(store)[0].action == "deleted their data" and "my words" not in str(log(store))
    assert studio.queue.progress(studio.settings, now=studio.now()).given == 0


def test_the_same_deletion_by_the_api(studio: Studio, store: Store) -> None:
    eve = visiting(studio, "eve")
    assert eve.request("DELETE", "/api/v1/me", json={"password": "wrong"}).status_code == 422
    told = eve.request("DELETE", "/api/v1/me", json={"password": PASSWORD})
    assert told.json()["deleted"]["accounts"] == 1 and told.json()["used"] == []
    assert visiting(studio, "ann").request("DELETE", "/api/v1/me", json={"password": PASSWORD}).status_code == 422
    with store.reading("sessions") as connection:
        assert connection.execute(sa.select(SESSIONS).where(SESSIONS.c.account == "eve")).first() is None


def test_alone_there_are_no_accounts_but_data(store: Store) -> None:
    fill(store)
    person = Person("ann", frozenset({"lead"}))
    studio = Studio(store, "dinner", lambda: CAMPAIGN, title="Dinner", single=person)
    alone = visiting(studio)
    assert "You are alone here" in alone.get("/people", headers=FORM).text
    assert alone.get("/login", headers=FORM).headers["location"] == "/"
    for method, path in (
        ("POST", "/api/v1/invites"),
        ("POST", "/api/v1/login"),
        ("GET", "/api/v1/me/tokens"),
        ("POST", "/logout"),
    ):
        told = alone.request(
            method, path, json={"roles": ["lead"], "name": "x", "password": "x"} if method == "POST" else None
        )
        assert told.status_code in (409, 422), path
    item = alone.post("/api/v1/rank/next").json()
    alone.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    assert "Type <strong>ann</strong>" in alone.get("/me/delete", headers=FORM).text
    assert alone.post("/me/delete", data={"name": "anne"}, headers=FORM).status_code == 422
    assert studio.store.count_judgements(CAMPAIGN) == 1
    assert "It is deleted" in alone.post("/me/delete", data={"name": "ann"}, headers=FORM).text
    assert studio.store.count_judgements(CAMPAIGN) == 0
