"""Who may come in and what they may do: for leads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Path, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from palate.feedback.people import Account, Event, Invite, log
from palate.studio.entrance import with_accounts
from palate.studio.here import Here, Lead, Studio
from palate.studio.pages import page

router = APIRouter(tags=["people"])
PAGE = 50
"""Lines of the log at once."""
MEANS = {
    "evaluator": "puts answers in order, and judges in the chat",
    "author": "writes examples, and reviews those of others",
    "lead": "does all of it, invites people, writes the guidelines, sees everybody's figures",
}
"""What the roles are, for whoever gives them."""
Role = Literal["lead", "author", "evaluator"]
Who = Annotated[str, Path(max_length=200)]
Which = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
Before = Annotated[int | None, Query(ge=0, le=2**53)]


class Somebody(BaseModel):
    """A person. Times are seconds since 1970."""

    name: str
    roles: list[str]
    created_at: float
    disabled_at: float | None


class Change(BaseModel):
    """What becomes different; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    roles: Annotated[list[Role], Field(min_length=1, max_length=3)] | None = None
    disabled: bool | None = None
    """True shuts a person out, with every session and token of theirs."""


class Wanted(BaseModel):
    """What whoever joins may do."""

    model_config = ConfigDict(extra="forbid")
    roles: Annotated[list[Role], Field(min_length=1, max_length=3)]


class Pending(BaseModel):
    """A link that nobody has used yet. Times are seconds since 1970."""

    id: str
    roles: list[str]
    author: str
    account: str | None
    """Whose password it sets anew; null where somebody joins by it."""
    created_at: float
    expires_at: float


class Link(BaseModel):
    """An address to send to one person. It is shown this once."""

    link: str


class Logged(BaseModel):
    """One line of the log; `number` grows. `at` is seconds since 1970."""

    number: int
    at: float
    who: str
    action: str
    what: dict[str, Any]


def _somebody(account: Account) -> Somebody:
    return Somebody(**(vars(account) | {"roles": sorted(account.roles)}))


def _pending(invite: Invite) -> Pending:
    return Pending(**(vars(invite) | {"roles": sorted(invite.roles)}))


def _link(studio: Studio, request: Request, secret: str) -> str:
    base = studio.origin or str(request.base_url).rstrip("/")
    return f"{base}/invite/{secret}"


def _change(studio: Studio, name: str, given: Change, by: str) -> Somebody:
    _known(studio, name)
    studio.people.change(name, by=by, roles=given.roles, disabled=given.disabled)
    return _somebody(_known(studio, name))


def _known(studio: Studio, name: str) -> Account:
    with_accounts(studio)
    account = studio.people.account(name)
    if account is None:
        raise HTTPException(404, "There is nobody of this name.")
    return account


def told(event: Event) -> str:
    """What an event is about, in words."""
    parts = []
    for name, value in event.what.items():
        said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(said if name == "name" else f"{name.replace('_', ' ')}: {said}")
    return "; ".join(parts)


# --- pages -----------------------------------------------------------------------------------------------------------


@router.get("/people", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Lead) -> HTMLResponse:
    """The page."""
    return _page(request, studio)


def _page(request: Request, studio: Studio, *, link: str = "", whose: str = "") -> HTMLResponse:
    alone = studio.single is not None
    return page(
        request,
        "people.html",
        alone=alone,
        accounts=[] if alone else studio.people.accounts(),
        invites=[] if alone else studio.people.invites(),
        means=MEANS,
        link=link,
        whose=whose,
        status=201 if link else 200,
    )


@router.post("/people/invites", include_in_schema=False)
def submit_invite(
    request: Request, studio: Here, person: Lead, roles: Annotated[list[Role], Form(max_length=3)]
) -> HTMLResponse:
    """The form. The page that comes back is the only place where the link is ever shown."""
    with_accounts(studio)
    return _page(request, studio, link=_link(studio, request, studio.people.invite(roles, by=person.name)))


@router.post("/people/invites/{id_}/end", include_in_schema=False)
def submit_end(studio: Here, person: Lead, id_: Which) -> Response:
    """The button."""
    delete_invite(id_, studio, person)
    return RedirectResponse("/people", 303)


@router.post("/people/{name}/roles", include_in_schema=False)
def submit_roles(
    studio: Here, person: Lead, name: Who, roles: Annotated[list[Role], Form(max_length=3)]
) -> RedirectResponse:
    """The form."""
    _change(studio, name, Change(roles=roles), person.name)
    return RedirectResponse("/people", 303)


@router.post("/people/{name}/access", include_in_schema=False)
def submit_access(
    studio: Here, person: Lead, name: Who, access: Annotated[Literal["out", "in"], Form()]
) -> RedirectResponse:
    """The button."""
    _change(studio, name, Change(disabled=access == "out"), person.name)
    return RedirectResponse("/people", 303)


@router.post("/people/{name}/link", include_in_schema=False)
def submit_link(request: Request, studio: Here, person: Lead, name: Who) -> HTMLResponse:
    """The button for somebody who forgot their password."""
    return _page(request, studio, link=post_link(name, request, studio, person).link, whose=name)


@router.get("/people/log", response_class=HTMLResponse, include_in_schema=False)
def show_log(request: Request, studio: Here, person: Lead, before: Before = None) -> HTMLResponse:
    """What was done, page by page."""
    events = log(studio.store, before=before, most=PAGE + 1)
    return page(
        request,
        "people_log.html",
        events=[(event, told(event)) for event in events[:PAGE]],
        older=events[PAGE - 1].number if len(events) > PAGE else None,
        newest=before is None,
    )


# --- for programs ----------------------------------------------------------------------------------------------------


@router.get("/api/v1/people")
def get_people(studio: Here, person: Lead) -> list[Somebody]:
    """Everybody who has an account, by name."""
    return [_somebody(account) for account in studio.people.accounts()]


@router.patch("/api/v1/people/{name}")
def patch_person(name: Who, given: Change, studio: Here, person: Lead) -> Somebody:
    """Give a person other roles, or shut them out. Somebody has to lead: 422 where nobody would."""
    return _change(studio, name, given, person.name)


@router.post("/api/v1/people/{name}/link", status_code=201)
def post_link(name: Who, request: Request, studio: Here, person: Lead) -> Link:
    """Make a link by which a person who forgot their password sets a new one, once, within a day."""
    _known(studio, name)
    return Link(link=_link(studio, request, studio.people.reset(name, by=person.name)))


@router.get("/api/v1/invites")
def get_invites(studio: Here, person: Lead) -> list[Pending]:
    """The links that can still be used, the newest first; what opens them is not told again."""
    return [_pending(invite) for invite in studio.people.invites()]


@router.post("/api/v1/invites", status_code=201)
def post_invite(given: Wanted, request: Request, studio: Here, person: Lead) -> Link:
    """Make a link by which one person can join within seven days."""
    with_accounts(studio)
    return Link(link=_link(studio, request, studio.people.invite(given.roles, by=person.name)))


@router.delete("/api/v1/invites/{id_}", status_code=204)
def delete_invite(id_: Which, studio: Here, person: Lead) -> Response:
    """End a link that nobody has used."""
    if not studio.people.uninvite(id_, by=person.name):
        raise HTTPException(404, "There is no such link, or it was used.")
    return Response(status_code=204)


@router.get("/api/v1/audit")
def get_audit(
    studio: Here, person: Lead, before: Before = None, most: Annotated[int, Query(ge=1, le=500)] = PAGE
) -> list[Logged]:
    """What was done, the newest first; `before` is the number from which to go on."""
    return [Logged(**vars(event)) for event in log(studio.store, before=before, most=most)]
