"""`palate bench`: speed of training and of decoding as a ratio against transformers' LLaMA of the same shape.

The contestants take turns in one run and the median of several counts; the peer runs in its default precision and in
bfloat16; same weights' shape, same tokens. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from palate.device import Device, generator, open_device
from palate.errors import Unsupported
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.recipe import Hardware

SHAPE = Shape(vocab=1024, layers=4, dim=128, heads=2, kv_heads=2, hidden=344, context=160)
"""The kitchen's."""
ROWS = 32
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 256, 24, 64
REPEATS = 7

Contestants = Mapping[str, Callable[[], object]]


def main() -> None:
    """Measure and print. Raises Unsupported where transformers is not installed."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise Unsupported("palate bench measures against transformers; `pip install transformers` first.") from None

    device = open_device(Hardware())
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("bench"))
    peer: Any = LlamaForCausalLM(
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
    device.put(model)
    peer.to(device.torch)
    result = {
        "parameters": SHAPE.parameters,
        "flops_per_token": SHAPE.flops_per_token(SHAPE.context),
        "dtype": str(device.dtype),
        "repeats": REPEATS,
        "training": _measured(_training(model, peer, device), ROWS * SHAPE.context),
        "decoding": _measured(_decoding(model, peer, device), PROMPTS * NEW_TOKENS),
    }
    print(json.dumps(result, indent=1))  # noqa: T201 - the result is the output


def _training(model: LanguageModel, peer: Any, device: Device) -> Contestants:
    """One forward and backward pass over ROWS rows of SHAPE.context tokens."""
    ids = torch.randint(0, SHAPE.vocab, (ROWS, SHAPE.context + 1), generator=generator("bench")).to(device.torch)
    weights = torch.ones(ROWS, SHAPE.context, device=device.torch)

    def ours() -> None:
        loss, weight = next_token_loss(model(ids[:, :-1]), ids[:, 1:], weights)
        _backward(loss / weight, model)

    def theirs() -> None:
        logits = peer(ids[:, :-1]).logits
        _backward(nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()), peer)

    return {"palate": ours, "transformers": theirs, "transformers_bfloat16": _in_products(theirs, device)}


def _backward(loss: Tensor, network: nn.Module) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad()


def _decoding(model: LanguageModel, peer: Any, device: Device) -> Contestants:
    """NEW_TOKENS sampled tokens for each of PROMPTS prompts; no reply ends early."""
    prompts = torch.randint(1, SHAPE.vocab, (PROMPTS, PROMPT_TOKENS), generator=generator("bench"))
    asked, rows = prompts.tolist(), prompts.to(device.torch)
    options = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW_TOKENS, "eos_token_id": None, "pad_token_id": 0}

    def ours() -> None:
        generate(model, asked, Sampling(max_new_tokens=NEW_TOKENS), seeds=range(PROMPTS), device=device)

    def theirs() -> None:
        assert peer.generate(rows, **options).shape[1] == PROMPT_TOKENS + NEW_TOKENS

    return {"palate": ours, "transformers": theirs, "transformers_bfloat16": _in_products(theirs, device)}


def _in_products(step: Callable[[], None], device: Device) -> Callable[[], None]:
    def inside() -> None:
        with torch.autocast(device.kind, dtype=device.dtype):
            step()

    return inside


def _measured(contestants: Contestants, tokens: int) -> dict[str, dict[str, float]]:
    """Tokens per second of each, and how many times faster ours is."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(REPEATS + 1):  # the first round warms up
        for name, step in contestants.items():
            started = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "tokens_per_second": {name: round(tokens / value) for name, value in median.items()},
        "times_faster_than": {n: round(v / median["palate"], 2) for n, v in median.items() if n != "palate"},
    }
