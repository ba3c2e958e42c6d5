"""Token shards on disk -> packed rows for pretraining."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from palate.batches.packed import Packed
from palate.errors import BadInput

DTYPES = ("uint16", "uint32")


class Shard:
    """One split of the tokens artifact, memory-mapped.

    documents are laid end to end in an order that changes with each epoch and cut into rows; a row's positions see
    only their own document.
    """

    def __init__(self, folder: Path, split: str) -> None:
        """Open `split` ("train" or "val") of a tokens folder. Raises BadInput when the files disagree."""
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            part = index[split]
            if index["dtype"] not in DTYPES or part["file"] != f"{split}.bin":
                raise ValueError(f"{part['file']} of {index['dtype']}")
            self._path, self._dtype = folder / part["file"], np.dtype(index["dtype"])
            self.size = len(self.tokens)
            self.lengths: NDArray[np.int64] = np.array(part["lengths"]).astype(np.int64, casting="safe")
            self.text_bytes = int(part["text_bytes"])
            if self.lengths.ndim != 1 or self.lengths.min() < 1 or self.text_bytes < 1:
                raise ValueError("a document without a length")
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise BadInput(f"unreadable token shard ({error}).", folder, "Run `palate tokenize` again.") from None
        if int(self.lengths.sum()) != self.size:
            raise BadInput(
                f"it holds {self.size:,} tokens, its index says {int(self.lengths.sum()):,} (cut off, perhaps).",
                self._path,
                "Run `palate tokenize` again.",
            )
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)[:-1]))
        self._order: tuple[int, str, NDArray[np.int64], NDArray[np.int64]] | None = None

    @property
    def tokens(self) -> NDArray[np.unsignedinteger]:
        """All tokens (time), in a map of their own: the pages that a map has read count as the process's memory until
        it goes, so a map that stayed for a whole training would grow to the whole corpus."""
        return np.memmap(self._path, dtype=self._dtype, mode="r")

    def rows_per_epoch(self, width: int) -> int:
        """How many rows of `width` one pass over the documents gives; what is left over waits for the next epoch."""
        rows = (self.size - 1) // width
        if rows < 1:
            raise BadInput(
                f"the corpus has {self.size:,} tokens, less than one row of {width}.",
                "02-tokens",
                "Collect more text or set model.context lower.",
            )
        return rows

    def rows(self, numbers: list[int], *, width: int, seed: object) -> Packed:
        """The rows with these numbers (counted over all epochs), `width` positions each."""
        per_epoch, corpus = self.rows_per_epoch(width), self.tokens
        pieces = [self._row(corpus, number // per_epoch, number % per_epoch, width, seed) for number in numbers]
        shape = (len(numbers), width + 1)  # there may be none
        tokens = torch.from_numpy(np.array([tokens for tokens, _ in pieces], dtype=np.int64).reshape(shape))
        segments = torch.from_numpy(np.array([segments for _, segments in pieces], dtype=np.int64).reshape(shape))
        # The last position of a document predicts nothing: what follows is another text.
        weights = (segments[:, 1:] == segments[:, :-1]).float()
        return Packed(tokens[:, :-1], tokens[:, 1:], weights, segments[:, :-1])

    def _row(
        self, corpus: NDArray[np.unsignedinteger], epoch: int, row: int, width: int, seed: object
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        permutation, ends = self._epoch(epoch, repr(seed))
        begin, end = row * width, row * width + width + 1
        tokens = np.empty(width + 1, dtype=np.int64)
        segments = np.empty(width + 1, dtype=np.int64)
        place = int(np.searchsorted(ends, begin, side="right"))
        at, number = begin, 1
        while at < end:
            document = permutation[place]
            start_in_epoch = int(ends[place] - self.lengths[document])
            stop = min(end, int(ends[place]))
            offset = int(self.starts[document]) + at - start_in_epoch
            tokens[at - begin : stop - begin] = corpus[offset : offset + stop - at]
            segments[at - begin : stop - begin] = number
            at, place, number = stop, place + 1, number + 1
        return tokens, segments

    def _epoch(self, epoch: int, seed: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(permutation of the documents, where each ends in the epoch's stream)."""
        if self._order is None or self._order[:2] != (epoch, seed):
            # Philox is counter-based and specified: the same stream on every platform.
            rng = np.random.Generator(np.random.Philox(hash_text(f"{seed} epoch {epoch}")))
            permutation = rng.permutation(len(self.lengths)).astype(np.int64)
            self._order = (epoch, seed, permutation, np.cumsum(self.lengths[permutation]))
        return self._order[2], self._order[3]


def hash_text(text: str) -> int:
    """A 64-bit number that depends on `text` alone (Python's own hash changes from process to process)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
