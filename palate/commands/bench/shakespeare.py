"""`palate bench shakespeare TEXT`: how well a model by characters reads after the same seconds of training.

The peer is nanoGPT's CPU configuration (its README: 4 layers, 4 heads, width 128, context 64, 2,000 iterations of batch
12, AdamW with beta2 0.99 and decay 0.1, 1e-3 falling to 1e-4 by a cosine after 100 steps, no dropout, float32, no
compiler). Ours gets as many optimizer steps as fit into the seconds that it needs, which a first few turns tell. Both
train by turns and are read alike: nats per character over all of the last tenth, in windows of 64.
"""

from __future__ import annotations

import gzip
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palate.batches.shards import Shard
from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS, Contestant, Turn
from palate.commands.bench.worker import Paced, Turns
from palate.device import open_device
from palate.errors import BadInput
from palate.nn.config import Shape
from palate.recipe import Hardware, Model, Pretrain
from palate.stages import pretrain
from palate.train.update import Learner

SEEDS = (1, 2, 3)
PEER = "nanogpt"
MARGIN = 0.97
"""Ours plans for this share of the peer's seconds, because speeds waver."""
NEVER = 10**9


@dataclass(frozen=True, kw_only=True)
class Race:
    """Both contestants. What ours has was chosen inside the first nine tenths (docs/performance.md says how)."""

    layers: int = 4
    dim: int = 128
    heads: int = 4
    hidden: int = 344
    context: int = 64
    rows: int = 24
    optimizer: str = "muon"
    lr: float = 4e-3
    schedule: str = "linear"
    warmup: int = 50
    weight_decay: float = 0.1
    compiled: bool = True
    peer_layers: int = 4
    peer_dim: int = 128
    peer_heads: int = 4
    peer_rows: int = 12
    peer_steps: int = 2000
    slice: int = 50
    """Optimizer steps in one turn."""


def main(text: Path, target: Path | None, repeats: int) -> None:
    """Three seeds, read on the last tenth. Raises BadInput when `text` cannot be read."""
    race = Race()
    read = [measure(read_text(text), race, seed, repeats) for seed in SEEDS]
    nats = {name: [run["contestants"][name]["nats_per_character"] for run in read] for name in (OURS, PEER)}
    harness.publish(
        {
            "bench": "shakespeare",
            "machine": harness.machine(),
            "race": asdict(race),
            "workloads": {f"seed {seed}": run for seed, run in zip(SEEDS, read, strict=True)},
            "mean_nats_per_character": {name: round(statistics.mean(values), 4) for name, values in nats.items()},
        },
        target,
    )


