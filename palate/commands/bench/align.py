"""`palate bench align`: what one step of aligning an open model costs, with adapters and with all weights.

The model has SmolLM2-135M's shape and random weights, so nothing is downloaded; the stages of recipes/align.toml are
run as they are, each kind in a process of its own, by turns. The figures: seconds per SFT step and per PPO round
(rollout and update), on the clock and of all cores together, and the stages' peak memory.
"""

from __future__ import annotations

import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from palate import recipe as recipes
from palate.commands.bench import harness
from palate.device import generator
from palate.metrics import Metrics
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.stages import STAGES, ppo, sft
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights
from palate.workspace import Job, Workspace, forget_peak

SHAPE = Shape(
    vocab=49_152, layers=30, dim=576, heads=9, kv_heads=3, hidden=1536, context=512, rope_theta=100_000.0
)  # fmt: skip
"""SmolLM2-135M's (Allal et al. 2025) but for its context of 8,192."""
CONVERSATIONS, WORDS = 40, 24
"""How many demonstrations and comparisons, and words in each of their turns."""
STEPS, ROUNDS = 6, 6
"""Of SFT and of PPO; the first of each warms up and does not count."""
TURNS = 2
KINDS = {"lora": "[lora]", "full": ""}

RECIPE = """
name = "bench"
[base]
folder = "{folder}/model"
{adapters}
[write]
demonstrations = ["{folder}/demonstrations.jsonl"]
dev_prompts = 4
test_prompts = 4
[sft]
steps = {steps}
batch_rows = 8
peak_lr = 1e-4
warmup_steps = 1
micro_tokens = 2048
evaluate_every = 1000
[sample]
prompts = 4
max_new_tokens = 8
[rank]
by = ["{folder}/comparisons.jsonl"]
[reward]
peak_lr = 1e-3
batch_prompts = 8
epochs = 1
micro_tokens = 2048
warmup_steps = 1
[ppo]
rounds = {rounds}
rollout_prompts = 8
minibatch_rows = 8
micro_rows = 8
max_new_tokens = 16
epochs = 1
critic_warmup_rounds = 0
evaluate_every = 1000
gate = false
"""


def main(target: Path | None) -> None:
    """Measure; the figures go into `target`, or are shown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _publish(folder)
        told: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for _ in range(TURNS):
            for kind in KINDS:
                done = subprocess.run(
                    [sys.executable, "-m", "palate.commands.bench.align", name, kind],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                told[kind].append(json.loads(done.stdout))
    contestants = {
        kind: {
            f"{stage}_{unit}": round(statistics.median(s for turn in turns for s in turn[stage][unit]), 2)
            for stage in ("sft", "ppo")
            for unit in ("seconds", "core_seconds")
        }
        | {f"{stage}_peak_mb": round(max(t[stage]["peak_mb"] for t in turns)) for stage in ("sft", "reward", "ppo")}
        for kind, turns in told.items()
    }
    result = {"bench": "align", "machine": harness.machine(), "repeats": TURNS * (STEPS - 1)}
    harness.publish(result | {"parameters": SHAPE.parameters, "contestants": contestants}, target)


def _publish(folder: Path) -> None:
    """A model of random weights with its tokenizer, and people who wrote and compared in a made-up language."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 7))) for _ in range(40_000)]
    tokenizer = tokenizers.train((" ".join(words[i : i + 100]) for i in range(0, len(words), 100)), SHAPE.vocab)
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("bench"))
    (folder / "model").mkdir()
    tokenizer.save(folder / "model")
    weights.save_language_model(folder / "model", model, folder / "model", stops=tokenizer.stops, ids=tokenizer.ids)

    def turn() -> str:
        return " ".join(rng.choices(words, k=WORDS))

    def write(name: str, lines: list[Mapping[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    asked = [turn() for _ in range(CONVERSATIONS)]
    write("demonstrations.jsonl", [{"prompt": question, "completion": turn()} for question in asked])
    # Told apart by anybody: PPO does not run against a reward model that learned nothing.
    good, bad = (" ".join([word] * WORDS) for word in words[:2])
    write("comparisons.jsonl", [{"prompt": q, "chosen": good, "rejected": bad} for q in asked])


class _Timed(Metrics):
    """A stage's log that notes when each step was done."""

    def log(self, step: int, **values: float | int | str) -> None:
        super().log(step, **values)
        TIMES.setdefault(self.path.stem, []).append((time.perf_counter(), time.process_time()))


TIMES: dict[str, list[tuple[float, float]]] = {}
"""By stage, when each step was done: on the clock, and in seconds of all cores, which others' work disturbs less."""


def _measure(folder: Path, kind: str) -> dict[str, Any]:
    """The recipe with or without adapters, in this process."""
    text = RECIPE.format(folder=folder, adapters=KINDS[kind], steps=STEPS, rounds=ROUNDS)
    with tempfile.TemporaryDirectory(dir=folder) as run:
        recipe, workspace = recipes.parse(text, "bench"), Workspace(Path(run))
        for timed in (sft, ppo):
            vars(timed)["Metrics"] = _Timed
        for stage in STAGES:
            if getattr(recipe, stage.sections[0]) is not None:
                forget_peak()
                job = Job(stage.name, stage.writes, key="bench", inputs={}, settings={})
                importlib.import_module(stage.module).run(recipe, workspace.doing(job))
        peaks = {name: workspace.manifest(name)["peak_mb"] for name in ("sft", "reward", "ppo")}
    told: dict[str, Any] = {name: {"peak_mb": peak} for name, peak in peaks.items()}
    for name in ("sft", "ppo"):
        steps = list(pairwise(TIMES[name]))
        told[name] |= {"seconds": [b[0] - a[0] for a, b in steps], "core_seconds": [b[1] - a[1] for a, b in steps]}
    return told


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), sys.argv[2])))  # noqa: T201 - read by `main`
