"""Ranking through forms and API: what is served, what is stored, what is refused."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest
from starlette.testclient import TestClient
from tests_studio import CAMPAIGN

from palate.feedback import campaigns
from palate.feedback.campaigns import Settings
from palate.records import Response
from palate.studio.here import Studio

from .conftest import asking

NEXT, HAND_IN = "/api/v1/rank/next", "/api/v1/judgements"


def test_what_is_served_says_nothing_of_who_wrote_it(client: TestClient, studio: Studio) -> None:
    for served in (client.get("/rank").text, client.post(NEXT).text):
        assert "Dish 2 for dinner" in served
        assert "secret" not in served and "response-" not in served and "0.123" not in served


def test_the_order_shown_is_by_chance_and_stored(client: TestClient, studio: Studio) -> None:
    """Of 24 orders of four answers twelve people see at least three; the same twelve times would be 24 ** -11."""
    seen = set()
    for number in range(12):
        with asking(dataclasses.replace(studio, default=Settings(overlap=50)), f"person {number}") as other:
            item = other.post(NEXT).json()
            seen.add(tuple(item["answers"]))
            assert other.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}}).status_code == 201
            stored = studio.store.judgements(CAMPAIGN)[-1]
            texts = {r.id: r.text for r in studio.store.responses(CAMPAIGN)}
            assert [texts[id_] for id_ in stored.presented_order] == item["answers"]
    assert len(seen) > 2


def test_a_judgement_is_stored_as_it_was_given(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    texts = {r.text: r.id for r in studio.store.responses(CAMPAIGN)}
    ids = [texts[text] for text in item["answers"]]
    given = {
        "lease": item["lease"],
        "ranks": {"3": 1, "1": 2, "4": 2},
        "criteria": {"3": {"accuracy": 5, "safety": 1}},
        "flags": {"1": ["harmful", "personal_data"]},
        "rewrite_of": "3",
        "rewrite": " Better. ",
        "rationale": "It is warm.",
        "confidence": 4,
        "seconds": 0.0,
        "touched": True,
    }
    kept = client.post(HAND_IN, json=given)
    assert kept.status_code == 201 and kept.json()["ranks"] == {"3": 1, "1": 2, "4": 2} and kept.json()["new"]
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert stored.ranks == {ids[2]: 1, ids[0]: 2, ids[3]: 2}
    assert stored.criteria == {ids[2]: {"accuracy": 5.0, "safety": 1.0}}
    assert stored.flags == {ids[0]: ["harmful", "personal_data"]}
    assert (stored.rewrite_of, stored.rewrite, stored.rationale) == (ids[2], "Better.", "It is warm.")
    assert (stored.annotator, stored.confidence, stored.simulated, stored.source) == ("ann", 4, False, "studio")
    assert stored.presented_order == tuple(ids)
    assert stored.guidelines_version == studio.guidelines.version


def test_places_become_competition_ranks(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    given = {"lease": item["lease"], "ranks": {"1": 1, "2": 2, "3": 2, "4": 3}}
    assert client.post(HAND_IN, json=given).json()["ranks"] == {"1": 1, "2": 2, "3": 2, "4": 4}


def test_the_same_twice_is_stored_once_and_another_is_refused(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    given = {"lease": item["lease"], "ranks": {"1": 1, "2": 2}}
    first, second = client.post(HAND_IN, json=given), client.post(HAND_IN, json=given)
    assert (first.json()["new"], second.json()["new"]) == (True, False)
    assert first.json()["id"] == second.json()["id"] and studio.store.count_judgements(CAMPAIGN) == 1
    other = client.post(HAND_IN, json=given | {"ranks": {"1": 2, "2": 1}})
    assert other.status_code == 409 and studio.store.count_judgements(CAMPAIGN) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ranks": {}}, "two answers"),
        ({"ranks": {"1": 1}}, "two answers"),
        ({"ranks": {"1": 1, "5": 2}}, "no answer 5"),
        ({"ranks": {"1": 1, "0": 2}}, "ranks"),
        ({"ranks": {"1": 0, "2": 2}}, "ranks"),
        ({"criteria": {"6": {"accuracy": 3}}}, "no answer 6"),
        ({"criteria": {"1": {"accuracy": 6}}}, "criteria"),
        ({"criteria": {"1": {"beauty": 3}}}, "criteria"),
        ({"flags": {"1": ["rude"]}}, "flags"),
        ({"rewrite": "Better."}, "which answer"),
        ({"cannot_rank": "other"}, "no order|order and says"),
        ({"cannot_rank": "tired", "ranks": {}}, "cannot_rank"),
        ({"lease": "made up"}, "not in front of you"),
        ({"model": "x"}, "model"),
        ({"seconds": -1}, "seconds"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    change: dict[str, object], says: str, client: TestClient, studio: Studio
) -> None:
    item = client.post(NEXT).json()
    told = client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}} | change)
    assert told.status_code in (404, 422) and re.search(says, told.json()["detail"])
    assert studio.store.count_judgements(CAMPAIGN) == 0


def test_nobody_hands_in_or_changes_what_is_in_front_of_another(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    given = {"lease": item["lease"], "ranks": {"1": 1, "2": 2}}
    with asking(studio, "bob") as bob:
        assert bob.post(HAND_IN, json=given).status_code == 404
        kept = client.post(HAND_IN, json=given).json()["id"]
        assert bob.get(f"/rank/again/{kept}").status_code == 404
        assert bob.delete(f"/api/v1/judgements/{kept}").status_code == 404
        assert bob.post(HAND_IN, json={"supersedes": kept, "ranks": {"1": 2, "2": 1}}).status_code == 404
    assert studio.store.count_judgements(CAMPAIGN) == 1


def test_a_change_of_mind_supersedes_once(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    first = client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}}).json()["id"]
    change = {"supersedes": first, "ranks": {"1": 2, "2": 1}}
    second = client.post(HAND_IN, json=change)
    assert second.status_code == 201 and client.post(HAND_IN, json=change).json()["new"] is False
    assert client.post(HAND_IN, json=change | {"ranks": {"3": 1, "1": 2}}).status_code == 409
    (standing,) = studio.store.judgements(CAMPAIGN)
    assert standing.id == second.json()["id"] and standing.supersedes == first
    third = client.post(HAND_IN, json={"supersedes": standing.id, "ranks": {"1": 1, "2": 1}})
    assert third.status_code == 201 and studio.store.count_judgements(CAMPAIGN) == 1
    taken_back = third.json()["id"]
    assert client.delete(f"/api/v1/judgements/{taken_back}").status_code == 204
    assert client.post(HAND_IN, json={"supersedes": taken_back, "ranks": {"1": 1, "2": 2}}).status_code == 409
    assert studio.store.count_judgements(CAMPAIGN) == 0


def test_what_was_taken_back_is_asked_again(client: TestClient, studio: Studio) -> None:
    seen = []
    while (item := client.post(NEXT).json()) is not None:
        seen.append(client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}}).json()["id"])
    assert len(seen) == 6
    assert client.delete(f"/api/v1/judgements/{seen[2]}").status_code == 204
    assert studio.store.count_judgements(CAMPAIGN) == 5
    assert client.post(NEXT).json() is not None


def test_who_cannot_rank_is_not_asked_again_and_nobody_else_is(client: TestClient, studio: Studio) -> None:
    item = client.post(NEXT).json()
    given = {"lease": item["lease"], "cannot_rank": "no_expertise"}
    assert client.post(HAND_IN, json=given).status_code == 201
    with asking(studio, "bob") as bob:
        for browser in (client, bob):
            assert browser.post(NEXT).json()["messages"] != item["messages"]


def test_a_skipped_prompt_comes_back_when_all_else_is_done(client: TestClient, studio: Studio) -> None:
    first = client.post(NEXT).json()
    assert client.post(f"/api/v1/rank/{first['lease']}/skip").status_code == 204
    order = []
    while (item := client.post(NEXT).json()) is not None:
        order.append(item["messages"])
        client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    assert len(order) == 6 and order[-1] == first["messages"]


def test_a_rewrite_is_no_answer_that_others_are_shown(client: TestClient, studio: Studio) -> None:
    """Even where it lies among the responses, as it does once a stage has learned from it."""
    studio.store.add_responses(
        [Response(id="r", prompt_id="prompt-0", text="Better.", origin="human", extra={"rewrite_of": "x"})], CAMPAIGN
    )
    for number in range(6):
        item = client.post(NEXT).json()
        assert "Better." not in item["answers"], number
        client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})


def test_late_is_kept_and_marked(studio: Studio) -> None:
    clock = [1000.0]
    with asking(dataclasses.replace(studio, now=lambda: clock[0])) as client:
        item = client.post(NEXT).json()
        clock[0] += 31 * 60
        told = client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}, "seconds": 9e5})
    assert told.status_code == 201
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert stored.extra == {"late": True} and stored.seconds == 31 * 60


def test_time_is_measured_where_the_browser_does_not_say(studio: Studio) -> None:
    clock = [1000.0]
    with asking(dataclasses.replace(studio, now=lambda: clock[0])) as client:
        item = client.post(NEXT).json()
        clock[0] += 12.34
        client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert stored.seconds == 12.3


def test_gold_is_marked_and_not_told(studio: Studio) -> None:
    studio.queue.set_gold("prompt-3", {"response-3-0-by-secret-model": 1, "response-3-1-by-secret-model": 2})
    campaigns.decide(studio.store, studio.name, Settings(gold_share=1.0))
    with asking(dataclasses.replace(studio, rng=random.Random(0))) as client:  # type: ignore[arg-type]
        item = client.post(NEXT).json()
        assert item["messages"][-1]["content"] == "Suggest dinner number 3." and "gold" not in str(item)
        client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
        assert client.post(NEXT).json()["messages"][-1]["content"] != "Suggest dinner number 3."
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert stored.is_gold


def test_the_form_without_scripts(client: TestClient, studio: Studio) -> None:
    page = client.get("/rank").text
    lease = re.search(r'name="lease" value="(\w+)"', page)
    assert lease
    form = {
        "lease": lease.group(1),
        "rank_1": "2",
        "rank_2": "1",
        "rank_3": "",
        "rank_4": "2",
        "score_2_clarity": "4",
        "flag_3_off_topic": "1",
        "rationale": "one\r\ntwo",
        "do": "hand-in",
    }
    told = client.post("/rank", data=form, follow_redirects=False)
    assert told.status_code == 303 and told.headers["location"].startswith("/rank?kept=")
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert [stored.ranks.get(id_) for id_ in stored.presented_order] == [2, 1, None, 2]
    assert stored.criteria == {stored.presented_order[1]: {"clarity": 4.0}}
    assert stored.flags == {stored.presented_order[2]: ["off_topic"]} and stored.rationale == "one\ntwo"


def test_a_form_that_says_nothing_is_told_on_a_page(client: TestClient) -> None:
    lease = re.search(r'name="lease" value="(\w+)"', client.get("/rank").text)
    assert lease
    told = client.post("/rank", data={"lease": lease.group(1), "do": "hand-in"}, headers={"accept": "text/html"})
    assert told.status_code == 422 and "two answers" in told.text and "<h1>" in told.text


def test_guidelines_have_versions_and_judgements_keep_theirs(client: TestClient, studio: Studio) -> None:
    before = client.get("/api/v1/guidelines").json()
    assert "Accuracy" in before["text"]
    for text in ("Be kind.", "Be kind and quick."):
        client.post("/guidelines", data={"text": text})
        item = client.post(NEXT).json()
        assert item["guidelines_version"] == client.get("/api/v1/guidelines").json()["version"]
        client.post(HAND_IN, json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    one, two = studio.store.judgements(CAMPAIGN)
    assert len({before["version"], one.guidelines_version, two.guidelines_version}) == 3
    assert "Be kind and quick." in client.get("/guidelines/text").text


def test_files_are_kept_where_their_address_says_which_they_are(client: TestClient) -> None:
    (address,) = re.findall(r'src="(/static/rank\.js\?\w+)"', client.get("/rank").text)
    assert "immutable" in client.get(address).headers["cache-control"]
    plain = client.get("/static/studio.js")
    assert plain.headers["cache-control"] == "no-cache"
    again = client.get("/static/studio.js", headers={"if-none-match": plain.headers["etag"]})
    assert again.status_code == 304


def test_each_model_of_the_api_has_a_name_of_its_own(client: TestClient) -> None:
    """Of two with the same name both would be called after the files they are in."""
    schemas = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    assert len(schemas) > 30 and [name for name in schemas if "palate__" in name] == []
