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

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate import metrics, ranks
from palate.batches import prompts as prompt_batches
from palate.batches.order import step_items
from palate.batches.replies import Replies, lay_out
from palate.device import Device, generator, open_device, seeds
from palate.errors import BadInput, GateClosed
from palate.generate.engine import Reply, generate
from palate.generate.replies import reply_logp, reply_logp_and_entropy, reply_scores, reply_values
from palate.generate.sampling import Sampling
from palate.metrics import Metrics, Progress
from palate.nn import lora
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.masked import whiten
from palate.objectives.policy import (
    approximate_kl,
    clip_fraction,
    explained_variance,
    policy_loss,
    reply_kl,
    value_loss,
)
from palate.recipe import Ppo, Recipe
from palate.records import Prompt, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.train import resume
from palate.train.distributed import add_up, gather, gathered, in_parts, share, total
from palate.train.memory import make_room
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, Update, update
from palate.weights import adapter
from palate.weights import folder as weights
from palate.workspace import Workspace

LEAST_KL = 14.0
"""Nats below zero, summed over a rollout's replies, that chance does not give. Where they are drawn from the very
distribution that their log-probs come from, reference(reply) / policy(reply) is 1 in expectation, so by Markov's
inequality the log-ratios sum to -x or less with probability e^-x at most: here once in a million rounds."""

WATCHED = 48
"""Dev prompts whose answers are kept at every evaluation, so that the report can judge how the policy changed."""


@dataclass(frozen=True)
class Models:
    """Everything PPO holds: what is trained, what stays as it was, and what says how good a reply is."""

    policy: LanguageModel
    critic: ScalarModel
    reference: LanguageModel
    reward: Callable[[Replies], Tensor]
    """What whole replies are worth, (batch): the reward model or any function. `score` centres it."""
    stops: Sequence[int]
    """Ids that end a reply."""
    pad: int
    mean: float = 0.0
    """Mean of `reward` over the assistant's replies, and (std) its standard deviation there."""
    std: float = 1.0

    @property
    def scale(self) -> float:
        """What the centred score is divided by. A Bradley-Terry score is in log-odds of being preferred, so it has a
        scale of its own: a wide spread is brought to 1, a narrow one is left. It means the rankings taught little, and
        stretching it would make noise a goal."""
        return max(self.std, 1.0)

    def score(self, replies: Replies) -> Tensor:
        """Reward (batch): mean 0 over the assistant's replies, variance 1 at most."""
        return (self.reward(replies) - self.mean) / self.scale


