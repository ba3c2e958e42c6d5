"""People write what a good answer looks like: a prompt and its ideal answer, a whole conversation, or a prompt alone.

A model may draft the last answer. That it did is noted here when it begins, not told by the page: so the mark stays
whatever the page says.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput, PalateError
from palate.feedback import demonstrations
from palate.feedback.demonstrations import ACCEPTED, WAITING
from palate.feedback.words import family_of, make_prompt
from palate.records import Conversation, Demonstration, Message, Prompt, stable_id
from palate.studio import drafts
from palate.studio.answering import Stream
from palate.studio.desk import (
    MOST_TURNS,
    AtDesk,
    Desk,
    Id,
    Long,
    Progress,
    Seen,
    Told,
    Turn,
    Turns,
    changed,
    conversation_of,
    find,
    progress,
    reviewed,
    seen,
)
from palate.studio.here import Author, Here, Studio
from palate.studio.text import shown
from palate.studio.turns import Turn as Place
from palate.studio.wishes import avoided, topics_of

router = APIRouter(tags=["write"])
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")]
Skill = Annotated[str, Field(max_length=100)]
LISTED = 50
FAILED = "The model could not answer. The terminal in which the studio runs says more."
log = logging.getLogger(__name__)
TEMPERATURE = 0.7
"""Of drafts: a person wants a usable one, not a surprising one."""


class Written(BaseModel):
    """A conversation as an example: it ends with an answer."""

    model_config = ConfigDict(extra="forbid")
    messages: Turns
    skill: Skill = ""
    token: Token = ""
    """Yours to make up: what is handed in twice under the same one is stored once. A draft by a model goes with it."""
    supersedes: Id | None = None
    """The example of yours that this takes the place of."""


class Asking(BaseModel):
    """A prompt alone: it ends with what is asked."""

    model_config = ConfigDict(extra="forbid")
    messages: Turns
    skill: Skill = ""


class Kept(BaseModel):
    """What was stored."""

    id: str
    status: str
    new: bool
    """False: it was there already."""


class Hint(BaseModel):
    """An example that is like the one that is written."""

    id: str
    asked: float
    """Similarity of what the two ask, 0 to 1."""
    answered: float
    """Of what they answer."""
    prompt: str
    answer: str
    author: str
    status: str


class Hints(BaseModel):
    """What is like it."""

    same: str | None
    """The example that has the same words; it is refused for that."""
    near: list[Hint]


class Look(BaseModel):
    """What is being written, finished or not."""

    model_config = ConfigDict(extra="forbid")
    messages: Annotated[list[Turn], Field(max_length=MOST_TURNS)]
    supersedes: Id | None = None


class Texts(BaseModel):
    """Markdown."""

    model_config = ConfigDict(extra="forbid")
    texts: Annotated[list[Long], Field(max_length=MOST_TURNS)]


class Drafting(BaseModel):
    """What a model is to answer."""

    model_config = ConfigDict(extra="forbid")
    messages: Turns
    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """The one that the example will be handed in under."""


class Examples(BaseModel):
    """How far the writing is."""

    counts: int
    """A run may learn from so many."""
    waiting: int
    """So many wait for a second person."""
    wanted: int | None
    """A run waits for so many."""
    unanswered: int
    """Prompts without an answer."""


class Open(BaseModel):
    """A prompt without an answer."""

    id: str
    messages: list[Told]
    skill: str


# --- the work ----------------------------------------------------------------------------------------------------


def hand_in(studio: Studio, desk: Desk, name: str, written: Written) -> Kept:
    """Store an example. Raises BadInput where it is none, and HTTPException 409 where its words are there already."""
    messages = conversation_of(written.messages)
    if messages[-1].role != "assistant":
        raise BadInput("it does not end with an answer.", "example", "Write one, or keep it as a prompt only.")
    token = written.token or stable_id(written.supersedes or "", *(m.content for m in messages))
    id_ = stable_id("demonstration", name, token)
    before = find(desk, written.supersedes) if written.supersedes else None
    if before is not None and before.author != name:
        raise HTTPException(404, "There is no such example.")
    same = desk.alike.same(messages, besides=written.supersedes)
    if same is not None and same != id_:
        raise Same(same)
    record = Demonstration(
        id=id_,
        messages=messages,
        family=family_of(messages),
        skill=" ".join(written.skill.split()),
        author=name,
        status=WAITING if reviewed(studio) else ACCEPTED,
        guidelines_version=studio.guidelines.version,
        created_at=demonstrations.moment(studio.now()),
        supersedes=written.supersedes,
        source="studio",
        extra={"prompt_id": demonstrations.prompt_of(messages)},
    )
    record = _marked(studio, name, token, record, before)
    new = demonstrations.hand_in(studio.store, studio.writing, record)
    drafts.drop(studio, name, mark_key(token))
    standing = desk.shelf.standing().get(id_)
    return Kept(id=id_, status=standing.status if standing else record.status, new=new)


class Same(HTTPException):
    """The same words are there already."""

    def __init__(self, id_: str) -> None:
        super().__init__(409, f"Somebody has written the same, word for word: /write/{id_}")
        self.id = id_


def mark_key(token: str) -> str:
    """Under which a model's words are kept until the example they are for is handed in."""
    return f"model:{token}"


