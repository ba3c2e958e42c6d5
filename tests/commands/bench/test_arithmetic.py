"""Policies that follow nothing but a verifier, on a model far too small to learn: that everything runs, tells its score
and goes on after a kill. That they climb is measured (benchmarks/arithmetic.json), not tested."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from palate import api, flow, metrics
from palate import recipe as recipes
from palate.commands.bench import arithmetic, docs
from palate.commands.bench.arithmetic import Calculation, World
from palate.feedback.exchange import runs
from palate.recipe import Recipe
from palate.records import Prompt, read_jsonl
from palate.scorers.verifier import final_number
from palate.train import resume
from palate.workspace import Workspace

TINY = World(largest=6, questions=80, documents=60)
SMALL = [
    "model.layers=1", "model.dim=16", "pretrain.steps=8", "pretrain.batch_rows=4", "pretrain.warmup_steps=1",
    "write.dev_prompts=10", "write.test_prompts=20", "sft.steps=6", "sft.warmup_steps=1", "ppo.rounds=3",
    "ppo.rollout_prompts=16", "ppo.minibatch_rows=8", "ppo.save_every=2", "grpo.rounds=3", "grpo.rollout_prompts=6",
    "grpo.answers=3", "grpo.save_every=2", "rejection.rounds=2", "rejection.rollout_prompts=6",
    "evaluate.dev_prompts=10", "evaluate.test_prompts=20",
    "ppo.max_new_tokens=12", "grpo.max_new_tokens=12", "rejection.max_new_tokens=12",
    "evaluate.max_new_tokens=12", "hardware.threads=1", "ppo.halt=false", "grpo.halt=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What one seed tells, and the folder of its data and run."""
    folder = tmp_path_factory.mktemp("arithmetic")
    return arithmetic.measure(api.run, folder, TINY, 7, SMALL), folder


def reopened(folder: Path) -> tuple[Recipe, Workspace]:
    """The run as it was made first, with GRPO's own baseline."""
    return flow.open_run(recipes.load(folder / "recipe.toml", SMALL), folder / "run")


def test_what_is_written_is_read_as_gsm8k(tmp_path: Path) -> None:
    arithmetic.write_world(tmp_path, TINY, 3)
    read = runs.demonstrations(tmp_path / "questions.jsonl").demonstrations
    assert len({d.messages[0].content for d in read}) == TINY.questions
    for demonstration in read:
        worked = demonstration.messages[-1].content
        assert final_number(worked) == int(demonstration.extra["answer"])
        assert eval(worked.split("=")[0]) == int(demonstration.extra["answer"])
    told = (tmp_path / "text" / "worksheets.jsonl").read_text()
    assert not any(d.messages[0].content in told for d in read), "no question is in the text of the base model"
    again = tmp_path / "again"
    arithmetic.write_world(again, TINY, 3)
    assert (again / "questions.jsonl").read_bytes() == (tmp_path / "questions.jsonl").read_bytes()


def test_calculations_stay_within_the_range() -> None:
    every = arithmetic.calculations(20)
    assert len(every) == len(set(every)) == 380 and Calculation(13, "-", 6) in every
    assert all(1 <= n <= 20 for c in every for n in (c.a, c.b, c.result))


def test_it_runs_without_rankings_and_tells_everything(measured: tuple[dict[str, Any], Path]) -> None:
    told, folder = measured
    rows = told["contestants"]
    assert list(rows) == ["base", "sft", "sft_continued", "ppo", "grpo", "rloo", "rejection"]
    assert all(0 <= row["right_greedy"]["low"] <= row["right_greedy"]["high"] <= 1 for row in rows.values())
    assert all({"gain_greedy", "gain_at_1", "kl", "seconds"} <= set(rows[name]) for name in list(rows)[2:])
    assert {name: len(scores) for name, scores in told["score_by_round"].items()} == {
        "ppo": 3, "grpo": 3, "rloo": 3, "rejection": 2
    }  # fmt: skip
    _, workspace = reopened(folder)
    assert not workspace.has("rankings") and not workspace.has("reward")
    prompts = read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt)
    assert all("answer" in prompt.extra for prompt in prompts)
    lines = list(docs.tables({"machine": {}, "workloads": {"seed 7": told}}))
    assert any(line.startswith("| ppo | ") and " [" in line for line in lines)


def test_the_report_speaks_of_no_reward_model(measured: tuple[dict[str, Any], Path]) -> None:
    page = (reopened(measured[1])[1].read("report") / "report.html").read_text(encoding="utf-8")
    assert "<h2>Score on the way</h2>" in page
    assert "earned reward" not in page and "exploits" not in page and "K = " not in page
    assert "Round by round" not in page, "several methods are not several rounds"


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_killed_policy_ends_as_the_uninterrupted_one(
    method: str, measured: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, workspace = reopened(measured[1])
    flow.run_stage(method, recipe, workspace)
    copy = Workspace(tmp_path / "run")
    shutil.copytree(workspace.folder, copy.folder)
    shutil.rmtree(copy.path(method))
    saved = resume.save

    def save_and_die(*args: Any) -> None:
        saved(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        flow.run_stage(method, recipe, copy)
    monkeypatch.setattr(resume, "save", saved)
    assert flow.run_stage(method, recipe, copy)
    assert workspace.manifest(method)["files"] == copy.manifest(method)["files"]
    assert metrics.read(workspace.logs / f"{method}.jsonl") == metrics.read(copy.logs / f"{method}.jsonl")


def test_sft_goes_on_for_the_policys_seconds_alone(measured: tuple[dict[str, Any], Path]) -> None:
    """No reward model, no rankings: the control is as long as the longest policy."""
    recipe, workspace = reopened(measured[1])
    changed = flow._sft_continued(recipe, workspace, Workspace(measured[1] / "other", parent=workspace))
    assert recipe.sft and changed.sft and changed.sft.start == "sft"
    assert changed.sft.steps > recipe.sft.warmup_steps and changed.controls is None
