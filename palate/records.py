"""What crosses a file or function boundary: documents, messages, demonstrations, prompts, responses, judgements.

Frozen dataclasses with `to_json` / `from_json`. A key that a record does not know is refused, so that a misspelt
field in a file is an error and not a silent loss; what a foreign format holds beyond our fields goes into `extra`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from palate.errors import BadInput

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "dev", "test"]
CRITERIA = ("accuracy", "helpfulness", "safety", "clarity")
"""The four criteria people score an answer on, in the order used everywhere."""


class Record:
    """JSON both ways for a frozen dataclass. Nested `Message` tuples are handled by the classes that hold them."""

    def to_json(self) -> dict[str, Any]:
        """This record as JSON-ready values, every field present."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record held in `values`. Raises ValueError on a missing or unknown field."""
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} in a {cls.__name__}; it has {', '.join(known)}.")
        missing = [
            name
            for name, f in known.items()
            if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise ValueError(f"a {cls.__name__} needs the field {missing[0]!r}.")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Message(Record):
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise ValueError(f"a message's role is system, user or assistant, not {self.role!r}.")
        if not isinstance(self.content, str):
            raise ValueError(f"a message's content is text, not {type(self.content).__name__}.")


Conversation = tuple[Message, ...]


def conversation(*turns: str, system: str | None = None) -> Conversation:
    """Turns that alternate user, assistant, user, ... as a conversation.

    >>> [m.role for m in conversation("Hi", "Hello!", "Bye")]
    ['user', 'assistant', 'user']
    """
    opening = (Message(role="system", content=system),) if system is not None else ()
    roles: tuple[Role, Role] = ("user", "assistant")
    return opening + tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(turns))


def _messages(values: Iterable[Message | Mapping[str, Any]]) -> Conversation:
    return tuple(m if isinstance(m, Message) else Message.from_json(m) for m in values)


@dataclass(frozen=True, kw_only=True)
class Document(Record):
    """One text of the corpus with where it came from.

    source_kind: website | book | article | forum | paper | text. locator: file and position inside it.
    """

    id: str
    text: str
    source_kind: str
    locator: str
    title: str = ""
    url: str = ""
    language: str = ""
    licence: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Demonstration(Record):
    """A conversation whose assistant turns somebody wrote as an example to follow."""

    id: str
    messages: Conversation
    family: str
    """Prompts of one family (same skill and key) stay in one split, so that test prompts are never half seen."""
    skill: str = ""
    split: Split = "train"
    author: str = ""
    drafted_by: Literal["person", "model"] = "person"
    reviewer: str = ""
    status: str = "accepted"
    licence: str = ""
    simulated: bool = False
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", _messages(self.messages))
        if not self.messages or self.messages[-1].role != "assistant":
            raise ValueError(f"demonstration {self.id} must end with an assistant turn.")


@dataclass(frozen=True, kw_only=True)
class Prompt(Record):
    """What the assistant is asked. Ends with a user turn."""

    id: str
    messages: Conversation
    family: str
    skill: str = ""
    split: Split = "train"
    licence: str = ""
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", _messages(self.messages))
        if not self.messages or self.messages[-1].role != "user":
            raise ValueError(f"prompt {self.id} must end with a user turn.")


@dataclass(frozen=True, kw_only=True)
class Response(Record):
    """One answer to a prompt."""

    id: str
    prompt_id: str
    text: str
    token_ids: tuple[int, ...] = ()
    """The ids that were sampled, end marker included when there was one. Training uses these, never re-encoded text."""
    ended: bool = True
    origin: Literal["human", "model"] = "model"
    model: str = ""
    checkpoint: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", tuple(self.token_ids))


@dataclass(frozen=True, kw_only=True)
class Judgement(Record):
    """One annotator's order of the responses to one prompt. Append-only: a change of mind `supersedes` the old one.

    ranks: response id -> competition rank (1 is best; 1, 1, 3 is a tie at the top). Responses that are not in it were
    not ranked (top-k). criteria: response id -> criterion -> score in [1, 5].
    """

    id: str
    prompt_id: str
    annotator: str
    ranks: dict[str, int]
    criteria: dict[str, dict[str, float]] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    rewrite_of: str | None = None
    rewrite: str | None = None
    rationale: str = ""
    confidence: int | None = None
    seconds: float | None = None
    presented_order: tuple[str, ...] = ()
    touched: bool = True
    is_gold: bool = False
    guidelines_version: str = ""
    simulated: bool = False
    created_at: str = ""
    supersedes: str | None = None
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "presented_order", tuple(self.presented_order))
        for response, rank in self.ranks.items():
            if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
                raise ValueError(f"judgement {self.id}: the rank of {response} is {rank!r}; ranks are 1, 2, 3...")

    def dealt(self, rng: random.Random) -> Self:
        """The same judgement with its ranks dealt out at random among its answers; its ties stay."""
        names = rng.sample(list(self.ranks), len(self.ranks))
        return dataclasses.replace(self, ranks=dict(zip(names, self.ranks.values(), strict=True)))

    def pairs(self) -> list[tuple[str, str, float]]:
        """(a, b, target) for every two ranked responses; target is P(a is preferred): 1, 0, or 0.5 for a tie."""
        ranked = sorted(self.ranks)
        return [
            (a, b, 1.0 if self.ranks[a] < self.ranks[b] else 0.0 if self.ranks[a] > self.ranks[b] else 0.5)
            for i, a in enumerate(ranked)
            for b in ranked[i + 1 :]
        ]


def stable_id(*parts: str) -> str:
    """A short id that depends only on `parts`: 16 hexadecimal digits of their SHA-256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


R = TypeVar("R", bound=Record)


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write one JSON object per line (UTF-8, keys in field order); the number of lines is returned."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every line that is not blank. Raises BadInput naming file, line and mend."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                try:
                    value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    raise BadInput(
                        f"byte {error.start} of the line is not UTF-8.",
                        f"{path}:{number}",
                        "Save the file as UTF-8.",
                    ) from None
                except (json.JSONDecodeError, RecursionError):
                    raise BadInput(
                        "this line is not a JSON object (cut off, perhaps).",
                        f"{path}:{number}",
                        "Mend or delete the line.",
                    ) from None
                if not isinstance(value, dict):
                    raise BadInput(
                        f"expected a JSON object, found {type(value).__name__}.",
                        f"{path}:{number}",
                        "One object per line, please.",
                    )
                yield number, value
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except IsADirectoryError:
        raise BadInput("this is a folder.", path, "Name a JSONL file.") from None


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a file that `write_jsonl` wrote. Raises BadInput naming file and line."""
    for number, value in read_json_lines(path):
        try:
            yield kind.from_json(value)
        except (ValueError, TypeError) as error:
            raise BadInput(f"not a {kind.__name__}: {error}", f"{path}:{number}", "Mend or delete the line.") from None
