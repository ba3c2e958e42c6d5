"""What several processes do together, one device each; with one process every verb is nothing.

Each process takes its share of a step's rows. Losses, weights and gradients are *sums*, so they are added over the
processes before the one division in `update`: the step is that of one process with the whole batch, up to the order of
additions, however uneven the shares are. (torch's DistributedDataParallel averages means, which is another step as soon
as shares weigh differently, and it would average the rounded gradients, not the masters'.)

A model that does not fit is sharded (`shard`): FSDP2 (Zhao et al. 2023, "PyTorch FSDP"), which is ZeRO's third stage
(Rajbhandari et al. 2020), gathers a block's matrices when it runs and keeps a process's rows of them, in float32,
otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from palate import ranks
from palate.device import Device

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(hours=1)
"""How long one process waits for the others inside a stage, where the leader at most writes a model meanwhile."""
POLL_SECONDS = 0.1
BUCKET = 2**23
"""Numbers added up in one message (32 MiB): below, the start of a message counts, above, only memory."""


# --- the group and the leader's orders -------------------------------------------------------------------------------


@functools.cache
def _store() -> Store:
    """Where the processes leave each other notes. Opening it starts their group."""
    store, rank, world = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    return PrefixStore("palate", store)


@functools.cache
def orders() -> Orders:
    """The leader's orders, of which there is one series."""
    return Orders()


class Orders:
    """What the leader has the others do. They may wait for it for days (people rank), which no collective would."""

    def __init__(self) -> None:
        self.store, self.number = _store(), 0

    def give(self, order: dict[str, Any]) -> None:
        """Tell all others."""
        self.store.set(f"order {self.number}", json.dumps(order))
        self.number += 1

    def take(self) -> dict[str, Any]:
        """The next order, however long it takes to come."""
        while not self.store.check([f"order {self.number}"]):
            time.sleep(POLL_SECONDS)
        self.number += 1
        return dict(json.loads(self.store.get(f"order {self.number - 1}")))


def leave() -> None:
    """All are done: end the group together."""
    total(0.0)  # whoever keeps the notes leaves last
    gc.collect()  # a sharded model holds on to the group in cycles; freed after it, it would abort the process
    dist.destroy_process_group()
    _store.cache_clear()
    orders.cache_clear()


def first_to_fail() -> bool:
    """Whether no other process has failed before this one: the first says why, the others only lost it."""
    try:
        return int(_store().add("failed", 1)) == 1
    except (RuntimeError, ValueError):  # the notes went with their keeper
        return False


# --- shares and sums -------------------------------------------------------------------------------------------------


def share(items: Sequence[T]) -> list[T]:
    """This process's part of `items`, every world-th; it may be empty."""
    return list(items[ranks.rank() :: ranks.world()])


def total(*numbers: float) -> tuple[float, ...]:
    """Each number added up over the processes."""
    if ranks.world() == 1:
        return numbers
    together = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(together)
    return tuple(together.tolist())


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, the leader's first."""
    if ranks.world() == 1:
        return list(items)
    found: list[list[T]] = [[] for _ in range(ranks.world())]
    dist.all_gather_object(found, list(items))
    return [item for part in found for item in part]


def add_up(values: Tensor) -> Tensor:
    """`values` of all processes added up, in place."""
    if ranks.world() > 1:
        dist.all_reduce(values)
    return values


