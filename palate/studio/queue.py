"""What is asked of people who rank, for those who lead: the campaign's settings, every prompt and how far it is, who
holds what, which orders are known to be right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from palate.errors import BadInput
from palate.feedback import asked, campaigns, care, exchange, items, people
from palate.feedback.campaigns import Settings
from palate.feedback.queue import Progress
from palate.records import Prompt
from palate.records import Response as Answer
from palate.studio import learned
from palate.studio.effects import Said
from palate.studio.here import Here, Lead, Studio
from palate.studio.pages import page
from palate.studio.rank import REASONS, pass_over
from palate.studio.wishes import upsets

router = APIRouter(tags=["queue"])

ON_A_PAGE = 25
MOST_UNRANKABLE = 100
"""How many of what people could not rank are listed, the newest ones."""
SHOWN = {
    "all": "all",
    "open": "need judgements",
    "begun": "begun",
    "enough": "have enough",
    "gold": "right order known",
    "upsetting": "may upset",
    "unrankable": "somebody could not rank",
}
Number = Annotated[int, Path(ge=0, le=2**31 - 1)]
"""An item, in addresses."""
Place = Annotated[str, Field(pattern=r"^[1-9][0-9]?$")]
"""An answer: its number on the page."""


def _bounded(name: str) -> Any:
    low, high = campaigns.BOUNDS[name]
    return Field(ge=low, le=high)


class Chosen(BaseModel):
    """A campaign's settings."""

    model_config = ConfigDict(extra="forbid")
    overlap: Annotated[int, _bounded("overlap")]
    """How many people judge each prompt."""
    lease_minutes: Annotated[int, _bounded("lease_minutes")]
    """How long a prompt is somebody's before another person may have it."""
    random_share: Annotated[float, _bounded("random_share")]
    """Share of prompts asked by chance, beside those the reward model is least sure of."""
    gold_share: Annotated[float, _bounded("gold_share")]
    """Share of what people see whose right order is known."""
    criteria: bool
    """Whether answers are scored on the four criteria, too."""
    review: bool
    """Whether a demonstration counts only when a second person accepted it."""
    topics: Annotated[str, Field(max_length=20_000)] | None = None
    """What may upset: in each line a topic, a colon and its words; null for the list that Palate comes with."""


class Counts(BaseModel):
    """How far the campaign is."""

    items: int
    enough: int
    begun: int
    held: int
    wanted: int
    given: int
    gold: int


class Line(BaseModel):
    """One prompt of the queue."""

    number: int
    messages: list[Said]
    arm: str
    """unsure (chosen because the reward model is) or random."""
    unsure: float | None
    """Mean entropy of the reward model's predictions about its pairs, 0 to 0.693 nats; null without one."""
    gold: bool
    given: int
    held: int
    unrankable: int
    topics: list[str]
    """What may upset in it."""


class Items(BaseModel):
    """Some lines of the queue, and how many there are of this kind."""

    total: int
    lines: list[Line]


class Whole(Line):
    """One prompt with its answers, numbered from 1, and the ranks that are known to be right."""

    answers: list[str]
    right: dict[str, int]


class Given(BaseModel):
    """What one annotator said of a prompt."""

    annotator: str
    simulated: bool
    ranks: dict[str, int]
    """An answer's number -> its rank; answers that were not ranked are not in it."""
    cannot_rank: str
    rationale: str
    flags: dict[str, list[str]]
    """An answer's number -> what it was flagged as."""
    seconds: float | None
    untouched: bool
    created_at: str


class Right(BaseModel):
    """The right order: an answer's number -> its rank, 1 is best, equal numbers are a tie."""

    model_config = ConfigDict(extra="forbid")
    ranks: Annotated[dict[Place, Annotated[int, Field(ge=1, le=99)]], Field(min_length=2, max_length=99)]


class Holding(BaseModel):
    """Who has which prompt in front of them."""

    lease: str
    annotator: str
    number: int
    """Of the item."""
    prompt: str
    created_at: float
    expires_at: float


class CouldNot(BaseModel):
    """What somebody could not rank."""

    number: int
    prompt: str
    annotator: str
    reason: str
    rationale: str
    created_at: str


# --- the work --------------------------------------------------------------------------------------------------------


