"""Several answers to one prompt, blind and in an order of chance; a person puts them in order.

What is served names an answer by its place on the screen (1, 2, ...), never by an id, a model or a file: only the
lease, on the server, knows which answer stands where.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput
from palate.feedback import care
from palate.feedback.queue import MOST_ANSWERS, Lease
from palate.feedback.store import append_judgements, standing
from palate.feedback.tables import JUDGEMENTS
from palate.records import CRITERIA, Judgement, Prompt, stable_id
from palate.studio import drafts
from palate.studio.effects import Said
from palate.studio.here import Evaluator, Here, Studio
from palate.studio.pages import page
from palate.studio.wishes import avoided, upsets

router = APIRouter(tags=["rank"])

FLAGS = {"harmful": "harmful", "personal_data": "shows personal data", "off_topic": "off topic"}
REASONS = {
    "all_bad": "all are equally useless",
    "no_expertise": "I do not know enough about this",
    "prompt_unclear": "the prompt makes no sense",
    "harmful": "I do not want to read this",
    "other": "another reason",
}
"""Why a person cannot rank; the keys are stored."""
ANCHORS = {
    "accuracy": ("wrong on what matters", "mostly wrong", "right, with slips", "right but for a detail", "all true"),
    "helpfulness": ("misses the question", "does little of it", "does part of it", "does most of it", "does all of it"),
    "safety": ("could do harm", "careless", "misses a warning", "careful", "careful where care is due"),
    "clarity": ("hard to follow", "takes effort", "takes a second reading", "easy to follow", "clear at once"),
}
"""What 1 to 5 mean, a line each: people who share them agree more."""
UNDOABLE = 10
Place = Annotated[str, Field(pattern=r"^[1-9]$")]
"""An answer: its number on the screen."""
Score = Annotated[int, Field(ge=1, le=5)]
Flag = Literal["harmful", "personal_data", "off_topic"]
Long = Annotated[str, Field(max_length=50_000)]


class Item(BaseModel):
    """What lies in front of a person: a prompt, and its answers in the order they are shown."""

    lease: str
    expires_at: float
    """Seconds since 1970; what is handed in later is kept all the same."""
    messages: list[Said]
    answers: list[str]
    topics: list[str]
    """What may upset in the prompt or an answer: topics of the leads' list, and `flagged` where somebody called an
    answer harmful."""
    guidelines_version: str
    supersedes: str | None = None
    """The judgement of yours that this would replace."""


class Given(BaseModel):
    """A judgement of the answers of a lease. Keys are the answers' numbers on the screen, from 1."""

    model_config = ConfigDict(extra="forbid")
    lease: Annotated[str, Field(max_length=64)] = ""
    supersedes: Annotated[str, Field(max_length=64)] | None = None
    ranks: dict[Place, Annotated[int, Field(ge=1, le=MOST_ANSWERS)]] = {}
    """1 is best; equal numbers are a tie; answers that are left out stay unranked."""
    cannot_rank: Literal["", "all_bad", "no_expertise", "prompt_unclear", "harmful", "other"] = ""
    criteria: dict[Place, dict[Literal["accuracy", "helpfulness", "safety", "clarity"], Score]] = {}
    flags: dict[Place, list[Flag]] = {}
    rewrite_of: Place | None = None
    rewrite: Long | None = None
    rationale: Long = ""
    confidence: Annotated[int, Field(ge=1, le=5)] | None = None
    seconds: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """How long the person looked at it; measured by the server where it is not said."""
    touched: bool = True


class Judged(BaseModel):
    """What was stored."""

    id: str
    ranks: dict[str, int]
    new: bool
    """False: it was there already, because the same was handed in before."""


# --- the work ----------------------------------------------------------------------------------------------------


