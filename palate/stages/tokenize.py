"""Documents -> a byte-level BPE tokenizer and token shards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from palate.errors import BadInput
from palate.metrics import Progress
from palate.recipe import Recipe
from palate.text import corpus, tokenizer
from palate.workspace import Workspace

CHUNK = 512  # documents encoded at once; enough to keep all cores of the Rust encoder busy


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `tokens`: tokenizer files, train.bin and val.bin (uint16 or uint32 ids) and index.json.

    A document is BOS, its ids, EOS. The held-out documents are chosen by the seed and seen by no training step.
    """
    settings = recipe.tokenize
    assert settings is not None
    source = workspace.read("corpus")
    with workspace.publish() as folder:
        texts = [document.text for document in corpus.read_documents(source)]
        held_out = max(1, round(len(texts) * settings.held_out))
        if len(texts) < 2:
            raise BadInput(
                f"the corpus has {len(texts)} documents; training needs one and measuring another.",
                source,
                "Collect more text.",
            )
        order = list(range(len(texts)))
        random.Random(f"{recipe.seed} held out").shuffle(order)
        splits = {"val": sorted(order[:held_out]), "train": sorted(order[held_out:])}
        trained = tokenizer.train(_some((texts[i] for i in splits["train"]), settings.max_train_bytes), settings.vocab)
        trained.save(folder)
        kind = np.uint16 if trained.vocab <= 2**16 else np.uint32
        index: dict[str, object] = {"dtype": kind.__name__, "vocab": trained.vocab}
        with Progress("encoding", len(texts), unit="documents") as progress:
            for split, numbers in splits.items():
                index[split] = _write(folder / f"{split}.bin", trained, [texts[i] for i in numbers], kind, progress)
        (folder / "index.json").write_text(json.dumps(index) + "\n", encoding="utf-8")


def _some(texts: Iterator[str], most_bytes: int) -> Iterator[str]:
    """Texts until `most_bytes` of UTF-8 were given."""
    given = 0
    for text in texts:
        yield text
        given += len(text.encode())
        if given >= most_bytes:
            return


def _write(
    path: Path, trained: tokenizer.Tokenizer, texts: list[str], kind: type, progress: Progress
) -> dict[str, object]:
    """One shard: all documents' ids in one file; returned are the documents' lengths in ids and their bytes."""
    lengths: list[int] = []
    with path.open("wb") as file:
        for start in range(0, len(texts), CHUNK):
            for ids in trained.encode_documents(texts[start : start + CHUNK]):
                file.write(np.asarray(ids, dtype=kind).tobytes())  # tofile() is silent when a full disk takes no more
                lengths.append(len(ids))
            progress.advance(len(texts[start : start + CHUNK]))
    return {"file": path.name, "lengths": lengths, "text_bytes": sum(len(t.encode()) for t in texts)}
