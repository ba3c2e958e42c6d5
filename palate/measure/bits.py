"""Bits per byte on held-out text: a measure that does not depend on the tokenizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch

from palate.batches.shards import Shard
from palate.device import Device
from palate.nn.transformer import LanguageModel
from palate.objectives.next_token import next_token_loss


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
        with device.products():
            logits = model(batch.ids, batch.segments)
        loss, weight = next_token_loss(logits, batch.targets, batch.weights)
        nats += loss.item()
        tokens += weight.item()
    model.train()
    # Bytes that belong to the predicted tokens: markers aside, every token of the shard has its share.
    predicted = len(shard.tokens) - len(shard.lengths)
    return nats / math.log(2) / (shard.text_bytes * tokens / predicted)


class ByteNgram:
    """A byte n-gram model with interpolated Witten-Bell smoothing (Chen & Goodman 1998, section 2.6): the baseline
    that a network has to beat to be worth its electricity."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.counts: list[dict[bytes, Counter[int]]] = [{} for _ in range(order)]

    def read(self, texts: Iterable[str]) -> None:
        """Count the n-grams of `texts`."""
        for text in texts:
            data = text.encode()
            for i, byte in enumerate(data):
                for n in range(min(self.order - 1, i) + 1):
                    self.counts[n].setdefault(data[i - n : i], Counter())[byte] += 1

    def bits_per_byte(self, texts: Iterable[str]) -> float:
        """-1/N sum log2 p(byte | up to order - 1 bytes before it)."""
        bits, total = 0.0, 0
        for text in texts:
            data = text.encode()
            total += len(data)
            for i, byte in enumerate(data):
                bits -= math.log2(self._probability(data, i, byte))
        return bits / max(total, 1)

    def _probability(self, data: bytes, i: int, byte: int) -> float:
        probability = 1 / 256
        for n in range(min(self.order - 1, i) + 1):
            seen = self.counts[n].get(data[i - n : i])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            probability = (seen[byte] + kinds * probability) / (total + kinds)
        return probability
