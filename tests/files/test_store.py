"""The feedback store: a damaged SQLite file, and records in it that are none."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from files.damage import Damaged, anything, blocks, check, cuts, equal, flips, tails

from palate.errors import BadInput, PalateError
from palate.feedback.store import open_store
from palate.records import Judgement, Prompt, Response, conversation

COUNT = 150
SAME = Judgement(id="j2", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2})
"""The third judgement of `good`."""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def everything(path: Path) -> list[Any]:
    """What a reader gets, in a copy so that nothing is written to the file; and that more can be stored."""
    copy = path.with_name("copy.sqlite")
    for left in path.parent.glob("copy.sqlite*"):
        left.unlink()
    copy.write_bytes(path.read_bytes())
    try:
        with open_store(url(copy)) as store:
            found = [store.prompts("c"), store.responses("c"), store.judgements("c"), store.count_judgements("c")]
            store.revision()
            store.add_prompts([Prompt(id="more", messages=conversation("more?"), family="f")], "other")
            store.add_judgements([SAME], "c")
            return found
    except PalateError as error:
        raise PalateError(str(error).replace("copy.sqlite", path.name)) from None


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("store") / "feedback.sqlite"
    with open_store(url(path)) as store:
        store.add_prompts([Prompt(id="p", messages=conversation("What?"), family="f")], "c")
        store.add_responses([Response(id=i, prompt_id="p", text=f"the answer {i} " * 9) for i in "abc"], "c")
        store.add_judgements(
            [Judgement(id=f"j{n}", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2}) for n in range(COUNT)], "c"
        )
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert not path.with_name("feedback.sqlite-wal").exists()
    return path.read_bytes()


def test_a_cut_store_is_refused_and_not_read_in_part(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    path.write_bytes(good)

    def some() -> list[Damaged]:
        return [(what, content) for what, content in cuts(good) if content]

    assert check(everything, path, iter(some()), equal)["refused"] == len(some())


@pytest.mark.parametrize("last_page", [b"", bytes(4096)])
def test_a_store_that_lost_a_page_is_refused_when_it_is_opened(last_page: bytes, good: bytes, tmp_path: Path) -> None:
    """Not when somebody first reads the page that is missing: until then others would have stored more in it."""
    (tmp_path / "feedback.sqlite").write_bytes(good[:-4096] + last_page)
    with pytest.raises(BadInput, match="cannot be opened"):
        open_store(url(tmp_path / "feedback.sqlite"))


def test_flipped_and_lost_blocks(good: bytes, tmp_path: Path, times: int) -> None:
    path = tmp_path / "feedback.sqlite"
    path.write_bytes(good)
    for damaged in (flips(good, 25 * times, times), blocks(good, 25 * times, times), tails(good)):
        check(everything, path, damaged, anything)


def changed(good: bytes, tmp_path: Path, *statements: str) -> str:
    path = tmp_path / "feedback.sqlite"
    path.write_bytes(good)
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return url(path)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"id": "j1"}',
        '{"a": ' + "[" * 5000,
        json.dumps({"id": 5, "ranks": None}),
    ],
    ids=lambda text: text[:12],
)
def test_a_record_that_is_none(record: str, good: bytes, tmp_path: Path) -> None:
    with open_store(changed(good, tmp_path, f"UPDATE judgements SET record = '{record}' WHERE number = 3")) as store:
        with pytest.raises(BadInput, match=r"feedback\.sqlite.*judgements.*restore") as caught:
            store.judgements("c")
        assert "\n" not in str(caught.value)
        if record[-1:] not in ("}", "]", '"', "l"):  # no JSON at all
            with pytest.raises(PalateError, match=r"feedback\.sqlite.*nothing of this was stored"):
                store.add_judgements([SAME], "c")
        else:
            with pytest.raises(BadInput, match="another record with the id j2"):
                store.add_judgements([SAME], "c")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE judgements",
        "ALTER TABLE judgements RENAME COLUMN record TO records",
        "UPDATE alembic_version SET version_num = 'from_the_future'",
        "DROP TABLE alembic_version",
    ],
)
def test_another_schema(statement: str, good: bytes, tmp_path: Path) -> None:
    def use() -> None:
        with open_store(changed(good, tmp_path, statement)) as store:
            store.judgements("c")

    with pytest.raises(BadInput, match=r"feedback\.sqlite") as caught:
        use()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "no url",
        "sqlite:///",
        "nosuch://x",
        "sqlite:////nowhere/at/all/f.sqlite",
        "sqlite:///a\x00b",
        "mysql://x",
    ],
)
def test_a_url_that_is_none(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if bad == "sqlite:///":
        open_store(bad).__exit__(None, None, None)  # a store in memory
        return
    with pytest.raises(BadInput) as caught:
        open_store(bad)
    assert "\n" not in str(caught.value)
