"""What crosses a file or function boundary: documents, messages, demonstrations, prompts, responses, judgements.

Frozen dataclasses with `to_json` / `from_json`. A key that a record does not know is refused, so that a misspelt
field in a file is an error and not a silent loss; what a foreign format holds beyond our fields goes into `extra`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from palate.errors import BadInput

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "dev", "test"]
CRITERIA = ("accuracy", "helpfulness", "safety", "clarity")
"""The four criteria people score an answer on, in the order used everywhere."""


class Record:
    """JSON both ways for a frozen dataclass. Nested `Message` tuples are handled by the classes that hold them."""

    def to_json(self) -> dict[str, Any]:
        """This record as JSON-ready values, every field present."""
        return {name: _plain(getattr(self, name)) for name in _kinds(type(self))}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The record held in `values`. Raises ValueError on a missing or unknown field, or one of another type."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a {cls.__name__} is an object, not {_brief(values)}.")
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
        for name, fits in _kinds(cls).items():  # type: ignore[arg-type]
            if name in values and not fits(values[name]):
                raise ValueError(f"the field {name!r} of a {cls.__name__} cannot be {_brief(values[name])}.")
        return cls(**values)


PLAIN = (str, int, bool, type(None))
NUMBERS_AND_TEXT = {*PLAIN, float}


@functools.cache
def _kinds(record: type[Record]) -> dict[str, Callable[[Any], bool]]:
    """Of each field whether a value read from JSON is of its type."""
    return {name: _fits(kind) for name, kind in get_type_hints(record).items()}


@functools.cache
def _fits(kind: Any) -> Callable[[Any], bool]:
    """Whether a value read from JSON is of the annotated type; nothing is converted on the way."""
    of = get_origin(kind)
    inside = get_args(kind) if of is Literal else tuple(map(_fits, filter(_a_type, get_args(kind))))
    if kind is Any:
        return lambda value: True
    if kind is float:
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    if kind in PLAIN:
        return lambda value: type(value) is kind
    if of is Literal:
        return lambda value: isinstance(value, str) and value in inside
    if of is dict:
        key, held = inside
        return lambda value: isinstance(value, dict) and all(key(k) and held(v) for k, v in value.items())
    if of in (tuple, list):
        if (plain := get_args(kind)[0]) in PLAIN:  # thousands of token ids
            return lambda value: isinstance(value, list | tuple) and set(map(type, value)) <= {plain}
        return lambda value: isinstance(value, list | tuple) and all(map(inside[0], value))
    if of is types.UnionType:
        return lambda value: any(one(value) for one in inside)
    return lambda value: isinstance(value, kind | Mapping)  # a message, which checks itself


def _a_type(kind: Any) -> bool:
    return kind is not Ellipsis  # of tuple[int, ...]


def _plain(value: Any) -> Any:
    """As JSON has it. `dataclasses.asdict` copies every token id by itself."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(value if set(map(type, value)) <= NUMBERS_AND_TEXT else map(_plain, value))
    return value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


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
    guidelines_version: str = ""
    created_at: str = ""
    supersedes: str | None = None
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
    cannot_rank: str = ""
    """Why these answers cannot be ordered; `ranks` is empty then."""
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
        for response, scores in self.criteria.items():
            for name, score in scores.items():
                if not 1 <= score <= 5:
                    raise ValueError(f"judgement {self.id}: {name} of {response} is {score!r}; scores are 1 to 5")

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


DEEPEST = 100
"""Levels of nesting in a line: thirty turns of an Open-Assistant tree are 60. Deeper ones are made to break readers."""


def json_value(raw: bytes, where: str | Path) -> Any:
    """What one JSON text holds. Raises BadInput, also for what no other program could be given again: half of a
    surrogate pair, NaN and infinity, or nesting beyond DEEPEST."""

    def refused(name: str) -> None:
        raise BadInput(f"{name} is no number of JSON.", where, "Put a number or null there.")

    mend = "Mend or delete it."
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=refused)
        if raw.count(b"[") + raw.count(b"{") > DEEPEST and _depth(value) > DEEPEST:
            raise BadInput(f"this is nested more than {DEEPEST} levels deep.", where, mend)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} is not UTF-8.", where, "Save it as UTF-8.") from None
    except UnicodeEncodeError:
        raise BadInput("it holds half of a character (a lone \\ud8.. or \\udc.. escape).", where, mend) from None
    except RecursionError:
        raise BadInput("this is nested too deep to be read.", where, mend) from None
    except ValueError:
        raise BadInput("this is not a JSON object (cut off, perhaps).", where, mend) from None
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level := [v for x in level if isinstance(x, dict | list) for v in (x.values() if isinstance(x, dict) else x)]:
        depth += 1
    return depth


def json_lines(lines: Iterable[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every line that is not blank. Raises BadInput naming file and line."""
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        value = json_value(raw, f"{path}:{number}")
        if not isinstance(value, dict):
            raise BadInput(
                f"expected a JSON object, found {type(value).__name__}.", f"{path}:{number}", "Write one a line."
            )
        yield number, value


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """`json_lines` of a file. Raises BadInput when it cannot be opened, too."""
    try:
        with path.open("rb") as file:
            yield from json_lines(file, path)
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}).", path, "Check the path.") from None


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """The records of a file that `write_jsonl` wrote. Raises BadInput naming file and line."""
    for number, value in read_json_lines(path):
        try:
            yield kind.from_json(value)
        except (ValueError, TypeError) as error:
            told = str(error).rstrip(".")
            raise BadInput(f"not a {kind.__name__}: {told}.", f"{path}:{number}", "Mend or delete the line.") from None
