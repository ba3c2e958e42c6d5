"""The studio as one ASGI application: the table of contents of its routes."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from palate.errors import BadInput, PalateError
from palate.studio import (
    carry,
    chat,
    compose,
    drafts,
    entrance,
    guidelines,
    home,
    live,
    me,
    people,
    queue,
    rank,
    reference,
    review,
    see,
    wishes,
    write,
)
from palate.studio.doors import Doors
from palate.studio.here import Studio
from palate.studio.pages import page

ROUTERS = (
    home.router,
    guidelines.router,
    drafts.router,
    rank.router,
    chat.router,
    reference.router,
    write.router,
    compose.router,
    review.router,
    queue.router,
    carry.router,
    see.router,
    live.router,
    entrance.router,
    people.router,
    me.router,
    wishes.router,
)


class Problem(BaseModel):
    """What is wrong, in a line for people."""

    detail: str


PROBLEMS: dict[int | str, str] = {
    401: "Nobody is logged in, or the token opens nothing.",
    403: "This needs another role, or came from another site.",
    404: "There is no such thing, or it is not yours.",
    409: "It cannot be done as things are now.",
    413: "It is too much.",
    422: "What was sent cannot be used.",
    429: "It was too often; `Retry-After` says for how many seconds.",
    503: "The store cannot be used now.",
}
"""What every call may answer instead."""


def build(studio: Studio) -> FastAPI:
    """The application of one studio."""
    app = FastAPI(
        title="Palate studio",
        version=version("palate"),
        summary="Everything the pages do, for programs.",
        docs_url=None,  # the usual page loads its scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        responses={status: {"model": Problem, "description": told} for status, told in PROBLEMS.items()},
    )
    app.state.studio = studio
    for router in ROUTERS:
        app.include_router(router)
    folder = resources.files("palate.studio").joinpath("static")
    app.mount("/static", Kept(directory=Path(str(folder))), name="static")
    app.add_middleware(Doors, studio=studio, failed=_failed)
    app.add_exception_handler(HTTPException, _told)
    app.add_exception_handler(404, _told)
    app.add_exception_handler(405, _told)
    app.add_exception_handler(PalateError, _mended)
    app.add_exception_handler(RequestValidationError, _unreadable)
    return app


class Kept(StaticFiles):
    """Files that a browser need not ask for again: where the address says which version it is. What a module imports
    has a plain address; then it is asked whether the file is still the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As Starlette's, with how long it may be kept."""
        response = await super().get_response(path, scope)
        named = bool(scope.get("query_string"))
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if named else "no-cache"
        return response


def _is_api(request: Request) -> bool:
    return request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", "")


def _answer(request: Request, status: int, detail: str) -> Response:
    if _is_api(request):
        return JSONResponse({"detail": detail}, status)
    return page(request, "error.html", status=status, told=status, detail=detail)


def _told(request: Request, error: Exception) -> Response:
    status, detail = getattr(error, "status_code", 500), str(getattr(error, "detail", error))
    if status == 401 and not _is_api(request):
        if request.method != "GET":  # what was sent is still in the browser: it can be sent again
            return page(request, "ended.html", status=401)
        asked = f"{request.url.path}?{request.url.query}".rstrip("?")
        return RedirectResponse(f"/login?{urlencode({'next': asked})}", 303)
    if status == 404 and detail == "Not Found":
        detail = "There is no such page."
    answer = _answer(request, status, detail)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


def _mended(request: Request, error: Exception) -> Response:
    """What a person can mend: 422 for what they sent, 503 for a store that cannot be used now."""
    return _answer(request, 422 if isinstance(error, BadInput) else 503, str(error))


def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return _answer(request, 422, f"{where}: {first['msg']}.")


def _failed(request: Request, error: Exception) -> Response:
    return _answer(request, 500, "Something went wrong in Palate. What you wrote is kept; the terminal says more.")
