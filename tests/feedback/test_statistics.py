"""Agreement and biases against published and hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest

from palate.feedback import statistics
from palate.records import Judgement, Response

WORDS = {"a": 5, "b": 2, "c": 1}


def judged(
    annotator: str, order: str, prompt: str = "p", shown: str = "", scores: dict[str, dict[str, float]] | None = None
) -> Judgement:
    """An order such as "b a c", best first, of the answers a, b, c of a prompt."""
    return Judgement(
        id=f"{prompt} {annotator}",
        prompt_id=prompt,
        annotator=annotator,
        ranks={name: rank for rank, name in enumerate(order.split(), start=1)},
        presented_order=tuple(shown.split()),
        criteria=scores or {},
    )


# Krippendorff 2011, section C: four observers, twelve units, 0 where one did not look.
OBSERVED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
BINARY = np.array([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])  # section A


def test_alpha_is_that_of_krippendorffs_examples() -> None:
    units = [[value for value in unit if value] for unit in OBSERVED.T.tolist()]
    assert statistics.alpha(units, ordinal=False) == pytest.approx(0.743, abs=5e-4)
    assert statistics.alpha(units, ordinal=True) == pytest.approx(0.815, abs=5e-4)
    assert statistics.alpha(BINARY.T.tolist(), ordinal=False) == pytest.approx(0.095, abs=5e-4)


def test_alpha_without_anything_to_compare_is_none() -> None:
    assert statistics.alpha([[1], [2]], ordinal=True) is None
    assert statistics.alpha([[3, 3], [3, 3]], ordinal=True) is None
    assert statistics.alpha([[1, 1], [5, 5]], ordinal=True) == 1.0


def test_scores_and_flags_of_judgements_have_the_alphas_of_their_units() -> None:
    """Krippendorff's twelve units as twelve answers to six prompts."""
    judgements = []
    for who, row in enumerate(OBSERVED):
        for prompt in range(6):
            values = {name: float(row[2 * prompt + place]) for place, name in enumerate("ab")}
            given = {f"{name}{prompt}": {"safety": value} for name, value in values.items() if value}
            seen = {name: rank for rank, name in enumerate(given, start=1)}
            flags = {name: ["harmful"] for name in given if given[name]["safety"] == 5}
            judgements.append(
                Judgement(
                    id=f"{who} {prompt}", prompt_id=str(prompt), annotator=str(who), ranks=seen,
                    criteria=given, flags=flags,
                )
            )  # fmt: skip
    found = statistics.alphas(judgements)
    assert set(found) == {"safety", "harmful"}
    assert found["safety"]["mean"] == pytest.approx(0.815, abs=5e-4)
    assert found["safety"]["low"] < found["safety"]["mean"] < found["safety"]["high"] and found["safety"]["n"] == 6
    assert found["harmful"]["mean"] == 1.0  # three saw it, and all three flagged it


def test_agreement_is_counted_in_pairs_and_by_person() -> None:
    judgements = [judged("x", "a b c"), judged("y", "a c b"), judged("z", "c b a")]  # x-y 2 of 3, x-z 0, y-z 1
    assert statistics.agreement(judgements) == pytest.approx({"mean": 3 / 9, "low": 3 / 9, "high": 3 / 9, "n": 1})
    by = {name: told["mean"] for name, told in statistics.agreements(judgements).items()}
    assert by == pytest.approx({"x": 2 / 6, "y": 3 / 6, "z": 1 / 6})
    assert by["x"] == statistics.agreement(judgements, of="x")["mean"]  # type: ignore[index]
    assert statistics.agreement(judgements[:1]) is None and statistics.agreements(judgements[:1]) == {}
    assert statistics.agreement(judgements, of="nobody") is None


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """People who prefer what is shown first with probability 0.6: of 100 intervals 95 should hold 0.1, and by chance
    fewer than 88 do once in 500 times."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(100):
        first = rng.random(80) < 0.6
        told = statistics.order_bias(
            [judged("x", "a b" if yes else "b a", prompt=str(p), shown="a b") for p, yes in enumerate(first)]
        )
        assert told is not None
        held += told["low"] <= 0.1 <= told["high"]
    assert 88 <= held <= 100


def test_biases_by_hand() -> None:
    given = [judged("x", "a b c", shown="a b c"), judged("y", "b a c", "q", shown="a b c")]
    order, length = statistics.order_bias(given), statistics.length_bias(given, WORDS)
    assert order is not None and order["mean"] == pytest.approx(0.5 - 1 / 3) and order["n"] == 2
    assert order["low"] == pytest.approx(-1 / 3) and order["high"] == pytest.approx(2 / 3)
    assert length is not None and length["mean"] == pytest.approx(5 / 6) and length["n"] == 2
    assert statistics.order_bias([judged("x", "a b c")]) is None, "nobody knows what was shown first"
    assert statistics.first_shown(given) == order["mean"] and statistics.longer_wins(given, WORDS) == length["mean"]


def test_correlations_are_numpys() -> None:
    rng = np.random.default_rng(3)
    table = rng.integers(1, 6, size=(30, 4, 2)).astype(float)
    judgements = [
        judged("x", "a b c", prompt=str(p), scores={
            name: {"accuracy": row[0], "clarity": min(5.0, max(1.0, row[0] + row[1] - 3))}
            for name, row in zip("abcd", rows.tolist(), strict=True)
        })
        for p, rows in enumerate(table)
    ]  # fmt: skip
    flat = np.array([[s["accuracy"], s["clarity"]] for j in judgements for s in j.criteria.values()])
    found = statistics.correlations(judgements)
    assert set(found) == {"accuracy, clarity"}
    told = found["accuracy, clarity"]
    assert told["mean"] == pytest.approx(np.corrcoef(flat.T)[0, 1])
    assert told["low"] < told["mean"] < told["high"] and told["n"] == 30
    alike = [
        judged("x", "a b", scores={"a": {"accuracy": 3.0, "clarity": 1.0}, "b": {"accuracy": 3.0, "clarity": 5.0}})
    ]
    assert statistics.correlations(alike) == {}, "accuracy says nothing here"


def test_gold_is_counted_in_pairs() -> None:
    gold = {"p": {"a": 1, "b": 2, "c": 2}}
    told = statistics.gold_right([judged("x", "a b c"), judged("x", "b a c", prompt="q")], gold)
    assert told == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 1}, "b and c are equal, and q is no gold"
    assert statistics.gold_right([judged("x", "b a c")], gold) == pytest.approx(
        {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 1}
    )
    assert statistics.gold_right([judged("x", "b a c", prompt="q")], gold) is None


def test_a_summary_has_the_old_figures_and_their_intervals() -> None:
    given = [judged("x", "a b c", shown="a b c"), judged("y", "b a c", shown="a b c")]
    texts = {"a": "one two three", "b": "one two", "c": "one"}
    told = statistics.summary(given, [Response(id=i, prompt_id="p", text=text) for i, text in texts.items()])
    assert told["first_shown"] == told["order_bias"]["mean"] and told["longer_wins"] == told["length_bias"]["mean"]
    assert told["longer_wins"] == pytest.approx(5 / 6)
    assert told["judgements"] == 2 and told["alpha"] == {} and told["correlations"] == {}
    empty = statistics.summary([], [])
    assert empty["agreement"] is None and empty["order_bias"] is None and empty["untouched"] is None
