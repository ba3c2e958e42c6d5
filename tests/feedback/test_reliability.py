"""Who is careless and whom order moves is planted, and found again from the judgements alone."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from palate.feedback import reliability
from palate.feedback.reliability import EQUAL, Annotator, annotators
from palate.records import Judgement

Planted = dict[str, tuple[float, float]]
"""Per annotator: slope on an answer's worth and order bias per place, both in log-odds."""
PANEL: Planted = {"a": (2.0, 0.0), "b": (2.0, 0.0), "c": (2.0, 1.0), "d": (0.5, 0.0), "e": (0.0, 0.0)}


def judged(panel: Planted, *, prompts: int = 400, overlap: int = 4, seed: int = 0) -> list[Judgement]:
    """Rankings of four answers. Gumbel noise makes every pair's odds those of the model (Plackett-Luce)."""
    rng = random.Random(seed)
    names, found = list(panel), []
    for p in range(prompts):
        worth = {f"{p}.{i}": rng.gauss(0, 1) for i in range(4)}
        for turn in range(overlap):
            name = names[(p * overlap + turn) % len(names)]
            slope, bias = panel[name]
            shown = rng.sample(list(worth), 4)
            felt = {r: slope * worth[r] - bias * shown.index(r) - math.log(-math.log(rng.random())) for r in shown}
            ranks = {r: 1 + place for place, r in enumerate(sorted(felt, key=lambda r: -felt[r]))}
            found.append(
                Judgement(id=f"{p} {name}", prompt_id=str(p), annotator=name, ranks=ranks, presented_order=tuple(shown))
            )
    return found


def test_planted_slopes_and_order_biases_are_found() -> None:
    found = annotators(judged(PANEL))
    assert found["a"].weight == pytest.approx(found["b"].weight, rel=0.2)
    assert found["c"].weight == pytest.approx(found["a"].weight, rel=0.25), "order is no carelessness"
    # a consensus of few is nearer to even than the truth is, which makes people look more alike than they are, and
    # order bias smaller
    assert 0.25 < found["d"].weight / found["a"].weight < 0.45
    assert found["e"].weight / found["a"].weight == pytest.approx(0.0, abs=0.12)
    assert 0.55 < found["c"].order_bias < 1.05
    for name in PANEL:
        assert name == "c" or abs(found[name].order_bias) < 0.12
        assert found[name].judgements == 320 and found[name].shared == 320 * 6
    assert sum(who.weight * who.judgements for who in found.values()) == pytest.approx(1600)


def test_who_says_the_opposite_counts_nothing() -> None:
    found = annotators(judged(PANEL | {"e": (-2.0, 0.0)}))
    assert found["e"].weight == 0 and found["e"].slope < -0.5


def test_equals_count_alike() -> None:
    found = annotators(judged(dict.fromkeys("abcde", (1.5, 0.2))))
    for who in found.values():
        assert who.weight == pytest.approx(1, abs=0.15) and who.order_bias == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize(("prompts", "least", "most"), [(2, 0.6, 1.0), (4, 0.3, 0.7), (400, 0.0, 0.15)])
def test_a_newcomer_is_like_the_panel_until_much_is_known(prompts: int, least: float, most: float) -> None:
    """One annotator who ranks at random, on a few prompts or on all."""
    panel: Planted = {**dict.fromkeys("abc", (2.0, 0.0)), "z": (0.0, 0.0)}
    rest = [j for j in judged(panel) if j.annotator != "z" or int(j.prompt_id) < prompts]
    assert least <= annotators(rest)["z"].weight <= most


def test_single_judgements_are_all_worth_the_same_and_still_show_order_bias() -> None:
    found = annotators(judged(PANEL, prompts=1600, overlap=1))
    assert {who.weight for who in found.values()} == {1.0}
    assert all(who.slope == 0 and who.shared == 0 for who in found.values())
    # unknown worths flatten it: 1 is planted, and nothing tells worth from chance here
    assert found["c"].order_bias > 0.35 and all(abs(found[name].order_bias) < 0.15 for name in "abde")
    assert all(told["agreement"] is None for told in reliability.report(judged(PANEL, overlap=1), found).values())


def test_where_nobody_agrees_nobody_is_better() -> None:
    """As in the placebo, whose ranks are dealt out at random."""
    for seed in range(5):
        rng = random.Random(seed)
        found = annotators([j.dealt(rng) for j in judged(PANEL, prompts=100, seed=seed)])
        assert all(0.5 < who.weight < 1.5 for who in found.values())


