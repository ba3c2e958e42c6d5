"""What people wrote as examples: handed in, mended, looked at by a second person. Append-only: a change is a new
demonstration that supersedes the old one, and of several reviews of one the last counts."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from palate.errors import BadInput
from palate.feedback.store import SOME, Store, append_demonstrations
from palate.feedback.tables import DEMONSTRATIONS, LEASES, PROMPTS, REVIEWS
from palate.feedback.words import id_of
from palate.records import Conversation, Demonstration, stable_id

WAITING, ACCEPTED, RETURNED, REJECTED, WITHDRAWN = "waiting", "accepted", "returned", "rejected", "withdrawn"
VERDICTS = (ACCEPTED, RETURNED, REJECTED)
"""What a second person can say. An author can take a demonstration back: WITHDRAWN."""
HOLD_SECONDS = 600.0
"""How long one that lies in front of a reviewer is shown to no other."""


@dataclass(frozen=True)
class Standing:
    """One demonstration that no other supersedes, without its words."""

    number: int
    """Grows in the order in which they came."""
    id: str
    author: str
    status: str
    reviewer: str
    """Who said so; empty where nobody did."""
    comment: str
    prompt_id: str
    """Of what it answers; empty where it is not known."""
    skill: str

    def counts(self, *, review: bool) -> bool:
        """Whether a run may learn from it. review: whether a second person must accept it first."""
        return self.status == ACCEPTED or (self.status == WAITING and not review)


class Shelf:
    """What stands in one campaign. It is kept in memory and brought up to date by what was stored since, so that a
    page that asks costs two counts however many there are. Safe to use from several threads."""

    def __init__(self, store: Store, campaign: str) -> None:
        self.store, self.campaign = store, campaign
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._rows: dict[str, Any] = {}
        self._reviews: dict[str, Any] = {}
        self._gone: set[str] = set()
        self._seen: tuple[Any, ...] = (0, 0, 0, 0)
        self._reviews_read = 0
        self._standing: dict[str, Standing] = {}

    def standing(self) -> dict[str, Standing]:
        """Id -> what stands, the oldest first. The mapping is never changed afterwards."""
        with self._lock, self.store.reading("demonstrations") as connection:
            now = self._counts(connection)
            if now != self._seen:
                self._read(connection)
                if (len(self._rows), self._reviews_read) != (now[0], now[2]):  # something was deleted
                    self._forget()
                    self._read(connection)
                self._seen = now
            return self._standing

    def _counts(self, connection: sa.Connection) -> tuple[Any, ...]:
        found: list[Any] = []
        for table in (DEMONSTRATIONS, REVIEWS):
            query = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(table.c.number), 0))
            found += connection.execute(query.where(table.c.campaign == self.campaign)).one()
        return tuple(found)

    def _read(self, connection: sa.Connection) -> None:
        record = DEMONSTRATIONS.c.record
        told = {
            "status": record["status"].as_string(),
            "reviewer": record["reviewer"].as_string(),
            "skill": record["skill"].as_string(),
            "prompt_id": record[("extra", "prompt_id")].as_string(),
        }
        columns = (DEMONSTRATIONS.c.number, DEMONSTRATIONS.c.id, DEMONSTRATIONS.c.author, DEMONSTRATIONS.c.supersedes)
        query = sa.select(*columns, *(value.label(name) for name, value in told.items())).where(
            DEMONSTRATIONS.c.campaign == self.campaign, DEMONSTRATIONS.c.number > self._seen[1]
        )
        touched = []
        for row in connection.execute(query.order_by(DEMONSTRATIONS.c.number)):
            self._rows[row.id] = row
            self._gone |= {row.supersedes} if row.supersedes else set()
            touched += [row.id, row.supersedes]
        later = sa.select(REVIEWS).where(REVIEWS.c.campaign == self.campaign, REVIEWS.c.number > self._seen[3])
        for review in connection.execute(later.order_by(REVIEWS.c.number)):
            self._reviews[review.demonstration_id] = review
            self._reviews_read += 1
            touched.append(review.demonstration_id)
        self._settle(touched)

    def _settle(self, touched: Iterable[str]) -> None:
        standing = dict(self._standing)  # others may be reading the one before
        for id_ in touched:
            if id_ in self._gone:
                standing.pop(id_, None)
            elif id_ in self._rows:
                standing[id_] = self._one(self._rows[id_])
        self._standing = standing

    def _one(self, row: Any) -> Standing:
        review = self._reviews.get(row.id)
        status = row.status if row.status in (ACCEPTED, RETURNED, REJECTED, WITHDRAWN) else WAITING
        return Standing(
            number=row.number,
            id=row.id,
            author=row.author,
            status=review.verdict if review else status,
            reviewer=review.reviewer if review else row.reviewer or "",
            comment=review.comment if review else "",
            prompt_id=row.prompt_id or "",
            skill=row.skill or "",
        )

    # --- questions -----------------------------------------------------------------------------------------------

    def tally(self) -> Counter[str]:
        """Status -> how many."""
        return Counter(one.status for one in self.standing().values())

    def count(self, *, review: bool) -> int:
        """How many a run may learn from."""
        return sum(one.counts(review=review) for one in self.standing().values())

    def fingerprint(self, *, review: bool) -> str:
        """What tells that those a run may learn from are others now: how many, and a hash of their ids."""
        ids = sorted(one.id for one in self.standing().values() if one.counts(review=review))
        return f"{len(ids)} {hashlib.sha256(' '.join(ids).encode()).hexdigest()[:16]}"

    def of(self, author: str) -> list[Standing]:
        """A person's own, the newest first."""
        return [one for one in reversed(self.standing().values()) if one.author == author]

    def waiting(self, reviewer: str) -> list[Standing]:
        """What waits for a second person and was not written by this one, the oldest first."""
        return [one for one in self.standing().values() if one.status == WAITING and one.author != reviewer]

    def answered(self) -> set[str]:
        """The ids of prompts that have an answer which nobody rejected or took back."""
        gone = (REJECTED, WITHDRAWN)
        return {one.prompt_id for one in self.standing().values() if one.prompt_id and one.status not in gone}

    def unanswered(self) -> list[str]:
        """The ids of the prompts that nobody answered, the oldest first."""
        answered = self.answered()
        ids = sa.select(PROMPTS.c.id).where(PROMPTS.c.campaign == self.campaign).order_by(PROMPTS.c.number)
        with self.store.reading("prompts") as connection:
            return [id_ for id_ in connection.execute(ids).scalars() if id_ not in answered]

    def skills(self) -> list[str]:
        """The skills that were named, the most frequent first."""
        named = Counter(one.skill for one in self.standing().values() if one.skill)
        return [skill for skill, _ in named.most_common()]

    def records(self, ids: Iterable[str]) -> dict[str, Demonstration]:
        """Id -> the demonstration with what was said of it: `status` and `reviewer` are those that hold now."""
        standing, wanted, found = self.standing(), list(ids), {}
        with self.store.reading("demonstrations") as connection:
            for start in range(0, len(wanted), SOME):
                query = sa.select(DEMONSTRATIONS.c.record).where(
                    DEMONSTRATIONS.c.campaign == self.campaign, DEMONSTRATIONS.c.id.in_(wanted[start : start + SOME])
                )
                for row in connection.execute(query).scalars():
                    found[row["id"]] = Demonstration.from_json(row)
        for id_, record in found.items():
            if (now := standing.get(id_)) is not None:
                found[id_] = dataclasses.replace(record, status=now.status, reviewer=now.reviewer)
        return found

    def accepted(self, *, review: bool) -> list[Demonstration]:
        """What a run may learn from, in the order it came."""
        ids = [one.id for one in self.standing().values() if one.counts(review=review)]
        found = self.records(ids)
        return [found[id_] for id_ in ids]


