"""What the judgements of one campaign say: how far it is, how much people agree, what else moves them. Simulated
annotators are counted by themselves, never among people."""

from __future__ import annotations

import dataclasses
import datetime
import statistics as plain
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from pydantic import BaseModel

from palate.feedback import care, statistics
from palate.feedback.demonstrations import Shelf
from palate.feedback.store import Store
from palate.feedback.tables import DEMONSTRATIONS, EXPOSURES, ITEMS, JUDGEMENTS, RESPONSES, REVIEWS
from palate.records import Judgement
from palate.studio.background import Told
from palate.studio.effects import Share
from palate.studio.here import Studio


@dataclasses.dataclass(frozen=True)
class Known:
    """What others measured among people."""

    who: str
    share: Share


KNOWN = (
    Known("InstructGPT’s labellers, two of them with each other", Share(mean=0.726, low=0.711, high=0.741, n=0)),
    Known(
        "its held-out labellers, whose judgements were not learned from", Share(mean=0.773, low=0.76, high=0.786, n=0)
    ),
    Known("researchers with each other, on summaries", Share(mean=0.73, low=0.69, high=0.77, n=0)),
)
"""Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.4, which quotes
Stiennon et al. 2020 for the last one; plus and minus as printed there."""


class Kind(BaseModel):
    """The judgements of people, or of simulated annotators. Definitions: palate/feedback/statistics.py."""

    simulated: bool
    judgements: int
    cannot_rank: int
    prompts: int
    annotators: int
    agreement: Share | None
    kendall_w: float | None
    alpha: dict[str, Share]
    order_bias: Share | None
    length_bias: Share | None
    correlations: dict[str, Share]
    median_seconds: float | None
    untouched: float | None


class Row(BaseModel):
    """One annotator."""

    name: str
    simulated: bool
    judgements: int
    cannot_rank: int
    median_seconds: float | None
    untouched: float | None
    agreement: Share | None
    """With the others."""
    gold: Share | None
    """How often pairs whose right order is known were ordered so."""
    upsetting: int
    """How many prompts that may upset came to them in seven days."""


class Day(BaseModel):
    """How much was handed in on one day (UTC)."""

    day: str
    judgements: int
    demonstrations: int


class Figures(BaseModel):
    """All of it."""

    people: Kind
    simulated: Kind | None
    rows: list[Row]
    days: list[Day]
    demonstrations: int
    """Handed in and not taken back."""
    accepted: int
    """A run may learn from them."""


def told(studio: Studio, *, patience: float) -> Told[Figures]:
    """The figures, counted anew when something was stored since. Wait `patience` seconds for them."""
    return studio.background.ask("figures", _key(studio), lambda: compute(studio), patience=patience)


def _key(studio: Studio) -> str:
    """Changes when a figure may. Records are only ever added or deleted, so that two numbers tell."""
    found: list[object] = [studio.campaign, studio.settings.review]
    with studio.store.reading("judgements") as connection:
        for table, campaign in (
            (JUDGEMENTS, studio.campaign),
            (DEMONSTRATIONS, studio.writing),
            (REVIEWS, studio.writing),
        ):
            query = sa.select(sa.func.count(), sa.func.max(table.c.number)).where(table.c.campaign == campaign)
            found += connection.execute(query).one()
        gold = sa.select(ITEMS.c.prompt_id, ITEMS.c.gold).where(
            ITEMS.c.campaign == studio.campaign, ITEMS.c.gold.is_not(None)
        )
        found += connection.execute(sa.select(sa.func.count()).select_from(EXPOSURES)).one()
        found += [tuple(row) for row in connection.execute(gold.order_by(ITEMS.c.number))]
    return repr(found)


def compute(studio: Studio) -> Figures:
    """Read and count everything; seconds with ten thousand judgements."""
    campaign, gold = studio.campaign, studio.queue.gold()
    every = studio.store.judgements(campaign, include_superseded=True)
    gone = {j.supersedes for j in every if j.supersedes}
    standing = [j for j in every if j.id not in gone and (j.ranks or j.cannot_rank)]
    words, seen = _words(studio.store, campaign), care.everybody(studio.store, now=studio.now())
    people, simulated = ([j for j in standing if j.simulated == yes] for yes in (False, True))
    shelf = Shelf(studio.store, studio.writing).standing()
    review = studio.settings.review
    written = {d.id: d.created_at for d in studio.store.demonstrations(studio.writing) if d.id in shelf}
    return Figures(
        people=_kind(people, words, simulated=False),
        simulated=_kind(simulated, words, simulated=True) if simulated else None,
        rows=[*_rows(people, gold, seen, simulated=False), *_rows(simulated, gold, seen, simulated=True)],
        days=list(_days([j.created_at for j in people], list(written.values()))),
        demonstrations=sum(one.status != "withdrawn" for one in shelf.values()),
        accepted=sum(one.counts(review=review) for one in shelf.values()),
    )


