"""Files in and out of the store from the browser, in every format of `palate feedback`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query, Request, UploadFile
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from palate.errors import BadInput
from palate.feedback import care, exchange, people
from palate.feedback.exchange import stored
from palate.feedback.exchange.pile import Pile
from palate.studio.here import Here, Lead, Studio
from palate.studio.pages import page

router = APIRouter(tags=["files"])
PIECE = 1 << 20
What = Literal["judgements", "demonstrations", "chats"]
"""Which campaign of the studio."""
Name = Annotated[str, InPath(max_length=200)]
Form = Annotated[str, Query(max_length=40)]


class Taken(BaseModel):
    """What came of a file. Of records that were there already none is stored again."""

    name: str
    format: str
    rows: int
    demonstrations: int
    prompts: int
    answers: int
    judgements: int
    asked: int
    """Prompts that are new in the queue."""
    left_out: dict[str, int]
    """Reason -> how many rows."""
    notes: dict[str, int]


# --- the work --------------------------------------------------------------------------------------------------------


def take(studio: Studio, person: str, path: Path, form: str | None) -> Taken:
    """Store what a file holds: what can be ranked where it is ranked, demonstrations and prompts without an answer
    where people write. Raises BadInput, and stores nothing, where it cannot be read or is not of this run."""
    name, pile = exchange.read_file(path, form, most=exchange.MOST)
    if not (pile.prompts or pile.demonstrations or pile.judgements):
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in pile.dropped.most_common(3)) or "it is empty"
        raise BadInput(f"none of its {pile.rows:,} rows ({name}) could be used: {reasons}.", path.name, "Mend it.")
    answered = {response.prompt_id for response in pile.responses.values()}
    answered |= {judgement.prompt_id for judgement in pile.judgements.values()}
    asked = {id_: prompt for id_, prompt in pile.prompts.items() if id_ in answered}
    if studio.workspace is not None:
        _of_this_run(studio, asked, path)
    ranked = Pile(source=pile.source, prompts=asked, responses=pile.responses, judgements=pile.judgements)
    alone = {id_: prompt for id_, prompt in pile.prompts.items() if id_ not in answered}
    examples = Pile(source=pile.source, prompts=alone, demonstrations=pile.demonstrations)
    kept = stored.keep(studio.store, ranked, studio.campaign)
    new = studio.queue.lay(
        list(asked.values()), list(pile.responses.values()), random_share=studio.settings.random_share
    )
    care.mark(studio.store, studio.campaign, asked.values(), pile.responses.values(), studio.settings.topics)
    written = stored.keep(studio.store, examples, studio.writing)
    with studio.store.writing() as connection:
        people.note(
            connection, person, "took in a file", at=studio.now(), format=name, rows=pile.rows,
            judgements=kept.judgements, demonstrations=written.demonstrations,
        )  # fmt: skip
    return Taken(
        name=path.name,
        format=name,
        rows=pile.rows,
        demonstrations=written.demonstrations,
        prompts=kept.prompts + written.prompts,
        answers=kept.responses,
        judgements=kept.judgements,
        asked=new,
        left_out=dict(pile.dropped.most_common()),
        notes=dict(pile.noted.most_common()),
    )


def _of_this_run(studio: Studio, asked: Collection[str], path: Path) -> None:
    """A run learns from judgements of its own answers alone; others would be counted and never used."""
    known = {prompt.id for prompt in studio.store.prompts(studio.campaign)}
    strange = [prompt for prompt in asked if prompt not in known]
    if strange:
        raise BadInput(
            f"{len(strange):,} of its {len(asked):,} prompts are none that this run asks about.",
            path.name,
            "A run learns from other answers by its recipe ([rank] by); to rank them: palate studio FILE.",
        )


def give(studio: Studio, person: str, what: What, form: str, *, simulated: bool, names: bool) -> bytes:
    """A file of a campaign. People are pseudonyms unless `names`. Raises BadInput where nothing would be in it."""
    exchange.known(form)
    campaign = {"judgements": studio.campaign, "demonstrations": studio.writing, "chats": studio.chats}[what]
    pile = stored.taken(studio.store, campaign, form, names=names, simulated=simulated)
    content = "".join(exchange.lines_of(pile, form)).encode()
    if not content:
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in pile.dropped.most_common(3))
        raise BadInput(
            f"there is nothing to write as {form}{': ' if reasons else ''}{reasons}.", what, "Choose another."
        )
    with studio.store.writing() as connection:
        people.note(
            connection, person, "gave out a file", at=studio.now(), what=what, format=form, names=names,
            simulated=simulated,
        )  # fmt: skip
    return content


# --- the pages -------------------------------------------------------------------------------------------------------


@router.post("/queue/import", response_class=HTMLResponse, include_in_schema=False)
async def submit_file(request: Request, studio: Here, person: Lead) -> HTMLResponse:
    """The form. What is too large is refused before it is read."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > exchange.MOST + PIECE:
        raise HTTPException(413, f"A file may have {exchange.MOST // 10**6} MB.")
    async with request.form(max_files=1, max_fields=5) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile) and not hasattr(file, "filename"):
            raise BadInput("no file was chosen.", "form", "Choose one.")
        assert file is not None and not isinstance(file, str)
        wanted = str(form.get("format") or "") or None
        taken = await _kept(studio, person.name, file.filename or "", _pieces(file), wanted)
    return page(request, "queue_taken.html", taken=taken)


