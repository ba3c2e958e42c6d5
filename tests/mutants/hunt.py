"""Deliberate faults: each line of faults.toml is put into a copy of the package, and the test it names must fail.

    make mutants                       all of them; writes docs/mutants.md
    python tests/mutants/hunt.py gae   only those whose place or words hold "gae"; writes nothing

A test suite is only worth the faults it notices. One process is forked for each fault from one that has imported torch
already, so a fault costs what its test costs; as many hunt at once as there are cores.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
LIMIT_S = 600
"""A fault that makes its test hang is noticed too."""


@dataclass(frozen=True)
class Fault:
    """One change that must not go unnoticed."""

    file: str
    old: str
    new: str
    test: str
    what: str = ""
    """In words, where the change itself does not say it."""

    @property
    def told(self) -> str:
        """For a line of a table."""
        return self.what or f"`{_short(self.old)}` -> `{_short(self.new)}`"


def _short(code: str) -> str:
    line = " ".join(code.split()).replace("|", "\\|")
    return line if len(line) <= 90 else f"{line[:87]}..."


def faults() -> list[Fault]:
    """Every fault of faults.toml, in its order."""
    with Path(__file__).with_name("faults.toml").open("rb") as file:
        return [Fault(**values) for values in tomllib.load(file)["fault"]]


def put_in(fault: Fault, copy: Path) -> None:
    """Change the copy of the package. Raises ValueError unless the old text stands there exactly once."""
    path = copy / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.file} holds {text.count(fault.old)} times {fault.old!r}; mend faults.toml.")
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def run(tests: list[str], copy: Path) -> int:
    """pytest's exit code for `tests` against the package in `copy`, or -1 when it took too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT_S)
        os.chdir(ROOT)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)  # for the processes that tests start
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = 3  # pytest's own code for "at fault itself": what stays when something below raises
        try:
            import pytest

            import palate

            if Path(palate.__file__).is_relative_to(copy):
                code = pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", "--tb=no"])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return -1 if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


# --- several at once -------------------------------------------------------------------------------------------------

MANY = 12  # tests without a fault that run together


class Hunter:
    """One of several processes: it has a copy of the package, and a core, of its own."""

    copy = Path()

    @classmethod
    def settle(cls, place: str) -> None:
        """In a process that has just begun, before torch counts the cores: threads for more than there are wait for
        each other."""
        mine = int(multiprocessing.current_process().name.rpartition("-")[2]) - 1
        cls.copy = Path(place, str(mine))
        cls.copy.mkdir()
        shutil.copytree(ROOT / "recipes", cls.copy / "recipes")
        if cores := CORES[mine : mine + 1]:
            os.sched_setaffinity(0, cores)
        import numpy
        import pydantic
        import sqlalchemy
        import tokenizers
        import torch  # nothing of it may run before a fork: its threads would be lost

        del numpy, pydantic, sqlalchemy, tokenizers, torch

    @classmethod
    def fresh(cls) -> None:
        """The package as it is."""
        shutil.rmtree(cls.copy / "palate", ignore_errors=True)
        shutil.copytree(ROOT / "palate", cls.copy / "palate", ignore=shutil.ignore_patterns("__pycache__"))

    @classmethod
    def without(cls, tests: list[str]) -> int:
        """pytest's exit code where nothing is at fault."""
        cls.fresh()
        return run(tests, cls.copy)

    @classmethod
    def notices(cls, fault: Fault) -> tuple[str, float]:
        """(what became of the fault, seconds)."""
        cls.fresh()
        put_in(fault, cls.copy)
        started = time.monotonic()
        code = run([fault.test], cls.copy)
        # 1 is "a test failed"; anything else but a hang means that the test did not run, which proves nothing.
        result = {1: "caught", -1: "caught (it hung)", 0: "GOT AWAY"}.get(code, f"NOT RUN (code {code})")
        return result, time.monotonic() - started


def main(words: list[str]) -> int:
    """Hunt; 1 when a fault got away."""
    chosen = [f for f in faults() if not words or any(w in f"{f.file} {f.told} {f.test}" for w in words)]
    tests = sorted({f.test for f in chosen})
    groups = [tests[start : start + MANY] for start in range(0, len(tests), MANY)]
    lines, away, spawned = [], 0, multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as place,
        ProcessPoolExecutor(max(1, len(CORES)), spawned, Hunter.settle, (place,)) as pool,
    ):
        for group, code in zip(groups, pool.map(Hunter.without, groups), strict=True):
            if code:
                pool.shutdown(cancel_futures=True)
                print(f"without any fault one of these ends with code {code}; mend it first: {' '.join(group)}")
                return 2
        found = zip(chosen, pool.map(Hunter.notices, chosen), strict=True)
        for number, (fault, (result, seconds)) in enumerate(found, start=1):
            away += not result.startswith("caught")
            lines.append(f"| {number} | `{fault.file}` | {fault.told} | `{fault.test}` | {result} |")
            print(f"{number:3}/{len(chosen)} {result:10} {seconds:5.1f} s  {fault.told}", flush=True)
    print(f"{len(chosen) - away} of {len(chosen)} caught")
    if not words:
        write(lines, away)
    return int(away > 0)


def write(lines: list[str], away: int) -> None:
    """Put the result into docs/mutants.md, below its opening words."""
    page = ROOT / "docs" / "mutants.md"
    opening = re.split(r"^<!-- below: made by", page.read_text(encoding="utf-8"), flags=re.M)[0]
    table = "\n".join(["| | where | fault | test | |", "|---|---|---|---|---|", *lines])
    told = f"{len(lines) - away} of {len(lines)} faults were caught."
    page.write_text(f"{opening}<!-- below: made by make mutants -->\n\n{told}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
