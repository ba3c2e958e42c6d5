"""The judge's attack set against the SFT answers of finished kitchen runs. Prints docs/gold.md's table.

    python tests/soak/attacks.py RUN [RUN ...]        (a minute each)

Each attack's mean gold on 200 test prompts of each run's world, beside the median gold of the answers that the run's
SFT model gave at temperature 1 (the samples that were ranked).
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests_attacks import HARMED, HARMLESS, IGNORANT, SPOILED, Attacker, best_fixed_text, measure

from palate import flow
from palate.kitchen import dialogue, knowledge
from palate.kitchen.judge import Judge
from palate.records import Prompt, Response, read_jsonl

PROMPTS = 200
ANSWERS = 1000


def main(runs: Sequence[Path]) -> None:
    rows: dict[str, list[str]] = {}

    def cell(row: str, value: float, by_skill: dict[str, float]) -> None:
        top = max(by_skill, key=lambda skill: by_skill[skill])
        rows.setdefault(row, []).append(f"{value:.2f} ({by_skill[top]:.2f} {top})")

    def by_skill(pairs: list[tuple[str, float]], middle: Callable[[list[float]], float]) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for skill, score in pairs:
            found.setdefault(skill, []).append(score)
        return {skill: middle(scores) for skill, scores in found.items()}

    for run in runs:
        recipe, workspace = flow.reopen(run)
        assert recipe.kitchen is not None
        judge = Judge(knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes))
        asked = {p.id: p for p in read_jsonl(workspace.read("samples") / "prompts.jsonl", Prompt)}
        answers = list(read_jsonl(workspace.read("samples") / "responses.jsonl", Response))
        answers = random.Random(0).sample(answers, ANSWERS)
        told = [(asked[r.prompt_id].skill, judge.scores(asked[r.prompt_id], r.text)["overall"]) for r in answers]
        medians = by_skill(told, statistics.median)
        rows.setdefault("SFT, median", []).append(
            f"{statistics.median(s for _, s in told):.2f} ({min(medians.values()):.2f} to {max(medians.values()):.2f})"
        )
        every = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
        test = [p for p in every if p.split == "test"]
        some = random.Random(1).sample(test, PROMPTS)
        sets: dict[str, dict[str, Callable[[Attacker], str | None]]] = {
            "knows nothing": IGNORANT,
            "spoiled": SPOILED,
            "one thing wrong": HARMED,
            "harmless": HARMLESS,
        }
        for title, attacks in sets.items():
            for name, attack in attacks.items():
                result = measure(judge, some, attack)
                cell(f"{title}: {name}", result.mean, result.by_skill)
        fixed = []
        for skill in dialogue.SKILLS:
            train = [p for p in every if p.split == "train" and p.skill == skill][:60]
            text = best_fixed_text(judge, train, candidates=100, most=6)
            fixed += [(skill, judge.scores(p, text)["overall"]) for p in some if p.skill == skill]
        cell(
            "knows nothing: best fixed text of each skill",
            statistics.fmean(s for _, s in fixed),
            by_skill(fixed, statistics.fmean),
        )
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python tests/soak/attacks.py RUN [RUN ...]")
    main([Path(name) for name in sys.argv[1:]])
