"""`palate bench gpu`: one command for whoever has a CUDA GPU: 124 M and 350 M parameters at a context of 1,024.

Training (tokens per second, share of the bfloat16 ceiling, memory), generation for 1 and for 256 prompts at once, and
one round of PPO. Each runs alone on the GPU, beside the matrix products that say what the ceiling is. Without a GPU it
runs on the CPU, which at these sizes takes hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from palate.commands.bench import harness, ppo, train
from palate.commands.bench.worker import Turns
from palate.device import generator, open_device
from palate.generate.engine import generate
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.recipe import Hardware


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured."""

    trained: Mapping[str, train.Workload]
    batches: tuple[int, ...] = (1, 256)
    prompt: int = 64
    new: int = 128
    rows: int = 64
    """Of PPO's rollout, of the first network's size."""


SIZES = Sizes(
    trained={
        "124M": train.Workload(
            layers=12, dim=768, heads=12, hidden=2048, context=1024, vocab=50304, rows=16, steps=2, document=700
        ),
        "350M": train.Workload(
            layers=24, dim=1024, heads=16, hidden=2752, context=1024, vocab=50304, rows=16, steps=1, document=700
        ),
    }
)
"""GPT-2's sizes (Radford et al. 2019), packed rows of documents as in a run."""


def main(target: Path | None, repeats: int) -> None:
    """Measure."""
    result = {"bench": "gpu", "machine": harness.machine(), "repeats": repeats, **measure(SIZES, repeats)}
    harness.publish(result | {"flop_formula": train.FLOP_FORMULA}, target)


def measure(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """One contestant after the other, each beside the matrix products."""
    told: dict[str, Any] = {}
    tops: list[float] = []
    for name, workload in sizes.trained.items():
        plain = asdict(workload)
        records = _alone("train", f"{train.__name__}:ours", {"workload": plain}, repeats)
        found = {dtype: harness.ceiling(records, dtype) for dtype in ("float32", "bfloat16")}
        tops.append(found["bfloat16"])
        told[f"{name} training"] = train.told(workload, records["train"], found)
        for batch in sizes.batches:
            arguments = {"workload": plain, "batch": batch, "prompt": sizes.prompt, "new": sizes.new}
            record = _alone("generate", f"{__name__}:decoding", arguments, repeats)["generate"]
            told[f"{name} generation, {batch} at once"] = {
                "tokens_per_second": round(batch * sizes.new / record.seconds),
                "peak_mb": round(record.peak_mb),
            }
    name, workload = next(iter(sizes.trained.items()))
    work = ppo.Workload(
        layers=workload.layers,
        dim=workload.dim,
        heads=workload.heads,
        hidden=workload.hidden,
        vocab=workload.vocab,
        rows=sizes.rows,
        prompt=sizes.prompt,
        reply=sizes.new,
    )
    record = _alone("ppo", f"{ppo.__name__}:ours", {"workload": asdict(work)}, repeats)["ppo"]
    told[f"{name} PPO round of {sizes.rows}"] = ppo.told(record)
    return {"contestants": told, "ceiling_tflops": {"bfloat16": round(max(tops), 3)}}


def _alone(name: str, contestant: str, arguments: Mapping[str, Any], repeats: int) -> dict[str, harness.Record]:
    with harness.workers({name: (contestant, arguments)} | harness.ceilings()) as contestants:
        return harness.take_turns(contestants, repeats)


def decoding(turns: Turns, *, workload: Mapping[str, Any], batch: int, prompt: int, new: int) -> None:
    """A contestant: `new` tokens for each of `batch` prompts; no reply ends early."""
    shape = replace(train.Workload(**workload).shape, context=prompt + new)
    device = open_device(Hardware())
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("bench"))
    device.put(model)
    asked = torch.randint(1, shape.vocab, (batch, prompt), generator=generator("prompts")).tolist()
    while True:
        turns()
        generate(model, asked, stops=(), max_new_tokens=new, temperature=1.0, rng=generator("bench"), device=device)
