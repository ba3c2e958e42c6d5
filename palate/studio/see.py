"""One page to look at: how far it is, how much people agree, what the model learned from it, what the run does now."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel

from palate.errors import PalateError
from palate.feedback import care
from palate.feedback.people import Person
from palate.studio import figures, learned, live, plots
from palate.studio.background import Told
from palate.studio.effects import Arms, Changed, Curve, Surprises
from palate.studio.figures import Figures, Row
from palate.studio.here import Anybody, Evaluator, Here, Lead, Studio
from palate.studio.learned import Learned
from palate.studio.pages import page
from palate.studio.rank import pass_over
from palate.studio.wishes import Upsets, upsets

router = APIRouter(tags=["see"])
Answers = TypeVar("Answers", Changed, Surprises)
"""What shows answers of a run."""
PATIENCE = 1.5
"""Seconds that the page waits for its figures before it comes without them."""
FRAME = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
"""Content Security Policy of the report inside the page: it holds what models wrote, so it may look and do nothing."""


class Counted(BaseModel):
    """The figures. `computing`: newer ones are on their way; null before the first are there."""

    figures: Figures | None
    computing: bool
    error: str


# --- the work --------------------------------------------------------------------------------------------------------


def counted(told: Told[Figures], *, everybody: bool) -> Counted:
    """The figures; those of single people only where `everybody` may be seen."""
    value = told.value
    if value is not None and not everybody:
        value = value.model_copy(update={"rows": [row for row in value.rows if row.simulated]})
    return Counted(figures=value, computing=told.computing, error=told.error)


def mine(told: Told[Figures], name: str) -> Row | None:
    """One's own figures: None before anything was handed in."""
    rows = told.value.rows if told.value is not None else []
    return next((row for row in rows if row.name == name and not row.simulated), None)


def changed(studio: Studio, name: str) -> Learned[Changed]:
    """What one's rankings changed."""
    return _looked_at(studio, name, learned.changed(studio, name))


def surprises(studio: Studio, name: str) -> Learned[Surprises]:
    """Where people and the model disagree most."""
    return _looked_at(studio, name, learned.surprises(studio))


def _looked_at(studio: Studio, name: str, told: Learned[Answers]) -> Learned[Answers]:
    """Whoever has seen which answers the model or others put first is no longer blind for them: these prompts come to
    that person only when nothing else is left."""
    if told.value is not None and told.value.prompts:
        pass_over(studio, name, told.value.prompts)
    return told


def report_of(studio: Studio) -> str | None:
    """The run's report, None where there is none yet."""
    run = studio.workspace
    try:
        if run is None or not run.has("report"):
            return None
        return (run.path("report") / "report.html").read_text(encoding="utf-8")
    except (OSError, PalateError, UnicodeDecodeError):  # published anew this moment, or damaged
        return None


# --- the pages -------------------------------------------------------------------------------------------------------

PARTS = Literal["figures", "curve", "changed", "arms", "surprises"]


def _upsets(studio: Studio, name: str, told: Learned[Changed] | Learned[Surprises]) -> Upsets | None:
    """What may upset in the prompts that are shown."""
    if told.value is None:
        return None
    with studio.store.reading("topics") as connection:
        found = care.of_prompts(connection, studio.campaign, told.value.prompts)
    return upsets(studio, name, sorted({topic for topics in found.values() for topic in topics}))


def _part(studio: Studio, person: Any, name: str) -> dict[str, Any]:
    """What the templates of the parts are given."""
    values: dict[str, Any] = {"plots": plots, "known": figures.KNOWN, "lead": person.may("lead")}
    if name in ("figures", "all"):
        told = figures.told(studio, patience=PATIENCE)
        values |= {"counted": counted(told, everybody=person.may("lead")), "mine": mine(told, person.name)}
    if name in ("curve", "all"):
        values["curve"] = learned.curve(studio)
    if name == "changed":
        values["changed"] = changed(studio, person.name)
        values["upsets"] = _upsets(studio, person.name, values["changed"])
    if name == "arms":
        values["arms"] = learned.arms(studio)
    if name == "surprises":
        values["surprises"] = surprises(studio, person.name)
        values["upsets"] = _upsets(studio, person.name, values["surprises"])
    return values


