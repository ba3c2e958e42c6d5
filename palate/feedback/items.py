"""The queue as whoever leads a campaign looks at it: every prompt with how far it is, who holds what, and what nobody
could rank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from palate.feedback import care
from palate.feedback.queue import Lease, lease_of
from palate.feedback.store import Store, standing
from palate.feedback.tables import ITEMS, JUDGEMENTS, LEASES, PROMPTS, TOPICS
from palate.records import Judgement, Prompt

Show = Literal["all", "open", "begun", "enough", "gold", "upsetting", "unrankable"]
"""Which items: those that lack judgements; those of them that have some; that have enough; whose right order is known;
that may upset whoever reads them; that somebody could not rank."""


@dataclass(frozen=True)
class Row:
    """One prompt of the queue."""

    number: int
    """Names it in addresses: a prompt's id may be anything."""
    prompt: Prompt
    arm: str
    unsure: float | None
    """How unsure the reward model is, 0 to 0.693 (nats)."""
    gold: dict[str, int] | None
    given: int
    held: int
    """How many people have it in front of them now."""
    unrankable: int
    """How many people could not rank it."""
    topics: list[str]
    """What may upset in it (care.py)."""


@dataclass(frozen=True)
class Unrankable:
    """What one person said who could not rank the answers to a prompt."""

    number: int
    prompt: Prompt
    annotator: str
    reason: str
    rationale: str
    created_at: str


def rows(
    store: Store, campaign: str, overlap: int, *, show: Show, find: str, start: int, count: int, now: float
) -> tuple[int, list[Row]]:
    """(how many items of this kind there are, `count` of them from the `start`th on in the order they were laid). find:
    what their prompt holds."""
    which = [ITEMS.c.campaign == campaign, *_which(show, campaign, overlap)]
    if find:
        which.append(ITEMS.c.prompt_id.in_(_holding(campaign, find)))
    with store.reading("items") as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(ITEMS).where(*which)).scalar_one()
        query = sa.select(ITEMS).where(*which).order_by(ITEMS.c.place, ITEMS.c.number).offset(start).limit(count)
        return int(total), _rows(connection, campaign, connection.execute(query).all(), now)


def row(store: Store, campaign: str, number: int, *, now: float) -> Row | None:
    """One item by its number, None where the campaign has no such one."""
    query = sa.select(ITEMS).where(ITEMS.c.campaign == campaign, ITEMS.c.number == number)
    with store.reading("items") as connection:
        found = _rows(connection, campaign, connection.execute(query).all(), now)
    return found[0] if found else None


def held(store: Store, campaign: str, *, now: float) -> list[tuple[Lease, int, Prompt]]:
    """Every prompt that lies in front of somebody, with the number of its item, the first to be free first."""
    query = (
        sa.select(LEASES, ITEMS.c.number.label("item"))
        .join(ITEMS, sa.and_(ITEMS.c.campaign == LEASES.c.campaign, ITEMS.c.prompt_id == LEASES.c.prompt_id))
        .where(LEASES.c.campaign == campaign, LEASES.c.expires_at > now)
        .order_by(LEASES.c.expires_at)
    )
    with store.reading("leases") as connection:
        found = connection.execute(query).all()
        prompts = _prompts(connection, campaign, [row.prompt_id for row in found])
    return [(lease_of(row), row.item, prompts[row.prompt_id]) for row in found]


def unrankable(store: Store, campaign: str, *, most: int) -> list[Unrankable]:
    """What people could not rank and why, the newest first."""
    query = (
        sa.select(JUDGEMENTS.c.record, ITEMS.c.number.label("item"))
        .join(ITEMS, sa.and_(ITEMS.c.campaign == JUDGEMENTS.c.campaign, ITEMS.c.prompt_id == JUDGEMENTS.c.prompt_id))
        .where(*_could_not(campaign))
        .order_by(JUDGEMENTS.c.number.desc())
        .limit(most)
    )
    with store.reading("judgements") as connection:
        found = connection.execute(query).all()
        prompts = _prompts(connection, campaign, [row.record["prompt_id"] for row in found])
    return [
        Unrankable(
            number=row.item,
            prompt=prompts[row.record["prompt_id"]],
            annotator=row.record["annotator"],
            reason=row.record.get("cannot_rank", ""),
            rationale=row.record.get("rationale", ""),
            created_at=row.record.get("created_at", ""),
        )
        for row in found
    ]


