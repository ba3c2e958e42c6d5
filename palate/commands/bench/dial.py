"""`palate bench dial RUN`: the sweep behind the dial's rule (palate/dial.py, docs/dial.md), on the tokens of a run.

Every trial is a short pretraining by the stage's own loop, read on held-out documents at its end. Only losses count, no
seconds, so the machine may do other things meanwhile. Trials that the JSON file has already are not run again.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from palate import dial, metrics
from palate.batches.shards import Shard
from palate.commands.bench import harness
from palate.device import open_device
from palate.errors import BadInput
from palate.measure.bits import bits_per_byte
from palate.metrics import Metrics
from palate.recipe import Hardware, Pretrain
from palate.stages import pretrain
from palate.text import tokenizer as tokenizers
from palate.train.update import Learner

CONTEXT = 256
HELD_OUT_ROWS = 1000
NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One pretraining: its width is 64 times its layers."""

    layers: int
    rows: int
    optimizer: str
    lr: float
    tokens: float = 2e6
    schedule: str = "linear"
    seed: int = 1


def trials() -> list[Trial]:
    """The sweep, in the order of the questions."""
    muon = partial(Trial, optimizer="muon")
    return [
        # Which optimizer, at its best rate
        *(muon(layers=2, rows=16, lr=lr) for lr in (2e-3, 4e-3, 8e-3, 16e-3, 32e-3)),
        *(Trial(layers=2, rows=16, optimizer="adamw", lr=lr) for lr in (4e-3, 8e-3, 16e-3)),
        # How many rows
        *(muon(layers=2, rows=rows, lr=lr) for rows in (8, 32) for lr in (8e-3, 16e-3)),
        # Whether the rate depends on the size
        *(muon(layers=3, rows=16, lr=lr) for lr in (4e-3, 8e-3, 16e-3)),
        *(muon(layers=4, rows=16, lr=lr) for lr in (8e-3, 16e-3)),
        # Which size for the same operations, about those of 4 layers with 2 million tokens
        muon(layers=2, rows=16, lr=8e-3, tokens=8e6),
        muon(layers=3, rows=16, lr=8e-3, tokens=4e6),
    ]


def main(run: Path, target: Path) -> None:
    """Run what is missing in the JSON file `target`. Raises BadInput when `run` or `target` is something else."""
    tokens = run / "02-tokens"
    if not (tokens / "index.json").is_file():
        raise BadInput("it has no tokens.", run, "Name a run folder whose stage tokenize is done.")
    done: list[dict[str, Any]] = []
    if target.is_file():
        try:
            done = list(json.loads(target.read_text(encoding="utf-8"))["trials"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"it is no sweep ({error}).", target, "Name another file.") from None
    for trial in trials():
        if any(all(was.get(key) == value for key, value in asdict(trial).items()) for was in done):
            continue
        done.append(asdict(trial) | measure(trial, tokens))
        metrics.say(str(done[-1]))
        harness.publish({"bench": "dial", "machine": harness.machine(), "context": CONTEXT, "trials": done}, target)


def measure(trial: Trial, tokens: Path) -> dict[str, Any]:
    """Train it and read it."""
    device = open_device(Hardware())
    tokenizer = tokenizers.load(tokens)
    train_rows, held_out = Shard(tokens, "train"), Shard(tokens, "val")
    steps = round(trial.tokens / trial.rows / CONTEXT)
    settings = Pretrain.model_validate(
        {
            "steps": steps,
            "batch_rows": trial.rows,
            "optimizer": trial.optimizer,
            "peak_lr": trial.lr,
            "schedule": trial.schedule,
            "warmup_steps": round(dial.WARM_UP * steps),
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    model = pretrain.build(dial.model(trial.layers, CONTEXT), tokenizer.vocab, trial.seed)
    learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
    with tempfile.TemporaryDirectory() as name:
        log = Metrics(Path(name) / "pretrain.jsonl")
        pretrain.train(learner, model, train_rows, held_out, settings, device, log, trial.seed, 0, lambda step: None)
    bits = bits_per_byte(model, held_out, device, width=CONTEXT, most_rows=HELD_OUT_ROWS)
    return {"steps": steps, "parameters": model.shape.parameters, "bits_per_byte": round(bits, 4)}