def far(studio: Studio) -> Counts:
    """How far the campaign is."""
    told: Progress = studio.queue.progress(studio.settings, now=studio.now())
    return Counts(**vars(told), gold=len(studio.queue.gold()))


def decide(studio: Studio, name: str, chosen: Chosen) -> None:
    """Set the campaign's settings. Raises BadInput where its topics cannot be read."""
    known = care.topics(chosen.topics)
    others = chosen.topics != studio.settings.topics
    campaigns.decide(studio.store, studio.name, Settings(**chosen.model_dump()))
    if others:
        care.mark_again(studio.store, studio.campaign, chosen.topics)
    with studio.store.writing() as connection:
        people.note(
            connection,
            name,
            "set the campaign's settings",
            at=studio.now(),
            **chosen.model_dump() | {"topics": list(known)},
        )


def listed(studio: Studio, show: items.Show, find: str, start: int, count: int) -> Items:
    """Some lines of the queue."""
    total, rows = items.rows(
        studio.store,
        studio.campaign,
        studio.settings.overlap,
        show=show,
        find=find,
        start=start,
        count=count,
        now=studio.now(),
    )
    return Items(total=total, lines=[Line(**_line(row)) for row in rows])


def _line(row: items.Row) -> dict[str, Any]:
    return {
        "number": row.number,
        "messages": [Said(role=m.role, content=m.content) for m in row.prompt.messages],
        "arm": row.arm,
        "unsure": row.unsure,
        "gold": row.gold is not None,
        "given": row.given,
        "held": row.held,
        "unrankable": row.unrankable,
        "topics": row.topics,
    }


def whole(studio: Studio, number: int) -> Whole:
    """One item. 404 where there is none."""
    row = _found(studio, number)
    answers = _answers(studio, row.prompt)
    known = row.gold or {}
    right = {str(place): known[answer.id] for place, answer in enumerate(answers, start=1) if answer.id in known}
    return Whole(**_line(row), answers=[answer.text for answer in answers], right=right)


def given(studio: Studio, name: str, number: int) -> list[Given]:
    """What was said of one item, in the order it came. Who has seen it is no longer blind: it comes to that person only
    when nothing else is left. 404 where there is no such item."""
    row = _found(studio, number)
    places = {answer.id: str(place) for place, answer in enumerate(_answers(studio, row.prompt), start=1)}
    said = items.judged(studio.store, studio.campaign, row.prompt.id)
    if said:
        pass_over(studio, name, [row.prompt.id])
    return [
        Given(
            annotator=one.annotator,
            simulated=one.simulated,
            ranks={places[id_]: rank for id_, rank in one.ranks.items() if id_ in places},
            cannot_rank=one.cannot_rank,
            rationale=one.rationale,
            flags={places[id_]: flags for id_, flags in one.flags.items() if id_ in places and flags},
            seconds=one.seconds,
            untouched=bool(one.ranks) and not one.touched,
            created_at=one.created_at,
        )
        for one in said
    ]


def _found(studio: Studio, number: int) -> items.Row:
    row = items.row(studio.store, studio.campaign, number, now=studio.now())
    if row is None:
        raise HTTPException(404, "There is no such prompt in the queue; the run may have come to other answers.")
    return row


def _answers(studio: Studio, prompt: Prompt) -> list[Answer]:
    """What people are shown, in the order it came: by model and by place nobody can tell who wrote it."""
    given = studio.store.responses_to(prompt.id, studio.campaign)
    return asked.answers(one for one in given if "rewrite_of" not in one.extra).get(prompt.id, [])


def set_gold(studio: Studio, name: str, number: int, right: Right | None) -> None:
    """Say which order is right, or that it is not known any more. Raises BadInput, or 404."""
    row = _found(studio, number)
    ranks: dict[str, int] | None = None
    if right is not None:
        answers = {str(place): answer.id for place, answer in enumerate(_answers(studio, row.prompt), start=1)}
        for place in right.ranks:
            if place not in answers:
                raise BadInput(f"there is no answer {place}.", "order", f"They are numbered 1 to {len(answers)}.")
        if len(set(right.ranks.values())) < 2:
            raise BadInput("all of these are equal.", "order", "A right order has a better and a worse answer.")
        ranks = {
            answers[place]: 1 + sum(other < rank for other in right.ranks.values())
            for place, rank in right.ranks.items()
        }
    studio.queue.set_gold(row.prompt.id, ranks)
    with studio.store.writing() as connection:
        action = "said which order is right" if ranks else "took back which order is right"
        people.note(connection, name, action, at=studio.now(), campaign=studio.campaign, prompt=row.prompt.id)


