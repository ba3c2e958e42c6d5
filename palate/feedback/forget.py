"""What a person left behind: everything the store has of theirs, taking it out again, and which artifacts of runs were
made from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from palate.errors import BadInput, PalateError
from palate.feedback import place
from palate.feedback.people import note
from palate.feedback.store import SOME, Store, given
from palate.feedback.tables import (
    ACCOUNTS,
    AUDIT,
    CHATS,
    DEMONSTRATIONS,
    DRAFTS,
    DUELS,
    EXPOSURES,
    GUIDELINES,
    INVITES,
    ITEMS,
    JUDGEMENTS,
    LEASES,
    PROMPTS,
    RESPONSES,
    REVIEWS,
    SESSIONS,
    TOKENS,
    WISHES,
)
from palate.records import read_json_lines
from palate.workspace import FOLDERS, Workspace

CONTROLS = "controls"
"""In a run: the folder of the runs it is compared with."""
RECIPE = "recipe.toml"
HELD = ("demonstrations", "rankings")
"""The artifacts that hold what people wrote, and by whom."""


@dataclass(frozen=True)
class Used:
    """An artifact that a person's work went into."""

    artifact: str
    folder: Path
    digest: str
    how: str
    """In words: that it holds it, what it was made from, or why that cannot be told."""
    certain: bool = True


# --- in runs ---------------------------------------------------------------------------------------------------------


def runs_beside(folder: Path) -> list[Path]:
    """A run and those that lie beside it, which may have gone on from it."""
    beside = folder.resolve().parent
    return sorted(path for path in beside.iterdir() if (path / RECIPE).is_file())


def used(name: str, runs: Iterable[Path]) -> list[Used]:
    """The artifacts of these runs (and of the controls in them) that hold something by this person, and everything
    that was made from one of those. What was made from an artifact that is no longer there is named, too: whether that
    one held it cannot be told any more. A damaged artifact is taken for one that holds it."""
    every = [artifact for run in runs for artifact in _artifacts(run)]
    found = {a.folder: _holds(name, a) for a in every if a.name in HELD}
    told = {folder: how for folder, how in found.items() if how}
    digests = {a.digest: a for a in every if a.digest}
    while more := {a.folder: how for a in every if a.folder not in told and (how := _made_from(a, told, digests))}:
        told |= more
    sure = {a.folder: Used(a.name, a.folder, a.digest, told[a.folder]) for a in every if a.folder in told}
    lost = {a.folder: how for a in every if a.folder not in sure and (how := _lost(a, digests))}
    while more := {a.folder: how for a in every if a.folder not in lost and (how := _made_from(a, lost, digests))}:
        lost |= more
    unsure = {
        a.folder: Used(a.name, a.folder, a.digest, lost[a.folder], certain=False) for a in every if a.folder in lost
    }
    return [(unsure | sure)[a.folder] for a in every if a.folder in unsure or a.folder in sure]


@dataclass(frozen=True)
class _Artifact:
    name: str
    folder: Path
    digest: str
    inputs: Mapping[str, str]
    damaged: bool = False


def _artifacts(run: Path) -> Iterator[_Artifact]:
    controls = sorted(path for path in (run / CONTROLS).glob("*") if path.is_dir())
    for here in (run, *controls):
        workspace = Workspace(here)
        for name in FOLDERS:
            if not workspace.own(name):
                continue
            folder = workspace.path(name)
            try:
                manifest = workspace.manifest(name)
                yield _Artifact(name, folder, manifest["digest"], manifest["inputs"])
            except PalateError:
                yield _Artifact(name, folder, "", {}, damaged=True)


def _holds(name: str, artifact: _Artifact) -> str:
    if artifact.damaged:
        return "its manifest is damaged"
    for file in sorted(artifact.folder.glob("*.jsonl")):
        try:
            if any(_is_by(name, record) for _, record in read_json_lines(file)):
                return f"{file.name} holds it"
        except BadInput:
            return f"{file.name} is damaged"
    return ""


def _is_by(name: str, record: Mapping[str, Any]) -> bool:
    extra = record.get("extra")
    more = (extra.get("author"), extra.get("mended_by")) if isinstance(extra, Mapping) else ()
    return name in (record.get("annotator"), record.get("author"), *more)


def _made_from(artifact: _Artifact, told: Mapping[Path, str], digests: Mapping[str, _Artifact]) -> str:
    for digest in artifact.inputs.values():
        source = digests.get(digest)
        if source is not None and source.folder in told:
            return f"made from {_place(source)}"
    return ""


def _lost(artifact: _Artifact, digests: Mapping[str, _Artifact]) -> str:
    """An input that people may have written and that is not there any more."""
    if artifact.damaged:
        return "its manifest is damaged"
    for name, digest in artifact.inputs.items():
        if digest and digest not in digests and name.rpartition("/")[2] in (*HELD, *_AFTER):
            return f"made from an earlier {FOLDERS.get(name.rpartition('/')[2], name)} that is gone"
    return ""


