"""Assistant + reward model + prompts -> policy, by proximal policy optimization (Schulman et al. 2017; Ouyang et al.
2022). The loop is `train`, at the end of this file; docs/ppo.md tells where each constant comes from.

    sample replies with the policy; score them with the reward model; per token
        r_t = -beta (log pi(a_t) - log sft(a_t)),  and the score on the last token
    advantages by GAE from the critic's values; then a few epochs of minibatches of
        L = -E[min(ratio_t A_t, clip(ratio_t, 1 - eps, 1 + eps) A_t)]   for the policy
        L = 1/2 E[max((V - R)^2, (V_clipped - R)^2)]                    for the critic

Nothing here sees gold: the reward model's score, the KL to the assistant, and nothing else decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palate.align import players, prompts
from palate.align import rollout as rollouts
from palate.align.players import Players
from palate.align.prompts import Asked
from palate.align.rollout import Ratios, in_pieces, minibatches, rows_at_once
from palate.align.session import Session, begin
from palate.batches.order import step_items
from palate.batches.replies import Replies
from palate.device import Device, open_device
from palate.generate.replies import reply_logp, reply_values
from palate.metrics import Progress
from palate.nn import lora
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.masked import whiten
from palate.objectives.policy import explained_variance, policy_loss, value_loss
from palate.recipe import Ppo, Recipe
from palate.train.distributed import gathered
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, Update, update
from palate.weights import folder as weights
from palate.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Models(Players):
    """The players, and the critic that says what to expect."""

    critic: ScalarModel


@dataclass(frozen=True, kw_only=True)
class Rollout(rollouts.Rollout):
    """Replies with what the critic expected; all three are (batch, time)."""

    values: Tensor
    advantages: Tensor
    returns: Tensor


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `ppo`: a Hugging Face folder of the policy, watched.jsonl with its answers on the way, report.json."""
    settings = recipe.ppo
    assert settings is not None
    device = open_device(recipe.hardware)
    players.check_gate(recipe, settings, workspace)
    asked = prompts.read(workspace, settings)
    models = open_models(recipe, workspace, device, asked)
    policy = Learner.make("adamw", models.policy, device, weight_decay=0.0)
    critic = Learner.make("adamw", models.critic, device, weight_decay=0.0)
    with workspace.publish() as folder:
        learners = {"policy": policy, "critic": critic}
        session = begin(folder, recipe, workspace, settings, device, models, asked, learners)
        if models.informed:
            told = train(policy, critic, models, asked.train_ids, settings, device, session)
        else:
            told = players.nothing_to_follow()
        players.publish(folder, policy, recipe, workspace, told)


def critic_from(model: LanguageModel | ScalarModel) -> ScalarModel:
    """A critic whose trunk is the reward model's, which knows good from bad (Ouyang et al. 2022, appendix C.4); without
    one the assistant's. Its head is 0 (Ziegler et al. 2019), the mean of the score: the reward model's own head reads
    whole replies, not states."""
    trunk = lora.twin(model.trunk) if lora.adapted(model) else weights.trunk_copy(model.trunk)
    critic = ScalarModel(trunk, 1)
    torch.nn.init.zeros_(critic.score.weight)
    return critic


def open_models(recipe: Recipe, workspace: Workspace, device: Device, asked: Asked) -> Models:
    """The players and the critic."""
    base = players.open_base(recipe, workspace)
    worth = players.open_worth(recipe, workspace, base, asked)
    critic = critic_from(worth.model or players.open_assistant(workspace, base))
    opened = players.open_players(workspace, device, base, worth)
    return Models(**{f.name: getattr(opened, f.name) for f in dataclasses.fields(Players)}, critic=critic)


@torch.no_grad()
def roll_out(
    models: Models, prompts: Sequence[Sequence[int]], settings: Ppo, device: Device, seed: tuple[object, ...]
) -> Rollout:
    """Sample one reply per prompt with the policy as it is now, and everything that is computed once per rollout."""

    def rows(replies: Replies) -> int:
        return rows_at_once(models.policy, models.critic, replies=replies, most=settings.micro_rows, device=device)

    sampled = rollouts.roll_out(models, prompts, settings, device, seed, rows=rows)
    replies, mask = sampled.replies, sampled.replies.mask
    values = in_pieces(replies, rows(replies), lambda part: reply_values(models.critic, part), like=mask)
    rewards = shaped_rewards(sampled.score, sampled.logp, sampled.ref_logp, mask, kl_weight=settings.kl_weight)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=settings.gamma, lam=settings.lam)
    advantages = whiten(advantages, mask)
    known = {f.name: getattr(sampled, f.name) for f in dataclasses.fields(sampled)}
    return Rollout(**known, values=values, advantages=advantages, returns=returns)