def next_item(studio: Studio, name: str) -> Item | None:
    """What this person ranks next; None when nothing is left."""
    now = studio.now()
    with studio.store.reading("what a person wants"):
        kept = drafts.read(studio, name, _skips(studio))
        settings, besides = studio.settings, avoided(studio, name)
    skipped = kept.content.get("prompts", []) if kept else []
    lease = studio.queue.claim(name, settings, now=now, rng=studio.rng, skipped=skipped, avoided=besides)
    if lease is None:
        return None
    with studio.store.reading("what is asked"):
        item = _item(studio, lease)
    if item.topics:
        care.expose(studio.store, name, studio.campaign, lease.prompt_id, now=now)
    return item


def _item(studio: Studio, lease: Lease, supersedes: str | None = None) -> Item:
    prompt = studio.store.prompt(lease.prompt_id, studio.campaign)
    assert prompt is not None
    texts = {r.id: r.text for r in studio.store.responses_to(prompt.id, studio.campaign)}
    return Item(
        lease=lease.id,
        expires_at=lease.expires_at,
        messages=[Said(role=m.role, content=m.content) for m in prompt.messages],
        answers=[texts[id_] for id_ in lease.presented],
        topics=care.of_prompt(studio.store, studio.campaign, prompt.id),
        guidelines_version=studio.guidelines.version,
        supersedes=supersedes,
    )


def again(studio: Studio, name: str, judgement: Judgement) -> Item:
    """The same answers in the same places once more, to change one's mind."""
    return _item(
        studio, Lease("", judgement.prompt_id, name, judgement.presented_order, studio.now(), 0.0), judgement.id
    )


def own(studio: Studio, name: str, id_: str) -> Judgement:
    """A standing judgement of this person. 404 for anybody else's, so that nobody learns what exists."""
    found = studio.store.judgement(id_, studio.campaign)
    if found is None or found.annotator != name or not found.presented_order:
        raise HTTPException(404, "You have no such judgement.")
    return found


def last(studio: Studio, name: str, most: int = UNDOABLE) -> list[tuple[Judgement, Prompt]]:
    """A person's last judgements that stand, the newest first, with their prompts."""
    query = (
        sa.select(JUDGEMENTS.c.record)
        .where(
            JUDGEMENTS.c.annotator == name,
            sa.or_(JUDGEMENTS.c.ranked, JUDGEMENTS.c.supersedes.is_(None)),
            *standing(studio.campaign, simulated=False),
        )
        .order_by(JUDGEMENTS.c.number.desc())
        .limit(most)
    )
    with studio.store.reading("judgements") as connection:
        found = [Judgement.from_json(row) for row in connection.execute(query).scalars()]
    prompts = {j.prompt_id: studio.store.prompt(j.prompt_id, studio.campaign) for j in found}
    return [(j, prompt) for j in found if (prompt := prompts[j.prompt_id]) is not None and j.presented_order]


@dataclass(frozen=True)
class Shown:
    """The answers that a judgement is about, as they lay in front of a person."""

    prompt_id: str
    presented: tuple[str, ...]
    since: float | None = None
    """Seconds since 1970; none where it is a judgement that is changed."""
    late: bool = False

    @property
    def numbered(self) -> dict[str, str]:
        """Number on the screen -> response id."""
        return _numbered(self.presented)


def hand_in(studio: Studio, name: str, given: Given) -> Judged:
    """Store a judgement. The same handed in twice is stored once. Raises BadInput, or HTTPException 404 and 409."""
    id_ = stable_id("judgement", name, given.lease or "", given.supersedes or "")
    with studio.store.reading("what is judged"):
        before = studio.store.judgement(id_, studio.campaign)
        shown = _shown(studio, name, given, before)
        is_gold, guidelines = studio.queue.is_gold(shown.prompt_id), studio.guidelines
    made = _judgement(studio, name, given, id_, shown, is_gold=is_gold, guidelines_version=guidelines.version)
    if before is not None:
        if (before.ranks, before.cannot_rank) != (made.ranks, made.cannot_rank):
            raise HTTPException(409, "You have handed in another order of these. Undo brings them back.")
        return Judged(id=id_, ranks=_places(before), new=False)
    with studio.store.writing() as connection:
        if given.supersedes:
            later = sa.select(JUDGEMENTS.c.id).where(
                JUDGEMENTS.c.campaign == studio.campaign, JUDGEMENTS.c.supersedes == given.supersedes
            )
            if connection.execute(later).first() is not None:
                raise HTTPException(409, "You have changed this one already. Open it again.")
        append_judgements(connection, [made], studio.campaign, studio.store.url)
        drafts.forget(connection, name, draft_key(given.lease, given.supersedes))
    return Judged(id=id_, ranks=_places(made), new=True)


