"""What answers in the tests of the chat, in place of models."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from starlette.testclient import TestClient

from palate.errors import BadInput
from palate.records import Message

CHAT = "/api/v1/chat"


class Parrots:
    """Three models that say what they were asked and, unless `alike`, which of them they are not allowed to tell."""

    def __init__(self, names: Sequence[str] = ("ppo", "sft", "base"), *, alike: bool = False) -> None:
        self.names, self.alike = names, alike
        self.heard: list[tuple[str, list[str]]] = []
        self.given = 0
        self.closed = 0
        self.speaking = 0
        self.most_at_once = 0
        self.gate: Callable[[], object] = lambda: None
        """Called before each piece."""

    def checkpoint(self, model: str) -> str:
        return f"checkpoint of {model}"

    def text(self, model: str, messages: Sequence[Message]) -> str:
        asked = messages[-1].content
        if self.alike:
            return f"An answer to {asked}"
        return f"{ {'ppo': 'Lamb', 'sft': 'Stew', 'base': 'Rice'}[model] } für {asked} 🍮 <script>alert(1)</script>"

    def say(
        self, model: str, messages: Sequence[Message], *, temperature: float, seed: int
    ) -> Generator[str, None, bool]:
        self.heard.append((model, [m.content for m in messages]))
        self.speaking += 1
        self.most_at_once = max(self.most_at_once, self.speaking)
        try:
            if "too long" in messages[-1].content:
                raise BadInput(f"{model} reads 160 tokens, and it is 300.", "chat", "Write less.")
            if "break" in messages[-1].content:
                raise RuntimeError(f"{model} is broken")
            for piece in self.text(model, messages):
                self.gate()
                self.given += 1
                yield piece
        finally:
            self.speaking -= 1
            self.closed += 1
        return "cut" not in messages[-1].content


def begin(client: TestClient, **more: Any) -> str:
    answer = client.post(f"{CHAT}/conversations", json=more)
    assert answer.status_code == 201
    id_: str = answer.json()["id"]
    return id_


def events(body: str) -> list[dict[str, Any]]:
    """What was streamed; the last is that it is done."""
    parts = body.split("\n\n")
    assert parts.pop() == "" and parts.pop() == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def ask(client: TestClient, id_: str, text: str | None, parent: str = "", **more: Any) -> list[dict[str, Any]]:
    how = {"models": ["ppo"]} | more
    answer = client.post(f"{CHAT}/say", json={"conversation": id_, "text": text, "parent": parent, **how})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def turn(client: TestClient, id_: str, text: str | None, parent: str = "", **more: Any) -> dict[str, Any]:
    """The turn that a question was answered with."""
    told: dict[str, Any] = ask(client, id_, text, parent, **more)[-1]["turn"]
    return told


def duel(client: TestClient, id_: str, text: str | None, parent: str = "", **more: Any) -> dict[str, Any]:
    return turn(client, id_, text, parent, blind=True, **({"models": []} | more))


def in_background(work: Callable[[], object]) -> threading.Thread:
    made = threading.Thread(target=work, daemon=True)
    made.start()
    return made
