"""The queue for leads through forms and API: settings, leases, gold, files."""

from __future__ import annotations

import dataclasses
import json
import random
import re

import pytest
from starlette.testclient import TestClient
from tests_studio import CAMPAIGN, prompts, responses

from palate.feedback import exchange, people
from palate.feedback.campaigns import Settings
from palate.feedback.people import Person
from palate.records import Judgement, Prompt, Response, conversation
from palate.studio.app import build
from palate.studio.here import Studio
from palate.workspace import Workspace

from .conftest import asking, in_turn

API = "/api/v1/queue"
EVERYWHERE = ("/queue", "/queue/items/1", "/queue/export?format=palate", API, f"{API}/settings", f"{API}/items",
              f"{API}/items/1", f"{API}/items/1/judgements", f"{API}/leases", f"{API}/unrankable",
              "/api/v1/files/palate")  # fmt: skip


def judged(studio: Studio, who: str, prompt: int = 0, **values: object) -> Judgement:
    answers = [r.id for r in responses() if r.prompt_id == f"prompt-{prompt}"]
    made = Judgement(
        **{  # type: ignore[arg-type]
            "id": f"judgement {who.split()[0][0]} {prompt}",
            "prompt_id": f"prompt-{prompt}",
            "annotator": who,
            "ranks": {id_: rank for rank, id_ in enumerate(answers, start=1)},
            "presented_order": answers,
            "seconds": 20.0,
            **values,
        }
    )
    studio.store.add_judgements([made], CAMPAIGN)
    return made


def test_only_leads_see_the_queue(studio: Studio) -> None:
    other = dataclasses.replace(studio, single=Person("eve", frozenset({"evaluator", "author"})))
    with TestClient(build(other), base_url="http://127.0.0.1:8484", headers={"sec-fetch-site": "same-origin"}) as eve:
        for path in EVERYWHERE:
            assert eve.get(path).status_code == 403, path
        assert eve.put(f"{API}/settings", json={}).status_code == 403
        assert eve.post("/queue/settings", data={}).status_code == 403
        assert eve.post("/queue/import", files={"file": ("f.jsonl", b"{}")}).status_code == 403
        assert eve.put("/api/v1/files/f.jsonl", content=b"{}").status_code == 403


def test_nothing_on_a_leads_pages_says_who_wrote_an_answer(client: TestClient, studio: Studio) -> None:
    """Whoever works alone ranks the same answers a minute later."""
    judged(studio, "ben", 0, rationale="Good.")
    for path in (
        "/queue",
        "/queue/items/1",
        f"{API}/items",
        f"{API}/items/1",
        f"{API}/items/1/judgements",
        f"{API}/leases",
    ):
        served = client.get(path).text
        assert "dinner" in served.lower() or path.endswith(("leases", "judgements"))
        assert "secret" not in served and "response-" not in served, path


def test_settings_by_form_and_by_api_are_the_same(client: TestClient, studio: Studio) -> None:
    assert client.get(f"{API}/settings").json()["overlap"] == 1
    form = {"overlap": "3", "lease_minutes": "45", "random_share": "25", "gold_share": "5", "criteria": "1"}
    client.post("/queue/settings", data=form)
    assert studio.settings == Settings(
        overlap=3, lease_minutes=45, random_share=0.25, gold_share=0.05, criteria=True, review=False
    )
    told = client.get(f"{API}/settings").json()
    assert told["random_share"] == 0.25
    assert client.put(f"{API}/settings", json={**told, "overlap": 2}).status_code == 200
    assert studio.settings.overlap == 2
    assert [event.action for event in people.log(studio.store)][:2] == ["set the campaign's settings"] * 2


@pytest.mark.parametrize(
    "wrong", [{"overlap": "0"}, {"random_share": "101"}, {"gold_share": "x"}, {"lease_minutes": "1.5"}]
)
def test_settings_that_cannot_be_are_refused(client: TestClient, studio: Studio, wrong: dict[str, str]) -> None:
    form = {"overlap": "3", "lease_minutes": "45", "random_share": "25", "gold_share": "5", **wrong}
    assert client.post("/queue/settings", data=form).status_code == 422
    assert studio.settings == Settings()