def read_text(path: Path) -> str:
    """The text in `path`, which may be gzipped. Raises BadInput."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise BadInput(f"it cannot be read ({error}).", path, "Name the text of tiny Shakespeare.") from None


def nine_tenths(text: str) -> tuple[str, str]:
    """The first nine tenths and the last. What is tuned is tuned on these of the first nine."""
    at = int(len(text) * 0.9)
    return text[:at], text[at:]


def measure(text: str, race: Race, seed: int, repeats: int) -> dict[str, Any]:
    """Train both on the first nine tenths of `text` for the same seconds and read them on the last."""
    training, held_out = nine_tenths(text)
    with tempfile.TemporaryDirectory() as name:
        write_tokens(Path(name), train=training, val=held_out)
        given = {"race": asdict(race), "folder": name, "seed": seed}
        endless = {PEER: (f"{__name__}:nanogpt", given), OURS: (f"{__name__}:ours", {**given, "steps": NEVER})}
        with harness.workers(endless) as contestants:
            speed = harness.take_turns(contestants, repeats)
        steps = int(race.peer_steps * MARGIN * speed[PEER].seconds / speed[OURS].seconds)
        steps = (
            max(2, steps // race.slice) * race.slice
        )  # the first turn warms up: one more tells how long a turn takes
        timed = {PEER: (f"{__name__}:nanogpt", given), OURS: (f"{__name__}:ours", {**given, "steps": steps})}
        with harness.workers(timed) as contestants:
            finished = side_by_side(contestants, {PEER: race.peer_steps // race.slice, OURS: steps // race.slice})
    result = {
        name: _told(contestants[name].ready, run, steps if name == OURS else race.peer_steps)
        for name, run in finished.items()
    }
    return {
        "contestants": result,
        "within_the_peers_seconds": result[OURS]["training_seconds"] <= result[PEER]["training_seconds"],
    }


def side_by_side(contestants: Mapping[str, Contestant], turns: Mapping[str, int]) -> dict[str, list[Turn]]:
    """Each for its number of turns, always whoever is further behind; the turn after its last reads it."""
    taken: dict[str, list[Turn]] = {name: [] for name in contestants}
    while behind := [name for name in contestants if len(taken[name]) < turns[name]]:
        name = min(behind, key=lambda name: len(taken[name]) / turns[name])
        taken[name].append(contestants[name].go())
    for name, contestant in contestants.items():
        taken[name].append(contestant.go())
    return taken


def _told(ready: Turn, turns: list[Turn], steps: int) -> dict[str, Any]:
    """The first turn warms up, compiling included: it counts as the mean of the others, and its rest is told apart,
    with what it took to be ready."""
    *trained, read = turns
    usual = statistics.mean(turn.seconds for turn in trained[1:])
    return {
        "nats_per_character": round(read.told["nats"], 4),
        "training_seconds": round(usual * len(trained), 2),
        "warm_up_seconds": round(ready.seconds + trained[0].seconds - usual, 2),
        "steps": steps,
        "parameters": round(read.told["parameters"]),
    }


def write_tokens(folder: Path, **splits: str) -> None:
    """The tokens artifact with one id per character and each split one document."""
    symbols = {character: number for number, character in enumerate(sorted(set("".join(splits.values()))))}
    index: dict[str, object] = {"dtype": "uint16", "vocab": len(symbols)}
    for name, text in splits.items():
        np.array([symbols[character] for character in text], dtype=np.uint16).tofile(folder / f"{name}.bin")
        index[name] = {"file": f"{name}.bin", "lengths": [len(text)], "text_bytes": len(text.encode())}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


@torch.no_grad()
def nats_per_character(logits: Callable[[Tensor], Tensor], tokens: Tensor, width: int) -> float:
    """Mean over `tokens` (n), cut into windows of `width` that do not overlap; every one but the first is predicted
    once, from what stands before it in its window."""
    total = 0.0
    for part in torch.split(torch.arange(0, len(tokens) - 1, width), 256):
        for length in {min(width, len(tokens) - 1 - int(start)) for start in part}:
            rows = [tokens[s : s + length + 1] for s in part.tolist() if min(width, len(tokens) - 1 - s) == length]
            windows = torch.stack(rows)
            logp = logits(windows[:, :-1]).float().log_softmax(dim=-1)
            total -= logp.gather(-1, windows[:, 1:, None]).double().sum().item()
    return total / (len(tokens) - 1)


# --- contestants: each in a process of its own ------------------------------------------------------------------------


def _open(folder: str) -> tuple[Shard, Shard, int]:
    index = json.loads((Path(folder) / "index.json").read_text(encoding="utf-8"))
    return Shard(Path(folder), "train"), Shard(Path(folder), "val"), int(index["vocab"])


def _read(turns: Turns, network: nn.Module, held_out: Shard, device: torch.device, width: int) -> None:
    """The last turn."""
    network.eval()
    tokens = torch.from_numpy(held_out.tokens.astype(np.int64)).to(device)
    count = sum(p.numel() for p in network.parameters())
    turns(nats=nats_per_character(network, tokens, width), parameters=float(count))


def ours(turns: Turns, *, race: Mapping[str, Any], folder: str, seed: int, steps: int) -> None:
    """The stage's own loop; a turn is a slice of it."""
    told = Race(**race)
    device = open_device(Hardware(compile=told.compiled))
    train_rows, held_out, vocab = _open(folder)
    shape = {name: getattr(told, name) for name in ("layers", "dim", "heads", "hidden", "context")}
    settings = Pretrain.model_validate(
        {
            "steps": steps,
            "batch_rows": told.rows,
            "optimizer": told.optimizer,
            "peak_lr": told.lr,
            "schedule": told.schedule,
            "warmup_steps": told.warmup,
            "weight_decay": told.weight_decay,
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    model = pretrain.build(Model.model_validate(shape), vocab, seed)
    learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
    with tempfile.TemporaryDirectory() as name:
        log = Paced(Path(name) / "pretrain.jsonl", turns, every=told.slice)
        turns()
        pretrain.train(learner, model, train_rows, held_out, settings, device, log, seed, 0, lambda step: None)
    _read(turns, model, held_out, device.torch, told.context)


def nanogpt(turns: Turns, *, race: Mapping[str, Any], folder: str, seed: int) -> None:
    """nanoGPT's loop at its configuration for CPUs; a turn is a slice of it."""
    told = Race(**race)
    device = open_device(Hardware(compile=False)).torch
    train_rows, held_out, vocab = _open(folder)
    torch.manual_seed(seed)
    shape = Shape(
        vocab=vocab,
        layers=told.peer_layers,
        dim=told.peer_dim,
        heads=told.peer_heads,
        kv_heads=told.peer_heads,
        hidden=4 * told.peer_dim,
        context=told.context,
    )
    network = peers.Gpt(shape).to(device)
    adamw = peers.optimizer(network, lr=0.0, weight_decay=0.1, betas=(0.9, 0.99))
    step = peers.trainer(network, adamw, dtype="float32", compiled=False, max_norm=1.0)
    turns()
    for number in range(told.peer_steps):
        for group in adamw.param_groups:
            group["lr"] = nanogpt_lr(number, told.peer_steps)
        step(peers.crops(train_rows.tokens, told.peer_rows, told.context).to(device))
        if (number + 1) % told.slice == 0:
            turns()
    _read(turns, network, held_out, device, told.context)


def nanogpt_lr(number: int, steps: int, *, peak: float = 1e-3, least: float = 1e-4, warmup: int = 100) -> float:
    """Its learning rate at iteration `number` (0, 1, ...)."""
    if number < warmup:
        return peak * (number + 1) / (warmup + 1)
    return least + 0.5 * (1 + math.cos(math.pi * (number - warmup) / (steps - warmup))) * (peak - least)