@dataclass(frozen=True)
class Rollout:
    """Replies of the policy with what was known when they were sampled; all but `score` are (batch, time)."""

    replies: Replies
    logp: Tensor
    ref_logp: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    score: Tensor
    """(batch) centred reward-model score, penalty for a missing end included."""
    ended: Tensor
    entropy: float

    def rows(self, numbers: Tensor) -> Rollout:
        """Some of the rows, cut to the longest of them."""
        replies = self.replies.rows(numbers)
        length = replies.longest

        def cut(values: Tensor) -> Tensor:
            return values[numbers, : length - 1]

        return Rollout(
            replies=replies.cut(length),
            logp=cut(self.logp),
            ref_logp=cut(self.ref_logp),
            values=cut(self.values),
            advantages=cut(self.advantages),
            returns=cut(self.returns),
            score=self.score[numbers],
            ended=self.ended[numbers],
            entropy=self.entropy,
        )


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `ppo`: a Hugging Face folder of the policy, watched.jsonl with its answers on the way, report.json."""
    settings = recipe.ppo
    assert settings is not None
    device = open_device(recipe.hardware)
    if settings.gate:
        _check_gate(workspace)
    source = workspace.read("sft")
    tokenizer = tokenizers.load(source)
    models = _open_models(workspace, device, adapters=recipe.lora is not None)
    every = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
    room = models.policy.shape.context - settings.max_new_tokens
    _, ids, too_long = prompt_batches.encode([p for p in every if p.split == "train"], tokenizer, room=room)
    dev = sorted((p for p in every if p.split == "dev"), key=lambda p: p.id)  # ids are hashes: a mix of all skills
    watched, watched_ids, _ = prompt_batches.encode(dev, tokenizer, room=room)
    if len(ids) < settings.rollout_prompts:
        raise BadInput(
            f"{len(ids)} train prompts fit ({len(too_long)} are too long), fewer than ppo.rollout_prompts = "
            f"{settings.rollout_prompts}.",
            workspace.read("demonstrations") / "prompts.jsonl",
            "Add prompts or set ppo.rollout_prompts lower.",
        )
    policy = Learner.make("adamw", models.policy, device, weight_decay=0.0)
    critic = Learner.make("adamw", models.critic, device, weight_decay=0.0)
    with workspace.publish() as folder:
        done, extra = resume.load(folder, {"policy": policy, "critic": critic})
        log = Metrics(workspace.logs / "ppo.jsonl", resume_after=done)
        views = Metrics(folder / "watched.jsonl", resume_after=done, gaps=True)

        def watch(round_: int) -> None:
            some, ids = watched[:WATCHED], watched_ids[:WATCHED]
            with gathered(models.policy):
                if ranks.leads():
                    _watch(round_, models, some, ids, settings, tokenizer, device, views, recipe)

        def save(round_: int, kept: dict[str, Any]) -> None:
            log.sync()
            views.sync()
            resume.save(folder, round_, {"policy": policy, "critic": critic}, kept)

        if done == 0:
            watch(0)
        if models.std != 0:
            last = train(policy, critic, models, ids, settings, device, log, recipe.seed, done, watch, save, extra)
        else:  # a reward that is the same everywhere has no gradient: the rounds would change nothing
            last = {"rounds": 0, "stopped": "the reward model is worth nothing on held-out rankings"}
            metrics.say(f"      {last['stopped']}: there is nothing to follow, and the policy stays the assistant")
        policy.whole()
        if ranks.leads():
            final = models.policy
            if recipe.lora is not None:
                adapter.save(folder / "adapter", final, base=workspace.read("base"))
                final = adapter.merged(final, workspace.read("base"))
            weights.save_language_model(folder, final, source, stops=tokenizer.stops, ids=tokenizer.ids)
            (folder / "report.json").write_text(json.dumps(last, indent=1) + "\n", encoding="utf-8")


def _check_gate(workspace: Workspace) -> None:
    """Refuse to optimise against a reward model that does not beat chance: PPO would find its mistakes."""
    report = json.loads((workspace.read("reward") / "report.json").read_text(encoding="utf-8"))
    best = report["best_of_k"]
    if best["low"] <= 0.5:
        raise GateClosed(
            f"the reward model's best of K answers is preferred in {best['mean']:.3f} [{best['low']:.3f}, "
            f"{best['high']:.3f}] of comparisons on held-out prompts; its interval must lie above 0.5 before PPO "
            f"starts. Rank more prompts, or set ppo.gate = false to go on regardless."
        )


Four = tuple[LanguageModel, LanguageModel, ScalarModel, ScalarModel]
"""Policy, reference, critic and reward model."""


def _whole(sft: Path, palate: Path) -> Four:
    """Four networks, each with weights of its own."""
    reward, _ = weights.load_scalar_model(palate)
    critic = ScalarModel(weights.trunk_copy(reward.trunk), 1)
    return weights.load_language_model(sft), weights.load_language_model(sft), critic, reward


def _adapted(workspace: Workspace) -> Four:
    """Four sets of adapters beside one base model, which is in memory once."""
    base = weights.load_language_model(workspace.read("base"))
    policy, reference = (adapter.beside(base, workspace.read("sft") / "adapter") for _ in range(2))
    outputs = len(weights.read_extra(workspace.read("reward"))["labels"])
    reward = adapter.beside(ScalarModel(base.trunk, outputs), workspace.read("reward") / "adapter")
    return policy, reference, ScalarModel(lora.twin(reward.trunk), 1), reward


def _open_models(workspace: Workspace, device: Device, *, adapters: bool) -> Models:
    sft, palate = workspace.read("sft"), workspace.read("reward")
    tokenizer = tokenizers.load(sft)
    if tokenizer.fingerprint != tokenizers.load(palate).fingerprint:
        raise BadInput(
            "this reward model was made with another tokenizer than the assistant's, so it cannot read its ids.",
            palate,
            "Make it again: delete the folder and run `palate reward`.",
        )
    extra = weights.read_extra(palate)
    mix, pooling = torch.tensor(extra["mix"]).to(device.torch), str(extra["pooling"])
    policy, reference, critic, reward = _adapted(workspace) if adapters else _whole(sft, palate)
    # The critic's trunk is the reward model's, which knows good from bad (Ouyang et al. 2022, appendix C.4). Its head
    # is 0 (Ziegler et al. 2019), the mean of the score: the reward model's own head reads whole replies, not states.
    torch.nn.init.zeros_(critic.score.weight)
    for frozen in (reference, reward):  # compiled as the policy is: the KL to the reference must not be rounding
        device.compile(device.put(frozen.requires_grad_(requires_grad=False)).eval())
    return Models(
        policy=policy,
        critic=critic,
        reference=reference,
        reward=lambda replies: reply_scores(reward, replies, pooling=pooling) @ mix,
        stops=tokenizer.stops,
        pad=tokenizer.pad,
        mean=float(extra["mean"]),
        std=float(extra["std"]),
    )


def _sampling(settings: Ppo, stops: Sequence[int]) -> Sampling:
    """From the whole distribution, whose log-probs the objective is made of."""
    return Sampling(max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, stops=tuple(stops))


@torch.no_grad()
def _watch(
    round_: int,
    models: Models,
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    settings: Ppo,
    tokenizer: Tokenizer,
    device: Device,
    views: Metrics,
    recipe: Recipe,
) -> None:
    """Keep the policy's answers to the watched prompts, and show one to the person who waits."""
    answers = generate(
        models.policy,
        ids,
        _sampling(settings, tokenizer.stops),
        seeds=seeds(len(ids), recipe.seed, "watched"),
        device=device,
    )
    replies = [reply for (reply,) in answers]
    laid = lay_out(ids, [reply.ids for reply in replies], pad=tokenizer.pad).to(device.torch)
    score = models.score(laid).tolist()
    for prompt, reply, value in zip(prompts, replies, score, strict=True):
        views.log(round_, prompt_id=prompt.id, text=tokenizer.decode(reply.ids).strip(), score=round(value, 4))
    shown = min(3, len(prompts) - 1)
    metrics.say(
        f"      round {round_}: {prompts[shown].messages[-1].content} -> {tokenizer.decode(replies[shown].ids).strip()}"
    )


