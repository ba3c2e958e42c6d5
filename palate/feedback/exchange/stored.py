"""Between a pile of records and a campaign of the store: all of a file in one transaction, people under pseudonyms."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa

from palate.feedback.campaigns import settings
from palate.feedback.demonstrations import ACCEPTED, Shelf
from palate.feedback.exchange.pile import Pile, details, from_file, who
from palate.feedback.store import Store, append_demonstrations, append_judgements, append_records
from palate.feedback.tables import AUDIT, PROMPTS, RESPONSES
from palate.records import Demonstration, Judgement

T = TypeVar("T")
AT_ONCE = 2_000
"""Records between two looks at how far it is."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """How many records of a file the store did not have before."""

    demonstrations: int
    prompts: int
    responses: int
    judgements: int


def keep(store: Store, pile: Pile, campaign: str, advance: Callable[[int], None] = lambda amount: None) -> Kept:
    """Store a pile's records in one transaction: all of them or none. What is there already is no error; another record
    under the same id is (BadInput)."""
    with store.writing() as connection:
        demonstrations = prompts = responses = judgements = 0
        for some in _parts(list(pile.demonstrations.values()), advance):
            demonstrations += append_demonstrations(connection, some, campaign)
        for some_prompts in _parts(list(pile.prompts.values()), advance):
            prompts += append_records(connection, PROMPTS, campaign, [(prompt, {}) for prompt in some_prompts])
        for some_answers in _parts(list(pile.responses.values()), advance):
            told = [(response, {"prompt_id": response.prompt_id}) for response in some_answers]
            responses += append_records(connection, RESPONSES, campaign, told)
        for given in _parts(list(pile.judgements.values()), advance):
            judgements += append_judgements(connection, given, campaign, store.url)
    return Kept(demonstrations, prompts, responses, judgements)


def _parts(records: list[T], advance: Callable[[int], None]) -> Iterator[list[T]]:
    for start in range(0, len(records), AT_ONCE):
        some = records[start : start + AT_ONCE]
        yield some
        advance(len(some))


def taken(store: Store, campaign: str, name: str, *, names: bool = False, simulated: bool = False) -> Pile:
    """The records of a campaign that the format `name` is to hold: all of them for Palate's own; for others the
    judgements that stand. What no person judged is left out of those, unless the file of that format said it, or
    `simulated`. People are pseudonyms unless `names`."""
    pile = Pile()
    # Judgements first: whatever comes in meanwhile, the answers they name are there.
    every = store.judgements(campaign, include_superseded=True)
    pile.demonstrations = {d.id: d for d in store.demonstrations(campaign)}
    for response in store.responses(campaign):
        pile.add_response(response)
    pile.prompts = {prompt.id: prompt for prompt in store.prompts(campaign)}
    if name != "palate":
        pile.demonstrations = _reviewed(store, campaign, pile.demonstrations)
        every = list(_standing(pile, every, name, simulated=simulated))
    pile.judgements = {judgement.id: judgement for judgement in every}
    return pile if names else _hidden(store, pile)


def _standing(pile: Pile, every: Sequence[Judgement], name: str, *, simulated: bool) -> Iterator[Judgement]:
    gone = {judgement.supersedes for judgement in every if judgement.supersedes}
    for judgement in every:
        if judgement.id in gone or (judgement.supersedes and not judgement.ranks):
            continue
        if judgement.simulated and not simulated and not details(judgement, name):
            pile.dropped["a judgement that no person gave (--simulated takes it)"] += 1
        else:
            yield judgement


def _reviewed(store: Store, campaign: str, records: dict[str, Demonstration]) -> dict[str, Demonstration]:
    """The same with what holds of each now, after reviews; what a run may learn from is accepted."""
    review = settings(store, campaign).review
    standing = Shelf(store, campaign).standing()
    found = {}
    for id_, record in records.items():
        now = standing.get(id_)
        status = "written again" if now is None else ACCEPTED if now.counts(review=review) else now.status
        reviewer = now.reviewer if now is not None else record.reviewer
        found[id_] = dataclasses.replace(record, status=status, reviewer=reviewer)
    return found


# --- pseudonyms ------------------------------------------------------------------------------------------------------

PSEUDONYM = re.compile(r"person-[0-9a-f]{10}")
KEY = "key of the pseudonyms in exports"


def _hidden(store: Store, pile: Pile) -> Pile:
    """The same, people under pseudonyms. Names that a foreign file came with are no secret and have to come back."""
    people = {j.annotator for j in pile.judgements.values() if _secret(j)}
    people |= {name for d in pile.demonstrations.values() if not from_file(d) for name in (d.author, d.reviewer)}
    people = {name for name in people if name and not PSEUDONYM.fullmatch(name)}
    if not people:
        return pile
    key = bytes.fromhex(_key(store))
    called = {name: f"person-{hmac.new(key, name.encode(), hashlib.sha256).hexdigest()[:10]}" for name in people}
    for judgement in pile.judgements.values():
        if _secret(judgement) and judgement.annotator in called:
            pile.judgements[judgement.id] = dataclasses.replace(judgement, annotator=called[judgement.annotator])
    for d in pile.demonstrations.values():
        if not from_file(d):
            author, reviewer = called.get(d.author, d.author), called.get(d.reviewer, d.reviewer)
            pile.demonstrations[d.id] = dataclasses.replace(d, author=author, reviewer=reviewer)
    return pile


def _secret(judgement: Judgement) -> bool:
    return not from_file(judgement) and not judgement.simulated and bool(who(judgement))


def _key(store: Store) -> str:
    """The store's own key, made once, so that a person has the same pseudonym in every export and nobody outside can
    try names. It lies in the audit log, which nobody changes and a backup holds."""
    query = sa.select(AUDIT.c.what).where(AUDIT.c.action == KEY).order_by(AUDIT.c.number).limit(1)
    with store.reading("audit") as connection:
        told = connection.execute(query).scalar_one_or_none()
    if told is None:
        with store.writing() as connection:
            made = {"key": secrets.token_hex(32)}
            connection.execute(sa.insert(AUDIT).values(at=time.time(), who="", action=KEY, what=made))
            told = connection.execute(query).scalar_one()
    return str(told["key"])
