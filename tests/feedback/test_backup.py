"""A store in one file, and back: everything, at one moment, on both databases, and nothing from a damaged file."""

import dataclasses
import gzip
import hashlib
import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from palate.errors import BadInput, PalateError
from palate.feedback import backup as backups
from palate.feedback import tables
from palate.feedback.exchange import stored
from palate.feedback.exchange.pile import Pile
from palate.feedback.store import Store, open_store
from palate.records import Demonstration, Judgement, Prompt, Response, conversation

PROMPTS = [Prompt(id=f"p{n}", messages=conversation(f"dinner {n}?\u2028é"), family="f") for n in range(3)]
ANSWERS = [Response(id=f"r{n}{x}", prompt_id=f"p{n}", text=x, token_ids=(1, 2)) for n in range(3) for x in "ab"]
GIVEN = [Judgement(id=f"j{n}", prompt_id=f"p{n}", annotator="ann", ranks={f"r{n}b": 1, f"r{n}a": 2}) for n in range(3)]
TAUGHT = [Demonstration(id="d", messages=conversation("Hi?", "Hello."), family="f", author="bo")]


def row_of(table: sa.Table, number: int) -> dict[str, Any]:
    """Something in every column; in every other row, nothing where there may be nothing."""
    values: dict[type[Any], Any] = {
        sa.JSON: {"a": [number, None], "é": 0.1}, sa.Boolean: number == 1, sa.Float: number + 0.1,
        sa.Integer: number, sa.String: f"{table.name} {number}", sa.LargeBinary: b"",
    }  # fmt: skip
    row = {}
    for column in table.columns:
        if column.name == "number" and column.primary_key:
            continue
        kind = next(kind for kind in values if isinstance(column.type, kind))
        row[column.name] = sa.null() if column.nullable and number % 2 else values[kind]
    return row


def fill(store: Store) -> None:
    """Something in every table, the tables that nobody has thought of yet, too."""
    store.add_prompts(PROMPTS, "one")
    store.add_responses(ANSWERS, "one")
    store.add_judgements(GIVEN, "one")
    store.add_demonstrations(TAUGHT, "one")
    with store.writing() as connection:
        for table in tables.METADATA.sorted_tables:
            for number in (1, 2) if table not in tables.RECORDS else ():
                connection.execute(sa.insert(table).values(**row_of(table, number)))


def all_of(store: Store) -> dict[str, list[Any]]:
    with store.reading("every table") as connection:
        found: dict[str, list[Any]] = {
            table.name: [
                tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            ]
            for table in tables.METADATA.sorted_tables
        }
        # the null of JSON is not NULL, though both are None here
        null = sa.select(tables.ITEMS.c.prompt_id).where(tables.ITEMS.c.gold.is_(sa.null()))
        found["items without gold"] = [tuple(row) for row in connection.execute(null)]
    return found


def made(folder: Path) -> Path:
    """A backup of a store with something in every table."""
    with open_store(f"sqlite:///{folder / 'from.sqlite'}") as store:
        fill(store)
        backups.backup(store, folder / "b.jsonl.gz")
    return folder / "b.jsonl.gz"


def again(path: Path, lines: list[Any]) -> None:
    """Write a backup whose checksum is right."""
    told = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = json.dumps({"rows": len(lines) - 1, "sha256": hashlib.sha256(told).hexdigest()}).encode() + b"\n"
    path.write_bytes(gzip.compress(told + end))


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()][:-1]


def test_every_table_comes_back_from_one_database_to_the_other(store_url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'to.sqlite'}"
    with open_store(store_url) as store:
        fill(store)
        before = all_of(store)
        told = backups.backup(store, tmp_path / "b.jsonl.gz")
    assert set(told.tables) == set(tables.METADATA.tables) and all(told.tables.values())
    assert stat.S_IMODE((tmp_path / "b.jsonl.gz").stat().st_mode) == 0o600
    assert backups.restore(tmp_path / "b.jsonl.gz", other) == told
    with open_store(other) as store:
        assert all_of(store) == before
        assert before["items without gold"] == [("items 1",)]
        assert store.judgements("one") == GIVEN and store.responses("one") == ANSWERS


def test_a_store_goes_on_after_it_was_brought_back(store_url: str, tmp_path: Path) -> None:
    path = made(tmp_path)
    backups.restore(path, store_url)
    more = dataclasses.replace(GIVEN[0], id="later", annotator="bo")
    with open_store(store_url) as store, open_store(f"sqlite:///{tmp_path / 'from.sqlite'}") as source:
        assert all_of(store) == all_of(source)
        store.add_judgements([more], "one")
        assert store.judgements("one") == [*GIVEN, more]
        with store.writing() as connection:
            connection.execute(sa.insert(tables.AUDIT).values(**row_of(tables.AUDIT, 3)))
        assert [row[0] for row in all_of(store)["audit"]] == [1, 2, 3]


