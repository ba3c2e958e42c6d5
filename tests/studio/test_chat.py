"""Talking with models, and what is chosen on the way: streams, branches, blindness, judgements."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from tests_chat import CHAT, Parrots, ask, begin, duel, events, in_background, turn
from tests_people import Clock
from tests_studio import ADDRESS

from palate.feedback.people import Person
from palate.feedback.tables import DUELS
from palate.records import Judgement, Response
from palate.studio import answering, talks
from palate.studio.answering import Question, Voice
from palate.studio.app import build
from palate.studio.here import Studio
from palate.studio.turns import Turn, Turns

from .conftest import asking

ORDERS = {"a": [1, 2], "b": [2, 1], "tie": [1, 1], "both_bad": [1, 1]}


@pytest.fixture
def models() -> Parrots:
    return Parrots()


@pytest.fixture
def studio(studio: Studio, models: Parrots) -> Studio:
    return dataclasses.replace(studio, speaker=models)


def vote(client: TestClient, id_: str, told: dict[str, Any], verdict: str, **more: Any) -> Any:
    return client.post(f"{CHAT}/vote", json={"conversation": id_, "turn": told["id"], "verdict": verdict, **more})


def whole(client: TestClient, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{CHAT}/conversations/{id_}").json()
    return found


def answers(studio: Studio, judgement: Judgement) -> list[Response]:
    """What a judgement is about, in the order it was shown."""
    found = {r.id: r for r in studio.store.responses_to(judgement.prompt_id, studio.chats)}
    return [found[id_] for id_ in judgement.presented_order]


# --- the stream ---


def test_an_answer_comes_piece_by_piece_and_is_kept_as_it_was_said(client: TestClient, models: Parrots) -> None:
    id_ = begin(client)
    told = ask(client, id_, " Suggest a dinner. ")
    last = told[-1]["turn"]
    pieces = [event["text"] for event in told if "text" in event]
    assert len(pieces) == len("".join(pieces)) > 40, "one piece a letter, none joined or lost"
    assert "".join(pieces) == last["text"] == "Lamb für Suggest a dinner. 🍮 <script>alert(1)</script>"
    assert "&lt;script&gt;" in last["html"] and "<script" not in last["html"]
    kept = whole(client, id_)
    assert kept["title"] == "Suggest a dinner." and kept["at"] == last["id"] == told[0]["answer"]
    assert [t["role"] for t in kept["turns"]] == ["user", "assistant"] and kept["turns"][1]["html"] == last["html"]
    assert kept["turns"][1]["model"] == "ppo" and kept["turns"][1]["state"] == "whole"
    then = turn(client, id_, "And then?", last["id"], models=["base"], temperature=0.0)
    assert then["model"] == "base" and then["temperature"] == 0.0
    assert models.heard[-1] == ("base", ["Suggest a dinner.", last["text"], "And then?"])


def test_what_was_cut_off_by_the_model_is_told(client: TestClient) -> None:
    assert turn(client, begin(client), "cut")["state"] == "cut"


def test_a_system_message_is_heard_first(client: TestClient, models: Parrots) -> None:
    turn(client, begin(client, system=" Be brief. "), "Hello")
    assert models.heard == [("ppo", ["Be brief.", "Hello"])]


def test_a_conversation_survives_the_server_and_a_question_its_answer(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    first = turn(client, id_, "Hello")
    assert isinstance(studio.speaker, Parrots)

    def killed() -> None:
        raise RuntimeError

    studio.speaker.gate = killed
    with client.stream(
        "POST", f"{CHAT}/say", json={"conversation": id_, "parent": first["id"], "text": "On", "models": ["ppo"]}
    ) as answer:
        answer.read()
    with asking(dataclasses.replace(studio, speaker=Parrots(), turns=Turns())) as again:
        kept = whole(again, id_)
        assert [t["text"] for t in kept["turns"]] == ["Hello", first["text"], "On"]
        assert f'href="/chat/{id_}"' in again.get("/chat").text and again.get(f"/chat/{id_}").status_code == 200
        assert turn(again, id_, None, kept["at"])["text"].startswith("Lamb für On")


def test_what_goes_wrong_is_told_in_one_line_and_the_question_stays(client: TestClient) -> None:
    id_ = begin(client)
    assert ask(client, id_, "too long")[-1] == {"error": "Ppo reads 160 tokens, and it is 300. Write less."}
    assert "terminal" in ask(client, id_, "break")[-1]["error"]
    assert [t["text"] for t in whole(client, id_)["turns"]] == ["too long", "break"]
    assert turn(client, id_, "fine")["state"] == "whole", "the line is free again"


def scope(path: str) -> dict[str, Any]:
    """A request as a server hands it in."""
    told = {
        "host": ADDRESS.removeprefix("http://"),
        "sec-fetch-site": "same-origin",
        "content-type": "application/json",
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8484),
        "root_path": "",
    }


def test_a_model_stops_when_nobody_listens_any_more(client: TestClient, studio: Studio, models: Parrots) -> None:
    id_ = begin(client)
    heard = threading.Event()
    models.gate = lambda: heard.wait(5) if models.given > 3 else None

    async def leave() -> None:
        gone = asyncio.Event()
        body = json.dumps({"conversation": id_, "text": "Tell me all of it", "models": ["ppo"]}).encode()
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if b'"text"' in message.get("body", b""):
                gone.set()

        await asyncio.wait_for(build(studio)(scope(f"{CHAT}/say"), receive, send), 5)

    asyncio.run(leave())
    heard.set()
    wait_until(lambda: not studio.turns._line)
    assert models.given <= 6 and models.closed == 1, "it said no more than it was in the middle of"
    kept = whole(client, id_)
    assert kept["turns"][1]["state"] == "stopped" and kept["turns"][1]["text"] in ("L", "La", "Lam", "Lamb")
    models.gate = lambda: None
    assert turn(client, id_, None, kept["turns"][0]["id"])["state"] == "whole"


def wait_until(holds: Any) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_one_answer_at_a_time_for_each_person_and_in_turn_for_all(
    client: TestClient, studio: Studio, models: Parrots
) -> None:
    go = threading.Semaphore(0)
    models.gate = lambda: go.acquire(timeout=5)
    heard: dict[str, str] = {}
    people = {name: asking(studio, name) for name in ("ann", "bob", "eve")}
    ids = {name: begin(browser) for name, browser in people.items()}

    def talk(name: str) -> None:
        body = {"conversation": ids[name], "text": name, "models": ["ppo"]}
        heard[name] = people[name].post(f"{CHAT}/say", json=body).text

    # The line is the studio's, whoever asks; `asking` gives each person a studio of their own with the same line.
    threads = []
    for number, name in enumerate(people):
        threads.append(in_background(lambda name=name: talk(name)))
        wait_until(lambda number=number: len(studio.turns._line) == number + 1)
    refused = people["bob"].post(f"{CHAT}/say", json={"conversation": ids["bob"], "text": "!", "models": ["ppo"]})
    assert refused.status_code == 409 and "being written for you" in refused.json()["detail"]
    assert people["eve"].post(f"{CHAT}/stop").status_code == 204
    threads[2].join(5)
    assert events(heard["eve"])[1:] in ([{"waiting": 2}], []), "whoever is not asked yet never is"
    go.release(1000)
    for thread in threads:
        thread.join(5)
    assert [name for _, (name,) in models.heard] == ["ann", "bob"] and models.most_at_once == 1
    assert {"waiting": 1} in events(heard["bob"]) and "turn" in events(heard["bob"])[-1]
    assert [t["text"] for t in whole(people["eve"], ids["eve"])["turns"]] == ["eve"]


def test_stop_keeps_what_was_said(client: TestClient, studio: Studio, models: Parrots) -> None:
    id_ = begin(client)
    go = threading.Semaphore(4)
    models.gate = lambda: go.acquire(timeout=5)
    said: list[Any] = []
    thread = in_background(lambda: said.append(ask(client, id_, "Tell me")))
    wait_until(lambda: models.given == 4)
    with asking(studio, "eve") as eve:
        eve.post(f"{CHAT}/stop")  # stops nobody else's
    client.post(f"{CHAT}/stop")
    go.release(1000)
    thread.join(5)
    assert said[0][-1]["turn"]["state"] == "stopped" and said[0][-1]["turn"]["text"].startswith("Lamb")
    assert models.given < 7


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"text": "x" * 8001}, 422, "8000"),
        ({"text": " "}, 422, "nothing in it"),
        ({"temperature": 2.1}, 422, "temperature"),
        ({"models": ["nobody"]}, 422, "no model 'nobody'"),
        ({"models": []}, 422, "one model"),
        ({"models": ["ppo", "sft"]}, 422, "one model"),
        ({"models": ["ppo", "ppo"], "blind": True}, 422, "two different"),
        ({"models": ["ppo"], "blind": True}, 422, "two different"),
        ({"surprise": 1}, 422, "surprise"),
        ({"parent": "0123"}, 404, "no such turn"),
        ({"conversation": "0123"}, 404, "no such conversation"),
        ({"text": None}, 404, "no such turn"),
    ],
)
def test_what_cannot_be_asked(client: TestClient, body: dict[str, Any], status: int, told: str) -> None:
    given = {"conversation": begin(client), "text": "Hello", "models": ["ppo"]} | body
    answer = client.post(f"{CHAT}/say", json=given)
    assert answer.status_code == status and told in answer.json()["detail"]
    turn(client, begin(client), "free")  # nobody stands in the line


def test_a_conversation_ends_somewhere(client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = begin(client)
    first = turn(client, id_, "Hello")
    for _ in range(talks.MOST_ALTERNATIVES - 1):
        turn(client, id_, None, first["parent"])
    again = client.post(f"{CHAT}/say", json={"conversation": id_, "parent": first["parent"], "models": ["ppo"]})
    assert again.status_code == 413 and "9 answers" in again.json()["detail"]
    monkeypatch.setattr(talks, "LONGEST_PATH", 60)
    long = {"conversation": id_, "parent": first["id"], "text": "x" * 50, "models": ["ppo"]}
    assert client.post(f"{CHAT}/say", json=long).status_code == 413
    monkeypatch.setattr(talks, "MOST_TURNS", 10)
    assert client.post(f"{CHAT}/say", json=long | {"text": "x"}).status_code == 413
    assert len(whole(client, id_)["turns"]) == 10, "what was refused is not kept"


def test_nobody_reads_another_ones_conversation(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    told = turn(client, id_, "A secret")
    at = {"conversation": id_, "turn": told["id"]}
    with asking(studio, "eve") as eve:
        tried = [
            eve.get(f"/chat/{id_}"),
            eve.get(f"{CHAT}/conversations/{id_}"),
            eve.delete(f"{CHAT}/conversations/{id_}"),
            eve.put(f"{CHAT}/at", json=at),
            eve.post(f"{CHAT}/say", json={"conversation": id_, "text": "Hi", "models": ["ppo"]}),
            eve.post(f"{CHAT}/vote", json=at | {"verdict": "a"}),
            eve.post(f"{CHAT}/prefer", json=at),
            eve.post(f"{CHAT}/improve", json=at | {"text": "x"}),
        ]
        assert [answer.status_code for answer in tried] == [404] * len(tried)
        assert not any("secret" in answer.text for answer in tried) and eve.get(f"{CHAT}/conversations").json() == []
    assert client.delete(f"{CHAT}/conversations/{id_}").status_code == 204
    assert client.get(f"{CHAT}/conversations/{id_}").status_code == 404


def test_who_does_not_judge_talks_and_judges_nothing(studio: Studio) -> None:
    author = dataclasses.replace(studio, single=Person("ann", frozenset({"author"})))
    with TestClient(build(author), base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"}) as client:
        id_ = begin(client)
        told = turn(client, id_, "Hello")
        at = {"conversation": id_, "turn": told["id"]}
        assert client.post(f"{CHAT}/say", json={"conversation": id_, "text": "x", "blind": True}).status_code == 403
        for path, more in (("vote", {"verdict": "a"}), ("prefer", {}), ("improve", {"text": "x"})):
            assert client.post(f"{CHAT}/{path}", json=at | more).status_code == 403
        assert "Two, blind" not in client.get("/chat").text


def test_a_studio_without_a_model_says_what_to_do(studio: Studio) -> None:
    for speaker, told in ((None, "palate studio runs/NAME"), (Parrots(()), "palate studio runs/NAME")):
        with asking(dataclasses.replace(studio, speaker=speaker)) as client:
            assert told in client.get("/chat").text
            given = {"conversation": begin(client), "text": "x", "models": ["ppo"]}
            assert client.post(f"{CHAT}/say", json=given).status_code == 409
            assert client.get(f"{CHAT}/models").json() == {"models": []}


# --- branches ---


def test_asking_again_and_editing_make_branches(client: TestClient, models: Parrots) -> None:
    id_ = begin(client)
    first = turn(client, id_, "Hello")
    second = turn(client, id_, None, first["parent"], models=["sft"])
    assert second["parent"] == first["parent"] and second["text"].startswith("Stew")
    edited = turn(client, id_, "Good evening")
    kept = whole(client, id_)
    assert kept["at"] == edited["id"] and [t["parent"] for t in kept["turns"] if t["role"] == "user"] == ["", ""]
    assert models.heard[-1] == ("ppo", ["Good evening"]), "an edited question knows nothing of the one before"
    assert client.put(f"{CHAT}/at", json={"conversation": id_, "turn": second["id"]}).status_code == 204
    assert whole(client, id_)["at"] == second["id"]
    turn(client, id_, "On", second["id"])
    assert models.heard[-1][1] == ["Hello", second["text"], "On"], "the branch one is at is what is gone on with"


def test_the_best_of_several_answers_is_one_judgement(client: TestClient, studio: Studio) -> None:
    id_ = begin(client, system="Be kind.")
    first = turn(client, id_, "Hello", temperature=0.5)
    alone = client.post(f"{CHAT}/prefer", json={"conversation": id_, "turn": first["id"]})
    assert alone.status_code == 409 and "no other" in alone.json()["detail"]
    second = turn(client, id_, None, first["parent"], models=["sft"])
    turn(client, id_, None, first["parent"])  # the same words as the first: nobody can prefer one of them
    third = turn(client, id_, None, first["parent"], models=["base"])
    given = {"conversation": id_, "turn": second["id"], "reason": " Warm. ", "seconds": 3.21}
    told = client.post(f"{CHAT}/prefer", json=given)
    assert told.status_code == 200 and told.json()["preferred"] == second["id"]
    (stored,) = studio.store.judgements(studio.chats)
    shown = answers(studio, stored)
    assert [r.text for r in shown] == [first["text"], second["text"], third["text"]]
    assert list(stored.ranks.values()) == [2, 1, 2] and stored.extra == {"names_shown": True, "only_best": True}
    assert (stored.annotator, stored.rationale, stored.seconds, stored.source) == ("ann", "Warm.", 3.2, "studio chat")
    assert (shown[0].model, shown[0].checkpoint, shown[0].origin) == ("ppo", "checkpoint of ppo", "model")
    assert shown[0].sampling == {"temperature": 0.5, "seed": first["seed"]} and not shown[0].token_ids
    prompt = studio.store.prompt(stored.prompt_id, studio.chats)
    assert (
        prompt is not None and [m.content for m in prompt.messages] == ["Be kind.", "Hello"] and prompt.split == "train"
    )
    assert client.post(f"{CHAT}/prefer", json=given).status_code == 200
    assert len(studio.store.judgements(studio.chats)) == 1, "the same once more is the same"
    client.post(f"{CHAT}/prefer", json=given | {"turn": third["id"]})
    (now,) = studio.store.judgements(studio.chats)
    assert now.supersedes == stored.id and list(now.ranks.values()) == [2, 2, 1]


# --- two, blind ---


def test_before_the_choice_nothing_served_tells_which_is_which(studio: Studio) -> None:
    """Two studios that differ only in which of the models is A serve the same to the last letter, ids and times apart.
    The models say the same, so that what is left to differ is what must not."""
    served = []
    for order in (["ppo", "sft"], ["sft", "ppo"]):
        models = Parrots(alike=True)
        chosen = dataclasses.replace(studio, speaker=models, turns=Turns(), rng=Chosen(order), now=lambda: 1e9)
        with asking(chosen, f"{order[0]} first") as client:
            id_ = begin(client)
            stream = client.post(
                f"{CHAT}/say", json={"conversation": id_, "text": "Hi", "blind": True, "models": ["ppo", "sft"]}
            ).text
            told = [stream, client.get(f"{CHAT}/conversations/{id_}").text, client.get(f"/chat/{id_}").text]
            told += [client.get(path).text for path in ("/chat", f"{CHAT}/conversations", f"{CHAT}/models")]
        assert [name for name, _ in models.heard] == order
        turns = whole(client, id_)["turns"]
        for number, known in enumerate([id_, *(t["id"] for t in turns)]):
            told = [text.replace(known, f"id-{number}") for text in told]
        served.append([text.replace(f"{order[0]} first", "ann") for text in told])
        assert "names" in served[-1][1] and not any(name in served[-1][0] for name in ("ppo", "sft", 'seed": 1'))
    assert served[0] == served[1]


class Chosen(random.Random):
    """Chance that puts two models in this order, and gives both answers the same seed."""

    def __init__(self, order: list[str]) -> None:
        super().__init__(1)
        self.order = order

    def sample(self, population: Any, k: int, **_: Any) -> list[Any]:  # type: ignore[override]
        assert set(population) >= set(self.order) and k == 2
        return self.order

    def randrange(self, *_: Any) -> int:  # type: ignore[override]
        return 1


def test_both_answers_come_in_step(client: TestClient, models: Parrots) -> None:
    told = ask(client, begin(client), "Hello", blind=True, models=["sft", "ppo"])
    pieces = [event for event in told if "a" in event or "b" in event]
    both = [event for event in pieces if len(event) == 2]
    assert len(pieces) == len(both), "answers of the same length: every event has a piece of each"
    assert "".join(event["a"] for event in pieces) == told[-1]["turn"]["a"]["text"]
    assert {told[-1]["turn"]["a"]["text"][:4], told[-1]["turn"]["b"]["text"][:4]} == {"Lamb", "Stew"}
    assert models.most_at_once == 2


@pytest.mark.parametrize("slow", ["ppo", "sft"])
def test_where_one_is_longer_its_rest_comes_as_fast_as_both_did(studio: Studio, slow: str) -> None:
    """Whichever of the two is the slow one, what comes and when it comes is the same."""
    clock = Clock()

    class Rested(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.at += timeout or 0.0
            return False

    class Runners(Parrots):
        def say(self, model: str, messages: Any, *, temperature: float, seed: int) -> Generator[str, None, bool]:
            for piece in "abcdef" if model == "ppo" else "abcdefghijklm":
                clock.at += 0.75 if model == slow else 0.25
                yield piece
            return True

    both = dataclasses.replace(studio, speaker=Runners(("ppo", "sft")), now=clock)
    place = Turn("ann")
    place.stopped = Rested()
    asked = Question("ann", "", "", [], [Voice(model, "", 0.7, 0) for model in ("ppo", "sft")])
    times: list[tuple[float, list[str]]] = []
    answering._speak(both, place, asked, lambda event: times.append((clock.at, sorted(event))))
    assert [names for _, names in times] == [["a", "b"]] * 6 + [["b"]] * 7
    assert {round(later - before, 6) for (before, _), (later, _) in itertools.pairwise(times)} == {1.0}


def test_which_model_is_a_is_chance_and_any_two_may_meet(client: TestClient) -> None:
    id_ = begin(client)
    firsts, pairs = set(), set()
    told = duel(client, id_, "Hello")
    for number in range(24):
        firsts.add(told["a"]["text"][:4])
        pairs.add(frozenset((told["a"]["text"][:4], told["b"]["text"][:4])))
        told = duel(client, begin(client), f"Hello {number}")
    assert firsts == {"Lamb", "Stew", "Rice"} and len(pairs) == 3  # by chance alone wrong once in ten thousand


@pytest.mark.parametrize("verdict", ["a", "b", "tie", "both_bad"])
def test_a_vote_is_a_judgement_and_then_names_the_models(
    client: TestClient, studio: Studio, models: Parrots, verdict: str
) -> None:
    id_ = begin(client)
    told = duel(client, id_, "Hello", models=["ppo", "sft"], temperature=0.3)
    assert told["names"] is None and told["model"] == "" and told["seed"] == 0
    heard = [name for name, _ in models.heard]
    answer = vote(client, id_, told, verdict, reason="It is warm.", seconds=2.0)
    assert answer.json()["names"] == dict(zip("ab", heard, strict=True))
    (stored,) = studio.store.judgements(studio.chats)
    shown = answers(studio, stored)
    assert [r.text for r in shown] == [told["a"]["text"], told["b"]["text"]]
    assert [r.model for r in shown] == heard and shown[0].checkpoint == f"checkpoint of {heard[0]}"
    assert shown[0].sampling["temperature"] == 0.3 and shown[0].sampling["seed"] != shown[1].sampling["seed"]
    assert list(stored.ranks.values()) == ORDERS[verdict] and stored.touched
    assert stored.extra == ({"both_bad": True} if verdict == "both_bad" else {})
    assert stored.guidelines_version == studio.guidelines.version and stored.rationale == "It is warm."
    kept = answer.json()["kept"]
    assert kept == verdict or verdict in ("tie", "both_bad")
    turn(client, id_, "On", told["id"])
    assert models.heard[-1][1] == ["Hello", told[kept]["text"], "On"], "what was preferred is gone on with"


def test_names_are_told_only_when_the_judgement_is_stored(client: TestClient, studio: Studio) -> None:
    if studio.store.is_postgresql:
        pytest.skip("the disk is full by a trigger of SQLite")
    id_ = begin(client)
    told = duel(client, id_, "Hello")
    with studio.store.writing() as connection:
        connection.execute(
            sa.text("CREATE TRIGGER full BEFORE INSERT ON judgements BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        )
    with asking(studio) as same:
        same_told = TestClient(
            same.app, base_url=ADDRESS, headers={"sec-fetch-site": "same-origin"}, raise_server_exceptions=False
        )
        failed = vote(same_told, id_, told, "a")
    assert failed.status_code >= 500 and not any(name in failed.text for name in ("ppo", "sft", "base"))
    assert whole(client, id_)["turns"][1]["names"] is None
    with studio.store.writing() as connection:
        connection.execute(sa.text("DROP TRIGGER full"))
    assert vote(client, id_, told, "a").json()["names"]


def test_nobody_chooses_twice_or_goes_on_without_choosing(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    told = duel(client, id_, "Hello")
    on = {"conversation": id_, "parent": told["id"], "text": "On", "models": ["ppo"]}
    assert client.post(f"{CHAT}/say", json=on).status_code == 409
    early = {"conversation": id_, "turn": told["id"], "text": "Better."}
    assert client.post(f"{CHAT}/improve", json=early).status_code == 409
    assert vote(client, id_, told, "a").status_code == 200 and vote(client, id_, told, "a").status_code == 200
    again = vote(client, id_, told, "b")
    assert again.status_code == 409 and "already" in again.json()["detail"]
    assert len(studio.store.judgements(studio.chats)) == 1
    assert vote(client, id_, {"id": told["parent"]}, "a").status_code == 409


def test_two_who_choose_at_once_choose_once(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    told = duel(client, id_, "Hello")
    statuses: list[int] = []
    threads = [
        in_background(lambda verdict=verdict: statuses.append(vote(client, id_, told, verdict).status_code))
        for verdict in ("a", "b", "tie", "both_bad")
    ]
    for thread in threads:
        thread.join(10)
    assert sorted(statuses) == [200, 409, 409, 409] and len(studio.store.judgements(studio.chats)) == 1


def test_equal_answers_are_a_tie_and_stopped_ones_nothing(studio: Studio) -> None:
    models = Parrots(alike=True)
    with asking(dataclasses.replace(studio, speaker=models)) as client:
        id_ = begin(client)
        told = duel(client, id_, "Hello")
        assert vote(client, id_, told, "a").status_code == 422 and vote(client, id_, told, "tie").status_code == 200
        go = threading.Semaphore(8)
        models.gate = lambda: go.acquire(timeout=5)
        said: list[Any] = []
        thread = in_background(lambda: said.append(duel(client, id_, "More", told["id"])))
        wait_until(lambda: models.given >= 8 + 2 * len(told["a"]["text"]))
        client.post(f"{CHAT}/stop")
        go.release(1000)
        thread.join(5)
        assert {said[0]["a"]["state"], said[0]["b"]["state"]} == {"stopped"}
        assert vote(client, id_, said[0], "b").status_code == 409
        assert len(studio.store.judgements(studio.chats)) == 1


def test_what_goes_wrong_with_one_of_two_names_none(client: TestClient) -> None:
    for text in ("too long", "break"):
        told = ask(client, begin(client), text, blind=True, models=["ppo", "sft"])
        assert set(told[-1]) == {"error"}
        assert not any(hint in told[-1]["error"].lower() for hint in ("ppo", "sft", "160", "300"))


def test_which_is_which_stands_in_no_table_but_one_that_is_never_served(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    told = duel(client, id_, "Hello", models=["ppo", "sft"])
    with studio.store.reading("duels") as connection:
        (secret,) = connection.execute(sa.select(DUELS.c.content).where(DUELS.c.id == told["id"])).scalars()
    assert {secret["a"]["model"], secret["b"]["model"]} == {"ppo", "sft"}
    names = [route.path for route in build(studio).routes if "duel" in getattr(route, "path", "")]
    assert names == []


# --- what it should have said ---


def test_what_a_person_wrote_is_better_and_the_conversation_goes_on_with_it(
    client: TestClient, studio: Studio, models: Parrots
) -> None:
    id_ = begin(client)
    told = turn(client, id_, "Hello")
    given = {"conversation": id_, "turn": told["id"], "text": " Good evening. ", "reason": "Polite."}
    answer = client.post(f"{CHAT}/improve", json=given).json()
    (stored,) = studio.store.judgements(studio.chats)
    assert answer["judgement"] == stored.id and answer["example"] == ""
    original, better = answers(studio, stored)
    assert stored.ranks == {better.id: 1, original.id: 2} and stored.rationale == "Polite."
    assert (better.text, better.origin, better.model) == ("Good evening.", "human", "") and original.model == "ppo"
    assert original.text == told["text"]
    now = answer["conversation"]
    assert now["at"] == now["turns"][-1]["id"] and now["turns"][-1]["by_person"]
    turn(client, id_, "On", now["at"])
    assert models.heard[-1][1] == ["Hello", "Good evening.", "On"]
    client.post(f"{CHAT}/improve", json=given)
    assert len(studio.store.judgements(studio.chats)) == 1 and len(whole(client, id_)["turns"]) == 5
    same = client.post(f"{CHAT}/improve", json=given | {"text": told["text"]})
    assert same.status_code == 422 and "what the model said" in same.json()["detail"]
    asked = client.post(f"{CHAT}/improve", json=given | {"turn": told["parent"]})
    assert asked.status_code == 409


def test_the_better_of_two_blind_answers_can_be_improved_after_the_choice(client: TestClient, studio: Studio) -> None:
    id_ = begin(client)
    told = duel(client, id_, "Hello")
    names = vote(client, id_, told, "b").json()["names"]
    client.post(f"{CHAT}/improve", json={"conversation": id_, "turn": told["id"], "text": "Best."})
    last = studio.store.judgements(studio.chats)[-1]
    original, better = answers(studio, last)
    assert original.text == told["b"]["text"] and original.model == names["b"] and last.ranks[better.id] == 1
    assert len(studio.store.responses(studio.chats)) == 3, "the answer that was voted on is the one that is improved"


def test_an_answer_becomes_an_example_that_is_begun_and_marked(client: TestClient, studio: Studio) -> None:
    id_ = begin(client, system="Be kind.")
    told = turn(client, id_, "Hello")
    given = {"conversation": id_, "turn": told["id"], "text": told["text"], "example": True}
    first = client.post(f"{CHAT}/improve", json=given).json()
    assert first == {"conversation": whole(client, id_), "judgement": None, "example": "/write/new"}
    second = client.post(f"{CHAT}/improve", json=given | {"text": "Good evening."}).json()
    assert second["example"] == "/write/new?slot=2" and second["judgement"], "what is begun is not written over"
    draft = client.get("/api/v1/drafts/write:new-2").json()["content"]
    assert draft["system"] == "Be kind." and draft["exchanges"] == [{"ask": "Hello", "answer": "Good evening."}]
    assert "Good evening." in client.get(second["example"]).text
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good evening."}]
    done = client.post("/api/v1/demonstrations", json={"messages": messages, "token": draft["token"]})
    assert done.status_code == 201, done.text
    (record,) = studio.store.demonstrations(studio.writing)
    assert record.drafted_by == "model" and record.extra["draft"]["model"] == "ppo"
    assert record.extra["draft"]["text"] == told["text"]


# --- the line ---


def test_turns_are_taken_in_the_order_people_came() -> None:
    turns = Turns()
    places = [turns.begin(name) for name in "abcde"]
    order: list[str] = []

    def take(place: Any) -> None:
        if turns.wait(place):
            order.append(place.person)
            time.sleep(0.005)
        turns.end(place)

    turns.stop("c")
    threads = [in_background(lambda place=place: take(place)) for place in reversed(places)]
    for thread in threads:
        thread.join(5)
    assert order == ["a", "b", "d", "e"]
    assert not turns.stop("a")


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What fails on purpose is not printed."""
    with caplog.at_level("CRITICAL", logger="palate.studio.answering"):
        yield
