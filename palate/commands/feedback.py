"""`palate feedback`: people's work in and out of the store, in the formats of other programs or whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from palate import flow, metrics
from palate.errors import BadInput
from palate.feedback import backup as backups
from palate.feedback import exchange, place
from palate.feedback.exchange import rows, stored
from palate.feedback.exchange.pile import Pile
from palate.feedback.store import Store, open_store

Write = Callable[[str], None]
SQLITE = (".sqlite", ".sqlite3", ".db")


@dataclass(frozen=True)
class Place:
    """Where people's work lies: a store, and the campaign in it that a run has."""

    url: str
    campaign: Callable[[], str] | None = None


def find(told: str, *, new: bool = False) -> Place:
    """What PLACE names: a run folder, a file of SQLite, or a URL. new: a file that is not there yet is one, too.

    Raises BadInput, so that a misspelt name is no new store.
    """
    if "://" in told:
        return _url(told, new=new)
    path = Path(told)
    if (path / flow.RECIPE).is_file():
        recipe, workspace = flow.reopen(path)
        return Place(place.store_url(recipe, workspace), lambda: place.campaign(workspace))
    if path.is_dir():
        raise BadInput("this folder is no run.", path, "Name a run folder, a .sqlite file or the URL of a store.")
    if not path.exists() and not (new and path.suffix in SQLITE):
        mend = "Name a run folder, a .sqlite file or the URL of a store."
        raise BadInput("there is no such store.", path, mend)
    return Place(f"sqlite:///{path.resolve()}")


def _url(told: str, *, new: bool) -> Place:
    try:
        address = sa.make_url(told)
    except sa.exc.ArgumentError:
        raise BadInput("this is no URL of a store.", told, "For example postgresql+psycopg://host/name.") from None
    lost = address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file()
    if lost and not new:
        raise BadInput("there is no such store.", told, "Check the path in the URL.")
    return Place(told)


def campaign_of(store: Store, there: Place, wanted: str | None, otherwise: str | None = None) -> str:
    """The campaign named, the run's, or the only one; `otherwise` where there is none yet. Raises BadInput."""
    if there.campaign is not None and wanted is None:
        return there.campaign()
    names = store.campaigns()
    listed = ", ".join(names[:20]) or "none"
    if wanted is not None:
        if otherwise is None and wanted not in names:
            raise BadInput(f"there is no campaign {wanted!r}.", store.url, f"It has: {listed}.")
        return wanted
    if len(names) == 1:
        return names[0]
    if not names and otherwise is not None:
        return otherwise
    if not names:
        raise BadInput("nothing is in this store.", store.url, "Name another one.")
    raise BadInput(f"it has several campaigns: {listed}.", store.url, "Say which: --campaign NAME.")


def take_in(
    told: str, path: Path, *, name: str | None, campaign: str | None, answers: Sequence[str] | None, write: Write
) -> stored.Kept:
    """Import a file, all of it in one transaction, and say what was kept and what was left out."""
    there = find(told, new=True)
    with metrics.Progress("reading", _lines(path), unit="rows") as progress:
        form, pile = exchange.read_file(path, name, answers=answers, advance=progress.advance)
    total = len(pile.demonstrations) + len(pile.prompts) + len(pile.responses) + len(pile.judgements)
    if not total:
        raise BadInput(
            f"none of its {pile.rows:,} rows ({form}) could be used: {_reasons(pile)}.", path, "Nothing was stored."
        )
    with open_store(there.url) as store:
        where = campaign_of(store, there, campaign, otherwise=path.name.partition(".")[0] or path.name)
        with metrics.Progress("storing", total, unit="records") as progress:
            kept = stored.keep(store, pile, where, progress.advance)
        write(f"{path.name}: {pile.rows:,} rows ({form}) into campaign {where} of {store.url}")
    for count, new, what in (
        (len(pile.demonstrations), kept.demonstrations, "demonstrations"),
        (len(pile.prompts), kept.prompts, "prompts"),
        (len(pile.responses), kept.responses, "answers"),
        (len(pile.judgements), kept.judgements, "judgements"),
    ):
        if count:
            write(f"  {count:,} {what}" + (f", {count - new:,} of them there already" if new < count else ""))
    _tell(pile, write)
    return kept


