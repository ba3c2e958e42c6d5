"""A model's answer piece by piece as Server-Sent Events; it ends when nobody listens any more.

Two blind answers come in step: every event has the next piece of both, so that neither the order nor the time of events
says anything about a model, and the first comes when both are in memory. Where one is longer, its rest comes as both
came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from palate.errors import BadInput, PalateError
from palate.feedback.tables import DUELS
from palate.records import Message
from palate.studio import talks
from palate.studio.here import Studio
from palate.studio.talks import Side, Slot, State
from palate.studio.turns import Turn as Place

Tell = Callable[[dict[str, Any]], None]
SLOTS: tuple[Slot, Slot] = ("a", "b")
ALIVE = 15.0
"""Seconds without a piece after which a comment is sent: what stands in between closes silent connections."""
FAILED = "A model could not answer. The terminal in which the studio runs says more."
TOO_LONG = "This conversation is too long for one of the two models. Write less, or begin a new one."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Voice:
    """A model that answers, and how its answer is drawn."""

    model: str
    checkpoint: str
    temperature: float
    seed: int


@dataclass
class Question:
    """What is to be answered, by one model or by two."""

    person: str
    talk: str
    question: str
    """The turn that is answered."""
    messages: Sequence[Message]
    voices: Sequence[Voice]
    id: str = field(default_factory=talks.new_id)
    """Of the turn that the answer becomes."""

    @property
    def blind(self) -> bool:
        """Two answers, and nobody is told whose they are."""
        return len(self.voices) == 2


class Stream(StreamingResponse):
    """What `work` tells while a model works, after what is told `first`. Whoever holds `place` in the line loses it
    when all is said or the client is gone."""

    def __init__(self, studio: Studio, place: Place, first: dict[str, Any], work: Callable[[Tell], None]) -> None:
        self._studio, self._place, self._first, self._work = studio, place, first, work
        self._begun = False
        super().__init__(self._events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette's; what was begun for a client that is gone is stopped."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._place.stopped.set()
            if not self._begun:
                self._studio.turns.end(self._place)

    async def _events(self) -> AsyncIterator[str]:
        told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: dict[str, Any] | None) -> None:
            with contextlib.suppress(RuntimeError):  # the server is closing
                loop.call_soon_threadsafe(told.put_nowait, event)

        def work() -> None:
            try:
                self._work(tell)
            finally:
                self._studio.turns.end(self._place)
                tell(None)

        # A thread of its own: the pool of threads is for what is quick.
        threading.Thread(target=work, daemon=True).start()
        self._begun = True
        yield _line(self._first)
        while True:
            try:
                event = await asyncio.wait_for(told.get(), ALIVE)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if event is None:
                break
            yield _line(event)
        yield "data: [DONE]\n\n"


class Events(Stream):
    """The answer to a question."""

    def __init__(self, studio: Studio, place: Place, question: Question) -> None:
        first = {"question": question.question, "answer": question.id}
        super().__init__(studio, place, first, lambda tell: answer(studio, place, question, tell))


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


def answer(studio: Studio, place: Place, question: Question, tell: Tell) -> None:
    """Wait for one's turn, let the models speak, keep what they said. What goes wrong is told in one line."""
    try:
        if not studio.turns.wait(place, lambda before: tell({"waiting": before})):
            return
        said, ended = _speak(studio, place, question, tell)
        states = [_state(stopped=place.stopped.is_set(), ended=one) for one in ended]
        if any(said) or "stopped" not in states:
            tell({"turn": talks.viewed(_keep(studio, question, said, states)).model_dump(mode="json")})
    except Exception as error:  # whoever waits is told, whatever it was
        tell({"error": _told(question, error)})


def _speak(studio: Studio, place: Place, question: Question, tell: Tell) -> tuple[list[str], list[bool | None]]:
    """(what each said, whether it came to its end; None where it was stopped)."""
    speaker = studio.speaker
    assert speaker is not None
    voices = [
        speaker.say(voice.model, question.messages, temperature=voice.temperature, seed=voice.seed)
        for voice in question.voices
    ]
    said = [""] * len(voices)
    ended: list[bool | None] = [None] * len(voices)
    names = SLOTS if question.blind else ("text",)
    pace = Pace(studio.now)
    try:
        while None in ended and not place.stopped.is_set():
            event: dict[str, Any] = {}
            for number, voice in enumerate(voices):
                if ended[number] is None:
                    piece, ended[number] = _next(voice)
                    said[number] += piece
                    if piece:
                        event[names[number]] = piece
            alone = question.blind and any(one is not None for one in ended)
            if alone and (early := pace.early()) > 0:
                place.stopped.wait(early)
            if event:
                tell(event)
            pace.told(together=not alone)
    finally:
        for voice in voices:
            voice.close()
    return [text.strip() for text in said], ended


class Pace:
    """How fast two blind answers come together. A model that goes on alone would do so at its own speed, which tells
    which one it is, so that the rest of its answer comes at the speed of both. `now`: seconds."""

    FIRST = 0.05
    """Seconds a piece where both said too little to know: about as fast as people read."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: float | None = None
        self._seconds: list[float] = []

    def told(self, *, together: bool) -> None:
        """A piece was told. What came before the first one says how long the question was read."""
        at = self._now()
        if together and self._last is not None:
            self._seconds.append(at - self._last)
        self._last = at

    def early(self) -> float:
        """Seconds until the next piece of the one that goes on alone is due; none where it is late."""
        apart = sum(self._seconds) / len(self._seconds) if self._seconds else self.FIRST
        return 0.0 if self._last is None else max(0.0, self._last + apart - self._now())


def _next(voice: Generator[str, None, bool]) -> tuple[str, Any]:
    """(the next piece, None), or ("", whether the model came to its end)."""
    try:
        return next(voice), None
    except StopIteration as stop:
        return "", stop.value is not False


def _state(*, stopped: bool, ended: bool | None) -> State:
    if ended is None:
        return "stopped"
    return "whole" if ended else "cut"


def _keep(studio: Studio, question: Question, said: Sequence[str], states: Sequence[State]) -> talks.Turn:
    """The answer as a turn of its conversation; of two, which model gave which goes where nobody can look."""
    turn = talks.Turn(id=question.id, parent=question.question, role="duel" if question.blind else "assistant")
    if question.blind:
        turn.a, turn.b = (Side(text=text, state=state) for text, state in zip(said, states, strict=True))
    else:
        turn.text, turn.state = said[0], states[0]
        for name, value in vars(question.voices[0]).items():
            setattr(turn, name, value)
    with talks.changing(studio, question.person, question.talk) as (connection, talk):
        talk.turn(question.question)
        talk.turns.append(turn)
        talk.at = turn.id
        if question.blind:
            secret = {slot: vars(voice) for slot, voice in zip(SLOTS, question.voices, strict=True)}
            connection.execute(
                sa.insert(DUELS).values(id=turn.id, account=question.person, content=secret, created_at=studio.now())
            )
    return turn


def _told(question: Question, error: Exception) -> str:
    """One line about what went wrong. Of two blind models none is named, and no limit that only one has."""
    if question.blind and isinstance(error, BadInput):
        return TOO_LONG
    if isinstance(error, BadInput):
        return f"{error.what[:1].upper()}{error.what[1:]} {error.mend}"
    if not question.blind and isinstance(error, PalateError):
        return str(error)
    log.error("a model could not answer", exc_info=error)
    return FAILED
