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
    mean_reward,
    models,
    play_in_groups,
    wanted_share,
)

from palate import metrics
from palate.objectives.policy import reply_kl
from palate.recipe import Grpo, Recipe
from palate.records import Prompt, read_jsonl
from palate.stages import grpo
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
BANDIT = Grpo(
    rounds=30, rollout_prompts=8, answers=4, max_new_tokens=8, minibatch_rows=32, micro_rows=32, policy_lr=2e-2,
    epochs=2, warmup_steps=0, kl_weight=0.0, missing_eos_penalty=0.0,
)  # fmt: skip
BASELINES = ("group", "leave_one_out")


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("seed", range(2))
def test_bandit(baseline: str, seed: int, tmp_path: Path) -> None:
    """The optimum is known: a reply of nothing but the wanted token."""
    players = models(language_model(BANDIT_SHAPE, seed), wanted_share, stops=(END,))
    settings = BANDIT.model_copy(update={"baseline": baseline})
    assert mean_reward(players, BANDIT_PROMPTS, settings, answers=8) < 0.2
    play_in_groups(players, BANDIT_PROMPTS, settings, tmp_path, seed)
    assert mean_reward(players, BANDIT_PROMPTS, settings, answers=8) >= 0.95


@pytest.mark.parametrize("baseline", BASELINES)
def test_with_a_kl_the_optimum_is_the_tilted_reference(baseline: str, tmp_path: Path) -> None:
    """One token a reply, as for PPO (docs/ppo.md): E[r] - beta KL is greatest at reference x exp(r / beta). GRPO
    divides by the group's std, so its scores are worth 1 / std."""
    beta, vocab = 0.5, BANDIT_SHAPE.vocab
    worth = torch.tensor([1.0, -1.0]).repeat(vocab // 2)
    reference = language_model(BANDIT_SHAPE, 0)
    players = models(reference, lambda r: (worth[r.targets] * r.mask).sum(dim=1), stops=(END,))
    settings = BANDIT.model_copy(
        update={"baseline": baseline, "max_new_tokens": 1, "kl_weight": beta, "rounds": 40, "rollout_prompts": 2,
                "answers": 256, "minibatch_rows": 512, "micro_rows": 512}
    )  # fmt: skip

    def log_p() -> torch.Tensor:
        with torch.no_grad():
            return players.policy(torch.tensor([[1]]))[0, -1].log_softmax(-1)

    before = log_p()
    play_in_groups(players, [[1], [1]], settings, tmp_path, 0)
    after = log_p()
    if baseline == "group":  # E[A] with A = (r - mean) / std: the policy's own spread, which shrinks as it learns
        share = float(after.exp()[worth > 0].sum())
        spread = 2 * (share * (1 - share)) ** 0.5
        tilted = (before + worth / (beta * spread)).log_softmax(-1)
    else:
        tilted = (before + worth / beta).log_softmax(-1)
    assert float((before.exp() - tilted.exp()).abs().sum()) / 2 > 0.3
    assert float((after.exp() - tilted.exp()).abs().sum()) / 2 < 0.05, "total variation"


def test_answers_to_one_prompt_are_compared_with_each_other_alone() -> None:
    players = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
    players.policy.head.weight.data *= 6  # away from the reference, so that there is a KL
    for baseline in BASELINES:
        settings = BANDIT.model_copy(update={"baseline": baseline, "kl_weight": 0.3})
        rollout = grpo.roll_out(players, [[1], [1, 4], [1, 7, 8]], settings, CPU, (0, "rollout", 1))
        prompts = [tuple(row[: int(mask.nonzero()[0]) + 1].tolist())
                   for row, mask in zip(rollout.replies.ids, rollout.replies.mask, strict=True)]  # fmt: skip
        assert prompts == [(1,)] * 4 + [(1, 4)] * 4 + [(1, 7, 8)] * 4
        kl = reply_kl(rollout.logp, rollout.ref_logp, rollout.replies.mask)
        score = rollout.score - (0.3 * kl if baseline == "leave_one_out" else 0)
        for at in (0, 4, 8):
            group = score[at : at + 4].tolist()
            for place, value in enumerate(group):
                others = [v for i, v in enumerate(group) if i != place]
                centre = sum(group) / 4 if baseline == "group" else sum(others) / 3
                scale = float(torch.tensor(group).std()) + 1e-4 if baseline == "group" else 1.0
                assert float(rollout.advantages[at + place]) == pytest.approx((value - centre) / scale, abs=1e-4)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    after = []
    for rows in (32, 3):
        players = models(language_model(BANDIT_SHAPE, 3), wanted_share, stops=(END,))
        settings = BANDIT.model_copy(update={"rounds": 2, "micro_rows": rows, "kl_weight": 0.2})
        lines = play_in_groups(players, BANDIT_PROMPTS, settings, tmp_path / str(rows), 0)
        assert lines[0]["first_ratio_error"] < 1e-5 and lines[0]["first_kl"] < 1e-6 and lines[0]["kl"] == 0.0
        after.append(players.policy.state_dict())
    assert all(torch.allclose(after[0][name], after[1][name], atol=1e-5) for name in after[0])


def test_what_it_leaves_behind(every_method: Made) -> None:
    workspace = every_method[1]
    lines = metrics.read(workspace.logs / "grpo.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["kl"] == 0.0 and lines[-1]["kl"] != 0.0
    assert {"score", "kl", "entropy", "reply_tokens", "eos_rate", "score_std", "clip_fraction"} <= set(lines[0])
    assert json.loads((workspace.read("grpo") / "report.json").read_text()) == {
        "rounds": 3,
        "stopped": "all rounds done",
    }
    sft, policy = (load_file(workspace.read(a) / "model.safetensors") for a in ("sft", "grpo"))
    assert sft.keys() == policy.keys() and any(not torch.equal(sft[name], policy[name]) for name in sft)
    watched = metrics.read(workspace.read("grpo") / "watched.jsonl")
    assert sorted({line["step"] for line in watched}) == [0, 2, 3]
    known = {p.id: p for p in read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt)}
    assert {known[line["prompt_id"]].split for line in watched} == {"dev"}
    assert all(line["kl"] == 0 for line in watched if line["step"] == 0)
