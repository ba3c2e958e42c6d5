"""Between a file that a recipe names and a run: records that are called by their words, so that what two files say is
one, and without what is needed to write their rows again. Palate's own lines hold records, which stay as they are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate import metrics
from palate.errors import BadInput
from palate.feedback import exchange, words
from palate.feedback.exchange import conversations
from palate.feedback.exchange.pile import FORM, Any_, Extra, Pile, R
from palate.feedback.exchange.turns import Left, competition
from palate.records import Conversation, Demonstration, Judgement, Prompt, Response, stable_id

OURS = "palate"


@dataclass(frozen=True)
class Taken:
    """What a run takes from a file. `left_out`: how many of its rows or records it does not, by reason."""

    form: str
    rows: int
    left_out: Counter[str]
    demonstrations: tuple[Demonstration, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    responses: tuple[Response, ...] = ()
    judgements: tuple[Judgement, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For a report: how the file was read."""
        return {"format": self.form, "rows": self.rows, "left_out": dict(self.left_out)}


def demonstrations(path: Path) -> Taken:
    """The demonstrations of a file that count. Raises BadInput with file and line, and where there is none."""
    pile = _Spoken(source=path.name)
    form = exchange.read_into(pile, path, wanted="demonstrations")
    accepted = list(conversations.demonstrations(pile))
    gone = {record.supersedes for record in pile.demonstrations.values()}
    found = tuple(record for record in accepted if record.id not in gone)
    if form == OURS:  # whose records may name their families in another way
        found = tuple(dataclasses.replace(record, family=words.family_of(record.messages)) for record in found)
    _count(pile, "a demonstration that was written again", len(accepted) - len(found))
    _count(pile, "a prompt, which shows no answer", len(pile.prompts))
    return _taken(path, form, pile, "demonstrations", demonstrations=found)


def prompts(path: Path) -> Taken:
    """The prompts of a file, those that its demonstrations answer among them. Raises BadInput as `demonstrations`."""
    pile = _Asked(source=path.name)
    form = exchange.read_into(pile, path, wanted="prompts")
    if form == OURS:
        for prompt in list(pile.prompts.values()):
            pile.ask(prompt.messages, prompt.extra, skill=prompt.skill)
        for record in conversations.demonstrations(pile):
            pile.demonstrate(record.messages, record.extra, skill=record.skill)
    return _taken(path, form, pile, "prompts", prompts=tuple(pile.each))


def rankings(path: Path) -> Taken:
    """The judgements of a file that count, with the prompts they are about and the answers they name. Raises BadInput
    as `demonstrations`."""
    pile = _Spoken(source=path.name)
    form = exchange.read_into(pile, path, wanted="rankings")
    _count(pile, "a demonstration, which ranks nothing", len(pile.demonstrations))
    gone = {judgement.supersedes for judgement in pile.judgements.values()}
    standing = [judgement for judgement in pile.judgements.values() if judgement.id not in gone]
    _count(pile, "a judgement that another took the place of", len(pile.judgements) - len(standing))
    found = tuple(j for j in standing if len(j.ranks) > 1 or j.criteria or j.rewrite)
    _count(pile, "a judgement that orders nothing", len(standing) - len(found))
    about = {judgement.prompt_id for judgement in found}
    named = {id_ for judgement in found for id_ in (*judgement.ranks, *judgement.criteria)}
    _count(pile, "a prompt that nobody ranked", len(pile.prompts) - len(about))
    return _taken(
        path,
        form,
        pile,
        "rankings",
        prompts=tuple(prompt for prompt in pile.prompts.values() if prompt.id in about),
        responses=tuple(
            response
            for response in pile.responses.values()
            if response.id in named or (form == OURS and response.prompt_id in about)
        ),
        judgements=found,
    )


def _count(pile: Pile, reason: str, count: int) -> None:
    if count:
        pile.dropped[reason] += count


def _taken(path: Path, form: str, pile: Pile, what: str, **records: Any) -> Taken:
    if not any(records.values()):
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in pile.dropped.most_common(3))
        told = f"none of its {pile.rows:,} rows ({form}) holds {what}" + (f": {reasons}" if reasons else "")
        raise BadInput(f"{told}.", path, "Name a file that does, or mend this one.")
    for reason, count in pile.dropped.most_common():
        metrics.say(f"      {path.name}: left out: {reason} ({count:,})")
    for note, count in pile.noted.most_common():
        metrics.say(f"      {path.name}: {note} ({count:,})")
    return Taken(form, pile.rows, pile.dropped, **records)


# --- piles -----------------------------------------------------------------------------------------------------------


class _Spoken(Pile):
    """Records that are called by their words."""

    def named(self, record: R, *, again: bool) -> R:
        """The record with its id and without how its row was written."""
        left = {key: value for key, value in record.extra.items() if key != FORM}
        return dataclasses.replace(record, id=_id(record), extra=left)

    def judge(
        self, prompt: Prompt, ranked: Sequence[tuple[Response, int]], extra: Extra, *, annotator: str = "", **more: Any
    ) -> Judgement:
        """Add a judgement. An answer that stands twice has the better of its places."""
        best: dict[str, int] = {}
        for response, rank in ranked:
            best[response.id] = min(rank, best.get(response.id, rank))
        answers = {response.id: response for response, _ in ranked}
        places = competition(list(best.values()))
        return super().judge(prompt, list(zip(answers.values(), places)), extra, annotator=annotator, **more)


@dataclass
class _Asked(_Spoken):
    """Of every demonstration what was asked, so that no answer is kept."""

    each: list[Prompt] = field(default_factory=list)
    """The prompt of every row: what stands beside the same words need not be the same."""

    def named(self, record: R, *, again: bool) -> R:
        """The same, and prompts are noted."""
        found = super().named(record, again=again)
        if isinstance(found, Prompt):
            self.each.append(found)
        return found

    def demonstrate(self, messages: Conversation, extra: Extra, *, skill: str = "") -> None:
        """Add the prompt that the last turn answers. Raises Left where there is none."""
        if not any(message.content.strip() for message in messages[:-1]):
            raise Left("an empty question")
        self.ask(messages[:-1], extra, skill=skill)


def _id(record: Any_) -> str:
    match record:
        case Demonstration():
            return words.id_of("demonstration", record.messages)
        case Prompt():
            return words.id_of("prompt", record.messages)
        case Response():
            return words.response_id(record.prompt_id, record.text)
        case Judgement():
            ranked = (f"{id_} {rank}" for id_, rank in record.ranks.items())
            return stable_id("judgement", record.source, record.prompt_id, record.annotator, *ranked)