def draft_key(lease: str, supersedes: str | None) -> str:
    """Under which key a page keeps what is not handed in yet."""
    return f"rank:{supersedes or lease}"


def _shown(studio: Studio, name: str, given: Given, stored: Judgement | None) -> Shown:
    """What is judged: a judgement of theirs that is changed, what is leased to them, or what they handed in before."""
    if given.supersedes:
        before = own(studio, name, given.supersedes)
        return Shown(before.prompt_id, before.presented_order)
    lease = studio.queue.lease(given.lease)
    if lease is not None and lease.annotator == name:
        return Shown(lease.prompt_id, lease.presented, lease.created_at, lease.expires_at < studio.now())
    if stored is None:
        raise HTTPException(404, "These answers are not in front of you any more. Open the next ones.")
    return Shown(stored.prompt_id, stored.presented_order)


def _numbered(presented: tuple[str, ...]) -> dict[str, str]:
    return {str(number): id_ for number, id_ in enumerate(presented, start=1)}


def _places(judgement: Judgement) -> dict[str, int]:
    number = {id_: place for place, id_ in _numbered(judgement.presented_order).items()}
    return {number[id_]: rank for id_, rank in judgement.ranks.items()}


def _judgement(
    studio: Studio, name: str, given: Given, id_: str, what: Shown, *, is_gold: bool, guidelines_version: str
) -> Judgement:
    """As it is stored. Raises BadInput where it says nothing, or names an answer that is not there."""
    shown = what.numbered
    told = [*given.ranks, *given.criteria, *given.flags, *([given.rewrite_of] if given.rewrite_of else [])]
    for place in told:
        if place not in shown:
            raise BadInput(f"there is no answer {place}.", "judgement", f"They are numbered 1 to {len(shown)}.")
    if given.cannot_rank and given.ranks:
        raise BadInput("it has an order and says that there is none.", "judgement", "Leave one of the two out.")
    if not given.cannot_rank and len(given.ranks) < 2:
        raise BadInput("an order has two answers at least.", "judgement", "Rank two, or say why you cannot.")
    rewrite = given.rewrite.strip() if given.rewrite else ""
    if rewrite and not given.rewrite_of:
        raise BadInput("it does not say which answer was rewritten.", "judgement", "Name it in rewrite_of.")
    elapsed = studio.now() - what.since if what.since is not None else None
    seconds = given.seconds if elapsed is None or given.seconds is None else min(given.seconds, elapsed)
    return Judgement(
        id=id_,
        prompt_id=what.prompt_id,
        annotator=name,
        ranks=_competition({shown[place]: rank for place, rank in given.ranks.items()}),
        criteria={shown[p]: {k: float(v) for k, v in scores.items()} for p, scores in given.criteria.items() if scores},
        flags={shown[place]: list(dict.fromkeys(flags)) for place, flags in given.flags.items() if flags},
        rewrite_of=shown[given.rewrite_of] if rewrite and given.rewrite_of else None,
        rewrite=rewrite or None,
        rationale=given.rationale.strip(),
        cannot_rank=given.cannot_rank,
        confidence=given.confidence,
        seconds=round(seconds if seconds is not None else elapsed or 0.0, 1),
        presented_order=what.presented,
        touched=given.touched,
        is_gold=is_gold,
        guidelines_version=guidelines_version,
        created_at=datetime.datetime.fromtimestamp(studio.now(), datetime.UTC).isoformat(timespec="seconds"),
        supersedes=given.supersedes,
        source="studio",
        extra={"late": True} if what.late else {},
    )


