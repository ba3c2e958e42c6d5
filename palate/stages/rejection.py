"""Assistant + reward model + prompts -> policy, by rejection sampling: best of K, then SFT on it, round after round
(Nakano et al. 2021, "WebGPT"; Touvron et al. 2023, "Llama 2", section 3.2.3; Dong et al. 2023, "RAFT"). The loop is
`train`, at the end of this file; docs/rejection.md tells where each constant comes from.

    sample K replies to each prompt with the policy; score them with the reward model; keep the best one, y*; then
        L = -E_t[ log pi(y*_t | prompt, y*_<t) ]

Nothing is clipped and no advantage is estimated; what is not best teaches nothing, nor does a prompt whose replies are
all worth the same. Nothing here sees gold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palate.align import rollout as rollouts
from palate.align.players import Players
from palate.align.rollout import Rollout, minibatches, rows_at_once
from palate.align.session import Session, without_critic
from palate.batches.order import step_items
from palate.batches.replies import Replies
from palate.device import Device
from palate.generate.replies import reply_logp
from palate.metrics import Progress
from palate.recipe import Recipe, Rejection
from palate.train.distributed import gathered
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, Update, update
from palate.workspace import Workspace


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `rejection`: a Hugging Face folder of the policy, watched.jsonl with its answers on the way,
    report.json."""
    settings = recipe.rejection
    assert settings is not None
    without_critic(recipe, workspace, settings, train)


def best(rollout: Rollout, answers: int) -> Tensor:
    """The row of the best-scored reply to each prompt, (prompts); of equals the first."""
    first = torch.arange(0, len(rollout.replies), answers, device=rollout.score.device)
    return first + rollout.score.view(-1, answers).argmax(dim=1)


def told_apart(rollout: Rollout, answers: int) -> Tensor:
    """Whether the replies to each prompt differ in score, (prompts) bool. Where all are worth the same the best one is
    no better than the others: with a verifier it is often just as wrong."""
    groups = rollout.score.view(-1, answers)
    return groups.amax(dim=1) > groups.amin(dim=1)


def imitate(
    policy: Learner,
    models: Players,
    chosen: Rollout,
    settings: Rejection,
    device: Device,
    *,
    lr: float,
    seed: tuple[object, ...],
) -> dict[str, float]:
    """SFT on the chosen replies, a few epochs of minibatches; means of what each step did."""
    done: list[Update] = []

    def objective(part: Replies) -> tuple[Tensor, Tensor]:
        return -reply_logp(models.policy, part, temperature=settings.temperature).sum(), part.mask.sum()

    rows = rows_at_once(models.policy, replies=chosen.replies, most=settings.micro_rows, device=device)
    for name, parts in minibatches(chosen.replies, settings, rows, seed):
        micro = []
        for part in parts:
            piece = chosen.replies.rows(part)
            micro.append(piece.cut(piece.longest))
        done.append(update(policy, micro, objective, lr=lr, max_norm=settings.max_norm, name=name))
    loss, norm = (sum(values) / len(done) for values in zip(*((u.loss, u.grad_norm) for u in done), strict=True))
    return {"loss": loss, "grad_norm": norm}


def train(
    policy: Learner,
    models: Players,
    asked: Sequence[Sequence[int]],
    settings: Rejection,
    device: Device,
    session: Session,
) -> dict[str, Any]:
    """The loop: roll out in groups, imitate the best, stay within the KL budget. Returns how it ended."""
    lr = schedule(settings.schedule, peak=settings.policy_lr, warmup=settings.warmup_steps, steps=settings.rounds)

    def rows(replies: Replies) -> int:
        return rows_at_once(models.policy, replies=replies, most=settings.micro_rows, device=device)

    def sampled(round_: int) -> Rollout:
        chosen = step_items(count=len(asked), per_step=settings.rollout_prompts, step=round_, seed=session.seed)
        own = (session.seed, "rollout", round_)
        with gathered(models.policy):
            return rollouts.roll_out(
                models, [asked[i] for i in chosen], settings, device, own, rows=rows, answers=settings.answers
            )

    with Progress("rejection", settings.rounds, done=session.done, unit="rounds") as progress:
        for tick in ticks(
            settings.rounds, start=session.done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            rollout = sampled(tick.step)
            if stopped := session.limit.passed(rollout.kl):
                return {"rounds": session.limit.done, "stopped": stopped}
            session.limit.keep(tick.step - 1)
            winners, apart = best(rollout, settings.answers), told_apart(rollout, settings.answers)
            watched = {"best_score": float(rollout.score[winners].mean()), "told_apart": float(apart.float().mean())}
            if apart.any():
                chosen = rollout.rows(winners[apart])
                watched |= imitate(
                    policy, models, chosen, settings, device, lr=lr(tick.step), seed=(session.seed, tick.step)
                )
            figures = rollout.figures()
            session.log.log(tick.step, **figures, lr=lr(tick.step), **watched)
            if tick.evaluate and (stopped := session.limit.looked(session.watch(tick.step), tick.step)):
                return {"rounds": session.limit.done, "stopped": stopped}
            if tick.save:
                session.save(tick.step)
            progress.advance(note=f"score {figures['score']:+.2f}  KL {figures['kl']:.2f}")
    # What the last round did has not been measured yet.
    if session.limit.budget is not None and (stopped := session.limit.passed(sampled(settings.rounds + 1).kl)):
        return {"rounds": session.limit.done, "stopped": stopped}
    return {"rounds": settings.rounds, "stopped": "all rounds done"}
