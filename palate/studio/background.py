"""What takes longer than a page may: computed by a thread of its own while the page that wants it goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from palate.errors import PalateError

T = TypeVar("T")
LONG, REST = 1.0, 4.0
"""What took longer than LONG seconds is computed anew only after REST times as long, so that figures of judgements that
come all the time leave the machine to those who judge."""
LOG = logging.getLogger("palate.studio")


@dataclass(frozen=True)
class Told(Generic[T]):
    """What is known so far."""

    value: T | None
    """None where it was never computed, or could not be."""
    computing: bool
    """It is being computed; `value` is of how things were before."""
    error: str = ""
    """Why it could not be."""


@dataclass
class _Slot:
    value: Any = None
    key: str | None = None
    """What `value` or `error` was computed of; None before the first time."""
    error: str = ""
    running: threading.Event | None = None
    not_before: float = 0.0
    """When it may be computed again, by time.monotonic."""


class Background:
    """The last value of everything that was asked for by name. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}

    def ask(self, name: str, key: str, make: Callable[[], T | None], *, patience: float = 0.0) -> Told[T]:
        """What `make` returns for `key`, which changes when the value may. It is called at most once at a time for each
        `name`; wait `patience` seconds for it, then take what there is."""
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            if slot.key == key:
                return Told(cast(T | None, slot.value), slot.running is not None, slot.error)
            if slot.running is None and slot.key is not None and time.monotonic() < slot.not_before:
                return Told(cast(T | None, slot.value), computing=True, error=slot.error)
            if slot.running is None:
                slot.running = threading.Event()
                # A daemon: who closes the studio does not wait for figures.
                threading.Thread(target=self._run, args=(slot, key, make), name=f"palate {name}", daemon=True).start()
            done = slot.running
        done.wait(patience)
        with self._lock:
            return Told(cast(T | None, slot.value), slot.running is not None, slot.error)

    def _run(self, slot: _Slot, key: str, make: Callable[[], object]) -> None:
        value, error, began = None, "", time.monotonic()
        try:
            value = make()
        except PalateError as told:
            error = str(told)
        except Exception:  # nobody waits for this thread: what goes wrong in it is told here or nowhere
            LOG.exception("figures could not be computed")
            error = "This could not be computed; the terminal says more."
        took = time.monotonic() - began
        with self._lock:
            slot.not_before = time.monotonic() + REST * took if took > LONG else 0.0
            slot.value, slot.key, slot.error = value, key, error
            assert slot.running is not None
            slot.running.set()
            slot.running = None
