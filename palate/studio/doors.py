"""What stands in front of every route: who comes in, from where, and what browsers are told they may do.

One plain ASGI middleware, so that streamed answers pass through it piece by piece.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Doors:
    """Around the whole application."""

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self.app, self.studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what must not come in, and say who is asking."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(request)
        if refused is not None:
            await PlainTextResponse(refused, 403)(scope, receive, with_headers)
            return
        scope.setdefault("state", {})["person"] = self._who(request)
        await self.app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        if self.studio.hosts and host not in self.studio.hosts:
            return f"This studio does not answer to the name {host[:100]!r}."
        if request.method not in SAFE and not _same_origin(request.headers, host):
            return "This came from another site, or does not say where it came from."
        return None

    def _who(self, request: Request) -> object:
        return self.studio.single


def _same_origin(headers: Headers, host: str) -> bool:
    """Whether a browser says that one of our own pages asks. (OWASP: Fetch Metadata, with Origin for older ones.)"""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == host
