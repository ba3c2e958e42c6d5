"""How far a policy may go from the assistant: the KL budget, the alarms that end it, and the policy to come back to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palate.train.update import Learner


@dataclass
class Limit:
    """Nats per reply (`budget`; None is no limit), whether an alarm ends the training (`halt`), and two policies to
    come back to: the last one that was measured within the budget, and the last one whose answers were not near an
    alarm."""

    policy: Learner
    budget: float | None
    halt: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    """What a killed stage needs to go on: `resume.save` keeps it."""
    done: int = 0
    """Rounds or steps of the policy that came back."""

    def passed(self, kl: float) -> str | None:
        """Why to stop, when the KL left the budget; the policy is then again the last one that was within it."""
        if self.budget is None or kl <= self.budget or "within" not in self.kept:
            return None
        self._back("within")
        return f"KL {kl:.2f} over the budget {self.budget}"

    def keep(self, done: int) -> None:
        """The policy as it is now, after so many rounds or steps, is within the budget."""
        if self.budget is not None:
            self.kept["within"] = self._now(done)

    def looked(self, seen: Mapping[str, float], done: int) -> str | None:
        """After a look (`Watch`): why to stop, when it gave an alarm or the KL left the budget. Otherwise the policy as
        it is now is one to come back to, if no alarm is near."""
        if self.halt and seen["alarms"] and "good" in self.kept:
            self._back("good")
            return "an alarm (alarms.jsonl)"
        if stopped := self.passed(seen["kl"]):
            return stopped
        if self.halt and not seen["near"]:
            self.kept["good"] = self._now(done)
        return None

    def _now(self, done: int) -> dict[str, Any]:
        # In the computer's memory, of which there is more than a GPU's. What another process holds has a shape alone.
        weights = {
            name: value.clone() if value.is_meta else value.to("cpu", copy=True)
            for name, value in self.policy.weights().items()
        }
        return {"weights": weights, "done": done}

    def _back(self, which: str) -> None:
        self.policy.set_weights(self.kept[which]["weights"])
        self.done = int(self.kept[which]["done"])
