"""What somebody is in the middle of, kept as they type: a closed tab, a killed server or an ended session lose none."""

from __future__ import annotations

import json
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, HTTPException, Path, Response
from pydantic import BaseModel

from palate.feedback.store import put
from palate.feedback.tables import DRAFTS
from palate.studio.here import Anybody, Here, Studio

router = APIRouter(prefix="/api/v1/drafts", tags=["drafts"])
Key = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9:._-]+$")]
LARGEST = 500_000
"""Bytes of a draft as JSON."""
MOST = 300
"""Drafts of one person."""
OURS = ("model:", "skipped:")
"""How the keys begin of what the studio notes by itself: what a page says must not change it."""


class Draft(BaseModel):
    """Whatever a page needs to go on; `updated_at` is seconds since 1970."""

    content: dict[str, Any]
    updated_at: float = 0.0


def read(studio: Studio, account: str, key: str) -> Draft | None:
    """What was kept under this key."""
    query = sa.select(DRAFTS).where(DRAFTS.c.account == account, DRAFTS.c.key == key)
    with studio.store.reading("drafts") as connection:
        row = connection.execute(query).one_or_none()
    return Draft(content=row.content, updated_at=row.updated_at) if row is not None else None


def begun(studio: Studio, account: str, prefix: str) -> dict[str, Draft]:
    """Somebody's drafts whose keys begin with `prefix`, the newest first."""
    query = (
        sa.select(DRAFTS)
        .where(DRAFTS.c.account == account, DRAFTS.c.key.startswith(prefix, autoescape=True))
        .order_by(DRAFTS.c.updated_at.desc())
    )
    with studio.store.reading("drafts") as connection:
        return {row.key: Draft(content=row.content, updated_at=row.updated_at) for row in connection.execute(query)}


def keep(studio: Studio, account: str, key: str, content: dict[str, Any]) -> Draft:
    """Keep it in place of what was there."""
    made = Draft(content=content, updated_at=studio.now())
    with studio.store.writing() as connection:
        put(connection, DRAFTS, account=account, key=key, **made.model_dump())
    return made


def drop(studio: Studio, account: str, key: str) -> None:
    """What it was for is done."""
    with studio.store.writing() as connection:
        forget(connection, account, key)


def forget(connection: sa.Connection, account: str, key: str) -> None:
    """The same inside the transaction that stores what it was for."""
    connection.execute(sa.delete(DRAFTS).where(DRAFTS.c.account == account, DRAFTS.c.key == key))


@router.get("/{key}")
def get_draft(key: Key, studio: Here, person: Anybody) -> Draft | None:
    """Your draft under this key; null where there is none, which is no error."""
    return read(studio, person.name, key)


@router.put("/{key}")
def put_draft(key: Key, draft: Draft, studio: Here, person: Anybody) -> Draft:
    """Keep a draft."""
    _refuse_ours(key)
    try:
        size = len(json.dumps(draft.content, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):  # half of a character, no number of JSON, nested without end
        raise HTTPException(422, "This could not be given back as it is.") from None
    if size > LARGEST:
        raise HTTPException(413, f"A draft may have {LARGEST:,} bytes.")
    if read(studio, person.name, key) is None and _count(studio, person.name) >= MOST:
        raise HTTPException(413, f"You have begun {MOST} things. Finish some, or give them up.")
    return keep(studio, person.name, key, draft.content)


def _refuse_ours(key: str) -> None:
    if key.startswith(OURS):
        raise HTTPException(403, "This is noted by the studio itself.")


def _count(studio: Studio, account: str) -> int:
    query = sa.select(sa.func.count()).select_from(DRAFTS).where(DRAFTS.c.account == account)
    with studio.store.reading("drafts") as connection:
        return int(connection.execute(query).scalar_one())


@router.delete("/{key}", status_code=204)
def delete_draft(key: Key, studio: Here, person: Anybody) -> Response:
    """Forget a draft."""
    _refuse_ours(key)
    drop(studio, person.name, key)
    return Response(status_code=204)
