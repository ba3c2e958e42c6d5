"""The first page: what this is, what there is to do, how far it is."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from palate.studio.here import Anybody, Here
from palate.studio.pages import page

router = APIRouter()


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The page."""
    return page(
        request,
        "home.html",
        progress=studio.queue.progress(studio.settings, now=studio.now()),
        overlap=studio.settings.overlap,
        wanted=studio.wanted,
        has=studio.store.count_judgements(studio.campaign, simulated=False),
        can_chat=studio.speaker is not None and bool(studio.speaker.names),
        has_run=studio.workspace is not None,
    )


@router.get("/api/v1/health")
def health(studio: Here) -> dict[str, str]:
    """Whether the studio and its store answer; needs no login."""
    studio.store.revision()
    return {"status": "ok"}