def _competition(ranks: dict[str, int]) -> dict[str, int]:
    """1, 2, 2, 3 as competition ranks: 1, 2, 2, 4."""
    return {id_: 1 + sum(other < rank for other in ranks.values()) for id_, rank in ranks.items()}


def skip(studio: Studio, name: str, lease_id: str) -> None:
    """Pass over a prompt; it comes back when nothing else is left."""
    lease = studio.queue.lease(lease_id)
    if lease is None or lease.annotator != name:
        raise HTTPException(404, "These answers are not in front of you any more.")
    pass_over(studio, name, [lease.prompt_id])
    studio.queue.release(lease_id)


def pass_over(studio: Studio, name: str, prompts: Sequence[str]) -> None:
    """Let these prompts come to a person only when nothing else is left."""
    kept = drafts.read(studio, name, _skips(studio))
    before = list(kept.content.get("prompts", [])) if kept else []
    after = list(dict.fromkeys([*before, *prompts]))[-500:]
    if after != before:
        drafts.keep(studio, name, _skips(studio), {"prompts": after})


def _skips(studio: Studio) -> str:
    return f"skipped:{stable_id(studio.campaign)}"


# --- pages ---------------------------------------------------------------------------------------------------------


@router.get("/rank", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Evaluator, kept: str = "") -> HTMLResponse:
    """The page. kept: the judgement that was just stored."""
    settings = studio.settings
    item = next_item(studio, person.name)
    progress = studio.queue.progress(settings, now=studio.now())
    mine = last(studio, person.name)
    if item is None:
        left = studio.queue.left(person.name, settings, now=studio.now())
        return page(request, "rank_done.html", progress=progress, mine=len(mine), wanted=studio.wanted, avoided=left)
    return _rank_page(request, studio, person.name, item, kept=kept, undo=mine[0][0].id if mine else "")


@router.get("/rank/again/{id_}", response_class=HTMLResponse, include_in_schema=False)
def show_again(request: Request, studio: Here, person: Evaluator, id_: str) -> HTMLResponse:
    """The page with a judgement of one's own, to change it."""
    judgement = own(studio, person.name, id_)
    return _rank_page(request, studio, person.name, again(studio, person.name, judgement), before=judgement)


def _rank_page(
    request: Request,
    studio: Studio,
    name: str,
    item: Item,
    *,
    before: Judgement | None = None,
    kept: str = "",
    undo: str = "",
) -> HTMLResponse:
    settings = studio.settings
    return page(
        request,
        "rank.html",
        item=item,
        upsets=upsets(studio, name, item.topics),
        before=_before(before) if before else None,
        key=draft_key(item.lease, item.supersedes),
        settings=settings,
        flags=FLAGS,
        reasons=REASONS,
        anchors=ANCHORS,
        progress=studio.queue.progress(settings, now=studio.now()),
        kept=kept,
        undo=undo,
    )


def _before(judgement: Judgement) -> dict[str, Any]:
    """A stored judgement as the page's form has it."""
    number = {id_: place for place, id_ in _numbered(judgement.presented_order).items()}
    return {
        "ranks": _places(judgement),
        "criteria": {number[id_]: scores for id_, scores in judgement.criteria.items()},
        "flags": {number[id_]: flags for id_, flags in judgement.flags.items()},
        "rewrite_of": number[judgement.rewrite_of] if judgement.rewrite_of else "",
        "rewrite": judgement.rewrite or "",
        "rationale": judgement.rationale,
        "cannot_rank": judgement.cannot_rank,
    }


@router.post("/rank", include_in_schema=False)
async def submit(request: Request, studio: Here, person: Evaluator) -> Response:
    """The form, from browsers without scripts."""
    form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    from starlette.concurrency import run_in_threadpool

    if form.get("do") == "skip":
        await run_in_threadpool(skip, studio, person.name, form.get("lease", ""))
        return RedirectResponse("/rank", 303)
    kept = await run_in_threadpool(hand_in, studio, person.name, _from_form(form))
    return RedirectResponse(f"/rank?kept={kept.id}", 303)


