"""How good a reward model is on held-out prompts, and what a trivial one reaches."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.batches.rankings import Group
from palate.measure.intervals import Interval, bootstrap

MOST_WORDS = 3000  # rarer words come too seldom to learn a weight for, and the table has to fit into memory
Scores = Sequence[Sequence[float]]
"""Per group, one score per candidate."""


def decided(group: Group) -> bool:
    """Whether its judgements prefer any of its candidates to another: all ties teach nothing, and measure nothing."""
    return any(target != 0.5 for _, _, target in _pairs(group))


def pair_accuracy(groups: Sequence[Group], scores: Scores) -> Interval:
    """Share of the judged pairs without a tie that the scores order as people did; one mean per prompt, bootstrapped
    over prompts. Equal scores count half."""
    return bootstrap(right(groups, scores))


def right(groups: Sequence[Group], scores: Scores) -> list[float]:
    """Of each prompt with a pair that is no tie, the share of such pairs that the scores order as people did."""
    per_prompt = []
    for group, given in zip(groups, scores, strict=True):
        each = [
            0.5 if given[i] == given[j] else float((given[i] > given[j]) == (target > 0.5))
            for i, j, target in _pairs(group)
            if target != 0.5
        ]
        if each:
            per_prompt.append(sum(each) / len(each))
    return per_prompt


def best_of_k(groups: Sequence[Group], scores: Scores) -> Interval:
    """How often people prefer the best-scored candidate to the others of its prompt (1, 1/2, 0): 0.5 is chance."""
    per_prompt = []
    for group, given in zip(groups, scores, strict=True):
        pairs = _pairs(group)
        best = max({k for i, j, _ in pairs for k in (i, j)}, key=lambda k: given[k])  # of those that were judged
        wins = [t if i == best else 1 - t for i, j, t in pairs if best in (i, j)]
        per_prompt.append(sum(wins) / len(wins))
    return bootstrap(per_prompt)


def longer_preferred(groups: Sequence[Group], scores: Scores | None = None) -> Interval | None:
    """Length bias: how often the longer (in words) of two candidates of unequal length is preferred, by the scores or,
    without them, by people (ties left out), on the pairs that people judged; one mean per prompt, bootstrapped over
    prompts. A reward model above its people likes length for itself. None where there is no such pair."""
    per_prompt = []
    for number, group in enumerate(groups):
        words = [len(response.text.split()) for response in group.responses]
        each = []
        for i, j, target in _pairs(group):
            ahead = target - 0.5 if scores is None else scores[number][i] - scores[number][j]
            if words[i] != words[j] and ahead != 0:
                each.append(float((ahead > 0) == (words[i] > words[j])))
        if each:
            per_prompt.append(sum(each) / len(each))
    return bootstrap(per_prompt) if per_prompt else None


def calibration(groups: Sequence[Group], scores: Scores, bins: int = 10) -> dict[str, Any]:
    """Expected calibration error of sigmoid(score difference) (Guo et al. 2017, eq. 3) and its reliability curve.

    Each pair is seen from the side the model prefers, so confidence lies in [0.5, 1].
    """
    told: list[tuple[float, float]] = []
    for group, given in zip(groups, scores, strict=True):
        for i, j, target in _pairs(group):
            difference = given[i] - given[j]
            # Beyond 30 the logistic is 1 to the last digit, and exp overflows soon after.
            confidence = 1 / (1 + math.exp(-min(abs(difference), 30.0)))
            told.append((confidence, target if difference >= 0 else 1 - target))
    curve = []
    error = 0.0
    for b in range(bins):
        low, high = 0.5 + 0.5 * b / bins, 0.5 + 0.5 * (b + 1) / bins
        part = [(c, t) for c, t in told if low <= c < high or (b == bins - 1 and c == high)]
        if part:
            confidence = sum(c for c, _ in part) / len(part)
            truth = sum(t for _, t in part) / len(part)
            error += abs(confidence - truth) * len(part) / len(told)
            curve.append({"confidence": round(confidence, 4), "preferred": round(truth, 4), "pairs": len(part)})
    return {"ece": round(error, 5), "curve": curve, "pairs": len(told)}


def slope(groups: Sequence[Group], scores: Scores) -> float:
    """How much of a score is true: the s in [0, 1] for which sigmoid(s * score difference) predicts the judgements of
    these prompts best (Platt 1999 without an intercept; Guo et al. 2017, "temperature scaling", with s = 1 / T).

    Mean over prompts of the cross-entropy over their pairs, minimised by Newton's method. A score that orders held-out
    pairs no better than chance is worth 0; one that could be stretched is left as it is.
    """
    told = []
    for group, given in zip(groups, scores, strict=True):
        pairs = _pairs(group)
        told += [(given[i] - given[j], target, 1 / len(pairs)) for i, j, target in pairs]
    if not told:
        return 0.0
    difference, target, weight = (np.array(column) for column in zip(*told, strict=True))
    s = 0.5
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-np.clip(s * difference, -30, 30)))
        gradient = float(np.sum(weight * (predicted - target) * difference))
        curvature = float(np.sum(weight * predicted * (1 - predicted) * difference**2))
        # The loss is convex in s, so the best s in [0, 1] is where clipped steps end.
        s = min(1.0, max(0.0, s - gradient / max(curvature, 1e-12)))
    return s


def length_only(train: Sequence[Group], test: Sequence[Group]) -> Interval:
    """Accuracy of a reward that only sees how many words a reply has."""
    return pair_accuracy(test, length_scores(train, test))


def bag_of_words(train: Sequence[Group], test: Sequence[Group]) -> Interval:
    """Accuracy of a reward that only sees which words a reply has, not their order nor the prompt."""
    return pair_accuracy(test, word_scores(train, test))


def length_scores(train: Sequence[Group], test: Sequence[Group]) -> Scores:
    """What the reward of `length_only` gives each candidate of `test`."""
    return _baseline(train, test, lambda text: {"words": float(len(text.split()))})


def word_scores(train: Sequence[Group], test: Sequence[Group]) -> Scores:
    """What the reward of `bag_of_words` gives each candidate of `test`."""
    return _baseline(train, test, lambda text: dict(Counter(re.findall(r"\w+", text.lower()))))


def _baseline(train: Sequence[Group], test: Sequence[Group], features: Callable[[str], dict[str, Any]]) -> Scores:
    """Bradley-Terry on linear features, fitted by AdaGrad over the pairs, with a small L2 penalty."""
    seen: Counter[str] = Counter()
    for group in train:
        for response in group.responses:
            seen.update(features(response.text).keys())
    index = {name: place for place, (name, _) in enumerate(seen.most_common(MOST_WORDS))}
    scale = max((abs(v) for g in train for r in g.responses for v in features(r.text).values()), default=0.0) or 1.0

    def vector(text: str) -> NDArray[np.float64]:
        row = np.zeros(len(index))
        for name, value in features(text).items():
            if name in index:
                row[index[name]] = value / scale
        return row

    weights, history = np.zeros(len(index)), np.full(len(index), 1e-8)
    table = [[vector(r.text) for r in group.responses] for group in train]
    rng = np.random.default_rng(0)
    for _ in range(5):
        for number in rng.permutation(len(train)):
            for i, j, target in _pairs(train[number]):
                difference = table[number][i] - table[number][j]
                surprise = 1 / (1 + math.exp(-float(np.clip(weights @ difference, -30, 30)))) - target
                gradient = surprise * difference + 1e-4 * weights
                history += gradient**2
                weights -= 0.1 * gradient / np.sqrt(history)
    return [[float(weights @ vector(r.text)) for r in group.responses] for group in test]


def _pairs(group: Group) -> list[tuple[int, int, float]]:
    count = len(group.reply_ids)
    return [(i, j, group.targets[i][j]) for i in range(count) for j in range(i + 1, count) if group.counted[i][j] > 0]