def test_items_by_page_filter_and_word(client: TestClient, studio: Studio) -> None:
    judged(studio, "ben", 1)
    told = client.get(f"{API}/items?count=4&start=4").json()
    assert told["total"] == 6 and len(told["lines"]) == 2
    (enough,) = client.get(f"{API}/items?show=enough").json()["lines"]
    assert enough["messages"][-1]["content"] == "Suggest dinner number 1." and enough["given"] == 1
    assert client.get(f"{API}/items?find=NUMBER 5").json()["total"] == 1
    page = client.get("/queue?show=enough&find=number").text
    assert "Suggest dinner number 1." in page and "Suggest dinner number 2." not in page
    assert client.get("/queue?page=99").status_code == 200
    assert client.get(f"{API}/items?show=nonsense").status_code == 422


def test_what_a_lead_frees_others_get_and_its_judgement_is_kept(client: TestClient, studio: Studio) -> None:
    item = client.post("/api/v1/rank/next").json()
    (held,) = client.get(f"{API}/leases").json()
    assert held["annotator"] == "ann" and "Others may" not in client.get("/queue").text
    assert held["lease"] in client.get("/queue").text
    answer = client.post("/queue/free", data={"lease": held["lease"]})
    assert "Others may have it now." in answer.text and client.get(f"{API}/leases").json() == []
    assert client.delete(f"{API}/leases/{held['lease']}").status_code == 404
    given = client.post("/api/v1/judgements", json={"lease": item["lease"], "ranks": {"1": 1, "2": 2}})
    assert given.status_code == 201
    (stored,) = studio.store.judgements(CAMPAIGN)
    assert stored.extra == {"late": True}


def test_a_right_order_makes_a_gold_item_and_back(client: TestClient, studio: Studio) -> None:
    number = client.get(f"{API}/items?find=number 2").json()["lines"][0]["number"]
    item = client.get(f"{API}/items/{number}").json()
    assert item["answers"] == [f"Dish {a} for dinner 2." for a in range(4)] and item["right"] == {}
    client.post(f"/queue/items/{number}", data={"rank_1": "3", "rank_2": "1", "rank_3": "3", "rank_4": ""})
    ids = [f"response-2-{a}-by-secret-model" for a in range(4)]
    assert studio.queue.gold() == {"prompt-2": {ids[0]: 2, ids[1]: 1, ids[2]: 2}}, "competition ranks"
    assert client.get(f"{API}/items/{number}").json()["right"] == {"1": 2, "2": 1, "3": 2}
    assert client.get(f"{API}/items?show=gold").json()["total"] == 1 and client.get(API).json()["gold"] == 1
    for wrong in ({"1": 1}, {"1": 1, "9": 2}, {"1": 1, "2": 1}, {"0": 1, "1": 2}):
        assert client.put(f"{API}/items/{number}/gold", json={"ranks": wrong}).status_code == 422, wrong
    client.post(f"/queue/items/{number}", data={"do": "unknown"})
    assert studio.queue.gold() == {}
    assert client.put(f"{API}/items/{number}/gold", json={"ranks": {"4": 1, "1": 2}}).status_code == 204
    assert studio.queue.gold() == {"prompt-2": {ids[3]: 1, ids[0]: 2}}
    assert client.delete(f"{API}/items/{number}/gold").status_code == 204 and studio.queue.gold() == {}
    assert client.get(f"{API}/items/9999").status_code == 404


