"""One's own account: password, tokens for programs, and everything that is kept of oneself."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput
from palate.feedback import forget
from palate.studio.doors import cookie_name
from palate.studio.entrance import Me, Password, checked, end, give_back, remember, said, viewed, with_accounts
from palate.studio.here import Anybody, Here, Studio
from palate.studio.pages import page
from palate.studio.wishes import viewed as viewed_wishes

router = APIRouter(tags=["me"])
Which = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
Label = Annotated[str, Form(max_length=80)]
DAYS = (7, 30, 90, 365)
"""How long a token lasts, as the form offers it."""
USUAL = 90


class NewPassword(BaseModel):
    """The password you have, and the one you want."""

    model_config = ConfigDict(extra="forbid")
    old: Annotated[str, Field(max_length=1000)]
    new: Annotated[str, Field(max_length=1000)]


class NewToken(BaseModel):
    """What the token is for."""

    model_config = ConfigDict(extra="forbid")
    label: Annotated[str, Field(min_length=1, max_length=80)]
    days: Annotated[int, Field(ge=1, le=3650)] | None = USUAL
    """How long it opens anything; null: until it is revoked."""


class Made(BaseModel):
    """A token. It is shown this once."""

    token: str


class Held(BaseModel):
    """A token as a list shows it. Times are seconds since 1970."""

    id: str
    label: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class Artifact(BaseModel):
    """What a run made from your work, and still has."""

    artifact: str
    folder: str
    digest: str
    how: str
    certain: bool
    """False: it was made from something that is gone, so that nobody can tell whether that held your work."""


class Sure(BaseModel):
    """Your password once more; your name where nobody logs in."""

    model_config = ConfigDict(extra="forbid")
    password: Annotated[str, Field(max_length=1000)] = ""
    name: Annotated[str, Field(max_length=200)] = ""


class Gone(BaseModel):
    """How many rows of which table are gone, and what runs still have."""

    deleted: dict[str, int]
    used: list[Artifact]


def _in_person(request: Request) -> None:
    """Whoever finds a token must not be able to make it last, or to delete what its owner wrote."""
    if request.state.by_token:
        raise HTTPException(403, "This needs you to log in; a token does not do.")


InPerson = Depends(_in_person)


def used(studio: Studio, name: str) -> list[Artifact]:
    """The artifacts of this run and those beside it that a person's work went into."""
    if studio.workspace is None:
        return []
    found = forget.used(name, forget.runs_beside(studio.workspace.folder))
    return [Artifact(**(vars(one) | {"folder": str(one.folder)})) for one in found]


def delete(studio: Studio, request: Request, name: str, given: Sure) -> Gone:
    """Delete what a person wrote, once they have shown that it is them. Raises HTTPException and BadInput."""
    if studio.single is not None:
        if given.name != name:
            raise BadInput("this is not your name.", "name", f"Type {name} to delete what {name} wrote.")
    else:
        taken = checked(studio, request, name)
        if not studio.people.is_password(name, given.password):
            raise BadInput("the password is wrong.", "password", "Nothing was deleted.")
        give_back(studio, taken)
    left = used(studio, name)  # before: a run that is damaged stops here, and nothing is lost
    return Gone(deleted=forget.forget(studio.store, name, now=studio.now()), used=left)


# --- pages -----------------------------------------------------------------------------------------------------------


@router.get("/me", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody, done: str = "") -> HTMLResponse:
    """The page."""
    return _page(request, studio, person.name, done=done if done in ("password", "wishes") else "")


def _page(
    request: Request, studio: Studio, name: str, *, status: int = 200, failed: str = "", token: str = "", done: str = ""
) -> HTMLResponse:
    tokens = [] if studio.single is not None else studio.people.tokens(name)
    return page(
        request,
        "me.html",
        status=status,
        tokens=[token for token in tokens if token.revoked_at is None],
        days=DAYS,
        usual=USUAL,
        now=studio.now(),
        revoked=sum(token.revoked_at is not None for token in tokens),
        failed=failed,
        token=token,
        done=done,
        care=viewed_wishes(studio, name),
        base=studio.origin or str(request.base_url).rstrip("/"),
    )


@router.post("/me/password", include_in_schema=False, dependencies=[InPerson])
def submit_password(
    request: Request, studio: Here, person: Anybody, old: Password, new: Password, again: Password
) -> Response:
    """The form."""
    with_accounts(studio)
    try:
        if new != again:
            raise BadInput("the two new passwords are not the same.", "password", "Type it once more.")
        secret = _change(studio, request, person.name, old, new)
    except BadInput as error:
        return _page(request, studio, person.name, status=422, failed=said(error))
    response = RedirectResponse("/me?done=password", 303)
    remember(studio, request, response, secret)
    return response


def _change(studio: Studio, request: Request, name: str, old: str, new: str) -> str:
    taken = checked(studio, request, name)
    secret = studio.people.change_password(name, old, new)
    give_back(studio, taken)
    return secret


