"""What may upset is found, comes to nobody who does not want it, and is counted for those to whom it came."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from palate.errors import BadInput
from palate.feedback import care
from palate.feedback.campaigns import Settings
from palate.feedback.care import DAY, Seen, Wishes
from palate.feedback.queue import Queue
from palate.feedback.store import FLAGGED, Store, open_store
from palate.records import Judgement, Prompt, Response, conversation

TOPICS = "# a note\n\nspiders: spider*, *tula*\n  Heights :cliff, tall  tower, 悬崖*, *高处*\n"
ASKED = ["Feed my SPIDERS!", "Climb it.", "Bake it.", "Boil it.", "Fry it."]


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Five prompts with two answers each; the second's first answer names a tower."""
    with open_store(store_url) as store:
        prompts = [Prompt(id=f"p{n}", messages=conversation(told), family=str(n)) for n, told in enumerate(ASKED)]
        responses = [
            Response(id=f"{p.id}{a}", prompt_id=p.id, text="Of a tall tower." if p.id + a == "p1a" else f"So {a}.")
            for p in prompts
            for a in "ab"
        ]
        store.add_prompts(prompts, "c")
        store.add_responses(responses, "c")
        Queue(store, "c").lay(prompts, responses, random_share=1.0)
        counts = care.mark(store, "c", prompts, responses, TOPICS)
        assert counts == {"spiders": 1, "heights": 1}
        yield store


def claimed(store: Store, who: str, now: float, avoided: list[str] | None = None) -> str | None:
    """What comes to a person, who passes over it."""
    avoided = care.avoided(store, who, care.topics(TOPICS), now=now) if avoided is None else avoided
    queue = Queue(store, "c")
    lease = queue.claim(who, Settings(overlap=9), now=now, rng=random.Random(0), avoided=avoided)
    if lease is None:
        return None
    store.add_judgements([judged(who, lease.prompt_id)], "c")
    return lease.prompt_id


def judged(who: str, prompt: str, flags: dict[str, list[str]] | None = None, **more: str) -> Judgement:
    ranks = {f"{prompt}a": 1, f"{prompt}b": 2} if "cannot_rank" not in more else {}
    id_ = f"{who} {prompt} {len(more)} {more.get('supersedes', '')}"
    return Judgement(id=id_, prompt_id=prompt, annotator=who, ranks=ranks, flags=flags or {}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("A spider's web", ["spiders"]),
        ("spidery", ["spiders"]),
        ("a tarantula", ["spiders"]),
        ("aspider", []),
        ("the cliff.", ["heights"]),
        ("cliffs", []),
        ("a TALL\n tower", ["heights"]),
        ("a tall old tower", []),
        ("悬崖边", ["heights"]),
        ("我站在高处。", ["heights"]),
        ("On a cliff: ｓｐｉｄｅｒｓ", ["spiders", "heights"]),
        ("", []),
    ],
)
def test_words_are_found_as_they_are_listed(text: str, topics: list[str]) -> None:
    assert care.of(text, care.topics(TOPICS)) == topics


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b\nno colon", 2),
        (": words", 1),
        ("empty: , *", 1),
        ("a: b\nA : c", 2),
        (f"{'x' * 41}: b", 1),
        (f"{FLAGGED}: b", 1),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, line: int) -> None:
    with pytest.raises(BadInput, match=f"topics, line {line}"):
        care.topics(text)


def test_too_many_are_refused() -> None:
    with pytest.raises(BadInput, match="51 topics"):
        care.topics("\n".join(f"t{n}: w" for n in range(51)))


def test_those_that_come_with_it_can_be_read_and_find_what_they_are_for() -> None:
    known = care.topics()
    assert care.topics("") == {} and len(known) == 6
    told = ["He murdered them.", "I want to die", "porn", "He raped her", "a Nazi", "cocaine"]
    assert [care.of(text, known) for text in told] == [[name] for name in known]
    for harmless in ("Kill the process.", "Bleed the radiator.", "The photographer shot a bottle of beer.", "Al Gore"):
        assert care.of(harmless, known) == []


def test_what_is_avoided_does_not_come_and_the_rest_does(store: Store) -> None:
    care.wish(store, "ann", Wishes(avoid=("spiders",)))
    assert [claimed(store, "ann", 1.0) for _ in range(5)] == ["p1", "p2", "p3", "p4", None]
    assert [claimed(store, "bob", 1.0) for _ in range(6)] == ["p1", "p2", "p3", "p4", "p0", None]
    queue, settings = Queue(store, "c"), Settings(overlap=9)
    assert queue.left("ann", settings, now=1.0) == 1 and queue.left("bob", settings, now=1.0) == 0
    assert queue.left("ann", settings, now=1.0, avoided=["spiders"]) == 0


