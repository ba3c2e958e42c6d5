import dataclasses
import random
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate.errors import BadInput
from palate.feedback import demonstrations
from palate.feedback.alike import Alike, likeness, pairs
from palate.feedback.demonstrations import HOLD_SECONDS, Shelf, next_to_review
from palate.feedback.store import Store, open_store
from palate.feedback.tables import DEMONSTRATIONS, REVIEWS
from palate.feedback.words import make_prompt
from palate.records import Demonstration, conversation

C = "run:write"


def written(id_: str, *turns: str, author: str = "ann", status: str = "waiting", **more: object) -> Demonstration:
    messages = conversation(*(turns or (f"question {id_}", f"answer {id_}")))
    extra = {"prompt_id": demonstrations.prompt_of(messages)}
    return Demonstration(
        id=id_, messages=messages, family="f", author=author, status=status, extra=extra, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def says(store: Store, id_: str, verdict: str, comment: str = "", *, reviewer: str = "bob", **more: object) -> str:
    return demonstrations.review(
        store, C, id_, reviewer=reviewer, verdict=verdict, comment=comment, now=1e9, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_last_review_counts_and_the_newest_version_stands(store_url: str) -> None:
    with open_store(store_url) as store:
        shelf = Shelf(store, C)
        assert shelf.standing() == {} and shelf.count(review=True) == 0
        store.add_demonstrations([written("a"), written("b"), written("c", status="accepted")], C)
        assert (shelf.count(review=True), shelf.count(review=False)) == (1, 3)
        says(store, "a", "returned", "Say how long it takes.")
        assert (shelf.standing()["a"].status, shelf.standing()["a"].comment) == ("returned", "Say how long it takes.")
        assert shelf.count(review=False) == 2, "what was returned does not count, whoever must accept"
        says(store, "a", "accepted")
        assert shelf.standing()["a"].reviewer == "bob" and shelf.count(review=True) == 2
        assert demonstrations.hand_in(store, C, written("a2", "question a", "better", supersedes="a"))
        assert list(shelf.standing()) == ["b", "c", "a2"]
        assert shelf.standing()["a2"].status == "waiting" and shelf.count(review=True) == 1
        says(store, "b", "rejected", "No.")
        assert shelf.tally() == {"rejected": 1, "accepted": 1, "waiting": 1}
        # another process that looks for the first time sees the same
        assert Shelf(store, C).standing() == shelf.standing()
        assert [d.id for d in shelf.accepted(review=False)] == ["c", "a2"]
        assert len(store.demonstrations(C)) == 4, "nothing was changed or deleted"


def test_whoever_deletes_is_noticed(store_url: str) -> None:
    with open_store(store_url) as store:
        shelf = Shelf(store, C)
        store.add_demonstrations([written("a"), written("b")], C)
        says(store, "a", "accepted")
        assert len(shelf.standing()) == 2
        with store.writing() as connection:
            connection.execute(sa.delete(DEMONSTRATIONS).where(DEMONSTRATIONS.c.id == "a"))
            connection.execute(sa.delete(REVIEWS))
        assert list(shelf.standing()) == ["b"] and shelf.count(review=True) == 0


def test_what_is_handed_in_twice_is_there_once(store_url: str) -> None:
    with open_store(store_url) as store:
        one = written("a", created_at="2026-01-01")
        assert demonstrations.hand_in(store, C, one)
        assert not demonstrations.hand_in(store, C, dataclasses.replace(one, created_at="2026-01-02"))
        with pytest.raises(BadInput, match="other words"):
            demonstrations.hand_in(store, C, written("a", "question a", "something else"))
        demonstrations.hand_in(store, C, written("b", supersedes="a"))
        with pytest.raises(BadInput, match="newer version"):
            demonstrations.hand_in(store, C, written("c", supersedes="a"))
        with pytest.raises(BadInput, match="somebody else"):
            demonstrations.hand_in(store, C, written("d", author="bob", supersedes="b"))
        with pytest.raises(BadInput, match="no such"):
            demonstrations.hand_in(store, C, written("e", supersedes="nothing"))


def test_nobody_reviews_their_own(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_demonstrations([written("a")], C)
        shelf = Shelf(store, C)
        assert shelf.waiting("ann") == [] and [one.id for one in shelf.waiting("bob")] == ["a"]
        with pytest.raises(BadInput, match="your own"):
            says(store, "a", "accepted", reviewer="ann")
        assert next_to_review(shelf, "ann", now=0.0) is None
        with pytest.raises(BadInput, match="cannot be said"):
            says(store, "a", "withdrawn")
        for verdict in ("returned", "rejected"):
            with pytest.raises(BadInput, match="would not know"):
                says(store, "a", verdict, "  ")
        assert shelf.count(review=True) == 0


def test_a_reviewer_who_mends_is_named_beside_the_author(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_demonstrations([written("a")], C)
        shelf = Shelf(store, C)
        new = says(store, "a", "accepted", mended=conversation("question a", "answer a, mended"))
        assert new != "a" and list(shelf.standing()) == [new]
        (record,) = shelf.accepted(review=True)
        assert (record.author, record.reviewer, record.extra["mended_by"]) == ("ann", "bob", "bob")
        assert record.messages[-1].content == "answer a, mended" and record.supersedes == "a"
        with pytest.raises(BadInput, match="newer version"):
            says(store, "a", "accepted")
        store.add_demonstrations([written("b")], C)
        same = says(store, "b", "accepted", mended=conversation("question b", "answer b"))
        assert same == "b", "whoever changes nothing has accepted"


def test_an_author_takes_back_their_own_alone(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_demonstrations([written("a", status="accepted")], C)
        shelf = Shelf(store, C)
        with pytest.raises(BadInput, match="not yours"):
            demonstrations.withdraw(store, C, "a", author="bob", now=0.0)
        assert shelf.count(review=True) == 1
        demonstrations.withdraw(store, C, "a", author="ann", now=0.0)
        assert shelf.count(review=False) == 0 and shelf.answered() == set()


def test_two_reviewers_have_different_ones_in_front_of_them(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_demonstrations([written("a"), written("b"), written("c", author="bob")], C)
        shelf = Shelf(store, C)

        def gets(name: str, now: float = 0.0, after: int = 0) -> str | None:
            found = next_to_review(shelf, name, now=now, after=after)
            return found.id if found else None

        assert (gets("bob"), gets("eve"), gets("bob")) == ("a", "b", "a")
        assert gets("dan") == "c"
        assert gets("fay") is None, "everything lies in front of somebody"
        assert gets("fay", now=HOLD_SECONDS) == "a", "whoever went away keeps nothing"
        assert gets("eve", now=HOLD_SECONDS, after=shelf.standing()["b"].number) == "c"
        assert gets("eve", now=HOLD_SECONDS, after=99) == "c", "it begins again, with what lies in front of them"
        says(store, "c", "accepted", reviewer="eve")
        assert gets("eve", now=HOLD_SECONDS) == "b"


def test_prompts_that_nobody_answered(store_url: str) -> None:
    with open_store(store_url) as store:
        prompts = [make_prompt(conversation(f"question {n}"), "studio") for n in "abc"]
        store.add_prompts(prompts, C)
        shelf = Shelf(store, C)
        store.add_demonstrations([written("a"), written("b")], C)
        assert shelf.unanswered() == [prompts[2].id]
        says(store, "a", "rejected", "No.")
        assert shelf.unanswered() == [prompts[0].id, prompts[2].id]


def test_what_a_run_may_learn_from_has_a_fingerprint(store_url: str) -> None:
    with open_store(store_url) as store:
        shelf, seen = Shelf(store, C), set()
        for step in range(4):
            if step == 1:
                store.add_demonstrations([written("a"), written("b", status="accepted")], C)
            if step == 2:
                says(store, "a", "accepted")
            if step == 3:
                demonstrations.hand_in(store, C, written("b2", "q", "r", status="accepted", supersedes="b"))
            seen.add(shelf.fingerprint(review=True))
        assert len(seen) == 4
        assert [(d.id, d.status, d.reviewer) for d in shelf.accepted(review=True)] == [
            ("a", "accepted", "bob"), ("b2", "accepted", ""),
        ]  # fmt: skip


def test_the_same_words_are_found_whatever_stands_between_them(store_url: str) -> None:
    with open_store(store_url) as store:
        shelf = Shelf(store, C)
        alike = Alike(shelf)
        store.add_demonstrations([written("a", "What is a roux?", "Flour and butter.")], C)
        assert alike.same(conversation("what is a ROUX", "flour, and butter")) == "a"
        assert alike.same(conversation("what is a roux", "flour and oil")) is None
        assert alike.same(conversation("what is a roux flour", "and butter")) is None, "the turns are others"
        assert alike.same(conversation("What is a roux?", "Flour and butter."), besides="a") is None
        says(store, "a", "rejected", "No.")
        assert alike.same(conversation("What is a roux?", "Flour and butter.")) == "a"
        demonstrations.withdraw(store, C, "a", author="ann", now=0.0)
        assert alike.same(conversation("What is a roux?", "Flour and butter.")) is None


def test_what_asks_or_answers_nearly_the_same_is_found(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}") as store:
        alike = Alike(Shelf(store, C))
        asked = "Suggest a vegan dinner under 20 minutes"
        store.add_demonstrations([written("a", asked, "Fry tofu with rice."), written("b")], C)
        (found,) = alike.near(conversation("Suggest a vegan dinner under 30 minutes"))
        assert (found.id, found.asked, found.answered) == ("a", 0.6, 0.0)
        (found,) = alike.near(conversation("And now?", "Fry the tofu with rice."))
        assert found.id == "a" and found.answered == pytest.approx(4 / 7)
        assert alike.near(conversation(asked), besides="a") == []
        assert alike.near(conversation("", "")) == [] and alike.near(conversation("Dinner")) == []
        demonstrations.hand_in(store, C, written("a2", asked, "Boil pasta.", supersedes="a"))
        assert [one.id for one in alike.near(conversation(asked))] == ["a2"]


def test_likeness_of_word_pairs() -> None:
    assert likeness(pairs([]), pairs([""])) == 0
    assert likeness(pairs(["one two", "three"]), pairs(["three", "one two"])) == 1
    assert likeness(pairs(["one two"]), pairs(["two one"])) == 0


def test_the_one_among_thousands_is_found_also_when_more_come(tmp_path: Path) -> None:
    rng = random.Random(1)
    vocabulary = [f"word{number}" for number in range(3000)]

    def text(count: int) -> str:
        return " ".join(rng.choices(vocabulary, k=count))

    with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}") as store:
        store.add_demonstrations([written(str(n), text(15), text(60)) for n in range(3_000)], C)
        alike = Alike(Shelf(store, C))
        (wanted,) = alike.shelf.records(["777"]).values()
        for n in range(3):
            found = alike.near(wanted.messages)
            assert found[0].id == "777" and found[0].most == 1
            demonstrations.hand_in(store, C, written(f"new {n}", text(15), text(60)))