def _in_pieces(replies: Replies, rows: int, of: Callable[[Replies], Tensor], like: Tensor) -> Tensor:
    """`of` applied to at most `rows` rows of similar length at a time; (batch, time) or (batch) as `like` is, rows in
    their order: activations of a whole rollout need not fit. Of several processes each takes its share of the rows, and
    all have the whole result."""
    result = torch.zeros_like(like)
    for part in replies.by_length(torch.tensor(share(range(len(replies)))), rows):
        piece = replies.rows(part)
        values = of(piece.cut(piece.longest))
        result[(part, slice(values.shape[1])) if values.dim() == 2 else part] = values
    return add_up(result)


def rows_at_once(models: Models, replies: Replies, settings: Ppo, device: Device) -> int:
    """Rows in one forward pass: policy and critic with their optimizers, reference and reward model are in memory; of
    adapters there are four sets, and one network that they share."""
    longest = replies.longest
    most = settings.micro_rows * longest
    tokens = make_room(models.policy, models.critic, time=longest, device=device, at_most=most, beside=2)
    return tokens // longest


@torch.no_grad()
def roll_out(
    models: Models,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    device: Device,
    seed: tuple[object, ...],
) -> Rollout:
    """Sample one reply per prompt with the policy as it is now, and everything that is computed once per rollout."""
    sampling = _sampling(settings, models.stops)

    def answer(part: Sequence[tuple[Sequence[int], int]]) -> list[list[Reply]]:
        asked, own = [prompt for prompt, _ in part], [number for _, number in part]
        return generate(models.policy, asked, sampling, seeds=own, device=device)

    requests = list(zip(prompts, seeds(len(prompts), *seed), strict=True))
    sampled = [reply for (reply,) in in_parts(requests, answer)]
    replies = lay_out(prompts, [reply.ids for reply in sampled], pad=models.pad).to(device.torch)
    ended = torch.tensor([reply.ended for reply in sampled], device=device.torch)
    entropy = 0.0

    def policy_logp(part: Replies) -> Tensor:
        nonlocal entropy
        logp, spread = reply_logp_and_entropy(models.policy, part, temperature=settings.temperature)
        entropy += float(spread.sum())
        return logp

    def reference_logp(part: Replies) -> Tensor:
        return reply_logp(models.reference, part, temperature=settings.temperature)

    rows, mask = rows_at_once(models, replies, settings, device), replies.mask
    logp = _in_pieces(replies, rows, policy_logp, like=mask)
    ref_logp = _in_pieces(replies, rows, reference_logp, like=mask)
    values = _in_pieces(replies, rows, lambda part: reply_values(models.critic, part), like=mask)
    score = _in_pieces(replies, rows, models.score, like=mask[:, 0])
    # In standard deviations of the score: a fixed number would be the only reward that a flat reward model leaves.
    score = score - settings.missing_eos_penalty * models.std / models.scale * (~ended)
    rewards = shaped_rewards(score, logp, ref_logp, replies.mask, kl_weight=settings.kl_weight)
    advantages, returns = generalised_advantages(rewards, values, replies.mask, gamma=settings.gamma, lam=settings.lam)
    entropy = total(entropy)[0] / float(mask.sum())
    advantages = whiten(advantages, replies.mask)
    return Rollout(replies, logp, ref_logp, values, advantages, returns, score, ended, entropy)


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
    seen: list[tuple[Tensor, Tensor]] = []  # of the minibatch in hand: log-probs now, and when they were sampled

    def policy_objective(part: Rollout) -> tuple[Tensor, Tensor]:
        now = reply_logp(models.policy, part.replies, temperature=settings.temperature)
        mask = part.replies.mask
        seen.append((now.detach()[mask.bool()].cpu(), part.logp[mask.bool()].cpu()))
        return policy_loss(now, part.logp, part.advantages, mask, clip=settings.clip)

    def critic_objective(part: Rollout) -> tuple[Tensor, Tensor]:
        values = reply_values(models.critic, part.replies)
        return value_loss(values, part.values, part.returns, part.replies.mask, clip=settings.value_clip)

    rows = rows_at_once(models, rollout.replies, settings, device)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(rollout.replies), generator=generator(*seed, "minibatches", epoch))
        for number, minibatch in enumerate(torch.split(order, settings.minibatch_rows)):
            name = f"ppo round {seed[-1]} epoch {epoch + 1} minibatch {number + 1}"
            own = minibatch[ranks.rank() :: ranks.world()]
            micro = [rollout.rows(part) for part in rollout.replies.by_length(own, rows)]
            if policy_lr > 0:
                norms.append(
                    update(policy, micro, policy_objective, lr=policy_lr, max_norm=settings.max_norm, name=name)
                )
                now, then = (torch.cat(side) for side in zip(*gather(seen[: len(micro)]), strict=True))
                seen.clear()
                every = torch.ones_like(now)
                if len(norms) == 1:  # the policy had not moved yet: every ratio must be 1
                    watched["first_ratio_error"] = float(((now - then).exp() - 1).abs().max())
                    watched["first_kl"] = float(approximate_kl(now, then, every))
                watched["clip_fraction"] = float(clip_fraction(now, then, every, clip=settings.clip))
                watched["step_kl"] = float(approximate_kl(now, then, every))
                watched["ratio"] = float((now - then).exp().mean())
            critic_step = update(
                critic, micro, critic_objective, lr=critic_lr, max_norm=settings.max_norm, name=f"critic {name}"
            )
            watched["value_loss"] = critic_step.loss
    if norms:
        watched["policy_loss"] = sum(u.loss for u in norms) / len(norms)
        watched["grad_norm"] = sum(u.grad_norm for u in norms) / len(norms)
    return watched


