"""The pages on which people write: the list of what is theirs, and the form, which works without scripts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from palate.errors import BadInput
from palate.feedback import care, demonstrations
from palate.feedback.demonstrations import ACCEPTED, Standing
from palate.records import Conversation, Demonstration, Prompt, stable_id
from palate.studio import drafts
from palate.studio.desk import MOST_TURNS, SAID, AtDesk, Desk, Turn, find, progress, reviewed, seen
from palate.studio.here import Author, Here, Studio
from palate.studio.pages import page
from palate.studio.wishes import topics_of
from palate.studio.write import (
    LISTED,
    Asking,
    Same,
    Written,
    ask,
    draft,
    hand_in,
    hints,
    mark_key,
    to_answer,
    unanswered,
)

router = APIRouter(include_in_schema=False)
OFFERED = 10
"""Prompts without an answer on a page."""


@dataclass
class Composed:
    """What is in the form."""

    token: str = ""
    system: str = ""
    exchanges: list[tuple[str, str]] = field(default_factory=lambda: [("", "")])
    """What is asked, and the answer."""
    skill: str = ""
    supersedes: str = ""
    prompt: str = ""
    """The id of the prompt that is answered."""
    slot: int = 1
    """Of new ones somebody may have several begun."""

    @property
    def key(self) -> str:
        """Under which it is kept while it is not handed in."""
        if self.supersedes:
            return f"write:{stable_id(self.supersedes)}"
        if self.prompt:
            return f"write:answer-{stable_id(self.prompt)}"
        return "write:new" if self.slot == 1 else f"write:new-{self.slot}"

    @property
    def address(self) -> str:
        """The page it is written on."""
        if self.supersedes:
            return f"/write/{quote(self.supersedes, safe='')}"
        if self.prompt:
            return f"/write/new?prompt={quote(self.prompt, safe='')}"
        return "/write/new" if self.slot == 1 else f"/write/new?slot={self.slot}"

    def turns(self) -> list[Turn]:
        """As a conversation; an empty answer at the end is none."""
        found = [Turn(role="system", content=self.system)] if self.system.strip() else []
        for asked, answer in self.exchanges:
            found += [Turn(role="user", content=asked), Turn(role="assistant", content=answer)]
        if found and not found[-1].content.strip():
            found.pop()
        return found

    def to_json(self) -> dict[str, Any]:
        """As a draft is kept."""
        exchanges = [{"ask": asked, "answer": answer} for asked, answer in self.exchanges]
        return {"token": self.token, "system": self.system, "skill": self.skill, "exchanges": exchanges,
                "supersedes": self.supersedes, "prompt": self.prompt, "slot": self.slot}  # fmt: skip

    def take(self, content: dict[str, Any]) -> None:
        """What a draft holds of these; a page of another version may have kept something else."""
        for name in ("token", "system", "skill"):
            if isinstance(content.get(name), str):
                setattr(self, name, content[name])
        told = content.get("exchanges")
        if isinstance(told, list) and told and all(isinstance(one, dict) for one in told):
            self.exchanges = [(str(one.get("ask", "")), str(one.get("answer", ""))) for one in told[:MOST_TURNS]]

    @property
    def words(self) -> str:
        """The beginning of what was written, for a list; empty where nothing was."""
        written = (text for one in self.exchanges for text in one)
        return next((text.strip() for text in (*written, self.system) if text.strip()), "")[:200]


def _split(messages: Conversation) -> tuple[str, list[tuple[str, str]]]:
    """(system message, exchanges). Raises BadInput for a conversation that does not take turns."""
    system = messages[0].content if messages[0].role == "system" else ""
    spoken = messages[1:] if messages[0].role == "system" else messages
    if [m.role for m in spoken] != [("user", "assistant")[n % 2] for n in range(len(spoken))]:
        raise BadInput("the user and the assistant do not alternate in it.", "example", "It can only be read here.")
    texts = [m.content for m in spoken] + [""] * (len(spoken) % 2)
    return system, list(zip(texts[::2], texts[1::2], strict=True))


@router.get("/write", response_class=HTMLResponse)
def show(request: Request, studio: Here, desk: AtDesk, person: Author, kept: str = "", before: int = 0) -> HTMLResponse:
    """A person's own examples. kept: what was just stored; before: list older ones than this number."""
    mine = [one for one in desk.shelf.of(person.name) if not before or one.number < before]
    listed = sorted(mine[:LISTED], key=lambda one: one.status != "returned")
    records = desk.shelf.records(one.id for one in listed)
    prompts, open_ = unanswered(studio, desk, person.name, OFFERED)
    cover = care.wishes(studio.store, person.name).cover
    return page(
        request,
        "write.html",
        mine=[(one, records[one.id], _first(records[one.id])) for one in listed if one.id in records],
        older=mine[LISTED - 1].number if len(mine) > LISTED else 0,
        before=before,
        begun=_begun(studio, person.name),
        prompts=[(prompt, prompt.messages[-1].content, cover and _topics(studio, prompt)) for prompt in prompts],
        unanswered=open_,
        progress=progress(studio, desk),
        to_review=len(desk.shelf.waiting(person.name)),
        reviewed=reviewed(studio),
        kept=_kept(studio, desk, kept),
        said=SAID,
    )


