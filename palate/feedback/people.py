"""People and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("lead", "author", "evaluator")


@dataclass(frozen=True)
class Person:
    """Somebody who is logged in. `name` is the pseudonym in every record."""

    name: str
    roles: frozenset[str]

    def may(self, role: str) -> bool:
        """Whether this person has a role; a lead has all."""
        return role in self.roles or "lead" in self.roles
