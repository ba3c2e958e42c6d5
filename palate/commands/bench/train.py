"""`palate bench train`: one optimizer step of pretraining against a plain GPT and transformers' LLaMA.

Same tokens, parameters (within 1 %), AdamW with the same betas and decay, gradients clipped to norm 1, cross-entropy.
A whole step is timed: drawing the rows, forward, backward, clipping, step. Ours is the stage `pretrain`'s own loop:
without the compiler, with it, and on rows of several documents that do not see each other, which the peers do not have.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palate.batches.shards import Shard
from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS, Record
from palate.commands.bench.worker import Paced, Turns
from palate.device import open_device
from palate.nn.config import Shape
from palate.recipe import Hardware, Model, Pretrain
from palate.stages import pretrain
from palate.train.update import Learner

TOKENS = 1_000_000
NEVER = 10**9
WEIGHT_DECAY, MAX_NORM, BETAS, LR = 0.1, 1.0, (0.9, 0.95), 1e-3
FLOP_FORMULA = (
    "6 * (parameters of matrix products, the tied head included) + 12 * layers * dim * context per trained token: "
    "forward 2, backward 4 (Kaplan et al. 2020, section 2.1); attention is counted without the causal half's saving"
)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained: a shape, `rows` of its context per step, and how many steps one turn has."""

    layers: int
    dim: int
    heads: int
    hidden: int
    context: int
    vocab: int
    rows: int
    steps: int
    document: int = 0
    """Tokens of a document; 0 is one text without an end, which is what the peers read."""

    @property
    def shape(self) -> Shape:
        """As the network wants it."""
        return Shape(
            vocab=self.vocab,
            layers=self.layers,
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.heads,
            hidden=self.hidden,
            context=self.context,
        )

    @property
    def tokens(self) -> int:
        """Trained in one turn."""
        return self.rows * self.context * self.steps


WORKLOADS = {
    "a": Workload(layers=6, dim=384, heads=6, hidden=1024, context=256, vocab=65, rows=16, steps=1),
    "b": Workload(layers=8, dim=512, heads=8, hidden=1376, context=512, vocab=4096, rows=4, steps=1),
    "c": Workload(layers=4, dim=128, heads=4, hidden=344, context=64, vocab=65, rows=12, steps=10),
}
"""nanoGPT's two sizes for characters (a GPU's and a CPU's), and one with a vocabulary."""


def main(target: Path | None, repeats: int) -> None:
    """Measure every workload. Raises Unsupported where transformers is not installed."""
    harness.need("transformers", "pip install transformers")
    found = {name: measure(workload, repeats) for name, workload in WORKLOADS.items()}
    harness.publish(
        {
            "bench": "train",
            "machine": harness.machine(),
            "repeats": repeats,
            "flop_formula": FLOP_FORMULA,
            "workloads": found,
        },
        target,
    )


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    """Every contestant's tokens per second, memory and share of the ceiling, and how many times faster ours is."""
    with harness.workers(_orders(workload)) as contestants:
        records = harness.take_turns(contestants, repeats)
    found = {name: record for name, record in records.items() if not name.startswith("matmul")}
    tops = {dtype: harness.ceiling(records, dtype) for dtype in ("float32", "bfloat16")}
    return {
        "workload": asdict(workload),
        "ceiling_tflops": {dtype: round(top, 4) for dtype, top in tops.items()},
        "contestants": {name: told(workload, record, tops) for name, record in found.items()},
        "times_faster": _ratios(found),
    }


