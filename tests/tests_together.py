"""What each of two processes does in the tests of palate/train/distributed.py: `python tests_together.py FOLDER`, with
RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set as torchrun sets them. What it finds it leaves in FOLDER."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate import ranks
from palate.batches.packed import Packed
from palate.device import Device, generator
from palate.errors import NotFinite
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.train import distributed, resume
from palate.train.update import Learner, Update, update

SHAPE = Shape(vocab=50, layers=2, dim=16, heads=2, kv_heads=1, hidden=33, context=16, feed_forward="gelu")
"""An odd number of hidden units: the two processes hold shards of different size."""
WAYS = {
    "plain": Device("cpu", torch.float32, shard=False),
    "rounded": Device("cpu", torch.bfloat16, shard=False),
    "sharded": Device("cpu", torch.float32, shard=True),
    "sharded, rounded": Device("cpu", torch.bfloat16, shard=True),
}
STEPS = 3
KINDS = ("sgd", "adamw")
LR = {torch.optim.SGD: 1.0, torch.optim.AdamW: 1e-3}


def make(kind: str, device: Device) -> Learner:
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("together"))
    return Learner.make(kind, model, device, weight_decay=0.1)


def batch(step: int, rows: int = 7) -> Packed:
    """Rows whose weights differ much, so that a mean of means is another step."""
    rng = generator("rows", step)
    ids = torch.randint(50, (rows, 17), generator=rng)
    weights = torch.rand(rows, 16, generator=rng) * torch.tensor([1.0, 0.1, 1.0, 0.0, 1.0, 0.1, 1.0])[:rows, None]
    return Packed(ids[:, :-1], ids[:, 1:], weights, torch.ones(rows, 16, dtype=torch.long))


def step(learner: Learner, number: int, *, max_norm: float = 0.1, rows: int = 7, spoil: float = 1.0) -> Update:
    """One step over this process's share of the rows, two at a time: of 7 rows the leader has 4 (two micro-batches
    of two), the other 3 (of two and of one), of 5 rows three against two: two micro-batches against one."""

    def objective(part: Packed) -> tuple[Tensor, Tensor]:
        model = learner.model
        loss, weight = next_token_loss(model.head(model.trunk(part.ids, part.segments)), part.targets, part.weights)
        return loss * spoil, weight

    whole = batch(number, rows)
    own = whole.rows(distributed.share(range(len(whole.ids))))
    return update(
        learner, own.split(2), objective, lr=LR[type(learner.optimizer)], max_norm=max_norm, name=f"step {number}"
    )


def train(learner: Learner, first: int, last: int) -> list[tuple[float, float, float]]:
    told = [step(learner, number, rows=5 + 2 * (number % 2)) for number in range(first, last + 1)]
    return [(t.loss, t.grad_norm, t.weight) for t in told]


def weights(learner: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learner.weights().items()}


# --- what the two do -------------------------------------------------------------------------------------------------


def verbs() -> dict[str, Any]:
    rank = ranks.rank()

    def squares(items: Any) -> list[tuple[int, int]]:
        return [(item, item**2) for item in items]

    found: dict[str, Any] = {
        "share": distributed.share(range(5)),
        "empty share": distributed.share([0]),
        "total": distributed.total(0.1 + rank, 1.0),
        "gather": distributed.gather(["a", "b"] if rank == 0 else ["c"]),
        "parts": distributed.in_parts(range(5), squares),
        "none": distributed.in_parts([7], squares),
    }
    parameters = [torch.zeros(n, requires_grad=True) for n in (3, 2, 4, 1)]
    for number, parameter in enumerate(parameters[:3]):  # nobody has a gradient of the last
        if number != 1 or rank == 1:
            parameter.grad = torch.full_like(parameter, 10.0**number * (rank + 1))
    distributed.BUCKET = 4
    distributed.sum_gradients(parameters)
    return found | {"gradients": [p.grad if p.grad is None else p.grad.tolist() for p in parameters]}


def steps(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for way, device in WAYS.items():
        for kind in KINDS:
            learner = make(kind, device)
            told = train(learner, 1, STEPS)
            (folder / way / kind).mkdir(parents=True, exist_ok=True)
            resume.save(folder / way / kind, STEPS, {"it": learner})
            told += train(learner, STEPS + 1, 2 * STEPS)
            found[way, kind] = told, weights(learner), len(learner._shards)
            if device.shard:
                with distributed.gathered(learner.model), torch.no_grad():
                    for _ in range(1 + ranks.rank()):  # as often as each likes
                        found[way, kind, "logits"] = learner.model(batch(0).ids)
                learner.whole()
                found[way, kind, "whole"] = {n: p.detach() for n, p in learner.model.named_parameters()}
    return found


def alone_to_two(folder: Path) -> dict[str, Any]:
    """Going on from what one process saved."""
    found = {}
    for way in ("plain", "sharded"):
        for kind in KINDS:
            learner = make(kind, WAYS[way])
            assert resume.load(folder / "alone" / kind, {"it": learner})[0] == STEPS
            train(learner, STEPS + 1, 2 * STEPS)
            found[way, kind] = weights(learner)
    return found


def refusals() -> dict[str, Any]:
    found: dict[str, Any] = {}
    learner = make("sgd", WAYS["plain"])
    before = weights(learner)
    try:
        step(learner, 1, spoil=math.nan if ranks.rank() == 1 else 1.0)
    except NotFinite as error:
        found["not finite"] = str(error)
    found["nothing moved"] = all(torch.equal(value, before[name]) for name, value in learner.weights().items())
    found["one row"] = step(learner, 1, rows=1).weight
    try:
        step(make("sgd", WAYS["sharded"]), 1, rows=1)
    except ValueError as error:
        found["too few rows"] = str(error)
    return found


def two(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the leader and the other one found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **given, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate()[1] for process in processes]  # who loses the other ends by itself
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    first, second = (torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1))
    return first, second


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    distributed.orders()
    made = {"verbs": verbs(), "steps": steps(place), "alone to two": alone_to_two(place), "refusals": refusals()}
    torch.save(made, place / f"rank-{ranks.rank()}.pt")
    distributed.leave()
