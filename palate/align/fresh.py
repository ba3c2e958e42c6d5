"""What people say of the answers that the reward model likes most, while a policy trains: the only news there is.

At every look some answers with the highest scores go into the feedback store, each beside the assistant's answer to the
same prompt; people order the two blind (`palate rank RUN --fresh`). What they said until the next look is held against
the scores: a reward model that is being exploited is wrong there first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palate.align.alarms import Alarm
from palate.align.watch import Best
from palate.feedback.store import Store, open_store
from palate.measure.intervals import Interval, bootstrap
from palate.records import Judgement, Response, stable_id

LEAST = 10
"""Judged prompts from which disagreement is an alarm."""


@dataclass(frozen=True)
class Fresh:
    """A queue in the store at `url`; `campaign` names it."""

    url: str
    campaign: str
    per_look: int

    def look(self, round_: int, answers: Sequence[Best]) -> list[Alarm]:
        """Queue the best of `answers`, and compare what people said so far with the scores."""
        with open_store(self.url) as store:
            asked = {prompt.id for prompt in store.prompts(self.campaign)}
            new = [a for a in answers if a[0].id not in asked and a[1] != a[3]]
            new.sort(key=lambda a: (-a[2], a[0].id))
            self._queue(store, round_, new[: self.per_look])
            told = agreement(store.judgements(self.campaign), store.responses(self.campaign))
        if told is None or told.n < LEAST or told.high >= 0.5:
            return []
        text = (
            f"people order fresh answers as the reward model does in {told.mean:.2f} [{told.low:.2f}, {told.high:.2f}] "
            f"of {told.n} cases: it is wrong where the policy goes"
        )
        return [Alarm("people", text, ends=True)]

    def _queue(self, store: Store, round_: int, chosen: Sequence[Best]) -> None:
        store.add_prompts([prompt for prompt, *_ in chosen], self.campaign)
        store.add_responses(
            [
                Response(
                    id=stable_id("fresh", self.campaign, prompt.id, model),
                    prompt_id=prompt.id,
                    text=text,
                    model=model,
                    extra={"score": round(score, 4), "round": round_},
                )
                for prompt, now, now_score, before, before_score in chosen
                for model, text, score in (("policy", now, now_score), ("sft", before, before_score))
            ],
            self.campaign,
        )


def agreement(judgements: Sequence[Judgement], responses: Sequence[Response]) -> Interval | None:
    """How often people put first what has the higher score; a tie counts half. One mean per prompt."""
    score = {response.id: float(response.extra["score"]) for response in responses}
    per_prompt: dict[str, list[float]] = {}
    for judgement in judgements:
        for a, b, target in judgement.pairs():
            if score[a] != score[b]:
                per_prompt.setdefault(judgement.prompt_id, []).append(target if score[a] > score[b] else 1 - target)
    return bootstrap([sum(v) / len(v) for v in per_prompt.values()]) if per_prompt else None


def preferred(judgements: Sequence[Judgement], responses: Sequence[Response]) -> Interval | None:
    """How often people prefer the policy's answer to the assistant's; a tie counts half."""
    policy = {response.id for response in responses if response.model == "policy"}
    per_prompt: dict[str, list[float]] = {}
    for judgement in judgements:
        for a, _, target in judgement.pairs():
            per_prompt.setdefault(judgement.prompt_id, []).append(target if a in policy else 1 - target)
    return bootstrap([sum(v) / len(v) for v in per_prompt.values()]) if per_prompt else None
