"""Exact and near duplicates against a brute-force Jaccard similarity."""

from __future__ import annotations

import random

import numpy as np
import pytest

from palate.text import dedup


def _jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


def _text(rng: random.Random, count: int) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def test_similarity_is_exact_for_short_texts_and_close_for_long_ones() -> None:
    rng = random.Random(1)
    for count in (30, 200, 6000):
        words = _text(rng, count)
        other = words[: count * 4 // 5] + _text(rng, count // 5)
        exact = _jaccard(" ".join(words), " ".join(other))
        assert dedup.similarity(" ".join(words), " ".join(other)) == pytest.approx(
            exact, abs=1e-12 if count < 600 else 0.06
        )


def test_exact_duplicates_ignore_case_accents_and_punctuation() -> None:
    exact = dedup.Exact()
    assert exact.of("a", "Crème brûlée, please!") is None
    assert exact.of("b", "creme  brulee please") == "a"
    assert exact.of("a", "creme brulee please") == "a"
    assert exact.of("c", "bake for 20 minutes") is None
    assert exact.of("d", "bake for 40 minutes") is None


def test_near_finds_every_pair_at_the_threshold_and_no_other() -> None:
    rng = random.Random(2)
    near = dedup.Near(0.8)
    originals = [_text(rng, 80) for _ in range(150)]
    for n, words in enumerate(originals):
        assert near.of(str(n), " ".join(words)) is None
    for n, words in enumerate(originals):
        added = rng.randrange(1, 50)
        copy = words + _text(rng, added)
        exact = _jaccard(" ".join(words), " ".join(copy))
        found = near.of(f"copy {n}", " ".join(copy))
        if exact >= 0.8:
            assert found is not None
            assert found[0] == str(n)
            assert found[1] == pytest.approx(exact)
        else:
            assert found is None


def test_the_same_order_gives_the_same_verdicts_and_short_texts_do_not_break() -> None:
    texts = ["", "one", "one", "one two three four", "one two three four five six", "one two three four five six"]
    runs = []
    for _ in range(2):
        near = dedup.Near(0.5)
        runs.append([near.of(str(n), text) for n, text in enumerate(texts)])
    assert runs[0] == runs[1]
    assert [found is not None for found in runs[0]] == [False, False, True, False, False, True]


def test_sketches_are_bounded() -> None:
    near = dedup.Near(0.8)
    near.of("long", " ".join(_text(random.Random(3), 20_000)))
    assert len(near._sketches[0]) == dedup.SKETCH
    assert near._sketches[0].dtype == np.uint64
