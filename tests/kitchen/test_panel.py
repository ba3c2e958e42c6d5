"""The guests are noisy in the ways they are said to be, and in no other (measured at length: tests/soak/ceiling.py)."""

import dataclasses
import random
import statistics
from collections.abc import Sequence

import pytest
from tests_attacks import minutes_asked

from palate.feedback import statistics as feedback
from palate.kitchen import dialogue, knowledge, panel
from palate.kitchen.judge import Judge
from palate.records import Judgement, Response

WORLD = knowledge.build(0, 120)
JUDGE = Judge(WORLD)
_, PROMPTS = dialogue.build(WORLD, seed=0, demonstrations=1, train=400, dev=1, test=1)
ANSWERS = {
    p.id: [
        Response(
            id=f"{p.id}-{i}",
            prompt_id=p.id,
            text=dialogue.Writer(WORLD, random.Random(f"{p.id} {i}")).answer(p.extra["kitchen"]),
        )
        for i in range(4)
    ]
    for p in PROMPTS
}
VERDICTS = {p.id: {r.id: JUDGE.verdict(p, r.text) for r in ANSWERS[p.id]} for p in PROMPTS}
CAREFUL, CARELESS = panel.guests(WORLD, 5, 0)[0], panel.guests(WORLD, 5, 0)[-1]


def asked(guest: panel.Guest, seed: int) -> list[Judgement]:
    """What one guest says to every prompt."""
    return [panel._rank(p, ANSWERS[p.id], VERDICTS[p.id], guest, random.Random(f"{seed} {p.id}")) for p in PROMPTS]


def alike(one: Sequence[Judgement], other: Sequence[Judgement]) -> float:
    """Share of the pairs ordered by both that they order alike."""
    found = []
    for a, b in zip(one, other, strict=True):
        theirs = {(x, y): target for x, y, target in b.pairs()}
        found += [target == theirs[x, y] for x, y, target in a.pairs() if target != 0.5 and theirs[x, y] != 0.5]
    return statistics.fmean(found)


def test_a_careful_guest_agrees_with_itself_and_a_careless_one_hardly() -> None:
    assert 0.75 < alike(asked(CAREFUL, 1), asked(CAREFUL, 2)) < 0.95
    assert 0.5 < alike(asked(CARELESS, 1), asked(CARELESS, 2)) < 0.68


def test_more_guests_come_closer_to_gold() -> None:
    right = {}
    for overlap in (1, 4):
        judgements = panel.judge(WORLD, PROMPTS, ANSWERS, panel.guests(WORLD, 5, 0), overlap=overlap, seed=0)
        wins: dict[str, float] = {}
        for judgement in judgements:
            for a, b, target in judgement.pairs():
                wins[f"{a} {b}"] = wins.get(f"{a} {b}", 0.0) + target - 0.5
        gold = {name: verdict.overall for several in VERDICTS.values() for name, verdict in several.items()}
        told = [(gold[a] - gold[b], won) for (a, b), won in ((pair.split(), won) for pair, won in wins.items())]
        right[overlap] = statistics.fmean(float(by_gold * won > 0) for by_gold, won in told if by_gold and won)
    assert right[1] + 0.04 < right[4]
    assert 0.85 < right[4] < 0.97


@pytest.mark.parametrize(("order_bias", "least", "most"), [(CAREFUL.order_bias, 0.02, 0.2), (0.0, -0.02, 0.02),
                                                           (0.2, 0.4, 0.6)])  # fmt: skip
def test_what_is_shown_first_looks_better_to_whom_order_moves(order_bias: float, least: float, most: float) -> None:
    guest = dataclasses.replace(CAREFUL, order_bias=order_bias)
    found = feedback.first_shown([j for seed in range(6) for j in asked(guest, seed)])
    assert found is not None and least < found < most


def test_a_taste_moves_the_order_and_gold_does_not_share_it() -> None:
    """The same guest with the same noise, but fond of a word that half of the answers hold."""
    liked = dataclasses.replace(CAREFUL, likes="It ")
    without = dataclasses.replace(CAREFUL, likes="nobody says this")
    texts = {r.id: r.text for several in ANSWERS.values() for r in several}

    def share(judgements: Sequence[Judgement]) -> float:
        return statistics.fmean(
            target
            for j in judgements
            for a, b, target in [*j.pairs(), *((b, a, 1 - t) for a, b, t in j.pairs())]
            if "It " in texts[a] and "It " not in texts[b]
        )

    assert share(asked(liked, 1)) > share(asked(without, 1)) + 0.05


def test_guests_prefer_the_right_answer_to_the_well_told_wrong_one() -> None:
    """By the mean of the criteria the wrong one is better (.62 to .51): they feel what the whole is worth."""
    dish = next(d for d in WORLD.dishes if d.risky and d.allergens)
    other = next(d for d in WORLD.dishes if d.minutes != dish.minutes)
    prompt = minutes_asked(dish)
    warned = f"Mind the {knowledge.listed(dish.allergens)} in it. Please {WORLD.fact[dish.risky].note}."
    texts = {
        "right": f"{dialogue.OPENERS[0]} It takes {dish.minutes} minutes. By the way, {WORLD.myths[0]}.",
        "wrong": f"It takes {other.minutes} minutes. {warned}",
    }
    verdicts = {name: JUDGE.verdict(prompt, text) for name, text in texts.items()}
    assert verdicts["wrong"].overall / verdicts["wrong"].worth > verdicts["right"].overall / verdicts["right"].worth
    answers = {"p": [Response(id=name, prompt_id="p", text=text) for name, text in texts.items()]}
    first = [
        judgement.ranks["right"] == 1
        for seed in range(40)
        for judgement in panel.judge(WORLD, [prompt], answers, panel.guests(WORLD, 5, seed), overlap=4, seed=seed)
    ]
    assert statistics.fmean(first) > 0.75
