"""A studio whose models are parrots, at a port of its own, for browsers."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from tests_chat import Parrots

from palate.feedback.people import Person
from palate.feedback.store import open_store
from palate.studio.app import build
from palate.studio.here import Studio


@dataclasses.dataclass
class Chatting:
    """A studio with three parrots, on a port of its own."""

    studio: Studio
    models: Parrots
    url: str = ""
    server: uvicorn.Server | None = None
    port: int = 0

    def start(self) -> None:
        self.server = uvicorn.Server(uvicorn.Config(build(self.studio), port=self.port, log_level="critical"))
        ready = threading.Event()
        begin = self.server.startup

        async def startup(**more: object) -> None:
            await begin(**more)  # type: ignore[arg-type]
            ready.set()

        self.server.startup = startup  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        assert ready.wait(20)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        assert self.server is not None
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(20)


@contextmanager
def chatting(folder: Path) -> Iterator[Chatting]:
    """One person alone with three parrots."""
    with open_store(f"sqlite:///{folder / 'feedback.sqlite'}") as store:
        models = Parrots()
        ann = Person("ann", frozenset({"lead"}))
        studio = Studio(store, "inn", lambda: "inn:1", title="Inn", speaker=models, single=ann, rng=random.Random(3))
        made = Chatting(studio, models)
        made.start()
        yield made
        made.stop()
