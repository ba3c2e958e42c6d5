"""Several rounds of feedback: a run continues another run's policy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests_small import sealed_again

from palate import flow
from palate import recipe as recipes
from palate.align import heads
from palate.cli import main
from palate.errors import BrokenArtifact, RecipeError
from palate.measure import preference
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.weights import folder as weights
from palate.workspace import INHERITED, Workspace

Made = tuple[Recipe, Workspace]


@pytest.fixture(scope="module")
def rounds(small_run: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Workspace]:
    """The small run, and the round after it by the command that people use."""
    first = tmp_path_factory.mktemp("rounds") / "small"
    shutil.copytree(small_run[1].folder, first)
    main(["round", str(first)])
    return Workspace(first), Workspace(first.parent / "small-2")


def test_the_assistant_of_a_round_is_the_policy_before(rounds: tuple[Workspace, Workspace]) -> None:
    first, second = rounds
    assert not any(second.own(name) for name in INHERITED) and second.own("report")
    assert second.read("sft") == first.path("ppo") and second.read("base") == first.path("base")
    assert second.manifest("samples")["inputs"]["sft"] == first.manifest("ppo")["digest"]
    before, after = (load_file(folder / "model.safetensors") for folder in (first.read("ppo"), second.read("ppo")))
    rounds_done = json.loads((second.read("ppo") / "report.json").read_text())["rounds"]
    assert any(not torch.equal(before[name], after[name]) for name in before) == (rounds_done > 0)
    assert [run.folder for run in second.lineage()] == [first.folder, second.folder]


def test_what_was_ranked_before_is_learned_from_again(rounds: tuple[Workspace, Workspace]) -> None:
    first, second = rounds

    def judgements(run: Workspace) -> dict[str, Judgement]:
        return {j.id: j for j in read_jsonl(run.read("rankings") / "judgements.jsonl", Judgement)}

    split = {p.id: p.split for run in rounds for p in read_jsonl(run.read("rankings") / "prompts.jsonl", Prompt)}
    earlier, now = judgements(first), judgements(second)
    kept = {i for i, j in earlier.items() if split[j.prompt_id] == "train"}
    assert kept and kept < set(now)
    fresh = set(now) - kept
    assert {split[now[i].prompt_id] for i in fresh} == {"train", "dev"}, "held out is only what this assistant said"
    assert not {i for i, j in earlier.items() if split[j.prompt_id] == "dev"} & set(now)
    report = json.loads((second.read("rankings") / "report.json").read_text())
    assert report["judgements"] == len(fresh) and report["earlier_judgements"] == len(kept)
    known = {r.id: r for r in read_jsonl(second.read("rankings") / "responses.jsonl", Response)}
    checkpoints = {known[answer].checkpoint for i in fresh for answer in now[i].ranks}
    assert checkpoints == {str(first.manifest("ppo")["digest"])[:16]}


def test_new_questions_come_first(rounds: tuple[Workspace, Workspace]) -> None:
    asked = [
        {p.id for p in read_jsonl(run.read("samples") / "prompts.jsonl", Prompt) if p.split == "train"}
        for run in rounds
    ]
    every = [p for p in read_jsonl(rounds[0].read("demonstrations") / "prompts.jsonl", Prompt) if p.split == "train"]
    new = len(every) - len(asked[0])
    assert len(asked[1] & asked[0]) == max(0, len(asked[1]) - new)


def test_the_report_shows_all_rounds(rounds: tuple[Workspace, Workspace]) -> None:
    first, second = (json.loads((run.read("report") / "report.json").read_text()) for run in rounds)
    assert [line["run"] for line in second["rounds"]] == ["small", "small-2"] and len(first["rounds"]) == 1
    assert second["rounds"][0] == first["rounds"][0]
    assert second["rounds"][1]["gain_over_sft"] == second["ppo"]["gain_over_sft"]
    assert second["sft"]["gold"] == first["ppo"]["gold"], "the same model on the same prompts with the same numbers"
    assert second["first_sft"]["gold"] == first["sft"]["gold"]
    assert second["ppo"]["best_control"] in ("sft", "first_sft") and second["sft"]["kl"] == 0.0
    page = (rounds[1].read("report") / "report.html").read_text()
    assert "Round by round" in page and "Policy of the round before" in page


def test_another_policy_before_makes_everything_after_it_stale(
    rounds: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    for run in rounds:
        shutil.copytree(run.folder, tmp_path / run.folder.name)
    recipe, second = flow.reopen(tmp_path / "small-2")
    assert second.lineage()[0].folder == (tmp_path / "small").resolve(), "runs that moved together find each other"
    assert recipe.parent is not None and {step.state for step in flow.plan(recipe, second)} == {"done"}
    path = tmp_path / "small" / "09-policy" / "ppo"
    (path / "report.json").write_text("{}")
    sealed_again(path)
    states = {step.stage.name: (step.state, step.why) for step in flow.plan(recipe, second)}
    assert states["sample"] == ("stale", "its input 05-sft changed")
    shutil.rmtree(tmp_path / "small")
    with pytest.raises(BrokenArtifact, match="is gone"):
        second.has("sft")


def test_what_cannot_be_continued_is_told(rounds: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    first, _ = rounds
    text = (first.folder / "recipe.toml").read_text()
    with pytest.raises(RecipeError, match=r"\[parent\] brings what \[collect\] makes"):
        recipes.parse(text + '\n[parent]\nrun = "runs/x"\n', "x.toml")
    bare = f'[parent]\nrun = "{first.folder}"\npolicy = "dpo"\n'
    with pytest.raises(RecipeError, match="has no dpo yet"):
        flow.open_run(recipes.parse(bare, "x.toml"), tmp_path / "x")
    with pytest.raises(RecipeError, match="is this run itself"):
        flow.open_run(recipes.parse(bare.replace('policy = "dpo"', ""), "x.toml"), first.folder)
    with pytest.raises(RecipeError, match="is not a run folder"):
        flow.open_run(recipes.parse('[parent]\nrun = "nowhere"\n', "x.toml"), tmp_path / "y")


def test_names_of_rounds(small_run: Made, tmp_path: Path) -> None:
    for name, after in (("kitchen", "kitchen-2"), ("kitchen-2", "kitchen-3"), ("a-9", "a-10"), ("b-", "b--2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.toml").write_text(recipes.dump(small_run[0]))
        recipe, place = flow.next_round(tmp_path / name)
        assert place == tmp_path / after and recipe.name == after
        assert recipe.ppo == small_run[0].ppo and recipe.sft is None and recipe.kitchen == small_run[0].kitchen


def test_a_round_goes_on_with_scorers_and_fresh_answers(small_run: Made, tmp_path: Path) -> None:
    (tmp_path / "kitchen").mkdir()
    text = recipes.dump(small_run[0]).replace('by = ["kitchen"]', 'by = ["scorers"]')
    (tmp_path / "kitchen" / "recipe.toml").write_text(
        text + "\n[scoring.verifier]\nkind = 'text'\n[fresh]\nper_look = 3\n"
    )
    recipe, _ = flow.next_round(tmp_path / "kitchen", ["fresh.per_look=5"])
    assert recipe.scoring is not None and recipe.scoring.verifier is not None, "who ranks by them needs them"
    assert recipe.fresh is not None and recipe.fresh.per_look == 5


def test_a_score_has_mean_0_over_this_rounds_answers(
    rounds: tuple[Workspace, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = rounds[1]
    monkeypatch.setattr(preference, "slope", lambda *_: 1.0)  # of so few rankings the score may be worth nothing
    again = Workspace(tmp_path / "again", parent=second)
    flow.run_stage("reward", recipes.load(second.folder / "recipe.toml"), again)
    told, table = weights.read_extra(again.read("reward")), heads.read(again.read("reward"))
    head = load_file(again.read("reward") / "model.safetensors")["score.weight"].float()
    scores = table.features @ head.T @ torch.tensor(told["mix"])
    train = {p.id for p in read_jsonl(second.read("rankings") / "prompts.jsonl", Prompt) if p.split == "train"}
    assistant = str(second.manifest("sft")["digest"])[:16]
    answers = [r for r in read_jsonl(second.read("rankings") / "responses.jsonl", Response) if r.prompt_id in train]
    own, every = (
        sorted({table.rows[r.id] for r in answers if r.id in table.rows and (earlier or r.checkpoint == assistant)})
        for earlier in (False, True)
    )
    mean, of_all = float(scores[own].mean()), float(scores[every].mean())
    assert len(own) < len(every) and abs(told["mean"] - mean) < 0.2 * abs(of_all - mean)