def _lines(path: Path) -> int:
    """How many lines a file has, for telling how far it is; not asked of what is no file of lines."""
    return sum(1 for _ in rows.byte_lines(path)) if ".jsonl" in path.suffixes else 0


def _reasons(pile: Pile) -> str:
    return "; ".join(f"{reason} ({count:,})" for reason, count in pile.dropped.most_common(5)) or "they are empty"


def _tell(pile: Pile, write: Write) -> None:
    for reason, count in pile.dropped.most_common():
        write(f"  left out: {reason} ({count:,})")
    for note, count in pile.noted.most_common():
        write(f"  note: {note} ({count:,})")


def give_out(
    told: str,
    *,
    name: str | None,
    campaign: str | None,
    out: Path | None,
    names: bool,
    simulated: bool,
    write: Callable[[bytes], object],
    tell: Write,
) -> int:
    """Export a campaign to a file, or to `write` where none is named; the lines written are returned. What the format
    cannot hold is told. Raises BadInput where nothing would be written."""
    exchange.known(name)
    if name is None and out is not None and out.suffix == ".csv":
        kinds = " or ".join(exchange.SHEETS)
        raise BadInput(f"which CSV is wanted: {kinds}?", out, "Say --format NAME.")
    form = name or "palate"
    if out is not None and out.exists():
        raise BadInput("this file exists already.", out, "Name another one, or delete it first.")
    there = find(told)
    with open_store(there.url) as store:
        where = campaign_of(store, there, campaign)
        pile = stored.taken(store, where, form, names=names, simulated=simulated)
    count = _to_file(pile, form, out) if out is not None else _to(pile, form, write)
    if not count:
        _tell(pile, tell)
        raise BadInput(
            f"nothing in campaign {where} can be written as {form}: it has {len(pile.demonstrations):,} "
            f"demonstrations, {len(pile.prompts):,} prompts and {len(pile.judgements):,} judgements.",
            told,
            "Choose another --format.",
        )
    tell(f"{count:,} lines ({form}) of campaign {where}" + (f" in {out}" if out is not None else ""))
    _tell(pile, tell)
    return count


def _to(pile: Pile, form: str, write: Callable[[bytes], object]) -> int:
    count = 0
    with metrics.Progress("writing", _expected(pile), unit="lines") as progress:
        for line in exchange.lines_of(pile, form):
            write(line.encode())
            count += 1
            progress.advance()
    return count


def _expected(pile: Pile) -> int:
    return max(len(pile.demonstrations), len(pile.prompts), len(pile.judgements))


def _to_file(pile: Pile, form: str, out: Path) -> int:
    beside = out.with_name(f".{out.name}.partial")
    try:
        with beside.open("wb") as file:
            count = _to(pile, form, file.write)
            file.flush()
            os.fsync(file.fileno())
        if count:
            beside.rename(out)
    finally:
        beside.unlink(missing_ok=True)
    return count


def back_up(told: str, path: Path, write: Write) -> None:
    """Write the whole store to one file."""
    there = find(told)
    with open_store(there.url) as store:
        made = backups.backup(store, path)
        write(f"{sum(made.tables.values()):,} rows of {store.url} in {path}")


def bring_back(path: Path, told: str, write: Write) -> None:
    """Fill an empty store from a backup."""
    there = find(told, new=True)
    made = backups.restore(path, there.url)
    shown = sa.make_url(there.url).render_as_string(hide_password=True)
    write(f"{sum(made.tables.values()):,} rows of {path} in {shown}")
