"""The objectives once more, straight from their papers, with loops over Python's floats: slow, and with nothing in
common with palate/objectives but the equations.

A batch is a list of unpadded rows, one per reply and with its own tokens only, so padding cannot be wrong here. Losses
return (sum, weight) as ours do. `gradient` differentiates any of them by central differences.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Sequence[float]
Rows = Sequence[Row]


def gradient(of: Callable[[Any], float], at: list[Any], step: float = 1e-5) -> list[Any]:
    """d of(at) / d at for nested lists of floats of any depth, number by number."""
    point = copy.deepcopy(at)

    def walk(part: list[Any]) -> list[Any]:
        slopes = []
        for i, value in enumerate(part):
            if isinstance(value, list):
                slopes.append(walk(value))
                continue
            part[i] = value + step
            above = of(point)
            part[i] = value - step
            below = of(point)
            part[i] = value
            slopes.append((above - below) / (2 * step))
        return slopes

    return walk(point)


def log_softmax(logits: Row, target: int, temperature: float = 1.0) -> float:
    total = 0.0
    for value in logits:
        total += math.exp(value / temperature)
    return logits[target] / temperature - math.log(total)


def log_sigmoid(x: float) -> float:
    return -math.log(1.0 + math.exp(-x))


# --- language model ---------------------------------------------------------------------------------------------------


def next_token(logits: Sequence[Row], targets: Sequence[int], weights: Row) -> tuple[float, float]:
    """Bengio et al. 2003, eq. 2, times -1."""
    loss = weight = 0.0
    for row, target, counts in zip(logits, targets, weights, strict=True):
        loss -= counts * log_softmax(row, target)
        weight += counts
    return loss, weight


# --- people's rankings ------------------------------------------------------------------------------------------------


def preference(scores: Rows, rankings: Sequence[Sequence[Mapping[int, int]]]) -> tuple[float, float]:
    """Ouyang et al. 2022, eq. 1: rankings[prompt][annotator] is candidate -> rank (1 is best, equal is a tie).

    Every comparison that an annotator made is one term. A tie is half a win of each side.
    """
    loss = prompts = 0.0
    for row, annotators in zip(scores, rankings, strict=True):
        terms = []
        for ranks in annotators:
            for a in ranks:
                for b in ranks:
                    if ranks[a] < ranks[b]:
                        terms.append(-log_sigmoid(row[a] - row[b]))
                    elif ranks[a] == ranks[b] and a < b:
                        terms.append(-0.5 * log_sigmoid(row[a] - row[b]) - 0.5 * log_sigmoid(row[b] - row[a]))
        if terms:
            loss += sum(terms) / len(terms)
            prompts += 1
    return loss, prompts


def criteria(scores: Sequence[Rows], given: Sequence[Sequence[Mapping[int, float]]]) -> float:
    """given[prompt][candidate] is criterion -> mean label; squared error, mean per prompt (Wang et al. 2023)."""
    loss = 0.0
    for rows, labels in zip(scores, given, strict=True):
        errors = [
            (row[criterion] - label) ** 2
            for row, labelled in zip(rows, labels, strict=True)
            for criterion, label in labelled.items()
        ]
        if errors:
            loss += sum(errors) / len(errors)
    return loss


def direct(chosen: Rows, rejected: Rows, ref_chosen: Rows, ref_rejected: Rows, beta: float) -> tuple[float, float]:
    """Rafailov et al. 2023, eq. 7; each row has the log-probabilities of one reply's tokens."""
    loss = 0.0
    for w, l, ref_w, ref_l in zip(chosen, rejected, ref_chosen, ref_rejected, strict=True):  # noqa: E741
        won = lost = 0.0
        for now, before in zip(w, ref_w, strict=True):
            won += now - before
        for now, before in zip(l, ref_l, strict=True):
            lost += now - before
        loss -= log_sigmoid(beta * won - beta * lost)
    return loss, float(len(chosen))


# --- from a score to advantages ---------------------------------------------------------------------------------------


def rewards(score: float, logp: Row, ref_logp: Row, kl_weight: float) -> list[float]:
    """Ziegler et al. 2019, eq. 2, spread over the tokens of one reply."""
    each = [-kl_weight * (now - before) for now, before in zip(logp, ref_logp, strict=True)]
    each[-1] += score
    return each


