"""A pile of records: what was read from a file, or what is to be written, with what was left out and why.

What a row holds that has no field of ours is in the `extra` of its records, flat, and under FORM what the format needs
to write the row again: its name, and where the row was not written as the format usually is.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from palate.feedback.exchange.turns import Left
from palate.feedback.words import family_of
from palate.records import Conversation, Demonstration, Judgement, Prompt, Response, stable_id

FORM = "palate_format"
Extra = dict[str, Any]
Any_ = Demonstration | Prompt | Response | Judgement
R = TypeVar("R", Demonstration, Prompt, Response, Judgement)


def remembered(name: str, left: Mapping[str, Any] | None = None, *, always: bool = False, **details: Any) -> Extra:
    """The `extra` of a record that was read from the format `name`: what is `left` of its row, and details. Details
    that are None or empty are not kept; the name alone is kept where it must be known (`always`)."""
    if left and FORM in left:
        raise ValueError(f"the key {FORM} is kept for Palate")
    told = {key: value for key, value in details.items() if value not in (None, {}, [], "")}
    return {**(left or {}), FORM: {"name": name, **told}} if left or told or always else {}


def details(record: Any_, name: str) -> Extra:
    """What the format `name` noted of this record; nothing when the record came another way."""
    told = record.extra.get(FORM, {})
    return told if told.get("name") == name else {}


def left_of(record: Any_, name: str) -> Extra:
    """What a row of the format `name` held that has no field of ours; nothing when the record came another way."""
    return {key: value for key, value in record.extra.items() if key != FORM} if details(record, name) else {}


def who(judgement: Judgement) -> str:
    """Who gave it; empty where its file named nobody."""
    return "" if judgement.annotator == f"file:{judgement.source}" else judgement.annotator


def from_file(record: Any_) -> bool:
    """Whether a record was read from a foreign file."""
    return FORM in record.extra


@dataclass
class Pile:
    """Records by id, in the order of their rows. `dropped`: rows left out, by reason; `noted`: what else is told."""

    source: str = ""
    prompts: dict[str, Prompt] = field(default_factory=dict)
    responses: dict[str, Response] = field(default_factory=dict)
    judgements: dict[str, Judgement] = field(default_factory=dict)
    demonstrations: dict[str, Demonstration] = field(default_factory=dict)
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    _answers: dict[str, dict[str, Response]] = field(default_factory=dict, init=False)
    _seen: Counter[str] = field(default_factory=Counter, init=False)

    # --- reading -----------------------------------------------------------------------------------------------------

    def demonstrate(self, messages: Conversation, extra: Extra, *, skill: str = "") -> None:
        """Add a demonstration; a row that stands twice is two. Raises Left where nothing is asked or answered."""
        if not messages[-1].content.strip():
            raise Left("an empty answer")
        if not any(message.content.strip() for message in messages[:-1]):
            raise Left("an empty question")
        family, told = family_of(messages), skill or _skill(extra)
        record = self.named(
            Demonstration(id="", messages=messages, family=family, skill=told, source=self.source, extra=extra),
            again=True,
        )
        self.demonstrations[record.id] = record

    def ask(self, messages: Conversation, extra: Extra, *, again: bool = False, skill: str = "") -> Prompt:
        """Add a prompt. The same one twice is one, unless `again`: then each row is its own."""
        family, told = family_of(messages), skill or _skill(extra)
        record = self.named(
            Prompt(id="", messages=messages, family=family, skill=told, source=self.source, extra=extra), again=again
        )
        return self.prompts.setdefault(record.id, record)

    def answer(
        self,
        prompt: Prompt,
        text: str,
        extra: Extra | None = None,
        *,
        origin: Literal["human", "model"] = "human",
        model: str = "",
        again: bool = False,
    ) -> Response:
        """Add an answer. The same one twice is one, unless `again`."""
        record = Response(id="", prompt_id=prompt.id, text=text, origin=origin, model=model, extra=extra or {})
        return self.add_response(self.named(record, again=again))

    def judge(
        self, prompt: Prompt, ranked: Sequence[tuple[Response, int]], extra: Extra, *, annotator: str = "", **more: Any
    ) -> Judgement:
        """Add a judgement; a row that stands twice is two. Who gave it is the file where nobody is named."""
        record = Judgement(
            id="",
            prompt_id=prompt.id,
            annotator=annotator or self.nobody,
            ranks={response.id: rank for response, rank in ranked},
            source=self.source,
            extra=extra,
            **more,
        )
        record = self.named(record, again=True)
        self.judgements[record.id] = record
        return record

    @property
    def nobody(self) -> str:
        """Whose a judgement is when the file names nobody."""
        return f"file:{self.source}"

    def add_response(self, response: Response) -> Response:
        """Add an answer as it is."""
        self._answers.setdefault(response.prompt_id, {}).setdefault(response.id, response)
        return self.responses.setdefault(response.id, response)

    def named(self, record: R, *, again: bool) -> R:
        """The record with its id, which depends on the file alone. again: the same one later in it is another."""
        id_ = stable_id(type(record).__name__.lower(), json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True))
        if again:
            self._seen[id_] += 1
            id_ = id_ if self._seen[id_] == 1 else stable_id(id_, str(self._seen[id_]))
        return dataclasses.replace(record, id=id_)

    # --- writing -----------------------------------------------------------------------------------------------------

    def answers(self, prompt_id: str) -> list[Response]:
        """The answers to a prompt, in order."""
        return list(self._answers.get(prompt_id, {}).values())

    def judged(self) -> dict[str, list[Judgement]]:
        """Prompt id -> its judgements, in order."""
        found: dict[str, list[Judgement]] = {}
        for judgement in self.judgements.values():
            found.setdefault(judgement.prompt_id, []).append(judgement)
        return found

    def shown(self, judgement: Judgement, name: str) -> list[Response]:
        """The answers a judgement is about. Of a row that was read: those in the row, in its order; otherwise those
        that the person saw, in the order of the prompt."""
        if noted := details(judgement, name):
            return [self.responses[id_] for id_ in noted.get("answers", judgement.ranks)]
        seen = judgement.presented_order or judgement.ranks
        return [response for response in self.answers(judgement.prompt_id) if response.id in seen]

    def pairs(self) -> Iterator[tuple[Judgement, Prompt, Response, Response]]:
        """(judgement, prompt, better, worse) of every two ranked answers; a rewritten answer beats the one it is of.
        Ties are counted and left out."""
        for judgement in self.judgements.values():
            prompt = self.prompts[judgement.prompt_id]
            if not judgement.ranks:
                self.dropped["a judgement that orders nothing"] += 1
            ranked = sorted(judgement.ranks.items(), key=lambda item: item[1])
            for number, (better, rank) in enumerate(ranked):
                for worse, below in ranked[number + 1 :]:
                    if rank == below:
                        self.dropped["a tie, which a pair cannot say"] += 1
                    else:
                        yield judgement, prompt, self.responses[better], self.responses[worse]
            if judgement.rewrite and judgement.rewrite_of:
                edited = Response(id="", prompt_id=prompt.id, text=judgement.rewrite, origin="human")
                yield judgement, prompt, edited, self.responses[judgement.rewrite_of]


def _skill(extra: Extra) -> str:
    """What a row says of the skill that it is about."""
    return next((extra[key] for key in ("category", "skill") if isinstance(extra.get(key), str)), "")
