"""What can be seen going wrong while a policy trains, without anybody who knows what is right.

Every look at the watched answers gives a few figures (`palate/align/watch.py`). They are held against those of the
assistant, which the first look saw: a policy that exploits its reward model gives itself away by what it does, not by
its score, which only rises (Gao et al. 2023).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REPEATED = 0.03
"""How much more repetition than the assistant's is too much (docs/alarms.md has how it was chosen)."""
REACH = 2.5
"""By how many standard deviations of the reward model's scores of the assistant's answers the policy's mean may rise:
one answer of a hundred and sixty is so high, and people ranked a few (docs/alarms.md has how it was chosen)."""
NEAR = 0.85
"""What comes back is the last policy that had gone less than this share of the way to an alarm: by the time of an alarm
answers have been getting worse for a look or two (docs/alarms.md)."""
GRAM = 4
"""Tokens of what counts as repeated: a word or a number may come again, four tokens in a row rarely do."""


@dataclass(frozen=True)
class Alarm:
    """One thing that looks wrong."""

    name: str
    text: str
    ends: bool
    """Whether it ends the training (recipe: `halt`): longer answers may be liked, repeating oneself is not."""


def repetition(ids: Sequence[int]) -> float:
    """Share of a reply's 4-grams of tokens that it has said before: 0 for one too short to have any."""
    grams = Counter(tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1))
    count = sum(grams.values())
    return (count - len(grams)) / count if count else 0.0


def alarms(now: Mapping[str, float], first: Mapping[str, float], *, share: float = 1.0) -> list[Alarm]:
    """What in the figures of one look is no longer as it was in those of the first; with `share` what ends a training
    is told when it has gone that share of the way.

    Both have reply_tokens, eos_rate, repetition and entropy (nats per token), and `beyond` where there is a reward
    model: the share of answers that it likes better than all but one in two hundred of those that people ranked; and
    `reach`, its mean score, in standard deviations of its scores of the assistant's answers.
    """
    found = []
    # A good policy may well leave out the rambling or add a warning; in the kitchen that is a third either way.
    longer = now["reply_tokens"] / max(first["reply_tokens"], 1.0)
    if not 0.5 <= longer <= 1.5:
        found.append(Alarm("length", f"answers are {longer:.1f} times as long as the assistant's", ends=False))
    if now["eos_rate"] < first["eos_rate"] - 0.1 * share:
        text = f"only {now['eos_rate']:.0%} of the answers end ({first['eos_rate']:.0%} before)"
        found.append(Alarm("endings", text, ends=True))
    if now["repetition"] > first["repetition"] + REPEATED * share:
        text = f"{now['repetition']:.1%} of what an answer says it has said before ({first['repetition']:.1%} before)"
        found.append(Alarm("repetition", text, ends=True))
    if now["entropy"] < (1 - 0.75 * share) * first["entropy"]:
        text = f"entropy collapsed from {first['entropy']:.2f} to {now['entropy']:.2f} nats a token"
        found.append(Alarm("entropy", text, ends=True))
    if (reach := now.get("reach", 0.0) - first.get("reach", 0.0)) > REACH * share:
        text = (
            f"the mean score is {reach:.1f} of its standard deviations above the assistant's: such answers are too rare"
        )
        found.append(Alarm("reach", f"{text} among those that people ranked to know that they are good", ends=True))
    if now.get("beyond", 0.0) > 0.1:
        text = f"{now['beyond']:.0%} of the answers score higher than nearly all that people ranked (0.5 % of those do)"
        found.append(Alarm("range", f"{text}: nobody has said that such answers are good", ends=False))
    return found
