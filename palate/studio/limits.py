"""How often somebody may do something: a window that slides, kept in memory."""

from __future__ import annotations

import ipaddress
import threading
from collections import deque
from dataclasses import dataclass, field

MOST_KEYS = 20_000
"""Whom it remembers; beyond that those are forgotten whose window is over."""


class Limit:
    """`most` times within `seconds`, for each key by itself."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str, now: float) -> float:
        """Count one more for this key and return 0; or, where it was too often, the seconds until it may be again."""
        with self._lock:
            if key not in self._times and len(self._times) >= MOST_KEYS:
                self._tidy(now)
            times = self._times.setdefault(key, deque())
            while times and times[0] <= now - self.seconds:
                times.popleft()
            if len(times) >= self.most:
                return times[0] + self.seconds - now
            times.append(now)
            return 0.0

    def give_back(self, key: str) -> None:
        """What was taken last does not count."""
        with self._lock:
            if times := self._times.get(key):
                times.pop()

    def _tidy(self, now: float) -> None:
        over = [key for key, times in self._times.items() if not times or times[-1] <= now - self.seconds]
        for key in over or list(self._times)[: MOST_KEYS // 2]:
            del self._times[key]


@dataclass(frozen=True)
class Limits:
    """Those of one studio. Only wrong passwords count: a right one gives back what it took."""

    passwords_here: Limit = field(default_factory=lambda: Limit(10, 900.0))
    """For one account from one address."""
    passwords: Limit = field(default_factory=lambda: Limit(50, 900.0))
    """For one account from anywhere. Higher, so that a stranger elsewhere does not shut its owner out at once."""
    address: Limit = field(default_factory=lambda: Limit(50, 900.0))
    """From one address for any account: a whole office may come from one."""
    generate: Limit = field(default_factory=lambda: Limit(60, 60.0))
    """Answers one person has models write."""
    judge: Limit = field(default_factory=lambda: Limit(600, 60.0))
    """Judgements of one person. Nobody reads as fast; a program that brings many waits in between."""


def network(address: str) -> str:
    """What one household or office has in common: an address of IPv4, the first half of one of IPv6."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
