"""How many tokens fit: the count of activations against what autograd keeps."""

import dataclasses
from typing import Any

import pytest
import torch

from palate.device import GIB, Device, generator
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.train.memory import make_room, tokens_that_fit
from palate.weights import adapter

SHAPES = {
    "llama": Shape(vocab=500, layers=3, dim=64, heads=4, kv_heads=4, hidden=192, context=96),
    "grouped": Shape(vocab=500, layers=3, dim=64, heads=4, kv_heads=2, hidden=192, context=96),
    "wide vocabulary": Shape(vocab=5000, layers=1, dim=64, heads=1, kv_heads=1, hidden=192, context=96),
    "gpt2": Shape(
        vocab=500, layers=3, dim=64, heads=4, kv_heads=4, hidden=256, context=96, norm="layer", positions="learned",
        feed_forward="gelu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_activation_bytes_are_what_autograd_keeps(name: str, dtype: torch.dtype, recompute: bool) -> None:
    shape = SHAPES[name]
    model = LanguageModel(Trunk(shape))
    model.trunk.recompute = recompute
    initialise(model, shape, generator("memory"))
    Device("cpu", dtype).put(model)
    own = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(shape.vocab, (8, 97), generator=generator("ids"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(ids[:, :-1])
        loss, _ = next_token_loss(logits, ids[:, 1:], torch.ones(8, 96))
    gradient = logits.numel() * dtype.itemsize  # of the logits, made when the backward pass begins
    counted = shape.activation_bytes(96, dtype.itemsize, recompute=recompute) * 8 * 96
    if recompute:  # of the layer that is being computed again nothing is there yet
        two = dataclasses.replace(shape, layers=2).activation_bytes(96, dtype.itemsize)
        one = dataclasses.replace(shape, layers=1).activation_bytes(96, dtype.itemsize)
        counted -= (two - one) * 8 * 96
    assert (0.85 if recompute else 0.95) < counted / (sum(kept.values()) + gradient) < 1.15
    assert loss.requires_grad


def test_small_memory_takes_fewer_rows_and_never_less_than_one() -> None:
    shape = SHAPES["llama"]
    model = LanguageModel(Trunk(shape))
    per_token, held = shape.activation_bytes(96, 2), 20 * shape.parameters
    most: Any = {"time": 96, "at_most": 5000}
    assert make_room(model, device=Device("cpu", torch.bfloat16, memory=64 * GIB), **most) == 5000
    tight = Device("cpu", torch.bfloat16, memory=2 * (held + 1000 * per_token))
    assert make_room(model, device=tight, **most) == 1000
    assert make_room(model, device=tight, beside=1, **most) < 1000
    assert make_room(model, LanguageModel(Trunk(shape)), device=tight, **most) < 800
    assert tokens_that_fit(shape, 96, tight.memory, 2, processes=2) == 1000 + held // 2 // per_token
    assert not model.trunk.recompute
    assert make_room(model, device=Device("cpu", torch.bfloat16, memory=1), **most) == 96
    shared = LanguageModel(Trunk(shape))
    adapter.adapt(shared, rank=1, alpha=1.0, rng=generator("adapters"))
    roomier = make_room(shared, shared, device=tight, beside=2, **most)
    assert roomier == tokens_that_fit(shape, 96, tight.memory, 2, trained=0, frozen=1) > 1000, "of adapters one is held"


def test_layers_are_computed_again_only_where_not_one_row_would_fit() -> None:
    shape = SHAPES["llama"]
    policy, critic = LanguageModel(Trunk(shape)), LanguageModel(Trunk(shape))
    held, most = 40 * shape.parameters, {"time": 96, "at_most": 5000}
    for tokens, recompute in ((96, False), (95, True)):
        device = Device("cpu", torch.bfloat16, memory=2 * (held + tokens * shape.activation_bytes(96, 2)))
        fit = make_room(policy, critic, device=device, **most)
        assert policy.trunk.recompute is critic.trunk.recompute is recompute
    assert fit == 95 * shape.activation_bytes(96, 2) // shape.activation_bytes(96, 2, recompute=True) > 96


@pytest.mark.parametrize("name", ["grouped", "gpt2"])
def test_layers_computed_again_give_the_same_bits(name: str) -> None:
    shape = SHAPES[name]
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("memory"))
    ids = torch.randint(shape.vocab, (4, 97), generator=generator("ids"))
    found = []
    for recompute in (False, True):
        model.trunk.recompute = recompute
        model.zero_grad()
        loss, _ = next_token_loss(model(ids[:, :-1]), ids[:, 1:], torch.ones(4, 96))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
