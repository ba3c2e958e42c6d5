"""Templates -> pages. What every page has (who is here, where one can go) is put in here."""

from __future__ import annotations

import datetime
import functools
import hashlib
from importlib import resources
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from palate.feedback.people import Person
from palate.records import CRITERIA
from palate.studio import text

PLACES = (
    ("/write", "Write", "author"),
    ("/rank", "Rank", "evaluator"),
    ("/chat", "Chat", ""),
    ("/queue", "Queue", "lead"),
    ("/see", "See", ""),
    ("/people", "People", "lead"),
)
"""Path, name and the role it takes; in the order one works in."""
WITHIN = {"/review": "/write", "/report": "/see"}
"""Pages that belong to another place."""


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("palate.studio", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": text.shown, "plain": text.plain, "when": when, "count": count, "decimal": decimal}
    made.globals |= {"CRITERIA": CRITERIA, "static": static}
    return made


def when(seconds: float) -> str:
    """Seconds since 1970 as people read them; in UTC, since nobody knows where they are."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def count(number: int) -> str:
    """How many, as people read it.

    >>> count(12345)
    '12,345'
    """
    return f"{number:,}"


def decimal(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A number with so many digits behind the point, and a minus that looks like one; nothing is less than nothing.

    >>> decimal(-0.25, 1), decimal(-0.001), decimal(0.5, 1, sign=True)
    ('−0.2', '0.00', '+0.5')
    """
    told = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return told.lstrip("+-") if not told.strip("+-0.") else told.replace("-", "−")


@functools.lru_cache(maxsize=100)
def static(name: str) -> str:
    """The address of a file in static/, which changes when the file does, so that browsers may keep it."""
    content = resources.files("palate.studio").joinpath("static", name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:10]}"


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page as a response."""
    person: Person | None = getattr(request.state, "person", None)
    studio = request.app.state.studio
    html = (
        _environment()
        .get_template(template)
        .render(
            title=studio.title,
            person=person,
            single=studio.single is not None,
            here=WITHIN.get(f"/{request.url.path.split('/')[1]}", request.url.path),
            places=[(path, name) for path, name, role in PLACES if person and (not role or person.may(role))],
            **values,
        )
    )
    return HTMLResponse(html, status)
