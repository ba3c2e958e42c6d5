"""The feedback store: SQLAlchemy over SQLite (default) or PostgreSQL, schema by Alembic.

A campaign is one round of asking: its prompts, the responses shown, the judgements given. Judgements are append-only;
a change of mind is a new one that supersedes the old. The same record twice is no error; another one under the same id
is.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy.dialects import postgresql, sqlite

from palate.errors import BadInput, PalateError
from palate.feedback.tables import (
    DEMONSTRATIONS,
    ITEMS,
    JUDGEMENTS,
    LEASES,
    PROMPTS,
    RECORDS,
    RESPONSES,
    TOPICS,
)
from palate.records import Demonstration, Judgement, Prompt, Record, Response

R = TypeVar("R", bound=Record)

POOL = 20
"""Connections at most: half of the requests a web server works on at once; the others wait their turn."""
SOME = 500
"""Ids in one question to the database, which limits how many values a statement has."""
HARMFUL = "harmful"
"""The flag of an answer, and the reason not to rank, that say: this may upset people."""
FLAGGED = "flagged"
"""The topic of a prompt that somebody flagged so (care.py)."""


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
        address = sa.make_url(url)
        in_memory = address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:")
        pool = {} if in_memory else {"pool_size": POOL, "max_overflow": 0}
        self._engine = sa.create_engine(address, json_serializer=_as_json, **pool)
        self._here = threading.local()  # .connection: what this thread has open
        self.url = self._engine.url.render_as_string(hide_password=True)
        # SQLite has one writer at a time. Threads of one process wait here, in turn; its own waiting is by chance.
        self._turn: AbstractContextManager[Any] = nullcontext()
        if self.is_sqlite:
            self._turn = threading.RLock()
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        try:
            with self._engine.begin() as connection:
                if self.is_sqlite:  # a file that was cut opens, and fails at the missing page
                    told = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
                    if told != "ok":
                        raise ValueError(f"damaged: {told}")
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def is_sqlite(self) -> bool:
        """Whether this is a file of SQLite and not a server."""
        return self._engine.dialect.name == "sqlite"

    @property
    def is_postgresql(self) -> bool:
        """Whether this is a server of PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    # --- writing -----------------------------------------------------------------------------------------------------

    def add_demonstrations(self, records: Iterable[Demonstration], campaign: str) -> int:
        """Store demonstrations; how many were new is returned."""
        with self.writing() as connection:
            return append_demonstrations(connection, records, campaign)

    def add_prompts(self, records: Iterable[Prompt], campaign: str) -> int:
        """Store prompts; how many were new is returned."""
        with self.writing() as connection:
            return append_records(connection, PROMPTS, campaign, [(r, {}) for r in records])

    def add_responses(self, records: Iterable[Response], campaign: str) -> int:
        """Store responses; how many were new is returned."""
        with self.writing() as connection:
            return append_records(connection, RESPONSES, campaign, [(r, {"prompt_id": r.prompt_id}) for r in records])

    def add_judgements(self, records: Iterable[Judgement], campaign: str) -> int:
        """Append judgements; how many were new is returned. What the queue keeps of their prompts follows.

        Raises BadInput, and stores none of them, when one names a response that its prompt does not have.
        """
        with self.writing() as connection:
            return append_judgements(connection, list(records), campaign, self.url)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction: all of it or nothing, and on SQLite nobody else writes meanwhile."""
        try:
            with self._turn, self._engine.begin() as connection, self._within(connection):
                yield connection
        except (sa.exc.DatabaseError, json.JSONDecodeError, RecursionError) as error:
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError):  # our own mistakes
                raise
            if isinstance(error, sa.exc.DataError):  # what was to be stored cannot be: U+0000, or a name without end
                reason = str(error.orig).splitlines()[0].rstrip(".")[:200]
                raise BadInput(f"this cannot be stored ({reason}).", self.url, "Mend it; nothing was stored.") from None
            # a full disk, a lost server, a damaged page, a stored record that is no JSON
            raise PalateError(
                f"{self.url}: the feedback store cannot be written ({getattr(error, 'orig', error)}); nothing of this "
                f"was stored. Free some space or see to the database, then run the same command again."
            ) from None

    @contextmanager
    def _within(self, connection: sa.Connection) -> Iterator[None]:
        before = getattr(self._here, "connection", None)
        self._here.connection = connection
        try:
            yield
        finally:
            self._here.connection = before

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

    def campaigns(self) -> list[str]:
        """The names of all rounds of asking that have a prompt or a demonstration."""
        query = sa.union(sa.select(PROMPTS.c.campaign), sa.select(DEMONSTRATIONS.c.campaign))
        with self.reading("prompts") as connection:
            return sorted(connection.execute(query).scalars())

    def prompt(self, id_: str, campaign: str) -> Prompt | None:
        """One prompt, None where the campaign has none with this id."""
        return self._one(PROMPTS, Prompt, campaign, id_)

    def judgement(self, id_: str, campaign: str) -> Judgement | None:
        """One judgement, None where the campaign has none with this id."""
        return self._one(JUDGEMENTS, Judgement, campaign, id_)

    def responses_to(self, prompt_id: str, campaign: str) -> list[Response]:
        """The answers to one prompt in the order they came."""
        with self.reading("responses") as connection:
            found = connection.execute(_ANSWERS, {"campaign": campaign, "prompt_id": prompt_id}).scalars()
            return [Response.from_json(row) for row in found]

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

    def count_prompts(self, campaign: str) -> int:
        """How many prompts there are."""
        query = sa.select(sa.func.count()).where(PROMPTS.c.campaign == campaign)
        with self.reading("prompts") as connection:
            return int(connection.execute(query).scalar_one())

    def count_judgements(self, campaign: str, *, simulated: bool | None = None) -> int:
        """How many judgements count: those that nothing supersedes."""
        query = sa.select(sa.func.count()).where(JUDGEMENTS.c.ranked, *standing(campaign, simulated=simulated))
        with self.reading("judgements") as connection:
            return int(connection.execute(query).scalar_one())

    def fingerprint(self, campaign: str, *, simulated: bool | None = None) -> str:
        """What tells that the judgements that count are others now: how many they are, and a hash of their ids."""
        query = sa.select(JUDGEMENTS.c.id).where(JUDGEMENTS.c.ranked, *standing(campaign, simulated=simulated))
        with self.reading("judgements") as connection:
            ids = sorted(connection.execute(query).scalars())
        return f"{len(ids)} {hashlib.sha256(' '.join(ids).encode()).hexdigest()[:16]}"

    def revision(self) -> int:
        """A number that grows with every record stored."""
        with self.reading("every table") as connection:
            return sum(
                int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(t.c.number), 0))).scalar_one())
                for t in RECORDS
            )

    def _read(self, table: sa.Table, kind: type[R], campaign: str) -> list[R]:
        query = sa.select(table.c.record).where(table.c.campaign == campaign).order_by(table.c.number)
        with self.reading(table.name) as connection:
            return [kind.from_json(row) for row in connection.execute(query).scalars()]

    def _one(self, table: sa.Table, kind: type[R], campaign: str, id_: str) -> R | None:
        with self.reading(table.name) as connection:
            row = connection.execute(_ONE[table.name], {"campaign": campaign, "id": id_}).scalar_one_or_none()
        return kind.from_json(row) if row is not None else None

    @contextmanager
    def reading(self, table: str) -> Iterator[sa.Connection]:
        """A look at the store that waits for nobody, on SQLite at one moment of it. Inside another look of the same
        thread, or inside its transaction, it is a part of that: who asks several things asks in one look, which costs
        less. Raises BadInput when `table` cannot be read."""
        outer: sa.Connection | None = getattr(self._here, "connection", None)
        try:
            if outer is not None:
                yield outer
                return
            with (
                self._engine.connect().execution_options(palate_reads=True) as connection,
                self._within(connection),
            ):
                yield connection
        except (sa.exc.DatabaseError, ValueError, RecursionError) as error:
            reason = str(getattr(error, "orig", None) or error).rstrip(".")[:200]
            raise BadInput(
                f"{table} of the feedback store cannot be read ({reason}).",
                self.url,
                "See to the database, or restore the file from a backup.",
            ) from None


def put(connection: sa.Connection, table: sa.Table, **row: Any) -> None:
    """Store a row in place of the one that has its primary key. One statement: two who do it at once both succeed."""
    keys = [column.name for column in table.primary_key.columns]
    rest = {name: value for name, value in row.items() if name not in keys}
    asked = _insert(connection)(table).values(**row)
    connection.execute(asked.on_conflict_do_update(index_elements=keys, set_=rest))


def unless_there(connection: sa.Connection, table: sa.Table) -> Any:
    """What inserts rows, and leaves out those whose primary key is there."""
    return _insert(connection)(table).on_conflict_do_nothing()


def _insert(connection: sa.Connection) -> Any:
    return postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert


def append_demonstrations(connection: sa.Connection, demonstrations: Iterable[Demonstration], campaign: str) -> int:
    """What `Store.add_demonstrations` does, inside a transaction of somebody's."""
    rows = [(r, {"author": r.author, "supersedes": r.supersedes}) for r in demonstrations]
    return append_records(connection, DEMONSTRATIONS, campaign, rows)


