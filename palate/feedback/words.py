"""What is called by its words: a family of prompts, and the records of a run, in which the same said twice is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palate.records import Conversation, Prompt, stable_id


def family_of(messages: Conversation) -> str:
    """Family of a prompt: its first user turn, case and spacing evened out."""
    first = next((m.content for m in messages if m.role == "user"), "")
    return stable_id("family", " ".join(first.lower().split()))


def id_of(kind: str, messages: Conversation) -> str:
    """The id of a prompt or a demonstration."""
    return stable_id(kind, *(f"{m.role}\x1f{m.content}" for m in messages))


def response_id(prompt_id: str, text: str) -> str:
    """The id of an answer."""
    return stable_id("response", prompt_id, text)


def make_prompt(
    messages: Conversation, source: str, *, skill: str = "", extra: Mapping[str, Any] | None = None
) -> Prompt:
    """A prompt record."""
    return Prompt(
        id=id_of("prompt", messages),
        messages=messages,
        family=family_of(messages),
        skill=skill,
        source=source,
        extra=dict(extra or {}),
    )
