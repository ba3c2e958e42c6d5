"""The schema that migrations make is the one the program believes in, and what people stored before stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import palate.feedback
from palate.feedback.store import open_store
from palate.feedback.tables import METADATA
from palate.records import Demonstration, Judgement, Prompt, Response, conversation


def migrate(url: str, to: str, *, down: bool = False) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(palate.feedback.__file__).parent / "migrations"))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, to)
    engine.dispose()


def run(url: str, statement: str, rows: list[dict[str, Any]] | None = None) -> Any:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), *([rows] if rows else []))
        found = result.all() if result.returns_rows else None
    engine.dispose()
    return found


def test_migrations_make_the_tables_that_the_program_has(store_url: str) -> None:
    open_store(store_url).__exit__(None, None, None)
    engine = sa.create_engine(store_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = [one for one in compare_metadata(context, METADATA)]
    engine.dispose()
    assert found == []


def test_what_the_first_version_stored_is_still_there(store_url: str) -> None:
    migrate(store_url, "0001")
    prompt = Prompt(id="p", messages=conversation("What?"), family="f")
    responses = [Response(id=id_, prompt_id="p", text=id_) for id_ in "ab"]
    judgements = [
        Judgement(id="1", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2}),
        Judgement(id="2", prompt_id="p", annotator="y", ranks={}),
        Judgement(id="3", prompt_id="p", annotator="x", ranks={"a": 2, "b": 1}, supersedes="1"),
    ]
    told = Demonstration(id="d", messages=conversation("What?", "That."), family="f", author="cook")

    def row(record: Any, **more: Any) -> dict[str, Any]:
        before = {k: v for k, v in record.to_json().items() if k not in ("cannot_rank", "guidelines_version")}
        return {"id": record.id, "campaign": "c", "record": json.dumps(before)} | more

    run(store_url, "INSERT INTO prompts (id, campaign, record) VALUES (:id, :campaign, :record)", [row(prompt)])
    run(store_url, "INSERT INTO demonstrations (id, campaign, record) VALUES (:id, :campaign, :record)", [row(told)])
    run(
        store_url,
        "INSERT INTO responses (id, campaign, prompt_id, record) VALUES (:id, :campaign, 'p', :record)",
        [row(response) for response in responses],
    )
    run(
        store_url,
        "INSERT INTO judgements (id, campaign, prompt_id, annotator, simulated, supersedes, record) "
        "VALUES (:id, :campaign, 'p', :annotator, :simulated, :supersedes, :record)",
        [row(j, annotator=j.annotator, simulated=False, supersedes=j.supersedes) for j in judgements],
    )
    with open_store(store_url) as store:
        assert store.prompts("c") == [prompt] and store.demonstrations("c") == [told]
        assert store.judgements("c") == [judgements[2]] and store.count_judgements("c") == 1
        assert store.judgements("c", include_superseded=True) == judgements
        assert store.add_judgements(judgements, "c") == 0  # and it is the same for whoever stores it again
    assert run(store_url, "SELECT author FROM demonstrations") == [("cook",)]
    assert run(store_url, "SELECT id FROM judgements WHERE NOT ranked") == [("2",)]


def test_the_way_back(store_url: str) -> None:
    open_store(store_url).__exit__(None, None, None)
    migrate(store_url, "0001", down=True)
    with open_store(store_url) as store:
        assert store.campaigns() == []
