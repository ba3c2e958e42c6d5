"""Coming in: logging in and out, and joining by an invite's link."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from palate.errors import BadInput
from palate.feedback.people import Invite, Person, folded
from palate.studio.doors import address_of, cookie_name
from palate.studio.here import Anybody, Here, Studio
from palate.studio.limits import network
from palate.studio.pages import page

router = APIRouter(tags=["login"])
COOKIE_SECONDS = 400 * 86_400
"""As long as browsers keep one at most. When a session ends is decided here (people.py)."""
LOCAL = re.compile(r"/(?![/\\])[!#-;=?-\[\]-~]*")
"""An address on this site: one slash, and nothing that a browser would read as another host."""
WRONG = "The name or the password is wrong."
Secret = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
Password = Annotated[str, Form(max_length=1000)]
Name = Annotated[str, Form(max_length=200)]


class Login(BaseModel):
    """Who comes."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=1000)]


class Join(Login):
    """Who joins, and by which link: `secret` is its last part."""

    secret: Annotated[str, Field(max_length=100)]


class Me(BaseModel):
    """Who you are here. `name` is the pseudonym in every record of yours."""

    name: str
    roles: list[str]


def viewed(person: Person) -> Me:
    """A person as the API tells of them."""
    return Me(name=person.name, roles=sorted(person.roles))


def local(address: str) -> str:
    """The address where it is one of this site; its first page otherwise. A link to the login must not lead away."""
    return address if len(address) <= 2000 and LOCAL.fullmatch(address) else "/"


def with_accounts(studio: Studio) -> None:
    """Refuse what needs accounts where there are none."""
    if studio.single is not None:
        raise HTTPException(409, "Nobody logs in to this studio. Start it with --login to have accounts.")


def checked(studio: Studio, request: Request, name: str) -> list[tuple[str, str]]:
    """Count one more password for this name from this address; what was taken is returned, to be given back where the
    password is right. Raises HTTPException 429 where it was too often."""
    here, whose = network(address_of(studio, request)), folded(name)[:200]
    taken: list[tuple[str, str]] = []
    for limit, key in (("address", here), ("passwords_here", f"{here} {whose}"), ("passwords", whose)):
        wait = getattr(studio.limits, limit).take(key, studio.now())
        if wait > 0:
            give_back(studio, taken)
            minutes = max(1, round(wait / 60))
            told = f"There were too many wrong passwords. Try again in {minutes} minute{'s' if minutes > 1 else ''}."
            raise HTTPException(429, told, {"retry-after": str(max(1, round(wait)))})
        taken.append((limit, key))
    return taken


def give_back(studio: Studio, taken: list[tuple[str, str]]) -> None:
    """The password was right."""
    for limit, key in taken:
        getattr(studio.limits, limit).give_back(key)


def log_in(studio: Studio, request: Request, name: str, password: str) -> str | None:
    """A new session's secret; None where the name or the password is wrong. Raises HTTPException 429."""
    taken = checked(studio, request, name)
    before = request.cookies.get(cookie_name(studio, request), "")
    secret = studio.people.login(name, password, instead_of=before)
    if secret is not None:
        give_back(studio, taken)
    return secret


def remember(studio: Studio, request: Request, response: Response, secret: str) -> None:
    """Have the browser keep a session."""
    response.set_cookie(
        cookie_name(studio, request),
        secret,
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=studio.origin.startswith("https://"),
        path="/",
    )


def end(studio: Studio, request: Request, response: Response) -> None:
    """End this browser's session."""
    secret = request.cookies.get(cookie_name(studio, request), "")
    if secret:
        studio.people.logout(secret)
    response.delete_cookie(
        cookie_name(studio, request), path="/", httponly=True, samesite="lax", secure=studio.origin.startswith("https")
    )


def said(error: BadInput) -> str:
    """An error beside the field it is about."""
    return f"{error.what[:1].upper()}{error.what[1:]} {error.mend}"


# --- pages -----------------------------------------------------------------------------------------------------------


