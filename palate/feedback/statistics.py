"""How much annotators agree, and what else moves their order. Definitions are fixed here.

agreement      over all pairs of answers that two annotators both ordered without a tie, the share they order alike
kendall_w      Kendall's coefficient of concordance with ties (Kendall & Gibbons 1990, eq. 6.6), mean over the prompts
               that at least two annotators ranked in full
alpha          Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's alpha-reliability"): 1 minus how much
               they disagree over how much they would by chance. Of a criterion's scores (ordinal), of whether an answer
               was flagged (nominal); an answer is a unit, an annotator an observer
first_shown    how often the answer shown first is ranked best, minus what chance gives (order bias)
longer_wins    how often the longer (in words) of two answers that are not tied is preferred (length bias)
correlation    Pearson's r of two criteria, over all answers that somebody scored on both
gold           over all pairs of answers whose right order is known, the share ordered so; a tie is half
untouched      share of judgements handed in without moving anything

Intervals are 95 % bootstraps over prompts (Efron 1979; percentile method), and n is how many prompts they stand on. A
mean is over pairs, judgements or answers: a prompt that more people judged counts more.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.records import CRITERIA, Judgement, Response

RESAMPLES = 1000
Numbers = NDArray[np.float64]
Told = dict[str, float | int]
"""{"mean", "low", "high", "n"}."""


def summary(judgements: Sequence[Judgement], responses: Iterable[Response]) -> dict[str, Any]:
    """All of the figures above as JSON-ready values; None where there is nothing to compute one from. `first_shown` and
    `longer_wins` are the means of `order_bias` and `length_bias`, which have intervals."""
    words = {r.id: len(r.text.split()) for r in responses}
    seconds = [j.seconds for j in judgements if j.seconds is not None]
    order, length = order_bias(judgements), length_bias(judgements, words)
    return {
        "judgements": len(judgements),
        "prompts": len({j.prompt_id for j in judgements}),
        "annotators": len({j.annotator for j in judgements}),
        "simulated": sum(j.simulated for j in judgements),
        "agreement": agreement(judgements),
        "kendall_w": kendall_w(judgements),
        "alpha": alphas(judgements),
        "first_shown": order["mean"] if order else None,
        "longer_wins": length["mean"] if length else None,
        "order_bias": order,
        "length_bias": length,
        "correlations": correlations(judgements),
        "median_seconds": statistics.median(seconds) if seconds else None,
        "untouched": sum(not j.touched for j in judgements) / len(judgements) if judgements else None,
    }


def _by_prompt(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(judgement.prompt_id, []).append(judgement)
    return found


def _interval(
    per_prompt: Sequence[Sequence[float]] | Numbers, of: Callable[[Numbers], Numbers], seed: int = 0
) -> Told | None:
    """What `of` makes of the sums over all prompts, with its interval; None where that is no number.

    per_prompt: some sums of each prompt. of: (n, sums) -> (n), NaN where there is nothing to compute it from.
    """
    if not len(per_prompt):
        return None
    told = np.asarray(per_prompt, dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = np.array([told[rng.integers(0, len(told), len(told))].sum(axis=0) for _ in range(RESAMPLES)])
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, every = float(of(told.sum(axis=0, keepdims=True))[0]), of(drawn)
    if np.isnan(mean):
        return None
    low, high = np.nanpercentile(every, [2.5, 97.5])
    return {"mean": mean, "low": float(low), "high": float(high), "n": len(told)}


def _ratio(sums: Numbers) -> Numbers:
    return np.asarray(sums[:, 0] / sums[:, 1])


# --- how much they agree ---------------------------------------------------------------------------------------------


def agreement(judgements: Sequence[Judgement], *, of: str | None = None, seed: int = 0) -> Told | None:
    """Pairwise agreement; only that of the annotator `of` with the others where one is named."""
    return agreements(judgements, seed=seed).get(of) if of is not None else _agreement(_alike(judgements), seed)


def agreements(judgements: Sequence[Judgement], *, seed: int = 0) -> dict[str, Told]:
    """The agreement of every annotator with the others, of those who share a pair with somebody."""
    rows: dict[str, list[tuple[str, frozenset[str], int, int]]] = {}
    for row in _alike(judgements):
        if len(row[1]) == 2:  # not of somebody with themself
            for name in row[1]:
                rows.setdefault(name, []).append(row)
    each = {name: _agreement(rows[name], seed) for name in sorted(rows)}
    return {name: told for name, told in each.items() if told is not None}


def _alike(judgements: Sequence[Judgement]) -> list[tuple[str, frozenset[str], int, int]]:
    """(prompt, the two annotators, pairs they order alike, pairs both order without a tie) of every two judgements of
    a prompt that share such a pair."""
    found = []
    for prompt, several in _by_prompt(judgements).items():
        ordered = [{(a, b): target for a, b, target in j.pairs() if target != 0.5} for j in several]
        for one, other in itertools.combinations(range(len(several)), 2):
            mine, theirs = ordered[one], ordered[other]
            both = mine.keys() & theirs.keys()
            if both:
                names = frozenset((several[one].annotator, several[other].annotator))
                found.append((prompt, names, sum(mine[pair] == theirs[pair] for pair in both), len(both)))
    return found


def _agreement(rows: Iterable[tuple[str, frozenset[str], int, int]], seed: int) -> Told | None:
    sums: dict[str, list[float]] = {}
    for prompt, _, alike, pairs in rows:
        told = sums.setdefault(prompt, [0.0, 0.0])
        told[0], told[1] = told[0] + alike, told[1] + pairs
    return _interval(list(sums.values()), _ratio, seed)


def kendall_w(judgements: Sequence[Judgement]) -> float | None:
    """Mean Kendall W over prompts: 1 is one order for all, 0 is none in common."""
    found = []
    for several in _by_prompt(judgements).values():
        full = [j for j in several if j.ranks and set(j.ranks) == set(several[0].ranks)]
        if len(full) > 1 and len(full[0].ranks) > 1:
            value = concordance([j.ranks for j in full])
            if value is not None:
                found.append(value)
    return statistics.fmean(found) if found else None


def concordance(rankings: Sequence[Mapping[str, int]]) -> float | None:
    """W = 12 S / (m^2 (n^3 - n) - m sum_j T_j), T_j = sum over tie groups of (t^3 - t); None when all is tied."""
    m, names = len(rankings), sorted(rankings[0])
    n = len(names)
    totals = dict.fromkeys(names, 0.0)
    ties = 0
    for ranks in rankings:
        for name in names:  # competition ranks become mid-ranks
            equal = [other for other in names if ranks[other] == ranks[name]]
            totals[name] += ranks[name] + (len(equal) - 1) / 2
        groups = [sum(1 for name in names if ranks[name] == rank) for rank in set(ranks.values())]
        ties += sum(t**3 - t for t in groups)
    mean = m * (n + 1) / 2
    spread = sum((total - mean) ** 2 for total in totals.values())
    below = m**2 * (n**3 - n) - m * ties
    return 12 * spread / below if below else None


def alphas(judgements: Sequence[Judgement]) -> dict[str, Told]:
    """Krippendorff's alpha of every criterion's scores (ordinal) and of every flag (nominal) that annotators gave to
    the same answers; left out where all of them say the same everywhere, which is no agreement to measure."""
    found = {}
    for name in CRITERIA:
        told = _alpha(_scored(judgements, name), ordinal=True)
        if told is not None:
            found[name] = told
    for flag in sorted({flag for j in judgements for flags in j.flags.values() for flag in flags}):
        told = _alpha(_flagged(judgements, flag), ordinal=False)
        if told is not None:
            found[flag] = told
    return found


def alpha(units: Iterable[Sequence[float]], *, ordinal: bool) -> float | None:
    """Krippendorff's alpha of units, each with the values that its observers gave, ordinal or nominal; None where no
    unit has two values, or all values are one."""
    told = _alpha([[values] for values in units], ordinal=ordinal)
    return float(told["mean"]) if told is not None else None


Units = Sequence[Sequence[Sequence[float]]]
"""Per prompt and answer, the values that annotators gave it."""


def _alpha(prompts: Units, *, ordinal: bool) -> Told | None:
    prompts = [units for units in prompts if any(len(values) > 1 for values in units)]
    scale = sorted({value for units in prompts for values in units if len(values) > 1 for value in values})
    number = {value: place for place, value in enumerate(scale)}
    size = len(scale)
    coincidences = np.zeros((len(prompts), size, size))
    for row, units in enumerate(prompts):
        for values in units:
            if len(values) > 1:  # one value alone is paired with none
                counts = np.bincount([number[value] for value in values], minlength=size)
                coincidences[row] += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)

    def of(sums: Numbers) -> Numbers:
        """1 - (n - 1) sum o_ck d_ck / sum n_c n_k d_ck (Krippendorff 2011, sections C and D)."""
        o = sums.reshape(-1, size, size)
        each = o.sum(axis=2)
        if ordinal:  # how many values lie between two, themselves by half: a distance of mid-ranks
            middle = np.cumsum(each, axis=1) - each / 2
            d = (middle[:, :, None] - middle[:, None, :]) ** 2
        else:
            d = np.broadcast_to(1.0 - np.eye(size), o.shape)
        by_chance = np.einsum("rc,rk,rck->r", each, each, d)
        return np.asarray(1 - (each.sum(axis=1) - 1) * (o * d).sum(axis=(1, 2)) / by_chance)

    return _interval(coincidences.reshape(len(prompts), size * size), of)


def _scored(judgements: Sequence[Judgement], name: str) -> Units:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for judgement in judgements:
        for answer, scores in judgement.criteria.items():
            if name in scores:
                by = found.setdefault(judgement.prompt_id, {}).setdefault(answer, {})
                by[judgement.annotator] = round(float(scores[name]), 2)
    return [[list(by.values()) for by in answers.values()] for answers in found.values()]


def _flagged(judgements: Sequence[Judgement], flag: str) -> Units:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for judgement in judgements:
        answers = found.setdefault(judgement.prompt_id, {})
        for answer in judgement.presented_order or {*judgement.ranks, *judgement.flags}:  # what they had before them
            answers.setdefault(answer, {})[judgement.annotator] = float(flag in judgement.flags.get(answer, ()))
    return [[list(by.values()) for by in answers.values()] for answers in found.values()]


# --- what else moves them --------------------------------------------------------------------------------------------


def order_bias(judgements: Sequence[Judgement]) -> Told | None:
    """How much more often than by chance the answer shown first is ranked best: 0 when the place does not matter."""
    per_prompt = []
    for several in _by_prompt(judgements).values():
        excess = []
        for judgement in several:
            best = [r for r, rank in judgement.ranks.items() if rank == 1]
            if judgement.presented_order and best:
                excess.append((judgement.presented_order[0] in best) - len(best) / len(judgement.ranks))
        if excess:
            per_prompt.append((sum(excess), len(excess)))
    return _interval(per_prompt, _ratio)


def length_bias(judgements: Sequence[Judgement], words: Mapping[str, int]) -> Told | None:
    """How often the longer of two answers is preferred: 0.5 when length does not matter."""
    per_prompt = []
    for several in _by_prompt(judgements).values():
        won = [
            (target == 1.0) == (words.get(a, 0) > words.get(b, 0))
            for judgement in several
            for a, b, target in judgement.pairs()
            if target != 0.5 and words.get(a, 0) != words.get(b, 0)
        ]
        if won:
            per_prompt.append((sum(won), len(won)))
    return _interval(per_prompt, _ratio)


def first_shown(judgements: Sequence[Judgement]) -> float | None:
    """The mean of `order_bias`."""
    told = order_bias(judgements)
    return told["mean"] if told is not None else None


def longer_wins(judgements: Sequence[Judgement], words: Mapping[str, int]) -> float | None:
    """The mean of `length_bias`."""
    told = length_bias(judgements, words)
    return told["mean"] if told is not None else None


def correlations(judgements: Sequence[Judgement]) -> dict[str, Told]:
    """Pearson's r of every two criteria ("accuracy, clarity"): two that are hardly less than 1 ask people the same
    twice. Left out where one of them is the same everywhere."""

    def of(sums: Numbers) -> Numbers:
        n, x, y, xx, yy, xy = sums.T
        spread = (n * xx - x * x) * (n * yy - y * y)
        return np.asarray((n * xy - x * y) / np.sqrt(np.where(spread > n**4 * 1e-12, spread, np.nan)))  # not rounding

    scored = {
        prompt: [scores for judgement in several for scores in judgement.criteria.values()]
        for prompt, several in _by_prompt(judgements).items()
    }
    found = {}
    for one, other in itertools.combinations(CRITERIA, 2):
        per_prompt = []
        for answers in scored.values():
            both = [(scores[one], scores[other]) for scores in answers if one in scores and other in scores]
            if both:
                x, y = np.array(both, dtype=np.float64).T
                per_prompt.append((len(both), x.sum(), y.sum(), x @ x, y @ y, x @ y))
        told = _interval(per_prompt, of)
        if told is not None:
            found[f"{one}, {other}"] = told
    return found


def gold_right(judgements: Sequence[Judgement], gold: Mapping[str, Mapping[str, int]]) -> Told | None:
    """How often pairs of answers are in the order that is known to be right. gold: prompt id -> answer id -> rank."""
    per_prompt = []
    for prompt, several in _by_prompt(judgements).items():
        known = gold.get(prompt, {})
        right = [
            0.5 if target == 0.5 else float((target == 1.0) == (known[a] < known[b]))
            for judgement in several
            for a, b, target in judgement.pairs()
            if a in known and b in known and known[a] != known[b]
        ]
        if right:
            per_prompt.append((sum(right), len(right)))
    return _interval(per_prompt, _ratio)
