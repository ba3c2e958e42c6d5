"""Assistant + rankings -> policy, by direct preference optimization (Rafailov et al. 2023): no reward model, no
sampling. The loop is `train`, at the end of this file; docs/dpo.md tells where each constant comes from.

    of the K ranked answers to a prompt, over all pairs, w preferred to l:
        L = -E[ log sigmoid( beta log pi(w)/sft(w) - beta log pi(l)/sft(l) ) ]

The answers are those that people ranked, which the assistant gave before it learned; so the further the policy goes
from it, the less the rankings know about what it says now. Nothing here sees gold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from palate.align import players, prompts, rankings
from palate.align.players import Players
from palate.align.session import Session, begin
from palate.batches.order import step_items
from palate.batches.rankings import Group, RankedBatch, batch, by_size, pair_count
from palate.device import Device, open_device
from palate.feedback import reliability
from palate.generate.replies import logp_all, reply_logp
from palate.measure import preference
from palate.metrics import Progress
from palate.objectives.direct import direct_preference_loss
from palate.recipe import Dpo, Recipe
from palate.text import tokenizer as tokenizers
from palate.train.distributed import gathered, in_parts, share
from palate.train.memory import make_room
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, update
from palate.weights.families import context_of
from palate.workspace import Workspace


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `dpo`: a Hugging Face folder of the policy, watched.jsonl with its answers on the way, report.json."""
    settings = recipe.dpo
    assert settings is not None
    device = open_device(recipe.hardware)
    source = workspace.read("sft")
    known = reliability.annotators(rankings.judged_train(workspace)) if settings.annotators == "agreement" else None
    train_groups, dev_groups, too_long = rankings.read(
        workspace, tokenizers.load(source), room=context_of(source), annotators=known
    )
    models = players.open_players(workspace, device, players.open_base(recipe, workspace), None)
    asked = prompts.read(workspace, settings)
    policy = Learner.make("adamw", models.policy, device, weight_decay=0.0)
    with workspace.publish() as folder:
        session = begin(folder, recipe, workspace, settings, device, models, asked, {"policy": policy})
        told = train(policy, models, train_groups, dev_groups, settings, device, session)
        told |= {"train_prompts": len(train_groups), "dev_prompts": len(dev_groups), "too_long": too_long}
        told |= {"train_pairs": pair_count(train_groups)}
        players.publish(folder, policy, recipe, workspace, told)


def reference_logp(models: Players, members: Sequence[Group], settings: Dpo, device: Device) -> dict[str, Tensor]:
    """By prompt id the log-prob (candidates) of each whole reply under the assistant, which never changes."""

    def read(part: Sequence[Group]) -> list[Tensor]:
        asked = [group.prompt_ids for group in part for _ in group.reply_ids]
        replies = [ids for group in part for ids in group.reply_ids]
        flat = logp_all(
            models.reference, asked, replies, pad=models.pad, device=device, temperature=settings.temperature
        )
        return list(torch.split(flat, [len(group.reply_ids) for group in part]))

    return {g.prompt.id: logp for g, logp in zip(members, in_parts(members, read), strict=True)}


@torch.no_grad()
def held_out(
    models: Players, members: Sequence[Group], reference: dict[str, Tensor], settings: Dpo, device: Device
) -> dict[str, float]:
    """Accuracy and loss of beta log pi/sft, read as a score, on rankings of prompts that no step has seen."""
    asked = [group.prompt_ids for group in members for _ in group.reply_ids]
    replies = [ids for group in members for ids in group.reply_ids]
    flat = logp_all(models.policy, asked, replies, pad=models.pad, device=device, temperature=settings.temperature)
    policy = torch.split(flat, [len(group.reply_ids) for group in members])
    scores = [settings.beta * (now - reference[group.prompt.id]) for group, now in zip(members, policy, strict=True)]
    right = preference.pair_accuracy(members, [given.tolist() for given in scores])
    losses = []
    for group, now in zip(members, policy, strict=True):
        targets, weights = (torch.tensor([table]) for table in (group.targets, group.counted))
        before = reference[group.prompt.id][None]
        losses.append(float(direct_preference_loss(now[None], before, targets, weights, beta=settings.beta)[0]))
    return {"held_out_accuracy": right.mean, "held_out_loss": sum(losses) / len(losses)}


def train(
    policy: Learner,
    models: Players,
    members: Sequence[Group],
    unseen: Sequence[Group],
    settings: Dpo,
    device: Device,
    session: Session,
) -> dict[str, Any]:
    """The loop: a few prompts with all their ranked answers, one optimizer step. Returns how it ended."""
    steps = max(1, settings.epochs * len(members) // settings.batch_prompts)
    warmup = min(settings.warmup_steps, steps // 2)
    lr = schedule(settings.schedule, peak=settings.policy_lr, warmup=warmup, steps=steps)
    reference = reference_logp(models, [*members, *unseen], settings, device)

    def objective(part: tuple[RankedBatch, Tensor]) -> tuple[Tensor, Tensor]:
        ranked, before = part
        now = reply_logp(models.policy, ranked.replies, temperature=settings.temperature).sum(dim=1)
        logp, ref_logp = ranked.spread(torch.stack([now, before], dim=1)).unbind(dim=2)  # (prompts, candidates)
        return direct_preference_loss(logp, ref_logp, ranked.targets, ranked.weights, ranked.worth, beta=settings.beta)

    longest = max(len(group.prompt_ids) + max(map(len, group.reply_ids)) for group in members)
    at_once = make_room(models.policy, time=longest, device=device, at_most=settings.micro_rows * longest, beside=1)
    with Progress("dpo", steps, done=session.done) as progress:
        for tick in ticks(
            steps, start=session.done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            chosen = step_items(count=len(members), per_step=settings.batch_prompts, step=tick.step, seed=session.seed)
            pieces = by_size([members[i] for i in share(chosen)], at_once)
            micro = (
                (
                    batch(piece, pad=models.pad, device=device.torch),
                    torch.cat([reference[group.prompt.id] for group in piece]).to(device.torch),
                )
                for piece in pieces
            )
            name = f"dpo step {tick.step}"
            result = update(policy, micro, objective, lr=lr(tick.step), max_norm=settings.max_norm, name=name)
            session.log.log(tick.step, loss=result.loss, lr=lr(tick.step), grad_norm=result.grad_norm)
            progress.advance(note=f"loss {result.loss:.3f}")
            if tick.evaluate:
                seen = session.watch(tick.step)
                with gathered(models.policy):
                    session.log.log(tick.step, **held_out(models, unseen, reference, settings, device), **seen)
                if stopped := session.limit.looked(seen, tick.step):
                    return {"steps": session.limit.done, "stopped": stopped}
                session.limit.keep(tick.step)
            if tick.save:
                session.save(tick.step)
    return {"steps": steps, "stopped": "all steps done"}
