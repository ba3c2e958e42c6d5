"""What stands in front of every route: who comes in, from where, and what browsers are told they may do.

One plain ASGI middleware, so that streamed answers pass through it piece by piece.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.errors import PalateError
from palate.feedback import exchange
from palate.feedback.people import Person
from palate.studio.here import Studio

SAFE = {"GET", "HEAD", "OPTIONS"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types palate"
)
"""Content Security Policy: nothing from elsewhere, nothing inline. Trusted Types: the one place in our scripts that
makes elements of text is named `palate` (static/html.js), and gets only what text.py has cleaned."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
HTTPS_ONLY = "max-age=31536000"
LARGEST = 4 * 2**20
"""Bytes of what one request may send: a draft of 500,000 characters, however they are written, fits."""
LONGEST_HEADERS = 32 * 2**10
FILES = re.compile(r"/queue/import|/api/v1/files/[^/]*")
"""Where files come in. They are larger, and a lead's: who is none is refused before it is read."""
LIMITED = (
    (re.compile(r"/(rank|write|review)|/api/v1/(judgements|demonstrations|prompts|reviews)"), "judge"),
    (re.compile(r"/api/v1/chat/(vote|prefer|improve)"), "judge"),
    (re.compile(r"/api/v1/chat/say|/api/v1/demonstrations/draft"), "generate"),
)
"""Which routes that change something count towards which limit of a person (limits.py)."""
WITHOUT_LOGIN = ("/static/",)
"""Where nobody need be known: it is not looked up who comes."""


class Doors:
    """Around the whole application. failed: what is answered when the application breaks."""

    def __init__(self, app: ASGIApp, studio: Studio, failed: Callable[[Request, Exception], Response]) -> None:
        self.app, self.studio, self.failed = app, studio, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what must not come in, and say who is asking."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, HTTPS_ONLY if self.studio.origin.startswith("https://") else "")
        request = Request(scope)
        refused = self._refusal(request) or await self._look(request)
        if refused is not None:
            await refused(scope, receive, answer.send)
            return
        body = _Body(receive, answer, _most(request))
        try:
            await self.app(scope, body.receive, answer.send)
        except Exception as error:
            if not answer.begun and not body.too_large:
                await self.failed(request, error)(scope, receive, answer.send)
                raise  # into the terminal
            if not body.too_large:
                raise
        if body.too_large and not answer.begun:
            answer.held = False
            await _too_large(request)(scope, receive, answer.send)

    def _refusal(self, request: Request) -> Response | None:
        """What must not come in, whoever it is."""
        studio, headers, host = self.studio, request.headers, request.headers.get("host", "")
        if sum(len(name) + len(value) for name, value in headers.raw) > LONGEST_HEADERS:
            return _told(request, 431, "Its headers are too long.")
        if not _is_ours(studio, host):
            return _told(request, 403, f"This studio does not answer to the name {host[:100]!r}.")
        if studio.single is not None and (through := _forwarded(headers)):
            return _told(
                request,
                403,
                f"Nobody logs in to this studio, so it must not be reached through a proxy (a header says {through}). "
                "Start it with --login and --origin https://...",
            )
        if request.method not in SAFE and not _bearer(studio, headers) and not _same_origin(studio, headers, host):
            return _told(request, 403, "This came from another site, or does not say where it came from.")
        told = headers.get("content-length", "")
        return _too_large(request) if told.isdigit() and int(told) > _most(request) else None

    async def _look(self, request: Request) -> Response | None:
        """Who comes, into the request's state; a refusal where that cannot be, or comes too often."""
        state = request.scope.setdefault("state", {})
        state["person"], state["by_token"] = self.studio.single, False
        if self.studio.single is None and not request.url.path.startswith(WITHOUT_LOGIN):
            try:
                state["person"] = await run_in_threadpool(self._who, request)
            except PalateError as error:
                return _told(request, 503, str(error))
            state["by_token"] = bool(_bearer(self.studio, request.headers))
            if state["by_token"] and state["person"] is None:
                refused = _told(request, 401, "This token opens nothing: it is wrong, or was revoked.")
                refused.headers["www-authenticate"] = "Bearer"
                return refused
        return self._too_often(request, state["person"])

    def _who(self, request: Request) -> Person | None:
        people = self.studio.people
        if token := _bearer(self.studio, request.headers):
            return people.by_token(token)
        secret = request.cookies.get(cookie_name(self.studio, request), "")
        return people.by_session(secret) if secret else None

    def _too_often(self, request: Request, person: Person | None) -> Response | None:
        if person is None or request.method in SAFE:
            return None
        for path, name in LIMITED:
            if path.fullmatch(request.url.path):
                wait = getattr(self.studio.limits, name).take(person.name, self.studio.now())
                if wait > 0:
                    return too_often(request, wait)
        return None


