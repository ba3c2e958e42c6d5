"""Hostile words of models and people, in every place that holds words, act in no view."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from starlette.testclient import TestClient
from tests_chat import Parrots
from tests_hostile import CORPUS
from tests_marked import acts
from tests_people import Clock, join, quick_hashes, visiting
from tests_studio import CAMPAIGN

from palate.feedback import campaigns, demonstrations, place
from palate.feedback.people import note
from palate.feedback.queue import Queue
from palate.feedback.store import Store
from palate.records import Demonstration, Judgement, Prompt, Response, conversation
from palate.studio import see
from palate.studio.here import Studio
from palate.studio.text import shown

from .test_roles import named, routes

FORM = {"accept": "text/html"}
SHORT = [text for text in CORPUS if len(text) <= 150]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_hashes():
        yield


@pytest.fixture
def studio(store: Store) -> Studio:
    """Everything in it is hostile: prompts, answers, models, annotators, reasons, examples, comments, guidelines."""
    lay(store, CAMPAIGN, "dinner")
    studio = Studio(store, "dinner", lambda: CAMPAIGN, title=SHORT[0], now=Clock())
    join(studio.people)
    for text in SHORT[:8]:
        studio.people.make_token("ann", text.replace("\n", " ")[:80])
    with store.writing() as connection:
        for text in SHORT:
            note(connection, text, text[:80], at=1.0, **{text: [text], "name": text})
    return studio


def lay(store: Store, campaign: str, run: str) -> None:
    """The corpus into a store."""
    prompts, responses, judgements = [], [], []
    for number, text in enumerate(CORPUS):
        prompts.append(
            Prompt(id=f"p{number}", messages=conversation(text, text, text, system=text), family="f", skill=text[:90])
        )
        for answer in range(2):
            responses.append(
                Response(
                    id=f"r{number}-{answer}",
                    prompt_id=f"p{number}",
                    text=f"{text} {answer}",
                    model=text,
                    checkpoint=text,
                )
            )
        judgements.append(
            Judgement(
                id=f"j{number}", prompt_id=f"p{number}", annotator=text[:150], rationale=text, rewrite=text,
                ranks={f"r{number}-0": 1, f"r{number}-1": 2} if number % 3 else {}, rewrite_of=f"r{number}-0",
                cannot_rank="" if number % 3 else text[:100], presented_order=(f"r{number}-0", f"r{number}-1"),
                guidelines_version=text[:60], created_at=text[:30],
            )
        )  # fmt: skip
    store.add_prompts(prompts, campaign)
    store.add_responses(responses, campaign)
    Queue(store, campaign).lay(prompts, responses, random_share=0.3, unsure={p.id: 0.5 for p in prompts})
    store.add_judgements(judgements, campaign)
    writing = place.writing(run)
    for number, text in enumerate(CORPUS):
        author = text[:150] if number % 2 else "ann"
        written = Demonstration(
            id=f"d{number}", messages=conversation(text, text), family="f", author=author, skill=text[:90],
            status="waiting", drafted_by="model", extra={"draft": {"text": text, "model": text}},
        )  # fmt: skip
        store.add_demonstrations([written], writing)
        if number % 5 == 0:
            demonstrations.review(
                store, writing, f"d{number}", reviewer=f"{text[:100]}!", verdict="returned", comment=text, now=1.0
            )
    for text in SHORT:
        campaigns.write_guidelines(store, campaign, text, text)
        campaigns.write_guidelines(store, run, text, text)


def no_act(client: TestClient, path: str, where: str = "") -> str:
    told = client.get(path, headers=FORM)
    assert told.status_code in (200, 204, 403, 404), (path, told.status_code)  # 403: a review of one's own
    assert told.headers["content-type"].startswith("text/html") or told.status_code == 204, path
    assert acts(told.text) == [], (path, where)
    assert told.headers["content-security-policy"], path
    return told.text


def test_no_page_acts(studio: Studio) -> None:
    """Every page there is, with every thing that it can be about."""
    ann, things = visiting(studio, "ann"), range(len(CORPUS))
    for route in routes():
        method, path = named(route)
        if method != "GET" or "/api/v1/" in path or path in ("/login", "/me/data.json", "/queue/export"):
            continue
        if "{id_:path}" in route:
            for number in things:
                no_act(ann, path.replace("0123456789abcdef", f"d{number}"), CORPUS[number])
        elif "{number}" in route:
            for number in things:
                no_act(ann, path.replace("1", str(number + 1)), CORPUS[number])
        elif "/part/" in route:
            for part in get_args(see.PARTS):
                deadline = time.monotonic() + 20
                while ann.get(f"/see/part/{part}").status_code == 204 and time.monotonic() < deadline:
                    time.sleep(0.05)  # it is still being computed
                no_act(ann, f"/see/part/{part}")
        else:
            no_act(ann, path)
    assert "onerror" in no_act(ann, "/see"), "the figures name annotators"
    for number in range(1, 4):
        no_act(ann, f"/queue?page={number}")
    for text in SHORT:
        ann.get("/queue", params={"find": text}, headers=FORM)
        assert acts(ann.get("/queue", params={"find": text}, headers=FORM).text) == [], text


def test_no_answer_acts_in_front_of_who_ranks(studio: Studio) -> None:
    bob = visiting(studio, "bob")
    for _ in range(200):
        no_act(bob, "/rank")
        item = bob.post("/api/v1/rank/next").json()
        if item is None:
            break
        given = {"lease": item["lease"], "ranks": {"1": 1, "2": 2}, "rationale": item["answers"][0][:1000]}
        kept = bob.post("/api/v1/judgements", json=given | {"rewrite_of": "1", "rewrite": item["answers"][0]})
        assert kept.status_code == 201, kept.text
        no_act(bob, f"/rank/again/{kept.json()['id']}")
        no_act(bob, f"/rank?kept={kept.json()['id']}")
    else:
        raise AssertionError("the queue never ends")
    no_act(bob, "/rank/mine")


def test_nothing_that_is_said_in_a_chat_acts(studio: Studio) -> None:
    eve = visiting(dataclasses.replace(studio, speaker=Parrots()), "eve")
    for number, text in enumerate(SHORT):
        talk = eve.post("/api/v1/chat/conversations", json={"system": text}).json()["id"]
        wish = {
            "conversation": talk,
            "text": text,
            "models": ["ppo", "sft"][: 1 + number % 2],
            "blind": bool(number % 2),
        }
        told = eve.post("/api/v1/chat/say", json=wish)
        assert told.status_code == 200 and "[DONE]" in told.text and '{"error"' not in told.text, text
        no_act(eve, f"/chat/{talk}", text)
        pieces = list(marked(eve.get(f"/api/v1/chat/conversations/{talk}").json()))
        assert pieces and not [html for html in pieces if acts(f"<div>{html}</div>")], text
    no_act(eve, "/chat")


def test_what_is_kept_of_a_form_does_not_act_in_it(studio: Studio) -> None:
    eve = visiting(studio, "eve")
    for text in CORPUS:
        exchanges = [{"ask": text, "answer": text}]
        begun = {"system": text, "skill": text[:90], "token": "t", "exchanges": exchanges}
        assert eve.put("/api/v1/drafts/write:new", json={"content": begun}).status_code == 200
        no_act(eve, "/write/new", text)
        no_act(eve, "/write", text)
    for text in SHORT:
        for path, form in (
            ("/login", {"name": text, "password": "wrong password", "next": text}),
            ("/invite/" + studio.people.invite(["author"], by="ann"), {"name": text, "password": "x", "again": "y"}),
            ("/me/password", {"old": text, "new": text, "again": text}),
            ("/me/tokens", {"label": text}),
            ("/rank", {"lease": text, "do": "hand-in", "rationale": text}),
            ("/write", {"system": text, "ask_1": text, "answer_1": text, "skill": text, "token": "t", "do": "look"}),
            ("/review", {"demonstration": text, "do": "accepted", "comment": text}),
        ):
            told = eve.post(path, data=form, headers=FORM)
            assert told.status_code < 500 and acts(told.text) == [], (path, text)


def test_no_error_repeats_what_acts(studio: Studio) -> None:
    ann = visiting(studio, "ann")
    for text in SHORT:
        for told in (
            ann.get("/nothing", params={text: text}, headers=FORM),
            ann.post("/people/bob/roles", data={"roles": text}, headers=FORM),
            ann.post("/people/bob/access", data={"access": text}, headers=FORM),
            ann.post("/queue/settings", data={"overlap": text}, headers=FORM),
            ann.post("/queue/import", files={"file": (text, b"nothing", "text/plain")}, headers=FORM),
            ann.get("/queue/export", params={"format": text}, headers=FORM),
        ):
            assert told.status_code < 500 and acts(told.text) == [], text


def marked(value: Any) -> Iterator[str]:
    """What a script of ours puts into a page as elements: every `html` in an answer of the API."""
    if isinstance(value, dict):
        for name, held in value.items():
            if name == "html" and isinstance(held, str):
                yield held
            yield from marked(held)
    elif isinstance(value, list):
        for held in value:
            yield from marked(held)


def test_the_api_answers_json_whatever_it_is_about(studio: Studio) -> None:
    ann, pieces = visiting(studio, "ann"), 0
    for route in routes():
        method, path = named(route)
        if method != "GET" or "/api/v1/" not in path or "files" in path:
            continue
        told = ann.get(path.replace("0123456789abcdef", "d3"))
        assert told.headers["content-type"] == "application/json", path
        assert told.headers["x-content-type-options"] == "nosniff"
    told = ann.post("/api/v1/demonstrations/preview", json={"texts": CORPUS[:40]})
    for html in marked(told.json()):
        pieces += 1
        assert acts(html) == [], html
    for html in told.json() if isinstance(told.json(), list) else told.json().get("texts", []):
        pieces += 1
        assert acts(str(html)) == []
    assert pieces >= 40, "the preview gives no html under a name that is known here"


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_what_text_becomes(text: str) -> None:
    html = str(shown(text))
    assert acts(f"<div>{html}</div>") == []
    assert (
        "id=" not in html.replace("&", "").split("<script")[0] or "&lt;" in html
    )  # nothing takes a name of the page's


def test_the_check_itself_finds_what_acts() -> None:
    """The corpus as it is: a check that finds nothing there would find nothing anywhere."""
    raw = [
        text
        for text in CORPUS
        if text.startswith(("<script", "<img", "<svg", "<a href", "<iframe", "<object", "<style"))
    ]
    assert len(raw) >= 8
    for text in raw:
        assert acts(f"<div>{text}</div>"), text
    assert (
        acts('<a href="//x">')
        and acts('<form action="https://x">')
        and acts("<p onclick=x>")
        and acts("<meta http-equiv=x>")
    )
    assert not acts(
        '<a href="https://x" rel="noopener nofollow noreferrer">x</a><form action="/rank"><a href="/x?y#z">'
    )
    assert json.dumps(CORPUS)
