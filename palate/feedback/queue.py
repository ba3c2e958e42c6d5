"""Who is asked what next, so that each prompt gets the judgements it should have and none too many.

A lease is one prompt in front of one person, with the order its answers are shown in. It counts towards the overlap
until it expires; what is handed in later is kept all the same, marked late.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from palate.feedback import asked
from palate.feedback.campaigns import Settings
from palate.feedback.store import SOME, Store, given, standing
from palate.feedback.tables import ITEMS, JUDGEMENTS, LEASES, TOPICS
from palate.records import Prompt, Response

RANDOM, UNSURE = "random", "unsure"
MOST_ANSWERS = 9
"""Answers to one prompt: a person cannot hold more in mind, and there are nine digits."""


@dataclass(frozen=True)
class Lease:
    """One prompt in front of one person."""

    id: str
    prompt_id: str
    annotator: str
    presented: tuple[str, ...]
    """Response ids in the order they are shown."""
    created_at: float
    expires_at: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Progress:
    """Of one campaign, in prompts."""

    items: int
    enough: int
    """Have as many judgements as they should."""
    begun: int
    """Have some."""
    held: int
    """Lie in front of somebody now."""
    wanted: int
    """Judgements it takes to give every prompt enough."""
    given: int
    """Of these so many are there."""


# What a claim asks the store, made once: making them costs more than asking. Parameters: campaign, annotator, now,
# overlap, skipped (prompts that a person passed over) and avoided (topics that must not come to them).
CAMPAIGN: sa.BindParameter[Any] = sa.bindparam("campaign")
ANNOTATOR: sa.BindParameter[Any] = sa.bindparam("annotator")
NOW: sa.BindParameter[Any] = sa.bindparam("now")
OVERLAP: sa.BindParameter[Any] = sa.bindparam("overlap")
SKIPPED: sa.BindParameter[Any] = sa.bindparam("skipped", expanding=True)
AVOIDED: sa.BindParameter[Any] = sa.bindparam("avoided", expanding=True)
UPSETTING = sa.select(TOPICS.c.prompt_id).where(TOPICS.c.campaign == CAMPAIGN, TOPICS.c.topic.in_(AVOIDED))
JUDGED = sa.select(JUDGEMENTS.c.prompt_id).where(
    JUDGEMENTS.c.annotator == ANNOTATOR,
    sa.or_(JUDGEMENTS.c.ranked, JUDGEMENTS.c.supersedes.is_(None)),
    *standing(CAMPAIGN),
)
HELD = (
    sa.select(sa.func.count())
    .where(
        LEASES.c.campaign == CAMPAIGN,
        LEASES.c.prompt_id == ITEMS.c.prompt_id,
        LEASES.c.annotator != ANNOTATOR,
        LEASES.c.expires_at > NOW,
    )
    .scalar_subquery()
)
"""How many others have an item in front of them."""
OPEN = (
    ITEMS.c.campaign == CAMPAIGN,
    ITEMS.c.gold.is_(None),
    ITEMS.c.given + HELD < OVERLAP,
    ITEMS.c.prompt_id.not_in(JUDGED),
    ITEMS.c.prompt_id.not_in(SKIPPED),
    ITEMS.c.prompt_id.not_in(UPSETTING),
)
LEFT = sa.select(sa.func.count()).select_from(ITEMS).where(*OPEN)


@dataclass(frozen=True)
class Questions:
    """Which prompt comes next, of those that are begun, that others have in front of them, and that nobody has."""

    begun: sa.Select[tuple[str]]
    held_by_others: sa.Select[tuple[str]]
    new: sa.Select[tuple[str]]
    new_by_arm: sa.Select[tuple[str]]


def _questions(one: sa.Select[tuple[str]]) -> Questions:
    others = LEASES.alias("others")
    this = sa.and_(ITEMS.c.campaign == others.c.campaign, ITEMS.c.prompt_id == others.c.prompt_id)
    not_mine = (others.c.campaign == CAMPAIGN, others.c.annotator != ANNOTATOR, others.c.expires_at > NOW)
    return Questions(
        begun=one.where(ITEMS.c.given > 0, ITEMS.c.given < OVERLAP).order_by(ITEMS.c.place),
        # from the few leases to their items, not the other way round
        held_by_others=one.join_from(others, ITEMS, this).where(*not_mine).order_by(others.c.created_at),
        new=one.where(ITEMS.c.given == 0).order_by(ITEMS.c.place),
        new_by_arm=one.where(ITEMS.c.given == 0).order_by(
            sa.case((ITEMS.c.arm == sa.bindparam("arm"), 0), else_=1),
            sa.case((ITEMS.c.arm == UNSURE, -sa.func.coalesce(ITEMS.c.unsure, 0.0)), else_=0.0),
            ITEMS.c.place,
        ),
    )


ONE = sa.select(ITEMS.c.prompt_id).where(*OPEN).limit(1)
ALL = _questions(ONE)
FREE = _questions(ONE.with_for_update(skip_locked=True, of=ITEMS))
"""PostgreSQL: but what somebody is given, or hands in, this moment. It stays ours to the end of the transaction."""
THIS = (ITEMS.c.campaign == CAMPAIGN, ITEMS.c.prompt_id == sa.bindparam("prompt_id"))
HOLD = sa.select(ITEMS.c.number).where(*THIS).with_for_update()
STILL = sa.select(ITEMS.c.number).where(*THIS, sa.or_(ITEMS.c.gold.is_not(None), ITEMS.c.given + HELD < OVERLAP))
MOST_UNSURE = sa.select(sa.func.max(ITEMS.c.unsure)).where(ITEMS.c.campaign == CAMPAIGN)
"""None where no reward model was asked."""
GOLD = sa.select(ITEMS.c.prompt_id).where(
    ITEMS.c.campaign == CAMPAIGN,
    ITEMS.c.gold.is_not(None),
    ITEMS.c.prompt_id.not_in(JUDGED),
    ITEMS.c.prompt_id.not_in(UPSETTING),
)
MINE_NOW = (
    sa.select(LEASES)
    .where(
        LEASES.c.campaign == CAMPAIGN,
        LEASES.c.annotator == ANNOTATOR,
        LEASES.c.expires_at > NOW,
        LEASES.c.prompt_id.not_in(SKIPPED),
    )
    .order_by(LEASES.c.created_at)
    .limit(1)
)


class Queue:
    """Of one campaign. `now` is seconds since 1970."""

    def __init__(self, store: Store, campaign: str) -> None:
        self.store, self.campaign = store, campaign

    def lay(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        *,
        random_share: float,
        unsure: Mapping[str, float] | None = None,
    ) -> int:
        """Put what can be ranked into the queue; what is in it already keeps its place and arm, and is told how unsure
        the reward model is of it now. How many prompts are new is returned."""
        can = asked.in_turn(asked.rankable(prompts, responses))
        told = unsure or {}
        with self.store.writing() as connection:
            known = self._known()
            rows = [
                {
                    "campaign": self.campaign,
                    "prompt_id": prompt.id,
                    "place": len(known) + place,
                    "arm": RANDOM if _share(self.campaign, prompt.id) < random_share else UNSURE,
                    "unsure": told.get(prompt.id),
                    "given": 0,
                }
                for place, prompt in enumerate(p for p in can if p.id not in known)
            ]
            if rows:
                connection.execute(sa.insert(ITEMS), rows)
            for start in range(0, len(rows), SOME):  # the terminal may have been there first
                part = [row["prompt_id"] for row in rows[start : start + SOME]]
                connection.execute(
                    sa.update(ITEMS)
                    .where(ITEMS.c.campaign == self.campaign, ITEMS.c.prompt_id.in_(part))
                    .values(given=given(self.campaign, ITEMS.c.prompt_id))
                )
            again = [{"one": id_, "value": told[id_]} for id_ in sorted(known & set(told))]
            if again:
                connection.execute(
                    sa.update(ITEMS)
                    .where(ITEMS.c.campaign == self.campaign, ITEMS.c.prompt_id == sa.bindparam("one"))
                    .values(unsure=sa.bindparam("value")),
                    again,
                )
        return len(rows)

    def lacks(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> bool:
        """Whether something that can be ranked is not in it."""
        known = self._known()
        return any(prompt.id not in known for prompt in asked.rankable(prompts, responses))

    def _known(self) -> set[str]:
        with self.store.reading("items") as connection:
            return set(
                connection.execute(sa.select(ITEMS.c.prompt_id).where(ITEMS.c.campaign == self.campaign)).scalars()
            )

    def claim(
        self,
        annotator: str,
        settings: Settings,
        *,
        now: float,
        rng: random.Random,
        skipped: Sequence[str] = (),
        avoided: Sequence[str] = (),
    ) -> Lease | None:
        """The next prompt for a person: what already lies in front of them, or a new one, its answers in an order of
        chance; None when nothing is left. `skipped` are prompts they passed over and get only when all else is done;
        what is of a topic in `avoided` they do not get."""
        told = self._told(annotator, settings, now) | {"avoided": list(avoided)}
        while True:  # PostgreSQL: until what was chosen was still open when it was ours
            with self.store.writing() as connection:
                if self.store.is_postgresql:  # somebody with two windows gets the same prompt in both
                    whose = sa.func.hashtext(f"claim {self.campaign} {annotator}")
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(whose)))
                held = connection.execute(MINE_NOW, told | {"skipped": list(skipped)}).first()
                if held is not None:
                    return lease_of(held)
                prompt_id = self._next(connection, settings, rng, set(skipped), told)
                if prompt_id is None:
                    return None
                if self._is_open(connection, prompt_id, told):
                    return self._lease(connection, annotator, settings, prompt_id, now=now, rng=rng)

    def _is_open(self, connection: sa.Connection, prompt_id: str, told: dict[str, Any]) -> bool:
        """Whether a prompt lacks judgements, now that nobody else can take it. On SQLite nobody could meanwhile. A
        statement of PostgreSQL sees what was stored when it began, so the place that was free may have gone to somebody
        else before its row was ours."""
        if not self.store.is_postgresql:
            return True
        this = told | {"prompt_id": prompt_id}
        connection.execute(HOLD, this)
        return connection.execute(STILL, this).first() is not None

    def _lease(
        self,
        connection: sa.Connection,
        annotator: str,
        settings: Settings,
        prompt_id: str,
        *,
        now: float,
        rng: random.Random,
    ) -> Lease:
        given_by_models = (
            response
            for response in self.store.responses_to(prompt_id, self.campaign)
            if "rewrite_of" not in response.extra
        )
        shown = asked.answers(given_by_models)[prompt_id]
        order = tuple(r.id for r in rng.sample(shown, min(len(shown), MOST_ANSWERS)))
        expires = now + 60.0 * settings.lease_minutes
        lease = Lease(secrets.token_hex(16), prompt_id, annotator, order, now, expires)
        connection.execute(
            sa.delete(LEASES).where(  # an expired one of theirs
                LEASES.c.campaign == self.campaign,
                LEASES.c.prompt_id == prompt_id,
                LEASES.c.annotator == annotator,
            )
        )
        connection.execute(
            sa.insert(LEASES).values(
                id=lease.id,
                campaign=self.campaign,
                prompt_id=prompt_id,
                annotator=annotator,
                presented=list(order),
                created_at=now,
                expires_at=expires,
            )
        )
        return lease

    def _next(
        self, connection: sa.Connection, settings: Settings, rng: random.Random, skipped: set[str], told: dict[str, Any]
    ) -> str | None:
        """A gold item now and then; otherwise what is begun, then what somebody else has in front of them, then what
        nobody has; what the person skipped last."""

        def first(question: sa.Select[Any], **more: Any) -> str | None:
            found: str | None = connection.execute(question, told | more).scalar()
            return found

        if settings.gold_share and rng.random() < settings.gold_share:
            # In an order of its own for each person, so that nobody can tell another what comes next.
            names: list[str] = sorted(set(connection.execute(GOLD, told).scalars()) - skipped)
            if names:
                return rng.choice(names)
        arm = RANDOM if rng.random() < settings.random_share else UNSURE
        for passed_over in (sorted(skipped), []) if skipped else ([],):
            # When nothing is free what is taken is waited for: whoever takes it may leave a place.
            for which in (FREE, ALL) if self.store.is_postgresql else (ALL,):
                begun = first(which.begun, skipped=passed_over) or first(which.held_by_others, skipped=passed_over)
                if begun is not None:
                    return begun
                new = which.new if first(MOST_UNSURE) is None else which.new_by_arm
                if (found := first(new, skipped=passed_over, arm=arm)) is not None:
                    return found
        return None

    def left(self, annotator: str, settings: Settings, *, now: float, avoided: Sequence[str] = ()) -> int:
        """How many prompts a person could still be given."""
        told = self._told(annotator, settings, now) | {"avoided": list(avoided), "skipped": []}
        with self.store.reading("items") as connection:
            return int(connection.execute(LEFT, told).scalar_one())

    def _told(self, annotator: str, settings: Settings, now: float) -> dict[str, Any]:
        return {"campaign": self.campaign, "annotator": annotator, "now": now, "overlap": settings.overlap}

    def lease(self, id_: str) -> Lease | None:
        """The lease with this id, expired or not."""
        query = sa.select(LEASES).where(LEASES.c.campaign == self.campaign, LEASES.c.id == id_)
        with self.store.reading("leases") as connection:
            row = connection.execute(query).one_or_none()
        return lease_of(row) if row is not None else None

    def renew(self, id_: str, settings: Settings, *, now: float) -> None:
        """Whoever is still at it keeps it."""
        with self.store.writing() as connection:
            connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.campaign == self.campaign, LEASES.c.id == id_, LEASES.c.expires_at > now)
                .values(expires_at=now + 60.0 * settings.lease_minutes)
            )

    def release(self, id_: str) -> None:
        """Give a prompt back."""
        with self.store.writing() as connection:
            connection.execute(sa.delete(LEASES).where(LEASES.c.campaign == self.campaign, LEASES.c.id == id_))

    def expire(self, id_: str, *, now: float) -> None:
        """Let others have a prompt that somebody holds. What that person hands in later is kept, as what is late is."""
        with self.store.writing() as connection:
            connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.campaign == self.campaign, LEASES.c.id == id_, LEASES.c.expires_at > now)
                .values(expires_at=now)
            )

    def progress(self, settings: Settings, *, now: float) -> Progress:
        """How far the campaign is; gold items, which everybody gets, are not in it."""
        mine = [ITEMS.c.campaign == self.campaign, ITEMS.c.gold.is_(None)]
        up_to = sa.case((ITEMS.c.given < settings.overlap, ITEMS.c.given), else_=settings.overlap)
        told = sa.select(
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(sa.case((ITEMS.c.given >= settings.overlap, 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(sa.case((ITEMS.c.given > 0, 1), else_=0)), 0),
            sa.func.coalesce(sa.func.sum(up_to), 0),
        ).where(*mine)
        held = sa.select(sa.func.count()).where(LEASES.c.campaign == self.campaign, LEASES.c.expires_at > now)
        with self.store.reading("items") as connection:
            items, enough, begun, has = connection.execute(told).one()
            return Progress(
                items=int(items),
                enough=int(enough),
                begun=int(begun),
                held=int(connection.execute(held).scalar_one()),
                wanted=int(items) * settings.overlap,
                given=int(has),
            )

    def set_gold(self, prompt_id: str, ranks: Mapping[str, int] | None) -> None:
        """Say what the right order of a prompt's answers is (response id -> rank), or that it is not known."""
        with self.store.writing() as connection:
            connection.execute(
                sa.update(ITEMS)
                .where(ITEMS.c.campaign == self.campaign, ITEMS.c.prompt_id == prompt_id)
                .values(gold=dict(ranks) if ranks else sa.null())
            )

    def is_gold(self, prompt_id: str) -> bool:
        """Whether the right order of a prompt's answers is known."""
        query = sa.select(ITEMS.c.gold).where(ITEMS.c.campaign == self.campaign, ITEMS.c.prompt_id == prompt_id)
        with self.store.reading("items") as connection:
            return connection.execute(query).scalar() is not None

    def gold(self) -> dict[str, dict[str, int]]:
        """Prompt id -> the right ranks of its answers."""
        query = sa.select(ITEMS.c.prompt_id, ITEMS.c.gold).where(
            ITEMS.c.campaign == self.campaign, ITEMS.c.gold.is_not(None)
        )
        with self.store.reading("items") as connection:
            return {prompt_id: dict(ranks) for prompt_id, ranks in connection.execute(query)}


def lease_of(row: Any) -> Lease:
    """A row of LEASES."""
    return Lease(row.id, row.prompt_id, row.annotator, tuple(row.presented), row.created_at, row.expires_at)


def _share(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    return random.Random("\x1f".join(parts)).random()