def gae(reward: Row, values: Row, gamma: float, lam: float) -> list[float]:
    """Schulman et al. 2016, eq. 16: A_t = sum over l of (gamma lambda)^l delta_{t+l}; the state after the end is worth
    nothing."""
    advantages = []
    for t in range(len(reward)):
        total = 0.0
        for l in range(len(reward) - t):  # noqa: E741
            after = values[t + l + 1] if t + l + 1 < len(values) else 0.0
            total += (gamma * lam) ** l * (reward[t + l] + gamma * after - values[t + l])
        advantages.append(total)
    return advantages


def moments(rows: Rows) -> tuple[float, float]:
    """Mean and variance (divided by n) of all numbers."""
    numbers = [value for row in rows for value in row]
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.fsum((value - mean) ** 2 for value in numbers) / len(numbers)


def whitened(rows: Rows) -> list[list[float]]:
    mean, variance = moments(rows)
    return [[(value - mean) / math.sqrt(variance) for value in row] for row in rows]


def group_relative(scores: Rows) -> list[list[float]]:
    """Shao et al. 2024, section 4.1.2, with the standard deviation of a sample."""
    result = []
    for row in scores:
        mean, variance = moments([row])
        std = math.sqrt(variance * len(row) / (len(row) - 1))
        result.append([(score - mean) / (std + 1e-4) for score in row])
    return result


def leave_one_out(scores: Rows) -> list[list[float]]:
    """Kool et al. 2019: the baseline is the mean of the others."""
    result = []
    for row in scores:
        result.append([])
        for i, score in enumerate(row):
            others = [other for j, other in enumerate(row) if j != i]
            result[-1].append(score - sum(others) / len(others))
    return result


# --- policy and value -------------------------------------------------------------------------------------------------


def clipped_surrogate(logp: float, old_logp: float, advantage: float, clip: float) -> float:
    """Schulman et al. 2017, eq. 7, for one token."""
    ratio = math.exp(logp - old_logp)
    within = ratio
    if ratio > 1 + clip:
        within = 1 + clip
    if ratio < 1 - clip:
        within = 1 - clip
    return min(ratio * advantage, within * advantage)


def policy(logp: Rows, old_logp: Rows, advantages: Rows, clip: float) -> tuple[float, float]:
    loss = tokens = 0.0
    for row, old_row, advantage_row in zip(logp, old_logp, advantages, strict=True):
        for now, old, advantage in zip(row, old_row, advantage_row, strict=True):
            loss -= clipped_surrogate(now, old, advantage, clip)
            tokens += 1
    return loss, tokens


def value(values: Rows, old_values: Rows, returns: Rows, clip: float) -> tuple[float, float]:
    """The clipped squared error of OpenAI baselines' PPO2."""
    loss = tokens = 0.0
    for row, old_row, return_row in zip(values, old_values, returns, strict=True):
        for now, old, target in zip(row, old_row, return_row, strict=True):
            near = now
            if now > old + clip:
                near = old + clip
            if now < old - clip:
                near = old - clip
            loss += 0.5 * max((now - target) ** 2, (near - target) ** 2)
            tokens += 1
    return loss, tokens


def k2(logp: Rows, ref_logp: Rows) -> tuple[float, float]:
    """Half the squared log-ratio of every token (Schulman 2020)."""
    loss = tokens = 0.0
    for row, ref_row in zip(logp, ref_logp, strict=True):
        for now, before in zip(row, ref_row, strict=True):
            loss += (now - before) ** 2 / 2
            tokens += 1
    return loss, tokens


def group_policy(logp: Rows, old_logp: Rows, ref_logp: Rows, advantages: Row, clip: float, kl_weight: float) -> float:
    """Shao et al. 2024, eq. 3, negated, with k2 for its KL: the mean over replies of the mean over their tokens."""
    loss = 0.0
    for row, old_row, ref_row, advantage in zip(logp, old_logp, ref_logp, advantages, strict=True):
        reply = 0.0
        for now, old, before in zip(row, old_row, ref_row, strict=True):
            reply += clipped_surrogate(now, old, advantage, clip) - kl_weight * (now - before) ** 2 / 2
        loss -= reply / len(row)
    return loss / len(logp)
