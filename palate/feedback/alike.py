"""Which demonstrations say nearly the same, found while somebody types.

Two texts are compared by the Jaccard similarity of their sets of neighbouring word pairs: one word changed in a
question of eight leaves 0.6. Of each text the smallest hashes are kept (bottom-k sketch, Broder 1997); they say which
few are worth comparing whole.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.feedback.demonstrations import REJECTED, WITHDRAWN, Shelf, Standing
from palate.records import Conversation, Role

Hashes = NDArray[np.uint32]

NEAR = 0.5
"""Similarity from which two are shown side by side."""
SKETCH = 64
MOST = 3
COMPARED = 40
"""How many are compared whole."""
_WORD = re.compile(r"\w+")
_NONE = np.uint32(0xFFFFFFFF)  # fills up the sketch of a short text


def words(text: str) -> list[str]:
    """The words of a text, whatever their case, their marks and what stands between them."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def same_words(messages: Conversation) -> bytes:
    """What two conversations share when they are the same word for word."""
    told = "\x1f".join(f"{m.role} {' '.join(words(m.content))}" for m in messages)
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


def pairs(texts: Sequence[str]) -> Hashes:
    """Sorted distinct hashes of the neighbouring words of texts, their beginnings and ends included."""
    found = set()
    for text in texts:
        said = words(text)
        if said:
            turn = ["", *said, ""]
            found |= {zlib.crc32(f"{one} {other}".encode()) for one, other in itertools.pairwise(turn)}
    found.discard(int(_NONE))
    return np.array(sorted(found), dtype=np.uint32)


def likeness(one: Hashes, other: Hashes) -> float:
    """Jaccard similarity; 0 where both are empty.

    >>> likeness(pairs(["a quick dinner"]), pairs(["A quick dinner?"]))
    1.0
    """
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(len(one) + len(other) - shared, 1)


@dataclass(frozen=True)
class Similar:
    """A demonstration that is like another one."""

    id: str
    asked: float
    """Similarity of what the two ask, 0 to 1."""
    answered: float
    """Of what they answer."""

    @property
    def most(self) -> float:
        """The larger of the two."""
        return max(self.asked, self.answered)


class Alike:
    """Of one campaign; what came since is read when somebody asks. Safe to use from several threads."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._lock = threading.Lock()
        self._ids: list[str] = []
        self._row: dict[str, int] = {}
        self._same: dict[bytes, list[int]] = {}
        self._whole: dict[Role, list[Hashes]] = {"user": [], "assistant": []}
        self._sketch: dict[Role, NDArray[np.uint32]] = {
            role: np.full((0, SKETCH), _NONE, dtype=np.uint32) for role in self._whole
        }

    def read(self) -> None:
        """Read what there is, which takes seconds the first time where there are thousands."""
        with self._lock:
            self._catch_up()

    def same(self, messages: Conversation, *, besides: str | None = None) -> str | None:
        """The id of a demonstration with the same words; of rejected ones, too. besides: one that is to be replaced."""
        with self._lock:
            standing = self._catch_up()
            ids = (self._ids[row] for row in self._same.get(same_words(messages), ()))
            there = (id_ for id_ in ids if id_ in standing and standing[id_].status != WITHDRAWN)
            return next((id_ for id_ in there if id_ != besides), None)

    def near(self, messages: Conversation, *, besides: str | None = None) -> list[Similar]:
        """Those that ask or answer nearly the same, the most similar first."""
        with self._lock:
            standing = self._catch_up()
            said: dict[Role, Hashes] = {
                role: pairs([m.content for m in messages if m.role == role]) for role in self._whole
            }
            rows = sorted({row for role in self._whole for row in self._candidates(role, said[role])})
            found = [
                Similar(
                    self._ids[row],
                    likeness(said["user"], self._whole["user"][row]),
                    likeness(said["assistant"], self._whole["assistant"][row]),
                )
                for row in rows
                if self._ids[row] in standing and self._ids[row] != besides
            ]
        near = [one for one in found if one.most >= NEAR and standing[one.id].status not in (REJECTED, WITHDRAWN)]
        return sorted(near, key=lambda one: -one.most)[:MOST]

    def _candidates(self, role: Role, said: Hashes) -> list[int]:
        """The rows whose sketches share most with that of `said`."""
        if not len(said) or not self._ids:
            return []
        wanted = np.append(said[:SKETCH], _NONE)
        sketch = self._sketch[role][: len(self._ids)]
        shared = ((wanted[np.searchsorted(wanted[:-1], sketch)] == sketch) & (sketch != _NONE)).sum(axis=1)
        best = np.argsort(-shared, kind="stable")[:COMPARED]
        return [int(row) for row in best if shared[row]]

    def _catch_up(self) -> Mapping[str, Standing]:
        """Read what is new; what stands is returned."""
        standing = self.shelf.standing()
        fresh = [id_ for id_ in standing if id_ not in self._row]
        for id_, record in self.shelf.records(fresh).items():
            self._add(id_, record.messages)
        return standing

    def _add(self, id_: str, messages: Conversation) -> None:
        row = self._row[id_] = len(self._ids)
        self._ids.append(id_)
        self._same.setdefault(same_words(messages), []).append(row)
        for role, whole in self._whole.items():
            hashes = pairs([m.content for m in messages if m.role == role])
            whole.append(hashes)
            if row >= len(self._sketch[role]):
                more = np.full((max(256, row), SKETCH), _NONE, dtype=np.uint32)
                self._sketch[role] = np.concatenate([self._sketch[role], more])
            self._sketch[role][row, : min(SKETCH, len(hashes))] = hashes[:SKETCH]
