"""Bits per byte on held-out text: a measure that does not depend on the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from palate.batches.shards import Shard
from palate.device import Device
from palate.nn.transformer import LanguageModel
from palate.objectives.next_token import next_token_loss

_BYTE = np.uint64(8)


@torch.no_grad()
def bits_per_byte(
    model: LanguageModel, shard: Shard, device: Device, *, width: int, most_rows: int | None = None
) -> float:
    """Cross-entropy of the held-out documents in bits, per byte of their text.

    Documents are cut into rows of `width`, each token predicted once; predicting the end marker counts as text cost.
    With `most_rows` only the first rows are read and the bytes are scaled to their share of the tokens.
    """
    model.eval()
    rows = shard.rows_per_epoch(width)
    used = min(rows, most_rows or rows)
    nats, tokens = 0.0, 0.0
    for start in range(0, used, 64):
        batch = shard.rows(list(range(start, min(start + 64, used))), width=width, seed="held out").to(device.torch)
        loss, weight = next_token_loss(model(batch.ids, batch.segments), batch.targets, batch.weights)
        nats += loss.item()
        tokens += weight.item()
    model.train()
    # Bytes that belong to the predicted tokens: markers aside, every token of the shard has its share.
    predicted = shard.size - len(shard.lengths)
    return nats / math.log(2) / (shard.text_bytes * tokens / predicted)


class ByteNgram:
    """A byte n-gram model with interpolated Witten-Bell smoothing (Chen & Goodman 1998, section 2.6): the baseline
    that a network has to beat to be worth its electricity. `order` is 1 to 8: an n-gram is one 64-bit number."""

    def __init__(self, order: int, texts: Iterable[str]) -> None:
        self.tables: list[_Table] = []
        data, place = _joined(texts)
        for n in range(order):
            grams, counts = np.unique(_grams(data, n)[place >= n], return_counts=True)
            contexts, first = np.unique(grams >> _BYTE, return_index=True)
            kinds = np.diff(first, append=len(grams))
            self.tables.append(_Table(grams, counts, contexts, np.add.reduceat(counts, first), kinds))

    def bits_per_byte(self, texts: Iterable[str]) -> float:
        """-1/N sum log2 p(byte | up to order - 1 bytes before it)."""
        data, place = _joined(texts)
        probability = np.full(len(data), 1 / 256)
        known = np.arange(len(data))  # where the context of n bytes was seen, so that one byte more can help
        for n, table in enumerate(self.tables):
            known = known[place[known] >= n]
            grams = _grams(data, n)[known]
            seen, of = _found(table.contexts, grams >> _BYTE)
            known, grams, of = known[seen], grams[seen], of[seen]
            hit, at = _found(table.grams, grams)
            count = np.where(hit, table.counts[at], 0)
            total, kinds = table.totals[of], table.kinds[of]
            probability[known] = (count + kinds * probability[known]) / (total + kinds)
        return float(-np.log2(probability).sum() / max(len(data), 1))


@dataclass(frozen=True)
class _Table:
    """The n-grams of one length, sorted, and the contexts (all but the last byte) they begin with."""

    grams: NDArray[np.uint64]
    counts: NDArray[np.int64]
    contexts: NDArray[np.uint64]
    totals: NDArray[np.int64]
    kinds: NDArray[np.int64]


def _joined(texts: Iterable[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of all texts, and how many bytes of its own text stand before each."""
    parts = [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts if text]
    if not parts:
        raise ValueError("no text to count")
    return np.concatenate(parts), np.concatenate([np.arange(len(part)) for part in parts])


def _grams(data: NDArray[np.uint8], n: int) -> NDArray[np.uint64]:
    """For every byte the number whose bytes are the n before it and itself."""
    grams = data.astype(np.uint64)
    for k in range(1, n + 1):
        grams[k:] |= data[:-k].astype(np.uint64) << np.uint64(8 * k)
    return grams


def _found(table: NDArray[np.uint64], values: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which values are in a sorted table, and where."""
    at = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return table[at] == values, at