def judged(store: Store, campaign: str, prompt_id: str) -> list[Judgement]:
    """What was said of one prompt and counts, in the order it came; who could not rank it is among it."""
    query = (
        sa.select(JUDGEMENTS.c.record)
        .where(JUDGEMENTS.c.prompt_id == prompt_id, *standing(campaign))
        .order_by(JUDGEMENTS.c.number)
    )
    with store.reading("judgements") as connection:
        found = [Judgement.from_json(record) for (record,) in connection.execute(query)]
    return [judgement for judgement in found if judgement.ranks or judgement.cannot_rank]


def _could_not(campaign: str) -> list[sa.ColumnElement[bool]]:
    """Which judgements say that somebody could not rank: a withdrawn one has no order either, but supersedes one."""
    reason = JUDGEMENTS.c.record["cannot_rank"].as_string()
    return [~JUDGEMENTS.c.ranked, reason != "", *standing(campaign, simulated=False)]


def _which(show: Show, campaign: str, overlap: int) -> list[sa.ColumnElement[bool]]:
    asked = ITEMS.c.gold.is_(None)
    if show == "open":
        return [asked, ITEMS.c.given < overlap]
    if show == "begun":
        return [asked, ITEMS.c.given < overlap, ITEMS.c.given > 0]
    if show == "enough":
        return [asked, ITEMS.c.given >= overlap]
    if show == "gold":
        return [ITEMS.c.gold.is_not(None)]
    if show == "upsetting":
        return [ITEMS.c.prompt_id.in_(sa.select(TOPICS.c.prompt_id).where(TOPICS.c.campaign == campaign))]
    if show == "unrankable":
        return [ITEMS.c.prompt_id.in_(sa.select(JUDGEMENTS.c.prompt_id).where(*_could_not(campaign)))]
    return []


def _holding(campaign: str, text: str) -> sa.Select[tuple[str]]:
    """Ids of the prompts whose messages hold `text`, in small letters and large. They are stored as JSON, in which
    letters that are not of English may be escapes: of those, large ones are found by large ones alone."""
    said = sa.func.lower(sa.cast(PROMPTS.c.record["messages"], sa.Text))
    spelt = {
        json.dumps(one, ensure_ascii=escaped)[1:-1].lower() for one in (text, text.lower()) for escaped in (False, True)
    }
    holds = [said.contains(one, autoescape=True) for one in sorted(spelt)]
    return sa.select(PROMPTS.c.id).where(PROMPTS.c.campaign == campaign, sa.or_(*holds))


def _rows(connection: sa.Connection, campaign: str, found: Sequence[Any], now: float) -> list[Row]:
    """Each with its prompt and its counts: asked for these few alone, because a database that sorts computes what it is
    asked of every row first."""
    ids = [row.prompt_id for row in found]
    leases = sa.select(LEASES.c.prompt_id, sa.func.count()).where(
        LEASES.c.campaign == campaign, LEASES.c.prompt_id.in_(ids), LEASES.c.expires_at > now
    )
    could_not = sa.select(JUDGEMENTS.c.prompt_id, sa.func.count()).where(*_could_not(campaign))
    in_hand = {id_: n for id_, n in connection.execute(leases.group_by(LEASES.c.prompt_id))}
    unranked = {id_: n for id_, n in connection.execute(could_not.group_by(JUDGEMENTS.c.prompt_id))}
    prompts = _prompts(connection, campaign, ids)
    topics = care.of_prompts(connection, campaign, ids)
    return [
        Row(
            number=row.number,
            prompt=prompts[row.prompt_id],
            arm=row.arm,
            unsure=row.unsure,
            gold=dict(row.gold) if row.gold else None,
            given=row.given,
            held=in_hand.get(row.prompt_id, 0),
            unrankable=unranked.get(row.prompt_id, 0),
            topics=topics.get(row.prompt_id, []),
        )
        for row in found
    ]


def _prompts(connection: sa.Connection, campaign: str, ids: Sequence[str]) -> dict[str, Prompt]:
    query = sa.select(PROMPTS.c.id, PROMPTS.c.record).where(PROMPTS.c.campaign == campaign, PROMPTS.c.id.in_(ids))
    return {row.id: Prompt.from_json(row.record) for row in connection.execute(query)}
