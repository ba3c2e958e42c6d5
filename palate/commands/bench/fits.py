"""Which models fit into how much memory, by the rule that cuts micro-batches (palate/train/memory.py)."""

from __future__ import annotations

from collections.abc import Iterator

from palate.device import GIB
from palate.nn.config import Shape
from palate.train.memory import tokens_that_fit

PLACE = "fits"
TIME = 1024
"""Tokens of a row."""
BFLOAT16 = 2
MEMORIES = (8, 16, 24, 40, 80)
"""GiB."""
WAYS = {
    "SFT, reward model, pretraining": (1, 0),
    "PPO": (2, 2),
    "LoRA: SFT, reward model, PPO": (0, 1),
}
"""How many networks are trained and how many only held (the stages say the same)."""


def _llama(vocab: int, layers: int, dim: int, heads: int, kv_heads: int, hidden: int, *, tied: bool) -> Shape:
    return Shape(
        vocab=vocab,
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        hidden=hidden,
        context=2048,
        tied=tied,
    )


SHAPES = {
    "6 layers x 384": _llama(4096, 6, 384, 6, 6, 1024, tied=True),
    "SmolLM2-135M": _llama(49_152, 30, 576, 9, 3, 1536, tied=True),
    "SmolLM2-360M": _llama(49_152, 32, 960, 15, 5, 2560, tied=True),
    "TinyLlama-1.1B": _llama(32_000, 22, 2048, 32, 4, 5632, tied=False),
    "SmolLM2-1.7B": _llama(49_152, 24, 2048, 32, 32, 8192, tied=True),
    "Mistral-7B": _llama(32_000, 32, 4096, 32, 8, 14_336, tied=False),
}
"""One of docs/performance.md, and published ones (their config.json)."""


def table() -> Iterator[str]:
    """The lines of Markdown: per model and way of training the tokens that go through at once on each device, marked
    where layers must be computed again for it."""
    yield "| tokens at once, bfloat16 | | " + " | ".join(f"{memory} GiB" for memory in MEMORIES) + " |"
    yield "|---|---|" + "---:|" * len(MEMORIES)
    for name, shape in SHAPES.items():
        for way, held in WAYS.items():
            cells = (_cell(shape, memory * GIB, held) for memory in MEMORIES)
            yield f"| {name} ({shape.parameters / 1e6:,.0f} M) | {way} | " + " | ".join(cells) + " |"
    yield ""


def _cell(shape: Shape, memory: int, held: tuple[int, int]) -> str:
    trained, frozen = held
    for recompute in (False, True):
        fit = tokens_that_fit(shape, TIME, memory, BFLOAT16, trained=trained, frozen=frozen, recompute=recompute)
        if fit >= TIME:
            return f"{fit // TIME * TIME:,}" + "*" * recompute
    return "-"
