"""The tables of the feedback store. What a database has is decided by the migrations; a test holds the two against each
other.

Records are kept whole as JSON beside the columns that are searched. Times that are compared are seconds since 1970 in
UTC; times that are read are ISO 8601 text inside records.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()


def _records(name: str, *extra: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("campaign", sa.String(200), nullable=False),
        *extra,
        sa.Column("record", sa.JSON, nullable=False),
        sa.UniqueConstraint("campaign", "id"),
    )


DEMONSTRATIONS = _records(
    "demonstrations",
    sa.Column("author", sa.String(200), nullable=False, index=True),
    sa.Column("supersedes", sa.String(64), index=True),
)
PROMPTS = _records("prompts")
RESPONSES = _records("responses", sa.Column("prompt_id", sa.String(64), nullable=False, index=True))
JUDGEMENTS = _records(
    "judgements",
    sa.Column("prompt_id", sa.String(64), nullable=False, index=True),
    sa.Column("annotator", sa.String(200), nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("supersedes", sa.String(64)),
    sa.Index("ix_judgements_annotator", "campaign", "annotator"),
    sa.Index("ix_judgements_supersedes", "campaign", "supersedes"),
    sa.Column("ranked", sa.Boolean, nullable=False),  # False: withdrawn, or "cannot rank"
)
REVIEWS = sa.Table(
    "reviews",  # what a second person said of a demonstration; append-only, the last one counts
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("campaign", sa.String(200), nullable=False),
    sa.Column("demonstration_id", sa.String(64), nullable=False, index=True),
    sa.Column("reviewer", sa.String(200), nullable=False),
    sa.Column("verdict", sa.String(20), nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
)
CAMPAIGNS = sa.Table(
    "campaigns",  # what a lead set for one round of asking
    METADATA,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("settings", sa.JSON, nullable=False),
)
GUIDELINES = sa.Table(
    "guidelines",  # every version there was; the last one counts
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("campaign", sa.String(200), nullable=False, index=True),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
)
ITEMS = sa.Table(
    "items",  # the queue: what is asked about each prompt
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("campaign", sa.String(200), nullable=False),
    sa.Column("prompt_id", sa.String(64), nullable=False),
    sa.Column("place", sa.Integer, nullable=False),  # in the order nobody chose: asked.in_turn
    sa.Column("arm", sa.String(20), nullable=False),  # "random" or "unsure"
    sa.Column("unsure", sa.Float),  # of the reward model, 0 to ln 2 nats; none without one
    sa.Column("gold", sa.JSON(none_as_null=True)),  # response id -> rank that is known to be right
    sa.Column("given", sa.Integer, nullable=False),  # how many people's judgements stand, "cannot rank" among them
    sa.UniqueConstraint("campaign", "prompt_id"),
    sa.Index("ix_items_turn", "campaign", "given", "place"),
    sa.Index("ix_items_unsure", "campaign", "unsure"),
)
LEASES = sa.Table(
    "leases",  # who has which prompt in front of them, and in which order its answers are shown
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("campaign", sa.String(200), nullable=False),
    sa.Column("prompt_id", sa.String(64), nullable=False),
    sa.Column("annotator", sa.String(200), nullable=False),
    sa.Column("presented", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.UniqueConstraint("campaign", "prompt_id", "annotator"),
)
TOPICS = sa.Table(
    "topics",  # what may upset whoever reads a prompt or its answers
    METADATA,
    sa.Column("campaign", sa.String(200), primary_key=True),
    sa.Column("prompt_id", sa.String(64), primary_key=True),
    sa.Column("topic", sa.String(40), primary_key=True),
)
WISHES = sa.Table(
    "wishes",  # what somebody wants to see of that
    METADATA,
    sa.Column("account", sa.String(200), primary_key=True),
    sa.Column("content", sa.JSON, nullable=False),
)
EXPOSURES = sa.Table(
    "exposures",  # what of that came to somebody
    METADATA,
    sa.Column("account", sa.String(200), primary_key=True),
    sa.Column("campaign", sa.String(200), primary_key=True),
    sa.Column("prompt_id", sa.String(64), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
)
DRAFTS = sa.Table(
    "drafts",  # what somebody is in the middle of
    METADATA,
    sa.Column("account", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)
CHATS = sa.Table(
    "chats",  # conversations with models: a tree of turns each, its person's alone
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(200), nullable=False, index=True),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)
DUELS = sa.Table(
    "duels",  # two answers of a blind chat, and which models gave them; only the server knows until somebody chose
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(200), nullable=False, index=True),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
ACCOUNTS = sa.Table(
    "accounts",
    METADATA,
    sa.Column("name", sa.String(200), primary_key=True),  # the pseudonym in every record
    sa.Column("folded", sa.String(200), nullable=False, unique=True),  # so that no two names look alike
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("password", sa.String(400), nullable=False),  # argon2id
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("disabled_at", sa.Float),
)
SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),  # SHA-256 of what the cookie holds
    sa.Column("account", sa.String(200), nullable=False, index=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
)
INVITES = sa.Table(
    "invites",
    METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("account", sa.String(200)),  # whose password it sets anew; none where somebody joins
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_by", sa.String(200)),
)
TOKENS = sa.Table(
    "tokens",  # for programs
    METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(200), nullable=False, index=True),
    sa.Column("label", sa.String(200), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float),
    sa.Column("revoked_at", sa.Float),
)
AUDIT = sa.Table(
    "audit",  # who did what; a trigger refuses changes and deletions
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("action", sa.String(80), nullable=False),
    sa.Column("what", sa.JSON, nullable=False),
)
RECORDS = (DEMONSTRATIONS, PROMPTS, RESPONSES, JUDGEMENTS)