def holding(studio: Studio) -> list[Holding]:
    """Who holds what, the first to be free first."""
    return [
        Holding(
            lease=lease.id,
            annotator=lease.annotator,
            number=number,
            prompt=prompt.messages[-1].content,
            created_at=lease.created_at,
            expires_at=lease.expires_at,
        )
        for lease, number, prompt in items.held(studio.store, studio.campaign, now=studio.now())
    ]


def free(studio: Studio, name: str, lease_id: str) -> None:
    """Let others have what somebody holds. 404 where nobody holds it (any more)."""
    lease = studio.queue.lease(lease_id)
    if lease is None or lease.expires_at <= studio.now():
        raise HTTPException(404, "Nobody holds this any more.")
    studio.queue.expire(lease_id, now=studio.now())
    with studio.store.writing() as connection:
        people.note(connection, name, "freed what somebody held", at=studio.now(), prompt=lease.prompt_id)


def could_not(studio: Studio) -> list[CouldNot]:
    """What people could not rank and why, the newest first."""
    return [
        CouldNot(
            number=one.number,
            prompt=one.prompt.messages[-1].content,
            annotator=one.annotator,
            reason=one.reason,
            rationale=one.rationale,
            created_at=one.created_at,
        )
        for one in items.unrankable(studio.store, studio.campaign, most=MOST_UNRANKABLE)
    ]


# --- the pages -------------------------------------------------------------------------------------------------------

Shown = Annotated[items.Show, Query()]
Find = Annotated[str, Query(max_length=200)]


@contextmanager
def _form() -> Iterator[None]:
    """What a form says that cannot be is for people to mend."""
    try:
        yield
    except ValueError as error:
        told = str(error).splitlines()
        raise BadInput(f"the form says something that cannot be ({told[0][:100]}).", "form", "Go back.") from None


@router.get("/queue", response_class=HTMLResponse, include_in_schema=False)
def show(
    request: Request,
    studio: Here,
    person: Lead,
    show: Shown = "all",
    find: Find = "",
    page_number: Annotated[int, Query(alias="page", ge=1, le=1_000_000)] = 1,
    kept: str = "",
) -> HTMLResponse:
    """The page."""
    found = listed(studio, show, find, (page_number - 1) * ON_A_PAGE, ON_A_PAGE)
    return page(
        request,
        "queue.html",
        far=far(studio),
        chosen=studio.settings,
        lines=found.lines,
        total=found.total,
        show=show,
        shown=SHOWN,
        find=find,
        number=page_number,
        pages=max(1, math.ceil(found.total / ON_A_PAGE)),
        holding=holding(studio),
        could_not=could_not(studio),
        reasons=REASONS,
        kept=kept,
        now=studio.now(),
        formats=exchange.FORMATS,
        most=exchange.MOST,
        has_run=studio.workspace is not None,
        arms=learned.arms(studio),
        topics=care.shipped() if studio.settings.topics is None else studio.settings.topics,
    )


def _topics(said: str) -> str | None:
    """A form's text; None where it is as it was shipped."""
    text = said.replace("\r\n", "\n").strip()
    return None if text == care.shipped().strip() else text


@router.post("/queue/settings", include_in_schema=False)
async def submit_settings(request: Request, studio: Here, person: Lead) -> Response:
    """The form."""
    form = await request.form(max_files=0, max_fields=20)
    values: dict[str, Any] = {name: form.get(name) for name in ("overlap", "lease_minutes")}
    with _form():
        values |= {name: float(str(form.get(name))) / 100 for name in ("random_share", "gold_share")}
        values |= {name: bool(form.get(name)) for name in ("criteria", "review")}
        said = form.get("topics")
        values["topics"] = _topics(said) if isinstance(said, str) else studio.settings.topics
        chosen = Chosen.model_validate(values)
    await run_in_threadpool(decide, studio, person.name, chosen)
    return RedirectResponse("/queue?kept=settings#settings", 303)