def test_gold_that_is_avoided_does_not_come_either(store: Store) -> None:
    queue = Queue(store, "c")
    queue.set_gold("p0", {"p0a": 1, "p0b": 2})
    settings = Settings(overlap=9, gold_share=1.0)
    given = queue.claim("ann", settings, now=1.0, rng=random.Random(0), avoided=["spiders"])
    assert given is not None and given.prompt_id != "p0"
    other = queue.claim("bob", settings, now=1.0, rng=random.Random(0), avoided=["heights"])
    assert other is not None and other.prompt_id == "p0"


def test_what_lies_in_front_of_whoever_avoids_it_is_given_back(store: Store) -> None:
    queue = Queue(store, "c")
    lease = queue.claim("ann", Settings(), now=1.0, rng=random.Random(0))
    assert lease is not None and lease.prompt_id == "p0"
    care.wish(store, "bob", Wishes(avoid=("spiders",)))
    care.wish(store, "ann", Wishes(avoid=("heights",)))
    assert queue.lease(lease.id) is not None
    care.wish(store, "ann", Wishes(avoid=("spiders",)))
    assert queue.lease(lease.id) is None and claimed(store, "ann", 1.0) == "p1"


def test_after_as_many_as_somebody_wants_in_a_day_no_more_come(store: Store) -> None:
    store.add_judgements([judged("zoe", "p4", {"p4a": ["harmful"]})], "c")
    care.wish(store, "ann", Wishes(a_day=2))
    known = care.topics(TOPICS)
    for prompt, now in (("p0", 10.0), ("p0", 20.0), ("p1", 30.0)):
        assert care.avoided(store, "ann", known, now=now) == []
        care.expose(store, "ann", "c", prompt, now=now)
    assert care.avoided(store, "ann", known, now=40.0) == [FLAGGED, "heights", "spiders"]
    assert care.avoided(store, "bob", known, now=40.0) == []
    assert [claimed(store, "ann", 40.0) for _ in range(3)] == ["p2", "p3", None]
    assert care.avoided(store, "ann", known, now=10.0 + DAY) == []


def test_how_many_came_is_counted_once_each(store: Store) -> None:
    for prompt, now in (("p0", 0.0), ("p1", 6 * DAY), ("p0", 6.9 * DAY), ("p2", 7.5 * DAY)):
        care.expose(store, "ann", "c", prompt, now=now)
    care.expose(store, "bob", "c", "p0", now=7.5 * DAY)
    assert care.seen(store, "ann", now=7.6 * DAY) == Seen(day=1, week=2, ever=3)
    assert care.everybody(store, now=7.6 * DAY) == {"ann": Seen(1, 2, 3), "bob": Seen(1, 1, 1)}
    assert care.seen(store, "eve", now=0.0) == Seen(0, 0, 0)


def test_a_prompt_is_flagged_while_somebody_says_so(store: Store) -> None:
    def flagged() -> list[str]:
        return [f"p{n}" for n in range(5) if FLAGGED in care.of_prompt(store, "c", f"p{n}")]

    store.add_judgements([judged("ann", "p2", {"p2b": ["off_topic"]}), judged("ann", "p0")], "c")
    assert flagged() == []
    store.add_judgements([judged("ann", "p3", {"p3b": ["personal_data", "harmful"]})], "c")
    store.add_judgements([judged("bob", "p4", cannot_rank="harmful")], "c")
    assert flagged() == ["p3", "p4"]
    prompts, responses = store.prompts("c"), store.responses("c")
    care.mark(store, "c", prompts, responses, "heat: boil*")
    assert care.of_prompt(store, "c", "p3") == [FLAGGED, "heat"] and care.of_prompt(store, "c", "p0") == []
    store.add_judgements([judged("ann", "p3", supersedes="ann p3 0 ")], "c")
    assert flagged() == ["p4"]


def test_simulated_annotators_flag_nothing(store: Store) -> None:
    told = Judgement(
        id="s", prompt_id="p2", annotator="s", ranks={"p2a": 1, "p2b": 2}, flags={"p2a": ["harmful"]}, simulated=True
    )
    store.add_judgements([told], "c")
    assert care.of_prompt(store, "c", "p2") == []
    store.add_judgements([judged("ann", "p2")], "c")
    store.add_judgements([judged("ann", "p2", supersedes="ann p2 0 ")], "c")
    assert care.of_prompt(store, "c", "p2") == []


def test_other_words_are_noted_anew(store: Store) -> None:
    assert care.mark_again(store, "c", "heat: boil*") == {"heat": 1}
    assert [care.of_prompt(store, "c", f"p{n}") for n in range(4)] == [[], [], [], ["heat"]]


@pytest.mark.parametrize(
    "values", [{"a_day": -1}, {"a_day": 10_001}, {"avoid": ("x" * 41,)}, {"avoid": tuple(map(str, range(51)))}]
)
def test_wishes_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Wishes(**values)  # type: ignore[arg-type]


def test_wishes_are_kept(store: Store) -> None:
    chosen = Wishes(avoid=("spiders", "gone"), cover=False, a_day=0)
    care.wish(store, "ann", Wishes(a_day=4))
    care.wish(store, "ann", chosen)
    assert care.wishes(store, "ann") == chosen and care.wishes(store, "bob") == Wishes()
