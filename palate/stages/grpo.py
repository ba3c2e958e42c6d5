"""Assistant + reward model + prompts -> policy, by group relative policy optimization (Shao et al. 2024,
"DeepSeekMath"), or REINFORCE leave-one-out (Ahmadian et al. 2024), its special case. The loop is `train`, at the end of
this file; docs/grpo.md tells where each constant comes from.

    sample K replies to each prompt with the policy; score them with the reward model; of the K replies to a prompt
        A_i = (r_i - mean r) / std r                                    (baseline = "group")
        A_i = r_i - mean of the others,  r_i with -beta KL_i in it      (baseline = "leave_one_out")
    then minibatches of, over all tokens of reply i,
        L = -E[min(ratio_t A_i, clip(ratio_t, 1 - eps, 1 + eps) A_i)] + beta KL as a loss (group only)

No critic: the other replies say what to expect. Nothing here sees gold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palate.align import rollout as rollouts
from palate.align.players import Players
from palate.align.rollout import Ratios, minibatches, rows_at_once
from palate.align.session import Session, without_critic
from palate.batches.order import step_items
from palate.batches.replies import Replies
from palate.device import Device
from palate.generate.replies import reply_logp
from palate.metrics import Progress
from palate.objectives.group import group_advantages, group_policy_loss, leave_one_out_advantages
from palate.objectives.policy import reply_kl
from palate.recipe import Grpo, Recipe
from palate.train.distributed import gathered
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, Update, update
from palate.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Rollout(rollouts.Rollout):
    """Replies with what each is worth beside the others to its prompt, (batch)."""

    advantages: Tensor


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `grpo`: a Hugging Face folder of the policy, watched.jsonl with its answers on the way, report.json."""
    settings = recipe.grpo
    assert settings is not None
    without_critic(recipe, workspace, settings, train)


@torch.no_grad()
def roll_out(
    models: Players, asked: Sequence[Sequence[int]], settings: Grpo, device: Device, seed: tuple[object, ...]
) -> Rollout:
    """Sample K replies per prompt with the policy as it is now, and compare them with each other."""

    def rows(replies: Replies) -> int:
        return rows_at_once(models.policy, replies=replies, most=settings.micro_rows, device=device)

    sampled = rollouts.roll_out(models, asked, settings, device, seed, rows=rows, answers=settings.answers)
    score = sampled.score
    if settings.baseline == "leave_one_out":
        score = score - settings.kl_weight * reply_kl(sampled.logp, sampled.ref_logp, sampled.replies.mask)
    compare = group_advantages if settings.baseline == "group" else leave_one_out_advantages
    advantages = compare(score.view(len(asked), settings.answers)).flatten()
    known = {f.name: getattr(sampled, f.name) for f in dataclasses.fields(sampled)}
    return Rollout(**known, advantages=advantages)


def improve(
    policy: Learner,
    models: Players,
    rollout: Rollout,
    settings: Grpo,
    device: Device,
    *,
    lr: float,
    seed: tuple[object, ...],
) -> dict[str, float]:
    """Minibatches over one rollout; numbers of the first and last one to watch."""
    done: list[Update] = []
    ratios = Ratios(settings.clip)
    kl_weight = settings.kl_weight if settings.baseline == "group" else 0.0

    def objective(part: Rollout) -> tuple[Tensor, Tensor]:
        now, mask = reply_logp(models.policy, part.replies, temperature=settings.temperature), part.replies.mask
        ratios.see(now, part)
        return group_policy_loss(
            now, part.logp, part.ref_logp, part.advantages, mask, clip=settings.clip, kl_weight=kl_weight
        )

    rows = rows_at_once(models.policy, replies=rollout.replies, most=settings.micro_rows, device=device)
    for name, parts in minibatches(rollout.replies, settings, rows, seed):
        micro = [rollout.rows(part) for part in parts]
        done.append(update(policy, micro, objective, lr=lr, max_norm=settings.max_norm, name=name))
        ratios.close(len(micro))
    loss, norm = (sum(values) / len(done) for values in zip(*((u.loss, u.grad_norm) for u in done), strict=True))
    return ratios.figures | {"policy_loss": loss, "grad_norm": norm}


def train(
    policy: Learner,
    models: Players,
    asked: Sequence[Sequence[int]],
    settings: Grpo,
    device: Device,
    session: Session,
) -> dict[str, Any]:
    """The loop: roll out in groups, improve, stay within the KL budget. Returns how it ended."""
    lr = schedule(settings.schedule, peak=settings.policy_lr, warmup=settings.warmup_steps, steps=settings.rounds)

    def sampled(round_: int) -> Rollout:
        chosen = step_items(count=len(asked), per_step=settings.rollout_prompts, step=round_, seed=session.seed)
        with gathered(models.policy):
            return roll_out(models, [asked[i] for i in chosen], settings, device, (session.seed, "rollout", round_))

    with Progress("grpo", settings.rounds, done=session.done, unit="rounds") as progress:
        for tick in ticks(
            settings.rounds, start=session.done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            rollout = sampled(tick.step)
            if stopped := session.limit.passed(rollout.kl):
                return {"rounds": session.limit.done, "stopped": stopped}
            session.limit.keep(tick.step - 1)
            watched = improve(
                policy, models, rollout, settings, device, lr=lr(tick.step), seed=(session.seed, tick.step)
            )
            figures = rollout.figures()
            within = rollout.score.view(-1, settings.answers).std(dim=1)
            session.log.log(tick.step, **figures, score_std=float(within.mean()), lr=lr(tick.step), **watched)
            if tick.evaluate and (stopped := session.limit.looked(session.watch(tick.step), tick.step)):
                return {"rounds": session.limit.done, "stopped": stopped}
            if tick.save:
                session.save(tick.step)
            progress.advance(note=f"score {figures['score']:+.2f}  KL {figures['kl']:.2f}")
    # What the last round did has not been measured yet.
    if session.limit.budget is not None and (stopped := session.limit.passed(sampled(settings.rounds + 1).kl)):
        return {"rounds": session.limit.done, "stopped": stopped}
    return {"rounds": settings.rounds, "stopped": "all rounds done"}