def test_one_annotator_is_not_compared_with_themselves() -> None:
    once = judged({"a": (2.0, 0.0)}, overlap=1)
    twice = [*once, *(replace(j, id=f"{j.id} again") for j in once)]
    assert annotators(twice)["a"].shared == 0 and annotators(twice)["a"].weight == 1
    assert annotators([]) == {}


def test_unanimous_annotators_have_a_finite_slope() -> None:
    order = judged({"a": (2.0, 0.0)}, overlap=1)
    found = annotators([replace(j, id=f"{j.id}{n}", annotator=n) for j in order for n in "xyz"])
    assert all(0 < who.slope < 20 and who.weight == pytest.approx(1) for who in found.values())


def test_the_order_of_judgements_and_the_names_of_people_do_not_matter() -> None:
    given = judged(PANEL)
    shuffled = random.Random(1).sample(given, len(given))
    assert annotators(shuffled) == annotators(given)
    renamed = annotators([replace(j, annotator=f"z{ord('z') - ord(j.annotator)}") for j in given])
    for name, who in annotators(given).items():
        assert renamed[f"z{ord('z') - ord(name)}"].weight == pytest.approx(who.weight, rel=1e-3)


def choice(ranks: dict[str, int], shown: Sequence[str] = ("i", "j")) -> Judgement:
    return Judgement(id="1", prompt_id="p", annotator="x", ranks=ranks, presented_order=tuple(shown))


def told(who: Annotator, judgement: Judgement) -> tuple[float, float]:
    ((_, _, weight, weighted),) = who.evidence(judgement)
    return weight, weighted


def test_what_a_choice_tells_by_hand() -> None:
    first, second, tie = {"i": 1, "j": 2}, {"i": 2, "j": 1}, {"i": 1, "j": 1}
    assert told(EQUAL, choice(first)) == (1, 1) and told(EQUAL, choice(second)) == (1, 0)
    assert told(EQUAL, choice(tie)) == (1, 0.5)
    moved = replace(EQUAL, weight=2.0, order_bias=math.log(3))  # chooses what is shown first 3 times in 4
    weight = 2 * 4 * 0.75 * 0.25
    assert told(moved, choice(first)) == pytest.approx((weight, weight / 2 + 2 * 0.25))
    assert told(moved, choice(second)) == pytest.approx((weight, weight / 2 - 2 * 0.75))
    assert told(moved, choice(second, "ji")) == pytest.approx((weight, weight / 2 - 2 * 0.25))
    assert told(moved, choice(first, "")) == (2, 2), "a file may not say in which order answers were shown"


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_what_a_choice_tells_is_the_likelihood_around_equal_answers(target: float) -> None:
    """Value aside, -log P(choice | x) and the loss of (weight, target) have the same first two derivatives at x = 0."""
    who = replace(EQUAL, weight=1.0, order_bias=0.8)
    ranks = {"i": 1 if target >= 0.5 else 2, "j": 1 if target <= 0.5 else 2}
    weight, weighted = told(who, choice(ranks))

    def moved(x: float) -> float:
        return math.log1p(math.exp(x + 0.8)) - target * (x + 0.8)

    def used(x: float) -> float:
        return weight * math.log1p(math.exp(x)) - weighted * x

    for order in (lambda f: (f(1e-3) - f(-1e-3)) / 2e-3, lambda f: (f(1e-3) - 2 * f(0.0) + f(-1e-3)) / 1e-6):
        assert order(used) == pytest.approx(order(moved), abs=1e-5)


def test_agreement_is_with_the_others() -> None:
    one = [replace(choice({"i": 1, "j": 2}), id=f"{n}", prompt_id=str(n), annotator="x") for n in range(4)]
    two = [replace(j, id=f"{j.id}y", annotator="y", ranks={"i": 1, "j": 2 if n else 1}) for n, j in enumerate(one)]
    off = [replace(j, id=f"{j.id}z", annotator="z", ranks={"i": 2, "j": 1}) for j in one]
    given = [*one, *two, *off]
    found = reliability.report(given, annotators(given))
    agreed = {name: (line["agreement"]["mean"], line["agreement"]["n"]) for name, line in found.items()}
    # of x's 7 untied comparisons 3 are with y, who agrees; y has 6, z 7; y's tie is nobody's agreement
    assert agreed == {"x": (3 / 7, 4), "y": (0.5, 3), "z": (0.0, 4)}
    assert not any(line["simulated"] for line in found.values())
