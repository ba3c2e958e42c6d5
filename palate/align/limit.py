"""How far a policy may go from the assistant: the KL budget, and the policy to come back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from palate.train.update import Learner


@dataclass
class Limit:
    """Nats per reply (`budget`; None is no limit), and the last policy that was measured within it."""

    policy: Learner
    budget: float | None
    kept: dict[str, Any] = field(default_factory=dict)
    """What a killed stage needs to go on: `resume.save` keeps it."""

    def passed(self, kl: float) -> str | None:
        """Why to stop, when the KL left the budget; the policy is then again the last one that was within it."""
        if self.budget is None or kl <= self.budget or not self.kept:
            return None
        self.policy.set_weights(self.kept["policy"])
        return f"KL {kl:.2f} over the budget {self.budget}"

    def keep(self, done: int) -> None:
        """The policy as it is now, after so many rounds or steps, is within the budget."""
        if self.budget is not None:
            weights = {name: value.clone() for name, value in self.policy.weights().items()}
            self.kept = {"policy": weights, "done": done}

    @property
    def done(self) -> int:
        """Rounds or steps of the policy that came back."""
        return int(self.kept["done"])