class _Answer:
    """What is sent back, with the headers that everything has."""

    def __init__(self, send: Send, https: str) -> None:
        self._send, self._https = send, https
        self.begun = self.held = False

    async def send(self, message: Message) -> None:
        if self.held:  # something else is going to be said
            return
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._https:
                headers["strict-transport-security"] = self._https
        await self._send(message)


class _Body:
    """What comes in, counted: a header can lie about it, or be absent."""

    def __init__(self, receive: Receive, answer: _Answer, most: int) -> None:
        self._receive, self._answer, self._most = receive, answer, most
        self.size, self.too_large = 0, False

    async def receive(self) -> Message:
        message = await self._receive()
        self.size += len(message.get("body", b""))
        if self.size > self._most and not self._answer.begun:
            self.too_large = self._answer.held = True
            return {"type": "http.disconnect"}
        return message


def cookie_name(studio: Studio, request: Request) -> str:
    """What the session's cookie is called. Browsers keep one with `__Host-` from other hosts, paths and plain HTTP;
    without HTTPS the port is in it, since cookies of two studios on one machine would overwrite each other."""
    if studio.origin.startswith("https://"):
        return "__Host-palate"
    return f"palate-{request.url.port or 80}"


def address_of(studio: Studio, request: Request) -> str:
    """Where a request comes from. Behind a proxy that is what the proxy says last; what is before it anybody can
    write."""
    peer = request.client.host if request.client else ""
    if studio.origin and _is_private(peer):
        return request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip() or peer
    return peer


def too_often(request: Request, wait: float) -> Response:
    """429, with the seconds after which it may be again."""
    seconds = max(1, math.ceil(wait))
    told = _told(request, 429, f"This was too often. Try again in {seconds} seconds.")
    told.headers["retry-after"] = str(seconds)
    return told


def _most(request: Request) -> int:
    """Bytes of the body that are taken; a form has a little around the file."""
    return exchange.MOST + 2**20 if FILES.fullmatch(request.url.path) else LARGEST


def _too_large(request: Request) -> Response:
    return _told(request, 413, f"This is more than the {_most(request) // 2**20} MiB that are taken at once.")


def _told(request: Request, status: int, detail: str) -> Response:
    """A refusal in a line. A page is not made of it: it may be for a browser that has no business here."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": detail}, status)
    return PlainTextResponse(detail, status)


def _is_ours(studio: Studio, host: str) -> bool:
    """Whether a request is for a name of ours. A page elsewhere could point its own name at this machine and would then
    count as this site (DNS rebinding); nobody can point a number elsewhere."""
    if not studio.hosts or host in studio.hosts:
        return True
    if studio.single is not None or studio.origin:
        return False
    try:
        ipaddress.ip_address((urlsplit(f"//{host}").hostname or "").partition("%")[0])
    except ValueError:
        return False
    return True


def _forwarded(headers: Headers) -> str:
    """The name of a header that a proxy adds."""
    told = (name for name in headers if name.startswith("x-forwarded-") or name in ("forwarded", "x-real-ip", "via"))
    return next(told, "")


def _is_private(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return False


def _bearer(studio: Studio, headers: Headers) -> str:
    """The token a program comes with. No other site's page can send this header, and no browser does by itself, so
    that nothing else has to be asked; the cookie is not looked at then."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if studio.single is None and kind.lower() == "bearer" else ""


def _same_origin(studio: Studio, headers: Headers, host: str) -> bool:
    """Whether a browser says that one of our own pages asks. (OWASP: Fetch Metadata, with Origin for older ones.)"""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin", "")
    return origin == studio.origin if studio.origin else bool(origin) and urlsplit(origin).netloc == host
