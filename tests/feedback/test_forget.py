"""What a person left is found, goes from the store, and the artifacts of runs that were made from it are named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from palate.errors import BadInput
from palate.feedback import care, demonstrations, forget, place
from palate.feedback.campaigns import Settings, write_guidelines
from palate.feedback.people import People, log
from palate.feedback.queue import Queue
from palate.feedback.store import Store, open_store
from palate.feedback.tables import CHATS, DRAFTS, DUELS, ITEMS, METADATA
from palate.records import Demonstration, Judgement, Prompt, Response, conversation, write_jsonl
from palate.workspace import ANCESTOR, FOLDERS, Job, Workspace

PASSWORD = "a long sentence"
WORDS = "something only bob would say"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """ann leads, bob works, both have judged and written."""
    with open_store(store_url) as store:
        people = People(store)
        link = people.setup_invite()
        assert link
        people.join(link, "ann", PASSWORD)
        people.join(people.invite(["author", "evaluator"], by="ann"), "bob", PASSWORD)
        prompts = [Prompt(id=f"p{n}", messages=conversation(f"What {n}?"), family=str(n)) for n in range(3)]
        responses = [Response(id=f"{p.id}{r}", prompt_id=p.id, text=f"{p.id} {r}") for p in prompts for r in "ab"]
        store.add_prompts(prompts, "c")
        store.add_responses(responses, "c")
        Queue(store, "c").lay(prompts, responses, random_share=0.3)
        store.add_judgements([judged(who, n) for who in ("ann", "bob") for n in range(2)], "c")
        store.add_judgements([judged("bob", 0, supersedes="bob0")], "c")
        yield store


def judged(who: str, number: int, supersedes: str | None = None) -> Judgement:
    p = f"p{number}"
    id_ = f"{who}{number}{'again' if supersedes else ''}"
    words = WORDS if who == "bob" else ""
    ranks = {f"{p}a": 1, f"{p}b": 2}
    return Judgement(id=id_, prompt_id=p, annotator=who, ranks=ranks, rationale=words, supersedes=supersedes)


def written(who: str, id_: str, supersedes: str | None = None) -> Demonstration:
    words = WORDS if who == "bob" else "That."
    messages = conversation("Say it.", f"{words} {id_}")
    return Demonstration(id=id_, messages=messages, family="f", author=who, supersedes=supersedes, status="waiting")


def count(store: Store, table: sa.Table) -> int:
    with store.reading(table.name) as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def everything(store: Store) -> str:
    with store.reading("every table") as connection:
        return "\n".join(str(row) for table in METADATA.sorted_tables for row in connection.execute(sa.select(table)))


def given(store: Store) -> dict[str, int]:
    with store.reading("items") as connection:
        return {row.prompt_id: row.given for row in connection.execute(sa.select(ITEMS))}


def leave_traces(store: Store, who: str) -> None:
    """In every table that has something of people."""
    import random

    people = People(store)
    people.login(who, PASSWORD)
    people.make_token(who, "script")
    Queue(store, "c").claim(who, Settings(overlap=9), now=people.now(), rng=random.Random(0))
    write_guidelines(store, "c", "Be kind.", who)
    care.wish(store, who, care.Wishes(a_day=3))
    care.expose(store, who, "c", "p1", now=1.0)
    store.add_prompts(
        [Prompt(id=f"by {who}", messages=conversation(WORDS), family="x", extra={"author": who})], "c:write"
    )
    with store.writing() as connection:
        for table in (CHATS, DUELS):
            row: dict[str, Any] = {"id": f"{table.name} {who}", "account": who, "content": {"text": WORDS}}
            row |= {"updated_at": 1.0} if table is CHATS else {"created_at": 1.0}
            connection.execute(sa.insert(table).values(**row))
        connection.execute(sa.insert(DRAFTS).values(account=who, key="k", content={"text": WORDS}, updated_at=1.0))


def test_what_a_person_wrote_is_gone_and_that_of_others_is_not(store: Store) -> None:
    leave_traces(store, "bob")
    leave_traces(store, "ann")
    store.add_demonstrations([written("bob", "d1"), written("ann", "d2")], "c:write")
    demonstrations.review(store, "c:write", "d2", reviewer="bob", verdict="returned", comment=WORDS, now=1.0)
    before = {table.name: count(store, table) for table in METADATA.sorted_tables}
    gone = forget.forget(store, "bob", now=5.0)
    assert gone == {
        "judgements": 3, "demonstrations": 1, "prompts": 1, "responses": 0, "drafts": 1, "chats": 1, "duels": 1,
        "leases": 1, "wishes": 1, "exposures": 1, "sessions": 1, "tokens": 1, "accounts": 1,
    }  # fmt: skip
    after = {table.name: count(store, table) for table in METADATA.sorted_tables}
    same = {name for name in before if name not in gone or not gone[name]} - {"audit"}
    assert {name: before[name] - n for name, n in gone.items()} == {name: after[name] for name in gone}
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    left = everything(store)
    with store.reading("prompts") as connection:  # ann's have the same words
        assert left.count(WORDS) == 4, connection
    event = log(store)[0]
    assert (event.who, event.action, event.at, event.what) == ("bob", "deleted their data", 5.0, gone)
    found = forget.data(store, "bob")
    del found["audit"]
    assert found.pop("name") == "bob" and not any(found.values())
    (standing,) = demonstrations.Shelf(store, "c:write").standing().values()
    assert (standing.status, standing.reviewer, standing.comment) == ("returned", "", "")
    assert People(store).login("bob", PASSWORD) is None and People(store).login("ann", PASSWORD)


def test_who_reads_on_from_the_last_number_misses_nothing(store: Store) -> None:
    """A number that was somebody's who is gone is not given again."""
    shelf = demonstrations.Shelf(store, "c:write")
    store.add_demonstrations([written("ann", "d1"), written("bob", "d2")], "c:write")
    assert set(shelf.standing()) == {"d1", "d2"}
    forget.forget(store, "bob", now=5.0)
    store.add_demonstrations([written("ann", "d3")], "c:write")
    assert set(shelf.standing()) == {"d1", "d3"}