def test_a_lead_sees_what_was_said_of_a_prompt_and_gets_it_last(client: TestClient, studio: Studio) -> None:
    ids = [r.id for r in responses() if r.prompt_id == "prompt-3"]
    judged(studio, "ben", 3, flags={ids[1]: ["personal_data"]}, touched=False, rationale="<b>Soup</b> first.")
    judged(studio, "cy", 3, ranks={ids[0]: 2, ids[2]: 1, ids[3]: 2}, simulated=True)
    judged(studio, "dan", 3, ranks={}, cannot_rank="no_expertise")
    judged(studio, "eve", 3, ranks={}, cannot_rank="all_bad")
    judged(studio, "fay", 3, id="withdrawn", ranks={}, supersedes="judgement e 3")
    number = client.get(f"{API}/items?find=number 3").json()["lines"][0]["number"]
    told = client.get(f"{API}/items/{number}/judgements").json()
    assert [(one["annotator"], one["ranks"], one["cannot_rank"]) for one in told] == [
        ("ben", {"1": 1, "2": 2, "3": 3, "4": 4}, ""), ("cy", {"1": 2, "3": 1, "4": 2}, ""),
        ("dan", {}, "no_expertise"),
    ]  # fmt: skip
    assert told[0]["flags"] == {"2": ["personal_data"]} and [one["untouched"] for one in told] == [True, False, False]
    page = " ".join(client.get(f"/queue/items/{number}").text.split())
    assert "1 &gt; 2 &gt; 3 &gt; 4" in page and "3 &gt; 1 = 4" in page
    assert "2: personal data" in page and "&lt;b&gt;Soup" in page
    assert "do not know enough" in page and page.count("badge simulated") == 1
    client.put(f"{API}/settings", json={**client.get(f"{API}/settings").json(), "overlap": 9})
    assert in_turn(client).index("Suggest dinner number 3.") == 5, "whoever has seen others' orders is not blind for it"


def test_what_nobody_could_rank_is_listed_with_the_reason(client: TestClient, studio: Studio) -> None:
    judged(studio, "ben", 3, ranks={}, cannot_rank="no_expertise", rationale="<b>What</b> is a dumpling?")
    (told,) = client.get(f"{API}/unrankable").json()
    assert (told["annotator"], told["reason"]) == ("ben", "no_expertise")
    page = client.get("/queue").text
    assert "I do not know enough about this" in page and "&lt;b&gt;What&lt;/b&gt; is a dumpling?" in page


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FILE = lines(
    {"prompt": "A soup?", "responses": ["Leek.", "Pea."], "ranks": [2, 1]},
    {"prompt": "A salad?", "responses": ["Green.", "Greek.", "Bean."], "ranks": [1, 2, 3]},
)


def test_a_file_is_taken_in_and_can_be_ranked(client: TestClient, studio: Studio) -> None:
    page = client.post("/queue/import", files={"file": ("../menu soups.jsonl", FILE)})
    assert page.status_code == 200 and "menu_soups.jsonl" in page.text and "kway" in page.text
    assert client.get(API).json()["items"] == 8 and studio.store.count_judgements(CAMPAIGN) == 2
    again = client.put("/api/v1/files/menu_soups.jsonl", content=FILE).json()
    assert again["prompts"] == again["judgements"] == again["asked"] == 0, "the same file twice stores nothing"
    assert client.get(f"{API}/items?find=soup").json()["total"] == 1
    assert [event.action for event in people.log(studio.store)][:2] == ["took in a file"] * 2


def test_examples_go_where_people_write(client: TestClient, studio: Studio) -> None:
    told = client.put(
        "/api/v1/files/examples.jsonl",
        content=lines({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}),
    ).json()
    assert told["demonstrations"] == 1 and told["asked"] == 0
    assert [d.messages[-1].content for d in studio.store.demonstrations(studio.writing)] == ["Hello!"]


@pytest.mark.parametrize("content", [b"", b"not json\n", b"PK\x03\x04zip", b'{"unknown": 1}\n', b'{"prompt": "a"'])
def test_what_cannot_be_read_is_refused_whole(client: TestClient, studio: Studio, content: bytes) -> None:
    before = studio.store.revision()
    for answer in (
        client.put("/api/v1/files/f.jsonl", content=content),
        client.post("/queue/import", files={"file": ("f.jsonl", content)}),
    ):
        assert answer.status_code == 422
        assert "tmp" not in answer.text, "nobody is told where it lay"
    assert studio.store.revision() == before


