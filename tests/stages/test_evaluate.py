import json
from dataclasses import replace

import pytest
import torch

from palate import flow
from palate.device import Device
from palate.measure.intervals import bootstrap, win_rate
from palate.recipe import Recipe
from palate.stages import evaluate
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
MODELS = ("base", "sft", "sft_continued", "best_of_k", "ppo", "placebo")
CRITERIA = ("overall", "accuracy", "helpfulness", "safety", "clarity")


def test_the_report_holds_what_it_must(small_run: Made) -> None:
    folder = small_run[1].read("report")
    report = json.loads((folder / "report.json").read_text())
    for name in MODELS:
        for key in ("gold", "gold_greedy", "gold_t1"):
            for criterion in CRITERIA:
                told = report[name][key][criterion]
                assert told["low"] <= told["mean"] <= told["high"]
        assert report[name]["best_temperature"] in (0.0, 1.0)
        assert "kl" in report[name]
        assert set(report["tasks"][name]) <= {"completion", "translation", "summarisation", "sentiment"}
    for name in ("win_rate_vs_sft", "gain_over_best_control"):
        assert set(report["ppo"][name]) == {"mean", "low", "high", "n"}
    assert set(report["ppo"]["change"]) == set(CRITERIA) - {"overall"}
    assert sum(told["change"]["n"] for told in report["ppo"]["by_skill"].values()) == report["n"]["test_prompts"]
    assert "gain" in report["placebo"] and 0 <= report["placebo"]["slope"] <= 1
    for name in ("accuracy", "accuracy_vs_gold", "noise_ceiling", "panel_agreement", "length_only", "bag_of_words"):
        assert report["reward"][name]["n"] > 0
    assert report["stages"]["pretrain"]["seconds"] > 0 and report["stages"]["placebo.ppo"]["peak_mb"] > 0
    assert list(report["stages"])[-1] == "evaluate"
    assert report["sft"]["kl"] == 0
    page = (folder / "report.html").read_text()
    assert "Suggest a non-vegetarian dinner." in page and "simulated" in page


def test_nothing_runs_twice_and_a_change_makes_only_its_readers_stale(small_run: Made) -> None:
    recipe, workspace = small_run
    assert {step.state for step in flow.plan(recipe, workspace)} == {"done"}
    assert recipe.ppo
    changed = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"kl_weight": 0.3})})
    states = {step.stage.name: step.state for step in flow.plan(changed, workspace)}
    assert [name for name, state in states.items() if state != "done"] == ["ppo", "evaluate"]


def test_intervals() -> None:
    told = bootstrap([0.0, 1.0] * 200)
    assert (
        told.mean == 0.5 and told.low == pytest.approx(0.451, abs=0.01) and told.high == pytest.approx(0.549, abs=0.01)
    )
    assert win_rate([1, 2, 3, 3], [0, 2, 4, 1]).mean == pytest.approx(2.5 / 4)
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap([])


def test_answers_that_gold_likes_alike_order_nothing(small_run: Made) -> None:
    """A weak assistant's answers may all be worth 0: that is no share of pairs, and no reason to stop."""
    _, workspace = small_run
    bench = evaluate._bench(*small_run, Device("cpu", torch.float32))
    members = evaluate._dev_groups(workspace, bench)
    alike = replace(bench, judge=lambda prompt, text: {"overall": 0.0})
    assert evaluate._against_gold(members, alike) == (None, None)
    told = evaluate._against_gold(members, replace(bench, judge=lambda prompt, text: {"overall": float(len(text))}))
    assert all(side and 0 <= side["mean"] <= 1 and side["n"] > 0 for side in told)
