"""`palate bench cost`: what a larger corpus costs the training loop, in speed and memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palate.commands.bench import harness, train
from palate.commands.bench.train import Workload
from palate.commands.bench.worker import Turns

CORPORA = (1_000_000, 5_000_000, 50_000_000)
"""Tokens."""
WORKLOAD = Workload(
    layers=4, dim=128, heads=4, hidden=344, context=64, vocab=4096, rows=12, steps=10, document=300
)  # fmt: skip
"""A small network, whose steps leave the reading of rows the largest part, and documents of 300 tokens in the mean."""


def main(target: Path | None, repeats: int) -> None:
    """Measure."""
    result = {"bench": "cost", "machine": harness.machine(), "repeats": repeats, **measure(WORKLOAD, CORPORA, repeats)}
    harness.publish(result, target)


def measure(workload: Workload, corpora: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Tokens per second and memory by the size of the corpus, and the speed on each beside that on the first."""
    plain = asdict(workload)
    with tempfile.TemporaryDirectory() as name:
        orders: dict[str, harness.Order] = {}
        for corpus in corpora:  # written here, so that a contestant's memory is the training's alone
            folder = Path(name) / str(corpus)
            folder.mkdir()
            train.write_tokens(folder, vocab=workload.vocab, tokens=corpus, document=workload.document)
            orders[_name(corpus)] = (f"{__name__}:ours", {"workload": plain, "folder": str(folder)})
        with harness.workers(orders) as contestants:
            records = harness.take_turns(contestants, repeats)
    first = records[_name(corpora[0])]
    return {
        "workload": plain,
        "contestants": {
            name: {
                "tokens_per_second": round(workload.tokens / record.seconds),
                "peak_mb": round(record.peak_mb),
                "warm_up_seconds": round(record.warm_up, 1),
            }
            for name, record in records.items()
        },
        "times_faster": {name: harness.times_faster(record, first) for name, record in records.items()},
    }


def _name(corpus: int) -> str:
    return f"corpus of {corpus:,} tokens"


def ours(turns: Turns, *, workload: Mapping[str, Any], folder: str) -> None:
    """The stage's own loop over the corpus in `folder`; a turn is `steps` of it."""
    train.over_corpus(turns, Workload(**workload), Path(folder), compiled=False)
