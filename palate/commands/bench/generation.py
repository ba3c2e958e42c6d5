"""`palate bench generate`: sampling from a small model beside transformers' generate: one prompt, 64 prompts of one
length, and 512 whose lengths differ and whose replies end at different times.

Temperature 1 without truncation on both sides. No reply ends early unless some ids end them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS, Turn
from palate.commands.bench.worker import Turns
from palate.device import generator, open_device
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.recipe import Hardware


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`batch` prompts of `prompt` tokens (or `prompt` to `longest`), at most `new` sampled ones each; the last `stops`
    ids of the vocabulary end a reply. The peer gets `together` at a time, in order of length, padded on the left."""

    batch: int
    layers: int = 4
    dim: int = 256
    heads: int = 4
    hidden: int = 704
    vocab: int = 2048
    prompt: int = 32
    longest: int = 0
    new: int = 48
    stops: int = 0
    together: int = 512

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
            context=max(self.prompt, self.longest) + self.new,
        )

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a reply."""
        return tuple(range(self.vocab - self.stops, self.vocab))

    def prompts(self) -> list[list[int]]:
        """Random ids, neither 0 (the peer's padding) nor one that ends a reply; in order of length."""
        source = generator("bench")
        longest = max(self.prompt, self.longest)
        lengths = torch.randint(self.prompt, longest + 1, (self.batch,), generator=source).sort().values.tolist()
        ids = torch.randint(1, self.vocab - self.stops, (self.batch, longest), generator=source).tolist()
        return [row[:length] for row, length in zip(ids, lengths, strict=True)]


WORKLOADS = {
    "one": Workload(batch=1),
    "64 at once": Workload(batch=64),
    "512 of mixed lengths": Workload(batch=512, prompt=16, longest=63, new=84, stops=48, together=64),
}


def main(target: Path | None, repeats: int) -> None:
    """Measure. Raises Unsupported where transformers is not installed."""
    harness.need("transformers", "pip install transformers")
    found = {name: measure(workload, repeats, compiled=not workload.longest) for name, workload in WORKLOADS.items()}
    result = {"bench": "generate", "machine": harness.machine(), "repeats": repeats, "workloads": found}
    harness.publish(result, target)


def measure(workload: Workload, repeats: int, *, compiled: bool = False) -> dict[str, Any]:
    """Tokens per second of each, and how many times faster ours is; `compiled` adds a peer under torch.compile."""
    plain = asdict(workload)
    orders: dict[str, harness.Order] = {OURS: (f"{__name__}:ours", {"workload": plain})}
    for dtype in ("float32", "bfloat16"):
        orders[f"transformers_{dtype}"] = (f"{__name__}:transformers", {"workload": plain, "dtype": dtype})
    if compiled:  # their cache of a fixed size is what torch.compile needs; of mixed lengths it would compile each
        order = {"workload": plain, "dtype": "bfloat16", "compiled": True}
        orders["transformers_bfloat16_compiled"] = (f"{__name__}:transformers", order)
    with harness.workers(orders) as contestants:
        records = harness.take_turns(contestants, repeats)
    theirs = {name: record for name, record in records.items() if name != OURS}
    return {
        "workload": plain,
        "contestants": {
            name: {
                "tokens_per_second": round(1 / statistics.median(map(_per_token, record.turns))),
                "peak_mb": round(record.peak_mb),
                "warm_up_seconds": round(record.warm_up, 1),
            }
            for name, record in records.items()
        },
        "times_faster": {
            kind: {"peer": peer, **harness.times_faster(records[OURS], theirs[peer], seconds=_per_token)}
            for kind, peer in (
                ("default", f"transformers_{peers.DEFAULT}"),
                ("fastest", min(theirs, key=lambda name: statistics.median(map(_per_token, theirs[name].turns)))),
            )
        },
    }


def _per_token(turn: Turn) -> float:
    """Seconds per sampled token: replies that end do not end alike."""
    return turn.seconds / turn.told["tokens"]


# --- contestants: each in a process of its own ------------------------------------------------------------------------


def ours(turns: Turns, *, workload: Mapping[str, Any]) -> None:
    """The engine that sampling, PPO and chat use."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False))
    model = LanguageModel(Trunk(work.shape))
    initialise(model, work.shape, generator("bench"))
    device.put(model)
    asked, sampling = work.prompts(), Sampling(max_new_tokens=work.new, stops=work.ends)
    turns()
    while True:
        replies = generate(model, asked, sampling, seeds=range(len(asked)), device=device)
        turns(tokens=sum(len(reply.ids) for (reply,) in replies))


def transformers(turns: Turns, *, workload: Mapping[str, Any], dtype: str, compiled: bool = False) -> None:
    """LlamaForCausalLM's generate, its weights in `dtype`."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False)).torch
    torch.manual_seed(0)
    network = peers.Llama(work.shape, use_cache=True).inner.to(device, getattr(torch, dtype)).eval()
    asked, ends = work.prompts(), torch.tensor(work.ends, dtype=torch.long, device=device)
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": work.new, "pad_token_id": 0}
    options["eos_token_id"] = list(work.ends) or None
    if compiled:
        network.forward = torch.compile(network.forward)
        options["cache_implementation"] = "static"
    turns()
    while True:
        tokens = 0
        for start in range(0, len(asked), work.together):
            part = asked[start : start + work.together]
            width = max(map(len, part))
            ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in part], device=device)
            said = network.generate(ids, attention_mask=(ids != 0).long(), **options)[:, width:]
            ended = torch.isin(said, ends).long()
            tokens += int((ended.cumsum(dim=1) - ended == 0).sum())
        turns(tokens=tokens)
