"""Assistant + reward model + prompts -> policy, by proximal policy optimization (Schulman et al. 2017; Ouyang et al.
2022). The loop is `train`, at the end of this file; docs/ppo.md tells where each constant comes from.

    sample replies with the policy; score them with the reward model; per token
        r_t = -beta (log pi(a_t) - log sft(a_t)),  and the score on the last token
    advantages by GAE from the critic's values; then a few epochs of minibatches of
        L = -E[min(ratio_t A_t, clip(ratio_t, 1 - eps, 1 + eps) A_t)]   for the policy
        L = 1/2 E[max((V - R)^2, (V_clipped - R)^2)]                    for the critic
    and with pretrain_weight -E[log pi(text)] on the base's text beside it (PPO-ptx, Ouyang et al., eq. 2)

Nothing here sees gold: the reward model's score, the KL to the assistant, and nothing else decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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
from palate.batches.packed import Packed
from palate.batches.replies import Replies
from palate.batches.shards import Shard
from palate.device import Device, open_device
from palate.errors import RecipeError
from palate.generate.replies import reply_logp, reply_values
from palate.metrics import Progress
from palate.nn import lora
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.masked import whiten
from palate.objectives.next_token import next_token_loss
from palate.objectives.policy import explained_variance, policy_loss, value_loss
from palate.recipe import Ppo, Recipe
from palate.train.distributed import gathered, share, total
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, Update, update
from palate.weights import folder as weights
from palate.workspace import Workspace

TEXT_ROWS = 16
"""Rows of the base's text, as long as its context, beside a minibatch of replies."""


@dataclass(frozen=True, kw_only=True)
class Models(Players):
    """The players, and the critic that says what to expect."""

    critic: ScalarModel
    text: Callable[[Sequence[int]], Packed] | None = None
    """Rows, by their numbers, of what the base was trained on; only with `pretrain_weight`."""


@dataclass(frozen=True)
class Text:
    """A few rows of the base's text, and what a nat of their summed loss weighs beside a minibatch's reply tokens."""

    rows: Packed
    worth: float


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
    """The players, the critic, and the base's text where it is wanted."""
    base = players.open_base(recipe, workspace)
    worth = players.open_worth(recipe, workspace, base, asked)
    critic = critic_from(worth.model or players.open_assistant(workspace, base))
    opened = players.open_players(workspace, device, base, worth)
    known = {f.name: getattr(opened, f.name) for f in dataclasses.fields(Players)}
    return Models(**known, critic=critic, text=_text(recipe, workspace, opened.policy.shape.context))


def _text(recipe: Recipe, workspace: Workspace, width: int) -> Callable[[Sequence[int]], Packed] | None:
    assert recipe.ppo is not None
    if not recipe.ppo.pretrain_weight:
        return None
    if not workspace.has("tokens"):
        raise RecipeError(
            "ppo.pretrain_weight needs the text that the base was trained on, and this run has none: add [collect] and "
            "[tokenize], or leave it out."
        )
    shard = Shard(workspace.read("tokens"), "train")
    return lambda numbers: shard.rows(list(numbers), width=width, seed=(recipe.seed, "ppo"))


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


def text_beside(
    micro: Sequence[Rollout], number: int, models: Models, settings: Ppo, device: Device, *, at_once: int
) -> list[Text]:
    """This process's share of the text that is read with minibatch `number` of all rounds, whose parts are `micro`, in
    pieces of at most `at_once` tokens."""
    if models.text is None:
        return []
    every = models.text(range(number * TEXT_ROWS, (number + 1) * TEXT_ROWS))
    (tokens,) = total(sum(float(part.replies.mask.sum()) for part in micro))
    # The step divides by the reply tokens: this makes it reply loss + weight x mean loss per token of text.
    worth = settings.pretrain_weight * tokens / float(every.weights.sum())
    own = every.rows(share(range(TEXT_ROWS))).to(device.torch)
    return [Text(piece, worth) for piece in own.split(max(1, at_once // every.ids.shape[1]))]


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
    seed: tuple[int, int],
) -> dict[str, float]:
    """A few epochs of minibatches over one rollout; numbers of the first and last minibatch to watch."""
    watched: dict[str, float] = {}
    norms: list[Update] = []
    text: list[tuple[float, float]] = []  # of the pieces of the base's text: summed loss, tokens
    ratios = Ratios(settings.clip)
    rows = rows_at_once(models.policy, models.critic, replies=rollout.replies, most=settings.micro_rows, device=device)

    def policy_objective(part: Rollout | Text) -> tuple[Tensor, Tensor]:
        if isinstance(part, Text):
            read = part.rows
            loss, _ = next_token_loss(models.policy(read.ids, read.segments), read.targets, read.weights)
            text.append((loss.item(), read.weights.sum().item()))
            return part.worth * loss, torch.zeros(())
        now = reply_logp(models.policy, part.replies, temperature=settings.temperature)
        ratios.see(now, part)
        return policy_loss(now, part.logp, part.advantages, part.replies.mask, clip=settings.clip)

    def critic_objective(part: Rollout) -> tuple[Tensor, Tensor]:
        values = reply_values(models.critic, part.replies)
        return value_loss(values, part.values, part.returns, part.replies.mask, clip=settings.value_clip)

    before = (seed[1] - 1) * settings.epochs * -(-len(rollout.replies) // settings.minibatch_rows)
    for name, parts in minibatches(rollout.replies, settings, rows, seed):
        micro = [rollout.rows(part) for part in parts]
        if policy_lr > 0:
            at_once = rows * rollout.replies.longest
            both: list[Rollout | Text] = [
                *micro,
                *text_beside(micro, before + len(norms), models, settings, device, at_once=at_once),
            ]
            norms.append(update(policy, both, policy_objective, lr=policy_lr, max_norm=settings.max_norm, name=name))
            ratios.close(len(micro))
        critic_step = update(
            critic, micro, critic_objective, lr=critic_lr, max_norm=settings.max_norm, name=f"critic {name}"
        )
        watched["value_loss"] = critic_step.loss
    if norms:
        watched["policy_loss"] = sum(u.loss for u in norms) / len(norms)
        watched["grad_norm"] = sum(u.grad_norm for u in norms) / len(norms)
    if models.text is not None and norms:
        loss, tokens = total(*(sum(values) for values in zip((0.0, 0.0), *text, strict=True)))
        watched["pretrain_loss"] = loss / tokens
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