@router.get("/login", response_class=HTMLResponse, include_in_schema=False)
def show_login(request: Request, studio: Here, next: str = "/") -> Response:
    """The page; who is in already goes on."""
    if request.state.person is not None:
        return RedirectResponse(local(next), 303)
    return _login_page(request, next)


def _login_page(request: Request, next_: str, *, name: str = "", failed: str = "", status: int = 200) -> HTMLResponse:
    return page(request, "login.html", status=status, next=local(next_), name=name, failed=failed)


@router.post("/login", include_in_schema=False)
def submit_login(request: Request, studio: Here, name: Name, password: Password, next: Name = "/") -> Response:
    """The form."""
    with_accounts(studio)
    try:
        secret = log_in(studio, request, name, password)
    except HTTPException as error:
        told = _login_page(request, next, name=name, failed=str(error.detail), status=error.status_code)
        told.headers.update(error.headers or {})
        return told
    if secret is None:
        return _login_page(request, next, name=name, failed=WRONG, status=401)
    response = RedirectResponse(local(next), 303)
    remember(studio, request, response, secret)
    return response


@router.post("/logout", include_in_schema=False)
def submit_logout(request: Request, studio: Here) -> Response:
    """The button."""
    with_accounts(studio)
    response = RedirectResponse("/login", 303)
    end(studio, request, response)
    return response


@router.get("/invite/{secret}", response_class=HTMLResponse, include_in_schema=False)
def show_invite(request: Request, studio: Here, secret: Secret) -> HTMLResponse:
    """Join, or set a new password."""
    with_accounts(studio)
    return _invite_page(request, studio.people.invited(secret))


def _invite_page(
    request: Request, invite: Invite | None, *, name: str = "", failed: str = "", status: int = 200
) -> HTMLResponse:
    if invite is None:
        status = 404
    return page(request, "invite.html", status=status, invite=invite, name=name, failed=failed)


@router.post("/invite/{secret}", include_in_schema=False)
def submit_invite(
    request: Request, studio: Here, secret: Secret, password: Password, again: Password, name: Name = ""
) -> Response:
    """The form."""
    with_accounts(studio)
    invite = studio.people.invited(secret)
    if invite is None:
        return _invite_page(request, None)
    try:
        if password != again:
            raise BadInput("the two passwords are not the same.", "password", "Type it once more.")
        person = _use(studio, invite, secret, name, password)
    except BadInput as error:
        return _invite_page(request, invite, name=name, failed=said(error), status=422)
    response = RedirectResponse("/", 303)
    remember(studio, request, response, studio.people.open(person.name))
    return response


def _use(studio: Studio, invite: Invite, secret: str, name: str, password: str) -> Person:
    if invite.account is not None:
        return studio.people.renew(secret, password)
    return studio.people.join(secret, name, password)


# --- for programs ----------------------------------------------------------------------------------------------------


@router.post("/api/v1/login")
def post_login(given: Login, request: Request, response: Response, studio: Here) -> Me:
    """Log in; the session is a cookie. Programs had better come with a token (`Authorization: Bearer plt_...`), which
    needs no login. 401 where the name or the password is wrong, 429 after too many of them."""
    with_accounts(studio)
    secret = log_in(studio, request, given.name, given.password)
    person = studio.people.by_session(secret) if secret is not None else None
    if secret is None or person is None:
        raise HTTPException(401, WRONG)
    remember(studio, request, response, secret)
    return viewed(person)


@router.post("/api/v1/logout", status_code=204)
def post_logout(request: Request, studio: Here, person: Anybody) -> Response:
    """End the session of the cookie."""
    with_accounts(studio)
    response = Response(status_code=204)
    end(studio, request, response)
    return response


@router.post("/api/v1/join", status_code=201)
def post_join(given: Join, request: Request, response: Response, studio: Here) -> Me:
    """Join by the secret of an invite's link, or, where the link is for that, set a new password (`name` is not read
    then). You are logged in afterwards."""
    with_accounts(studio)
    invite = studio.people.invited(given.secret)
    if invite is None:
        raise HTTPException(404, "This link was used, or it has expired. Ask for a new one.")
    person = _use(studio, invite, given.secret, given.name, given.password)
    remember(studio, request, response, studio.people.open(person.name))
    return viewed(person)
