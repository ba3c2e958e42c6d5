"""A look at the policy's answers on its way, kept for the report and shown to the person who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from palate import metrics, ranks
from palate.align.players import Players
from palate.align.prompts import Asked
from palate.align.rollout import sampling
from palate.batches.replies import lay_out
from palate.device import Device, seeds
from palate.generate.engine import generate
from palate.generate.replies import reply_logp
from palate.metrics import Metrics
from palate.recipe import Aligning, Online
from palate.text.tokenizer import Tokenizer
from palate.train.distributed import gathered, total


@dataclass(frozen=True)
class Watch:
    """Calling it with a round keeps the policy's answers to the watched prompts in `views`."""

    players: Players
    asked: Asked
    settings: Aligning
    tokenizer: Tokenizer
    device: Device
    views: Metrics
    seed: int

    def __call__(self, round_: int) -> dict[str, float]:
        """Means over the watched prompts of "kl" (nats a reply), "reply_tokens" and "eos_rate". All of several
        processes must call it; the leader looks."""
        figures = dict.fromkeys(("kl", "reply_tokens", "eos_rate"), 0.0)
        with gathered(self.players.policy):
            if ranks.leads():
                figures = self._look(round_)
        return dict(zip(figures, total(*figures.values()), strict=True))

    @torch.no_grad()
    def _look(self, round_: int) -> dict[str, float]:
        policy, ids = self.players.policy, self.asked.watched_ids
        answers = generate(
            policy,
            ids,
            sampling(self.settings, self.tokenizer.stops),
            seeds=seeds(len(ids), self.seed, "watched"),  # the same numbers every time, so that changes are paired
            device=self.device,
        )
        replies = [reply for (reply,) in answers]
        laid = lay_out(ids, [reply.ids for reply in replies], pad=self.tokenizer.pad).to(self.device.torch)
        logp, ref_logp = (
            reply_logp(model, laid, temperature=self.settings.temperature).sum(dim=1)
            for model in (policy, self.players.reference)
        )
        told: list[dict[str, Any]] = [
            {"prompt_id": prompt.id, "text": self.tokenizer.decode(reply.ids).strip(), "token_ids": reply.ids, "kl": kl}
            for prompt, reply, kl in zip(self.asked.watched, replies, (logp - ref_logp).tolist(), strict=True)
        ]
        if self.players.informed:
            score = self.players.score(laid)
            if self.players.scorers is not None:
                score = score + self.players.scorers(laid)
            for line, value in zip(told, score.tolist(), strict=True):
                line["score"] = value
        for line in told:
            self.views.log(round_, **line)
        shown, unit = min(3, len(replies) - 1), "round" if isinstance(self.settings, Online) else "step"
        metrics.say(
            f"      {unit} {round_}: {self.asked.watched[shown].messages[-1].content} -> "
            f"{self.tokenizer.decode(replies[shown].ids).strip()}"
        )
        return {
            "kl": sum(line["kl"] for line in told) / len(told),
            "reply_tokens": sum(len(reply.ids) for reply in replies) / len(replies),
            "eos_rate": sum(reply.ended for reply in replies) / len(replies),
        }