def _marked(
    studio: Studio, name: str, token: str, record: Demonstration, before: Demonstration | None
) -> Demonstration:
    """With what a model drafted of it, now or in the version before."""
    kept = drafts.read(studio, name, mark_key(token))
    told: dict[str, Any] | None = kept.content if kept else None
    if told is None and before is not None and before.drafted_by == "model":
        told = before.extra.get("draft") or {}
    if told is None:
        return record
    answers = (message.content for message in record.messages if message.role == "assistant")
    draft = {**told, "changed": min(changed(str(told.get("text", "")), answer) for answer in answers)}
    return dataclasses.replace(record, drafted_by="model", extra={**record.extra, "draft": draft})


def ask(studio: Studio, name: str, asking: Asking) -> Kept:
    """Store a prompt without an answer. Raises BadInput where it is none."""
    messages = conversation_of(asking.messages)
    if messages[-1].role != "user":
        raise BadInput("it ends with an answer.", "prompt", "Hand it in as an example.")
    prompt = make_prompt(messages, "studio", skill=" ".join(asking.skill.split()), extra={"author": name})
    if studio.store.prompt(prompt.id, studio.writing) is not None:
        return Kept(id=prompt.id, status="unanswered", new=False)
    studio.store.add_prompts([prompt], studio.writing)
    return Kept(id=prompt.id, status="unanswered", new=True)


def hints(desk: Desk, turns: list[Turn], besides: str | None) -> Hints:
    """What is like an example that is being written."""
    messages = tuple(Message(role=t.role, content=t.content) for t in turns)
    near = desk.alike.near(messages, besides=besides)
    records, standing = desk.shelf.records(one.id for one in near), desk.shelf.standing()
    return Hints(
        same=desk.alike.same(tuple(m for m in messages if m.content.strip()), besides=besides),
        near=[
            Hint(
                id=one.id,
                asked=round(one.asked, 2),
                answered=round(one.answered, 2),
                prompt=next((m.content for m in records[one.id].messages if m.role == "user"), ""),
                answer=records[one.id].messages[-1].content,
                author=records[one.id].author,
                status=standing[one.id].status,
            )
            for one in near
            if one.id in records and one.id in standing
        ],
    )


def unanswered(studio: Studio, desk: Desk, name: str, most: int) -> tuple[list[Prompt], int]:
    """The oldest prompts without an answer, none of what this person does not want to see; and how many there are."""
    ids, avoid = desk.shelf.unanswered(), set(avoided(studio, name))
    found = (prompt for id_ in ids if (prompt := studio.store.prompt(id_, studio.writing)) is not None)
    wanted = (prompt for prompt in found if not (avoid and avoid & {*topics_of(studio, _words(prompt))}))
    return list(itertools.islice(wanted, most)), len(ids)


def _words(prompt: Prompt) -> list[str]:
    return [message.content for message in prompt.messages]


# --- drafts by a model ---------------------------------------------------------------------------------------------


def to_answer(studio: Studio, turns: list[Turn]) -> Conversation:
    """What a model is to answer. Raises HTTPException 409 where there is no model, and BadInput."""
    if studio.speaker is None or not studio.speaker.names:
        raise HTTPException(409, "This studio has no model that could draft an answer. Open it on a run that has one.")
    messages = conversation_of(turns)
    if messages[-1].role != "user":
        raise BadInput("there is nothing to answer.", "conversation", "End it with a prompt.")
    return messages


def draft(
    studio: Studio, name: str, messages: Conversation, token: str, place: Place, tell: Callable[[dict[str, Any]], None]
) -> str:
    """A model's answer, told piece by piece. From its first piece on what is handed in under this token was drafted by
    a model, also when somebody stops it. Raises BadInput where the conversation is too long for it."""
    assert studio.speaker is not None
    model, text = studio.speaker.names[0], ""
    mark = {"model": model, "checkpoint": studio.speaker.checkpoint(model)}
    said = studio.speaker.say(model, messages, temperature=TEMPERATURE, seed=studio.rng.getrandbits(31))
    try:
        for piece in said:
            if not text:
                drafts.keep(studio, name, mark_key(token), {**mark, "text": piece})
            text += piece
            tell({"text": piece})
            if place.stopped.is_set():
                break
    finally:
        said.close()
        if text:
            drafts.keep(studio, name, mark_key(token), {**mark, "text": text})
    return text


