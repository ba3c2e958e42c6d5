"""The whole feedback store in one file, and back into an empty one: SQLite or PostgreSQL, either way round."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from palate.errors import BadInput, PalateError
from palate.feedback import store as stores
from palate.feedback.store import Store, open_store
from palate.feedback.tables import METADATA
from palate.records import json_value

KIND = "backup of a Palate feedback store"
AT_ONCE = 1_000
"""Rows in one statement."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Backup:
    """What the first line of a backup says: the schema's revision, and rows by table."""

    schema: str
    version: str
    tables: dict[str, int]


# --- writing ---------------------------------------------------------------------------------------------------------


def backup(store: Store, path: Path) -> Backup:
    """Write every table of a store, as it is at one moment, to `path` (.jsonl.gz); people may work meanwhile.

    The file holds passwords' hashes, as the store does: only its owner can read it. Raises BadInput when `path` is
    there already.
    """
    if path.exists():
        raise BadInput("this file exists already.", path, "Name another one; backups are not written over.")
    beside = path.with_name(f".{path.name}.partial")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
                told = _write(store, packed)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    return told


def _write(store: Store, packed: gzip.GzipFile) -> Backup:
    digest, rows = hashlib.sha256(), 0

    def line(value: Any) -> None:
        raw = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        digest.update(raw)
        packed.write(raw)

    with store.reading("every table") as connection:
        if store.is_postgresql:  # otherwise every statement would look at a moment of its own
            connection.execution_options(isolation_level="REPEATABLE READ")
        schema = str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())
        counts = {
            table.name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for table in METADATA.sorted_tables
        }
        told = Backup(schema, version("palate"), counts)
        made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line({"kind": KIND, "schema": schema, "palate": told.version, "made_at": made, "tables": counts})
        for name, row in _rows(connection):
            line([name, row])
            rows += 1
    packed.write(json.dumps({"rows": rows, "sha256": digest.hexdigest()}).encode() + b"\n")
    return told


def _rows(connection: sa.Connection) -> Iterator[tuple[str, Row]]:
    """(table, row) of a whole store."""
    for table in METADATA.sorted_tables:
        query = sa.select(table).order_by(*table.primary_key.columns)
        for row in connection.execute(query, execution_options={"yield_per": AT_ONCE}).mappings():
            yield table.name, dict(row)


# --- reading ---------------------------------------------------------------------------------------------------------


def restore(path: Path, url: str) -> Backup:
    """Put a backup into the empty store at `url`. The file is checked whole before the store is opened, and nothing is
    written when anything is wrong with it: BadInput. Backups of earlier versions are brought up to date."""
    told = check(path)
    with tempfile.TemporaryDirectory() as folder:
        source = _older(path, told, Path(folder)) if told.schema != _head() else None
        with open_store(url) as store:
            try:
                with store.writing() as connection:
                    _refuse_full(connection, store)
                    if source is None:
                        _insert(connection, _file_rows(path))
                    else:
                        with open_store(source) as old, old.reading("every table") as reading:
                            _insert(connection, _rows(reading))
                    _number_on(connection, store)
            except (sa.exc.SQLAlchemyError, KeyError, TypeError, ValueError) as error:
                reason = str(getattr(error, "orig", None) or error)[:200]
                raise BadInput(f"it does not fit a store ({reason}); nothing was written.", path, _MEND) from None
    return told


_MEND = "Take another backup."


def check(path: Path) -> Backup:
    """What a backup holds, when it is whole. Raises BadInput."""
    digest, counts = hashlib.sha256(), Counter[str]()
    told: Backup | None = None
    last: Any = None
    for raw in _raw_lines(path):
        if last is not None:
            raise _damaged(path, "lines stand behind its end")
        value = json_value(raw, path)
        if told is None:
            told = _first(value, path)
        elif isinstance(value, dict):
            last = value
            continue
        elif isinstance(value, list) and len(value) == 2 and isinstance(value[1], dict) and value[0] in told.tables:
            counts[value[0]] += 1
        else:
            raise _damaged(path, "a line is no row of a table")
        digest.update(raw)
    if told is None or last is None:
        raise _damaged(path, "it ends too early")
    if last.get("sha256") != digest.hexdigest():
        raise _damaged(path, "its checksum is another")
    if {name: count for name, count in told.tables.items() if count} != dict(counts):
        raise _damaged(path, "it does not hold as many rows as it says")
    return told


def _first(value: Any, path: Path) -> Backup:
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise BadInput(
            "this is no backup of a feedback store.", path, "Name a file that `palate feedback backup` made."
        )
    tables, schema = value.get("tables"), value.get("schema")
    if not isinstance(tables, dict) or not isinstance(schema, str):
        raise _damaged(path, "its first line is not whole")
    return Backup(schema, str(value.get("palate", "")), tables)


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, str(error) or "it ends too early") from None


def _damaged(path: Path, how: str) -> BadInput:
    return BadInput(f"this backup is damaged: {how}. Nothing was restored.", path, _MEND)


def _file_rows(path: Path) -> Iterator[tuple[str, Row]]:
    for raw in _raw_lines(path):
        value = json_value(raw, path)
        if isinstance(value, list):
            yield value[0], value[1]


def _insert(connection: sa.Connection, rows: Iterator[tuple[str, Row]], tables: sa.MetaData = METADATA) -> None:
    for name, group in groupby(rows, key=lambda row: row[0]):
        table = tables.tables[name]
        some: list[Row] = []
        for _, row in group:
            if unknown := set(row) - set(table.columns.keys()):
                raise ValueError(f"{name} has no column {min(unknown)}")
            some.append(row)
            if len(some) == AT_ONCE:
                connection.execute(sa.insert(table), some)
                some = []
        if some:
            connection.execute(sa.insert(table), some)


def _refuse_full(connection: sa.Connection, store: Store) -> None:
    for table in METADATA.sorted_tables:
        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            raise BadInput(
                f"there is something in its {table.name} already.", store.url, "Restore into a store that is empty."
            )


def _number_on(connection: sa.Connection, store: Store) -> None:
    """PostgreSQL counts by itself and does not look at what is there."""
    if not store.is_postgresql:
        return
    for table in METADATA.sorted_tables:
        if "number" in table.primary_key.columns:
            highest = connection.execute(sa.select(sa.func.max(table.c.number))).scalar_one_or_none()
            if highest is not None:
                sequence = sa.func.pg_get_serial_sequence(table.name, "number")
                connection.execute(sa.select(sa.func.setval(sequence, highest)))


# --- backups of earlier versions -------------------------------------------------------------------------------------


def _config() -> Config:
    config = Config()
    folder = Path(stores.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _head() -> str:
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _older(path: Path, told: Backup, folder: Path) -> str:
    """A store with the tables of back then, filled; opening it brings it up to date."""
    url = f"sqlite:///{folder / 'older.sqlite'}"
    engine = sa.create_engine(url)
    config, tables = _config(), sa.MetaData()
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, told.schema)
            tables.reflect(connection)
            _insert(connection, _file_rows(path), tables)
    except CommandError:
        raise BadInput(
            f"it was made by Palate {told.version}, whose tables (revision {told.schema}) this version does not know.",
            path,
            "Update Palate.",
        ) from None
    except (sa.exc.SQLAlchemyError, KeyError, TypeError, ValueError) as error:
        raise PalateError(f"{path}: its tables do not fit their revision {told.schema} ({error}).") from None
    finally:
        engine.dispose()
    return url
