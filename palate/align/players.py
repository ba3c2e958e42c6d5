"""The networks of aligning: the policy that learns, the reference it starts from, and what says how good a reply is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate import metrics, ranks, scorers
from palate.align.prompts import Asked
from palate.batches.replies import Replies
from palate.device import Device
from palate.errors import BadInput, GateClosed
from palate.generate.replies import reply_scores
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.recipe import Online, Recipe
from palate.text import tokenizer as tokenizers
from palate.train.update import Learner
from palate.weights import adapter
from palate.weights import folder as weights
from palate.workspace import Workspace


@dataclass(frozen=True)
class Players:
    """Whom a method needs: what is trained, what stays as it was, and what says how good a reply is."""

    policy: LanguageModel
    reference: LanguageModel
    reward: Callable[[Replies], Tensor] | None
    """What whole replies are worth, (batch): the reward model or any function. `score` centres it. None for a method
    that learns without."""
    stops: Sequence[int]
    """Ids that end a reply."""
    pad: int
    mean: float = 0.0
    """Mean of `reward` over the assistant's replies, and (std) its standard deviation there."""
    std: float = 1.0
    highest: float = math.inf
    """Of `reward` over the answers that people ranked, all but one in two hundred are below it."""
    learned: float = 1.0
    """Weight of the centred reward."""
    scorers: Callable[[Replies], Tensor] | None = None
    """What [scoring] adds to it, (batch). Of several processes one asks."""

    @property
    def scale(self) -> float:
        """What the centred score is divided by. A Bradley-Terry score is in log-odds of being preferred, so it has a
        scale of its own: a wide spread is brought to 1, a narrow one is left. It means the rankings taught little, and
        stretching it would make noise a goal."""
        return max(self.std, 1.0)

    @property
    def unit(self) -> float:
        """A standard deviation of the score over the assistant's replies; where nothing was learned, 1."""
        return self.learned * self.std / self.scale if self.reward is not None else 1.0

    @property
    def informed(self) -> bool:
        """Whether anything tells good replies from bad ones: a reward that is the same everywhere does not."""
        return self.scorers is not None or (self.reward is not None and self.std != 0)

    def score(self, replies: Replies) -> Tensor:
        """Reward (batch): mean 0 over the assistant's replies, variance 1 at most; 0 without a reward model."""
        if self.reward is None:
            return torch.zeros(len(replies), device=replies.ids.device)
        return self.learned * (self.reward(replies) - self.mean) / self.scale


def open_base(recipe: Recipe, workspace: Workspace) -> LanguageModel | None:
    """The network that all adapters sit on, in memory once; None where each model has weights of its own."""
    return None if recipe.lora is None else weights.load_language_model(workspace.read("base"))


def open_assistant(workspace: Workspace, base: LanguageModel | None) -> LanguageModel:
    """The assistant: a network, or adapters of its own beside `base`."""
    sft = workspace.read("sft")
    return weights.load_language_model(sft) if base is None else adapter.beside(base, sft / "adapter")


@dataclass(frozen=True)
class Worth:
    """What says how good a reply is: the reward model with what it tells of its scores, and the recipe's [scoring]."""

    model: ScalarModel | None
    told: dict[str, Any]
    learned: float
    scorers: Callable[[Replies], Tensor] | None


def open_worth(recipe: Recipe, workspace: Workspace, base: LanguageModel | None, asked: Asked) -> Worth:
    """All that [scoring] names, the reward model alone where there is no such section. `asked`: the prompts whose
    replies will be scored. Raises MissingArtifact where a reward model is wanted and none was trained."""
    settings = recipe.scoring
    learned = settings.learned if settings is not None else 1.0
    model, told = open_reward(workspace, base) if learned else (None, {})
    if settings is None or not (
        opened := scorers.open(settings, memory=(workspace.parent or workspace).folder / scorers.GRADES)
    ):
        return Worth(model, told, learned, None)
    tokenizer = tokenizers.load(workspace.read("sft"))
    by_ids = {
        tuple(ids): prompt
        for prompts, every in ((asked.train, asked.train_ids), (asked.watched, asked.watched_ids))
        for prompt, ids in zip(prompts, every, strict=True)
    }

    def others(replies: Replies) -> Tensor:
        rows = [replies.apart(row) for row in range(len(replies))]
        prompts, texts = [by_ids[prompt] for prompt, _ in rows], [tokenizer.decode(ids).strip() for _, ids in rows]
        values = scorers.combined(opened, scorers.score_each(opened, prompts, texts))
        return torch.tensor(values, dtype=torch.float32, device=replies.ids.device)

    return Worth(model, told, learned, others)