@router.post("/queue/free", include_in_schema=False)
def submit_free(studio: Here, person: Lead, lease: Annotated[str, Form(max_length=64)]) -> RedirectResponse:
    """The button beside what somebody holds."""
    free(studio, person.name, lease)
    return RedirectResponse("/queue?kept=free#held", 303)


@router.get("/queue/items/{number}", response_class=HTMLResponse, include_in_schema=False)
def show_item(request: Request, studio: Here, person: Lead, number: Number, kept: str = "") -> HTMLResponse:
    """One prompt, to say which order of its answers is right."""
    item = whole(studio, number)
    return page(
        request,
        "queue_item.html",
        item=item,
        given=given(studio, person.name, number),
        reasons=REASONS,
        upsets=upsets(studio, person.name, item.topics),
        overlap=studio.settings.overlap,
        kept=kept,
    )


@router.post("/queue/items/{number}", include_in_schema=False)
async def submit_item(request: Request, studio: Here, person: Lead, number: Number) -> Response:
    """The form."""
    form = await request.form(max_files=0, max_fields=120)
    right = None
    if form.get("do") != "unknown":
        ranks = {n: int(str(form[f"rank_{n}"])) for n in range(1, 100) if str(form.get(f"rank_{n}", "")).isdigit()}
        with _form():
            right = Right.model_validate({"ranks": {str(n): rank for n, rank in ranks.items()}})
    await run_in_threadpool(set_gold, studio, person.name, number, right)
    return RedirectResponse(f"/queue/items/{number}?kept=1", 303)


# --- for programs ----------------------------------------------------------------------------------------------------


@router.get("/api/v1/queue")
def get_far(studio: Here, person: Lead) -> Counts:
    """How far the campaign is. Gold items, which everybody gets, are counted by themselves."""
    return far(studio)


@router.get("/api/v1/queue/settings")
def get_settings(studio: Here, person: Lead) -> Chosen:
    """What was decided for the campaign."""
    return Chosen(**studio.settings.to_json())


@router.put("/api/v1/queue/settings")
def put_settings(chosen: Chosen, studio: Here, person: Lead) -> Chosen:
    """Decide for the campaign. What was judged stays as it is."""
    decide(studio, person.name, chosen)
    return chosen


@router.get("/api/v1/queue/items")
def get_items(
    studio: Here,
    person: Lead,
    show: Shown = "all",
    find: Find = "",
    start: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    count: Annotated[int, Query(ge=1, le=200)] = ON_A_PAGE,
) -> Items:
    """The queue in the order in which it was laid."""
    return listed(studio, show, find, start, count)


@router.get("/api/v1/queue/items/{number}")
def get_item(number: Number, studio: Here, person: Lead) -> Whole:
    """One prompt with its answers. Nothing says who wrote them."""
    return whole(studio, number)


@router.get("/api/v1/queue/items/{number}/judgements")
def get_item_judgements(number: Number, studio: Here, person: Lead) -> list[Given]:
    """What was said of one prompt; what was superseded or withdrawn is left out."""
    return given(studio, person.name, number)


@router.put("/api/v1/queue/items/{number}/gold", status_code=204)
def put_gold(number: Number, right: Right, studio: Here, person: Lead) -> Response:
    """Say which order is right. From then on everybody gets this prompt once, unmarked."""
    set_gold(studio, person.name, number, right)
    return Response(status_code=204)


@router.delete("/api/v1/queue/items/{number}/gold", status_code=204)
def delete_gold(number: Number, studio: Here, person: Lead) -> Response:
    """Say that the right order is not known; the prompt is asked like all others again."""
    set_gold(studio, person.name, number, None)
    return Response(status_code=204)


@router.get("/api/v1/queue/leases")
def get_leases(studio: Here, person: Lead) -> list[Holding]:
    """Who holds what."""
    return holding(studio)


@router.delete("/api/v1/queue/leases/{lease}", status_code=204)
def delete_lease(lease: Annotated[str, Path(max_length=64)], studio: Here, person: Lead) -> Response:
    """Let others have what somebody holds. What that person hands in later is kept all the same, marked late."""
    free(studio, person.name, lease)
    return Response(status_code=204)


@router.get("/api/v1/queue/unrankable")
def get_unrankable(studio: Here, person: Lead) -> list[CouldNot]:
    """What people could not rank and why, the newest first."""
    return could_not(studio)
