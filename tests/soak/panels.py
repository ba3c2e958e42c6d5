"""Three other panels rank the answers of a finished kitchen run; reward model and PPO are trained on each, and gold
says whether what they gain over SFT depends on who ranked. Prints docs/gold.md's figures as JSON lines.

    python tests/soak/panels.py RUN OUT [SECTION.KEY=VALUE ...]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from palate import flow
from palate import recipe as recipes
from palate.device import open_device
from palate.kitchen import panel
from palate.measure import answers as measure
from palate.measure.answers import Answers
from palate.measure.intervals import Interval, bootstrap
from palate.recipe import Recipe
from palate.records import CRITERIA
from palate.stages import evaluate
from palate.weights import folder as weights
from palate.workspace import Workspace

PANELS: dict[str, dict[str, Any]] = {
    "other tastes": {"seed": 101, "annotators": 5},
    "twice the taste and order bias": {
        "seed": 102,
        "annotators": 5,
        "TASTE": 2 * panel.TASTE,
        "ORDER_BIAS": 2 * panel.ORDER_BIAS,
    },
    "three guests, one careless": {"seed": 103, "annotators": 3},
}
"""Every panel has tastes and noise of its own seed. With three guests, one judgement in three is the careless one's."""


def prepared(run: Path, folder: Path, told: dict[str, Any], overrides: list[str]) -> tuple[Recipe, Workspace]:
    """A copy of the run up to its samples, with another panel's settings."""
    if not folder.is_dir():
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("controls", "07-*", "08-*", "09-*", "10-*"))
    recipe = recipes.load(folder / flow.RECIPE, overrides)
    assert recipe.rank is not None
    # The run's own seed stays: who ranks is the only difference.
    settings = recipe.rank.model_copy(update={"annotators": told["annotators"]})
    return flow.open_run(recipe.model_copy(update={"rank": settings, "controls": None}), folder)


def made(recipe: Recipe, workspace: Workspace, told: dict[str, Any], first: str, last: str) -> None:
    """Stages `first` to `last` with this panel in the place of the package's."""
    asked, invited = panel.judge, panel.guests

    def judge(*values: Any, **named: Any) -> Any:
        return asked(*values, **(named | {"seed": told["seed"]}))

    def guests(world: Any, count: int, _: int) -> Any:
        return invited(world, count, told["seed"])

    with mock.patch.multiple(panel, judge=judge, guests=guests, **{k: v for k, v in told.items() if k.isupper()}):
        flow.run(recipe, workspace, first=first, last=last)


def best_of_samples(workspace: Workspace, bench: evaluate.Bench) -> Interval:
    """Gold of the held-out SFT sample that the reward model likes best, minus the mean of its prompt's samples."""
    gains = []
    for group in evaluate._dev_groups(workspace, bench):
        assert bench.judge is not None
        gold = [bench.judge(group.prompt, r.text)["overall"] for r in group.responses]
        scores = bench.learned([group.prompt] * len(gold), group.reply_ids)
        gains.append(gold[scores.index(max(scores))] - sum(gold) / len(gold))
    return bootstrap(gains)


def best_answers(bench: evaluate.Bench, name: str, folder: Path) -> Answers:
    """A model's test answers at the temperature that gold likes best on dev."""
    model = weights.load_language_model(folder).to(bench.device.torch).eval()
    on_dev = [bench.answer(name, model, bench.dev, t) for t in bench.settings.temperatures]
    return bench.answer(name, model, bench.test, measure.best_temperature(on_dev))


def main(run: Path, out: Path, overrides: list[str]) -> None:
    """All reward models first, then all policies."""
    places = {name: out / f"panel-{number}" for number, name in enumerate(PANELS, start=1)}
    for name, told in PANELS.items():
        recipe, workspace = prepared(run, places[name], told, overrides)
        made(recipe, workspace, told, "rank", "reward")
        bench = evaluate._bench(recipe, workspace, open_device(recipe.hardware))
        reward = evaluate._reward(recipe, workspace, bench)
        kept = ("accuracy", "bag_of_words", "accuracy_vs_gold", "noise_ceiling", "slope", "panel_agreement")
        line = {"panel": name, "best_of_4": best_of_samples(workspace, bench).to_json()}
        print(json.dumps(line | {key: reward[key] for key in kept}), flush=True)
    theirs: dict[str, Answers] = {}
    for name, told in PANELS.items():
        recipe, workspace = prepared(run, places[name], told, overrides)
        made(recipe, workspace, told, "ppo", "ppo")
        bench = evaluate._bench(recipe, workspace, open_device(recipe.hardware))
        controls = {"sft": workspace.read("sft"), "sft continued": run / "controls" / "sft_continued" / "05-sft"}
        for control, folder in controls.items():  # the same for every panel
            if control not in theirs and folder.is_dir():
                theirs[control] = best_answers(bench, control, folder)
        policy = best_answers(bench, "policy", workspace.read("ppo"))
        line = {
            "panel": name,
            "best": {a.model: [a.temperature, round(a.mean(), 4)] for a in (*theirs.values(), policy)},
            "gain": {control: measure.gain(policy, answers).to_json() for control, answers in theirs.items()},
            "change": {criterion: measure.gain(policy, theirs["sft"], criterion).to_json() for criterion in CRITERIA},
            "win_rate": measure.wins(policy, theirs["sft"]).to_json(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python tests/soak/panels.py RUN OUT [SECTION.KEY=VALUE ...]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