_AFTER = tuple(name for name in FOLDERS if name not in ("corpus", "tokens", "base", *HELD))


def _place(artifact: _Artifact) -> str:
    return "/".join(artifact.folder.parts[-1 - FOLDERS[artifact.name].count("/") - 1 :])


# --- in the store ----------------------------------------------------------------------------------------------------


def data(store: Store, name: str) -> dict[str, Any]:
    """Everything the store has of a person, as they may have it: no hashes of what opens a door."""
    records = {table.name: _by(table, name) for table in (DEMONSTRATIONS, JUDGEMENTS, PROMPTS, RESPONSES)}
    found: dict[str, Any] = {"name": name}
    with store.reading("every table") as connection:
        row = connection.execute(sa.select(ACCOUNTS).where(ACCOUNTS.c.name == name)).one_or_none()
        found["account"] = {"roles": row.roles, "created_at": row.created_at} if row is not None else None
        for table, condition in zip((DEMONSTRATIONS, JUDGEMENTS, PROMPTS, RESPONSES), records.values(), strict=True):
            query = sa.select(table.c.campaign, table.c.record).where(condition).order_by(table.c.number)
            kept = connection.execute(query).all()
            found[table.name] = [{"campaign": c, **(_blind(r) if table is JUDGEMENTS else r)} for c, r in kept]
        for table, column, hidden in _OWN:
            rows = connection.execute(sa.select(table).where(column == name)).mappings()
            found[table.name] = [{k: v for k, v in one.items() if k not in (*hidden, column.name)} for one in rows]
    return found


def _blind(record: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement as its annotator knows it: answers by their number on the screen. An id may tell whose an answer is,
    and which prompts have a known order is not for those who are measured by them."""
    place = {id_: str(number) for number, id_ in enumerate(record.get("presented_order") or (), start=1)}

    def named(id_: str) -> str:
        return place.get(id_, "?" if place else id_)

    shown = {
        k: {named(id_): v for id_, v in record[k].items()} for k in ("ranks", "criteria", "flags") if record.get(k)
    }
    best = record.get("rewrite_of")
    told = {**record, **shown, "rewrite_of": named(best) if best else best}
    return {key: value for key, value in told.items() if key not in ("presented_order", "is_gold")}


_OWN: tuple[tuple[sa.Table, sa.Column[Any], tuple[str, ...]], ...] = (
    (REVIEWS, REVIEWS.c.reviewer, ("number",)),
    (GUIDELINES, GUIDELINES.c.author, ("number",)),
    (DRAFTS, DRAFTS.c.account, ()),
    (CHATS, CHATS.c.account, ()),
    (WISHES, WISHES.c.account, ()),
    (EXPOSURES, EXPOSURES.c.account, ()),
    # Which answers of a ranking, or which models of a duel, is what a blind person must not know.
    (LEASES, LEASES.c.annotator, ("presented", "id")),
    (DUELS, DUELS.c.account, ("content", "id")),
    (SESSIONS, SESSIONS.c.account, ("hash",)),
    (TOKENS, TOKENS.c.account, ("hash",)),
    (AUDIT, AUDIT.c.who, ()),
)
"""Table, whose its rows are, and what of them is not given out."""


def forget(store: Store, name: str, *, now: float) -> dict[str, int]:
    """Take out of the store what a person wrote, and their account: all of it or nothing. How many rows of which table
    are gone is returned, and written into the log. Runs and backups keep what they have: see `used`.

    What is left names nobody: a review keeps its verdict (the work of others depends on it) without name and words,
    guidelines keep their text, which judgements of others were given under. Raises BadInput where nobody would lead.
    """
    gone: dict[str, int] = {}
    with store.writing() as connection:
        _refuse_last_lead(connection, name)
        judged = _campaigns(connection, JUDGEMENTS, JUDGEMENTS.c.annotator == name, JUDGEMENTS.c.prompt_id)
        taken = _campaigns(connection, DEMONSTRATIONS, _by(DEMONSTRATIONS, name), DEMONSTRATIONS.c.id)
        _relink(connection, name)
        for table in (JUDGEMENTS, DEMONSTRATIONS, PROMPTS, RESPONSES):
            gone[table.name] = _delete(connection, table, _by(table, name))
        for table, key in ((DRAFTS, "account"), (CHATS, "account"), (DUELS, "account"), (LEASES, "annotator"),
                           (WISHES, "account"), (EXPOSURES, "account"),
                           (SESSIONS, "account"), (TOKENS, "account"), (ACCOUNTS, "name")):  # fmt: skip
            gone[table.name] = _delete(connection, table, table.c[key] == name)
        for campaign, ids in taken.items():
            for part in _parts(ids):
                about = (REVIEWS.c.campaign == campaign, REVIEWS.c.demonstration_id.in_(part))
                _delete(connection, REVIEWS, sa.and_(*about))
                _delete(connection, LEASES, sa.and_(LEASES.c.campaign == campaign, LEASES.c.prompt_id.in_(part)))
        connection.execute(sa.update(REVIEWS).where(REVIEWS.c.reviewer == name).values(reviewer="", comment=""))
        connection.execute(sa.update(GUIDELINES).where(GUIDELINES.c.author == name).values(author=""))
        connection.execute(sa.delete(INVITES).where(sa.or_(INVITES.c.account == name, INVITES.c.author == name)))
        connection.execute(sa.update(INVITES).where(INVITES.c.used_by == name).values(used_by=""))
        _unname(connection, name)
        for campaign, ids in judged.items():
            if place.is_chats(campaign):
                for what, count in _said(connection, campaign, ids).items():
                    gone[what] += count
            for part in _parts(ids):
                connection.execute(
                    sa.update(ITEMS)
                    .where(ITEMS.c.campaign == campaign, ITEMS.c.prompt_id.in_(part))
                    .values(given=given(campaign, ITEMS.c.prompt_id))
                )
        note(connection, name, "deleted their data", at=now, **gone)
    return gone


def _said(connection: sa.Connection, campaign: str, ids: Iterable[str]) -> dict[str, int]:
    """Of a chat the question is what a person said; it goes, with its answers, where nobody else said the same."""
    gone = {"prompts": 0, "responses": 0}
    for part in _parts(ids):
        judged = sa.select(JUDGEMENTS.c.prompt_id).where(
            JUDGEMENTS.c.campaign == campaign, JUDGEMENTS.c.prompt_id.in_(part)
        )
        theirs = sorted(set(part) - set(connection.execute(judged).scalars()))
        for table, column in ((PROMPTS, PROMPTS.c.id), (RESPONSES, RESPONSES.c.prompt_id)):
            gone[table.name] += _delete(connection, table, sa.and_(table.c.campaign == campaign, column.in_(theirs)))
    return gone


def _by(table: sa.Table, name: str) -> sa.ColumnElement[bool]:
    """Which records are this person's words."""
    if table is JUDGEMENTS:
        return JUDGEMENTS.c.annotator == name
    author: sa.ColumnElement[bool] = table.c.record[("extra", "author")].as_string() == name
    if table is DEMONSTRATIONS:  # what a reviewer mended is theirs as well
        mended = table.c.record[("extra", "mended_by")].as_string()
        return sa.or_(DEMONSTRATIONS.c.author == name, mended == name)
    return author


def _refuse_last_lead(connection: sa.Connection, name: str) -> None:
    every = connection.execute(sa.select(ACCOUNTS).with_for_update()).all()
    others = [row for row in every if row.name != name]
    leads = any("lead" in row.roles and row.disabled_at is None for row in others)
    if others and not leads and any(row.name == name for row in every):
        raise BadInput("somebody has to lead.", name, "Make another person a lead first.")


def _campaigns(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool], column: sa.Column[Any]
) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for campaign, id_ in connection.execute(sa.select(table.c.campaign, column).where(condition)):
        found.setdefault(campaign, set()).add(id_)
    return found