def append_judgements(connection: sa.Connection, judgements: Sequence[Judgement], campaign: str, where: str) -> int:
    """What `Store.add_judgements` does, inside a transaction of somebody's."""
    prompts = {judgement.prompt_id for judgement in judgements}
    known = _responses_by_prompt(connection, campaign, prompts)
    for judgement in judgements:
        check(judgement, known.get(judgement.prompt_id), where)
    rows = [
        (
            r,
            {
                "prompt_id": r.prompt_id,
                "annotator": r.annotator,
                "simulated": r.simulated,
                "supersedes": r.supersedes,
                "ranked": bool(r.ranks),
            },
        )
        for r in judgements
    ]
    new = append_records(connection, JUDGEMENTS, campaign, rows)
    if new:
        _tell_the_queue(connection, judgements, campaign)
    return new


def _tell_the_queue(connection: sa.Connection, judgements: Sequence[Judgement], campaign: str) -> None:
    """Whoever judged a prompt holds it no longer, and each prompt has as many judgements of people as there are."""
    people = [judgement for judgement in judgements if not judgement.simulated]
    for part in _parts({judgement.prompt_id for judgement in people}):
        # First the turn, then the count: an update that waited for another would count without what that one stored.
        these = {"this": campaign, "prompts": part}
        connection.execute(_THEIR_TURN, these)
        connection.execute(_COUNT, these)
    for judgement in people:  # after its item, as a claim does: two that take both the other way round wait for ever
        connection.execute(_NO_LEASE, {"this": campaign, "prompt": judgement.prompt_id, "whose": judgement.annotator})
    _flag(connection, {j.prompt_id for j in people if j.supersedes or calls_harmful(j)}, campaign)


