"""Who of the annotators can be relied on, from their judgements alone: nobody has to know the right answer.

An annotator a's choice between two answers i and j of a prompt is modelled as (Bradley & Terry 1952, with a scale of
the annotator's own as in Chen et al. 2013, "Pairwise ranking aggregation in a crowdsourced setting")

    P(a prefers i to j) = sigmoid(slope_a * x_ij + order_bias_a * (places by which i was shown before j))

where x_ij in (-1, 1) is what the *others* said about the same pair, each by its weight and without its order bias:
estimating people from each other, in turns until nothing moves, is Dawid & Skene 1979. A tie is half of each choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.feedback import statistics
from palate.records import Judgement

PRIOR = 0.5
"""How much annotators differ before anything is known of one: standard deviation of a slope in units of the panel's,
and of an order bias in log-odds a place. A newcomer's few pairs then make nobody of them."""
LEAST = 0.5
"""The smallest slope to measure others by: where a panel hardly agrees, who agrees a little more is chance."""
UNSURE = 1.0
"""One average annotator who says nothing, among the others: what one person says is no consensus yet."""
ROUNDS, CLOSE = 50, 1e-4

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Annotator:
    """What is known of one annotator (pseudonym). Slope and order bias in log-odds, the latter per place."""

    judgements: int
    shared: int
    """How many of its pairs somebody else compared too."""
    slope: float
    order_bias: float
    weight: float
    """Its slope in units of the panel's mean, at least 0; the mean over all judgements is 1."""
    simulated: bool = False

    def evidence(self, judgement: Judgement) -> Iterator[tuple[str, str, float, float]]:
        """(a, b, weight, weight * target) of every pair of this annotator's judgement.

        Around equal answers the log-likelihood of a choice y in {0, 1/2, 1} that order moves by o = sigmoid(order bias
        * places) has gradient y - o and curvature o (1 - o). An unmoved choice with weight w and target t has
        w (t - 1/2) and w / 4, so this pair counts 4 o (1 - o): who follows the order tells little, and who goes
        against it much.
        """
        for a, b, target, places in _choices(judgement):
            expected = 1 / (1 + math.exp(-self.order_bias * places))
            weight = 4 * expected * (1 - expected)
            yield a, b, self.weight * weight, self.weight * (weight / 2 + target - expected)


EQUAL = Annotator(judgements=0, shared=0, slope=0.0, order_bias=0.0, weight=1.0)
"""Whom nothing is known of: every choice counts 1, as it stands."""


def annotators(judgements: Sequence[Judgement]) -> dict[str, Annotator]:
    """Every annotator of `judgements` by name, in the order of names; the judgements' order does not matter.

    Where no pair of answers was compared by two of them there is no slope to estimate: it is 0 and every weight 1.
    Between two annotators alone disagreement says nothing about who is right: their weights come out nearly equal.
    """
    table = _Table.of(judgements)
    count = len(table.names)
    weight, fitted = np.ones(count), np.zeros((count, 2))
    for _ in range(ROUNDS if len(table.target) else 0):
        seen = np.stack([table.consensus(weight, fitted[:, 1]), table.places], axis=1)
        panel = _fit(table, seen, np.zeros(len(seen), dtype=int), np.zeros((1, 2)), np.full(2, PRIOR))
        spread = PRIOR * np.array([max(panel[0, 0], LEAST), 1.0])
        fitted = _fit(table, seen, table.annotator, np.repeat(panel, count, axis=0), spread)
        before, weight = weight, table.weights(fitted[:, 0])
        if np.abs(weight - before).max() < CLOSE:
            break
    return {
        name: Annotator(
            judgements=int(table.judgements[number]),
            shared=int(table.others[table.annotator == number].sum()),
            slope=float(fitted[number, 0]),
            order_bias=float(fitted[number, 1]),
            weight=float(weight[number]),
            simulated=name in table.simulated,
        )
        for number, name in enumerate(table.names)
    }


def report(judgements: Sequence[Judgement], known: Mapping[str, Annotator]) -> dict[str, Any]:
    """Per pseudonym what `known` says, and its agreement with each of the others (pairs that both ordered without a
    tie; 95 % bootstrap over prompts, None without such a pair), JSON-ready."""
    return {
        name: {
            "judgements": who.judgements,
            "shared_pairs": who.shared,
            "agreement": statistics.agreement(judgements, of=name),
            "slope": round(who.slope, 4),
            "order_bias": round(who.order_bias, 4),
            "weight": round(who.weight, 4),
            "simulated": who.simulated,
        }
        for name, who in known.items()
    }


