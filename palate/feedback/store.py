"""The feedback store: SQLAlchemy over SQLite (default) or PostgreSQL, schema by Alembic.

A campaign is one round of asking: its prompts, the responses shown, the judgements given. Judgements are append-only;
a change of mind is a new one that supersedes the old. The same record twice is no error; another one under the same id
is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError

from palate.errors import BadInput, PalateError
from palate.records import Demonstration, Judgement, Prompt, Record, Response

R = TypeVar("R", bound=Record)

_METADATA = sa.MetaData()


def _table(name: str, *extra: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        _METADATA,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(64)),
        sa.Column("campaign", sa.String(200)),
        *extra,
        sa.Column("record", sa.JSON),
    )


DEMONSTRATIONS = _table("demonstrations")
PROMPTS = _table("prompts")
RESPONSES = _table("responses", sa.Column("prompt_id", sa.String(64)))
JUDGEMENTS = _table(
    "judgements",
    sa.Column("prompt_id", sa.String(64)),
    sa.Column("annotator", sa.String(200)),
    sa.Column("simulated", sa.Boolean),
    sa.Column("supersedes", sa.String(64)),
)
TABLES = (DEMONSTRATIONS, PROMPTS, RESPONSES, JUDGEMENTS)


def open_store(url: str) -> Store:
    """The store at `url` (SQLAlchemy), made or brought up to date when needed. Raises BadInput when it cannot be."""
    try:
        return Store(url)
    except (sa.exc.SQLAlchemyError, CommandError, OSError, ModuleNotFoundError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error)[:200]
        raise BadInput(
            f"the feedback store cannot be opened ({reason}).",
            url,
            "Check [feedback] store; a damaged file is restored from a backup.",
        ) from None


class Store:
    """A context manager over one database."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self.url = self._engine.url.render_as_string(hide_password=True)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_immediate)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        try:
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "sqlite":  # a file that was cut opens, and fails at the missing page
                    told = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                    if told != "ok":
                        raise ValueError(f"damaged: {told}")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except BaseException:
            self._engine.dispose()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    # --- writing -----------------------------------------------------------------------------------------------------

    def add_demonstrations(self, records: Iterable[Demonstration], campaign: str) -> int:
        """Store demonstrations; how many were new is returned."""
        with self._writing() as connection:
            return _add(connection, DEMONSTRATIONS, campaign, [(r, {}) for r in records])

    def add_prompts(self, records: Iterable[Prompt], campaign: str) -> int:
        """Store prompts; how many were new is returned."""
        with self._writing() as connection:
            return _add(connection, PROMPTS, campaign, [(r, {}) for r in records])

    def add_responses(self, records: Iterable[Response], campaign: str) -> int:
        """Store responses; how many were new is returned."""
        with self._writing() as connection:
            return _add(connection, RESPONSES, campaign, [(r, {"prompt_id": r.prompt_id}) for r in records])

    def add_judgements(self, records: Iterable[Judgement], campaign: str) -> int:
        """Append judgements; how many were new is returned.

        Raises BadInput, and stores none of them, when one names a response that its prompt does not have.
        """
        every = list(records)
        with self._writing() as connection:
            known = _responses_by_prompt(connection, campaign)
            for judgement in every:
                check(judgement, known.get(judgement.prompt_id), self.url)
            rows = [
                (
                    r,
                    {
                        "prompt_id": r.prompt_id,
                        "annotator": r.annotator,
                        "simulated": r.simulated,
                        "supersedes": r.supersedes,
                    },
                )
                for r in every
            ]
            return _add(connection, JUDGEMENTS, campaign, rows)

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """One transaction: all of it or nothing."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.DatabaseError, json.JSONDecodeError, RecursionError) as error:
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError):  # our own mistakes
                raise
            # a full disk, a lost server, a damaged page, a stored record that is no JSON
            raise PalateError(
                f"{self.url}: the feedback store cannot be written ({getattr(error, 'orig', error)}); nothing of this "
                f"was stored. Free some space or see to the database, then run the same command again."
            ) from None

    # --- reading -----------------------------------------------------------------------------------------------------

    def demonstrations(self, campaign: str) -> list[Demonstration]:
        """The campaign's demonstrations in the order they came."""
        return self._read(DEMONSTRATIONS, Demonstration, campaign)

    def prompts(self, campaign: str) -> list[Prompt]:
        """The campaign's prompts in the order they came."""
        return self._read(PROMPTS, Prompt, campaign)

    def responses(self, campaign: str) -> list[Response]:
        """The campaign's responses in the order they came."""
        return self._read(RESPONSES, Response, campaign)

    def judgements(
        self, campaign: str, *, simulated: bool | None = None, include_superseded: bool = False
    ) -> list[Judgement]:
        """The campaign's judgements in the order they came; superseded and empty ones are left out."""
        found = self._read(JUDGEMENTS, Judgement, campaign)
        gone = {judgement.supersedes for judgement in found if judgement.supersedes}
        return [
            j
            for j in found
            if (include_superseded or (j.id not in gone and j.ranks)) and simulated in (None, j.simulated)
        ]

    def count_judgements(self, campaign: str, *, simulated: bool | None = None) -> int:
        """How many judgements count: those that nothing supersedes."""
        return len(self.judgements(campaign, simulated=simulated))

    def fingerprint(self, campaign: str, *, simulated: bool | None = None) -> str:
        """What tells that the judgements that count are others now: how many they are, and a hash of their ids."""
        ids = sorted(judgement.id for judgement in self.judgements(campaign, simulated=simulated))
        return f"{len(ids)} {hashlib.sha256(' '.join(ids).encode()).hexdigest()[:16]}"

    def revision(self) -> int:
        """A number that grows with every record stored."""
        with self._reading("every table") as connection:
            return sum(
                int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(t.c.number), 0))).scalar_one())
                for t in TABLES
            )

    def _read(self, table: sa.Table, kind: type[R], campaign: str) -> list[R]:
        query = sa.select(table.c.record).where(table.c.campaign == campaign).order_by(table.c.number)
        with self._reading(table.name) as connection:
            return [kind.from_json(row) for row in connection.execute(query).scalars()]

    @contextmanager
    def _reading(self, table: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except (sa.exc.DatabaseError, ValueError, RecursionError) as error:
            reason = str(getattr(error, "orig", None) or error).rstrip(".")[:200]
            raise BadInput(
                f"{table} of the feedback store cannot be read ({reason}).",
                self.url,
                "See to the database, or restore the file from a backup.",
            ) from None


def check(judgement: Judgement, known: Sequence[str] | set[str] | None, where: str) -> None:
    """Refuse a judgement that names a response its prompt does not have (`known`: ids of those it has)."""
    if known is None:
        raise BadInput(
            f"judgement {judgement.id} is about prompt {judgement.prompt_id}, which has no responses here.",
            where,
            "Add the prompt and its responses first, or mend the id.",
        )
    unknown = sorted((set(judgement.ranks) | set(judgement.criteria)) - set(known))
    if unknown:
        raise BadInput(
            f"judgement {judgement.id} ranks response {unknown[0]}, which is not an answer to prompt "
            f"{judgement.prompt_id}.",
            where,
            "Mend the response's id, or add that response first.",
        )


def _responses_by_prompt(connection: sa.Connection, campaign: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    query = sa.select(RESPONSES.c.prompt_id, RESPONSES.c.id).where(RESPONSES.c.campaign == campaign)
    for prompt_id, response_id in connection.execute(query):
        found.setdefault(prompt_id, set()).add(response_id)
    return found


def _add(
    connection: sa.Connection, table: sa.Table, campaign: str, rows: Sequence[tuple[Record, dict[str, Any]]]
) -> int:
    query = sa.select(table.c.id, table.c.record).where(table.c.campaign == campaign)
    before = {id_: record for id_, record in connection.execute(query)}
    fresh: dict[str, dict[str, Any]] = {}
    for record, columns in rows:
        values = json.loads(json.dumps(record.to_json()))  # tuples become lists, as the database gives them back
        id_ = values["id"]
        known = before.get(id_) or (fresh[id_]["record"] if id_ in fresh else None)
        if known is None:
            fresh[id_] = {"id": id_, "campaign": campaign, "record": values, **columns}
        elif known != values:
            raise BadInput(
                f"another record with the id {id_} is already in {table.name}.",
                f"campaign {campaign}",
                "Records are never changed: give the new one its own id.",
            )
    if fresh:
        connection.execute(sa.insert(table), list(fresh.values()))
    return len(fresh)


def _prepare_sqlite(connection: Any, _: object) -> None:
    # SQLAlchemy begins transactions itself (see _begin_immediate); the driver must not.
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL: readers do not wait for the writer. FULL: a judgement survives a power cut. 10 s: two writers take turns.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later could find the lock taken in between and fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