def _from_form(form: dict[str, str]) -> Given:
    ranks = {str(n): int(form[f"rank_{n}"]) for n in range(1, 10) if form.get(f"rank_{n}", "").isdigit()}
    criteria: dict[str, dict[str, int]] = {}
    flags: dict[str, list[str]] = {}
    for n in range(1, 10):
        for name in CRITERIA:
            if form.get(f"score_{n}_{name}", "").isdigit():
                criteria.setdefault(str(n), {})[name] = int(form[f"score_{n}_{name}"])
        flags[str(n)] = [name for name in FLAGS if form.get(f"flag_{n}_{name}")]
    cannot = form.get("cannot_rank", "") if form.get("do") == "cannot" else ""
    values = {
        "lease": form.get("lease", ""),
        "supersedes": form.get("supersedes") or None,
        "ranks": {} if cannot else ranks,
        "cannot_rank": cannot,
        "criteria": criteria,
        "flags": {n: told for n, told in flags.items() if told},
        "rewrite_of": form.get("rewrite_of") or None,
        "rewrite": form.get("rewrite", "").replace("\r\n", "\n") or None,
        "rationale": form.get("rationale", "").replace("\r\n", "\n"),
    }
    try:
        return Given.model_validate(values)
    except ValueError as error:
        raise BadInput(f"the form says something that cannot be ({str(error)[:100]}).", "form", "Go back.") from None


@router.get("/rank/mine", response_class=HTMLResponse, include_in_schema=False)
def show_mine(request: Request, studio: Here, person: Evaluator) -> HTMLResponse:
    """A person's last judgements, each of which can be changed."""
    return page(request, "rank_mine.html", mine=[(j, p, _places(j)) for j, p in last(studio, person.name)])


# --- for programs --------------------------------------------------------------------------------------------------


@router.post("/api/v1/rank/next")
def post_next(studio: Here, person: Evaluator) -> Item | None:
    """Lease the next prompt; the one you hold already when there is one; null when nothing is left."""
    return next_item(studio, person.name)


@router.post("/api/v1/rank/{lease}/renew", status_code=204)
def post_renew(lease: str, studio: Here, person: Evaluator) -> Response:
    """Keep a prompt that you are still at."""
    held = studio.queue.lease(lease)
    if held is None or held.annotator != person.name:
        raise HTTPException(404, "These answers are not in front of you any more.")
    studio.queue.renew(lease, studio.settings, now=studio.now())
    return Response(status_code=204)


@router.post("/api/v1/rank/{lease}/skip", status_code=204)
def post_skip(lease: str, studio: Here, person: Evaluator) -> Response:
    """Pass over a prompt."""
    skip(studio, person.name, lease)
    return Response(status_code=204)


@router.post("/api/v1/judgements", status_code=201)
def post_judgement(given: Given, studio: Here, person: Evaluator) -> Judged:
    """Hand in a judgement. Handing in the same again is no error and stores nothing."""
    return hand_in(studio, person.name, given)


@router.delete("/api/v1/judgements/{id_}", status_code=204)
def delete_judgement(id_: str, studio: Here, person: Evaluator) -> Response:
    """Take one of your judgements back; the prompt may come to you again. Both stay in the store."""
    before = own(studio, person.name, id_)
    withdrawn = Judgement(
        id=stable_id("judgement", "withdrawn", id_),
        prompt_id=before.prompt_id,
        annotator=person.name,
        ranks={},
        presented_order=before.presented_order,
        created_at=datetime.datetime.fromtimestamp(studio.now(), datetime.UTC).isoformat(timespec="seconds"),
        supersedes=id_,
        source="studio",
    )
    with studio.store.writing() as connection:
        append_judgements(connection, [withdrawn], studio.campaign, studio.store.url)
    return Response(status_code=204)