def _topics(studio: Studio, prompt: Prompt) -> str:
    return ", ".join(topics_of(studio, [message.content for message in prompt.messages]))


def _first(record: Demonstration) -> str:
    return next((m.content for m in record.messages if m.role == "user"), "")


def _kept(studio: Studio, desk: Desk, id_: str) -> str:
    """What to say of what was just stored."""
    if not id_:
        return ""
    if id_ in ("prompt", "back"):
        return {"prompt": "The prompt is stored. Others may answer it.", "back": "You have taken it back."}[id_]
    one = desk.shelf.standing().get(id_)
    if one is None:
        return ""
    return "It is stored, and it counts." if one.status == ACCEPTED else "It is stored, and waits for a second person."


def _begun(studio: Studio, name: str) -> list[tuple[Composed, str]]:
    """(what somebody is in the middle of, its first words)."""
    found = []
    for kept in drafts.begun(studio, name, "write:").values():
        content = kept.content
        slot = content.get("slot")
        composed = Composed(
            supersedes=str(content.get("supersedes") or ""),
            prompt=str(content.get("prompt") or ""),
            slot=slot if isinstance(slot, int) else 1,
        )
        composed.take(content)
        if composed.words:
            found.append((composed, composed.words))
    return found


@router.get("/write/new", response_class=HTMLResponse)
def show_new(
    request: Request,
    studio: Here,
    desk: AtDesk,
    person: Author,
    prompt: Annotated[str, Query(max_length=64)] = "",
    slot: Annotated[int, Query(ge=1, le=99)] = 1,
) -> HTMLResponse:
    """A new one. prompt: the prompt it answers; slot: which of several that are begun."""
    composed = Composed(token=secrets.token_hex(12), prompt=prompt, slot=slot)
    if prompt:
        asked = studio.store.prompt(prompt, studio.writing)
        if asked is None:
            raise HTTPException(404, "There is no such prompt.")
        composed.system, composed.exchanges = _split(asked.messages)
        composed.skill = asked.skill
    return _compose(request, studio, desk, person.name, composed, restore=True)


def _compose(
    request: Request,
    studio: Studio,
    desk: Desk,
    name: str,
    composed: Composed,
    *,
    restore: bool = False,
    looked: bool = False,
    wrong: str = "",
    same: str = "",
    before: Standing | None = None,
) -> HTMLResponse:
    """The form. restore: with what was kept of it; looked: with what is like it and how it reads; before: what it is a
    new version of."""
    kept = drafts.read(studio, name, composed.key) if restore else None
    if kept:
        composed.take(kept.content)
    slots = {one.slot for one, _ in _begun(studio, name) if not (one.supersedes or one.prompt)}
    mark = drafts.read(studio, name, mark_key(composed.token))
    return page(
        request,
        "write_one.html",
        status=422 if wrong else 200,
        composed=composed,
        restored=bool(kept) and bool(composed.words),
        wrong=wrong,
        same=same,
        before=before,
        can_draft=studio.speaker is not None and bool(studio.speaker.names),
        draft=str(mark.content.get("text", "")) if mark else _draft(desk, composed.supersedes),
        reviewed=reviewed(studio),
        skills=desk.shelf.skills()[:50],
        hints=hints(desk, composed.turns(), composed.supersedes or None) if looked or same else None,
        looked=looked,
        another=next(n for n in range(1, 100) if n not in slots | {composed.slot}),
        said=SAID,
    )


def _drafted(studio: Studio, name: str, composed: Composed) -> None:
    """A model's draft at once, for browsers without scripts."""
    turns = composed.turns()
    messages = to_answer(studio, turns[:-1] if turns and turns[-1].role == "assistant" else turns)
    with studio.turns.turn(name) as place:
        text = draft(studio, name, messages, composed.token, place, lambda event: None)
    composed.exchanges[-1] = (composed.exchanges[-1][0], text)


