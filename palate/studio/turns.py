"""Whose question a model answers now: one at a time in this process, in the order they came, one for each person."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import HTTPException


class Turn:
    """One question in the line."""

    def __init__(self, person: str) -> None:
        self.person = person
        self.stopped = threading.Event()
        """Nobody wants the rest of the answer: its person said so, or is gone."""


class Turns:
    """The line in front of the models. A model that answers two at once is as slow for both as one after the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[Turn] = []

    def begin(self, person: str) -> Turn:
        """A place at the end of the line. 409 where this person has one already."""
        with self._changed:
            if any(turn.person == person for turn in self._line):
                raise HTTPException(409, "An answer is being written for you. Stop it, or wait until it is there.")
            turn = Turn(person)
            self._line.append(turn)
            return turn

    def wait(self, turn: Turn, told: Callable[[int], None] = lambda before: None) -> bool:
        """Until it is this one's turn; False when it was stopped before that. `told` hears how many come first."""
        last = 0
        while not turn.stopped.is_set():
            with self._changed:
                before = self._line.index(turn)
                if before and before == last:
                    self._changed.wait(timeout=0.5)
            if not before:
                return True
            if before != last:
                last = before
                told(before)
        return False

    def end(self, turn: Turn) -> None:
        """The next one's turn. Ending twice is no error."""
        with self._changed:
            if turn in self._line:
                self._line.remove(turn)
            self._changed.notify_all()

    def stop(self, person: str) -> bool:
        """Ask that this person's answer ends where it is; whether there was one."""
        with self._changed:
            for turn in self._line:
                if turn.person == person:
                    turn.stopped.set()
                    self._changed.notify_all()
                    return True
        return False

    @contextmanager
    def turn(self, person: str) -> Iterator[Turn]:
        """Wait for one's turn and have it. Raises HTTPException 409 where this person waits already."""
        turn = self.begin(person)
        try:
            self.wait(turn)
            yield turn
        finally:
            self.end(turn)
