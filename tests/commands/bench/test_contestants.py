"""That both sides do the same work, and every measurement end to end at a tiny size."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.commands.bench import cost, generation, gpu, harness, peers, ppo, reward, shakespeare, train
from palate.commands.bench.harness import Record, Turn
from palate.commands.bench.shakespeare import Race
from palate.commands.bench.train import Workload

TINY = Workload(layers=1, dim=16, heads=2, hidden=44, context=16, vocab=32, rows=2, steps=2)


@pytest.mark.parametrize("name", train.WORKLOADS)
def test_parameters_are_the_same_within_a_hundredth(name: str) -> None:
    shape = train.WORKLOADS[name].shape
    for network in peers.NETWORKS.values():
        count = sum(p.numel() for p in network(shape).parameters())
        assert count == pytest.approx(shape.parameters, rel=0.01)


def test_llama_is_exactly_our_shape() -> None:
    shape = train.WORKLOADS["c"].shape
    assert sum(p.numel() for p in peers.Llama(shape).parameters()) == shape.parameters


def test_the_plain_gpt_looks_back_only() -> None:
    torch.manual_seed(0)
    network = peers.Gpt(TINY.shape)
    ids = torch.randint(32, (2, 16))
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 32
    before, after = network(ids), network(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_a_peers_step_is_adamw_on_the_clipped_gradient_of_the_cross_entropy() -> None:
    """By hand, with torch's plain AdamW, from the same weights."""
    torch.manual_seed(0)
    rows = torch.randint(32, (3, 17))
    network, copy = peers.Gpt(TINY.shape), peers.Gpt(TINY.shape)
    copy.load_state_dict(network.state_dict())
    adamw = peers.optimizer(network, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
    step = peers.trainer(network, adamw, dtype="float32", compiled=False, max_norm=0.1)
    by_hand = torch.optim.AdamW(
        [
            {"params": [p for p in copy.parameters() if p.dim() == 2], "weight_decay": 0.1},
            {"params": [p for p in copy.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for _ in range(2):
        logp = copy(rows[:, :-1]).log_softmax(dim=-1)
        loss = -logp.gather(-1, rows[:, 1:, None]).mean()
        by_hand.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in copy.parameters() if p.grad is not None))
        assert norm > 0.1
        for p in copy.parameters():
            assert p.grad is not None
            p.grad.mul_(0.1 / norm)
        by_hand.step()
        assert step(rows) == pytest.approx(loss.item(), abs=1e-5)
    for ours, theirs in zip(network.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_crops_are_runs_of_the_text() -> None:
    rows = peers.crops(np.arange(100, dtype=np.uint16), 5, 8)
    assert rows.shape == (5, 9)
    assert (rows.diff(dim=1) == 1).all()


def test_flops_and_share_by_hand() -> None:
    """2 tokens/s of 6 * 1,000 + 12 * 1 * 16 * 16 operations on a machine that does 0.1 TFLOP/s in bfloat16."""
    told = {"parameters": 1_100.0, "matrix_parameters": 1_000.0, "bfloat16": 1.0}
    record = Record(Turn(1.0, 1.0), Turn(1.0, 1.0), [Turn(TINY.tokens / 2e6, 1.0, told)] * 5)
    found = train.told(TINY, record, {"float32": 0.5, "bfloat16": 0.1})
    assert found["tokens_per_second"] == 2_000_000
    assert found["share_of_ceiling"] == round(2e6 * (6 * 1000 + 12 * 16 * 16) / 0.1e12, 3) == 0.181
    assert found["products"] == "bfloat16"


def test_our_flops_are_the_shapes_own_formula() -> None:
    work = train.WORKLOADS["b"]
    size = train._size(peers.Llama(work.shape), bfloat16=True)
    flops = 6 * size["matrix_parameters"] + 12 * work.layers * work.dim * work.context
    assert flops == work.shape.flops_per_token(work.context)
    learned = train._size(peers.Gpt(work.shape), bfloat16=True)
    assert learned["parameters"] - learned["matrix_parameters"] == work.context * work.dim


def few(monkeypatch: pytest.MonkeyPatch, module: Any, *, without: tuple[str, ...] = ()) -> None:
    """Only some contestants: compiling takes minutes."""
    every = module._orders
    monkeypatch.setattr(
        module, "_orders", lambda work: {n: o for n, o in every(work).items() if not n.endswith(without)}
    )


@pytest.mark.soak
def test_train_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, train, without=("compiled", "matmul_float32", "matmul_bfloat16"))
    monkeypatch.setattr(harness, "ceiling", lambda records, dtype: 1.0)
    found = train.measure(TINY, 5)
    assert set(found["contestants"]) == {
        "palate", "palate_documents", "gpt_float32", "gpt_bfloat16", "llama_float32", "llama_bfloat16",
    }  # fmt: skip
    assert all(row["tokens_per_second"] > 0 and row["peak_mb"] > 50 for row in found["contestants"].values())
    ratios = found["times_faster"]["palate"]
    assert ratios["gpt_default"]["peer"] == "gpt_float32"
    assert set(ratios) == {"gpt_default", "gpt_fastest", "llama_default", "llama_fastest"}


def test_documents_are_cut_and_one_text_is_not(tmp_path: Path) -> None:
    train.write_tokens(tmp_path, vocab=32, tokens=1000, document=0)
    assert list(train.Shard(tmp_path, "train").lengths) == [1000]
    train.write_tokens(tmp_path, vocab=32, tokens=1000, document=8)
    lengths = train.Shard(tmp_path, "train").lengths
    assert 900 < lengths.sum() <= 1000 and lengths.min() >= 4 and lengths.max() <= 12


def test_cost_end_to_end() -> None:
    found = cost.measure(replace(TINY, document=8), (2_000, 4_000), 5)
    assert list(found["contestants"]) == ["corpus of 2,000 tokens", "corpus of 4,000 tokens"]
    assert found["times_faster"]["corpus of 2,000 tokens"] == {"ratio": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.soak
def test_generate_end_to_end() -> None:
    found = generation.measure(
        generation.Workload(batch=2, layers=1, dim=16, heads=2, hidden=44, vocab=32, prompt=3, new=4), 5
    )
    assert set(found["contestants"]) == {"palate", "transformers_float32", "transformers_bfloat16"}
    assert all(row["tokens_per_second"] > 0 for row in found["contestants"].values())


def test_replies_that_end_are_counted_to_their_end() -> None:
    """Each side's tokens a turn: near what a uniform choice says, for a model that knows nothing."""
    work = generation.Workload(
        batch=200, layers=1, dim=16, heads=2, hidden=44, vocab=40, prompt=2, longest=9, new=12, stops=4, together=64
    )  # fmt: skip
    orders: dict[str, harness.Order] = {
        "palate": (f"{generation.__name__}:ours", {"workload": generation.asdict(work)}),
        "peer": (f"{generation.__name__}:transformers", {"workload": generation.asdict(work), "dtype": "float32"}),
    }
    with harness.workers(orders) as contestants:
        records = harness.take_turns(contestants, 5)
    goes_on = 1 - work.stops / work.vocab
    expected = work.batch * sum(goes_on**step for step in range(work.new))
    for record in records.values():
        assert record.told("tokens") == pytest.approx(expected, rel=0.1)


@pytest.mark.soak
def test_gpu_end_to_end_on_a_cpu() -> None:
    sizes = gpu.Sizes(
        trained={"tiny": replace(TINY, document=8)}, batches=(1, 3), prompt=4, new=5, rows=4, compiled=False
    )
    found = gpu.measure(sizes, 5)
    assert set(found["contestants"]) == {
        "tiny training", "tiny generation, 1 at once", "tiny generation, 3 at once", "tiny PPO round of 4",
    }  # fmt: skip
    assert found["contestants"]["tiny PPO round of 4"]["generation_seconds"] > 0


PPO = ppo.Workload(layers=1, dim=16, heads=2, hidden=44, vocab=32, rows=4, prompt=3, reply=5)
REWARD = reward.Workload(
    layers=1, dim=16, heads=2, hidden=44, vocab=32, prompts=4, prompts_per_step=2, prompt=3, shortest=2, longest=5
)


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed (make .venv-trl/ready)")
@pytest.mark.parametrize(("module", "workload"), [(ppo, PPO), (reward, REWARD)])
def test_against_trl_end_to_end(module: Any, workload: Any) -> None:
    found = module.measure(workload, 5)
    assert set(found["contestants"]) == {"palate", *(f"trl_{variant}" for variant in peers.TRL_VARIANTS)}


@pytest.mark.parametrize(("module", "workload"), [(ppo, PPO), (reward, REWARD)])
def test_ours_without_trl(module: Any, workload: Any) -> None:
    with harness.workers({"palate": (f"{module.__name__}:ours", {"workload": module.asdict(workload)})}) as contestants:
        (record,) = harness.take_turns(contestants, 5).values()
    assert record.seconds > 0


def test_ppos_clock_is_read_once() -> None:
    clock = ppo.Clock()
    assert clock.around(lambda a, *, b: a + b)(1, b=2) == 3
    first = clock.read()
    assert first > 0 and clock.read() == 0.0
    turn = Turn(3.0, 0.0, {"generation_seconds": 1.0})
    assert ppo._without_generation(turn) == 2.0


def test_rankings_are_six_pairs_best_first() -> None:
    members = reward.groups(REWARD)
    assert len(members) == 4 and REWARD.pairs == 6
    for group, (prompt, answers) in zip(members, REWARD.rankings(), strict=True):
        assert (group.prompt_ids, group.reply_ids) == (tuple(prompt), tuple(map(tuple, answers)))
        assert sum(map(sum, group.counted)) == 6
        assert all(group.targets[i][j] == 1.0 for i in range(4) for j in range(i + 1, 4))


# --- tiny Shakespeare -------------------------------------------------------------------------------------------------

RACE = Race(
    layers=1, dim=16, heads=2, hidden=44, context=16, rows=2, warmup=1, compiled=False,
    peer_layers=1, peer_dim=16, peer_heads=2, peer_rows=2, peer_steps=12, slice=2,
)  # fmt: skip


@pytest.mark.soak
def test_shakespeare_end_to_end() -> None:
    text = "to be or not to be, that is the question: " * 30
    found = shakespeare.measure(text, RACE, seed=1, repeats=5)
    ours, theirs = found["contestants"]["palate"], found["contestants"]["nanogpt"]
    assert theirs["steps"] == 12 and ours["steps"] >= 2
    assert 0 < ours["nats_per_character"] < 5 and 0 < theirs["nats_per_character"] < 5
    assert found["within_the_peers_seconds"] == (ours["training_seconds"] <= theirs["training_seconds"])


def test_whoever_is_behind_is_next() -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def go(self) -> Turn:
            order.append(self.name)
            return Turn(1.0, 0.0)

    taken = shakespeare.side_by_side({"a": Named("a"), "b": Named("b")}, {"a": 2, "b": 4})
    assert "".join(order) == "abbabb" + "ab"
    assert {name: len(turns) for name, turns in taken.items()} == {"a": 3, "b": 5}


def test_warming_up_is_told_apart() -> None:
    turns = [Turn(9.0, 0.0), Turn(1.0, 0.0), Turn(2.0, 0.0), Turn(7.0, 0.0, {"nats": 1.5, "parameters": 8.0})]
    assert shakespeare._told(Turn(3.0, 0.0), turns, 6) == {
        "nats_per_character": 1.5, "training_seconds": 4.5, "warm_up_seconds": 10.5, "steps": 6, "parameters": 8,
    }  # fmt: skip


@pytest.mark.parametrize("length", [17, 33, 50])
def test_every_character_but_the_first_is_predicted_once(length: int) -> None:
    """A network that is sure of position + 1 is right about nothing but the places in a window."""
    tokens = torch.arange(length) % 16

    def logits(windows: torch.Tensor) -> torch.Tensor:
        seen = torch.arange(windows.shape[1]).expand_as(windows)
        assert torch.equal(windows, seen)  # windows of 16 begin where the text's period does
        return torch.nn.functional.one_hot((windows + 1) % 16, 16) * 2.0

    right = -math.log(math.exp(2.0) / (math.exp(2.0) + 15))
    assert shakespeare.nats_per_character(logits, tokens, 16) == pytest.approx(right)


def test_nanogpts_learning_rate() -> None:
    assert shakespeare.nanogpt_lr(0, 2000) == pytest.approx(1e-3 / 101)
    assert shakespeare.nanogpt_lr(100, 2000) == pytest.approx(1e-3)
    assert shakespeare.nanogpt_lr(1050, 2000) == pytest.approx((1e-3 + 1e-4) / 2)
    assert shakespeare.nanogpt_lr(1999, 2000) == pytest.approx(1e-4, rel=1e-2)