def _draft(desk: Desk, id_: str) -> str | None:
    """The model's words that a version began with; None where a person began it."""
    record = desk.shelf.records([id_]).get(id_) if id_ else None
    if record is None or record.drafted_by != "model":
        return None
    return str((record.extra.get("draft") or {}).get("text", ""))


async def _fields(request: Request) -> dict[str, str]:
    """A form's fields, read before the work begins in a thread."""
    form = await request.form()
    return {name: value.replace("\r\n", "\n") for name, value in form.items() if isinstance(value, str)}


Fields = Annotated[dict[str, str], Depends(_fields)]


@router.post("/write", response_class=HTMLResponse)
def submit(request: Request, studio: Here, desk: AtDesk, person: Author, fields: Fields) -> Response:
    """The form, from browsers without scripts: `do` is the button that was pressed."""
    composed = _from_form(fields)
    do, _, place = fields.get("do", "").partition("-")
    if do == "discard":
        drafts.drop(studio, person.name, composed.key)
        drafts.drop(studio, person.name, mark_key(composed.token))
        return RedirectResponse("/write", 303)
    _arrange(composed, do, int(place) if place.isdigit() else 0)
    drafts.keep(studio, person.name, composed.key, composed.to_json())
    before = desk.shelf.standing().get(composed.supersedes)
    try:
        if do == "draft":
            _drafted(studio, person.name, composed)
        if do in ("hand", "prompt"):
            return _stored(studio, desk, person.name, composed, alone=do == "prompt")
    except Same as error:
        return _compose(request, studio, desk, person.name, composed, wrong="same", same=error.id, before=before)
    except (BadInput, ValueError) as error:
        told = error if isinstance(error, BadInput) else "a text is too long."
        return _compose(request, studio, desk, person.name, composed, wrong=str(told), before=before)
    return _compose(request, studio, desk, person.name, composed, looked=do == "look", before=before)


def _stored(studio: Studio, desk: Desk, name: str, composed: Composed, *, alone: bool) -> Response:
    turns = composed.turns()
    if alone:
        ask(studio, name, Asking(messages=turns, skill=composed.skill))
        told = "prompt"
    else:
        told = hand_in(
            studio,
            desk,
            name,
            Written(messages=turns, skill=composed.skill, token=composed.token, supersedes=composed.supersedes or None),
        ).id
    drafts.drop(studio, name, composed.key)
    return RedirectResponse(f"/write?kept={told}", 303)


def _from_form(fields: dict[str, str]) -> Composed:
    numbers = sorted(int(name[4:]) for name in fields if name.startswith("ask_") and name[4:].isdecimal())
    return Composed(
        token=fields.get("token", ""),
        system=fields.get("system", ""),
        exchanges=[(fields[f"ask_{n}"], fields.get(f"answer_{n}", "")) for n in numbers[: MOST_TURNS // 2]]
        or [("", "")],
        skill=fields.get("skill", "")[:100],
        supersedes=fields.get("supersedes", ""),
        prompt=fields.get("prompt", ""),
        slot=int(fields["slot"]) if fields.get("slot", "").isdecimal() else 1,
    )


def _arrange(composed: Composed, do: str, place: int) -> None:
    """Add, remove or move an exchange; `place` counts from 1."""
    turns, here = composed.exchanges, place - 1
    if do == "add":
        turns.append(("", ""))
    elif do == "remove" and 0 <= here < len(turns) and len(turns) > 1:
        del turns[here]
    elif do in ("up", "down"):
        there = here + (-1 if do == "up" else 1)
        if 0 <= here < len(turns) and 0 <= there < len(turns):
            turns[here], turns[there] = turns[there], turns[here]


@router.post("/write/back")
def submit_back(studio: Here, person: Author, fields: Fields) -> Response:
    """Take one's own back; a form."""
    demonstrations.withdraw(studio.store, studio.writing, fields.get("id", ""), author=person.name, now=studio.now())
    return RedirectResponse("/write?kept=back", 303)


@router.get("/write/{id_:path}", response_class=HTMLResponse)
def show_one(request: Request, studio: Here, desk: AtDesk, person: Author, id_: str) -> HTMLResponse:
    """One example: one's own to change, somebody else's to read."""
    record = find(desk, id_)
    now = desk.shelf.standing().get(id_)
    if record.author == person.name and now is not None:
        try:
            system, exchanges = _split(record.messages)
        except BadInput:
            pass
        else:
            composed = Composed(secrets.token_hex(12), system, exchanges, record.skill, supersedes=id_)
            return _compose(request, studio, desk, person.name, composed, restore=True, before=now)
    review = studio.settings.review
    one = seen(record, desk.shelf.standing(), review=review)
    return page(request, "write_read.html", one=one, said=SAID, mine=record.author == person.name)
