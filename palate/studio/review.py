"""A second person looks at what somebody wrote: accepts it, returns it with a comment, rejects it, or mends it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput
from palate.feedback import care, demonstrations
from palate.feedback.demonstrations import Standing, next_to_review
from palate.records import stable_id
from palate.studio import drafts
from palate.studio.compose import Fields
from palate.studio.desk import (
    SAID,
    AtDesk,
    Desk,
    Id,
    Seen,
    Turn,
    Turns,
    conversation_of,
    find,
    progress,
    reviewed,
    seen,
)
from palate.studio.here import Author, Here, Studio
from palate.studio.pages import page
from palate.studio.wishes import avoided, topics_of, upsets

router = APIRouter(tags=["review"])
Said = Literal["accepted", "returned", "rejected"]
VERDICTS: dict[str, Said] = {
    "accepted": "accepted",
    "mended": "accepted",
    "returned": "returned",
    "rejected": "rejected",
}
"""A button -> what it says."""
Comment = Annotated[str, Field(max_length=10_000)]


class Verdict(BaseModel):
    """What you think of somebody else's example."""

    model_config = ConfigDict(extra="forbid")
    demonstration: Id
    verdict: Said
    comment: Comment = ""
    """What the author is told; nothing is returned or rejected without it."""
    messages: Turns | None = None
    """With "accepted": its turns as you would have them. They become a version of their own, which names you both."""


class Reviewed(BaseModel):
    """What was stored."""

    id: str
    """Of the example it holds for: a new one where you mended it."""
    status: str


class Left(BaseModel):
    """What waits."""

    waiting: int
    """For anybody."""
    for_you: int
    """Written by others."""


def judge(studio: Studio, desk: Desk, name: str, verdict: Verdict) -> Reviewed:
    """Store a review. Raises BadInput."""
    mended = conversation_of(verdict.messages) if verdict.messages is not None else None
    if mended is not None and mended[-1].role != "assistant":
        raise BadInput("it does not end with an answer.", "example", "Leave the last answer in it.")
    id_ = demonstrations.review(
        studio.store,
        studio.writing,
        verdict.demonstration,
        reviewer=name,
        verdict=verdict.verdict,
        comment=verdict.comment,
        now=studio.now(),
        mended=mended,
    )
    drafts.drop(studio, name, draft_key(verdict.demonstration))
    return Reviewed(id=id_, status=verdict.verdict)


def draft_key(id_: str) -> str:
    """Under which a comment is kept that is not said yet."""
    return f"review:{stable_id(id_)}"


def _next(studio: Studio, desk: Desk, name: str, after: int = 0) -> Standing | None:
    """What this person is given next, and nothing of what they do not want to see."""
    besides: set[str] = set()
    if avoid := set(avoided(studio, name)):
        records = desk.shelf.records(one.id for one in desk.shelf.waiting(name))
        besides = {
            id_ for id_, record in records.items() if avoid & {*topics_of(studio, [m.content for m in record.messages])}
        }
    return next_to_review(desk.shelf, name, now=studio.now(), after=after, besides=besides)


def _seen(desk: Desk, id_: str) -> Seen:
    return seen(find(desk, id_), desk.shelf.standing(), review=True)


# --- pages ---------------------------------------------------------------------------------------------------------


@router.get("/review", response_class=HTMLResponse, include_in_schema=False)
def show(
    request: Request,
    studio: Here,
    desk: AtDesk,
    person: Author,
    after: Annotated[int, Query(ge=0)] = 0,
    done: str = "",
    last: str = "",
) -> HTMLResponse:
    """The next one. after: pass over those up to this number; done, last: what was said of the one before."""
    found = _next(studio, desk, person.name, after)
    left, told = len(desk.shelf.waiting(person.name)), SAID.get(done, "")
    if found is None:
        far = progress(studio, desk)
        return page(
            request, "review_done.html", progress=far, reviewed=reviewed(studio), done=told, last=last, left=left
        )
    return _page(request, studio, person.name, _seen(desk, found.id), left, number=found.number, done=told, last=last)


