"""What may upset whoever reads it: how it is covered until somebody looks, and what each person wants to see of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from palate.errors import BadInput
from palate.feedback import care
from palate.feedback.care import LONGEST, MOST, Wishes
from palate.feedback.store import FLAGGED
from palate.studio.here import Anybody, Here, Studio

router = APIRouter(tags=["me"])


class Choices(BaseModel):
    """What you want to see of what may upset."""

    model_config = ConfigDict(extra="forbid")
    avoid: Annotated[list[Annotated[str, Field(max_length=LONGEST)]], Field(max_length=MOST)] = []
    """Topics that must not come to you."""
    cover: bool = True
    """Whether it is covered until you look."""
    a_day: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """How many such prompts you want in 24 hours at most; null for any number."""


class Care(Choices):
    """What you chose, what there is to choose from, and how many such prompts came to you."""

    topics: list[str]
    seen_in_a_day: int
    seen_in_a_week: int
    seen: int


@dataclass(frozen=True)
class Upsets:
    """What a page says above a text that may upset the person who opens it."""

    topics: Sequence[str]
    cover: bool
    day: int
    """How many came to them in 24 hours, this one among them."""


# --- the work --------------------------------------------------------------------------------------------------------


def topics_of(studio: Studio, texts: Iterable[str]) -> list[str]:
    """The topics of what is not in the queue."""
    return care.of("\n".join(texts), care.topics(studio.settings.topics))


def avoided(studio: Studio, name: str) -> list[str]:
    """The topics that must not come to a person now."""
    return care.avoided(studio.store, name, care.topics(studio.settings.topics), now=studio.now())


def upsets(studio: Studio, name: str, topics: Sequence[str]) -> Upsets | None:
    """None where nothing does."""
    if not topics:
        return None
    seen = care.seen(studio.store, name, now=studio.now())
    return Upsets(topics, care.wishes(studio.store, name).cover, seen.day)


def viewed(studio: Studio, name: str) -> Care:
    """All of it, as its person sees it."""
    chosen, seen = care.wishes(studio.store, name), care.seen(studio.store, name, now=studio.now())
    return Care(
        avoid=list(chosen.avoid),
        cover=chosen.cover,
        a_day=chosen.a_day,
        topics=[*care.topics(studio.settings.topics), FLAGGED],
        seen_in_a_day=seen.day,
        seen_in_a_week=seen.week,
        seen=seen.ever,
    )


def choose(studio: Studio, name: str, wanted: Choices) -> Care:
    """Keep what a person wants."""
    care.wish(studio.store, name, Wishes(**wanted.model_dump()))
    return viewed(studio, name)


# --- the form and the API --------------------------------------------------------------------------------------------


@router.post("/me/wishes", include_in_schema=False)
async def submit(request: Request, studio: Here, person: Anybody) -> Response:
    """The form."""
    form = await request.form(max_files=0, max_fields=MOST + 10)
    often = str(form.get("a_day") or "").strip()
    try:
        wanted = Choices(
            avoid=[str(name) for name in form.getlist("avoid")],
            cover=bool(form.get("cover")),
            a_day=int(often) if often else None,
        )
    except ValueError:
        raise BadInput("this is no number of prompts.", "at most in a day", "A whole number, or nothing.") from None
    await run_in_threadpool(choose, studio, person.name, wanted)
    return RedirectResponse("/me?done=wishes#wishes", 303)


@router.get("/api/v1/me/wishes")
def get_wishes(studio: Here, person: Anybody) -> Care:
    """What you want to see of what may upset, and how much of it came to you. What you judge does not depend on it, and
    nobody else is told what you avoid."""
    return viewed(studio, person.name)


@router.put("/api/v1/me/wishes")
def put_wishes(wanted: Choices, studio: Here, person: Anybody) -> Care:
    """Choose. What lies in front of you and is of a topic that you avoid is given back."""
    return choose(studio, person.name, wanted)
