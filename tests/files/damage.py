"""What can happen to a file: it is cut off, bits flip, a block is lost, something is appended."""

from __future__ import annotations

import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from palate.errors import PalateError

CUTS = 50
TRIED: Counter[str] = Counter()
"""What became of the damaged files of this session; told at its end."""
Damaged = tuple[str, bytes]
"""What was done, and the bytes after it."""


def cuts(good: bytes) -> Iterator[Damaged]:
    """The file cut off at every fiftieth of its length, from nothing to almost all of it."""
    for part in range(CUTS):
        yield f"cut to {part}/{CUTS}", good[: len(good) * part // CUTS]
    yield "without its last byte", good[:-1]


def flips(good: bytes, count: int, seed: int) -> Iterator[Damaged]:
    """One bit flipped, at `count` places."""
    rng = random.Random(f"flip {seed}")
    for _ in range(count):
        place, bit = rng.randrange(len(good)), rng.randrange(8)
        yield f"bit {bit} of byte {place}", good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :]


def blocks(good: bytes, count: int, seed: int) -> Iterator[Damaged]:
    """A block replaced by zeros or by noise, or lost, at `count` places."""
    rng = random.Random(f"block {seed}")
    for number in range(count):
        size = rng.randint(1, max(1, len(good) // 8))
        start = rng.randrange(len(good) - size + 1)
        instead = (bytes(size), rng.randbytes(size), b"")[number % 3]
        yield f"{size} bytes at {start} replaced by {len(instead)}", good[:start] + instead + good[start + size :]


def tails(good: bytes) -> Iterator[Damaged]:
    """Something after the end."""
    yield "512 zeros appended", good + bytes(512)
    yield "noise appended", good + random.Random(0).randbytes(300)
    yield "the whole file twice", good + good


def all_of(good: bytes, *, some: int = 30, seed: int = 0) -> Iterator[Damaged]:
    """Every kind of damage: 51 cuts, `some` flipped bits, `some` blocks, 3 tails."""
    yield from cuts(good)
    yield from flips(good, some, seed)
    yield from blocks(good, some, seed)
    yield from tails(good)


class Hang(BaseException):
    """A file was not read in time. (Not an Exception, so that no reader takes it for one of its own.)"""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hang when the work inside takes longer."""

    def ring(*_: object) -> None:
        raise Hang(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told_in_one_line(error: PalateError, name: str) -> None:
    """The error says where in one line of a bearable length."""
    text = str(error)
    assert text.isprintable(), f"not one printable line: {text!r}"
    assert len(text) < 1000 and text.rstrip().endswith((".", "?", ")")), text
    assert name in text, f"{text!r} does not name {name}"


def outcome(load: Callable[[Path], object], path: Path, what: str, *, seconds: float = 10.0) -> object:
    """What `load` makes of the file: its value, or the PalateError. Anything else that is raised fails the test."""
    try:
        with at_most(seconds):
            value = load(path)
            TRIED["loaded"] += 1
            return value
    except PalateError as error:
        TRIED["refused in one line"] += 1
        return error
    except BaseException as error:
        pytest.fail(f"{path.name}, {what}: {type(error).__name__}: {str(error)[:300]}")


def check(
    load: Callable[[Path], object],
    path: Path,
    damaged: Iterator[Damaged],
    acceptable: Callable[[object, object], bool],
    *,
    name: str | None = None,
    seconds: float = 10.0,
) -> dict[str, int]:
    """Load the good file, then every damaged version of it: each is refused in one line that names the file, or what
    it gives is `acceptable(good, got)`. How many were refused and how many loaded is returned; the file is put back."""
    original = path.read_bytes()
    good = load(path)
    counts = {"refused": 0, "loaded": 0}
    try:
        for what, content in damaged:
            if content == original:
                continue
            path.write_bytes(content)
            got = outcome(load, path, what, seconds=seconds)
            if isinstance(got, PalateError):
                told_in_one_line(got, name or path.name)
                counts["refused"] += 1
            else:
                assert acceptable(good, got), f"{path.name}, {what}: loaded as something else"
                counts["loaded"] += 1
    finally:
        path.write_bytes(original)
    return counts


def equal(good: object, got: object) -> bool:
    """Exactly what was written."""
    return good == got


def anything(good: object, got: object) -> bool:
    """The file has no check of its own, so a changed letter is another text. What counts is that it loads or not."""
    return True


def beginning(good: object, got: object) -> bool:
    """The first records of what was written: what a file of lines cut at a line's end must look like."""
    assert isinstance(good, list) and isinstance(got, list)
    return got == good[: len(got)]