def calls_harmful(judgement: Judgement) -> bool:
    """Whether it says of an answer, or of them all, that it is harmful."""
    return judgement.cannot_rank == HARMFUL or any(HARMFUL in flags for flags in judgement.flags.values())


def _flag(connection: sa.Connection, prompts: set[str], campaign: str) -> None:
    """A prompt is flagged for as long as a judgement that stands says so."""
    for prompt_id in sorted(prompts):
        this = {"campaign": campaign, "prompt_id": prompt_id, "topic": FLAGGED}
        query = sa.select(JUDGEMENTS.c.record).where(
            JUDGEMENTS.c.prompt_id == prompt_id, *standing(campaign, simulated=False)
        )
        judged = [Judgement.from_json(row) for row in connection.execute(query).scalars()]
        connection.execute(sa.delete(TOPICS).where(*(TOPICS.c[name] == value for name, value in this.items())))
        if any(calls_harmful(judgement) for judgement in judged):
            connection.execute(sa.insert(TOPICS).values(**this))


def given(campaign: str | sa.BindParameter[str], prompt_id: Any) -> sa.ScalarSelect[int]:
    """How many judgements of people stand for a prompt. That somebody could not rank it counts; who took an order back
    has not judged."""
    judged = sa.or_(JUDGEMENTS.c.ranked, JUDGEMENTS.c.supersedes.is_(None))
    return (
        sa.select(sa.func.count())
        .where(JUDGEMENTS.c.prompt_id == prompt_id, judged, *standing(campaign, simulated=False))
        .correlate(ITEMS)
        .scalar_subquery()
    )


def standing(campaign: str | sa.BindParameter[str], *, simulated: bool | None = None) -> list[sa.ColumnElement[bool]]:
    """Which rows of JUDGEMENTS are a campaign's and superseded by no other."""
    later = JUDGEMENTS.alias("later")
    superseded = sa.exists().where(later.c.campaign == campaign, later.c.supersedes == JUDGEMENTS.c.id)
    said = [] if simulated is None else [JUDGEMENTS.c.simulated == simulated]
    return [JUDGEMENTS.c.campaign == campaign, ~superseded, *said]