# --- writing -----------------------------------------------------------------------------------------------------


def prompt_of(messages: Conversation) -> str:
    """The id of the prompt that the last turn of a conversation answers."""
    return id_of("prompt", messages[:-1])


def hand_in(store: Store, campaign: str, demonstration: Demonstration) -> bool:
    """Store a demonstration; False when it was there already. Raises BadInput when other words have its id, and when
    what it supersedes is not there, is another author's, or has a newer version."""
    with store.writing() as connection:
        if (stored := _stored(connection, campaign, demonstration.id)) is not None:
            if stored.messages != demonstration.messages:
                raise BadInput("you have handed in other words already.", "demonstration", "Open it from your list.")
            return False
        if demonstration.supersedes:
            before = _standing(connection, campaign, demonstration.supersedes)
            if before.author != demonstration.author:
                raise BadInput("it would replace what somebody else wrote.", before.id, "Write one of your own.")
        return append_demonstrations(connection, [demonstration], campaign) > 0


def review(
    store: Store,
    campaign: str,
    id_: str,
    *,
    reviewer: str,
    verdict: str,
    comment: str = "",
    now: float,
    mended: Sequence[Any] | None = None,
) -> str:
    """Say what a second person thinks of a demonstration; the id of the one it holds for is returned.

    mended: its messages as the reviewer would have them, with the verdict ACCEPTED. That is a new demonstration, which
    names both. Raises BadInput where the reviewer wrote it, where it is not the newest version, and where the author is
    not told what is wrong with it.
    """
    if verdict not in VERDICTS or (mended is not None and verdict != ACCEPTED):
        raise BadInput(f"this cannot be said of it ({verdict}).", "review", f"Say {', '.join(VERDICTS)}.")
    if verdict != ACCEPTED and not comment.strip():
        raise BadInput("the author would not know what is wrong.", "review", "Say it in a sentence.")
    with store.writing() as connection:
        record = _standing(connection, campaign, id_)
        if record.author == reviewer:
            raise BadInput("this is your own.", "review", "Somebody else has to look at it.")
        if mended is not None and tuple(mended) != record.messages:
            record = _mended(record, tuple(mended), reviewer, now)
            append_demonstrations(connection, [record], campaign)
        _say(connection, campaign, record.id, reviewer, verdict, comment.strip(), now)
        connection.execute(sa.delete(LEASES).where(LEASES.c.campaign == campaign, LEASES.c.prompt_id == id_))
    return record.id