async def _pieces(file: object) -> AsyncIterator[bytes]:
    while piece := await file.read(PIECE):  # type: ignore[attr-defined]
        yield piece


async def _kept(studio: Studio, person: str, name: str, pieces: AsyncIterator[bytes], form: str | None) -> Taken:
    """A file lies on the disk while it is read, under its own name, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="palate-") as folder:
        path = Path(folder) / (re.sub(r"[^A-Za-z0-9._-]", "_", Path(name).name).lstrip(".")[-100:] or "file.jsonl")
        size = 0
        with path.open("wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > exchange.MOST:
                    raise HTTPException(413, f"A file may have {exchange.MOST // 10**6} MB.")
                file.write(piece)
        try:
            return await run_in_threadpool(take, studio, person, path, form)
        except BadInput as error:  # where it lies for a moment is nobody's business
            mend = re.sub(r" \([^()]*`palate feedback import[^()]*\)", "", error.mend)  # what a page has fields for
            raise BadInput(error.what, error.where.replace(f"{folder}/", ""), mend) from None


@router.get("/queue/export", include_in_schema=False)
def download(
    studio: Here, person: Lead, format: Form, *, what: What = "judgements", simulated: bool = False, names: bool = False
) -> Response:
    """The form."""
    return get_export(format, studio, person, what=what, simulated=simulated, names=names)


# --- for programs ----------------------------------------------------------------------------------------------------


@router.put(
    "/api/v1/files/{name}",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_file(name: Name, request: Request, studio: Here, person: Lead, format: Form | None = None) -> Taken:
    """Take in a file, whose content is the body. `format` may be left out where the file shows it. The same file twice
    stores nothing the second time."""
    return await _kept(studio, person.name, name, request.stream(), format)


@router.get("/api/v1/files/{format}", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_export(
    format: Annotated[str, InPath(max_length=40)],
    studio: Here,
    person: Lead,
    *,
    what: What = "judgements",
    simulated: bool = False,
    names: bool = False,
) -> Response:
    """A file in a format of `palate feedback`: judgements that stand, demonstrations that were accepted, or what was
    judged in the chat. People are pseudonyms unless `names`."""
    content = give(studio, person.name, what, format, simulated=simulated, names=names)
    ending = "csv" if format in exchange.SHEETS else "jsonl"
    kind = "text/csv" if ending == "csv" else "application/jsonl"
    file = quote(f"{studio.name}-{what}.{format}.{ending}", safe="")
    return Response(
        content, media_type=f"{kind}; charset=utf-8",
        headers={"content-disposition": f"attachment; filename*=UTF-8''{file}"},
    )  # fmt: skip
