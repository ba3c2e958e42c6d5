import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests_games import BANDIT_SHAPE, CPU, language_model, learner, models, wanted_share

from palate import metrics
from palate.align.limit import Limit
from palate.align.session import Session
from palate.batches.rankings import Group
from palate.metrics import Metrics
from palate.nn.transformer import LanguageModel
from palate.recipe import Dpo, Recipe
from palate.records import Message, Prompt, Response
from palate.stages import dpo
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
GAME = Dpo(epochs=60, batch_prompts=4, beta=0.5, policy_lr=1e-2, warmup_steps=0, micro_rows=64, schedule="linear",
           evaluate_every=1000, save_every=1000)  # fmt: skip


def group(number: int, worth: torch.Tensor) -> Group:
    """Every token as a reply of its own to the prompt [1], compared as Bradley-Terry would: P(i > j) = sigmoid(r_i -
    r_j)."""
    count = len(worth)
    prompt = Prompt(id=f"p{number}", messages=(Message(role="user", content="?"),), family=f"f{number}")
    upper = torch.triu(torch.ones(count, count), diagonal=1)
    targets = torch.sigmoid(worth[:, None] - worth[None]) * upper
    return Group(
        prompt=prompt,
        responses=tuple(Response(id=f"r{number} {i}", prompt_id=prompt.id, text=str(i)) for i in range(count)),
        prompt_ids=(1,),
        reply_ids=tuple((i,) for i in range(count)),
        targets=tuple(map(tuple, targets.tolist())),
        counted=tuple(map(tuple, upper.tolist())),
        labels=((None,) * 4,) * count,
    )


def log_p(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1]]))[0, -1].log_softmax(-1)


def play(policy: LanguageModel, members: list[Group], settings: Dpo, folder: Path) -> list[dict]:
    players = models(policy, wanted_share, stops=())
    log, policy_learner = Metrics(folder / "dpo.jsonl"), learner(players.policy)
    session = Session(
        0, log, Limit(policy_learner, settings.kl_budget), watch=lambda _: {"kl": 0.0, "alarms": 0.0, "near": 0.0}
    )
    dpo.train(policy_learner, players, members, members[:1], settings, CPU, session)
    return metrics.read(log.path)


def test_the_optimum_is_the_tilted_reference(tmp_path: Path) -> None:
    """Rafailov et al. 2023, eq. 4: where people prefer as Bradley-Terry with r, the policy that DPO finds is reference
    x exp(r / beta), normalised. Another sign, beta or sum over tokens ends elsewhere."""
    worth = torch.linspace(-0.6, 0.6, BANDIT_SHAPE.vocab)[
        torch.randperm(16, generator=torch.Generator().manual_seed(1))
    ]
    policy = language_model(BANDIT_SHAPE, 0)
    policy.head.weight.data *= 8  # far from uniform
    before = log_p(policy)
    lines = play(policy, [group(i, worth) for i in range(4)], GAME, tmp_path)
    after, tilted = log_p(policy), (before + worth / GAME.beta).log_softmax(-1)
    assert float((before.exp() - tilted.exp()).abs().sum()) / 2 > 0.2
    assert float((after.exp() - tilted.exp()).abs().sum()) / 2 < 0.02, "total variation"
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "at first the policy is the reference: log 2"
    assert lines[-1]["held_out_accuracy"] > 0.99


def test_the_policy_over_the_kl_budget_is_given_up(tmp_path: Path) -> None:
    worth = torch.linspace(-0.6, 0.6, BANDIT_SHAPE.vocab)
    policy = language_model(BANDIT_SHAPE, 0)
    players, log = models(policy, wanted_share, stops=()), Metrics(tmp_path / "dpo.jsonl")
    states: list[dict[str, torch.Tensor]] = []

    def watch(step: int) -> dict[str, float]:
        states.append({name: value.clone() for name, value in policy.state_dict().items()})
        return {"kl": 0.1 * step, "alarms": 0.0, "near": 0.0}

    settings = GAME.model_copy(update={"epochs": 6, "evaluate_every": 1, "kl_budget": 0.35})
    learning = learner(policy)
    members = [group(i, worth) for i in range(4)]
    session = Session(0, log, Limit(learning, settings.kl_budget), watch=watch)
    told = dpo.train(learning, players, members, members[:1], settings, CPU, session)
    assert told["steps"] == 3 and "over the budget" in told["stopped"]
    assert all(torch.equal(policy.state_dict()[name], value) for name, value in states[2].items())
    assert any(not torch.equal(states[3][name], value) for name, value in states[2].items())


def test_what_it_leaves_behind(every_method: Made) -> None:
    recipe, workspace = every_method
    assert recipe.dpo
    lines = metrics.read(workspace.logs / "dpo.jsonl")
    report = json.loads((workspace.read("dpo") / "report.json").read_text())
    assert lines[-1]["step"] == report["steps"] == max(1, report["train_prompts"] // recipe.dpo.batch_prompts)
    assert lines[0]["loss"] == pytest.approx(0.6931, rel=0.1), "log 2, as each prompt counts"
    looks = [line for line in lines if "held_out_loss" in line]
    assert looks and {"held_out_accuracy", "kl", "reply_tokens", "eos_rate"} <= set(looks[-1])
    sft, policy = (load_file(workspace.read(a) / "model.safetensors") for a in ("sft", "dpo"))
    assert sft.keys() == policy.keys() and any(not torch.equal(sft[name], policy[name]) for name in sft)
    watched = metrics.read(workspace.read("dpo") / "watched.jsonl")
    assert "score" not in watched[0] and {line["step"] for line in watched} >= {0, report["steps"]}
