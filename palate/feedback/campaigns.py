"""What a lead decides for a run or a file: how many judge each prompt, how long one is theirs, the guidelines."""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import sqlalchemy as sa

from palate.errors import BadInput
from palate.feedback.people import note
from palate.feedback.store import Store, put
from palate.feedback.tables import CAMPAIGNS, GUIDELINES
from palate.records import Record

BOUNDS: Mapping[str, tuple[float, float]] = {
    "overlap": (1, 100),
    "lease_minutes": (1, 10_080),
    "random_share": (0, 1),
    "gold_share": (0, 1),
}
"""The least and the most of a setting."""


@dataclass(frozen=True, kw_only=True)
class Settings(Record):
    """Of all rounds of asking of one run. Raises ValueError where a value cannot be."""

    overlap: int = 1
    """How many people judge each prompt."""
    lease_minutes: int = 30
    """How long a prompt is somebody's before another person may have it."""
    random_share: float = 0.3
    """Share of prompts that are asked whatever the reward model thinks, beside those it is least sure of."""
    gold_share: float = 0.1
    """Share of what people see whose right order is known, where a lead named any."""
    criteria: bool = True
    """Whether answers are scored on accuracy, helpfulness, safety and clarity, too."""
    review: bool = True
    """Whether a demonstration counts only when a second person accepted it."""
    topics: str | None = None
    """What may upset whoever reads it: a topic and its words in a line (care.py); None for what Palate comes with."""

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is from {low:,} to {high:,}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Guidelines:
    """One version of what people are told to go by (Markdown). `version` is "sha256:" and a hash of the text."""

    version: str
    text: str
    author: str
    created_at: str


def settings(store: Store, name: str, default: Settings | None = None) -> Settings:
    """What was set for the run or file of this name, `default` where nothing was."""
    query = sa.select(CAMPAIGNS.c.settings).where(CAMPAIGNS.c.name == name)
    with store.reading("campaigns") as connection:
        told = connection.execute(query).scalar_one_or_none()
    return Settings.from_json(told) if told is not None else default or Settings()


def decide(store: Store, name: str, chosen: Settings) -> None:
    """Set them."""
    with store.writing() as connection:
        put(connection, CAMPAIGNS, name=name, settings=chosen.to_json())


def guidelines(store: Store, name: str) -> Guidelines:
    """The version that counts now: the last one written, or the one that Palate comes with."""
    query = sa.select(GUIDELINES).where(GUIDELINES.c.campaign == name).order_by(GUIDELINES.c.number.desc()).limit(1)
    with store.reading("guidelines") as connection:
        row = connection.execute(query).one_or_none()
    if row is not None:
        return Guidelines(row.version, row.text, row.author, row.created_at)
    return _shipped()


@functools.lru_cache(maxsize=1)
def _shipped() -> Guidelines:
    text = resources.files("palate.feedback").joinpath("guidelines.md").read_text(encoding="utf-8")
    return Guidelines(version_of(text), text, "", "")


def write_guidelines(store: Store, name: str, text: str, author: str) -> Guidelines:
    """A new version, from now on stored with every judgement. Raises BadInput when it is empty."""
    if not text.strip():
        raise BadInput("the guidelines are empty.", "guidelines", "Write what people should go by.")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = Guidelines(version_of(text), text, author, now)
    with store.writing() as connection:
        connection.execute(
            sa.insert(GUIDELINES).values(campaign=name, version=made.version, text=text, author=author, created_at=now)
        )
        note(connection, author, "wrote guidelines", version=made.version)
    return made


def version_of(text: str) -> str:
    """What is stored with a judgement: which text its annotator was told to go by."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