def test_the_queue_asks_again_for_what_is_missing(store: Store) -> None:
    assert given(store) == {"p0": 2, "p1": 2, "p2": 0}
    forget.forget(store, "bob", now=5.0)
    assert given(store) == {"p0": 1, "p1": 1, "p2": 0}


def test_a_version_of_another_replaces_what_the_one_that_goes_replaced(store: Store) -> None:
    """ann wrote, bob mended, ann wrote again: without bob's there is one of ann's, not two."""
    store.add_demonstrations([written("ann", "d1")], "c:write")
    messages = conversation("Say it.", WORDS)
    mended = demonstrations.review(store, "c:write", "d1", reviewer="bob", verdict="accepted", now=1.0, mended=messages)
    store.add_demonstrations([written("ann", "d3", supersedes=mended), written("ann", "d4")], "c:write")
    imported = dataclasses.replace(written("ann", "d5"), status="accepted", reviewer="bob", extra={"more": 1})
    store.add_demonstrations([imported], "c:write")
    demonstrations.review(store, "c:write", "d4", reviewer="bob", verdict="accepted", now=1.0)
    assert set(demonstrations.Shelf(store, "c:write").standing()) == {"d3", "d4", "d5"}
    forget.forget(store, "bob", now=5.0)
    standing = demonstrations.Shelf(store, "c:write").standing()
    assert set(standing) == {"d3", "d4", "d5"}
    assert [standing[id_].status for id_ in ("d4", "d5")] == ["accepted", "accepted"]
    assert store.demonstrations("c:write")[-1] == dataclasses.replace(imported, reviewer="")
    assert WORDS not in everything(store) and "'bob'" not in str(store.demonstrations("c:write"))


def test_what_a_person_asked_in_a_chat_goes_unless_somebody_else_asked_the_same(store: Store) -> None:
    campaign = place.chats("c")
    prompts = [Prompt(id=f"p{n}", messages=conversation(f"{WORDS} {n}?"), family=str(n)) for n in range(3)]
    store.add_prompts(prompts, campaign)
    store.add_responses(
        [Response(id=f"{p.id}{r}", prompt_id=p.id, text=f"{p.id} {r}") for p in prompts for r in "ab"], campaign
    )
    store.add_judgements([judged("bob", 0), judged("bob", 1), judged("ann", 1), judged("ann", 2)], campaign)
    gone = forget.forget(store, "bob", now=5.0)
    assert (gone["prompts"], gone["responses"]) == (1, 2)
    assert [p.id for p in store.prompts(campaign)] == ["p1", "p2"]
    assert [r.id for r in store.responses(campaign)] == ["p1a", "p1b", "p2a", "p2b"]
    assert len(store.prompts("c")) == 3 and len(store.judgements(campaign)) == 2


def test_all_of_it_or_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(store)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(forget, "note", fail)
    with pytest.raises(RuntimeError):
        forget.forget(store, "bob", now=5.0)
    assert everything(store) == before


def test_the_last_lead_cannot_leave_others_without_one(store: Store) -> None:
    with pytest.raises(BadInput, match="has to lead"):
        forget.forget(store, "ann", now=5.0)
    People(store).change("bob", by="ann", roles=["lead"])
    forget.forget(store, "ann", now=5.0)
    forget.forget(store, "bob", now=6.0)  # nobody is left behind
    assert People(store).accounts() == [] and People(store).setup_invite()


def test_a_person_without_an_account_is_forgotten_too(store: Store) -> None:
    store.add_judgements([judged("imported", 2)], "c")
    assert forget.forget(store, "imported", now=5.0)["judgements"] == 1
    assert given(store)["p2"] == 0


def test_what_a_person_may_have_opens_no_door_and_says_nothing_of_what_is_blind(store: Store) -> None:
    leave_traces(store, "bob")
    found = forget.data(store, "bob")
    told = json.dumps(found)
    assert [len(found[name]) for name in ("judgements", "prompts", "chats", "duels", "leases", "tokens")] == [
        3,
        1,
        1,
        1,
        1,
        1,
    ]
    assert WORDS in told and '"bob0again"' in told and "$argon2" not in told and "hash" not in told
    assert "presented" not in str(found["leases"]) and "content" not in str(found["duels"])
    assert found["account"] == {"roles": ["author", "evaluator"], "created_at": found["account"]["created_at"]}
    assert "ann" not in {record["annotator"] for record in found["judgements"]}


