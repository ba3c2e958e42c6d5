"""What a run does now: which stage is in the making, its figures as they come, what the policy says meanwhile."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from palate import metrics
from palate import recipe as recipes
from palate.errors import BadInput, PalateError
from palate.feedback.demonstrations import Shelf
from palate.recipe import Recipe
from palate.records import Prompt, read_jsonl
from palate.studio.here import Anybody, Here, Studio
from palate.workspace import ATTEMPT, FOLDERS, MAKERS, Workspace

router = APIRouter(tags=["see"])
SAMPLES = 3
WATCHED = "watched.jsonl"
"""Where a policy in the making keeps its answers to the same prompts, look after look (palate/align/session.py)."""
TAIL = 400_000
"""Bytes of it that are read: the last look is in there."""


class Sample(BaseModel):
    """An answer of the policy in training."""

    step: int
    prompt: str
    text: str
    score: float | None


class Live(BaseModel):
    """`state`: none (no run), running, waiting (for people), stopped (begun and not going on), idle (something is left
    to do), done."""

    state: Literal["none", "running", "waiting", "stopped", "idle", "done"]
    stage: str = ""
    control: str = ""
    """The control it is made for, where it is for one."""
    folder: str = ""
    next: str = ""
    """The first stage that is left to do."""
    seconds: float = 0.0
    """Spent on it so far."""
    log: str = ""
    """Names the file of `lines`: when it is another one, begin anew."""
    lines: list[dict[str, float]] = []
    """Of each step the figures that are new: step, loss, score, kl..."""
    after: int = 0
    """Ask for what comes behind this."""
    samples: list[Sample] = []
    has: int | None = None
    wanted: int | None = None
    """Judgements or demonstrations that it waits for."""


def now(studio: Studio, log: str = "", after: int = 0) -> Live:
    """How the run is; of the figures in `log` only those behind `after`."""
    run = studio.workspace
    if run is None:
        return Live(state="none")
    making = _making(run)
    busy, following = _busy(run.folder), _next(run)
    if making is None:
        if not following:
            return Live(state="done")
        waits = _waiting(studio, following) if busy else None
        if waits is not None:
            return Live(state="waiting", stage=following, next=following, has=waits[0], wanted=waits[1])
        return Live(state="running" if busy else "idle", stage=following if busy else "", next=following)
    where, artifact, seconds = making
    stage = _maker(artifact, where)
    path = where.logs / f"{stage}.jsonl"
    name = f"{where.folder.name}/{stage}"
    lines, end = metrics.read_on(path, after if log == name else 0)
    partial = where.path(artifact).with_name(where.path(artifact).name + ".partial")
    return Live(
        state="stopped" if busy is False else "running",
        stage=stage,
        control=where.folder.name if where.folder != run.folder else "",
        folder=FOLDERS[artifact],
        next=following,
        seconds=round(seconds, 1),
        log=name,
        lines=[_numbers(line) for line in lines],
        after=end,
        samples=_samples(run, partial / WATCHED),
    )


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _making(run: Workspace) -> tuple[Workspace, str, float] | None:
    """(the run or the control of it, the artifact, seconds so far) of what was begun last and is not finished."""
    places = [run]
    if (run.folder / "controls").is_dir():
        places += [Workspace(folder, run) for folder in sorted((run.folder / "controls").iterdir()) if folder.is_dir()]
    found: list[tuple[float, Workspace, str, float]] = []
    for where in places:
        for artifact in FOLDERS:
            final = where.path(artifact)
            note = final.with_name(final.name + ".partial") / ATTEMPT
            try:
                told = json.loads(note.read_text(encoding="utf-8"))
                spent = float(told["seconds"]) + max(0.0, time.monotonic() - float(told["since"]))
                found.append((note.stat().st_mtime, where, artifact, spent))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # not in the making, or published this moment
    return max(found, key=lambda one: one[0])[1:] if found else None


def _maker(artifact: str, where: Workspace) -> str:
    recipe = _recipe(where.folder)
    return "adopt" if artifact == "base" and recipe is not None and recipe.base is not None else MAKERS[artifact]


def _next(run: Workspace) -> str:
    """The first stage of the recipe whose artifact is not there; empty where all are."""
    recipe = _recipe(run.folder)
    if recipe is None:
        return ""
    for artifact in FOLDERS:
        maker = _maker(artifact, run)
        section = "base" if maker == "adopt" else maker
        if getattr(recipe, section, None) is not None and not run.has(artifact):
            return maker
    return ""


def _recipe(folder: Path) -> Recipe | None:
    path = folder / "recipe.toml"
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, PalateError):
        return None


@functools.lru_cache(16)
def _read(path: Path, changed: int) -> Recipe:
    return recipes.load(path)


def _busy(folder: Path) -> bool | None:
    """Whether a process holds the run folder; None where the system does not tell. The lock itself is not touched: who
    tries it for a moment could be in the way of a run that begins."""
    try:
        held = Path("/proc/locks").read_text(encoding="ascii")
        inode = (folder / ".lock").stat().st_ino
    except FileNotFoundError:
        return False if Path("/proc/locks").exists() else None
    except OSError:
        return None
    return any(
        " FLOCK " in line and line.split()[5].rsplit(":", 1)[-1] == str(inode) for line in held.splitlines() if line
    )


def _waiting(studio: Studio, stage: str) -> tuple[int, int] | None:
    """(what is there, what is waited for) where the run waits for people."""
    if stage == "rank" and studio.wanted is not None:
        return studio.store.count_judgements(studio.campaign, simulated=False), studio.wanted
    if stage == "write" and studio.demonstrations_wanted is not None:
        shelf, review = Shelf(studio.store, studio.writing).standing(), studio.settings.review
        return sum(one.counts(review=review) for one in shelf.values()), studio.demonstrations_wanted
    return None


def _samples(run: Workspace, path: Path) -> list[Sample]:
    """Answers of the last look that is whole, to the first few prompts that are watched."""
    try:
        size = path.stat().st_size
    except OSError:
        return []
    lines, _ = metrics.read_on(path, max(0, size - TAIL), most=TAIL)
    if not lines:
        return []
    last = [line for line in lines if line["step"] == lines[-1]["step"]]
    asked = _prompts(run)
    return [
        Sample(
            step=line["step"],
            prompt=asked.get(str(line.get("prompt_id")), ""),
            text=str(line.get("text", "")),
            score=line["score"] if isinstance(line.get("score"), int | float) else None,
        )
        for line in last[:SAMPLES]
    ]


def _prompts(run: Workspace) -> dict[str, str]:
    try:
        path = run.path("demonstrations") if run.own("demonstrations") else run.read("demonstrations")
        path = path / "prompts.jsonl"
        return _asked(path, path.stat().st_mtime_ns)
    except (OSError, PalateError):
        return {}


@functools.lru_cache(2)
def _asked(path: Path, changed: int) -> dict[str, str]:
    try:
        return {prompt.id: prompt.messages[-1].content for prompt in read_jsonl(path, Prompt)}
    except BadInput:
        return {}


@router.get("/api/v1/live")
def get_live(
    studio: Here,
    person: Anybody,
    log: Annotated[str, Query(max_length=300)] = "",
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Live:
    """What the run does now. Send back `log` and `after` to get only what is new."""
    return now(studio, log, after)
