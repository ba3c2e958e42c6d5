"""One optimizer step, whatever pieces its batch comes in."""

import copy
import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from palate.batches.packed import Packed
from palate.batches.replies import Replies, lay_out
from palate.device import generator
from palate.errors import NotFinite
from palate.generate.replies import reply_logp
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.train.update import Learner, Update, update


def step(
    model: nn.Module, micro_batches: list, objective: Callable, max_norm: float = 1e9
) -> tuple[Update, dict[str, Tensor]]:
    """What one step of plain SGD at rate 1 told, and how every parameter moved: by minus its gradient."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.0))
    told = update(learner, micro_batches, objective, lr=1.0, max_norm=max_norm, name="x")
    return told, {name: p.detach() - before[name] for name, p in model.named_parameters()}


def same(one: tuple[Update, dict[str, Tensor]], other: tuple[Update, dict[str, Tensor]], within: float) -> None:
    (told, moved), (told_too, moved_too) = one, other
    assert told.weight == told_too.weight
    assert told.loss == pytest.approx(told_too.loss, rel=within)
    assert told.grad_norm == pytest.approx(told_too.grad_norm, rel=within)
    largest = max(float(change.abs().max()) for change in moved.values())
    assert largest > 1e-3, "a step that moves nothing cannot differ"
    for name in moved:
        torch.testing.assert_close(moved[name], moved_too[name], rtol=0, atol=within * max(1.0, largest))


def uneven_rows() -> Replies:
    """Eight prompts with replies of 1 to 15 tokens."""
    rng = random.Random(0)
    prompts, replies = ([[rng.randrange(50) for _ in range(n)] for n in ns] for ns in (range(1, 9), range(15, 0, -2)))
    return lay_out(prompts, replies, pad=0)


@pytest.mark.parametrize("cuts", [[1] * 8, [5, 1, 2], [7, 1]])
def test_accumulation_changes_nothing(cuts: list[int]) -> None:
    """1 x 8 = 8 x 1, through the network, in float32 to 1e-6."""
    shape = Shape(vocab=50, layers=2, dim=16, heads=2, kv_heads=1, hidden=32, context=32)
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("accumulation"))
    model.trunk.embed.weight.data *= 20
    rows = uneven_rows()

    def objective(part: Replies) -> tuple[Tensor, Tensor]:
        return -reply_logp(model, part, temperature=1.0).sum(), part.mask.sum()

    start = copy.deepcopy(model.state_dict())
    whole = step(model, [rows], objective)
    model.load_state_dict(start)
    pieces = [rows.rows(part) for part in torch.arange(8).split(cuts)]
    same(step(model, [piece.cut(piece.longest) for piece in pieces], objective), whole, 1e-6)


@pytest.mark.parametrize("max_norm", [1e9, 0.1])
def test_accumulation_changes_nothing_in_float64(max_norm: float) -> None:
    """So what float32 shows is rounding. Packed rows whose weights differ; one row has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 16), nn.Tanh(), nn.Linear(16, 50)).double()
    ids, targets = torch.randint(50, (8, 12)), torch.randint(50, (8, 12))
    weights = torch.rand(8, 12, dtype=torch.float64) * (torch.rand(8, 1) > 0.3)
    weights[3] = 0
    packed = Packed(ids, targets, weights, torch.ones_like(ids))

    def objective(part: Packed) -> tuple[Tensor, Tensor]:
        return next_token_loss(model(part.ids), part.targets, part.weights)

    start = copy.deepcopy(model.state_dict())
    whole = step(model, [packed], objective, max_norm)
    for rows in (1, 3):
        model.load_state_dict(start)
        cut = step(model, list(packed.split(rows)), objective, max_norm)
        assert cut[0].weight == pytest.approx(whole[0].weight, rel=1e-14)
        same((Update(cut[0].loss, cut[0].grad_norm, whole[0].weight), cut[1]), whole, 1e-12)
    model.load_state_dict(start)
    loss, weight = objective(packed)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss / weight, list(model.parameters()))])
    assert whole[0].grad_norm == pytest.approx(float(gradient.norm()), rel=1e-12), "before it was clipped"
    moved = torch.cat([change.flatten() for change in whole[1].values()])
    torch.testing.assert_close(moved, -gradient * min(1.0, max_norm / float(gradient.norm())), rtol=1e-4, atol=1e-15)


def test_nothing_is_left_for_the_next_step() -> None:
    model = nn.Linear(2, 1).double()
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=0.0))
    told = [
        update(learner, [torch.ones(1, 2, dtype=torch.float64)], lambda x: (model(x).sum(), torch.tensor(1.0)),
               lr=0.0, max_norm=1e9, name="x").grad_norm
        for _ in range(3)
    ]  # fmt: skip
    assert told == [told[0]] * 3


def test_a_batch_where_nothing_counts_is_refused() -> None:
    model = nn.Linear(2, 1)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(ValueError, match="sft 3: every target has weight 0"):
        update(learner, [torch.ones(1, 2)], lambda x: (0 * model(x).sum(), torch.tensor(0.0)), lr=1.0, max_norm=1.0,
               name="sft 3")  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out * math.nan).sum(),
        lambda out: (out * 0).sqrt().sum(),  # the loss is 0, its gradient is not a number
        lambda out: out.sum() * 0 + math.inf,  # the gradient is 0, the loss is infinite
    ],
    ids=["both", "gradient", "loss"],
)
def test_not_a_number_stops_before_the_step(spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = torch.nn.Linear(2, 1)
    learner = Learner(model, torch.optim.SGD(model.parameters(), lr=1.0))
    before = model.weight.clone()

    def objective(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return spoil(model(x)), torch.tensor(1.0)

    with pytest.raises(NotFinite, match="pretrain 7"):
        update(learner, [torch.ones(1, 2)], objective, lr=1.0, max_norm=1.0, name="pretrain 7")
    assert torch.equal(model.weight, before)
    assert all(parameter.grad is None for parameter in model.parameters())
