"""How much annotators agree, and what else moves their order. Definitions are fixed here.

agreement      over all pairs of answers that two annotators both ordered without a tie, the share they order alike
kendall_w      Kendall's coefficient of concordance with ties (Kendall & Gibbons 1990, eq. 6.6), mean over the prompts
               that at least two annotators ranked in full
first_shown    how often the answer shown first is ranked best, minus what chance gives (order bias)
longer_wins    how often the longer (in words) of two answers that are not tied is preferred (length bias)
untouched      share of judgements handed in without moving anything
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from palate.records import Judgement, Response

RESAMPLES = 1000


def summary(judgements: Sequence[Judgement], responses: Iterable[Response]) -> dict[str, Any]:
    """All of the figures above as JSON-ready values; None where there is nothing to compute one from."""
    words = {r.id: len(r.text.split()) for r in responses}
    seconds = [j.seconds for j in judgements if j.seconds is not None]
    return {
        "judgements": len(judgements),
        "prompts": len({j.prompt_id for j in judgements}),
        "annotators": len({j.annotator for j in judgements}),
        "simulated": sum(j.simulated for j in judgements),
        "agreement": agreement(judgements),
        "kendall_w": kendall_w(judgements),
        "first_shown": first_shown(judgements),
        "longer_wins": longer_wins(judgements, words),
        "median_seconds": statistics.median(seconds) if seconds else None,
        "untouched": sum(not j.touched for j in judgements) / len(judgements) if judgements else None,
    }


def _by_prompt(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(judgement.prompt_id, []).append(judgement)
    return found


def agreement(
    judgements: Sequence[Judgement], *, of: str | None = None, seed: int = 0
) -> dict[str, float | int] | None:
    """Pairwise agreement with a 95 % bootstrap interval over prompts; only that of the annotator `of` with the others
    where one is named."""
    per_prompt: list[tuple[int, int]] = []
    for several in _by_prompt(judgements).values():
        alike = pairs = 0
        for one, other in itertools.combinations(several, 2):
            if of is not None and (of == one.annotator) == (of == other.annotator):
                continue
            theirs = {(a, b): target for a, b, target in other.pairs()}
            for a, b, target in one.pairs():
                if target != 0.5 and theirs.get((a, b), 0.5) != 0.5:
                    pairs += 1
                    alike += target == theirs[a, b]
        if pairs:
            per_prompt.append((alike, pairs))
    if not per_prompt:
        return None
    told = np.array(per_prompt)
    rng = np.random.default_rng(seed)
    drawn = np.array([told[rng.integers(0, len(told), len(told))].sum(axis=0) for _ in range(RESAMPLES)])
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    mean = told[:, 0].sum() / told[:, 1].sum()
    return {"mean": float(mean), "low": float(low), "high": float(high), "n": len(told)}


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


def first_shown(judgements: Sequence[Judgement]) -> float | None:
    """Order bias: 0 when the place in the list does not matter."""
    excess = []
    for judgement in judgements:
        best = [r for r, rank in judgement.ranks.items() if rank == 1]
        if judgement.presented_order and best:
            excess.append((judgement.presented_order[0] in best) - len(best) / len(judgement.ranks))
    return statistics.fmean(excess) if excess else None


def longer_wins(judgements: Sequence[Judgement], words: Mapping[str, int]) -> float | None:
    """Length bias: 0.5 when length does not matter."""
    won = []
    for judgement in judgements:
        for a, b, target in judgement.pairs():
            if target != 0.5 and words.get(a, 0) != words.get(b, 0):
                won.append((target == 1.0) == (words.get(a, 0) > words.get(b, 0)))
    return statistics.fmean(won) if won else None