def test_a_blind_judgement_is_told_by_places(store: Store) -> None:
    given = Judgement(
        id="x", prompt_id="p2", annotator="bob", ranks={"p2a": 2, "p2b": 1}, criteria={"p2a": {"safety": 3}},
        flags={"p2b": ["harmful"]}, rewrite_of="p2a", rewrite="Better.", presented_order=("p2b", "p2a"), is_gold=True,
    )  # fmt: skip
    store.add_judgements([given], "c")
    told = forget.data(store, "bob")["judgements"][-1]
    assert (told["ranks"], told["criteria"], told["flags"]) == (
        {"2": 2, "1": 1},
        {"2": {"safety": 3}},
        {"1": ["harmful"]},
    )
    assert told["rewrite_of"] == "2" and "p2a" not in json.dumps(told) and "is_gold" not in told


# --- runs ------------------------------------------------------------------------------------------------------------


def made(run: Path, artifact: str, text: str, **inputs: str) -> str:
    """An artifact; its digest."""
    workspace = Workspace(run).doing(Job("x", artifact, "key", inputs, {}))
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").touch()
    with workspace.publish() as folder:
        (folder / "what.txt").write_text(text)
        if artifact == "rankings":
            write_jsonl(folder / "judgements.jsonl", [judged(who, 1) for who in text.split()])
        if artifact == "demonstrations":
            write_jsonl(folder / "demonstrations.jsonl", [written(who, who) for who in text.split()])
    return str(Workspace(run).manifest(artifact)["digest"])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run whose rankings have bob's, one that goes on from it, and one that has nothing of his."""
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    base = made(one, "base", "base")
    shown = made(one, "demonstrations", "ann", base=base)
    sft = made(one, "sft", "sft", demonstrations=shown)
    samples = made(one, "samples", "samples", sft=sft)
    rankings = made(one, "rankings", "ann bob", samples=samples)
    reward = made(one, "reward", "reward", rankings=rankings)
    ppo = made(one, "ppo", "ppo", reward=reward, sft=sft)
    made(one, "report", "report", ppo=ppo)
    made(one / "controls" / "placebo", "reward", "placebo", rankings=rankings)
    again = made(two, "samples", "samples 2", sft=ppo)
    theirs = made(two, "rankings", "ann", samples=again, **{"parent/rankings": rankings})
    made(two, "reward", "reward 2", rankings=theirs)
    (two / ANCESTOR).write_text(json.dumps({"run": "../one", "policy": "ppo"}))
    made(other, "rankings", "ann", samples=samples)
    return tmp_path


def test_every_artifact_that_was_made_from_it_is_named(runs: Path) -> None:
    found = forget.used("bob", forget.runs_beside(runs / "one"))
    told = {str(one.folder.relative_to(runs)): one.how for one in found if one.certain}
    assert told == {
        "one/07-rankings": "judgements.jsonl holds it",
        "one/08-reward": "made from one/07-rankings",
        "one/controls/placebo/08-reward": "made from one/07-rankings",
        "one/09-policy/ppo": "made from one/08-reward",
        "one/10-report": "made from one/09-policy/ppo",
        "two/06-samples": "made from one/09-policy/ppo",
        "two/07-rankings": "made from one/07-rankings",
        "two/08-reward": "made from two/07-rankings",
    }
    assert len(found) == len(told)
    digests = {one.artifact: one.digest for one in found if one.folder.is_relative_to(runs / "one" / "09-policy")}
    assert digests == {"ppo": Workspace(runs / "one").manifest("ppo")["digest"]}


def test_of_somebody_who_did_nothing_nothing_is_named(runs: Path) -> None:
    assert forget.used("eve", forget.runs_beside(runs / "one")) == []


def test_demonstrations_reach_everything_behind_them(runs: Path) -> None:
    found = forget.used("ann", [runs / "one"])
    assert {one.artifact for one in found} == set(FOLDERS) & {
        "demonstrations", "sft", "samples", "rankings", "reward", "ppo", "report",
    }  # fmt: skip


def test_what_was_made_from_rankings_that_are_gone_is_named_as_unsure(runs: Path) -> None:
    made(runs / "one", "rankings", "ann", samples=Workspace(runs / "one").manifest("samples")["digest"])
    found = forget.used("bob", [runs / "one"])
    assert {one.folder.name: one.certain for one in found} == {"08-reward": False, "ppo": False, "10-report": False}
    assert found[0].how == "made from an earlier 07-rankings that is gone"


def test_a_damaged_artifact_counts_as_one_that_holds_it(runs: Path) -> None:
    path = runs / "other" / "07-rankings" / "judgements.jsonl"
    path.write_text("{" + path.read_text())
    (found,) = forget.used("eve", [runs / "other"])
    assert found.certain and "damaged" in found.how
