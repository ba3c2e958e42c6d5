"""The main job with fewer steps: what the demo claims must hold for a seed nobody tuned on."""

import json
from pathlib import Path

import pytest

from palate import cli, flow
from palate import recipe as recipes

SHORTER = (
    "seed=11",
    "pretrain.steps=380",
    "sft.steps=300",
    "sample.prompts=1200",
    "ppo.rounds=16",
    "evaluate.test_prompts=250",
    "evaluate.dev_prompts=80",
    "evaluate.temperatures=[0.0, 1.0]",
    "controls.placebo=false",
)


@pytest.mark.slow
def test_each_stage_helps(tmp_path: Path) -> None:
    recipe, workspace = flow.open_run(recipes.load(cli.recipe_folder() / "kitchen.toml", SHORTER), tmp_path / "run")
    flow.run(recipe, workspace)
    report = json.loads((workspace.read("report") / "report.json").read_text())
    assert report["sft"]["gain_over_base"]["low"] > 0
    # At the same temperature: so early, sampling itself still costs more than choosing among four samples brings.
    assert report["best_of_k"]["gain_over_sft_t1"]["low"] > 0
    assert report["ppo"]["win_rate_vs_sft"]["low"] > 0.5
    assert report["ppo"]["gain_over_best_control"]["low"] > 0
    assert report["bits_per_byte"]["base"] < report["bits_per_byte"]["ngram_5"]
