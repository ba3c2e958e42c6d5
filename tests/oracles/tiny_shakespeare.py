"""Tiny Shakespeare by characters at nanoGPT's CPU size, trained by the stage `pretrain`'s own loop: `make oracles`.

    python tests/oracles/tiny_shakespeare.py input.txt              three seeds, read on the last 10 %
    python tests/oracles/tiny_shakespeare.py input.txt --dev ...    for tuning: the last 10 % is cut off unread

The outside truth is github.com/karpathy/nanoGPT, README: 4 layers, 4 heads, width 128, context 64, 2,000 iterations of
batch 12 without dropout end at a validation loss of 1.88, an estimate from 20 random batches. The text is
`data/tinyshakespeare/input.txt` of github.com/karpathy/char-rnn: 1,115,394 characters of 65 kinds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from palate import recipe as recipes
from palate.batches.shards import Shard
from palate.device import Device, generator, open_device
from palate.metrics import Metrics
from palate.nn.transformer import LanguageModel
from palate.recipe import Recipe
from palate.stages.pretrain import build, train
from palate.train.update import Learner

RECIPE = """
[model]
layers = 4
dim = 128
heads = 4
hidden = 344
context = 64
[pretrain]
steps = 1000
batch_rows = 24
optimizer = "muon"
peak_lr = 4e-3
schedule = "linear"
warmup_steps = 50
evaluate_every = 1000000
save_every = 1000000
[hardware]
device = "cpu"
threads = 1
"""
"""What --dev was tried with is in docs/log.md."""
TOKENS = 2000 * 12 * 64
PARAMETERS = 810_000
"""nanoGPT's training characters and size; what is run has no more."""
SEEDS = (1, 2, 3)
T_95 = 4.303
"""Student's t for the 95 % interval of a mean of three."""


def recipe(overrides: Sequence[str] = ()) -> Recipe:
    """The recipe above, with overrides as on Palate's command line."""
    made = recipes.parse(RECIPE, "tiny_shakespeare", overrides)
    assert made.model is not None and made.pretrain is not None
    tokens = made.pretrain.steps * made.pretrain.batch_rows * made.model.context
    if tokens > TOKENS or made.model.context > 64:
        raise SystemExit(f"{tokens:,} characters in rows of {made.model.context}: nanoGPT trains on {TOKENS:,} in 64.")
    return made


def cut(text: str) -> tuple[str, str]:
    """The first nine tenths and the last, as nanoGPT's prepare.py cuts."""
    at = int(len(text) * 0.9)
    return text[:at], text[at:]


def write_tokens(folder: Path, **splits: str) -> int:
    """The tokens artifact with one id per character, each split one document. The number of kinds is returned."""
    symbols = {character: number for number, character in enumerate(sorted(set(splits["train"])))}
    index: dict[str, object] = {"dtype": "uint16", "vocab": len(symbols)}
    for name, text in splits.items():
        np.array([symbols[character] for character in text], dtype=np.uint16).tofile(folder / f"{name}.bin")
        index[name] = {"file": f"{name}.bin", "lengths": [len(text)], "text_bytes": len(text.encode())}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return len(symbols)


@torch.no_grad()
def whole_loss(model: LanguageModel, tokens: Tensor, device: Device) -> float:
    """Nats per character over all of `tokens` (n): windows of model.context that do not overlap, the last one shorter.
    Each character but the first is predicted once, from those before it in its window: 1 to model.context."""
    width = model.shape.context
    full = (len(tokens) - 1) // width * width
    inputs, targets = tokens[:full].view(-1, width), tokens[1 : full + 1].view(-1, width)
    nats = sum(_nats(model, x, y, device) for x, y in zip(inputs.split(64), targets.split(64), strict=True))
    if full < len(tokens) - 1:
        nats += _nats(model, tokens[None, full:-1], tokens[None, full + 1 :], device)
    return nats / (len(tokens) - 1)


@torch.no_grad()
def random_loss(model: LanguageModel, tokens: Tensor, device: Device, seed: int) -> float:
    """nanoGPT's estimate: the mean over 20 batches of 12 windows at random places."""
    width = model.shape.context
    first = torch.randint(len(tokens) - width, (20 * 12, 1), generator=generator(seed, "random batches"))
    places = first + torch.arange(width)
    return _nats(model, tokens[places], tokens[places + 1], device) / places.numel()


def _nats(model: LanguageModel, x: Tensor, y: Tensor, device: Device) -> float:
    """Written without Palate's loss: this judges it."""
    logits = model(x)
    return -logits.float().log_softmax(dim=-1).gather(-1, y[..., None]).sum().item()


def run(settings: Recipe, text: str, held_out: str, seed: int) -> dict[str, float | int | str]:
    """Train one model on `text` and read it on `held_out`."""
    assert settings.model is not None and settings.pretrain is not None
    device = open_device(settings.hardware)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocab = write_tokens(folder, train=text, val=held_out)
        model = build(settings.model, vocab, seed)
        if model.shape.parameters > PARAMETERS:
            raise SystemExit(f"{model.shape.parameters:,} parameters: nanoGPT's have {PARAMETERS:,}.")
        training = settings.pretrain
        learner = Learner.make(training.optimizer, model, device, weight_decay=training.weight_decay)
        log = Metrics(folder / "pretrain.jsonl")
        rows, unseen = Shard(folder, "train"), Shard(folder, "val")
        train(learner, model, rows, unseen, training, device, log, seed, 0, lambda step: None)
        learner.whole()
        model.eval()
        tokens = torch.from_numpy(unseen.tokens.astype(np.int64))
        return {
            "seed": seed,
            "parameters": model.shape.parameters,
            "symbols": vocab,
            "trained on": training.steps * training.batch_rows * model.shape.context,
            "trained in": str(device.dtype),
            "characters read": len(tokens) - 1,
            "nats per character": round(whole_loss(model, tokens, device), 4),
            "20 random batches": round(random_loss(model, tokens, device, seed), 4),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = Path(os.environ.get("PALATE_DATA", ".")) / "tinyshakespeare" / "input.txt.gz"
    parser.add_argument("text", type=Path, nargs="?", default=given)
    parser.add_argument("--dev", action="store_true", help="one seed, read on the last tenth of the first 90 %%")
    parser.add_argument("--seed", type=int, default=100, help="of --dev")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="with --dev")
    told = parser.parse_args()
    if not told.text.is_file():
        raise SystemExit(f"{told.text} is not there: give the path of input.txt, or set PALATE_DATA.")
    if told.set and not told.dev:
        raise SystemExit("--set is for --dev: nothing is tuned on the last 10 %.")
    raw = told.text.read_bytes()
    text, last = cut((gzip.decompress(raw) if told.text.suffix == ".gz" else raw).decode())
    if told.dev:
        print(json.dumps(run(recipe(told.set), *cut(text), told.seed)))
        return
    results = []
    for seed in SEEDS:
        results.append(run(recipe(), text, last, seed))
        print(json.dumps(results[-1]), flush=True)
    for name in ("nats per character", "20 random batches"):
        values = [float(result[name]) for result in results]
        mean, half = statistics.mean(values), T_95 * statistics.stdev(values) / math.sqrt(len(values))
        print(f"{name}: {mean:.4f} [{mean - half:.4f}, {mean + half:.4f}], {len(values)} seeds")
    if statistics.mean(float(result["nats per character"]) for result in results) > 1.90:
        raise SystemExit("above 1.90")


if __name__ == "__main__":
    main()
