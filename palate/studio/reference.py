"""The reference of the REST interface as a page of ours: the usual ones load their scripts from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from palate.studio.here import Anybody, Here
from palate.studio.pages import page

router = APIRouter()


@dataclass(frozen=True)
class Field:
    """One value of a body, or of an address."""

    name: str
    kind: str
    needed: bool
    told: str


@dataclass(frozen=True)
class Call:
    """One thing a program can ask for."""

    method: str
    path: str
    told: str
    fields: tuple[Field, ...]
    answer: str


@router.get("/api", response_class=HTMLResponse, include_in_schema=False)
def show(request: Request, studio: Here, person: Anybody) -> HTMLResponse:
    """The page."""
    schema = request.app.openapi()
    groups: dict[str, list[Call]] = {}
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            group = (told.get("tags") or ["studio"])[0]
            groups.setdefault(group, []).append(_call(method, path, told, schema))
    address = str(request.base_url).rstrip("/")
    return page(request, "reference.html", groups=groups, version=schema["info"]["version"], address=address)


def _call(method: str, path: str, told: dict[str, Any], schema: dict[str, Any]) -> Call:
    fields = [
        Field(p["name"], _kind(p["schema"]), bool(p.get("required")), p.get("description", ""))
        for p in told.get("parameters", ())
        if p["in"] != "cookie"
    ]
    for content in told.get("requestBody", {}).get("content", {}).values():
        body = _resolved(content["schema"], schema)
        needed = body.get("required", ())
        fields += [
            Field(name, _kind(of), name in needed, of.get("description", ""))
            for name, of in body.get("properties", {}).items()
        ]
    good: dict[str, Any] = next((r for code, r in told["responses"].items() if code.startswith("2")), {})
    answer = next((_kind(c.get("schema", {})) for c in good.get("content", {}).values()), "nothing")
    description = told.get("description") or told.get("summary", "")
    return Call(method.upper(), path, description, tuple(fields), answer)


def _resolved(told: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in told:
        return dict(schema["components"]["schemas"][told["$ref"].rpartition("/")[2]])
    return told


def _kind(told: dict[str, Any]) -> str:
    """A schema in a word or two."""
    if "$ref" in told:
        return str(told["$ref"]).rpartition("/")[2]
    if "anyOf" in told:
        return " or ".join(dict.fromkeys(_kind(one) for one in told["anyOf"]))
    if "enum" in told:
        return " | ".join(str(one) or '""' for one in told["enum"])
    if "const" in told:
        return str(told["const"])
    if told.get("type") == "array":
        return f"list of {_kind(told.get('items', {}))}"
    if told.get("type") == "object" and isinstance(told.get("additionalProperties"), dict):
        return f"object of {_kind(told['additionalProperties'])}"
    return str(told.get("type", "anything"))
