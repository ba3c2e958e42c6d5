"""Matrices held in bfloat16, their masters in float32."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from palate.batches.packed import Packed
from palate.device import Device, generator
from palate.nn.config import Shape
from palate.nn.linear import Embedding
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.train import resume
from palate.train.update import Learner, update

ROUNDED = Device("cpu", torch.bfloat16)
SHAPE = Shape(vocab=50, layers=2, dim=16, heads=2, kv_heads=1, hidden=32, context=16)


def network() -> LanguageModel:
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("masters"))
    return model


def batch(rows: int = 4) -> Packed:
    ids = torch.randint(50, (rows, 17), generator=generator("ids"))
    return Packed(ids[:, :-1], ids[:, 1:], torch.ones(rows, 16), torch.ones(rows, 16, dtype=torch.long))


def step(learner: Learner, lr: float, pieces: int = 1, rows: int = 4) -> float:
    model = learner.model

    def objective(part: Packed) -> tuple[Tensor, Tensor]:
        return next_token_loss(model(part.ids, part.segments), part.targets, part.weights)

    return update(learner, batch(rows).split(rows // pieces), objective, lr=lr, max_norm=1.0, name="x").loss


def test_what_is_rounded() -> None:
    model = ROUNDED.put(network())
    assert {p.dtype for p in model.parameters() if p.dim() >= 2} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.dim() < 2} == {torch.float32}
    assert model.head.weight is model.trunk.embed.weight, "tied stays tied"
    scorer = ROUNDED.put(ScalarModel(Trunk(SHAPE), 5))
    assert scorer.score.weight.dtype == torch.float32
    ids = batch().ids
    assert model(ids).dtype == torch.bfloat16
    assert scorer(ids).dtype == torch.float32


def test_bfloat16_computes_what_float32_computes_but_for_rounding() -> None:
    model = network()
    rounded = ROUNDED.put(copy.deepcopy(model))
    ids = batch().ids
    with torch.no_grad():
        exact, ours = model(ids), rounded(ids).float()
    assert 0 < float((exact - ours).abs().max()) < 0.03 * float(exact.std()) + 0.01


def test_steps_too_small_for_bfloat16_add_up() -> None:
    """At 1e-5 a step a weight of 0.02 moves by less than half the distance to the next bfloat16 number."""
    learner = Learner.make("adamw", network(), ROUNDED, weight_decay=0.0)
    before = {name: value.clone() for name, value in learner.weights().items()}
    losses = [step(learner, 1e-5) for _ in range(100)]
    moved = (
        learner.weights()["trunk.blocks.0.feed_forward.down.weight"] - before["trunk.blocks.0.feed_forward.down.weight"]
    )
    assert float(moved.abs().median()) > 5e-4
    assert losses[-1] < losses[0] - 0.01
    for name, parameter in learner.model.named_parameters():
        assert torch.equal(parameter.float(), learner.weights()[name].to(parameter.dtype).float()), (
            "what runs is the master, rounded"
        )


def test_gradients_are_summed_in_float32() -> None:
    """128 micro-batches of one row: bfloat16 would stop adding long before the end."""
    moved = []
    for pieces in (1, 128):
        learner = Learner.make("sgd", network(), ROUNDED, weight_decay=0.0)
        before = {name: value.clone() for name, value in learner.weights().items()}
        step(learner, 1.0, pieces=pieces, rows=128)
        moved.append(torch.cat([(value - before[name]).flatten() for name, value in learner.weights().items()]))
    assert float((moved[0] - moved[1]).norm() / moved[0].norm()) < 0.01


def test_a_token_that_comes_often_gets_its_whole_gradient() -> None:
    table = Embedding(3, 4)
    table.weight.data = table.weight.data.bfloat16()
    table(torch.ones(5000, dtype=torch.long)).sum().backward()
    assert table.weight.grad is not None
    torch.testing.assert_close(table.weight.grad[1].float(), torch.full((4,), 5000.0), rtol=2**-8, atol=0)


def test_training_ends_with_the_masters_in_the_model() -> None:
    model = network()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    learner = Learner.make("adamw", model, ROUNDED, weight_decay=0.0)
    step(learner, 0.0)
    learner.whole()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), start[name]), f"{name} was rounded"
    assert model.head.weight is model.trunk.embed.weight


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_going_on_gives_the_same_bits(tmp_path: Path, kind: str) -> None:
    whole = Learner.make(kind, network(), ROUNDED, weight_decay=0.1)
    for number in range(4):
        if number == 2:
            resume.save(tmp_path, 2, {"base": whole})
        step(whole, 1e-3)
    again = Learner.make(kind, network(), ROUNDED, weight_decay=0.1)
    assert resume.load(tmp_path, {"base": again})[0] == 2
    step(again, 1e-3)
    step(again, 1e-3)
    for name, value in whole.weights().items():
        assert torch.equal(value, again.weights()[name])
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
