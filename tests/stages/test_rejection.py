import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests_games import (
    BANDIT_PROMPTS,
    BANDIT_SHAPE,
    CPU,
    END,
    language_model,
    learner,
    mean_reward,
    models,
    play_in_groups,
    wanted_share,
)

from palate import metrics
from palate.align import rollout as rollouts
from palate.generate.replies import reply_logp
from palate.recipe import Recipe, Rejection
from palate.stages import rejection
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
BANDIT = Rejection(
    rounds=30, rollout_prompts=32, answers=4, max_new_tokens=8, minibatch_rows=32, micro_rows=32, policy_lr=2e-2,
    epochs=2, warmup_steps=0, missing_eos_penalty=0.0,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_bandit(seed: int, tmp_path: Path) -> None:
    players = models(language_model(BANDIT_SHAPE, seed), wanted_share, stops=(END,))
    assert mean_reward(players, BANDIT_PROMPTS, BANDIT, answers=8) < 0.2
    play_in_groups(players, BANDIT_PROMPTS, BANDIT, tmp_path, seed)
    assert mean_reward(players, BANDIT_PROMPTS, BANDIT, answers=8) >= 0.95


def test_only_the_best_of_each_prompt_is_imitated() -> None:
    """What a round loses is the mean of -log p over the best replies' tokens, and after it they are likelier."""
    players = models(language_model(BANDIT_SHAPE, 1), wanted_share, stops=(END,))
    rollout = rollouts.roll_out(
        players, BANDIT_PROMPTS[:6], BANDIT, CPU, (0, "rollout", 1), rows=lambda _: 24, answers=4
    )
    rows = rejection.best(rollout, 4)
    for prompt, row in enumerate(rows.tolist()):
        group = rollout.score[4 * prompt : 4 * prompt + 4]
        assert 4 * prompt <= row < 4 * prompt + 4 and float(rollout.score[row]) == float(group.max())
    chosen = rollout.rows(rows)
    before = reply_logp(players.policy, chosen.replies, temperature=1.0).sum().detach()
    told = rejection.imitate(
        learner(players.policy), players, chosen, BANDIT.model_copy(update={"epochs": 1}), CPU, lr=1e-3, seed=(0, 1)
    )
    assert told["loss"] == pytest.approx(-float(before) / float(chosen.replies.mask.sum()), rel=1e-4)
    assert float(reply_logp(players.policy, chosen.replies, temperature=1.0).sum().detach()) > float(before)


def test_replies_that_are_all_worth_the_same_teach_nothing(tmp_path: Path) -> None:
    """A verifier gives all wrong replies 0; the first of them is no better than the others."""
    players = models(language_model(BANDIT_SHAPE, 1), lambda replies: torch.zeros(len(replies)), stops=(END,))
    before = {name: value.clone() for name, value in players.policy.state_dict().items()}
    lines = play_in_groups(players, BANDIT_PROMPTS, BANDIT.model_copy(update={"rounds": 2}), tmp_path, 0)
    assert [line["told_apart"] for line in lines] == [0.0, 0.0] and "loss" not in lines[0]
    assert all(torch.equal(before[name], value) for name, value in players.policy.state_dict().items())


def test_only_prompts_whose_replies_differ_count() -> None:
    players = models(language_model(BANDIT_SHAPE, 1), wanted_share, stops=(END,))
    rollout = rollouts.roll_out(
        players, BANDIT_PROMPTS[:6], BANDIT, CPU, (0, "rollout", 1), rows=lambda _: 24, answers=4
    )
    groups = rollout.score.view(6, 4)
    assert rejection.told_apart(rollout, 4).tolist() == [len(set(group.tolist())) > 1 for group in groups]


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    after = []
    for rows in (32, 3):
        players = models(language_model(BANDIT_SHAPE, 3), wanted_share, stops=(END,))
        settings = BANDIT.model_copy(update={"rounds": 2, "micro_rows": rows})
        play_in_groups(players, BANDIT_PROMPTS, settings, tmp_path / str(rows), 0)
        after.append(players.policy.state_dict())
    assert all(torch.allclose(after[0][name], after[1][name], atol=1e-5) for name in after[0])


def test_over_the_kl_budget_the_last_policy_within_it_comes_back(tmp_path: Path) -> None:
    def run(budget: float | None) -> tuple[list[float], dict[str, torch.Tensor]]:
        players = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
        settings = BANDIT.model_copy(update={"rounds": 6, "kl_budget": budget, "schedule": "constant"})
        lines = play_in_groups(players, BANDIT_PROMPTS, settings, tmp_path / str(budget), 0)
        return [line["kl"] for line in lines], players.policy.state_dict()

    kls, _ = run(None)
    assert kls[0] == 0.0 and kls[2] < kls[3]
    stopped, kept = run((kls[2] + kls[3]) / 2)
    assert stopped == kls[:3]
    players = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
    settings = BANDIT.model_copy(update={"rounds": 2, "schedule": "constant"})
    play_in_groups(players, BANDIT_PROMPTS, settings, tmp_path / "two", 0)
    assert all(torch.equal(kept[name], value) for name, value in players.policy.state_dict().items())


def test_what_it_leaves_behind(every_method: Made) -> None:
    workspace = every_method[1]
    lines = metrics.read(workspace.logs / "rejection.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["kl"] == 0.0 and all(line["best_score"] >= line["score"] for line in lines)
    assert {"score", "kl", "entropy", "reply_tokens", "eos_rate", "loss"} <= set(lines[0])
    assert json.loads((workspace.read("rejection") / "report.json").read_text())["rounds"] == 3
    sft, policy = (load_file(workspace.read(a) / "model.safetensors") for a in ("sft", "rejection"))
    assert sft.keys() == policy.keys() and any(not torch.equal(sft[name], policy[name]) for name in sft)
    assert sorted({line["step"] for line in metrics.read(workspace.read("rejection") / "watched.jsonl")}) == [0, 2, 3]
