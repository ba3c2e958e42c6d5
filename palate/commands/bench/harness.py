"""Contestants take turns: processes, medians, ratios, the machine's ceiling, and the JSON that holds it all."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch

from palate import metrics
from palate.commands.bench.worker import Turns
from palate.device import DTYPES, describe, open_device, products_per_second
from palate.errors import Unsupported
from palate.recipe import Hardware
from palate.workspace import write_atomically

REST = 0.02
"""Seconds between two turns: the last contestant's threads spin for some milliseconds before they sleep."""
LEAST_REPEATS = 5

OURS = "palate"
"""Contestants whose name begins like this are ours, all others are peers."""


Order = tuple[str, Mapping[str, Any]]
"""Who shall run: "module:function", and its arguments."""


@dataclass(frozen=True)
class Turn:
    """What one turn took, and what the contestant told beside it."""

    seconds: float
    peak_mb: float
    told: Mapping[str, float] = field(default_factory=dict)


class Contestant(Protocol):
    """Whoever can do its work once and say how long that took; `ready` is what it took until it could."""

    ready: Turn

    def go(self) -> Turn:
        """One turn."""
        ...


class Worker:
    """A contestant in a process of its own: a function "module:name" that is called with a `Turns` and `arguments`."""

    def __init__(self, contestant: str, **arguments: Any) -> None:
        self._name = contestant
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see close
        self._process = subprocess.Popen(
            [sys.executable, "-m", "palate.commands.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        self._say(json.dumps({"contestant": contestant, "arguments": arguments}))
        self.ready = self._hear()

    def go(self) -> Turn:
        """One turn. Raises Unsupported, with the last line of its complaints, when the process died."""
        self._say("go")
        return self._hear()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=20)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: hearing nothing says so
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _hear(self) -> Turn:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._complaints.seek(0)
            last = [text for text in self._complaints.read().splitlines() if text.strip()][-1:] or ["no word"]
            raise Unsupported(f"bench: {self._name} ended with {last[0].strip()!r}.")
        told = json.loads(line)
        return Turn(told.pop("seconds"), told.pop("peak_mb"), told)


@contextlib.contextmanager
def workers(orders: Mapping[str, Order]) -> Iterator[dict[str, Contestant]]:
    """The processes of {name: ("module:function", arguments)}, ended afterwards."""
    started: dict[str, Contestant] = {}
    with contextlib.ExitStack() as stack:
        for name, (contestant, arguments) in orders.items():
            worker = Worker(contestant, **arguments)
            stack.callback(worker.close)
            started[name] = worker
        yield started


@dataclass(frozen=True)
class Record:
    """The turns of one contestant. What it took to be `ready`, and its `first` turn, count for no speed."""

    ready: Turn
    first: Turn
    turns: Sequence[Turn]

    @property
    def warm_up(self) -> float:
        """Seconds until its first turn was done: building, compiling, whenever it was, and that turn."""
        return self.ready.seconds + self.first.seconds

    @property
    def seconds(self) -> float:
        """The median turn."""
        return statistics.median(turn.seconds for turn in self.turns)

    def told(self, name: str) -> float:
        """Median of what was told by this name."""
        return statistics.median(turn.told[name] for turn in self.turns)

    @property
    def peak_mb(self) -> float:
        """Most memory after the first turn, in MiB."""
        return max(turn.peak_mb for turn in self.turns)


def take_turns(contestants: Mapping[str, Contestant], repeats: int) -> dict[str, Record]:
    """Everybody once to warm up and once more to settle, then `repeats` times by turns, in reverse order every other
    time: what drifts, drifts for all. Raises ValueError for fewer repeats than a median needs."""
    if repeats < LEAST_REPEATS:
        raise ValueError(f"{repeats} repeats: a median needs {LEAST_REPEATS}")
    first = {name: _rested(contestant) for name, contestant in contestants.items()}
    for contestant in contestants.values():
        _rested(contestant)
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    for repeat in range(repeats):
        order = list(contestants) if repeat % 2 == 0 else list(contestants)[::-1]
        for name in order:
            turns[name].append(_rested(contestants[name]))
    return {name: Record(contestants[name].ready, first[name], turns[name]) for name in contestants}


def _rested(contestant: Contestant) -> Turn:
    time.sleep(REST)
    return contestant.go()


def times_faster(
    ours: Record, peer: Record, *, seconds: Callable[[Turn], float] = lambda t: t.seconds
) -> dict[str, float]:
    """How many times as long the peer needs: the ratio of the medians, and the lowest and highest of the rounds."""
    rounds = [seconds(theirs) / seconds(own) for own, theirs in zip(ours.turns, peer.turns, strict=True)]
    medians = [statistics.median(seconds(turn) for turn in record.turns) for record in (peer, ours)]
    return {"ratio": round(medians[0] / medians[1], 2), "low": round(min(rounds), 2), "high": round(max(rounds), 2)}


def fastest(records: Mapping[str, Record]) -> str:
    """The name of the one with the smallest median."""
    return min(records, key=lambda name: records[name].seconds)


# --- the machine ------------------------------------------------------------------------------------------------------


def matmul(turns: Turns, *, size: int, dtype: str) -> None:
    """A contestant: products of two square matrices of `size`; tells the TFLOP/s of the best."""
    kind = open_device(Hardware(compile=False)).kind
    told: dict[str, float] = {}
    while True:
        turns(**told)
        told = {"tflops": products_per_second(kind, dtype, size=size, seconds=0.3) / 1e12}


def ceilings() -> dict[str, Order]:
    """Orders for the matmul ceiling in both precisions. They take turns with everybody else."""
    size = 8192 if torch.cuda.is_available() else 2048
    where = f"{__name__}:matmul"
    return {f"matmul_{dtype}": (where, {"size": size, "dtype": dtype}) for dtype in DTYPES}


def ceiling(records: Mapping[str, Record], dtype: str) -> float:
    """The best TFLOP/s that a large matrix product reached."""
    return max(turn.told["tflops"] for turn in records[f"matmul_{dtype}"].turns)


def machine() -> dict[str, Any]:
    """The hardware and versions, by names that say nothing about whose they are."""
    told: dict[str, Any] = {
        "processor": describe("cpu"),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        told["gpu"] = describe("cuda")
    for name in ("palate", "torch", "transformers", "trl"):
        with contextlib.suppress(PackageNotFoundError):
            told[name] = version(name)
    return told


def need(package: str, how: str) -> None:
    """Raises Unsupported when a peer is not installed; `how` says what to do."""
    if importlib.util.find_spec(package) is None:
        raise Unsupported(f"palate bench measures against {package}, which is not installed: {how}.")


def publish(result: Mapping[str, Any], target: Path | None) -> None:
    """The result as JSON, into a file or onto standard output."""
    text = json.dumps(result, indent=1) + "\n"
    if target is None:
        print(text, end="")  # noqa: T201 - the result is the output
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    metrics.say(f"wrote {target}")
