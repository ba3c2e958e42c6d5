import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests_small import sealed_again

from palate import flow, metrics
from palate.align import prompts
from palate.align.players import check_gate
from palate.api import load
from palate.batches.replies import lay_out
from palate.batches.shards import Shard
from palate.device import Device, seeds
from palate.errors import BadInput, GateClosed, RecipeError
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.measure.bits import bits_per_byte
from palate.recipe import Recipe
from palate.records import Prompt, Response, read_jsonl
from palate.stages import ppo
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
CPU = Device("cpu", torch.float32)


def test_the_log_has_what_people_watch(small_run: Made) -> None:
    lines = metrics.read(small_run[1].logs / "ppo.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    wanted = {"score", "kl", "entropy", "clip_fraction", "ratio", "explained_variance", "reply_tokens", "eos_rate"}
    assert wanted <= set(lines[-1])
    assert lines[0]["kl"] == 0.0, "the first rollout is the assistant's own"
    for line in lines[1:]:
        assert line["first_ratio_error"] < 1e-5 and line["first_kl"] < 1e-6, "before its first step a ratio is 1"


def test_the_policy_moved_only_after_the_critics_warm_up(small_run: Made) -> None:
    lines = metrics.read(small_run[1].logs / "ppo.jsonl")
    assert lines[0]["lr"] == 0 and "policy_loss" not in lines[0]
    assert lines[1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert abs(lines[-1]["kl"]) > 0


def test_the_gate(small_run: Made) -> None:
    workspace, settings = small_run[1], small_run[0].ppo.model_copy(update={"gate": True})
    report = json.loads((workspace.read("reward") / "report.json").read_text())
    if report["best_of_k"]["low"] <= 0.5:
        with pytest.raises(GateClosed, match="best of K"):
            check_gate(small_run[0], settings, workspace)
    else:
        check_gate(small_run[0], settings, workspace)


def test_a_reward_worth_nothing_moves_nothing(small_run: Made, tmp_path: Path) -> None:
    recipe, workspace = small_run
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.folder, copy.folder)
    shutil.rmtree(copy.path("ppo"))
    path = copy.path("reward") / "config.json"
    text = re.sub(r'"mix": \[[^]]*\]', '"mix": [0.0, 0.0, 0.0, 0.0, 0.0]', path.read_text())
    path.write_text(re.sub(r'"(mean|std)": [-0-9.e]+', r'"\1": 0.0', text))
    sealed_again(copy.path("reward"))
    assert flow.run_stage("ppo", recipe, copy)
    assert json.loads((copy.read("ppo") / "report.json").read_text())["rounds"] == 0
    sft, policy = (load_file(copy.read(a) / "model.safetensors") for a in ("sft", "ppo"))
    assert all(torch.equal(sft[name], policy[name]) for name in sft)
    assert not metrics.read(copy.logs / "ppo.jsonl")


def opened(recipe: Recipe, workspace: Workspace) -> ppo.Models:
    assert recipe.ppo
    return ppo.open_models(recipe, workspace, CPU, prompts.read(workspace, recipe.ppo))


def prompt_ids(workspace: Workspace) -> list[list[int]]:
    tokenizer = tokenizers.load(workspace.read("sft"))
    return [
        tokenizer.encode_prompt(p.messages) for p in read_jsonl(workspace.read("samples") / "prompts.jsonl", Prompt)
    ]


def test_the_same_seed_gives_the_same_file_and_the_same_policy(small_run: Made, tmp_path: Path) -> None:
    recipe, workspace = small_run
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.folder, copy.folder)
    shutil.rmtree(copy.path("ppo"))
    (copy.logs / "ppo.jsonl").unlink()
    assert flow.run_stage("ppo", recipe, copy)
    assert (copy.logs / "ppo.jsonl").read_bytes() == (workspace.logs / "ppo.jsonl").read_bytes()
    for name in ("model.safetensors", "watched.jsonl"):
        assert (copy.read("ppo") / name).read_bytes() == (workspace.read("ppo") / name).read_bytes()


def test_the_critic_starts_with_the_reward_models_trunk_and_says_the_mean(small_run: Made) -> None:
    recipe, workspace = small_run
    assert recipe.ppo
    models = opened(small_run[0], workspace)
    reward, _ = weights.load_scalar_model(workspace.read("reward"))
    theirs, ours = reward.trunk.state_dict(), models.critic.trunk.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
    rollout = ppo.roll_out(models, prompt_ids(workspace)[:12], recipe.ppo, CPU, (0, 0))
    assert (rollout.values == 0).all() and float(rollout.score.std()) > 1e-3
    assert all(parameter.requires_grad for parameter in models.critic.parameters())