def open_reward(workspace: Workspace, base: LanguageModel | None) -> tuple[ScalarModel, dict[str, Any]]:
    """The reward model, and what it says of its scores.

    Raises BadInput when it was made with another tokenizer than the assistant's.
    """
    palate = workspace.read("reward")
    if tokenizers.load(workspace.read("sft")).fingerprint != tokenizers.load(palate).fingerprint:
        raise BadInput(
            "this reward model was made with another tokenizer than the assistant's, so it cannot read its ids.",
            palate,
            "Make it again: delete the folder and run `palate reward`.",
        )
    extra = weights.read_extra(palate)
    if base is None:
        return weights.load_scalar_model(palate)[0], extra
    return adapter.beside(ScalarModel(base.trunk, len(extra["labels"])), palate / "adapter"), extra


def open_players(workspace: Workspace, device: Device, base: LanguageModel | None, worth: Worth | None) -> Players:
    """Policy, reference and what judges their replies, ready to work but for the policy, which its `Learner` puts on
    the device. `base` and `worth` are what `open_base` and `open_worth` gave; a method that asks nobody gives None."""
    policy, reference = open_assistant(workspace, base), open_assistant(workspace, base)
    tokenizer = tokenizers.load(workspace.read("sft"))
    freeze(reference, device)
    if worth is None:
        return Players(policy, reference, None, tokenizer.stops, tokenizer.pad)
    reward, learned, values = worth.model, None, {}
    if reward is not None:
        freeze(reward, device)
        mix, pooling = torch.tensor(worth.told["mix"]).to(device.torch), str(worth.told["pooling"])

        def learned(replies: Replies) -> Tensor:
            return reply_scores(reward, replies, pooling=pooling) @ mix

        values = {name: float(worth.told[name]) for name in ("mean", "std", "highest")}
    return Players(
        policy,
        reference,
        learned,
        tokenizer.stops,
        tokenizer.pad,
        **values,
        learned=worth.learned,
        scorers=worth.scorers,
    )


def freeze(model: LanguageModel | ScalarModel, device: Device) -> None:
    """Put a network that only answers on the device, compiled as the policy is: the KL to the reference must not be
    rounding."""
    device.compile(device.put(model.requires_grad_(requires_grad=False)).eval())


def check_gate(recipe: Recipe, settings: Online, workspace: Workspace) -> None:
    """Refuse to optimise against a reward model that does not beat chance: its mistakes would be found."""
    if not settings.gate or (recipe.scoring is not None and not recipe.scoring.learned):
        return
    report = json.loads((workspace.read("reward") / "report.json").read_text(encoding="utf-8"))
    best = report["best_of_k"]
    if best["low"] <= 0.5:
        name = settings.method
        raise GateClosed(
            f"the reward model's best of K answers is preferred in {best['mean']:.3f} [{best['low']:.3f}, "
            f"{best['high']:.3f}] of comparisons on held-out prompts; its interval must lie above 0.5 before {name} "
            f"starts. Rank more prompts, or set {name}.gate = false to go on regardless."
        )


def publish(folder: Path, policy: Learner, recipe: Recipe, workspace: Workspace, told: dict[str, Any]) -> None:
    """Write the policy as a Hugging Face folder (beside its adapters, where it has any) and how its training ended."""
    policy.whole()
    if not ranks.leads():
        return
    source, model = workspace.read("sft"), policy.model
    assert isinstance(model, LanguageModel)
    if recipe.lora is not None:
        adapter.save(folder / "adapter", model, base=workspace.read("base"))
        model = adapter.merged(model, workspace.read("base"))
    tokenizer = tokenizers.load(source)
    weights.save_language_model(folder, model, source, stops=tokenizer.stops, ids=tokenizer.ids)
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def nothing_to_follow() -> dict[str, Any]:
    """How a method ends before it begins where the reward is the same everywhere: it has no gradient, so its rounds
    would change nothing but by chance."""
    told = {"rounds": 0, "stopped": "the reward model is worth nothing on held-out rankings"}
    metrics.say(f"      {told['stopped']}: there is nothing to follow, and the policy stays the assistant")
    return told