@router.post("/me/tokens", include_in_schema=False, dependencies=[InPerson])
def submit_token(
    request: Request,
    studio: Here,
    person: Anybody,
    label: Label = "",
    days: Annotated[int, Form(ge=0, le=3650)] = USUAL,
) -> HTMLResponse:
    """The form. The page that comes back is the only place where the token is ever shown."""
    with_accounts(studio)
    return _page(
        request, studio, person.name, status=201, token=studio.people.make_token(person.name, label, days or None)
    )


@router.post("/me/tokens/{id_}/revoke", include_in_schema=False)
def submit_revoke(studio: Here, person: Anybody, id_: Which) -> Response:
    """The button."""
    delete_token(id_, studio, person)
    return RedirectResponse("/me#tokens", 303)


@router.get("/me/data.json", include_in_schema=False)
def download(studio: Here, person: Anybody) -> Response:
    """Everything that is kept of a person, as a file."""
    named = {"content-disposition": 'attachment; filename="palate-my-data.json"'}
    return Response(_as_json(studio, person.name), media_type="application/json", headers=named)


@router.get("/me/delete", response_class=HTMLResponse, include_in_schema=False)
def show_delete(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """What there is, what runs have of it, and the button."""
    return _delete_page(request, studio, person.name)


def _delete_page(request: Request, studio: Studio, name: str, *, failed: str = "", status: int = 200) -> HTMLResponse:
    kept = forget.data(studio.store, name)
    counts = {what: len(rows) for what, rows in kept.items() if isinstance(rows, list) and what in COUNTED}
    return page(
        request,
        "me_delete.html",
        status=status,
        counts={COUNTED[what]: counts[what] for what in COUNTED if counts[what]},
        used=used(studio, name),
        has_run=studio.workspace is not None,
        failed=failed,
    )


COUNTED = {
    "judgements": "judgements",
    "demonstrations": "examples",
    "reviews": "reviews",
    "chats": "conversations",
    "drafts": "drafts",
}
"""What is counted on the page, as people call it."""


@router.post("/me/delete", include_in_schema=False, dependencies=[InPerson])
def submit_delete(
    request: Request, studio: Here, person: Anybody, password: Password = "", name: Password = ""
) -> Response:
    """The form."""
    try:
        gone = delete(studio, request, person.name, Sure(password=password, name=name[:200]))
    except BadInput as error:
        return _delete_page(request, studio, person.name, failed=said(error), status=422)
    if studio.single is None:
        request.state.person = None  # nobody of this name is here any more
    response = page(request, "me_deleted.html", used=gone.used)
    response.delete_cookie(cookie_name(studio, request), path="/")
    response.headers["clear-site-data"] = '"storage"'  # drafts that this browser kept
    return response


# --- for programs ----------------------------------------------------------------------------------------------------


@router.get("/api/v1/me")
def get_me(person: Anybody) -> Me:
    """Who you are here."""
    return viewed(person)


@router.put("/api/v1/me/password", status_code=204, dependencies=[InPerson])
def put_password(given: NewPassword, request: Request, studio: Here, person: Anybody) -> Response:
    """Change your password. Every session of yours ends; this browser gets a new one."""
    with_accounts(studio)
    response = Response(status_code=204)
    remember(studio, request, response, _change(studio, request, person.name, given.old, given.new))
    return response


@router.get("/api/v1/me/tokens")
def get_tokens(studio: Here, person: Anybody) -> list[Held]:
    """Your tokens, the newest first; the tokens themselves are not kept."""
    with_accounts(studio)
    return [Held(**vars(token)) for token in studio.people.tokens(person.name)]


@router.post("/api/v1/me/tokens", status_code=201, dependencies=[InPerson])
def post_token(given: NewToken, studio: Here, person: Anybody) -> Made:
    """Make a token. Programs send it as `Authorization: Bearer plt_...` and may then do what you may do."""
    with_accounts(studio)
    return Made(token=studio.people.make_token(person.name, given.label, given.days))


@router.delete("/api/v1/me/tokens/{id_}", status_code=204)
def delete_token(id_: Which, studio: Here, person: Anybody) -> Response:
    """Revoke a token."""
    with_accounts(studio)
    if not studio.people.revoke(person.name, id_):
        raise HTTPException(404, "You have no such token.")
    return Response(status_code=204)


@router.get("/api/v1/me/data")
def get_data(studio: Here, person: Anybody) -> Response:
    """Everything that is kept of you: what you wrote and judged, and what is noted of you."""
    return Response(_as_json(studio, person.name), media_type="application/json")


def _as_json(studio: Studio, name: str) -> str:
    """Characters that no other program could read are escaped."""
    return json.dumps(forget.data(studio.store, name), indent=1)


@router.get("/api/v1/me/used")
def get_used(studio: Here, person: Anybody) -> list[Artifact]:
    """The artifacts of this run, and of those beside it, that your work went into."""
    return used(studio, person.name)


@router.delete("/api/v1/me", dependencies=[InPerson])
def delete_me(given: Sure, request: Request, response: Response, studio: Here, person: Anybody) -> Gone:
    """Delete what you wrote, and your account, from the store. Runs keep what they were made from: `used` says which.
    It cannot be undone."""
    gone = delete(studio, request, person.name, given)
    end(studio, request, response)
    return gone