def _orders(workload: Workload) -> dict[str, harness.Order]:
    plain = asdict(workload)
    documents = {**plain, "document": max(2, workload.context // 2)}
    orders: dict[str, harness.Order] = {
        OURS: (f"{__name__}:ours", {"workload": plain, "compiled": False}),
        f"{OURS}_compiled": (f"{__name__}:ours", {"workload": plain, "compiled": True}),
        f"{OURS}_documents": (f"{__name__}:ours", {"workload": documents, "compiled": False}),
    }
    for network in peers.NETWORKS:
        for name, variant in peers.VARIANTS.items():
            arguments = {"workload": plain, "network": network, **variant}
            orders[f"{network}_{name}"] = (f"{__name__}:peer", arguments)
    return orders | harness.ceilings()


def told(workload: Workload, record: Record, tops: Mapping[str, float]) -> dict[str, Any]:
    per_second = workload.tokens / record.seconds
    flops = 6 * record.told("matrix_parameters") + 12 * workload.layers * workload.dim * workload.context
    dtype = "bfloat16" if record.told("bfloat16") else "float32"
    return {
        "parameters": round(record.told("parameters")),
        "products": dtype,
        "tokens_per_second": round(per_second),
        "share_of_ceiling": round(per_second * flops / 1e12 / tops[dtype], 3),
        "peak_mb": round(record.peak_mb),
        "warm_up_seconds": round(record.warm_up, 1),
    }


def _ratios(records: Mapping[str, Record]) -> dict[str, Any]:
    """Ours against each peer's default and against its fastest, without and with the compiler."""
    result: dict[str, Any] = {}
    for ours in (name for name in records if name.startswith(OURS)):
        told: dict[str, Any] = {}
        for network in peers.NETWORKS:
            theirs = {name: record for name, record in records.items() if name.startswith(f"{network}_")}
            for kind, name in (("default", f"{network}_{peers.DEFAULT}"), ("fastest", harness.fastest(theirs))):
                told[f"{network}_{kind}"] = {"peer": name, **harness.times_faster(records[ours], theirs[name])}
        result[ours] = told
    return result


# --- contestants: each in a process of its own ------------------------------------------------------------------------


def write_tokens(folder: Path, *, vocab: int, tokens: int, document: int) -> None:
    """A tokens artifact of random ids, in documents of about `document` ids (0: one)."""
    rng = np.random.default_rng(0)
    lengths = [tokens]
    if document:
        drawn = rng.integers(max(2, document // 2), document * 3 // 2 + 1, size=2 * tokens // document + 1)
        ends = np.cumsum(drawn)
        lengths = drawn[: int(np.searchsorted(ends, tokens))].tolist() or [document]
    index: dict[str, Any] = {"dtype": "uint16", "vocab": vocab}
    for split, parts in (("train", lengths), ("val", lengths[:1])):
        size = sum(parts)
        rng.integers(0, vocab, size=size, dtype=np.uint16).tofile(folder / f"{split}.bin")
        index[split] = {"file": f"{split}.bin", "lengths": parts, "text_bytes": size}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def settings(workload: Workload) -> tuple[Model, Pretrain]:
    """The recipe's sections: a run that never ends, is never read and never saved."""
    return (
        Model.model_validate(
            {
                "layers": workload.layers,
                "dim": workload.dim,
                "heads": workload.heads,
                "hidden": workload.hidden,
                "context": workload.context,
            }
        ),
        Pretrain.model_validate(
            {
                "steps": NEVER,
                "batch_rows": workload.rows,
                "peak_lr": LR,
                "schedule": "constant",
                "warmup_steps": 0,
                "weight_decay": WEIGHT_DECAY,
                "max_norm": MAX_NORM,
                "evaluate_every": NEVER,
                "save_every": NEVER,
            }
        ),
    )


class _Told(Paced):
    """Tells the size of the network with every turn."""

    def __init__(self, path: Path, turns: Turns, *, every: int, size: Mapping[str, float]) -> None:
        super().__init__(path, turns, every=every)
        self._size = size

    def told(self) -> dict[str, float]:
        return dict(self._size)


def ours(turns: Turns, *, workload: Mapping[str, Any], compiled: bool) -> None:
    """The stage's own loop over a corpus that is written here; a turn is `steps` of it."""
    work = Workload(**workload)
    with tempfile.TemporaryDirectory() as name:
        write_tokens(Path(name), vocab=work.vocab, tokens=TOKENS, document=work.document)
        over_corpus(turns, work, Path(name), compiled=compiled)


def over_corpus(turns: Turns, work: Workload, folder: Path, *, compiled: bool) -> None:
    """The stage's own loop over that folder's tokens."""
    device = open_device(Hardware(compile=compiled))
    model_settings, training = settings(work)
    shard, held_out = Shard(folder, "train"), Shard(folder, "val")
    model = pretrain.build(model_settings, work.vocab, seed=0)
    learner = Learner.make(training.optimizer, model, device, weight_decay=training.weight_decay)
    size = _size(model, bfloat16=device.dtype == torch.bfloat16)
    with tempfile.TemporaryDirectory() as name:
        log = _Told(Path(name) / "pretrain.jsonl", turns, every=work.steps, size=size)
        turns()
        pretrain.train(learner, model, shard, held_out, training, device, log, 0, 0, lambda step: None)


def peer(turns: Turns, *, workload: Mapping[str, Any], network: str, dtype: str, compiled: bool) -> None:
    """A peer's step on rows of the same tokens."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False))
    torch.manual_seed(0)
    model = peers.NETWORKS[network](work.shape).to(device.torch)
    adamw = peers.optimizer(model, lr=LR, weight_decay=WEIGHT_DECAY, betas=BETAS)
    step = peers.trainer(model, adamw, dtype=dtype, compiled=compiled, max_norm=MAX_NORM)
    size = _size(model, bfloat16=dtype == "bfloat16")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokens(folder, vocab=work.vocab, tokens=TOKENS, document=0)
        tokens = Shard(folder, "train").tokens
        turns()
        while True:
            for _ in range(work.steps):
                step(peers.crops(tokens, work.rows, work.context).to(device.torch))
            turns(**size)


def _size(model: torch.nn.Module, *, bfloat16: bool) -> dict[str, float]:
    """How many numbers it has, and how many of them stand in matrix products (all but learned positions)."""
    count = sum(p.numel() for p in model.parameters())
    places = getattr(model, "places", None)
    looked_up = places.weight.numel() if isinstance(places, torch.nn.Embedding) else 0
    return {"parameters": count, "matrix_parameters": count - looked_up, "bfloat16": float(bfloat16)}
