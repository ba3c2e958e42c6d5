"""Replies of the policy as it is now, with everything that is known of them when they are sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from palate import metrics, ranks
from palate.align.players import Players
from palate.batches.replies import Replies, lay_out
from palate.device import Device, generator, seeds
from palate.generate.engine import Reply, generate
from palate.generate.replies import reply_logp, reply_logp_and_entropy
from palate.generate.sampling import Sampling
from palate.nn.transformer import Network
from palate.objectives.policy import approximate_kl, clip_fraction, reply_kl
from palate.recipe import Aligning, Online
from palate.train.distributed import add_up, gather, in_parts, share, total
from palate.train.memory import make_room

LEAST_KL = 14.0
"""Nats below zero, summed over a rollout's replies, that chance does not give. Where they are drawn from the very
distribution that their log-probs come from, reference(reply) / policy(reply) is 1 in expectation, so by Markov's
inequality the log-ratios sum to -x or less with probability e^-x at most: here once in a million rounds."""


@dataclass(frozen=True)
class Rollout:
    """Sampled replies; the answers to one prompt stand below each other. What a method adds is (batch) or (batch,
    time), too."""

    replies: Replies
    logp: Tensor
    """(batch, time), of every reply token when it was sampled; `ref_logp` what the reference gives it."""
    ref_logp: Tensor
    score: Tensor
    """(batch) centred reward-model score, penalty for a missing end included."""
    ended: Tensor
    entropy: float
    """Mean in nats over all reply tokens."""

    def rows(self, numbers: Tensor) -> Self:
        """Some of the rows, cut to the longest of them."""
        replies = self.replies.rows(numbers)
        length = replies.longest

        def some(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value[numbers, : length - 1] if value.dim() == 2 else value[numbers]

        values = {f.name: some(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **values | {"replies": replies.cut(length)})

    @property
    def kl(self) -> float:
        """Mean over the replies of their summed log-ratio policy/reference, in nats."""
        return float(reply_kl(self.logp, self.ref_logp, self.replies.mask).mean())

    def figures(self) -> dict[str, float]:
        """What is logged of every rollout, whatever the method."""
        return {
            "score": float(self.score.mean()),
            "kl": self.kl,
            "entropy": self.entropy,
            "reply_tokens": float(self.replies.mask.sum(dim=1).mean()),
            "eos_rate": float(self.ended.float().mean()),
        }


def sampling(settings: Aligning, stops: Sequence[int]) -> Sampling:
    """From the whole distribution, whose log-probs the objective is made of."""
    return Sampling(max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, stops=tuple(stops))


def in_pieces(replies: Replies, rows: int, of: Callable[[Replies], Tensor], like: Tensor) -> Tensor:
    """`of` applied to at most `rows` rows of similar length at a time; (batch, time) or (batch) as `like` is, rows in
    their order: activations of a whole rollout need not fit. Of several processes each takes its share of the rows, and
    all have the whole result."""
    return add_up(in_pieces_alone(replies, rows, of, like, share(range(len(replies)))))


def in_pieces_alone(
    replies: Replies, rows: int, of: Callable[[Replies], Tensor], like: Tensor, numbers: Sequence[int]
) -> Tensor:
    """The same for the rows in `numbers`, by this process; 0 elsewhere."""
    result = torch.zeros_like(like)
    for part in replies.by_length(torch.tensor(numbers), rows):
        piece = replies.rows(part)
        values = of(piece.cut(piece.longest))
        result[(part, slice(values.shape[1])) if values.dim() == 2 else part] = values
    return result


def rows_at_once(*trained: Network, replies: Replies, most: int, device: Device, beside: int = 2) -> int:
    """Rows in one forward pass: what is `trained` with its optimizers, and `beside` more networks, are in memory; of
    adapters there are several sets, and one network that they share."""
    longest = replies.longest
    return make_room(*trained, time=longest, device=device, at_most=most * longest, beside=beside) // longest


@torch.no_grad()
def roll_out(
    players: Players,
    prompts: Sequence[Sequence[int]],
    settings: Online,
    device: Device,
    seed: tuple[object, ...],
    *,
    rows: Callable[[Replies], int],
    answers: int = 1,
) -> Rollout:
    """Sample `answers` replies per prompt and read each once with policy, reference and reward model, `rows(replies)`
    at a time."""
    drawn = sampling(settings, players.stops)

    def answer(part: Sequence[tuple[Sequence[int], int]]) -> list[list[Reply]]:
        asked, own = [prompt for prompt, _ in part], [number for _, number in part]
        return generate(players.policy, asked, drawn, seeds=own, device=device, answers=answers)

    requests = list(zip(prompts, seeds(len(prompts), *seed), strict=True))
    sampled = [reply for several in in_parts(requests, answer) for reply in several]
    asked = [prompt for prompt in prompts for _ in range(answers)]
    replies = lay_out(asked, [reply.ids for reply in sampled], pad=players.pad).to(device.torch)
    ended = torch.tensor([reply.ended for reply in sampled], device=device.torch)
    entropy = 0.0

    def policy_logp(part: Replies) -> Tensor:
        nonlocal entropy
        logp, spread = reply_logp_and_entropy(players.policy, part, temperature=settings.temperature)
        entropy += float(spread.sum())
        return logp

    def reference_logp(part: Replies) -> Tensor:
        return reply_logp(players.reference, part, temperature=settings.temperature)

    at_once, mask = rows(replies), replies.mask
    logp = in_pieces(replies, at_once, policy_logp, like=mask)
    ref_logp = in_pieces(replies, at_once, reference_logp, like=mask)
    score = in_pieces(replies, at_once, players.score, like=mask[:, 0])
    if players.scorers is not None:
        score = score + add_up(players.scorers(replies) if ranks.leads() else torch.zeros_like(score))
    # In standard deviations of the score: a fixed number would be the only reward that a flat reward model leaves.
    score = score - settings.missing_eos_penalty * players.unit * (~ended)
    entropy = total(entropy)[0] / float(mask.sum())
    if (nats := float(reply_kl(logp, ref_logp, mask).sum())) < -LEAST_KL:
        metrics.say(f"      round {seed[-1]}: {_impossible(nats, len(replies))}")
    return Rollout(replies, logp, ref_logp, score, ended, entropy)


def _impossible(nats: float, replies: int) -> str:
    return (
        f"the KL to the assistant is {nats / replies:.3f} nats in the mean of {replies} replies, which chance gives "
        f"less than once in a million rounds: the replies were not drawn from the distribution that their log-probs "
        f"come from (docs/ppo.md, row 10)"
    )


def minibatches(
    replies: Replies, settings: Online, rows: int, seed: tuple[object, ...]
) -> Iterator[tuple[str, list[Tensor]]]:
    """A few epochs of minibatches in random order: of each its name in errors and the numbers of its rows, this
    process's share of them in micro-batches of at most `rows` rows of similar length."""
    for epoch in range(settings.epochs):
        order = torch.randperm(len(replies), generator=generator(*seed, "minibatches", epoch))
        for number, minibatch in enumerate(torch.split(order, settings.minibatch_rows)):
            name = f"{settings.method} round {seed[-1]} epoch {epoch + 1} minibatch {number + 1}"
            yield name, replies.by_length(minibatch[ranks.rank() :: ranks.world()], rows)


@dataclass
class Ratios:
    """How far a round's steps go from the policy that sampled: figures of the first and of the last minibatch."""

    clip: float
    figures: dict[str, float] = field(default_factory=dict)
    _seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def see(self, now: Tensor, rollout: Rollout) -> None:
        """Log-probs (batch, time) of a micro-batch as they are now; kept is what its reply tokens have."""
        counted = rollout.replies.mask.bool()
        self._seen.append((now.detach()[counted].cpu(), rollout.logp[counted].cpu()))

    def close(self, pieces: int) -> None:
        """A minibatch of so many micro-batches of this process is through."""
        now, then = (torch.cat(side) for side in zip(*gather(self._seen[:pieces]), strict=True))
        self._seen.clear()
        every = torch.ones_like(now)
        if not self.figures:  # the policy had not moved yet: every ratio must be 1
            self.figures["first_ratio_error"] = float(((now - then).exp() - 1).abs().max())
            self.figures["first_kl"] = float(approximate_kl(now, then, every))
        self.figures["clip_fraction"] = float(clip_fraction(now, then, every, clip=self.clip))
        self.figures["step_kl"] = float(approximate_kl(now, then, every))
        self.figures["ratio"] = float((now - then).exp().mean())