@router.post("/api/v1/demonstrations/draft", response_class=StreamingResponse)
def post_draft(wish: Drafting, studio: Here, person: Author) -> StreamingResponse:
    """Let a model draft the answer to a conversation, as Server-Sent Events: {"waiting": how many come first}, {"text":
    a piece of it}, {"error": what went wrong}, and [DONE]. One at a time for each person; 409 while one is made."""
    messages = to_answer(studio, wish.messages)
    place = studio.turns.begin(person.name)

    def work(tell: Callable[[dict[str, Any]], None]) -> None:
        try:
            if studio.turns.wait(place, lambda before: tell({"waiting": before})):
                draft(studio, person.name, messages, wish.token, place, tell)
        except Exception as error:  # whoever waits is told, whatever it was
            if not isinstance(error, PalateError):
                log.error("a model could not draft an answer", exc_info=error)
            tell({"error": str(error) if isinstance(error, PalateError) else FAILED})

    return Stream(studio, place, {"token": wish.token}, work)


@router.delete("/api/v1/demonstrations/draft/{token}", status_code=204)
def delete_draft(token: Annotated[str, Path(max_length=64)], studio: Here, person: Author) -> Response:
    """Take a model's draft out again, before anything of it is handed in."""
    drafts.drop(studio, person.name, mark_key(token))
    return Response(status_code=204)


# --- for programs --------------------------------------------------------------------------------------------------


@router.get("/api/v1/demonstrations")
def get_mine(
    studio: Here,
    desk: AtDesk,
    person: Author,
    status: Literal["", "waiting", "accepted", "returned", "rejected", "withdrawn"] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = LISTED,
    skip: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
) -> list[Seen]:
    """Your examples that stand, the newest first."""
    mine = [one.id for one in desk.shelf.of(person.name) if status in ("", one.status)][skip : skip + limit]
    review = studio.settings.review
    records, standing = desk.shelf.records(mine), desk.shelf.standing()
    return [seen(records[id_], standing, review=review) for id_ in mine if id_ in records]


@router.get("/api/v1/demonstrations/progress")
def get_progress(studio: Here, desk: AtDesk, person: Author) -> Examples:
    """How far the writing is."""
    now: Progress = progress(studio, desk)
    return Examples(
        counts=now.counts, waiting=now.waiting, wanted=now.wanted, unanswered=len(desk.shelf.unanswered())
    )  # fmt: skip


@router.get("/api/v1/demonstrations/{id_}")
def get_one(id_: str, studio: Here, desk: AtDesk, person: Author) -> Seen:
    """One example of this studio."""
    review = studio.settings.review
    return seen(find(desk, id_), desk.shelf.standing(), review=review)


@router.post("/api/v1/demonstrations", status_code=201)
def post_demonstration(written: Written, studio: Here, desk: AtDesk, person: Author) -> Kept:
    """Hand in an example, or a new version of one of yours. 409 where somebody has written the same words."""
    return hand_in(studio, desk, person.name, written)


@router.delete("/api/v1/demonstrations/{id_}", status_code=204)
def delete_demonstration(id_: str, studio: Here, person: Author) -> Response:
    """Take one of yours back; it stays in the store and counts no longer."""
    demonstrations.withdraw(studio.store, studio.writing, id_, author=person.name, now=studio.now())
    return Response(status_code=204)


@router.post("/api/v1/demonstrations/alike")
def post_alike(look: Look, desk: AtDesk, person: Author) -> Hints:
    """Which examples are like one that is being written."""
    return hints(desk, look.messages, look.supersedes)


@router.post("/api/v1/demonstrations/preview")
def post_preview(told: Texts, person: Author) -> list[str]:
    """Markdown as the HTML that is shown of it: harmless whatever stands in it."""
    return [str(shown(text)) if text.strip() else "" for text in told.texts]


@router.get("/api/v1/prompts")
def get_prompts(
    studio: Here, desk: AtDesk, person: Author, limit: Annotated[int, Query(ge=1, le=500)] = LISTED
) -> list[Open]:
    """Prompts that nobody has answered, the oldest first."""
    return [
        Open(id=p.id, messages=[Told(role=m.role, content=m.content) for m in p.messages], skill=p.skill)
        for p in unanswered(studio, desk, person.name, limit)[0]
    ]


@router.post("/api/v1/prompts", status_code=201)
def post_prompt(asking: Asking, studio: Here, person: Author) -> Kept:
    """Store a prompt without an answer."""
    return ask(studio, person.name, asking)
