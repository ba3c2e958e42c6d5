"""How many tokens fit: the count of activations against what autograd keeps."""

import pytest
import torch

from palate.device import GIB, Device, generator
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.train.memory import tokens_at_once

SHAPES = {
    "llama": Shape(vocab=500, layers=3, dim=64, heads=4, kv_heads=4, hidden=192, context=96),
    "grouped": Shape(vocab=500, layers=3, dim=64, heads=4, kv_heads=2, hidden=192, context=96),
    "wide vocabulary": Shape(vocab=5000, layers=1, dim=64, heads=1, kv_heads=1, hidden=192, context=96),
    "gpt2": Shape(
        vocab=500, layers=3, dim=64, heads=4, kv_heads=4, hidden=256, context=96, norm="layer", positions="learned",
        feed_forward="gelu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_activation_bytes_are_what_autograd_keeps(name: str, dtype: torch.dtype) -> None:
    shape = SHAPES[name]
    model = LanguageModel(Trunk(shape))
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
    counted = shape.activation_bytes(96, dtype.itemsize) * 8 * 96
    assert 0.95 < counted / (sum(kept.values()) + gradient) < 1.15
    assert loss.requires_grad


def test_small_memory_takes_fewer_rows_and_never_less_than_one() -> None:
    shape = SHAPES["llama"]
    per_token, held = shape.activation_bytes(96, 2), 20 * shape.parameters
    roomy = Device("cpu", torch.bfloat16, memory=64 * GIB)
    assert tokens_at_once(shape, 96, roomy, at_most=5000) == 5000
    tight = Device("cpu", torch.bfloat16, memory=2 * (held + 1000 * per_token))
    assert tokens_at_once(shape, 96, tight, at_most=5000) == 1000
    assert tokens_at_once(shape, 96, tight, at_most=5000, frozen=1) < 1000
    assert tokens_at_once(shape, 96, tight, at_most=5000, trained=2) < 800
    assert tokens_at_once(shape, 96, tight, at_most=5000, processes=2) == 1000 + held // 2 // per_token
    assert tokens_at_once(shape, 96, Device("cpu", torch.bfloat16, memory=1), at_most=5000) == 96