def in_parts(items: Sequence[T], of: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """of(items), one result each, made in parts: a process asks for the part that is its own. What `of` makes of an
    item must not depend on the others, as replies do not whose seeds come with them."""
    start, end = (len(items) * rank // ranks.world() for rank in (ranks.rank(), ranks.rank() + 1))
    return gather(of(items[start:end]))


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the gradients over the processes. One that had no rows adds zeros; without any gradient there is none."""
    if ranks.world() == 1 or not parameters:
        return
    seen = add_up(torch.tensor([float(p.grad is not None) for p in parameters])).tolist()
    gradients = []
    for parameter, somewhere in zip(parameters, seen, strict=True):
        if somewhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = add_up(torch.cat([g.flatten() for g in bucket]))
        for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """The tensors in runs of at most BUCKET numbers and of one dtype; a larger one is a run by itself."""
    runs: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        size += tensor.numel()
        if not runs or size > BUCKET or runs[-1][0].dtype != tensor.dtype:
            runs.append([])
            size = tensor.numel()
        runs[-1].append(tensor)
    return runs


# --- models that do not fit ------------------------------------------------------------------------------------------


def must_shard(model: nn.Module, device: Device) -> bool:
    """Whether `model` is to be trained in shards: the recipe says so, or on a GPU its weights, gradients, masters and
    Adam's moments are more than two fifths of the free memory of any process. (The rest is for activations, and for
    PPO's second model.) Always False with one process."""
    if ranks.world() == 1:
        return False
    if device.shard is not None:
        return device.shard
    if device.kind != "cuda":
        return False
    # In the working dtype weights and gradients; in float32 masters, their gradients (if rounded) and two moments.
    each = 16 if device.dtype == torch.float32 else 20
    needs = each * sum(p.numel() for p in model.parameters() if p.requires_grad)
    return total(float(needs > 0.4 * torch.cuda.mem_get_info()[0]))[0] > 0


def shard(model: nn.Module, device: Device) -> None:
    """Split the matrices of the blocks of `model`, which is float32 still, over the processes by rows.

    What a device would not round stays whole everywhere (vectors: few, and read in float32), and so do embedding and
    head, which are used outside any one module's forward pass. Gradients of the shards are summed, not averaged.
    """
    trunk = model.trunk
    world = dist.group.WORLD
    assert isinstance(trunk, nn.Module) and isinstance(trunk.blocks, nn.ModuleList) and world is not None
    mesh = DeviceMesh.from_group(world, device.kind)
    # Modules cast what they read themselves; the residual stream between blocks stays float32.
    policy = MixedPrecisionPolicy(param_dtype=device.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    frozen = [p for p in trunk.parameters() if p.dim() < 2 or not p.requires_grad]
    for block in trunk.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=set(frozen))
    rest = {p for p in trunk.parameters() if not isinstance(p, DTensor)}
    fully_shard(trunk, mesh=mesh, mp_policy=policy, ignored_params=rest)  # the root: the next block is gathered ahead
    register_fsdp_forward_method(trunk, "run")
    for part in _sharded(model):
        part.set_force_sum_reduction_for_comms(enable=True)
        part.set_gradient_divide_factor(1.0)


def parts(model: nn.Module) -> int:
    """How many processes hold `model` together: 1 when each holds all of it."""
    return ranks.world() if _sharded(model) else 1


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


@contextlib.contextmanager
def gathered(*models: nn.Module) -> Iterator[None]:
    """Inside, sharded models are whole in the working dtype on every process, so that each may run them as often as
    it likes (in steps of their own they must all run them together). All must enter and leave together."""
    sharded = [part for model in models for part in _sharded(model)]
    for part in sharded:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def is_shard(parameter: Tensor) -> bool:
    """Whether this process holds only rows of it."""
    return isinstance(parameter, DTensor)


def rows(parameter: Tensor) -> Tensor:
    """The rows that this process holds, which share its memory; all of them when it is no shard."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def whole(own: Tensor, like: Tensor) -> Tensor:
    """What `own` is this process's rows of, laid out as `like` is: on the CPU of the leader; the others get its shape
    alone (a meta tensor), so that one of them needs the memory. `own` itself when `like` is no shard. All must ask."""
    if not isinstance(like, DTensor):
        return own
    laid = DTensor.from_local(own, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
    return laid.full_tensor().to("cpu" if ranks.leads() else "meta")


def rows_of(whole: Tensor, like: Tensor) -> Tensor:
    """The other way: what this process holds of the leader's `whole`. All must ask."""
    if not isinstance(like, DTensor):
        return whole
    own, size = like.to_local(), -(-len(like) // ranks.world())
    pieces = None
    if ranks.leads():
        padded = own.new_zeros(size * ranks.world(), *like.shape[1:])
        padded[: len(whole)] = whole
        pieces = list(torch.split(padded, size))
    mine = own.new_empty(size, *like.shape[1:])
    dist.scatter(mine, pieces, src=0)
    return mine[: len(own)]


def equally_many(pieces: Iterable[T]) -> Iterator[tuple[T, int]]:
    """The micro-batches of a sharded model's step, each with 1: all processes must run it equally often, so one that
    has fewer repeats its last with 0, for nothing. Raises ValueError when one has none."""
    own = list(pieces)
    counts = gather([len(own)])
    if min(counts) == 0:
        raise ValueError(
            f"a step of this size leaves one of {ranks.world()} processes without rows, and a sharded model needs all: "
            f"make the batch larger or set hardware.shard = false."
        )
    yield from ((piece, 1) for piece in own)
    yield from ((own[-1], 0) for _ in range(max(counts) - len(own)))
