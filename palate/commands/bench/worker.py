"""The process that one contestant lives in: `python -m palate.commands.bench.worker`, started by the harness.

It reads one line, {"contestant": "module:function", "arguments": {...}}, and calls the function with a `Turns` and the
arguments. The function makes itself ready and then, again and again, calls `turns()` and does its work once. Each such
call answers the harness with one line and waits for the line that allows the next turn.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch

from palate.metrics import Metrics
from palate.workspace import forget_peak, peak_mb


class Turns:
    """Where a contestant waits for its turn. What it did since it was last let go is timed."""

    def __init__(self, asked: TextIO, answers: TextIO) -> None:
        self._asked, self._answers = asked, answers
        self._taken = 0
        self._began = time.perf_counter()

    def __call__(self, **told: float) -> None:
        """End this turn, `told` beside its seconds, and wait for the next. The first call says that all is ready."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._began
        answer = {"seconds": seconds, "peak_mb": _peak_mb(), **told}
        if self._taken == 1:  # compiling and other first-time work is over; what steps need counts from here
            _forget_peak()
        self._taken += 1
        print(json.dumps(answer), file=self._answers, flush=True)
        if not self._asked.readline():
            raise SystemExit(0)
        self._began = time.perf_counter()


def _peak_mb() -> float:
    """Peak memory in MiB: the GPU's where there is one, else this process's."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mb()


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()


class Paced(Metrics):
    """The log of a stage's own loop, which ends a turn at every `every`-th line: so a stage is measured by running it,
    what it reads and writes included."""

    def __init__(self, path: Path, turns: Turns, *, every: int) -> None:
        super().__init__(path)
        self._turns, self._every, self._lines = turns, every, 0

    def log(self, step: int, **values: float | int | str) -> None:
        """As in every run; then, perhaps, the next contestant's turn."""
        super().log(step, **values)
        self._lines += 1
        if self._lines % self._every == 0:
            self._turns(**self.told())

    def told(self) -> dict[str, float]:
        """What is told beside the seconds of the turn that ends."""
        return {}


def serve(asked: TextIO, answers: TextIO) -> None:
    """Run the contestant that the first line names."""
    order: dict[str, Any] = json.loads(asked.readline())
    module, _, name = order["contestant"].partition(":")
    getattr(importlib.import_module(module), name)(Turns(asked, answers), **order["arguments"])


if __name__ == "__main__":
    _answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    serve(sys.stdin, _answers)
