"""What may upset is covered, and comes to nobody who does not want it; what they flagged or chose nobody is told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from palate.feedback import care
from palate.feedback.store import FLAGGED, Store
from palate.records import Demonstration, Prompt, conversation
from palate.studio.here import Studio

from .conftest import asking

NEXT, HAND_IN, WISHES = "/api/v1/rank/next", "/api/v1/judgements", "/api/v1/me/wishes"
SETTINGS = "/api/v1/queue/settings"
WORDS = "numbers: number 0, dish 3 for dinner 2\nrare: zebra"


@pytest.fixture
def marked(client: TestClient) -> TestClient:
    """Two of the six prompts are of the topic `numbers`, the second by an answer."""
    chosen = {**client.get(SETTINGS).json(), "topics": WORDS, "overlap": 9}
    assert client.put(SETTINGS, json=chosen).status_code == 200
    return client


def all_of(client: TestClient) -> list[dict[str, Any]]:
    """Everything that comes to a person, who ranks it."""
    found = []
    while item := client.post(NEXT).json():
        found.append(item)
        assert client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}}).status_code == 201
    return found


def dinners(items: list[dict[str, Any]]) -> list[str]:
    return sorted(re.findall(r"\d", " ".join(item["messages"][0]["content"] for item in items)))


def test_it_is_covered_until_somebody_looks_and_told_to_programs(marked: TestClient) -> None:
    page = marked.get("/rank").text
    assert "This may upset you:</strong> numbers." in page and 'id="uncover"' in page
    items = all_of(marked)
    assert {item["messages"][0]["content"][-2]: item["topics"] for item in items if item["topics"]} == {
        "0": ["numbers"], "2": ["numbers"],
    }  # fmt: skip
    assert len(items) == 6 and "uncover" not in marked.get("/rank").text


def test_who_does_not_want_the_cover_is_told_all_the_same(marked: TestClient) -> None:
    assert marked.put(WISHES, json={"cover": False}).json()["cover"] is False
    page = marked.get("/rank").text
    assert "This may upset you:</strong> numbers." in page and 'id="uncover"' not in page


def test_what_does_not_upset_is_not_covered(client: TestClient) -> None:
    assert "upsetting" not in client.get("/rank").text and client.post(NEXT).json()["topics"] == []


def test_what_is_avoided_does_not_come(marked: TestClient) -> None:
    assert marked.put(WISHES, json={"avoid": ["numbers"]}).status_code == 200
    assert dinners(all_of(marked)) == ["1", "3", "4", "5"]
    page = marked.get("/rank").text
    assert "every prompt that you want to see" in page and "2 more are about" in page
    assert marked.get(WISHES).json()["seen"] == 0


def test_at_most_so_many_in_a_day(marked: TestClient) -> None:
    assert marked.put(WISHES, json={"a_day": 1}).status_code == 200
    assert len(all_of(marked)) == 5
    assert "One more is about" in marked.get("/rank").text
    told = marked.get(WISHES).json()
    assert (told["seen_in_a_day"], told["seen_in_a_week"], told["seen"]) == (1, 1, 1)


def test_one_that_lies_there_stays_when_it_is_the_last_of_the_day(marked: TestClient) -> None:
    marked.put(WISHES, json={"a_day": 1})
    while not (item := marked.post(NEXT).json())["topics"]:
        marked.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    assert marked.post(NEXT).json()["lease"] == item["lease"]


def test_the_form_keeps_what_is_chosen(marked: TestClient) -> None:
    page = marked.get("/me").text
    assert 'name="avoid" value="numbers">' in page and 'name="avoid" value="flagged">' in page
    form = {"avoid": ["numbers", "rare"], "a_day": "12"}
    done = marked.post("/me/wishes", data=form)
    assert done.status_code == 200 and ">Kept.<" in done.text
    assert marked.get(WISHES).json() == {
        "avoid": ["numbers", "rare"], "cover": False, "a_day": 12, "topics": ["numbers", "rare", FLAGGED],
        "seen_in_a_day": 0, "seen_in_a_week": 0, "seen": 0,
    }  # fmt: skip
    marked.post("/me/wishes", data={"cover": "1", "a_day": ""})
    assert marked.get(WISHES).json()["a_day"] is None and marked.get(WISHES).json()["cover"] is True
    for wrong in ("-1", "many", "1.5", "10001"):
        assert marked.post("/me/wishes", data={"a_day": wrong}).status_code == 422


def test_which_answer_somebody_flagged_others_are_not_told(marked: TestClient, studio: Studio) -> None:
    with asking(studio, "zoe") as zoe:
        item = zoe.post(NEXT).json()
        given = {"lease": item["lease"], "ranks": {"1": 1, "2": 2}, "flags": {"2": ["harmful"]}}
        assert zoe.post(HAND_IN, json=given).status_code == 201
    with asking(studio, "bob") as bob:
        bob.put(WISHES, json={"avoid": [FLAGGED]})
        assert len(all_of(bob)) == 5
        bob.put(WISHES, json={})
        again = bob.post(NEXT).json()
        assert again["messages"] == item["messages"] and again["topics"] == [FLAGGED, "numbers"]
        page = bob.get("/rank").text
        assert "somebody called it harmful" in page and "zoe" not in page
        covers = re.findall(r'<div class="([^"]*(?:prose|upsetting)[^"]*)"', page)
        assert [one for one in covers if "prose text" in one] == ["prose text"] * 4, "one of them looks different"


def test_the_leads_list_can_be_changed_and_is_checked(marked: TestClient, studio: Studio) -> None:
    page = marked.get("/queue").text
    assert "numbers: number 0" in page and page.count('<span class="badge">numbers</span>') == 2
    form = {"overlap": 1, "lease_minutes": 30, "random_share": 30, "gold_share": 10}
    assert marked.post("/queue/settings", data={**form, "topics": "no colon"}).status_code == 422
    assert studio.settings.topics == WORDS
    assert marked.post("/queue/settings", data={**form, "topics": "five:\r\nx"}).status_code == 422
    assert marked.post("/queue/settings", data={**form, "topics": "five: number 5\r\n"}).status_code == 200
    assert studio.settings.topics == "five: number 5"
    listed = marked.get("/api/v1/queue/items?show=upsetting").json()
    assert [(line["topics"], line["messages"][0]["content"][-2]) for line in listed["lines"]] == [(["five"], "5")]
    marked.post("/queue/settings", data={**form, "topics": care.shipped().replace("\n", "\r\n")})
    assert studio.settings.topics is None
    marked.post("/queue/settings", data={**form, "topics": ""})
    assert studio.settings.topics == "" and marked.get("/api/v1/queue/items?show=upsetting").json()["total"] == 0


def test_a_file_that_is_taken_in_is_looked_at(marked: TestClient, studio: Studio) -> None:
    line = b'{"prompt": "Draw it.", "chosen": "A zebra.", "rejected": "A horse."}'
    assert marked.put("/api/v1/files/more.jsonl", content=line).status_code == 200
    listed = marked.get("/api/v1/queue/items?show=upsetting").json()
    assert [line["topics"] for line in listed["lines"]] == [["numbers"], ["numbers"], ["rare"]]
    assert marked.get("/api/v1/queue/items/7").json()["topics"] == ["rare"]
    assert "This may upset you:</strong> rare." in marked.get("/queue/items/7").text


def test_prompts_to_answer_and_examples_to_review(store: Store, studio: Studio) -> None:
    prompts = [Prompt(id=f"w{n}", messages=conversation(f"Cook {n} porn."), family=str(n)) for n in range(2)]
    plain = Prompt(id="w2", messages=conversation("Cook it."), family="w2")
    store.add_prompts([*prompts, plain], studio.writing)
    written = [
        Demonstration(id=id_, messages=conversation("Say it.", told), family=id_, author="lea", status="waiting")
        for id_, told in (("d1", "Porn."), ("d2", "Peas."))
    ]
    store.add_demonstrations(written, studio.writing)
    with asking(studio, "ada") as ada:
        page = ada.get("/write").text
        assert page.count("This may upset you: sexual content") == 2
        assert "This may upset you:</strong> sexual content." in ada.get("/review").text
        assert ada.get(WISHES).json()["seen"] == 1
        ada.put(WISHES, json={"avoid": ["sexual content"]})
        assert "porn" not in ada.get("/write").text and "Cook it." in ada.get("/write").text
        assert [p["id"] for p in ada.get("/api/v1/prompts").json()] == ["w2"]
        assert "Peas." in ada.get("/review").text and ada.post("/api/v1/reviews/next").json()["id"] == "d2"
        ada.put(WISHES, json={})
        assert len(ada.get("/api/v1/prompts").json()) == 3


def test_how_much_came_to_whom_is_for_leads(marked: TestClient, studio: Studio) -> None:
    all_of(marked)
    rows = marked.get("/api/v1/see").json()["figures"]["rows"]
    assert [(row["name"], row["upsetting"]) for row in rows] == [("ann", 2)]
    assert "Upsetting, 7 days" in marked.get("/see").text


def test_what_somebody_chose_no_lead_is_told(marked: TestClient, studio: Studio) -> None:
    with asking(studio, "bob") as bob:
        bob.put(WISHES, json={"avoid": ["rare"], "a_day": 7})
        all_of(bob)
    for path in ("/see", "/queue", "/api/v1/see", "/api/v1/queue", "/api/v1/me/wishes"):
        assert "rare</" not in marked.get(path).text.replace(WORDS, "") and '"a_day":7' not in marked.get(path).text