def _relink(connection: sa.Connection, name: str) -> None:
    """A version of somebody else's that replaced one that goes replaces what that one replaced: otherwise both would
    stand."""
    query = sa.select(DEMONSTRATIONS).where(_by(DEMONSTRATIONS, name))
    gone = {(row.campaign, row.id): row.supersedes for row in connection.execute(query)}
    for campaign, id_ in gone:
        later = sa.select(DEMONSTRATIONS).where(
            DEMONSTRATIONS.c.campaign == campaign, DEMONSTRATIONS.c.supersedes == id_
        )
        for row in connection.execute(later).all():
            if (campaign, row.id) in gone:
                continue
            before = id_
            while (campaign, before) in gone and gone[campaign, before] is not None:
                before = gone[campaign, before]
            standing = None if (campaign, before) in gone else before
            connection.execute(
                sa.update(DEMONSTRATIONS)
                .where(DEMONSTRATIONS.c.number == row.number)
                .values(supersedes=standing, record={**row.record, "supersedes": standing})
            )


def _unname(connection: sa.Connection, name: str) -> None:
    """Demonstrations of others that this person accepted stay accepted."""
    reviewed = DEMONSTRATIONS.c.record["reviewer"].as_string() == name
    for row in connection.execute(sa.select(DEMONSTRATIONS).where(reviewed)).all():
        connection.execute(
            sa.update(DEMONSTRATIONS)
            .where(DEMONSTRATIONS.c.number == row.number)
            .values(record={**row.record, "reviewer": ""})
        )


def _delete(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    return cast("sa.CursorResult[Any]", connection.execute(sa.delete(table).where(condition))).rowcount


def _parts(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    every = sorted(set(ids))
    for start in range(0, len(every), SOME):
        yield every[start : start + SOME]
