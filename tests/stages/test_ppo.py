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
from palate.api import load
from palate.device import Device
from palate.errors import BadInput, GateClosed
from palate.recipe import Recipe
from palate.records import Prompt, read_jsonl
from palate.stages import ppo
from palate.text import tokenizer as tokenizers
from palate.train import optimizer
from palate.train.update import Learner
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
CPU = Device("cpu", torch.float32)


def test_the_log_has_what_people_watch(small_run: Made) -> None:
    lines = metrics.read(small_run[1].logs / "ppo.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    wanted = {"score", "kl", "entropy", "clip_fraction", "ratio", "explained_variance", "reply_tokens", "eos_rate"}
    assert wanted <= set(lines[-1])
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-6), "the first rollout is the assistant's own"

    for line in lines[1:]:
        assert line["first_ratio_error"] < 1e-5, "before its first step of a round every ratio is 1"


def test_the_policy_moved_only_after_the_critics_warm_up(small_run: Made) -> None:
    lines = metrics.read(small_run[1].logs / "ppo.jsonl")
    assert lines[0]["lr"] == 0 and "policy_loss" not in lines[0]
    assert lines[1]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert abs(lines[-1]["kl"]) > 0


def test_it_finds_a_reward_that_can_be_earned(small_run: Made) -> None:
    """A reward that counts one token must be climbed: the loop's direction is right."""
    recipe, workspace = small_run
    assert recipe.ppo
    settings = recipe.ppo.model_copy(
        update={"rounds": 12, "rollout_prompts": 32, "minibatch_rows": 16, "micro_rows": 16, "kl_weight": 0.0,
                "policy_lr": 2e-3, "critic_lr": 2e-3, "missing_eos_penalty": 0.0, "max_new_tokens": 12}
    )  # fmt: skip
    models = ppo._open_models(workspace, CPU)
    tokenizer = tokenizers.load(workspace.read("sft"))
    prompts = [
        tokenizer.encode_prompt(p.messages)
        for p in read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt)
    ][:32]
    wanted = tokenizer.encode(" the")[0]

    def count(replies: ppo.Replies) -> torch.Tensor:
        return ((replies.targets == wanted) * replies.mask).sum(dim=1) - 1.0

    models = dataclasses.replace(models, reward=count, mean=0.0, std=1.0)
    policy = Learner(models.policy, optimizer.make("adamw", models.policy, weight_decay=0.0))
    critic = Learner(models.critic, optimizer.make("adamw", models.critic, weight_decay=0.0))
    scores = []
    for round_ in range(1, 13):
        rollout = ppo.roll_out(models, prompts, settings, CPU, (0, round_))
        scores.append(float(rollout.score.mean()))
        ppo.improve(policy, critic, models, rollout, settings, CPU, policy_lr=2e-3, critic_lr=2e-3, seed=(0, round_))
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.5, scores


def test_the_gate(small_run: Made) -> None:
    workspace = small_run[1]
    report = json.loads((workspace.read("reward") / "report.json").read_text())
    if report["best_of_k"]["low"] <= 0.5:
        with pytest.raises(GateClosed, match="best of K"):
            ppo._check_gate(workspace)
    else:
        ppo._check_gate(workspace)


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


def test_rows_of_a_rollout_are_cut_to_their_longest(small_run: Made) -> None:
    recipe, workspace = small_run
    assert recipe.ppo
    models = ppo._open_models(workspace, CPU)
    tokenizer = tokenizers.load(workspace.read("sft"))
    prompts = [
        tokenizer.encode_prompt(p.messages) for p in read_jsonl(workspace.read("samples") / "prompts.jsonl", Prompt)
    ]
    rollout = ppo.roll_out(models, prompts[:12], recipe.ppo, CPU, (0, 0))
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
        ppo._open_models(copy, CPU)
    tokenizers.train(["a b c"] * 9, 270).save(copy.path("base"))
    load(copy.path("base"))  # fewer ids than the model knows: no harm