@router.get("/see", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The page."""
    return page(
        request,
        "see.html",
        **_part(studio, person, "all"),
        progress=studio.queue.progress(studio.settings, now=studio.now()),
        settings=studio.settings,
        wanted=studio.wanted,
        has=studio.store.count_judgements(studio.campaign, simulated=False),
        demonstrations_wanted=studio.demonstrations_wanted,
        live=live.now(studio),
        has_run=studio.workspace is not None,
        has_report=report_of(studio) is not None,
        run=str(studio.workspace.folder) if studio.workspace is not None else "",
    )


@router.get("/see/changed", response_class=HTMLResponse, include_in_schema=False)
def show_changed(request: Request, studio: Here, person: Evaluator) -> HTMLResponse:
    """What one's own rankings changed."""
    return _learned(request, studio, person, "changed", "What your rankings changed")


@router.get("/see/surprises", response_class=HTMLResponse, include_in_schema=False)
def show_surprises(request: Request, studio: Here, person: Lead) -> HTMLResponse:
    """Where people and the model disagree."""
    return _learned(request, studio, person, "surprises", "Where people and the model disagree")


def _learned(request: Request, studio: Studio, person: Person, name: str, heading: str) -> HTMLResponse:
    """One part as a page of its own."""
    values = _part(studio, person, name)
    return page(request, "learned.html", heading=heading, part=name, told=values[name], **values)


@router.get("/see/part/{name}", response_class=HTMLResponse, include_in_schema=False)
def show_part(request: Request, studio: Here, person: Anybody, name: PARTS) -> HTMLResponse:
    """A part of the page that was still being computed when the page was sent. 204 while it is."""
    if name == "changed" and not person.may("evaluator"):
        raise HTTPException(403, "This needs the role evaluator.")
    if name in ("arms", "surprises") and not person.may("lead"):
        raise HTTPException(403, "This needs the role lead.")
    values = _part(studio, person, name)
    told = values["counted"] if name == "figures" else values[name]
    if told.computing if isinstance(told, Counted) else told.state == "computing":
        return HTMLResponse(status_code=204)
    return page(request, f"see_{name}.html", **values)


@router.get("/report", response_class=HTMLResponse, include_in_schema=False)
def show_report(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The report inside a page."""
    run = str(studio.workspace.folder) if studio.workspace is not None else ""
    return page(request, "report.html", has_report=report_of(studio) is not None, run=run)


@router.get("/report/frame", response_class=HTMLResponse, include_in_schema=False)
def show_frame(studio: Here, person: Anybody) -> Response:
    """The report itself."""
    html = report_of(studio)
    if html is None:
        raise HTTPException(404, "There is no report yet.")
    return HTMLResponse(html, headers={"content-security-policy": FRAME, "x-frame-options": "SAMEORIGIN"})


# --- for programs ----------------------------------------------------------------------------------------------------


@router.get("/api/v1/see")
def get_figures(studio: Here, person: Anybody) -> Counted:
    """The figures. Those of single people are for leads; everybody sees those of simulated annotators."""
    return counted(figures.told(studio, patience=PATIENCE), everybody=person.may("lead"))


@router.get("/api/v1/see/me")
def get_mine(studio: Here, person: Evaluator) -> Row | None:
    """Your own figures; null before you have handed anything in."""
    return mine(figures.told(studio, patience=PATIENCE), person.name)


@router.get("/api/v1/see/curve")
def get_curve(studio: Here, person: Anybody) -> Learned[list[Curve]]:
    """How right the reward model is on held-out answers, by how many judgements it was given."""
    return learned.curve(studio)


@router.get("/api/v1/see/changed")
def get_changed(studio: Here, person: Evaluator) -> Learned[Changed]:
    """What your rankings changed."""
    return changed(studio, person.name)


@router.get("/api/v1/see/arms")
def get_arms(studio: Here, person: Lead) -> Learned[Arms]:
    """Prompts chosen by the reward model's doubt beside prompts chosen by chance."""
    return learned.arms(studio)


@router.get("/api/v1/see/surprises")
def get_surprises(studio: Here, person: Lead) -> Learned[Surprises]:
    """People's judgements that the reward model would have bet against, the least expected first."""
    return surprises(studio, person.name)
