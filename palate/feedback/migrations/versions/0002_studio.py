"""What the studio needs: the queue with its leases, reviews, guidelines, drafts, people, and the audit log.

Judgements and demonstrations get columns that are searched; what is stored already is read for them.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _columns()
    _people()
    _work()
    _audit()


def _columns() -> None:
    with op.batch_alter_table("judgements") as table:
        table.add_column(sa.Column("ranked", sa.Boolean, nullable=False, server_default=sa.true()))
    with op.batch_alter_table("demonstrations") as table:
        table.add_column(sa.Column("author", sa.String(200), nullable=False, server_default=""))
        table.add_column(sa.Column("supersedes", sa.String(64)))
    connection = op.get_bind()
    for number, record in connection.execute(sa.text("SELECT number, record FROM judgements")).all():
        if not _read(record)["ranks"]:
            connection.execute(
                sa.text("UPDATE judgements SET ranked = :no WHERE number = :n"), {"no": False, "n": number}
            )
    for number, record in connection.execute(sa.text("SELECT number, record FROM demonstrations")).all():
        author = {"who": _read(record).get("author", "")[:200], "n": number}
        connection.execute(sa.text("UPDATE demonstrations SET author = :who WHERE number = :n"), author)
    op.create_index("ix_judgements_annotator", "judgements", ["campaign", "annotator"])
    op.create_index("ix_judgements_supersedes", "judgements", ["campaign", "supersedes"])
    op.create_index("ix_demonstrations_author", "demonstrations", ["author"])
    op.create_index("ix_demonstrations_supersedes", "demonstrations", ["supersedes"])


def _read(record: Any) -> dict[str, Any]:
    """SQLite gives JSON back as text."""
    return dict(json.loads(record) if isinstance(record, str) else record)


def _people() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("folded", sa.String(200), nullable=False, unique=True),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("password", sa.String(400), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("disabled_at", sa.Float),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False, index=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "invites",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("roles", sa.JSON, nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("account", sa.String(200)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("used_by", sa.String(200)),
    )
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False, index=True),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
    )
    op.create_table(
        "drafts",
        sa.Column("account", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )


def _work() -> None:
    op.create_table(
        "campaigns",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("settings", sa.JSON, nullable=False),
    )
    op.create_table(
        "guidelines",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("campaign", sa.String(200), nullable=False, index=True),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
    )
    op.create_table(
        "reviews",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("demonstration_id", sa.String(64), nullable=False, index=True),
        sa.Column("reviewer", sa.String(200), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "items",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("prompt_id", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("arm", sa.String(20), nullable=False),
        sa.Column("unsure", sa.Float),
        sa.Column("gold", sa.JSON),
        sa.Column("given", sa.Integer, nullable=False),
        sa.UniqueConstraint("campaign", "prompt_id"),
    )
    op.create_index("ix_items_turn", "items", ["campaign", "given", "place"])
    op.create_index("ix_items_unsure", "items", ["campaign", "unsure"])
    op.create_table(
        "leases",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("prompt_id", sa.String(64), nullable=False),
        sa.Column("annotator", sa.String(200), nullable=False),
        sa.Column("presented", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.UniqueConstraint("campaign", "prompt_id", "annotator"),
    )
    op.create_table(
        "topics",
        sa.Column("campaign", sa.String(200), primary_key=True),
        sa.Column("prompt_id", sa.String(64), primary_key=True),
        sa.Column("topic", sa.String(40), primary_key=True),
    )
    op.create_table(
        "wishes",
        sa.Column("account", sa.String(200), primary_key=True),
        sa.Column("content", sa.JSON, nullable=False),
    )
    op.create_table(
        "exposures",
        sa.Column("account", sa.String(200), primary_key=True),
        sa.Column("campaign", sa.String(200), primary_key=True),
        sa.Column("prompt_id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "chats",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False, index=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "duels",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(200), nullable=False, index=True),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("action", sa.String(80), nullable=False),
        sa.Column("what", sa.JSON, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{what.lower()} BEFORE {what} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
            )
        # INSERT OR REPLACE deletes without asking a trigger for deletions.
        op.execute(
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "
            "WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number) "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
    else:
        op.execute(
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
            "FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()"
        )
        op.execute(
            "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_update")
        op.execute("DROP TRIGGER audit_no_delete")
        op.execute("DROP TRIGGER audit_no_replace")
    else:
        op.execute("DROP TRIGGER audit_append_only ON audit")
        op.execute("DROP TRIGGER audit_no_truncate ON audit")
        op.execute("DROP FUNCTION audit_is_append_only")
    for name in ("audit", "duels", "chats", "leases", "items", "reviews", "guidelines", "campaigns", "drafts", "tokens",
                 "topics", "wishes", "exposures",
                 "invites", "sessions", "accounts"):  # fmt: skip
        op.drop_table(name)
    op.drop_index("ix_judgements_annotator", "judgements")
    op.drop_index("ix_judgements_supersedes", "judgements")
    op.drop_index("ix_demonstrations_author", "demonstrations")
    op.drop_index("ix_demonstrations_supersedes", "demonstrations")
    with op.batch_alter_table("judgements") as table:
        table.drop_column("ranked")
    with op.batch_alter_table("demonstrations") as table:
        table.drop_column("author")
        table.drop_column("supersedes")
