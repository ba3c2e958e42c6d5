"""The simulated guests who rank answers. They are not people, and everything they make is marked `simulated`.

What a guest feels about an answer is gold's four criteria mixed with the guest's own weights, a taste gold does not
share, and noise; answers shown early look a little better; one guest does not read carefully.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palate.kitchen.judge import Judge, Verdict
from palate.kitchen.knowledge import World
from palate.records import CRITERIA, Judgement, Prompt, Response, stable_id

NOISE = 0.08
"""Standard deviation of what a careful guest adds to an answer's worth (worths lie in [0, 1])."""
CARELESS_NOISE = 0.35
ORDER_BIAS = 0.02
"""How much better an answer looks for each place further up in the list."""
TIE_WITHIN = 0.03
"""Answers closer than this are ranked equal."""
TASTE = 0.04


@dataclass(frozen=True)
class Guest:
    """A simulated annotator."""

    name: str
    weights: dict[str, float]
    likes: str
    """A word this guest enjoys reading; gold does not care."""
    noise: float
    order_bias: float


def guests(world: World, count: int, seed: int) -> list[Guest]:
    """`count` guests; the last one is careless when there are more than two."""
    rng = random.Random(f"kitchen guests {world.seed} {seed}")
    found = []
    for number in range(count):
        raw = {name: rng.uniform(0.7, 1.3) for name in CRITERIA}
        total = sum(raw.values())
        careless = count > 2 and number == count - 1
        found.append(
            Guest(
                name=f"guest-{number + 1}",
                weights={name: value / total for name, value in raw.items()},
                likes=rng.choice(("chocolate", "tea", "chicken", "spicy", "fresh", "mushroom", "Italian")),
                noise=CARELESS_NOISE if careless else NOISE,
                order_bias=ORDER_BIAS,
            )
        )
    return found


def judge(
    world: World,
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Response]],
    members: Sequence[Guest],
    *,
    overlap: int,
    seed: int,
) -> list[Judgement]:
    """`overlap` judgements of every prompt's answers by the panel's members in turn."""
    gold = Judge(world)
    found = []
    for number, prompt in enumerate(prompts):
        answers = responses.get(prompt.id, ())
        if len(answers) < 2:
            continue
        truth = {answer.id: gold.verdict(prompt, answer.text) for answer in answers}
        for turn in range(overlap):
            guest = members[(number * overlap + turn) % len(members)]
            found.append(_rank(prompt, answers, truth, guest, random.Random(f"{seed} {guest.name} {prompt.id}")))
    return found


def valued(guest: Guest, verdict: Verdict) -> float:
    """What an answer's truth is worth to a guest, before taste, order and noise."""
    scores = verdict.scores()
    return verdict.worth * sum(weight * scores[name] for name, weight in guest.weights.items())


def _rank(
    prompt: Prompt,
    answers: Sequence[Response],
    truth: Mapping[str, Verdict],
    guest: Guest,
    rng: random.Random,
) -> Judgement:
    shown = list(answers)
    rng.shuffle(shown)
    worth: dict[str, float] = {}
    criteria: dict[str, dict[str, float]] = {}
    by_text: dict[str, str] = {}
    for place, answer in enumerate(shown):
        if answer.text in by_text:  # nobody prefers one of two equal answers
            twin = by_text[answer.text]
            worth[answer.id], criteria[answer.id] = worth[twin], criteria[twin]
            continue
        by_text[answer.text] = answer.id
        gold = truth[answer.id].scores()
        felt = valued(guest, truth[answer.id])
        felt += TASTE * (guest.likes in answer.text) - guest.order_bias * place + rng.gauss(0.0, guest.noise)
        worth[answer.id] = felt
        criteria[answer.id] = {
            name: float(min(5, max(1, round(1 + 4 * (gold[name] + rng.gauss(0.0, guest.noise)))))) for name in CRITERIA
        }
    return Judgement(
        id=stable_id("judgement", guest.name, prompt.id, *(answer.id for answer in shown)),
        prompt_id=prompt.id,
        annotator=guest.name,
        ranks=_ranks(worth),
        criteria=criteria,
        presented_order=tuple(answer.id for answer in shown),
        seconds=round(rng.uniform(8.0, 40.0), 1),
        simulated=True,
        guidelines_version="kitchen-1",
        source="kitchen",
    )


def _ranks(worth: Mapping[str, float]) -> dict[str, int]:
    """Competition ranks (1, 1, 3, ...); an answer ties with the best of its group when it is within TIE_WITHIN."""
    order = sorted(worth, key=lambda answer: (-worth[answer], answer))
    ranks: dict[str, int] = {}
    group_best, group_rank = worth[order[0]], 1
    for place, answer in enumerate(order, start=1):
        if group_best - worth[answer] > TIE_WITHIN:
            group_best, group_rank = worth[answer], place
        ranks[answer] = group_rank
    return ranks
