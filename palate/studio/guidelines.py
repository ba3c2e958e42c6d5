"""What people are told to go by: one key away from wherever they are, written by leads, every version kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from palate.feedback import campaigns
from palate.studio.here import Anybody, Here, Lead
from palate.studio.pages import page
from palate.studio.text import shown

router = APIRouter(tags=["guidelines"])
Text = Annotated[str, Form(min_length=1, max_length=50_000)]


class Version(BaseModel):
    """The guidelines as they are now."""

    version: str
    text: str
    author: str
    created_at: str


@router.get("/guidelines", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The page."""
    return page(request, "guidelines.html", told=studio.guidelines)


@router.get("/guidelines/text", response_class=HTMLResponse, include_in_schema=False)
def show_text(studio: Here, person: Anybody) -> HTMLResponse:
    """The same without a page around it, for the dialog that opens over one."""
    return HTMLResponse(str(shown(studio.guidelines.text)))


@router.post("/guidelines", include_in_schema=False)
def write(studio: Here, person: Lead, text: Text) -> RedirectResponse:
    """A lead's form."""
    campaigns.write_guidelines(studio.store, studio.name, text.replace("\r\n", "\n"), person.name)
    return RedirectResponse("/guidelines", 303)


@router.get("/api/v1/guidelines")
def get_guidelines(studio: Here, person: Anybody) -> Version:
    """The version that counts now."""
    return Version(**vars(studio.guidelines))