def _impossible(total: float, replies: int) -> str:
    return (
        f"the KL to the assistant is {total / replies:.3f} nats in the mean of {replies} replies, which chance gives "
        f"less than once in a million rounds: the replies were not drawn from the distribution that their log-probs "
        f"come from (docs/ppo.md, row 10)"
    )


def train(
    policy: Learner,
    critic: Learner,
    models: Models,
    prompts: Sequence[Sequence[int]],
    settings: Ppo,
    device: Device,
    log: Metrics,
    seed: int,
    done: int,
    watch: Callable[[int], None],
    save: Callable[[int, dict[str, Any]], None],
    kept: dict[str, Any],
) -> dict[str, Any]:
    """The loop: roll out, improve, stay within the KL budget. Returns how it ended."""
    lr = schedule(settings.schedule, peak=settings.policy_lr, warmup=settings.warmup_steps, steps=settings.rounds)
    ended: dict[str, Any] = {"rounds": settings.rounds, "stopped": "all rounds done"}

    def sampled(round_: int) -> tuple[Rollout, float]:
        chosen = step_items(count=len(prompts), per_step=settings.rollout_prompts, step=round_, seed=seed)
        with gathered(models.policy, models.critic):
            rollout = roll_out(models, [prompts[i] for i in chosen], settings, device, (seed, "rollout", round_))
        kl = reply_kl(rollout.logp, rollout.ref_logp, rollout.replies.mask)
        if (total := float(kl.sum())) < -LEAST_KL:
            metrics.say(f"      round {round_}: {_impossible(total, len(kl))}")
        return rollout, float(kl.mean())

    def too_far(round_: int, kl: float) -> bool:
        """Whether the KL left the budget; then the policy is again the last one that was within it."""
        if settings.kl_budget is None or kl <= settings.kl_budget or not kept:
            return False
        policy.set_weights(kept["policy"])
        ended.update(rounds=round_ - 2, stopped=f"KL {kl:.2f} over the budget {settings.kl_budget}")
        return True

    with Progress("ppo", settings.rounds, done=done, unit="rounds") as progress:
        for tick in ticks(
            settings.rounds, start=done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            rollout, kl = sampled(tick.step)
            if too_far(tick.step, kl):
                return ended
            if settings.kl_budget is not None:
                kept = {"policy": {name: value.clone() for name, value in policy.weights().items()}}
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
                seed=(seed, tick.step),
            )
            mask = rollout.replies.mask
            score = float(rollout.score.mean())
            log.log(
                tick.step,
                score=score,
                kl=kl,
                entropy=rollout.entropy,
                explained_variance=float(explained_variance(rollout.values, rollout.returns, mask)),
                reply_tokens=float(mask.sum(dim=1).mean()),
                eos_rate=float(rollout.ended.float().mean()),
                lr=0.0 if warming else lr(tick.step),
                **watched,
            )
            if tick.evaluate:
                watch(tick.step)
            if tick.save:
                save(tick.step, kept)
            progress.advance(note=f"score {score:+.2f}  KL {kl:.2f}")
    if settings.kl_budget is not None:  # what the last round did has not been measured yet
        too_far(settings.rounds + 1, sampled(settings.rounds + 1)[1])
    return ended
