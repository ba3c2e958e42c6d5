"""The four kinds of record.

Each is kept whole as JSON beside the columns that are searched: a field that is added to a record later needs no
migration, and what a foreign format held is never lost.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A number is never given again, also when what had it is deleted: who reads on from the last number relies on it.
    op.create_table(
        "demonstrations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sa.UniqueConstraint("campaign", "id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "prompts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sa.UniqueConstraint("campaign", "id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "responses",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("prompt_id", sa.String(64), nullable=False, index=True),
        sa.Column("record", sa.JSON, nullable=False),
        sa.UniqueConstraint("campaign", "id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "judgements",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(200), nullable=False),
        sa.Column("prompt_id", sa.String(64), nullable=False, index=True),
        sa.Column("annotator", sa.String(200), nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("supersedes", sa.String(64)),
        sa.Column("record", sa.JSON, nullable=False),
        sa.UniqueConstraint("campaign", "id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in ("judgements", "responses", "prompts", "demonstrations"):
        op.drop_table(table)
