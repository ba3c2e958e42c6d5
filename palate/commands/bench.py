"""`palate bench`: training speed as a ratio against transformers' LLaMA of the same shape, in the same run.

Alternating, median of several, the peer in its default and in its fastest setting on this machine (bfloat16); same
parameters, same tokens. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from palate.device import generator, open_device
from palate.errors import Unsupported
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.recipe import Hardware

SHAPE = Shape(vocab=1024, layers=4, dim=192, heads=3, kv_heads=3, hidden=512, context=160)
ROWS = 32
REPEATS = 7


def main() -> None:
    """Measure and print. Raises Unsupported where transformers is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise Unsupported("palate bench measures against transformers; `pip install transformers` first.") from None

    device = open_device(Hardware())
    ids = torch.randint(0, SHAPE.vocab, (ROWS, SHAPE.context + 1), generator=generator("bench"))
    weights = torch.ones(ROWS, SHAPE.context)
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("bench"))
    peer = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocab,
            hidden_size=SHAPE.dim,
            intermediate_size=SHAPE.hidden,
            num_hidden_layers=SHAPE.layers,
            num_attention_heads=SHAPE.heads,
            max_position_embeddings=SHAPE.context,
            tie_word_embeddings=True,
        )
    )

    def ours() -> Tensor:
        with device.products():
            logits = model(ids[:, :-1])
        loss, weight = next_token_loss(logits, ids[:, 1:], weights)
        return loss / weight

    def theirs() -> Tensor:
        logits = peer(ids[:, :-1]).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    def theirs_bfloat16() -> Tensor:
        with device.products():
            return theirs()

    steps: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "palate": (model, ours),
        "transformers": (peer, theirs),
        "transformers_bfloat16": (peer, theirs_bfloat16),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(REPEATS + 1):  # the first round warms up
        for name, (network, step) in steps.items():
            started = time.perf_counter()
            step().backward()  # type: ignore[no-untyped-call]
            network.zero_grad()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = ROWS * SHAPE.context
    result = {
        "parameters": SHAPE.parameters,
        "flops_per_token": SHAPE.flops_per_token(SHAPE.context),
        "tokens_per_second": {name: round(tokens / value) for name, value in median.items()},
        "times_faster_than": {name: round(value / median["palate"], 2) for name, value in median.items()},
        "repeats": REPEATS,
        "dtype": str(device.dtype),
    }
    print(json.dumps(result, indent=1))  # noqa: T201 - the result is the output
