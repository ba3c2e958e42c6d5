"""Writing and reviewing, as programs and as browsers without scripts do it."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable, Generator, Sequence
from html import unescape
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests_studio import ADDRESS

from palate.errors import BadInput
from palate.feedback import campaigns, demonstrations
from palate.feedback.campaigns import Settings
from palate.feedback.demonstrations import Shelf
from palate.feedback.store import Store
from palate.records import Demonstration, Message, conversation
from palate.studio.app import build
from palate.studio.here import Studio

EXAMPLES = "/api/v1/demonstrations"
Enter = Callable[..., TestClient]


class Parrot:
    """A model that says a fixed answer, word by word."""

    names = ("secret-policy", "secret-sft")

    def __init__(self, text: str = "Two days in the fridge.", *, wait: threading.Event | None = None) -> None:
        self.text, self.wait = text, wait
        self.asked: list[tuple[str, list[str]]] = []

    def checkpoint(self, model: str) -> str:
        return f"checkpoint of {model}"

    def say(
        self, model: str, messages: Sequence[Message], *, temperature: float, seed: int
    ) -> Generator[str, None, bool]:
        self.asked.append((model, [m.content for m in messages]))
        if messages[-1].content == "too long":
            raise BadInput("the conversation is too long.", "chat", "Write less.")
        for word in self.text.split(" "):
            if self.wait is not None:
                self.wait.wait(10)
            yield word + " "
        return True


@pytest.fixture
def many(studio: Studio) -> Studio:
    """The same where people log in."""
    return dataclasses.replace(studio, single=None)


@pytest.fixture
def enter(many: Studio) -> Enter:
    """Somebody's browser in front of the one studio they all use."""
    app = build(many)

    def browser(name: str, *roles: str, at: FastAPI = app) -> TestClient:
        people = many.people
        if people.account(name) is None:
            people.join(people.invite(roles or ("author",), by="dan"), name, f"a pass phrase nobody guesses {name}")
        client = TestClient(at, base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"})
        client.cookies.set("palate-8484", people.open(name))
        return client

    return browser


def turns(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    return [message.to_json() for message in conversation(*texts, system=system)]


def hands_in(client: TestClient, *texts: str, status: int = 201, **more: Any) -> Any:
    told = client.post(EXAMPLES, json={"messages": turns(*texts), **more})
    assert told.status_code == status, told.text
    return told.json()


def says(client: TestClient, id_: str, verdict: str, comment: str = "", *, status: int = 201, **more: Any) -> Any:
    body = {"demonstration": id_, "verdict": verdict, "comment": comment, **more}
    told = client.post("/api/v1/reviews", json=body)
    assert told.status_code == status, told.text
    return told.json()


def stored(studio: Studio) -> list[Demonstration]:
    return studio.store.demonstrations(studio.writing)


def fields(page: str) -> dict[str, str]:
    """What a browser would send of the form on the page."""
    form = page[page.index('<form method="post"') : page.index("<template")]
    found = {
        m[1]: unescape(m[2])
        for m in re.finditer(r'<input type="\w+" (?:id="\w+" )?name="(\w+)"[^>]*?value="([^"]*)"', form)
    }
    for name, text in re.findall(r'<textarea id="\w+" name="(\w+)"[^>]*>([^<]*)</textarea>', form):
        found[name] = unescape(text)
    return found


def press(client: TestClient, do: str, form: dict[str, str], path: str = "/write", **more: str) -> Any:
    return client.post(path, data={**form, **more, "do": do}, headers={"accept": "text/html"}, follow_redirects=False)


# --- writing -----------------------------------------------------------------------------------------------------


def test_who_is_alone_writes_what_counts_at_once(client: TestClient, studio: Studio) -> None:
    kept = hands_in(client, "What is a roux?", "Flour and butter.", skill=" a  fact ", token="one")
    assert (kept["status"], kept["new"]) == ("accepted", True)
    (record,) = stored(studio)
    assert (record.author, record.drafted_by, record.skill, record.status) == ("ann", "person", "a fact", "accepted")
    assert record.guidelines_version.startswith("sha256:") and record.source == "studio"
    assert hands_in(client, "What is a roux?", "Flour and butter.", skill="a fact", token="one")["new"] is False
    assert len(stored(studio)) == 1 and Shelf(studio.store, studio.writing).count(review=True) == 1
    page = client.get("/write", headers={"accept": "text/html"}).text
    assert "You are alone in this studio" in page and "What is a roux?" in page


def test_what_is_no_example_is_refused_in_one_line(client: TestClient, studio: Studio) -> None:
    for texts, why in (
        (("Hi?", " \n"), "turn 2, the answer, is empty"),
        (("  ", "Yes."), "turn 1, the prompt, is empty"),
        (("Hi?",), "does not end with an answer"),
        (("x" * 50_000, "y" * 50_000) * 3, "more than 200,000 characters"),
    ):
        assert why in hands_in(client, *texts, status=422)["detail"]
    wrong = [{"role": "assistant", "content": "Hello."}]
    assert "by the wrong one" in client.post(EXAMPLES, json={"messages": wrong}).json()["detail"]
    alone = [{"role": "system", "content": "Be brief."}]
    assert "nothing is asked" in client.post(EXAMPLES, json={"messages": alone}).json()["detail"]
    assert client.post(EXAMPLES, json={"messages": turns("a", "b"), "author": "bob"}).status_code == 422
    assert client.post(EXAMPLES, json={"messages": turns("a", "b" * 50_001)}).status_code == 422
    assert stored(studio) == []


def test_the_same_words_are_refused_with_a_link_and_similar_ones_are_shown(client: TestClient, studio: Studio) -> None:
    id_ = hands_in(client, "Suggest a vegan dinner under 20 minutes", "Fry tofu.")["id"]
    told = hands_in(client, "suggest a vegan dinner under 20 minutes!", "FRY tofu", status=409)
    assert f"/write/{id_}" in told["detail"] and len(stored(studio)) == 1
    look = {"messages": turns("Suggest a vegan dinner under 30 minutes")}
    hints = client.post(f"{EXAMPLES}/alike", json=look).json()
    assert hints["same"] is None
    assert [(h["id"], h["asked"], h["answer"], h["author"]) for h in hints["near"]] == [(id_, 0.6, "Fry tofu.", "ann")]
    look = {"messages": turns("Suggest a vegan dinner under 20 minutes", "Fry tofu.")}
    assert client.post(f"{EXAMPLES}/alike", json=look).json()["same"] == id_
    assert client.post(f"{EXAMPLES}/alike", json={**look, "supersedes": id_}).json() == {"same": None, "near": []}
    assert client.post(f"{EXAMPLES}/alike", json={"messages": []}).json() == {"same": None, "near": []}


def test_a_new_version_takes_the_place_of_ones_own_alone(enter: Enter, many: Studio) -> None:
    ann, bob = enter("ann"), enter("bob")
    first = hands_in(ann, "Dinner?", "Soup.")["id"]
    hands_in(bob, "Dinner?", "Stew.", supersedes=first, status=404)
    second = hands_in(ann, "Dinner?", "Soup and bread.", supersedes=first)["id"]
    assert [one["id"] for one in ann.get(EXAMPLES).json()] == [second]
    assert "newer version" in hands_in(ann, "Dinner?", "Cake.", supersedes=first, status=422)["detail"]
    assert ann.get(f"{EXAMPLES}/{first}").json()["status"] == "superseded"
    assert bob.delete(f"{EXAMPLES}/{second}").status_code == 422
    assert ann.delete(f"{EXAMPLES}/{second}").status_code == 204
    assert ann.get(EXAMPLES).json()[0]["status"] == "withdrawn" and len(stored(many)) == 2


def test_only_authors_write_and_review(enter: Enter) -> None:
    eve = enter("eve", "evaluator")
    for method, path in (
        ("GET", "/write"), ("GET", "/write/new"), ("GET", "/write/x"), ("POST", "/write"), ("POST", "/write/back"),
        ("GET", "/review"), ("GET", "/review/x"), ("POST", "/review"), ("GET", EXAMPLES), ("GET", f"{EXAMPLES}/x"),
        ("GET", f"{EXAMPLES}/progress"), ("DELETE", f"{EXAMPLES}/x"), ("GET", "/api/v1/prompts"),
        ("GET", "/api/v1/reviews"), ("POST", "/api/v1/reviews/next"), ("DELETE", f"{EXAMPLES}/draft/x"),
    ):  # fmt: skip
        assert eve.request(method, path).status_code == 403, path
    assert hands_in(eve, "a", "b", status=403) and says(eve, "x", "accepted", status=403)


# --- prompts -----------------------------------------------------------------------------------------------------


def test_a_prompt_alone_waits_for_somebody_who_answers_it(enter: Enter, many: Studio) -> None:
    ann, bob = enter("ann"), enter("bob")
    body = {"messages": turns("Which knife first?", system="Be brief."), "skill": "advice"}
    kept = ann.post("/api/v1/prompts", json=body).json()
    assert kept["new"] and ann.post("/api/v1/prompts", json=body).json()["new"] is False
    assert "ends with an answer" in ann.post("/api/v1/prompts", json={"messages": turns("a", "b")}).json()["detail"]
    (offered,) = bob.get("/api/v1/prompts").json()
    assert (offered["id"], offered["skill"]) == (kept["id"], "advice")
    assert "Which knife first?" in bob.get("/write").text
    form = fields(bob.get(f"/write/new?prompt={kept['id']}").text)
    assert (form["system"], form["ask_1"], form["answer_1"], form["skill"]) == (
        "Be brief.",
        "Which knife first?",
        "",
        "advice",
    )
    assert press(bob, "hand", form, answer_1="A chef's knife.").status_code == 303
    assert bob.get("/api/v1/prompts").json() == []
    (record,) = stored(many)
    assert record.author == "bob" and record.messages[0].role == "system"
    assert bob.get("/write/new?prompt=nothing").status_code == 404


# --- the form without scripts ------------------------------------------------------------------------------------


def test_a_conversation_is_written_without_scripts(client: TestClient, studio: Studio) -> None:
    form = fields(client.get("/write/new").text)
    page = press(client, "add", form, ask_1="Dinner?", answer_1="Soup.").text
    form = fields(page)
    assert (form["ask_1"], form["answer_1"], form["ask_2"]) == ("Dinner?", "Soup.", "")
    form = fields(press(client, "add", form, ask_2="And then?", answer_2="Cake.").text)
    form = fields(press(client, "up-2", form, ask_3="Thanks!", answer_3="").text)
    assert [form[f"ask_{n}"] for n in (1, 2, 3)] == ["And then?", "Dinner?", "Thanks!"]
    form = fields(press(client, "down-1", form).text)
    form = fields(press(client, "remove-3", form).text)
    assert [form[f"ask_{n}"] for n in (1, 2)] == ["Dinner?", "And then?"] and "ask_3" not in form
    page = press(client, "look", form, system="Be **brief**.").text
    assert "How it reads" in page and "<strong>brief</strong>" in page
    told = press(client, "hand", fields(page), answer_2="")
    assert told.status_code == 422 and "does not end with an answer" in told.text
    done = press(client, "hand", fields(told.text), answer_2="Cake.\r\n")
    assert done.status_code == 303 and done.headers["location"].startswith("/write?kept=")
    (record,) = stored(studio)
    assert [m.content for m in record.messages] == ["Be **brief**.", "Dinner?", "Soup.", "And then?", "Cake."]
    assert "It is stored, and it counts." in client.get(done.headers["location"]).text
    again = press(client, "hand", fields(client.get("/write/new").text), ask_1="dinner", answer_1="soup")
    assert again.status_code == 303, "the same beginning is not the same conversation"


def test_the_form_refuses_the_same_words_with_a_link(client: TestClient) -> None:
    id_ = hands_in(client, "Dinner?", "Soup.")["id"]
    told = press(client, "hand", fields(client.get("/write/new").text), ask_1="Dinner?", answer_1="Soup.")
    assert told.status_code == 422 and f'href="/write/{id_}"' in told.text and fields(told.text)["ask_1"] == "Dinner?"


def test_what_is_begun_is_found_again_and_gone_when_it_is_handed_in(client: TestClient, studio: Studio) -> None:
    form = fields(client.get("/write/new").text)
    press(client, "add", form, ask_1="Half a thought")
    assert fields(client.get("/write/new").text)["ask_1"] == "Half a thought"
    page = client.get("/write").text
    assert "Not finished" in page and "Half a thought" in page
    other = client.get("/write/new?slot=2").text
    assert fields(other)["ask_1"] == "" and 'data-key="write:new-2"' in other
    form = fields(client.get("/write/new").text)
    assert press(client, "hand", form, answer_1="Whole.", ask_2="", answer_2="").status_code == 422
    form.pop("ask_2"), form.pop("answer_2")
    assert press(client, "hand", form, answer_1="Whole.").status_code == 303
    assert fields(client.get("/write/new").text)["ask_1"] == "" and "Not finished" not in client.get("/write").text
    form = fields(client.get("/write/new").text)
    press(client, "add", form, ask_1="Away with it")
    assert press(client, "discard", form).status_code == 303
    assert fields(client.get("/write/new").text)["ask_1"] == ""


def test_a_draft_of_another_shape_breaks_nothing(client: TestClient) -> None:
    for content in (
        {"exchanges": "no"},
        {"exchanges": [3]},
        {"system": 5, "exchanges": [{"ask": None}]},
        {"slot": "x"},
    ):
        client.put("/api/v1/drafts/write:new", json={"content": content})
        assert client.get("/write/new").status_code == client.get("/write").status_code == 200


def test_the_preview_is_harmless(client: TestClient) -> None:
    texts = ["**a**", "<script>x</script>", "[y](javascript:z)", ""]
    html = client.post(f"{EXAMPLES}/preview", json={"texts": texts}).json()
    assert html[0] == "<p><strong>a</strong></p>\n" and html[3] == ""
    assert "<script" not in html[1] and "href" not in html[2]


# --- drafts by a model -------------------------------------------------------------------------------------------


def drafts(client: TestClient, *texts: str, token: str = "t") -> list[dict[str, Any]]:
    told = client.post(f"{EXAMPLES}/draft", json={"messages": turns(*texts), "token": token})
    assert told.status_code == 200, told.text
    lines = [line[6:] for line in told.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_draft_by_a_model_stays_marked_whatever_is_changed(studio: Studio) -> None:
    parrot = Parrot()
    studio = dataclasses.replace(studio, speaker=parrot)
    client = TestClient(build(studio), base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"})
    told = drafts(client, "How long does salmon keep?", token="t1")
    assert "".join(one.get("text", "") for one in told) == "Two days in the fridge. "
    assert parrot.asked == [("secret-policy", ["How long does salmon keep?"])]
    id_ = hands_in(client, "How long does salmon keep?", "Two days in the cellar.", token="t1")["id"]
    (record,) = stored(studio)
    assert record.drafted_by == "model"
    assert record.extra["draft"] == {
        "model": "secret-policy", "checkpoint": "checkpoint of secret-policy", "text": "Two days in the fridge. ",
        "changed": 0.2,
    }  # fmt: skip
    hands_in(client, "How long does salmon keep?", "One day.", token="t2", supersedes=id_)
    assert stored(studio)[-1].extra["draft"]["text"] == "Two days in the fridge. ", "the next version is marked, too"
    (shown,) = client.get(EXAMPLES).json()
    assert shown["drafted"] and shown["draft"] == "Two days in the fridge. " and shown["changed"] > 0.5
    pages = [client.get(path).text for path in ("/write", f"/write/{shown['id']}", f"/write/{id_}")]
    assert "drafted by a model" in pages[0] and not any("secret" in text for text in [json.dumps(shown), *pages])

    drafts(client, "Dinner?", token="t3")
    assert client.delete(f"{EXAMPLES}/draft/t3").status_code == 204
    hands_in(client, "Dinner?", "Soup.", token="t3")
    assert stored(studio)[-1].drafted_by == "person", "the draft was taken out before it was handed in"


def test_a_draft_without_scripts(studio: Studio) -> None:
    studio = dataclasses.replace(studio, speaker=Parrot())
    client = TestClient(build(studio), base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"})
    form = fields(press(client, "draft", fields(client.get("/write/new").text), ask_1="Salmon?").text)
    assert form["answer_1"] == "Two days in the fridge. "
    assert press(client, "hand", form, answer_1="Two days.").status_code == 303
    assert stored(studio)[0].drafted_by == "model"


def test_what_a_model_cannot_draft_is_told(client: TestClient, studio: Studio) -> None:
    body = {"messages": turns("Salmon?"), "token": "t"}
    assert client.post(f"{EXAMPLES}/draft", json=body).status_code == 409, "there is no model"
    assert "Let a model draft" not in client.get("/write/new").text
    able = TestClient(build(dataclasses.replace(studio, speaker=Parrot())), base_url=ADDRESS, headers=client.headers)
    assert "Let a model draft" in able.get("/write/new").text
    assert "nothing to answer" in able.post(f"{EXAMPLES}/draft", json={**body, "messages": turns("a", "b")}).text
    assert "too long" in drafts(able, "too long")[-1]["error"]
    assert able.post(f"{EXAMPLES}/draft", json={**body, "token": ""}).status_code == 422
    hands_in(able, "too long", "x", token="t")
    assert stored(studio)[-1].drafted_by == "person", "the model said nothing"


def test_one_draft_at_a_time_for_each_person(studio: Studio) -> None:
    go = threading.Event()
    studio = dataclasses.replace(studio, speaker=Parrot(wait=go))
    app = build(studio)
    first, second = (
        TestClient(app, base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"}) for _ in range(2)
    )  # fmt: skip
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.extend(drafts(first, "Salmon?")))
    thread.start()
    for _ in range(1000):
        if studio.speaker.asked:  # type: ignore[union-attr]
            break
        threading.Event().wait(0.01)
    refused = second.post(f"{EXAMPLES}/draft", json={"messages": turns("Soup?"), "token": "u"})
    go.set()
    thread.join(10)
    assert refused.status_code == 409 and "".join(one.get("text", "") for one in told).startswith("Two days")
    assert drafts(second, "Soup?")


# --- reviewing ---------------------------------------------------------------------------------------------------


def test_what_counts_was_accepted_by_a_second_person(enter: Enter, many: Studio) -> None:
    ann, bob = enter("ann"), enter("bob")
    first = hands_in(ann, "Dinner?", "Soup.")
    assert first["status"] == "waiting"
    assert ann.post("/api/v1/reviews/next").json() is None
    shown = bob.post("/api/v1/reviews/next").json()
    assert (shown["id"], shown["author"], shown["counts"]) == (first["id"], "ann", False)
    assert "your own" in says(ann, first["id"], "accepted", status=422)["detail"]
    assert "would not know" in says(bob, first["id"], "returned", status=422)["detail"]
    says(bob, first["id"], "returned", "Which soup?")
    (mine,) = ann.get(EXAMPLES, params={"status": "returned"}).json()
    assert mine["comment"] == "Which soup?"
    page = ann.get(f"/write/{first['id']}").text
    assert page.index("bob sent it back") < page.index("Which soup?") < page.index("<textarea")
    second = hands_in(ann, "Dinner?", "Tomato soup.", supersedes=first["id"])["id"]
    says(bob, second, "accepted")
    far = ann.get(f"{EXAMPLES}/progress").json()
    assert far == {"counts": 1, "waiting": 0, "wanted": None, "unanswered": 0}
    assert [d.messages[-1].content for d in Shelf(many.store, many.writing).accepted(review=True)] == ["Tomato soup."]
    says(bob, second, "rejected", "On second thoughts, no.")
    assert ann.get(f"{EXAMPLES}/progress").json()["counts"] == 0, "the last thing said counts"


def test_whoever_mends_is_named_beside_the_author(enter: Enter, many: Studio) -> None:
    ann, bob, eve = enter("ann"), enter("bob"), enter("eve")
    first = hands_in(ann, "Dinner?", "Sop.")["id"]
    told = says(bob, first, "accepted", messages=turns("Dinner?", "Soup."))
    assert told["id"] != first
    (mine,) = ann.get(EXAMPLES).json()
    assert (mine["author"], mine["mended_by"], mine["status"]) == ("ann", "bob", "accepted")
    assert "mended by bob" in ann.get("/write").text
    page = unescape(eve.get(f"/write/{told['id']}").text)
    assert "Written by ann, mended by bob" in page
    assert "does not end" in says(eve, told["id"], "accepted", messages=turns("Dinner?"), status=422)["detail"]
    assert says(eve, told["id"], "returned", "x", messages=turns("a", "b"), status=422)


def test_a_lead_can_do_without_reviews(enter: Enter, many: Studio) -> None:
    campaigns.decide(many.store, many.name, Settings(review=False))
    assert hands_in(enter("ann"), "Dinner?", "Soup.")["status"] == "accepted"
    assert "What you write counts at once." in enter("ann").get("/write").text


def test_two_who_review_do_not_read_the_same(enter: Enter) -> None:
    ann, bob, eve = enter("ann"), enter("bob"), enter("eve")
    ids = [hands_in(ann, f"Dinner {n}?", f"Soup {n}.")["id"] for n in range(2)]
    assert [who.post("/api/v1/reviews/next").json()["id"] for who in (bob, eve, bob)] == [*ids, ids[0]]
    assert eve.get("/api/v1/reviews").json() == {"waiting": 2, "for_you": 2}


def test_the_review_page_without_scripts(enter: Enter, many: Studio) -> None:
    ann, bob = enter("ann"), enter("bob")
    for n in range(4):
        hands_in(ann, f"Dinner {n}?", f"Soup {n}.")

    def shown() -> tuple[str, dict[str, str]]:
        page = bob.get("/review").text
        form = page[page.index("<form") : page.index("</form>")]
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
        return page, hidden

    page, form = shown()
    assert "Dinner 0?" in page and "4 wait for you" in page
    wrong = press(bob, "rejected", form, "/review", comment=" ")
    assert wrong.status_code == 422 and "would not know" in wrong.text
    passed = press(bob, "skip", form, "/review").headers["location"]
    assert "Dinner 1?" in bob.get(passed).text
    done = press(bob, "accepted", form, "/review").headers["location"]
    after = bob.get(done).text
    assert "The last one: accepted." in after and f"/review/{form['demonstration']}" in after
    for do, comment in (("returned", "Why?"), ("rejected", "No.")):
        _, form = shown()
        assert press(bob, do, form, "/review", comment=comment).status_code == 303
    _, form = shown()
    mended = press(bob, "mended", form, "/review", turn_0="Dinner 3?", turn_1="Onion soup.")
    assert mended.status_code == 303
    assert "That was all. Thank you!" in bob.get(mended.headers["location"]).text
    tally = Shelf(many.store, many.writing).tally()
    assert tally == {"accepted": 2, "returned": 1, "rejected": 1}
    assert stored(many)[-1].messages[-1].content == "Onion soup."
    assert ann.get(f"/review/{stored(many)[1].id}").status_code == 403
    assert bob.get(f"/review/{stored(many)[3].id}").status_code == 404, "there is a newer version"
    assert press(bob, "nothing", form, "/review").status_code == 422


def test_who_is_alone_is_told_why_nothing_waits(client: TestClient) -> None:
    hands_in(client, "Dinner?", "Soup.")
    assert "You are alone in this studio" in client.get("/review").text


def test_the_page_says_how_far_the_run_is(studio: Studio, store: Store) -> None:
    studio = dataclasses.replace(studio, demonstrations_wanted=3)
    client = TestClient(build(studio), base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"})
    hands_in(client, "Dinner?", "Soup.")
    waits = Demonstration(
        id="w", messages=conversation("a", "b"), family="f", author="bob", status="waiting", extra={}
    )  # fmt: skip
    store.add_demonstrations([waits], studio.writing)
    page = client.get("/write").text
    assert "The run waits for 3 examples" in page and "and has 1" in page
    demonstrations.review(store, studio.writing, "w", reviewer="ann", verdict="accepted", now=0.0)
    hands_in(client, "Lunch?", "Bread.")
    assert "it goes on by itself" in client.get("/write").text


def test_examples_with_strange_ids_and_shapes_can_be_read(enter: Enter, many: Studio) -> None:
    ann, bob = enter("ann"), enter("bob")
    shape = (
        Message(role="user", content="a"),
        Message(role="user", content="b"),
        Message(role="assistant", content="c"),
    )
    many.store.add_demonstrations(
        [Demonstration(id="file.jsonl:3/ü x", messages=shape, family="f", author="ann", status="waiting")], many.writing
    )
    (link,) = re.findall(r'href="(/write/file[^"]*)"', ann.get("/write").text)
    assert ann.get(link).status_code == bob.get(link).status_code == 200
    assert "Written by ann" in bob.get("/review").text
    says(bob, "file.jsonl:3/ü x", "accepted")
