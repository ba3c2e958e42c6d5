"""Numbers of a run: an append-only JSONL file per stage, and progress a person can watch.

The file holds only what the computation decides (no clock, no rate), so that the same seed gives the same file and a
resumed run continues it exactly.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from palate import ranks
from palate.errors import BadInput, BrokenArtifact, NotFinite
from palate.records import json_lines

T = TypeVar("T")


class Metrics:
    """Append-only numbers of one stage; one JSON object per line, each with its `step`. Of several processes the leader
    writes them."""

    def __init__(self, path: Path, *, resume_after: int = 0, gaps: bool = False) -> None:
        """Open `path`, cut off behind its lines up to step `resume_after`; 0 starts afresh.

        gaps: steps without a line are normal. Otherwise BrokenArtifact is raised when `resume_after` has none: the
        saved state would go on behind a hole.
        """
        self.path = path
        if not ranks.leads():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept, last, whole = 0, 0, True
        with path.open("a+b") as file:
            file.seek(0)
            for line in file:
                step = _step(line)
                if not resume_after or step is None or step > resume_after:
                    whole = False
                elif whole:
                    kept, last = kept + len(line), step
                else:
                    raise BrokenArtifact(
                        f"{path} is damaged before its step {step}. Delete the stage's .partial folder and run the "
                        f"same command again."
                    )
            file.truncate(kept)  # in place: whoever dies here leaves the old file or the new one
        if last < resume_after and not gaps:
            raise BrokenArtifact(
                f"{path} ends at step {last}, but the saved state has done {resume_after} steps. Delete the stage's "
                f".partial folder and run the same command again."
            )

    def log(self, step: int, **values: Any) -> None:
        """Append one line of JSON-ready values. Raises NotFinite when one is NaN or infinite."""
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise NotFinite(f"{self.path.stem}: {name} is {value} at step {step}; stopped before it is used.")
        if not ranks.leads():
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")

    def sync(self) -> None:
        """Have what was logged on the disk, before a state is saved that counts on it."""
        if not ranks.leads():
            return
        with self.path.open("rb") as file:
            os.fsync(file.fileno())


def _step(line: bytes) -> int | None:
    """The step of a line; None for one that was being written when the process died."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, oldest first; an empty list when there is none. Raises BadInput at a damaged one."""
    if not path.exists():
        return []
    return [values for _, values in _lines(path.read_bytes().split(b"\n"), path)]


def _lines(lines: list[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, values in json_lines(lines, path):
        if type(values.get("step")) is not int:
            raise BadInput("this line has no step.", f"{path}:{number}", "Mend or delete the line.")
        yield number, values


def read_on(path: Path, after: int = 0, *, most: int = 1 << 20) -> tuple[list[dict[str, Any]], int]:
    """The whole lines behind byte `after`, and where the next ones will begin: for who watches a stage that runs.

    Of more than `most` bytes the last ones. A file that is shorter than that was begun again, and is read from its
    start. What is no line of ours is left out: nothing hangs on what is only watched.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = after if after <= size else 0
            begin = max(start, size - most)
            file.seek(begin)
            content = file.read(size - begin)
    except OSError:
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.split(b"\n")[1 if begin > start else 0 : -1]  # the first one may be half
    found = []
    for line in lines:
        try:
            values = json.loads(line, parse_constant=_refused)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and type(values.get("step")) is int:
            found.append(values)
    return found, begin + len(whole)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON.")


def say(text: str) -> None:
    """One line for the person who watches, on standard error (standard output is for results), from the leader of
    several processes."""
    if ranks.leads():
        complain(text)


def complain(text: str) -> None:
    """The same from whichever process it is that something befell."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """A bar with rate and time left on a terminal; a plain line every ten seconds elsewhere.

    Nothing is shown for work that ends within two seconds.
    """

    def __init__(self, title: str, total: int, *, done: int = 0, unit: str = "steps") -> None:
        self.title, self.total, self.done, self.unit = title, total, done, unit
        self._first = done
        self._started = time.monotonic()
        self._spoken = self._started
        self._note = ""
        self._bar: Any = None
        self._terminal = sys.stderr.isatty()

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Say that `amount` more is done; `note` is a short status such as "loss 2.31"."""
        self.done += amount
        self._note = note or self._note
        if not ranks.leads():
            return
        now = time.monotonic()
        if now - self._started < 2.0:
            return
        if self._terminal:
            self._draw()
        elif now - self._spoken >= 10.0:
            self._spoken = now
            say(self._line(now))

    def _line(self, now: float) -> str:
        rate = (self.done - self._first) / max(now - self._started, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else math.inf
        ahead = f", {_clock(left)} left" if math.isfinite(left) and self.done < self.total else ""
        note = f"  {self._note}" if self._note else ""
        return f"  {self.title} {self.done:,}/{self.total:,} {self.unit} ({rate:,.1f}/s{ahead}){note}"

    def _draw(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("  {task.description}"),
                BarColumn(bar_width=28),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", style="dim"),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(self.title, total=self.total, unit=self.unit, rate="", note="")
            self._bar.start()
        rate = (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)
        self._bar.update(self._task, completed=self.done, rate=f"{rate:,.1f}/s", note=self._note)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._terminal and kind is None and time.monotonic() - self._started >= 2.0:
            say(self._line(time.monotonic()))

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, each counted as one when the next is asked for."""
        for item in items:
            yield item
            self.advance()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