def test_the_score_of_the_assistants_replies_has_mean_zero(small_run: Made) -> None:
    workspace = small_run[1]
    models = opened(small_run[0], workspace)
    tokenizer = tokenizers.load(workspace.read("sft"))
    folder = workspace.read("rankings")
    asked = {
        p.id: tokenizer.encode_prompt(p.messages)
        for p in read_jsonl(folder / "prompts.jsonl", Prompt)
        if p.split == "train"
    }
    said = {
        (r.prompt_id, r.token_ids) for r in read_jsonl(folder / "responses.jsonl", Response) if r.prompt_id in asked
    }
    score = models.score(lay_out([asked[i] for i, _ in sorted(said)], [ids for _, ids in sorted(said)], pad=0))
    assert abs(float(score.mean())) < 1e-4 and float(score.std()) == pytest.approx(models.std / models.scale, rel=1e-3)
    assert models.std > 0


def test_sampled_ids_are_never_encoded_again(small_run: Made) -> None:
    """Many sampled replies are not how the tokenizer would write their text; the rollout has them as sampled."""
    recipe, workspace = small_run
    assert recipe.ppo
    models, tokenizer = opened(small_run[0], workspace), tokenizers.load(workspace.read("sft"))
    ids = prompt_ids(workspace)
    replies = ppo.roll_out(models, ids, recipe.ppo, CPU, (0, 0)).replies
    sampled = generate(
        models.policy, ids, Sampling(max_new_tokens=recipe.ppo.max_new_tokens, stops=tokenizer.stops),
        seeds=seeds(len(ids), 0, 0), device=CPU,
    )  # fmt: skip
    others = 0
    for row, (prompt, (reply,)) in enumerate(zip(ids, sampled, strict=True)):
        assert replies.ids[row][replies.segments[row] == 1].tolist() == [*prompt, *reply.ids]
        words = [i for i in reply.ids if i not in tokenizer.stops]
        others += tokenizer.encode(tokenizer.decode(words)) != words
    assert others > len(ids) / 4


def test_rows_of_a_rollout_are_cut_to_their_longest(small_run: Made) -> None:
    recipe, workspace = small_run
    assert recipe.ppo
    models = opened(small_run[0], workspace)
    rollout = ppo.roll_out(models, prompt_ids(workspace)[:12], recipe.ppo, CPU, (0, 0))
    assert torch.equal(rollout.logp != 0, rollout.replies.mask.bool())
    short = rollout.replies.segments.sum(dim=1).argsort()[:3]
    part = rollout.rows(short)
    assert part.logp.shape[1] == part.replies.longest - 1 == part.replies.mask.shape[1]
    torch.testing.assert_close(part.logp.sum(1), rollout.logp[short].sum(1))
    assert dataclasses.is_dataclass(part)


def test_a_reward_model_of_another_tokenizer_is_refused(small_run: Made, tmp_path: Path) -> None:
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(small_run[1].folder, copy.folder)
    tokenizers.train(["other words than before, and other merges"] * 9, 320).save(copy.path("reward"))
    sealed_again(copy.path("reward"))
    with pytest.raises(BadInput, match="another tokenizer"):
        opened(small_run[0], copy)
    tokenizers.train(["a b c"] * 9, 270).save(copy.path("base"))
    load(copy.path("base"))  # fewer ids than the model knows: no harm


def test_with_its_text_beside_it_the_policy_forgets_less(small_run: Made, tmp_path: Path) -> None:
    recipe, run = small_run
    assert recipe.ppo is not None
    tokens = run.read("tokens")
    bits = {}
    for weight in (0.0, 0.5):
        settings = recipe.ppo.model_copy(update={"pretrain_weight": weight, "rounds": 6, "halt": False})
        inside = Workspace(tmp_path / str(weight), parent=run)
        flow.run_stage("ppo", recipe.model_copy(update={"ppo": settings}), inside)
        assert ("pretrain_loss" in metrics.read(inside.logs / "ppo.jsonl")[-1]) == (weight > 0)
        model = weights.load_language_model(inside.read("ppo"))
        bits[weight] = bits_per_byte(model, Shard(tokens, "val"), CPU, width=model.shape.context, most_rows=8)
    assert bits[0.5] < bits[0.0] - 0.01


def test_text_that_is_not_there_is_told(small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = small_run
    assert recipe.ppo is not None
    has = Workspace.has
    monkeypatch.setattr(Workspace, "has", lambda self, name: name != "tokens" and has(self, name))
    wanted = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"pretrain_weight": 0.1})})
    with pytest.raises(RecipeError, match="the text that the base was trained on, and this run has none"):
        flow.run_stage("ppo", wanted, Workspace(tmp_path / "run", parent=run))