def improve(
    policy: Learner,
    critic: Learner,
    models: Models,
    rollout: Rollout,
    settings: Ppo,
    device: Device,
    *,
    policy_lr: float,
    critic_lr: float,
    seed: tuple[object, ...],
) -> dict[str, float]:
    """A few epochs of minibatches over one rollout; numbers of the first and last minibatch to watch."""
    watched: dict[str, float] = {}
    norms: list[Update] = []
    ratios = Ratios(settings.clip)

    def policy_objective(part: Rollout) -> tuple[Tensor, Tensor]:
        now = reply_logp(models.policy, part.replies, temperature=settings.temperature)
        ratios.see(now, part)
        return policy_loss(now, part.logp, part.advantages, part.replies.mask, clip=settings.clip)

    def critic_objective(part: Rollout) -> tuple[Tensor, Tensor]:
        values = reply_values(models.critic, part.replies)
        return value_loss(values, part.values, part.returns, part.replies.mask, clip=settings.value_clip)

    rows = rows_at_once(models.policy, models.critic, replies=rollout.replies, most=settings.micro_rows, device=device)
    for name, parts in minibatches(rollout.replies, settings, rows, seed):
        micro = [rollout.rows(part) for part in parts]
        if policy_lr > 0:
            norms.append(update(policy, micro, policy_objective, lr=policy_lr, max_norm=settings.max_norm, name=name))
            ratios.close(len(micro))
        critic_step = update(
            critic, micro, critic_objective, lr=critic_lr, max_norm=settings.max_norm, name=f"critic {name}"
        )
        watched["value_loss"] = critic_step.loss
    if norms:
        watched["policy_loss"] = sum(u.loss for u in norms) / len(norms)
        watched["grad_norm"] = sum(u.grad_norm for u in norms) / len(norms)
    return watched | ratios.figures


def train(
    policy: Learner,
    critic: Learner,
    models: Models,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    device: Device,
    session: Session,
) -> dict[str, Any]:
    """The loop: roll out, improve, stay within the KL budget. Returns how it ended."""
    lr = schedule(settings.schedule, peak=settings.policy_lr, warmup=settings.warmup_steps, steps=settings.rounds)

    def sampled(round_: int) -> Rollout:
        chosen = step_items(count=len(prompts), per_step=settings.rollout_prompts, step=round_, seed=session.seed)
        with gathered(models.policy, models.critic):
            return roll_out(models, [prompts[i] for i in chosen], settings, device, (session.seed, "rollout", round_))

    with Progress("ppo", settings.rounds, done=session.done, unit="rounds") as progress:
        for tick in ticks(
            settings.rounds, start=session.done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            rollout = sampled(tick.step)
            if stopped := session.limit.passed(rollout.kl):
                return {"rounds": session.limit.done, "stopped": stopped}
            session.limit.keep(tick.step - 1)
            warming = tick.step <= settings.critic_warmup_rounds
            watched = improve(
                policy,
                critic,
                models,
                rollout,
                settings,
                device,
                policy_lr=0.0 if warming else lr(tick.step),
                critic_lr=settings.critic_lr,
                seed=(session.seed, tick.step),
            )
            figures = rollout.figures()
            explained = explained_variance(rollout.values, rollout.returns, rollout.replies.mask)
            session.log.log(
                tick.step,
                **figures,
                explained_variance=float(explained),
                lr=0.0 if warming else lr(tick.step),
                **watched,
            )
            if tick.evaluate and (stopped := session.limit.looked(session.watch(tick.step), tick.step)):
                return {"rounds": session.limit.done, "stopped": stopped}
            if tick.save:
                session.save(tick.step)
            progress.advance(note=f"score {figures['score']:+.2f}  KL {figures['kl']:.2f}")
    # What the last round did has not been measured yet.
    if session.limit.budget is not None and (stopped := session.limit.passed(sampled(settings.rounds + 1).kl)):
        return {"rounds": session.limit.done, "stopped": stopped}
    return {"rounds": settings.rounds, "stopped": "all rounds done"}
