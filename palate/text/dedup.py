"""Duplicates: exact by a hash of the normalised text, near by MinHash and locality-sensitive hashing, then verified.

MinHash: Broder 1997. Banding and the pipeline: Lee et al. 2022 (arXiv:2107.06499), FineWeb (Penedo et al. 2024), both
over word 5-grams. Unlike theirs a candidate is verified: only documents whose 5-gram sets really have the wanted
Jaccard similarity count, so the bands can be generous and the verdict does not depend on their luck. Unlike FineWeb's
normalisation digits are kept: "bake for 20 minutes" and "bake for 40 minutes" say different things.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WORDS = 5
PERMUTATIONS = 128
FOUND = 0.9999  # probability with which a pair at the threshold becomes a candidate
SKETCH = 1_024
"""Hashes kept of each document (the smallest ones). Up to that many distinct 5-grams the Jaccard similarity is exact,
beyond it is estimated from this bottom-k sketch with a standard error below 0.016; memory stays below 8 kB each."""
CHUNK = 8_192  # 5-grams hashed at once: 8 MB at 128 permutations

_NOT_WORD = re.compile(r"[\W_]+")
_MAYBE_MARKS = re.compile("[^\x00-\u02ff]+")  # the first combining character is U+0300


def normalised(text: str) -> str:
    """Lower case, no accents or punctuation, single spaces: what two copies of a text still share."""
    if not text.isascii():
        text = _MAYBE_MARKS.sub(_without_marks, unicodedata.normalize("NFD", text))
    return _NOT_WORD.sub(" ", text.lower()).strip()


def _without_marks(found: re.Match[str]) -> str:
    return "".join(c for c in found[0] if not unicodedata.combining(c))


def grams(text: str) -> Hashes:
    """Sorted distinct 64-bit hashes of the word 5-grams of the normalised text; a shorter text is one gram."""
    words = normalised(text).split()
    ids = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64, count=len(words))
    size = min(WORDS, len(ids))
    mixed = np.zeros(max(len(ids) - size + 1, 1), dtype=np.uint64)
    for i in range(size):
        mixed = _mix(mixed ^ ids[i : len(ids) - size + 1 + i])
    return np.unique(mixed)


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit reaches every output bit."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)) & np.uint64(0xFFFFFFFFFFFFFFFF)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Jaccard similarity of two gram sets, or its bottom-k estimate when a set was cut to its sketch."""
    union = np.union1d(a, b)
    if len(a) >= SKETCH or len(b) >= SKETCH:
        union = union[:SKETCH]
    shared = np.intersect1d(a, b, assume_unique=True)
    return float(np.count_nonzero(shared <= union[-1])) / len(union)


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the word 5-grams of two texts.

    >>> similarity("a b c d e f", "a b c d e f")
    1.0
    """
    return jaccard(grams(one)[:SKETCH], grams(other)[:SKETCH])


def bands(threshold: float) -> tuple[int, int]:
    """(bands, rows): the most selective banding that finds a pair at `threshold` with probability FOUND.

    >>> bands(0.8)
    (25, 5)
    """
    for rows in range(16, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= FOUND:
            return count, rows
    return PERMUTATIONS, 1


class Exact:
    """Finds documents whose normalised text was seen before."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str] = {}

    def of(self, key: str, text: str) -> str | None:
        """The key of the first document with this text; None, and it is remembered, when there is none."""
        digest = hashlib.blake2b(normalised(text).encode(), digest_size=16).digest()
        first = self._seen.get(digest)
        if first is None:
            self._seen[digest] = key
        return first


@dataclass
class Near:
    """Finds documents that are nearly one that was kept before. The same order gives the same verdicts."""

    threshold: float
    _keys: list[str] = field(default_factory=list)
    _sketches: list[Hashes] = field(default_factory=list)
    _buckets: dict[Hashable, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bands, self._rows = bands(self.threshold)
        generator = np.random.Generator(np.random.PCG64(1))  # any fixed seed: the hash functions must not change
        self._salts = generator.integers(0, 2**63, size=PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._fold = generator.integers(0, 2**63, size=(self._bands, self._rows), dtype=np.uint64) * np.uint64(2)
        self._fold += np.uint64(1)

    def of(self, key: str, text: str) -> tuple[str, float] | None:
        """(key, similarity) of the most similar kept document at or above the threshold; else None and it is kept."""
        hashes = grams(text)
        places = self._places(hashes)
        sketch: Any = hashes[:SKETCH].copy()
        candidates = sorted({i for place in places for i in self._buckets.get(place, ())})
        best: tuple[str, float] | None = None
        for i in candidates:
            likeness = jaccard(sketch, self._sketches[i])
            if likeness >= self.threshold and (best is None or likeness > best[1]):
                best = self._keys[i], likeness
        if best is None:
            for place in places:
                self._buckets.setdefault(place, []).append(len(self._keys))
            self._keys.append(key)
            self._sketches.append(sketch)
        return best

    def _places(self, hashes: Hashes) -> list[int]:
        """One bucket per band. Multiply-shift hashing (Dietzfelbinger et al. 1997) stands in for permutations."""
        least = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(hashes), CHUNK):
            products = hashes[start : start + CHUNK, None] * self._salts
            least = np.minimum(least, (products ^ (products >> np.uint64(32))).min(axis=0))
        rows = least[: self._bands * self._rows].reshape(self._bands, self._rows)
        folded = _mix((rows * self._fold).sum(axis=1, dtype=np.uint64) + np.arange(self._bands, dtype=np.uint64))
        places: list[int] = folded.tolist()
        return places
