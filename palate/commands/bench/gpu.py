"""`palate bench gpu`: one command for whoever has a CUDA GPU: 124 M and 350 M parameters at a context of 1,024.

Training (tokens per second, share of the bfloat16 ceiling, memory), generation for 1 and for 256 prompts at once, and
one round of PPO, one after the other. Without a GPU it runs on the CPU, which at these sizes takes hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palate.commands.bench import generation, harness, ppo, train
from palate.commands.bench.harness import OURS, Order, Record


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured."""

    trained: Mapping[str, train.Workload]
    batches: tuple[int, ...] = (1, 256)
    prompt: int = 64
    new: int = 128
    rows: int = 64
    """Of PPO's rollout, of the first network's size."""
    compiled: bool = True
    """Whether training compiles its blocks, as it does in a long run."""


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
    """One contestant after the other; training by turns with the matrix products that say what the ceiling is."""
    told: dict[str, Any] = {}
    tops: list[float] = []
    for name, workload in sizes.trained.items():
        plain = asdict(workload)
        arguments = {"workload": plain, "compiled": sizes.compiled}
        records = _measured(f"{train.__name__}:ours", arguments, repeats, beside=harness.ceilings())
        found = {dtype: harness.ceiling(records, dtype) for dtype in ("float32", "bfloat16")}
        tops.append(found["bfloat16"])
        told[f"{name} training"] = train.told(workload, records[OURS], found)
        for batch in sizes.batches:
            asked = generation.Workload(batch=batch, prompt=sizes.prompt, new=sizes.new, **_network(workload))
            record = _measured(f"{generation.__name__}:ours", {"workload": asdict(asked)}, repeats)[OURS]
            told[f"{name} generation, {batch} at once"] = {
                "tokens_per_second": round(batch * sizes.new / record.seconds),
                "peak_mb": round(record.peak_mb),
            }
    name, workload = next(iter(sizes.trained.items()))
    work = ppo.Workload(rows=sizes.rows, prompt=sizes.prompt, reply=sizes.new, **_network(workload))
    record = _measured(f"{ppo.__name__}:ours", {"workload": asdict(work)}, repeats)[OURS]
    told[f"{name} PPO round of {sizes.rows}"] = ppo.told(record)
    return {"contestants": told, "ceiling_tflops": {"bfloat16": round(max(tops), 3)}}


def _network(workload: train.Workload) -> dict[str, int]:
    return {name: getattr(workload, name) for name in ("layers", "dim", "heads", "hidden", "vocab")}


def _measured(
    contestant: str, arguments: Mapping[str, Any], repeats: int, *, beside: Mapping[str, Order] | None = None
) -> dict[str, Record]:
    with harness.workers({OURS: (contestant, arguments), **(beside or {})}) as contestants:
        return harness.take_turns(contestants, repeats)
