"""How far could any reward model agree with what guests say? Prints docs/gold.md's table of the panel's noise.

    python tests/soak/ceiling.py RUN [RUN ...]        (finished kitchen runs; seconds each)

On the dev and train prompts whose SFT answers a run ranked, PROMPTS of them. Agreement is that of the reward stage: per
prompt the share of pairs without a tie in the held-out judgements that the other side orders alike, equal scores
counting half; then the mean over prompts, with a 95 % bootstrap over prompts.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from palate import flow
from palate.kitchen import knowledge, panel
from palate.kitchen.judge import Judge, Verdict
from palate.measure.intervals import bootstrap
from palate.records import Judgement, Prompt, Response, read_jsonl

PROMPTS = 400
PANELS = (201, 202, 203)
"""Three panels of five, as the kitchen has them: one guest in five is careless."""

Worth = Mapping[str, float]


def wins(judgements: Sequence[Judgement]) -> dict[tuple[str, str], float]:
    """Mean target of every pair of answers, as the reward model is given it."""
    found: dict[tuple[str, str], list[float]] = {}
    for judgement in judgements:
        for a, b, target in judgement.pairs():
            found.setdefault((a, b), []).append(target)
    return {pair: sum(told) / len(told) for pair, told in found.items()}


def agreement(held_out: Mapping[tuple[str, str], float], worth: Worth) -> float | None:
    """Share of the held-out pairs without a tie that `worth` orders alike."""
    right = [
        0.5 if worth[a] == worth[b] else float((worth[a] > worth[b]) == (target > 0.5))
        for (a, b), target in held_out.items()
        if target != 0.5
    ]
    return sum(right) / len(right) if right else None


def borda(judgements: Sequence[Judgement]) -> Worth:
    """Mean share of the other answers that an answer beats."""
    total: dict[str, float] = dict.fromkeys(judgements[0].ranks, 0.0)
    for judgement in judgements:
        for a, b, target in judgement.pairs():
            total[a] += target
            total[b] += 1 - target
    return {name: round(value, 9) for name, value in total.items()}


def main(runs: Sequence[Path]) -> None:
    told: dict[str, list[float]] = {}

    def note(name: str, value: float | None) -> None:
        if value is not None:
            told.setdefault(name, []).append(value)

    for run in runs:
        recipe, workspace = flow.reopen(run)
        assert recipe.kitchen is not None
        world = knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)
        gold = Judge(world)
        prompts = list(read_jsonl(workspace.read("samples") / "prompts.jsonl", Prompt))
        answers: dict[str, list[Response]] = {}
        for response in read_jsonl(workspace.read("samples") / "responses.jsonl", Response):
            answers.setdefault(response.prompt_id, []).append(response)
        crowd = [(seed, guest) for seed in PANELS for guest in panel.guests(world, 5, seed)]
        rng = random.Random(f"ceiling {recipe.seed}")
        for prompt in rng.sample(prompts, PROMPTS):
            shown = list({r.text: r for r in answers[prompt.id]}.values())  # equal answers are one
            if len(shown) < 2:
                continue
            truth = {r.id: gold.verdict(prompt, r.text) for r in shown}

            def ask(who: tuple[int, panel.Guest], again: int = 0) -> Judgement:
                seed, guest = who
                noise = random.Random(f"{seed} {guest.name} {prompt.id} {again}")  # noqa: B023
                return panel._rank(prompt, shown, truth, guest, noise)  # noqa: B023

            one, *_ = rng.sample([w for w in crowd if w[1].noise == panel.NOISE], 1)
            hasty, *_ = rng.sample([w for w in crowd if w[1].noise != panel.NOISE], 1)
            note("the same careful guest again", agreement(wins([ask(one)]), borda([ask(one, 1)])))
            note("the same careless guest again", agreement(wins([ask(hasty)]), borda([ask(hasty, 1)])))
            overall = {name: verdict.overall for name, verdict in truth.items()}
            felt = expected(truth, shown, [guest for _, guest in crowd])
            for m in (1, 2, 4, 7):
                chosen = rng.sample(crowd, 2 * m)
                held_out = wins([ask(who) for who in chosen[:m]])
                note(f"{m} other guests, by {m} guests", agreement(held_out, borda([ask(who) for who in chosen[m:]])))
                note(f"gold, by {m} guests", agreement(held_out, overall))
                note(f"the crowd without noise, by {m} guests", agreement(held_out, felt))
    for name, values in told.items():
        told_ = bootstrap(values)
        print(f"{name:40} {told_.mean:.3f} [{told_.low:.3f}, {told_.high:.3f}] n={told_.n}")


def expected(truth: Mapping[str, Verdict], shown: Sequence[Response], guests: Sequence[panel.Guest]) -> Worth:
    """What the guests feel about each answer on average, without noise and order: nothing that can be learned from
    them predicts better."""
    return {
        r.id: sum(panel.valued(guest, truth[r.id]) + panel.TASTE * (guest.likes in r.text) for guest in guests)
        / len(guests)
        for r in shown
    }


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python tests/soak/ceiling.py RUN [RUN ...]")
    main([Path(name) for name in sys.argv[1:]])
