"""`palate bench generate`: sampling from a small model beside transformers' generate, many prompts at once and one.

No reply ends early; temperature 1 without truncation on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS
from palate.commands.bench.worker import Turns
from palate.device import generator, open_device
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.recipe import Hardware


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`batch` prompts of `prompt` tokens, `new` sampled ones each."""

    batch: int
    layers: int = 4
    dim: int = 128
    heads: int = 2
    hidden: int = 344
    vocab: int = 1024
    prompt: int = 24
    new: int = 64

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
            context=self.prompt + self.new,
        )

    def prompts(self) -> list[list[int]]:
        """Random ids, never 0 (the peer's padding)."""
        size = (self.batch, self.prompt)
        ids: list[list[int]] = torch.randint(1, self.vocab, size, generator=generator("bench")).tolist()
        return ids


WORKLOADS = {"256 at once": Workload(batch=256), "one": Workload(batch=1)}


def main(target: Path | None, repeats: int) -> None:
    """Measure. Raises Unsupported where transformers is not installed."""
    harness.need("transformers", "pip install transformers")
    found = {name: measure(workload, repeats) for name, workload in WORKLOADS.items()}
    result = {"bench": "generate", "machine": harness.machine(), "repeats": repeats, "workloads": found}
    harness.publish(result, target)


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    """Tokens per second of each, and how many times faster ours is."""
    plain = asdict(workload)
    orders: dict[str, harness.Order] = {OURS: (f"{__name__}:ours", {"workload": plain})}
    for dtype in ("float32", "bfloat16"):
        orders[f"transformers_{dtype}"] = (f"{__name__}:transformers", {"workload": plain, "dtype": dtype})
    with harness.workers(orders) as contestants:
        records = harness.take_turns(contestants, repeats)
    theirs = {name: record for name, record in records.items() if name != OURS}
    return {
        "workload": plain,
        "contestants": {
            name: {
                "tokens_per_second": round(workload.batch * workload.new / record.seconds),
                "peak_mb": round(record.peak_mb),
                "warm_up_seconds": round(record.first.seconds, 1),
            }
            for name, record in records.items()
        },
        "times_faster": {
            kind: {"peer": peer, **harness.times_faster(records[OURS], theirs[peer])}
            for kind, peer in (("default", f"transformers_{peers.DEFAULT}"), ("fastest", harness.fastest(theirs)))
        },
    }


# --- contestants: each in a process of its own ------------------------------------------------------------------------


def ours(turns: Turns, *, workload: Mapping[str, Any]) -> None:
    """The engine that sampling, PPO and chat use."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False))
    model = LanguageModel(Trunk(work.shape))
    initialise(model, work.shape, generator("bench"))
    device.put(model)
    asked = work.prompts()
    while True:
        turns()
        generate(model, asked, Sampling(max_new_tokens=work.new), seeds=range(len(asked)), device=device)


def transformers(turns: Turns, *, workload: Mapping[str, Any], dtype: str) -> None:
    """LlamaForCausalLM's generate, its weights in `dtype`."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False)).torch
    torch.manual_seed(0)
    network = peers.Llama(work.shape, use_cache=True).inner.to(device, getattr(torch, dtype)).eval()
    rows = torch.tensor(work.prompts(), device=device)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": work.new, "eos_token_id": None, "pad_token_id": 0}
    while True:
        turns()
        assert network.generate(rows, **options).shape[1] == work.prompt + work.new
