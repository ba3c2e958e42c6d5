"""The reward model's heads by themselves: what the body makes of every ranked answer is kept, so that heads are fitted
again in seconds when a judgement comes, a person goes, or somebody asks what one person's rankings changed.

A head is linear in what it reads, so its loss has one minimum and no learning rate; the body still is the one that saw
all judgements.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from palate.batches.rankings import Group
from palate.errors import BadInput
from palate.feedback.reliability import EQUAL, Annotator
from palate.measure.intervals import bootstrap
from palate.recipe import Reward
from palate.records import CRITERIA, Judgement

OUTPUTS = (*CRITERIA, "overall")
"""The heads, in the order of a reward model's scores."""
FILE = "features.safetensors"
RIDGE = 1e-2
"""Pull of a head to 0, on features of variance 1, beside the mean loss of a prompt: of 1e-3 and 1e-2 the better one on
held-out rankings of the kitchen (seed 101: .605 and .619 of the pairs right, the trained head .61)."""
RANKED = 0.995
"""Quantile of the scores of ranked answers beyond which a score says little: nobody has ranked such answers."""
MOST_PROMPTS = 2000
"""Prompts whose judgements an influence is measured with: more would say the same and take minutes."""
MOST = 12
"""Annotators whose influence is measured, those with most judgements: each takes two fits."""


def mixed(scores: Sequence[float], mix: Mapping[str, float] | None) -> float:
    """One number from the five scores: overall alone, or the recipe's mix of heads."""
    if mix is None:
        return scores[-1]
    return sum(mix.get(name, 0.0) * score for name, score in zip(OUTPUTS, scores, strict=True))


def scale(
    ranked: Sequence[Sequence[float]], own: Sequence[Sequence[float]], slope: float, settings: Reward
) -> dict[str, Any]:
    """How a policy reads the heads: their mix, times the `slope` that it proved to be worth on held-out rankings, so
    that its unit is log-odds of being preferred. Its mean and standard deviation are those of the assistant's `own`
    replies, because a policy's score has mean 0 at the start (Ziegler et al. 2019, section 2.1); how high it goes where
    people ranked, earlier rounds' answers among them, is that of `ranked`. Both (replies, 5)."""
    mix = {"overall": 1.0} if settings.weights is None else settings.weights
    first, every = (torch.tensor([slope * mixed(scores, mix) for scores in some]) for some in (own, ranked))
    return {
        "labels": list(OUTPUTS),
        "pooling": settings.pooling,
        "mean": float(first.mean()),
        "std": float(first.std()),
        "highest": float(every.quantile(RANKED)),
        "mix": [slope * mix.get(name, 0.0) for name in OUTPUTS],
    }


@dataclass(frozen=True)
class Table:
    """What the heads read of every ranked answer."""

    rows: Mapping[str, int]
    """Response id -> its row; equal answers to a prompt share one."""
    features: Tensor
    """(rows, dim), float32."""


def keep(folder: Path, members: Sequence[Group], features: Tensor) -> None:
    """Write `features` (candidates of all members in their order, dim) beside the reward model, in half precision."""
    rows: dict[str, int] = {}
    at = 0
    for group in members:
        rows |= {response: at + place for response, place in group.place.items()}
        at += len(group.reply_ids)
    save_file({"features": features.to(torch.float16).contiguous()}, folder / FILE, {"rows": json.dumps(rows)})