@dataclass(frozen=True)
class _Table:
    """One row per pair that a judgement compared."""

    names: tuple[str, ...]
    simulated: frozenset[str]
    judgements: Numbers
    """Per annotator."""
    annotator: NDArray[np.int64]
    pair: NDArray[np.int64]
    own: NDArray[np.int64]
    """Number of (pair, annotator): somebody may have judged a pair twice."""
    target: Numbers
    places: Numbers
    share: Numbers
    """A ranking of K answers is K - 1 choices, not K (K - 1) / 2: what the rest follows from counts once."""

    @classmethod
    def of(cls, judgements: Sequence[Judgement]) -> _Table:
        names = tuple(sorted({j.annotator for j in judgements}))
        number = {name: place for place, name in enumerate(names)}
        pairs: dict[tuple[str, str, str], int] = {}
        owned: dict[tuple[int, int], int] = {}
        rows = []
        for j in sorted(judgements, key=lambda j: j.id):  # sums of floats depend on their order
            who = number[j.annotator]
            for a, b, target, places in _choices(j):
                pair = pairs.setdefault((j.prompt_id, a, b), len(pairs))
                own = owned.setdefault((pair, who), len(owned))
                rows.append((who, pair, own, target, places, 2 / len(j.ranks)))
        columns = np.array(rows, dtype=float).reshape(-1, 6).T
        numbers = columns[:3].astype(np.int64)
        each = np.bincount([number[j.annotator] for j in judgements], minlength=len(names)).astype(float)
        simulated = frozenset(j.annotator for j in judgements if j.simulated)
        return cls(names, simulated, each, *numbers, *columns[3:])

    @property
    def others(self) -> NDArray[np.bool_]:
        """Whether somebody else compared this row's pair."""
        return self._of_others(np.ones(len(self.target))) > 0

    def consensus(self, weight: Numbers, order_bias: Numbers) -> Numbers:
        """Per row what the others say of its pair, in (-1, 1); 0 where there are none."""
        expected = 1 / (1 + np.exp(-order_bias[self.annotator] * self.places))
        told = weight[self.annotator] * (self.target - expected)
        counts = weight[self.annotator] * 4 * expected * (1 - expected)
        return np.clip(2 * self._of_others(told) / (UNSURE + self._of_others(counts)), -1, 1)

    def weights(self, slopes: Numbers) -> Numbers:
        """Slopes in units of their mean over the judgements, at least 0 and again with mean 1."""
        share = self.judgements / self.judgements.sum()
        mean = float(slopes @ share)
        positive = np.maximum(1 + (slopes - mean) / max(mean, LEAST), 0.0)
        return np.asarray(positive / (positive @ share))

    def _of_others(self, values: Numbers) -> Numbers:
        everybody, own = np.bincount(self.pair, values), np.bincount(self.own, values)
        return np.asarray(everybody[self.pair] - own[self.own], dtype=np.float64)


def _choices(judgement: Judgement) -> list[tuple[str, str, float, int]]:
    """(a, b, target, places by which a was shown before b; 0 where that is not known)."""
    place = {response: at for at, response in enumerate(judgement.presented_order)}
    return [
        (a, b, target, place[b] - place[a] if a in place and b in place else 0) for a, b, target in judgement.pairs()
    ]


def _fit(table: _Table, seen: Numbers, group: NDArray[np.int64], centre: Numbers, spread: Numbers) -> Numbers:
    """Logistic regression of the targets on `seen` (rows, features) for each group of rows by itself, with a normal
    prior around `centre` (groups, features) of standard deviations `spread` (features). Newton's method, all at once.
    Returns (groups, features)."""
    count, features = centre.shape
    precision = spread**-2
    theta = centre.copy()
    for _ in range(25):
        predicted = 1 / (1 + np.exp(-np.einsum("rf,rf->r", seen, theta[group])))
        gradient = precision * (theta - centre)
        curvature = np.tile(np.diag(precision), (count, 1, 1))
        for f in range(features):
            gradient[:, f] += np.bincount(group, table.share * seen[:, f] * (predicted - table.target), count)
            for g in range(features):
                information = table.share * seen[:, f] * seen[:, g] * predicted * (1 - predicted)
                curvature[:, f, g] += np.bincount(group, information, count)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        theta -= step
        if np.abs(step).max() < CLOSE / 100:
            break
    return theta