@router.get("/review/{id_:path}", response_class=HTMLResponse, include_in_schema=False)
def show_one(request: Request, studio: Here, desk: AtDesk, person: Author, id_: str) -> HTMLResponse:
    """One that one names, also to change what one said of it."""
    one = _seen(desk, id_)
    if one.author == person.name:
        raise HTTPException(403, "This is your own. Somebody else has to look at it.")
    if one.status == "superseded":
        raise HTTPException(404, "There is a newer version of this example.")
    return _page(request, studio, person.name, one, len(desk.shelf.waiting(person.name)))


def _page(
    request: Request,
    studio: Studio,
    name: str,
    one: Seen,
    left: int,
    *,
    number: int = 0,
    done: str = "",
    last: str = "",
    wrong: str = "",
    comment: str = "",
) -> HTMLResponse:
    topics = topics_of(studio, [turn.content for turn in one.messages])
    if topics:
        care.expose(studio.store, name, studio.writing, one.id, now=studio.now())
    return page(
        request,
        "review.html",
        status=422 if wrong else 200,
        one=one,
        upsets=upsets(studio, name, topics),
        key=draft_key(one.id),
        wrong=wrong,
        comment=comment,
        said=SAID,
        left=left,
        number=number,
        done=done,
        last=last,
    )


@router.post("/review", response_class=HTMLResponse, include_in_schema=False)
def submit(request: Request, studio: Here, desk: AtDesk, person: Author, fields: Fields) -> Response:
    """The form, from browsers without scripts: `do` is the button that was pressed."""
    do, id_ = fields.get("do", ""), fields.get("demonstration", "")
    if do == "skip":
        number = fields.get("number", "")
        return RedirectResponse(f"/review?after={number if number.isdecimal() else 0}", 303)
    one, comment = _seen(desk, id_), fields.get("comment", "")
    verdict = VERDICTS.get(do)
    if verdict is None:
        raise BadInput("no button was pressed.", "form", "Go back, and accept, return or reject it.")
    try:
        given = Verdict(
            demonstration=id_,
            verdict=verdict,
            comment=comment,
            messages=_mended(one, fields) if do == "mended" else None,
        )
        told = judge(studio, desk, person.name, given)
    except (BadInput, ValueError) as error:
        wrong = str(error) if isinstance(error, BadInput) else "a text is too long."
        left = len(desk.shelf.waiting(person.name))
        return _page(request, studio, person.name, one, left, wrong=wrong, comment=comment)
    return RedirectResponse(f"/review?done={verdict}&last={told.id}", 303)


def _mended(one: Seen, fields: dict[str, str]) -> list[Turn]:
    """Its turns as the form has them. Raises ValueError where one is too long."""
    said = [{"role": t.role, "content": fields.get(f"turn_{n}", t.content)} for n, t in enumerate(one.messages)]
    return [Turn.model_validate(turn) for turn in said]


# --- for programs --------------------------------------------------------------------------------------------------


@router.get("/api/v1/reviews")
def get_left(desk: AtDesk, person: Author) -> Left:
    """How many examples wait for a second person."""
    return Left(waiting=desk.shelf.tally()["waiting"], for_you=len(desk.shelf.waiting(person.name)))


@router.post("/api/v1/reviews/next")
def post_next(studio: Here, desk: AtDesk, person: Author) -> Seen | None:
    """The oldest example that somebody else wrote and that waits, shown to nobody else for ten minutes; null when there
    is none."""
    found = _next(studio, desk, person.name)
    return _seen(desk, found.id) if found is not None else None


@router.post("/api/v1/reviews", status_code=201)
def post_review(verdict: Verdict, studio: Here, desk: AtDesk, person: Author) -> Reviewed:
    """Say what you think of one. The last thing said of an example counts."""
    return judge(studio, desk, person.name, verdict)