def read(folder: Path) -> Table:
    """What `keep` wrote. Raises BadInput when it is not there or damaged."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            return Table(json.loads(file.metadata()["rows"]), file.get_tensor("features").float())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{FILE} cannot be read ({str(error)[:80]}).", folder, "Train the reward model again.") from None


def fit(table: Table, judgements: Sequence[Judgement], known: Mapping[str, Annotator] | None = None) -> Tensor:
    """The overall head (dim) that orders the answers as `judgements` do: Bradley-Terry with soft targets, each prompt's
    pairs together one (`preference_loss`), and a ridge. Judgements of answers that are not in the table are left out.

    known: how much each annotator counts. Raises ValueError where no pair is left.
    """
    first, second, targets, weights = _pairs(table, judgements, known or {})
    std = table.features.std(dim=0).clamp(min=1e-6)
    difference = (table.features[first] - table.features[second]) / std
    head = torch.zeros(table.features.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([head], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(difference @ head, targets, reduction="none")
        value = (each * weights).sum() + RIDGE * (head**2).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return head.detach() / std


def fit_criteria(table: Table, judgements: Sequence[Judgement]) -> dict[str, Tensor]:
    """A head (dim) for each criterion that somebody scored: ridge regression of the score, scaled to [-1, 1], on what
    the head reads. It has no intercept, as a reward model's head has none."""
    given: dict[str, list[tuple[int, float]]] = {}
    for judgement in judgements:
        for response, scores in judgement.criteria.items():
            for name in CRITERIA:
                if name in scores and response in table.rows:
                    given.setdefault(name, []).append((table.rows[response], (scores[name] - 3) / 2))
    found = {}
    for name, pairs in given.items():
        x = table.features[[row for row, _ in pairs]]
        y = torch.tensor([value for _, value in pairs])
        scale = x.square().mean(dim=0).sqrt().clamp(min=1e-6)
        normal = (x / scale).T @ (x / scale) / len(y) + RIDGE * torch.eye(x.shape[1])
        found[name] = torch.linalg.solve(normal, (x / scale).T @ y / len(y)) / scale
    return found


def _pairs(
    table: Table, judgements: Sequence[Judgement], known: Mapping[str, Annotator]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(first row, second row, target, weight) of every compared pair, the weights of all prompts together 1."""
    by_prompt: dict[str, list[tuple[int, int, float, float]]] = {}
    for judgement in judgements:
        for a, b, weight, told in known.get(judgement.annotator, EQUAL).evidence(judgement):
            i, j = table.rows.get(a), table.rows.get(b)
            if i is not None and j is not None and i != j and weight > 0:
                by_prompt.setdefault(judgement.prompt_id, []).append((i, j, min(1.0, max(0.0, told / weight)), weight))
    if not by_prompt:
        raise ValueError("no judgement compares answers that are in the table.")
    rows = [
        (i, j, target, weight / len(pairs) / len(by_prompt))
        for pairs in by_prompt.values()
        for i, j, target, weight in pairs
    ]
    firsts, seconds, targets, weights = zip(*rows, strict=True)
    return torch.tensor(firsts), torch.tensor(seconds), torch.tensor(targets), torch.tensor(weights)


def influence(
    table: Table,
    train: Sequence[Judgement],
    unseen: Sequence[Group],
    accuracy: Callable[[Sequence[Group], Sequence[Sequence[float]]], Any],
    known: Mapping[str, Annotator] | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """By annotator, what the head would be without that person: on how many of the prompts `unseen` another answer
    would be first, beside what leaving out as many judgements at random changes, and how the `accuracy` (groups, scores
    -> interval) on the judgements of those prompts would change."""
    rng = random.Random(f"{seed} influence")
    prompts = sorted({judgement.prompt_id for judgement in train})
    if len(prompts) > MOST_PROMPTS:
        some = set(rng.sample(prompts, MOST_PROMPTS))
        train = [judgement for judgement in train if judgement.prompt_id in some]
    everybody = fit(table, train, known)
    by: dict[str, list[Judgement]] = {}
    for judgement in train:
        by.setdefault(judgement.annotator, []).append(judgement)
    places = [[table.rows[r.id] for r in group.responses] for group in unseen]

    def scores(head: Tensor) -> list[list[float]]:
        values = table.features @ head
        return [values[rows].tolist() for rows in places]

    def changed(head: Tensor) -> list[float]:
        return [
            float(before.index(max(before)) != after.index(max(after)))
            for before, after in zip(scores(everybody), scores(head), strict=True)
        ]

    found = {}
    right = accuracy(unseen, scores(everybody)).mean
    for name in sorted(by, key=lambda name: (-len(by[name]), name))[:MOST]:
        left = [judgement for judgement in train if judgement.annotator != name]
        if not left:
            continue
        gone = set(rng.sample(range(len(train)), len(by[name])))
        chance = [judgement for number, judgement in enumerate(train) if number not in gone]
        without, by_chance = (fit(table, kept, known) for kept in (left, chance))
        found[name] = {
            "judgements": len(by[name]),
            "another_first": bootstrap(changed(without)).to_json(),
            "by_chance": bootstrap(changed(by_chance)).to_json(),
            "accuracy_without": round(accuracy(unseen, scores(without)).mean - right, 5),
        }
    return found
