"""Two processes against one: the same shares, sums, steps and states. (tests_together.py is what the two run.)"""

import copy
from pathlib import Path
from typing import Any

import pytest
import tests_together as together
import torch
from torch import Tensor

from palate.train import distributed, resume

Found = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same steps by one process, and where it left what the two go on from."""
    folder = tmp_path_factory.mktemp("together")
    found: dict[str, Any] = {"folder": folder}
    for way in ("plain", "rounded"):
        for kind in together.KINDS:
            learner = together.make(kind, together.WAYS[way])
            start = together.weights(learner)
            told = together.train(learner, 1, together.STEPS)
            if way == "plain":
                (folder / "alone" / kind).mkdir(parents=True)
                resume.save(folder / "alone" / kind, together.STEPS, {"it": learner})
            told += together.train(learner, together.STEPS + 1, 2 * together.STEPS)
            found[way, kind] = told, together.weights(learner), start
            with torch.no_grad():
                found[way, kind, "logits"] = copy.deepcopy(learner.model)(together.batch(0).ids)
    return found


@pytest.fixture(scope="module")
def two(alone: dict[str, Any]) -> Found:
    return together.two(alone["folder"])


def moved_apart(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """How far two ends lie from each other, by the way from the start."""
    distance = sum(float((one[name] - other[name]).square().sum()) for name in one)
    way = sum(float((one[name] - start[name]).square().sum()) for name in one)
    assert way > 0.01
    return (distance / way) ** 0.5


def test_shares_and_sums(two: Found) -> None:
    first, second = (found["verbs"] for found in two)
    assert (first["share"], second["share"]) == ([0, 2, 4], [1, 3])
    assert (first["empty share"], second["empty share"]) == ([0], [])
    for name in ("total", "gather", "parts", "gradients", "none"):
        assert first[name] == second[name]
    assert first["total"] == (0.1 + 1.1, 2.0)
    assert first["gather"] == ["a", "b", "c"]
    assert first["gradients"] == [[3.0] * 3, [20.0] * 2, [300.0] * 4, None]


def test_parts_are_put_together_in_order(two: Found) -> None:
    assert two[0]["verbs"]["parts"] + two[0]["verbs"]["none"] == [(n, n**2) for n in (0, 1, 2, 3, 4, 7)]


@pytest.mark.parametrize("kind", together.KINDS)
@pytest.mark.parametrize("way", ["plain", "sharded"])
def test_two_take_the_steps_of_one(alone: dict[str, Any], two: Found, way: str, kind: str) -> None:
    """Uneven shares, clipped gradients: losses, norms and weights, in float32."""
    told, weights, start = alone["plain", kind]
    told_too, weights_too, shards = two[0]["steps"][way, kind]
    assert (shards > 0) == (way == "sharded")
    torch.testing.assert_close(torch.tensor(told_too), torch.tensor(told), rtol=1e-5, atol=0)
    assert two[1]["steps"][way, kind][0] == told_too, "both are told the same"
    # Adam divides by the size of a gradient, so where that is next to nothing rounding decides the step.
    assert moved_apart(weights, weights_too, start) < (1e-6 if kind == "sgd" else 1e-5)


@pytest.mark.parametrize("kind", together.KINDS)
@pytest.mark.parametrize("way", ["rounded", "sharded, rounded"])
def test_two_take_the_steps_of_one_but_for_rounding(alone: dict[str, Any], two: Found, way: str, kind: str) -> None:
    told, weights, start = alone["rounded", kind]
    told_too, weights_too, _ = two[0]["steps"][way, kind]
    torch.testing.assert_close(torch.tensor(told_too), torch.tensor(told), rtol=0.01, atol=0)
    assert 0 < moved_apart(weights, weights_too, start) < (0.01 if kind == "sgd" else 0.05)


def test_the_processes_stay_the_same(two: Found) -> None:
    for way in ("plain", "rounded"):
        for kind in together.KINDS:
            first, second = (found["steps"][way, kind][1] for found in two)
            assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kind", together.KINDS)
def test_a_sharded_model_is_made_whole(alone: dict[str, Any], two: Found, kind: str) -> None:
    for found in two:
        torch.testing.assert_close(
            found["steps"]["sharded", kind, "logits"], alone["plain", kind, "logits"], rtol=0, atol=1e-4
        )
    whole, weights = two[0]["steps"]["sharded", kind, "whole"], two[0]["steps"]["sharded", kind][1]
    assert whole.keys() == weights.keys() == alone["plain", kind][1].keys()
    assert all(torch.equal(whole[name], weights[name]) for name in whole)
    assert any(p.is_meta for p in two[1]["steps"]["sharded", kind, "whole"].values()), "one copy is enough"


@pytest.mark.parametrize("kind", together.KINDS)
@pytest.mark.parametrize("way", ["plain", "sharded"])
def test_one_goes_on_from_what_two_saved(alone: dict[str, Any], two: Found, way: str, kind: str) -> None:
    learner = together.make(kind, together.WAYS["plain"])
    assert resume.load(alone["folder"] / way / kind, {"it": learner})[0] == together.STEPS
    together.train(learner, together.STEPS + 1, 2 * together.STEPS)
    _, weights, start = alone["plain", kind]
    assert moved_apart(weights, together.weights(learner), start) < (1e-6 if kind == "sgd" else 1e-5)


@pytest.mark.parametrize("kind", together.KINDS)
@pytest.mark.parametrize("way", ["plain", "sharded"])
def test_two_go_on_from_what_one_saved(alone: dict[str, Any], two: Found, way: str, kind: str) -> None:
    _, weights, start = alone["plain", kind]
    assert moved_apart(weights, two[0]["alone to two"][way, kind], start) < (1e-6 if kind == "sgd" else 1e-5)


def test_what_one_cannot_do_none_does(two: Found) -> None:
    first, second = (found["refusals"] for found in two)
    assert first == second
    assert "step 1: the loss is nan" in first["not finite"] and first["nothing moved"]
    assert first["one row"] == pytest.approx(float(together.batch(1, 1).weights.sum()))
    assert "leaves one of 2 processes without rows" in first["too few rows"]


def test_one_process_alone_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.share(range(3)) == [0, 1, 2]
    assert distributed.total(1.5, 2.0) == (1.5, 2.0)
    assert distributed.gather([1, 2]) == [1, 2]
    assert not distributed.must_shard(torch.nn.Linear(1, 1), together.WAYS["sharded"])