# What every judgement asks, made once: making it costs more than asking.
_ONE = {
    table.name: sa.select(table.c.record).where(
        table.c.campaign == sa.bindparam("campaign"), table.c.id == sa.bindparam("id")
    )
    for table in RECORDS
}
_ANSWERS = (
    sa.select(RESPONSES.c.record)
    .where(RESPONSES.c.campaign == sa.bindparam("campaign"), RESPONSES.c.prompt_id == sa.bindparam("prompt_id"))
    .order_by(RESPONSES.c.number)
)
_THESE = (ITEMS.c.campaign == sa.bindparam("this"), ITEMS.c.prompt_id.in_(sa.bindparam("prompts", expanding=True)))
_THEIR_TURN = sa.select(ITEMS.c.number).where(*_THESE).order_by(ITEMS.c.number).with_for_update()
_COUNT = sa.update(ITEMS).where(*_THESE).values(given=given(sa.bindparam("this"), ITEMS.c.prompt_id))
_NO_LEASE = sa.delete(LEASES).where(
    LEASES.c.campaign == sa.bindparam("this"),
    LEASES.c.prompt_id == sa.bindparam("prompt"),
    LEASES.c.annotator == sa.bindparam("whose"),
)


def check(judgement: Judgement, known: Sequence[str] | set[str] | None, where: str) -> None:
    """Refuse a judgement that names a response its prompt does not have (`known`: ids of those it has)."""
    if known is None:
        raise BadInput(
            f"judgement {judgement.id} is about prompt {judgement.prompt_id}, which has no responses here.",
            where,
            "Add the prompt and its responses first, or mend the id.",
        )
    named = set(judgement.ranks) | set(judgement.criteria) | set(judgement.flags)
    named |= {judgement.rewrite_of} if judgement.rewrite_of else set()
    unknown = sorted(named - set(known))
    if unknown:
        raise BadInput(
            f"judgement {judgement.id} ranks response {unknown[0]}, which is not an answer to prompt "
            f"{judgement.prompt_id}.",
            where,
            "Mend the response's id, or add that response first.",
        )


def _parts(ids: Iterable[str]) -> Iterator[list[str]]:
    every = sorted(set(ids))
    for start in range(0, len(every), SOME):
        yield every[start : start + SOME]


def _responses_by_prompt(connection: sa.Connection, campaign: str, prompts: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part in _parts(prompts):
        query = sa.select(RESPONSES.c.prompt_id, RESPONSES.c.id).where(
            RESPONSES.c.campaign == campaign, RESPONSES.c.prompt_id.in_(part)
        )
        for prompt_id, response_id in connection.execute(query):
            found.setdefault(prompt_id, set()).add(response_id)
    return found


def append_records(
    connection: sa.Connection, table: sa.Table, campaign: str, rows: Sequence[tuple[Record, dict[str, Any]]]
) -> int:
    """Store records with the columns they are searched by, inside a transaction of somebody's; how many were new is
    returned. Raises BadInput when another record has the id of one."""
    before: dict[str, Any] = {}
    for part in _parts(vars(record)["id"] for record, _ in rows):
        query = sa.select(table.c.id, table.c.record).where(table.c.campaign == campaign, table.c.id.in_(part))
        before |= {id_: record for id_, record in connection.execute(query)}
    fresh: dict[str, dict[str, Any]] = {}
    for record, columns in rows:
        values = json.loads(json.dumps(record.to_json()))  # tuples become lists, as the database gives them back
        id_ = values["id"]
        if id_ not in before:
            before[id_] = values
            fresh[id_] = {"id": id_, "campaign": campaign, "record": values, **columns}
        elif before[id_] != values and not _same(record, before[id_]):
            raise BadInput(
                f"another record with the id {id_} is already in {table.name}.",
                f"campaign {campaign}",
                "Records are never changed: give the new one its own id.",
            )
    if fresh:
        connection.execute(sa.insert(table), list(fresh.values()))
    return len(fresh)


def _as_json(value: Any) -> str:
    """What goes into a column of JSON. U+0000 becomes U+FFFD: PostgreSQL can store it and then reads no field of that
    record any more, so that one character of one person (or model) would close a page for everybody."""
    text = json.dumps(value)
    return _NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _same(record: Record, stored: Any) -> bool:
    """Whether that is what is stored; a field that came since has its default there."""
    try:
        return type(record).from_json(stored) == type(record).from_json(json.loads(_as_json(record.to_json())))
    except (ValueError, TypeError):
        return False


def _prepare_sqlite(connection: Any, _: object) -> None:
    # SQLAlchemy begins transactions itself (see _begin); the driver must not.
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL: readers do not wait for the writer. FULL: a judgement survives a power cut. 10 s: two writers take turns.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later could find the lock taken in between and fail.
    reads = connection.get_execution_options().get("palate_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
