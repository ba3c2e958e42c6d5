"""What rows of several formats hold: turns with what stands beside them, and transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from palate.records import Conversation, Message, Role

ROLES = {"human": "user", "gpt": "assistant", "prompter": "user", "bot": "assistant"}
"""What others call the two who talk -> what we call them."""


class Left(ValueError):
    """A row is whole and holds nothing that we could use. The message is the reason it is counted under."""


Row = Mapping[str, Any]


def text_of(row: Row, key: str) -> str:
    """The text under a key. Raises ValueError."""
    if not isinstance(row.get(key), str):
        raise ValueError(f"{key} is no text")
    return str(row[key])


@dataclass(frozen=True)
class Turn:
    """One message, and what its file holds of it that a message has no field for: `role` (spelt otherwise), `keys`
    (more keys of the object), `space` (white space around the text of a transcript)."""

    message: Message
    beside: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, role: str, content: str, **beside: Any) -> Turn:
        """A turn; what is None or empty does not stand beside it. Raises Left for a role that we do not have."""
        ours = ROLES.get(role, role)
        if ours not in ("system", "user", "assistant"):
            raise Left(f"a turn of the role {role[:20]!r}")
        told = {key: value for key, value in beside.items() if value}
        if ours != role:
            told["role"] = role
        return cls(Message(role=cast(Role, ours), content=content), told)


def read_turns(value: Any, role: str = "role", content: str = "content") -> list[Turn]:
    """The turns in a list of objects. Raises ValueError, and Left for pictures, calls of tools and their like."""
    if not isinstance(value, list) or not value:
        raise ValueError("there is no message in it")
    found = []
    for turn in value:
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role), str):
            raise ValueError(f"a message is an object with {role} and {content}")
        said = turn.get(content)
        if content in turn and (said is None or isinstance(said, list)):
            raise Left("a turn that is no text")
        if not isinstance(said, str):
            raise ValueError(f"{content} is no text")
        found.append(Turn.of(turn[role], said, keys={k: v for k, v in turn.items() if k not in (role, content)}))
    return found


def write_turns(
    turns: Sequence[Turn], role: str = "role", content: str = "content", names: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """What `read_turns` read. names: our role -> how the format spells it where nothing else is known."""
    return [
        {
            role: turn.beside.get("role", (names or {}).get(turn.message.role, turn.message.role)),
            content: turn.message.content,
            **turn.beside.get("keys", {}),
        }
        for turn in turns
    ]


def messages_of(turns: Sequence[Turn]) -> Conversation:
    """The messages alone."""
    return tuple(turn.message for turn in turns)


def beside_of(turns: Sequence[Turn]) -> dict[str, Any]:
    """What stands beside the messages, by their number."""
    return {str(number): turn.beside for number, turn in enumerate(turns) if turn.beside}


def together(messages: Sequence[Message], beside: Mapping[str, Any]) -> list[Turn]:
    """Turns again."""
    return [Turn(message, beside.get(str(number), {})) for number, message in enumerate(messages)]


# --- transcripts -----------------------------------------------------------------------------------------------------

MARK = re.compile(r"\n\n(Human|Assistant):")
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def read_transcript(text: str) -> list[Turn]:
    """The turns of an HH-RLHF transcript ("\\n\\nHuman: ...\\n\\nAssistant: ..."), white space around them apart."""
    parts = MARK.split(text)
    if len(parts) < 3:
        raise ValueError('it has no "\\n\\nHuman:" turn')
    if parts[0].strip():
        raise Left("text before the first turn of a transcript")
    turns = []
    for number, (who, said) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        content = said.strip()
        before = said[: len(said) - len(said.lstrip())] if content else said
        after = said[len(before) + len(content) :]
        space = [before, after] if (before, after) != (" ", "") else []
        opening = parts[0] if number == 0 else ""
        role = "user" if who == "Human" else "assistant"
        turns.append(Turn.of(role, content, space=space, opening=opening))
    return turns


def write_transcript(turns: Sequence[Turn]) -> str:
    """What `read_transcript` read. White space around a turn is written, and will be read as none of its text. Raises
    Left for turns that such a text cannot hold."""
    text = ""
    for turn in turns:
        if turn.message.role not in SPEAKERS:
            raise Left("a system message")
        before, after = turn.beside.get("space", (" ", ""))
        opening = turn.beside.get("opening", "")
        text += f"{opening}\n\n{SPEAKERS[turn.message.role]}:{before}{turn.message.content}{after}"
    told = [(turn.message.role, turn.message.content) for turn in read_transcript(text)]
    if told != [(turn.message.role, turn.message.content.strip()) for turn in turns]:
        raise Left('"\\n\\nHuman:" or "\\n\\nAssistant:" inside a turn, which would be read as a new turn')
    return text


def parting(liked: Sequence[Turn], other: Sequence[Turn]) -> int:
    """The number of the first turn in which two conversations differ: there are the two answers that were compared.

    Raises Left when nobody compared two answers there.
    """
    pairs = list(zip(liked, other))
    found = next((n for n, (a, b) in enumerate(pairs) if a.message != b.message), None)
    if found is None:
        longer = len(liked) != len(other)
        raise Left("one conversation is the beginning of the other" if longer else "both answers are the same")
    ours, theirs = pairs[found][0].message, pairs[found][1].message
    if ours.role != "assistant" or theirs.role != "assistant":
        raise Left("they part in what the person said, which nobody compared")
    if found == 0 or liked[found - 1].message.role != "user":
        raise Left("no question stands before the answers")
    if ours.content.strip() == theirs.content.strip():
        raise Left("both answers are the same")
    if any(a.beside != b.beside for a, b in pairs[:found]):
        raise Left("the turns before the answers are written in two ways")
    return found


def competition(values: Sequence[float]) -> list[int]:
    """Competition ranks (1, 1, 3) of values of which the smallest is best."""
    return [1 + sum(other < value for other in values) for value in values]