def withdraw(store: Store, campaign: str, id_: str, *, author: str, now: float) -> None:
    """Take one's own back; what was written stays in the store and counts no longer. Raises BadInput."""
    with store.writing() as connection:
        if _standing(connection, campaign, id_).author != author:
            raise BadInput("it is not yours.", "demonstration", "Only its author can take it back.")
        _say(connection, campaign, id_, author, WITHDRAWN, "", now)


def _mended(before: Demonstration, messages: Conversation, reviewer: str, now: float) -> Demonstration:
    return dataclasses.replace(
        before,
        id=stable_id("demonstration", "mended", reviewer, before.id, *(m.content for m in messages)),
        messages=messages,
        reviewer=reviewer,
        status=ACCEPTED,
        created_at=moment(now),
        supersedes=before.id,
        extra={**before.extra, "mended_by": reviewer, "prompt_id": prompt_of(messages)},
    )


def _say(
    connection: sa.Connection, campaign: str, id_: str, reviewer: str, verdict: str, comment: str, now: float
) -> None:
    """Store a review; the same said twice in a row is said once."""
    query = (
        sa.select(REVIEWS.c.reviewer, REVIEWS.c.verdict, REVIEWS.c.comment)
        .where(REVIEWS.c.campaign == campaign, REVIEWS.c.demonstration_id == id_)
        .order_by(REVIEWS.c.number.desc())
        .limit(1)
    )
    last = connection.execute(query).one_or_none()
    if last is not None and tuple(last) == (reviewer, verdict, comment):
        return
    values = {"reviewer": reviewer, "verdict": verdict, "comment": comment, "created_at": moment(now)}
    connection.execute(sa.insert(REVIEWS).values(campaign=campaign, demonstration_id=id_, **values))


def _stored(connection: sa.Connection, campaign: str, id_: str) -> Demonstration | None:
    query = sa.select(DEMONSTRATIONS.c.record).where(DEMONSTRATIONS.c.campaign == campaign, DEMONSTRATIONS.c.id == id_)
    row = connection.execute(query).scalar_one_or_none()
    return Demonstration.from_json(row) if row is not None else None


def _standing(connection: sa.Connection, campaign: str, id_: str) -> Demonstration:
    record = _stored(connection, campaign, id_)
    if record is None:
        raise BadInput("there is no such demonstration.", id_[:64], "Open the list again.")
    later = sa.select(DEMONSTRATIONS.c.id).where(
        DEMONSTRATIONS.c.campaign == campaign, DEMONSTRATIONS.c.supersedes == id_
    )
    if connection.execute(later).first() is not None:
        raise BadInput("there is a newer version of this one.", "demonstration", "Open the list again.")
    return record


def moment(now: float) -> str:
    """Seconds since 1970 as records have them: ISO 8601, UTC."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds")


# --- who looks at what -------------------------------------------------------------------------------------------


def next_to_review(
    shelf: Shelf, reviewer: str, *, now: float, after: int = 0, besides: Collection[str] = ()
) -> Standing | None:
    """The oldest that waits and lies in front of nobody else, from now on in front of this person; what lies in front
    of them already comes first.

    after: the number of one that is passed over for now; it comes again when no later one is left. besides: the ids of
    those that this person must not get.
    """
    waiting = [one for one in shelf.waiting(reviewer) if one.id not in besides]
    if not waiting:
        return None
    store, campaign = shelf.store, shelf.campaign
    with store.writing() as connection:
        if store.is_postgresql:  # one at a time: two that look at the same moment would take the same one
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"review {campaign}"))))
        held = sa.select(LEASES.c.prompt_id, LEASES.c.annotator).where(
            LEASES.c.campaign == campaign, LEASES.c.expires_at > now
        )
        whose = {row.prompt_id: row.annotator for row in connection.execute(held)}
        turn = sorted(waiting, key=lambda one: (one.number <= after, whose.get(one.id) != reviewer, one.number))
        found = next((one for one in turn if whose.get(one.id, reviewer) == reviewer), None)
        over = sa.or_(LEASES.c.annotator == reviewer, LEASES.c.expires_at <= now)
        connection.execute(sa.delete(LEASES).where(LEASES.c.campaign == campaign, over))
        if found is not None:
            connection.execute(
                sa.insert(LEASES).values(
                    id=stable_id("review", campaign, found.id, reviewer),
                    campaign=campaign,
                    prompt_id=found.id,
                    annotator=reviewer,
                    presented=[],
                    created_at=now,
                    expires_at=now + HOLD_SECONDS,
                )
            )
    return found
