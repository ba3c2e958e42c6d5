"""The measuring itself, on contestants whose seconds are made up, and on real processes."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from palate.commands.bench import harness
from palate.commands.bench.harness import Record, Turn, Worker, fastest, take_turns, times_faster
from palate.commands.bench.worker import Paced, Turns
from palate.errors import Unsupported


class Fake:
    """Takes the seconds it was given, one after the other, and writes its name into the order of all turns."""

    def __init__(self, name: str, seconds: Iterator[float], order: list[str]) -> None:
        self.name, self.seconds, self.order = name, seconds, order
        self.ready = Turn(7.0, peak_mb=999.0)

    def go(self) -> Turn:
        self.order.append(self.name)
        return Turn(next(self.seconds), peak_mb=float(len(self.order)))


def record(*seconds: float, peak_mb: float = 0.0) -> Record:
    return Record(Turn(98.0, 999.0), Turn(99.0, 999.0), [Turn(s, peak_mb) for s in seconds])


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "REST", 0.0)


def test_the_order_is_turned_round_every_other_time() -> None:
    order: list[str] = []
    take_turns({name: Fake(name, itertools.repeat(1.0), order) for name in "abc"}, 5)
    assert "".join(order) == "abc" + "abc" + "abc" + "cba" + "abc" + "cba" + "abc"


def test_the_first_turns_count_for_nothing_and_the_median_of_the_others_counts() -> None:
    seconds = iter([50.0, 40.0, 5.0, 1.0, 2.0, 30.0, 3.0])
    found = take_turns({"a": Fake("a", seconds, [])}, 5)["a"]
    assert found.first.seconds == 50.0
    assert found.warm_up == 57.0, "what it took to be ready, too"
    assert [turn.seconds for turn in found.turns] == [5.0, 1.0, 2.0, 30.0, 3.0]
    assert found.seconds == 3.0
    assert found.peak_mb == 7.0


def test_a_median_needs_five() -> None:
    with pytest.raises(ValueError, match="4 repeats: a median needs 5"):
        take_turns({"a": Fake("a", itertools.repeat(1.0), [])}, 4)


def test_the_ratio_is_how_much_longer_the_peer_takes() -> None:
    """Of the medians, 6 / 2; the rounds beside it are those of the same turn: 6/2, 4/1, 9/3, 5/5, 8/2."""
    ours, peer = record(2.0, 1.0, 3.0, 5.0, 2.0), record(6.0, 4.0, 9.0, 5.0, 8.0)
    assert times_faster(ours, peer) == {"ratio": 3.0, "low": 1.0, "high": 4.0}
    assert times_faster(peer, ours)["ratio"] == 0.33


def test_the_fastest_has_the_smallest_median() -> None:
    assert fastest({"a": record(1.0, 9.0, 9.0), "b": record(5.0, 5.0, 5.0), "c": record(8.0, 8.0, 8.0)}) == "b"


def test_a_contestant_lives_in_a_process_of_its_own_and_is_timed_there() -> None:
    order = {f"matmul_{dtype}": (f"{harness.__name__}:matmul", {"size": 64, "dtype": dtype}) for dtype in ("float32",)}
    with harness.workers(order) as contestants:
        (found,) = take_turns(contestants, 5).values()
    assert all(turn.seconds >= 0.3 for turn in found.turns)  # what `matmul` spends at least
    assert found.peak_mb > 50
    assert harness.ceiling({"matmul_float32": found}, "float32") == max(turn.told["tflops"] for turn in found.turns) > 0


def test_whoever_dies_leaves_a_word() -> None:
    with pytest.raises(Unsupported, match=r"harness:matmul ended with \"KeyError: 'float99'\""):
        worker = Worker(f"{harness.__name__}:matmul", size=64, dtype="float99")
        try:
            worker.go()
        finally:
            worker.close()


class Told(Turns):
    """Counts its turns without a harness."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def __call__(self, **told: float) -> None:
        self.told.append(told)


def test_a_stage_log_ends_a_turn_at_every_second_line(tmp_path: Path) -> None:
    turns = Told()
    log = Paced(tmp_path / "log.jsonl", turns, every=2)
    for step in range(1, 6):
        log.log(step, loss=1.0)
    assert len(turns.told) == 2
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_a_peer_that_is_missing_is_one_clear_line() -> None:
    with pytest.raises(Unsupported, match="against no_such_peer, which is not installed: install it"):
        harness.need("no_such_peer", "install it")


def test_results_name_the_hardware_and_nothing_else_of_the_machine(tmp_path: Path) -> None:
    harness.publish({"machine": harness.machine()}, tmp_path / "new" / "x.json")
    told = json.loads((tmp_path / "new" / "x.json").read_text(encoding="utf-8"))["machine"]
    assert set(told) <= {"processor", "capability", "cores", "system", "python", "gpu", "palate", "torch", "transformers", "trl"}  # fmt: skip  # noqa: E501
    assert {"processor", "cores", "torch"} <= set(told)
