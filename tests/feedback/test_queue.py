"""Who is asked what next: never more people at once than a prompt should have, whoever comes when."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palate.feedback import items
from palate.feedback.campaigns import Settings
from palate.feedback.queue import Lease, Queue
from palate.feedback.store import Store, open_store
from palate.records import Judgement, Prompt, Response, conversation

CAMPAIGN = "dinner"
MINUTE = 60.0


def prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=conversation(f"Dinner {i}?"), family=f"f{i}") for i in range(count)]


def responses(count: int, answers: int = 3) -> list[Response]:
    return [Response(id=f"r{i}{k}", prompt_id=f"p{i}", text=f"Dish {k}.") for i in range(count) for k in range(answers)]


def laid(store: Store, count: int, **values: object) -> Queue:
    queue = Queue(store, CAMPAIGN)
    store.add_prompts(prompts(count), CAMPAIGN)
    store.add_responses(responses(count), CAMPAIGN)
    queue.lay(prompts(count), responses(count), **{"random_share": 0.3, **values})  # type: ignore[arg-type]
    return queue


def judge(queue: Queue, lease: Lease, **values: object) -> Judgement:
    made = Judgement(
        **{  # type: ignore[arg-type]
            "id": f"{lease.annotator} {lease.prompt_id}",
            "prompt_id": lease.prompt_id,
            "annotator": lease.annotator,
            "ranks": {id_: rank for rank, id_ in enumerate(lease.presented, start=1)},
            "presented_order": lease.presented,
            **values,
        }
    )
    queue.store.add_judgements([made], queue.campaign)
    return made


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as found:
        yield found


class Asked:
    """Claims with a clock and a chance of their own."""

    def __init__(self, queue: Queue, seed: int = 0, **values: object) -> None:
        self.queue, self.now, self.rng = queue, 1000.0, random.Random(seed)
        self.settings = Settings(**{"gold_share": 0.0, **values})  # type: ignore[arg-type]

    def __call__(self, who: str, skipped: tuple[str, ...] = ()) -> Lease | None:
        return self.queue.claim(who, self.settings, now=self.now, rng=self.rng, skipped=skipped)

    def one(self, who: str, skipped: tuple[str, ...] = ()) -> Lease:
        lease = self(who, skipped)
        assert lease is not None
        return lease


def test_what_lies_in_front_of_somebody_counts_like_a_judgement(store: Store) -> None:
    ask = Asked(laid(store, 2), overlap=2)
    first = ask.one("ann")
    assert ask("ann") == first, "who comes back has the same one in front of them"
    assert ask.one("ben").prompt_id == first.prompt_id, "what is begun comes first"
    others = {ask.one("cem").prompt_id, ask.one("dora").prompt_id}
    assert others == {"p0", "p1"} - {first.prompt_id}
    assert ask("eve") is None, "two people are at each"


def test_what_is_begun_is_brought_to_an_end_first(store: Store) -> None:
    queue = laid(store, 3)
    ask = Asked(queue, overlap=2)
    later = ask.one("ann", skipped=("p0", "p1"))
    judge(queue, later)
    assert later.prompt_id == "p2" and ask.one("ben").prompt_id == "p2"


def test_a_lease_that_expired_is_free_and_its_judgement_is_an_extra_one(store: Store) -> None:
    queue = laid(store, 1)
    ask = Asked(queue, overlap=1, lease_minutes=30)
    slow = ask.one("ann")
    assert slow.expires_at == ask.now + 30 * MINUTE
    ask.now += 29 * MINUTE
    assert ask("ben") is None
    ask.now += 2 * MINUTE
    judge(queue, ask.one("ben"))
    judge(queue, slow)
    progress = queue.progress(ask.settings, now=ask.now)
    assert store.count_judgements(CAMPAIGN) == 2, "the late one is kept"
    assert (progress.given, progress.wanted, progress.enough) == (1, 1, 1), "and does not count twice"


def test_who_is_still_at_it_keeps_it(store: Store) -> None:
    queue = laid(store, 1)
    ask = Asked(queue, overlap=1, lease_minutes=30)
    lease = ask.one("ann")
    ask.now += 29 * MINUTE
    queue.renew(lease.id, ask.settings, now=ask.now)
    ask.now += 29 * MINUTE
    assert ask("ben") is None
    ask.now += 2 * MINUTE
    queue.renew(lease.id, ask.settings, now=ask.now)  # too late: it may be somebody else's by now
    assert ask("ben") is not None


def test_a_lead_frees_what_somebody_holds(store: Store) -> None:
    queue = laid(store, 1)
    ask = Asked(queue, overlap=1)
    lease = ask.one("ann")
    assert [(held.annotator, prompt.id) for held, _, prompt in items.held(store, CAMPAIGN, now=ask.now)] == [
        ("ann", "p0")
    ]
    queue.expire(lease.id, now=ask.now)
    assert items.held(store, CAMPAIGN, now=ask.now) == []
    assert ask("ben") is not None
    kept = queue.lease(lease.id)
    assert kept is not None and kept.presented == lease.presented, "what ann hands in still finds its answers"


def test_nobody_is_asked_twice(store: Store) -> None:
    queue = laid(store, 3)
    ask = Asked(queue, overlap=9)
    seen = []
    while (lease := ask("ann")) is not None:
        seen.append(lease.prompt_id)
        judge(queue, lease)
    assert sorted(seen) == ["p0", "p1", "p2"]


def test_whoever_could_not_rank_has_judged_and_who_took_it_back_has_not(store: Store) -> None:
    queue = laid(store, 1)
    ask = Asked(queue, overlap=1)
    told = judge(queue, ask.one("ann"), ranks={}, cannot_rank="prompt_unclear")
    assert ask("ann") is None and ask("ben") is None
    told = judge(queue, Lease("", "p0", "ann", (), 0, 0), id="second", ranks={}, supersedes=told.id)
    assert ask("ben") is not None
    assert items.unrankable(store, CAMPAIGN, most=9) == [], "it was taken back"


def test_what_was_skipped_comes_last(store: Store) -> None:
    queue = laid(store, 3)
    ask = Asked(queue, overlap=1)
    first = ask.one("ann")
    queue.release(first.id)
    seen = [first.prompt_id]
    while len(seen) < 3:
        lease = ask.one("ann", skipped=(seen[0],))
        seen.append(lease.prompt_id)
        judge(queue, lease)
    assert len(set(seen)) == 3
    assert ask.one("ann", skipped=(seen[0],)).prompt_id == seen[0], "nothing else is left"


def test_the_order_shown_is_by_chance_and_nine_at_most(store: Store) -> None:
    queue = Queue(store, CAMPAIGN)
    store.add_prompts(prompts(1), CAMPAIGN)
    store.add_responses([Response(id=f"r{k}", prompt_id="p0", text=f"{k}") for k in range(12)], CAMPAIGN)
    queue.lay(prompts(1), store.responses(CAMPAIGN), random_share=0.3)
    ask = Asked(queue, overlap=50)
    orders = [ask.one(f"person {n}").presented for n in range(10)]
    assert all(len(set(order)) == 9 for order in orders)
    assert len({order[0] for order in orders}) > 2


def test_the_arms_are_as_large_as_asked_and_do_not_change(store: Store) -> None:
    laid(store, 200)
    arms = {row.prompt.id: row.arm for row in everything(store)}
    assert 35 <= Counter(arms.values())["random"] <= 85, "0.3 of 200 is 60, and 6.5 is one standard deviation"
    laid(store, 220, random_share=0.9, unsure={"p0": 0.5})
    again = {row.prompt.id: row for row in everything(store)}
    assert all(again[id_].arm == arm for id_, arm in arms.items())
    assert again["p0"].unsure == 0.5 and again["p1"].unsure is None
    assert again["p219"].number > again["p199"].number


def everything(store: Store) -> list[items.Row]:
    return items.rows(store, CAMPAIGN, 1, show="all", find="", start=0, count=999, now=0.0)[1]


def test_the_least_sure_prompts_are_asked_first_and_some_by_chance(store: Store) -> None:
    unsure = {f"p{i}": i / 100 for i in range(60)}
    queue = laid(store, 60, unsure=unsure)
    arm = {row.prompt.id: row.arm for row in everything(store)}
    sure_first = sorted((id_ for id_ in unsure if arm[id_] == "unsure"), key=lambda id_: -unsure[id_])
    by_chance = [row.prompt.id for row in everything(store) if arm[row.prompt.id] == "random"]
    ask = Asked(queue, overlap=1, random_share=0.3)
    seen = [ask.one(f"person {n}").prompt_id for n in range(30)]
    chosen = [id_ for id_ in seen if arm[id_] == "unsure"]
    others = [id_ for id_ in seen if arm[id_] == "random"]
    assert chosen == sure_first[: len(chosen)], "the least sure one first"
    assert others == by_chance[: len(others)], "whatever the reward model thinks of them"
    assert 2 <= len(others) <= 17, "0.3 of 30 is 9, and 2.5 is one standard deviation"


def test_without_a_reward_model_the_order_is_that_of_the_prompts(store: Store) -> None:
    queue = laid(store, 20)
    ask = Asked(queue, overlap=1)
    assert [ask.one(f"person {n}").prompt_id for n in range(20)] == [row.prompt.id for row in everything(store)]


def test_gold_goes_to_everybody_and_counts_for_nothing(store: Store) -> None:
    queue = laid(store, 4)
    queue.set_gold("p2", {"r20": 1, "r21": 2, "r22": 3})
    assert queue.gold() == {"p2": {"r20": 1, "r21": 2, "r22": 3}}
    always = Asked(queue, overlap=1, gold_share=1.0)
    for name in ("ann", "ben", "cem"):
        lease = always.one(name)
        assert lease.prompt_id == "p2"
        judge(queue, lease)
    assert always.one("ann").prompt_id != "p2", "once each"
    assert queue.progress(always.settings, now=0).items == 3
    never = Asked(queue, overlap=9, gold_share=0.0)
    seen = set()
    while (other := never("dora")) is not None:
        seen.add(other.prompt_id)
        judge(queue, other)
    assert seen == {"p0", "p1", "p3"}
    queue.set_gold("p2", None)
    assert never.one("dora").prompt_id == "p2"


def test_items_are_found_by_how_far_they_are_and_by_what_they_say(store: Store) -> None:
    queue = laid(store, 4)
    store.add_prompts([Prompt(id="more", messages=conversation('A "crème brûlée", please'), family="m")], CAMPAIGN)
    more = [Response(id=f"m{k}", prompt_id="more", text=str(k)) for k in range(2)]
    store.add_responses(more, CAMPAIGN)
    queue.lay(store.prompts(CAMPAIGN), store.responses(CAMPAIGN), random_share=0.3)
    ask = Asked(queue, overlap=2)
    judge(queue, ask.one("ann"))  # p0 has one
    judge(queue, ask.one("ben"))  # and two
    judge(queue, ask.one("ann"), ranks={}, cannot_rank="no_expertise", rationale="What is an aubergine?")  # p1
    queue.set_gold("p3", {"r30": 1, "r31": 2})

    def shown(show: items.Show, find: str = "") -> set[str]:
        total, found = items.rows(store, CAMPAIGN, 2, show=show, find=find, start=0, count=99, now=ask.now)
        assert total == len(found)
        return {row.prompt.id for row in found}

    assert shown("all") == {"p0", "p1", "p2", "p3", "more"}
    assert shown("enough") == {"p0"} and shown("begun") == {"p1"} and shown("gold") == {"p3"}
    assert shown("open") == {"p1", "p2", "more"} and shown("unrankable") == {"p1"}
    assert shown("all", 'a "CRÈME') == {"more"} and shown("all", "100%") == set()
    total, second = items.rows(store, CAMPAIGN, 2, show="all", find="", start=2, count=2, now=ask.now)
    assert total == 5 and [row.prompt.id for row in second] == ["p2", "p3"]
    (could_not,) = items.unrankable(store, CAMPAIGN, most=9)
    assert (could_not.annotator, could_not.reason, could_not.prompt.id) == ("ann", "no_expertise", "p1")
    assert could_not.rationale == "What is an aubergine?"
    row = items.row(store, CAMPAIGN, could_not.number, now=ask.now)
    assert row is not None and (row.given, row.unrankable, row.held) == (1, 1, 0)
    assert items.row(store, "another", could_not.number, now=ask.now) is None


def test_eight_at_once_never_take_more_than_there_is(store: Store) -> None:
    """Every claim of a thread is one of `overlap` places; what is handed in by all is exactly every place once."""
    queue = laid(store, 20)
    chosen = Settings(overlap=3, gold_share=0.0)
    trouble: list[BaseException] = []
    most: Counter[str] = Counter()

    def person(number: int) -> None:
        rng = random.Random(number)
        try:
            while (lease := queue.claim(f"person {number}", chosen, now=1000.0, rng=rng)) is not None:
                if rng.random() < 0.2:
                    queue.release(lease.id)
                else:
                    judge(queue, lease)
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=person, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    for judgement in store.judgements(CAMPAIGN):
        most[judgement.prompt_id] += 1
    assert max(most.values()) == 3
    # A person who sees that all places are taken goes, and one who then releases comes again: none is left open.
    assert sum(most.values()) == queue.progress(chosen, now=1000.0).given == 60


STEP = st.tuples(
    st.sampled_from(["claim", "judge", "release", "skip", "wait", "expire"]),
    st.integers(0, 4),
    st.integers(1, 50),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=50), overlap=st.integers(1, 3), seed=st.integers(0, 99))
def test_whatever_people_do_the_overlap_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], overlap: int, seed: int
) -> None:
    """A model of the queue: places are judgements and live leases of others; a claim is refused only when none is."""
    path: Path = tmp_path_factory.mktemp("queue") / "feedback.sqlite"
    with open_store(f"sqlite:///{path}") as opened:
        queue = laid(opened, 4)
        ask = Asked(queue, seed, overlap=overlap, lease_minutes=10)
        leases: dict[str, Lease] = {}
        judged: dict[str, set[str]] = {f"p{i}": set() for i in range(4)}
        for what, number, minutes in steps:
            who = f"person {number}"
            live = {name: lease for name, lease in leases.items() if lease.expires_at > ask.now}
            if what == "claim":
                got = ask(who)
                if who in live:
                    assert got == live[who]
                    continue
                places = {
                    id_: len(by) + sum(one.prompt_id == id_ for name, one in live.items() if name != who)
                    for id_, by in judged.items()
                }
                can = {id_ for id_, taken in places.items() if taken < overlap and who not in judged[id_]}
                if got is None:
                    assert not can
                    leases.pop(who, None)
                else:
                    assert got.prompt_id in can
                    begun = {id_ for id_ in can if places[id_]}
                    assert got.prompt_id in begun or not begun
                    leases[who] = got
            elif what == "judge" and who in leases:  # in time, or late
                lease = leases.pop(who)
                judge(queue, lease)
                judged[lease.prompt_id].add(who)
            elif what in ("release", "skip") and who in leases:
                queue.release(leases.pop(who).id)
            elif what == "expire" and who in live:
                queue.expire(live[who].id, now=ask.now)
                leases.pop(who)
            elif what == "wait":
                ask.now += minutes * MINUTE / 5
        progress = queue.progress(ask.settings, now=ask.now)
        assert progress.given == sum(min(len(by), overlap) for by in judged.values())
        assert progress.held == sum(lease.expires_at > ask.now for lease in leases.values())
