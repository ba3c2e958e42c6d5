"""`palate bench dial`: the sweep behind the dial (docs/dial.md): networks of its shapes, trained on real text at many
learning rates, batches and lengths, and read on held-out documents."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palate import dial, metrics
from palate.batches.shards import Shard
from palate.commands.bench import harness
from palate.device import open_device
from palate.measure.bits import bits_per_byte
from palate.metrics import Metrics
from palate.recipe import Collect, Hardware, Pretrain, Recipe, Tokenize
from palate.stages import pretrain
from palate.train.update import Learner

NEVER = 10**9
VOCAB, CONTEXT = 2048, 256
MOST_ROWS = 400
"""Held-out rows that are read: 100,000 tokens."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network, trained once on `tokens`."""

    question: str
    layers: int
    rows: int
    lr: float
    tokens: int


def _asked() -> Iterator[Trial]:
    two = 2_000_000
    for rows in (8, 16, 32):
        for lr in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3):
            yield Trial(question="rate and batch", layers=2, rows=rows, lr=lr, tokens=two)
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        yield Trial(question="rate by width", layers=3, rows=16, lr=lr, tokens=two)
        if lr < 8e-3:
            yield Trial(question="rate by width", layers=4, rows=16, lr=lr, tokens=two)
    for rows in (8, 16, 32):
        yield Trial(question="rate by length", layers=2, rows=rows, lr=4e-3, tokens=8_000_000)
    yield Trial(question="rate by length", layers=2, rows=16, lr=2e-3, tokens=8_000_000)
    yield Trial(question="rate by length", layers=2, rows=16, lr=8e-3, tokens=8_000_000)


TRIALS = tuple(_asked())


def main(texts: Sequence[Path], target: Path | None, *, hours: float) -> None:
    """Train and read every trial, in random order. Raises BadInput when `texts` cannot be read."""
    from palate import flow

    recipe = Recipe(
        collect=Collect(sources=tuple(map(str, texts)), max_documents=20_000), tokenize=Tokenize(vocab=VOCAB)
    )
    with tempfile.TemporaryDirectory() as name:
        _, workspace = flow.open_run(recipe, Path(name) / "run")
        flow.run(recipe, workspace)
        found = list(measure(workspace.read("tokens"), TRIALS, seconds=hours * 3600))
    result = {"bench": "dial", "machine": harness.machine(), "trials": found}
    harness.publish(result, target)


def measure(tokens: Path, trials: Iterable[Trial], *, seconds: float = float("inf")) -> Iterator[dict[str, Any]]:
    """Each trial with its bits per byte, until the time is up."""
    device = open_device(Hardware(compile=False))
    train, held_out = Shard(tokens, "train"), Shard(tokens, "val")
    order = list(trials)
    random.Random("dial").shuffle(order)
    end = time.monotonic() + seconds
    for trial in order:
        if time.monotonic() > end:
            return
        shape, settings = dial.model(trial.layers, CONTEXT), _settings(trial)
        network = pretrain.build(shape, VOCAB, seed=0)
        learner = Learner.make(settings.optimizer, network, device, weight_decay=settings.weight_decay)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            log = Metrics(Path(name) / "pretrain.jsonl")
            pretrain.train(learner, network, train, held_out, settings, device, log, 0, 0, lambda step: None)
        told = {
            **asdict(trial),
            "bits_per_byte": round(bits_per_byte(network, held_out, device, width=CONTEXT, most_rows=MOST_ROWS), 4),
            "seconds": round(time.perf_counter() - started),
        }
        metrics.say(str(told))
        yield told


def _settings(trial: Trial) -> Pretrain:
    steps = trial.tokens // (trial.rows * CONTEXT)
    return Pretrain(
        steps=steps,
        batch_rows=trial.rows,
        peak_lr=trial.lr,
        schedule="wsd",
        warmup_steps=dial.warmup(steps),
        evaluate_every=NEVER,
        save_every=NEVER,
    )