def test_only_an_empty_store_is_filled(store_url: str, tmp_path: Path) -> None:
    path = made(tmp_path)
    with open_store(store_url) as store:
        store.add_prompts(PROMPTS[:1], "mine")
        before = all_of(store)
    with pytest.raises(BadInput, match="there is something in its prompts already"):
        backups.restore(path, store_url)
    with open_store(store_url) as store:
        assert all_of(store) == before


def test_a_backup_is_one_moment_while_people_work(store_url: str, tmp_path: Path) -> None:
    """Every prompt is stored with its two answers and a judgement at once: a backup has all of them, or none."""
    with open_store(store_url) as store:
        stop = threading.Event()

        def work() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                pile = Pile(source=str(number))
                prompt = pile.ask(conversation(f"dinner {number}?"), {})
                pile.judge(prompt, [(pile.answer(prompt, x), rank) for rank, x in ((1, "a"), (2, "b"))], {})
                stored.keep(store, pile, "one")

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for number in range(20):
                told = backups.backup(store, tmp_path / f"{number}.jsonl.gz")
                assert backups.check(tmp_path / f"{number}.jsonl.gz") == told
                assert told.tables["prompts"] == told.tables["responses"] / 2 == told.tables["judgements"]
        finally:
            stop.set()
            worker.join()
    assert told.tables["prompts"] > 5


def test_damage_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    whole = made(tmp_path).read_bytes()
    url, path = tmp_path / "to.sqlite", tmp_path / "damaged.jsonl.gz"
    damaged = [whole[:cut] for cut in range(0, len(whole), max(1, len(whole) // 40))]
    damaged += [
        whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :] for at in range(10, len(whole), len(whole) // 60)
    ]
    plain = gzip.decompress(whole)
    damaged += [gzip.compress(plain[: plain.rindex(b"\n", 0, -1) + 1]), gzip.compress(plain + b"{}\n")]
    damaged += [gzip.compress(plain.replace(b"dinner 1", b"dinner 2")), b"", b"no backup", gzip.compress(b'{"a": 1}\n')]
    for raw in damaged:
        path.write_bytes(raw)
        with pytest.raises(PalateError) as refused:
            backups.restore(path, f"sqlite:///{url}")
        assert "\n" not in str(refused.value) and not url.exists()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["prompts", {"id": "p"}], "it does not fit a store"),
        (["prompts", {"more": 1}], "prompts has no column more"),
        (["nothing", {}], "a line is no row of a table"),
        ([], "a line is no row of a table"),
    ],
)
def test_rows_that_are_none_are_refused_and_nothing_is_written(
    row: Any, told: str, store_url: str, tmp_path: Path
) -> None:
    path = made(tmp_path)
    lines = lines_of(path)
    lines[0]["tables"]["prompts"] += 1
    again(path, [*lines, row])
    with pytest.raises(BadInput, match=told):
        backups.restore(path, store_url)
    with open_store(store_url) as store:
        assert not any(all_of(store).values())


def test_as_many_rows_as_the_first_line_says(tmp_path: Path) -> None:
    path = made(tmp_path)
    again(path, lines_of(path)[:-1])
    with pytest.raises(BadInput, match="as many rows as it says"):
        backups.check(path)


def test_a_backup_of_an_earlier_version_is_brought_up_to_date(store_url: str, tmp_path: Path) -> None:
    path = made(tmp_path)
    lines = lines_of(path)
    usual = {"number", "id", "campaign", "record"}
    then = {name: usual for name in ("prompts", "demonstrations")}
    then |= {"responses": usual | {"prompt_id"}}
    then |= {"judgements": usual | {"prompt_id", "annotator", "simulated", "supersedes"}}
    rows = [[name, {key: row[key] for key in then[name] & set(row)}] for name, row in lines[1:] if name in then]
    counts = {name: sum(line[0] == name for line in rows) for name in then}
    again(path, [{**lines[0], "schema": "0001", "tables": counts}, *rows])
    backups.restore(path, store_url)
    with open_store(store_url) as store:
        assert store.judgements("one") == GIVEN and store.demonstrations("one") == TAUGHT
        with store.reading("demonstrations") as connection:
            assert connection.execute(sa.select(tables.DEMONSTRATIONS.c.author)).scalars().all() == ["bo"]
        assert store.count_judgements("one") == 3


def test_a_backup_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    lines = lines_of(path)
    again(path, [{**lines[0], "schema": "9999", "palate": "9.0"}, *lines[1:]])
    with pytest.raises(BadInput, match=r"made by Palate 9\.0.*Update Palate"):
        backups.restore(path, f"sqlite:///{tmp_path / 'to.sqlite'}")
    assert not (tmp_path / "to.sqlite").exists()


def test_a_backup_is_not_written_over(tmp_path: Path) -> None:
    path = made(tmp_path)
    before = path.read_bytes()
    with open_store(f"sqlite:///{tmp_path / 'from.sqlite'}") as store, pytest.raises(BadInput, match="exists already"):
        backups.backup(store, path)
    assert path.read_bytes() == before and list(tmp_path.glob(".*")) == []