def test_too_much_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST", 100)
    assert client.put("/api/v1/files/f.jsonl", content=FILE).status_code == 413
    big = client.post("/queue/import", files={"file": ("f.jsonl", b"x" * 3_000_000)})
    assert big.status_code == 413


def test_a_run_takes_no_other_prompts(client: TestClient, studio: Studio, tmp_path: object) -> None:
    assert isinstance(tmp_path, type(tmp_path))
    run = dataclasses.replace(studio, workspace=Workspace(tmp_path))  # type: ignore[arg-type]
    with asking(run) as other:
        refused = other.put("/api/v1/files/f.jsonl", content=FILE)
        assert refused.status_code == 422 and "none that this run asks about" in refused.json()["detail"]
        given = client.get("/api/v1/files/palate").content
        assert other.put("/api/v1/files/f.jsonl", content=given).json()["asked"] == 0


def test_what_is_given_out_comes_in_again(client: TestClient, studio: Studio) -> None:
    mine = judged(studio, "Ben Miller", 2)
    judged(studio, "guest", 3, simulated=True)
    answer = client.get("/queue/export?format=trl-preference&what=judgements")
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''dinner-judgements")
    pairs = [json.loads(line) for line in answer.text.splitlines()]
    assert len(pairs) == 6 and pairs[0]["chosen"][0]["content"] == "Dish 0 for dinner 2."
    assert len(client.get("/api/v1/files/trl-preference?simulated=true").text.splitlines()) == 12
    assert (
        "Ben" not in client.get("/api/v1/files/palate").text
        and "Ben Miller" in client.get("/api/v1/files/palate?names=true").text
    )
    other = dataclasses.replace(studio, name="lunch", asking=lambda: "lunch:1")
    with asking(other) as elsewhere:
        told = elsewhere.put("/api/v1/files/all.jsonl", content=client.get("/api/v1/files/palate?names=1").content)
        assert told.json()["judgements"] == 2
    assert [j for j in studio.store.judgements("lunch:1") if not j.simulated] == [mine]
    assert client.get("/api/v1/files/nonsense").status_code == 422
    assert client.get("/api/v1/files/messages?what=demonstrations").status_code == 422, "there is none"


def test_an_empty_queue_says_what_to_do(studio: Studio) -> None:
    empty = dataclasses.replace(studio, asking=lambda: "empty")
    with asking(empty) as client:
        page = client.get("/queue").text
        assert "No answers are here yet." in page and "Nobody has a prompt open." in page


def test_an_imported_prompt_with_a_strange_id_has_a_plain_address(client: TestClient, studio: Studio) -> None:
    strange = Prompt(id='../<a href="x">?', messages=conversation("Strange?"), family="f")
    answers = [Response(id=f"strange {k}", prompt_id=strange.id, text=str(k)) for k in range(2)]
    studio.store.add_prompts([strange], CAMPAIGN)
    studio.store.add_responses(answers, CAMPAIGN)
    studio.queue.lay([strange, *prompts()], [*answers, *responses()], random_share=random.random())
    page = client.get("/queue?find=Strange").text
    (address,) = re.findall(r'href="(/queue/items/\d+)"', page)
    assert "Strange?" in client.get(address).text


def test_a_page_does_not_speak_of_the_command_line(client: TestClient) -> None:
    for name, content in (
        ("f.jsonl", '{"text": "a"}'),
        ("f.csv", "prompt,good,bad\na,b,c\n"),
        ("g.jsonl", '{"messages": 5}'),
    ):
        told = client.put(f"/api/v1/files/{name}", content=content.encode()).text
        assert client.put(f"/api/v1/files/{name}", content=content.encode()).status_code == 422
        assert "`palate" not in told and "--" not in told and name in told, told
