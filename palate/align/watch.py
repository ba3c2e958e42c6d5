"""A look at the policy's answers on its way, kept for the report and shown to the person who waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palate import metrics, ranks
from palate.align.alarms import NEAR, Alarm, alarms, repetition
from palate.align.players import Players
from palate.align.prompts import Asked
from palate.align.rollout import in_pieces_alone, rows_at_once, sampling
from palate.batches.replies import Replies, lay_out
from palate.device import Device, seeds
from palate.generate.engine import generate
from palate.generate.replies import reply_logp, reply_logp_and_entropy
from palate.metrics import Metrics
from palate.nn.transformer import LanguageModel
from palate.recipe import Aligning, Online
from palate.records import Prompt
from palate.text.tokenizer import Tokenizer
from palate.train.distributed import gathered, total

Best = tuple[Prompt, str, float, str, float]
"""A prompt, the policy's answer and its score, the assistant's answer and its score."""


@dataclass(frozen=True)
class Watch:
    """Calling it with a round keeps the answers to the watched prompts in `views`, and says what looks wrong."""

    players: Players
    asked: Asked
    settings: Aligning
    tokenizer: Tokenizer
    device: Device
    views: Metrics
    alarms: Metrics
    seed: int
    fresh: Callable[[int, Sequence[Best]], list[Alarm]] | None = None
    """Hands the best answers to people, and tells what they said of earlier ones (`palate/align/fresh.py`)."""
    first: dict[str, float] = field(default_factory=dict)
    """What the first look saw, which was at the assistant. A killed stage reads it from `views`."""

    def __call__(self, round_: int) -> dict[str, float]:
        """Figures of the watched answers, means: "kl" (nats a reply), "reply_tokens", "eos_rate", "repetition",
        "entropy" (nats a token), and where there is a reward model "beyond" and "reach"; how many "alarms" there are
        that end a training, and how many are "near". All of several processes must call it; the leader looks."""
        names = ["kl", "reply_tokens", "eos_rate", "repetition", "entropy", "alarms", "near"]
        names += ["beyond", "reach"] if self.players.reward is not None else []
        seen = dict.fromkeys(names, 0.0)
        with gathered(self.players.policy):
            if ranks.leads():
                seen |= self._look(round_)
        return dict(zip(seen, total(*seen.values()), strict=True))

    @torch.no_grad()
    def _look(self, round_: int) -> dict[str, float]:
        policy, ids, temperature = self.players.policy, self.asked.watched_ids, self.settings.temperature
        answers = generate(
            policy,
            ids,
            sampling(self.settings, self.tokenizer.stops),
            seeds=seeds(len(ids), self.seed, "watched"),  # the same numbers every time, so that changes are paired
            device=self.device,
        )
        replies = [reply for (reply,) in answers]
        laid = lay_out(ids, [reply.ids for reply in replies], pad=self.tokenizer.pad).to(self.device.torch)
        rows = rows_at_once(policy, replies=laid, most=self.settings.micro_rows, device=self.device)

        def read(of: Callable[[Replies], Tensor]) -> Tensor:
            """(batch) of all watched answers, a few at a time."""
            return in_pieces_alone(laid, rows, of, laid.mask[:, 0], range(len(laid)))

        def summed(model: LanguageModel) -> Tensor:
            return read(lambda part: reply_logp(model, part, temperature=temperature).sum(dim=1))

        entropy = read(lambda part: reply_logp_and_entropy(policy, part, temperature=temperature)[1].sum(dim=1))
        columns: dict[str, list[Any]] = {
            "prompt_id": [prompt.id for prompt in self.asked.watched],
            "text": [self.tokenizer.decode(reply.ids).strip() for reply in replies],
            "token_ids": [reply.ids for reply in replies],
            "ended": [reply.ended for reply in replies],
            "kl": (summed(policy) - summed(self.players.reference)).tolist(),
            "entropy": entropy.tolist(),
        }
        if self.players.reward is not None:
            given = read(self.players.reward)
            columns["beyond"] = (given > self.players.highest).tolist()
            columns["reach"] = ((given - self.players.mean) / (self.players.std or 1.0)).tolist()
        if self.players.informed:
            score = read(self.players.score)
            if self.players.scorers is not None:
                score = score + self.players.scorers(laid)
            columns["score"] = score.tolist()
        lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for line in lines:
            self.views.log(round_, **line)
        self._show(round_, columns["text"])
        found = self._people(round_, lines) if self.fresh is not None and round_ > 0 else []
        return self._judge(round_, figures(lines), found)

    def _show(self, round_: int, texts: Sequence[str]) -> None:
        shown, unit = min(3, len(texts) - 1), "round" if isinstance(self.settings, Online) else "step"
        metrics.say(f"      {unit} {round_}: {self.asked.watched[shown].messages[-1].content} -> {texts[shown]}")

    def _people(self, round_: int, lines: Sequence[dict[str, Any]]) -> list[Alarm]:
        """Ask people about the answers that score highest, and hear what they said of earlier ones."""
        assert self.fresh is not None
        before = {line["prompt_id"]: line for line in metrics.read(self.views.path) if line["step"] == 0}
        answers = [
            (prompt, line["text"], line["score"], before[prompt.id]["text"], before[prompt.id]["score"])
            for prompt, line in zip(self.asked.watched, lines, strict=True)
        ]
        return self.fresh(round_, answers)

    def _judge(self, round_: int, now: dict[str, float], found: Sequence[Alarm]) -> dict[str, float]:
        if not self.first:
            self.first.update(
                now if round_ == 0 else figures([v for v in metrics.read(self.views.path) if not v["step"]])
            )
        found = [*found, *alarms(now, self.first)]
        said = {line["name"] for line in metrics.read(self.alarms.path)}
        for alarm in found:
            if alarm.name not in said:
                metrics.say(f"      ALARM: {alarm.text}")
            self.alarms.log(round_, name=alarm.name, text=alarm.text, ends=alarm.ends)
        now["alarms"] = float(sum(alarm.ends for alarm in found))
        now["near"] = float(sum(alarm.ends for alarm in alarms(now, self.first, share=NEAR)))
        return now


def figures(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over what was kept of one look."""
    tokens = sum(len(line["token_ids"]) for line in lines)
    found = {
        "kl": sum(line["kl"] for line in lines) / len(lines),
        "reply_tokens": tokens / len(lines),
        "eos_rate": sum(line["ended"] for line in lines) / len(lines),
        "repetition": sum(repetition(line["token_ids"]) for line in lines) / len(lines),
        "entropy": sum(line["entropy"] for line in lines) / max(tokens, 1),
    }
    for name in ("beyond", "reach"):
        if name in lines[0]:
            found[name] = sum(line[name] for line in lines) / len(lines)
    return found