def _words(store: Store, campaign: str) -> dict[str, int]:
    """Response id -> its words. The token ids that models' answers hold are not read."""
    text = RESPONSES.c.record["text"].as_string()
    with store.reading("responses") as connection:
        found = connection.execute(sa.select(RESPONSES.c.id, text).where(RESPONSES.c.campaign == campaign))
        return {id_: len(said.split()) for id_, said in found}


def _share(value: statistics.Told | None) -> Share | None:
    return Share(**{name: float(one) if name != "n" else one for name, one in value.items()}) if value else None  # type: ignore[arg-type]


def _shares(values: Mapping[str, statistics.Told]) -> dict[str, Share]:
    return {name: share for name, value in values.items() if (share := _share(value)) is not None}


def _kind(judgements: Sequence[Judgement], words: Mapping[str, int], *, simulated: bool) -> Kind:
    ranked = [j for j in judgements if j.ranks]
    seconds = [j.seconds for j in ranked if j.seconds is not None]
    return Kind(
        simulated=simulated,
        judgements=len(ranked),
        cannot_rank=len(judgements) - len(ranked),
        prompts=len({j.prompt_id for j in ranked}),
        annotators=len({j.annotator for j in judgements}),
        agreement=_share(statistics.agreement(ranked)),
        kendall_w=statistics.kendall_w(ranked),
        alpha=_shares(statistics.alphas(ranked)),
        order_bias=_share(statistics.order_bias(ranked)),
        length_bias=_share(statistics.length_bias(ranked, words)),
        correlations=_shares(statistics.correlations(ranked)),
        median_seconds=plain.median(seconds) if seconds else None,
        untouched=sum(not j.touched for j in ranked) / len(ranked) if ranked else None,
    )


def _rows(
    judgements: Sequence[Judgement],
    gold: Mapping[str, Mapping[str, int]],
    seen: Mapping[str, care.Seen],
    *,
    simulated: bool,
) -> Iterator[Row]:
    agreements = statistics.agreements([j for j in judgements if j.ranks])
    by: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by.setdefault(judgement.annotator, []).append(judgement)
    for name in sorted(by, key=lambda name: (-len(by[name]), name)):
        ranked = [j for j in by[name] if j.ranks]
        seconds = [j.seconds for j in ranked if j.seconds is not None]
        yield Row(
            name=name,
            simulated=simulated,
            judgements=len(ranked),
            cannot_rank=len(by[name]) - len(ranked),
            median_seconds=plain.median(seconds) if seconds else None,
            untouched=sum(not j.touched for j in ranked) / len(ranked) if ranked else None,
            agreement=_share(agreements.get(name)),
            gold=_share(statistics.gold_right([j for j in ranked if j.prompt_id in gold], gold)),
            upsetting=seen[name].week if name in seen and not simulated else 0,
        )


LONGEST = 60
"""Days at most, the last ones: more bars than that nobody can tell apart."""


def _days(judged: Sequence[str], written: Sequence[str]) -> Iterator[Day]:
    """Every day from the first to the last, those without anything, too."""
    judgements, demonstrations = (Counter(day for at in times if (day := _day(at))) for times in (judged, written))
    every = sorted(judgements.keys() | demonstrations.keys())
    if not every:
        return
    day, last = every[0], every[-1]
    day = max(day, last - datetime.timedelta(days=LONGEST - 1))
    while day <= last:
        yield Day(day=day.isoformat(), judgements=judgements[day], demonstrations=demonstrations[day])
        day += datetime.timedelta(days=1)


def _day(at: str) -> datetime.date | None:
    """A record that came from elsewhere may say any time, or none."""
    try:
        return datetime.datetime.fromisoformat(at).date()
    except ValueError:
        return None
