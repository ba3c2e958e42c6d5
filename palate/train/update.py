"""The one place where gradients become a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from palate.device import Device
from palate.errors import NotFinite, RecipeError
from palate.train import distributed
from palate.train import optimizer as optimizers

B = TypeVar("B")


@dataclass(frozen=True)
class Learner:
    """A model and its optimizer, the same on each of several processes.

    A step is often smaller than the distance between two neighbouring bfloat16 numbers, so a matrix that the model
    holds in bfloat16 has a float32 master (Micikevicius et al. 2018, "Mixed precision training", section 3.1): its
    gradients are summed there, the optimizer steps it, and the model gets it back rounded. Of a sharded model
    (palate/train/distributed.py) the masters are the rows that this process holds.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    masters: Mapping[str, Tensor] = field(default_factory=dict)
    """By the parameter's name; what is not here is float32 in the model itself."""

    @classmethod
    def make(cls, kind: str, model: nn.Module, device: Device, *, weight_decay: float) -> Learner:
        """`model`, which is float32 still, put on `device` with its masters and the optimizer `kind` over them."""
        shards: dict[str, Tensor] = {}
        if distributed.must_shard(model, device):
            if kind == "muon":
                raise RecipeError('a sharded model has no whole matrices for "muon": set optimizer = "adamw".')
            distributed.shard(model, device)
            shards = {n: distributed.rows(p.detach()) for n, p in model.named_parameters() if distributed.is_shard(p)}
        whole = {name: p.detach().to(device.torch) for name, p in model.named_parameters() if p.requires_grad} | shards
        device.compile(device.put(model, but=shards))
        own = dict(model.named_parameters())
        masters = {name: value for name, value in whole.items() if name in shards or own[name].dtype != value.dtype}
        trained = {name: masters.get(name, own[name]) for name in whole}
        return cls(model, optimizers.make(kind, trained, weight_decay=weight_decay), masters)

    @cached_property
    def _mastered(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter that has a master, and that."""
        own = dict(self.model.named_parameters())
        return [(own[name], master) for name, master in self.masters.items()]

    @cached_property
    def _shards(self) -> dict[int, nn.Parameter]:
        """The parameter of each master, by its identity, that is only rows of it."""
        return {id(master): parameter for parameter, master in self._mastered if distributed.is_shard(parameter)}

    @property
    def parameters(self) -> list[Tensor]:
        """What the optimizer steps."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def gather(self) -> None:
        """Add the gradients of rounded parameters to their masters'."""
        for parameter, master in self._mastered:
            if parameter.grad is None:
                continue
            gradient = distributed.rows(parameter.grad)
            if master.grad is None:
                master.grad = gradient.to(master.dtype)
            else:
                master.grad.add_(gradient)
            parameter.grad = None

    def turns(self, micro_batches: Iterable[B]) -> Iterable[tuple[B, int]]:
        """The micro-batches of a step, each with 1, or 0 when it does not count."""
        return distributed.equally_many(micro_batches) if self._shards else ((part, 1) for part in micro_batches)

    def add_up(self) -> float:
        """Add up the gradients of all processes; their norm. (Those of shards were added when they were made.)"""
        distributed.sum_gradients([p for p in self.parameters if id(p) not in self._shards])
        gradients = [p.grad for p in self.parameters if p.grad is not None and id(p) not in self._shards]
        norm = nn.utils.get_total_norm(gradients).item()
        if self._shards:
            mine = nn.utils.get_total_norm(
                [p.grad for p in self.parameters if p.grad is not None and id(p) in self._shards]
            )
            norm = math.sqrt(norm**2 + distributed.total(mine.item() ** 2)[0])
        return norm

    @torch.no_grad()
    def spread(self) -> None:
        """Give the model its masters' values, rounded."""
        for parameter, master in self._mastered:
            if not distributed.is_shard(parameter):
                parameter.copy_(master)

    def weights(self) -> dict[str, Tensor]:
        """Every trained number by its parameter's name, in float32; not copies, but of what is sharded. All processes
        must ask."""
        own = self.model.named_parameters()
        return {name: distributed.whole(self.masters.get(name, p.detach()), p) for name, p in own if p.requires_grad}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave. Raises ValueError when they are another network's."""
        own = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
            raise ValueError("the weights are another network's")
        for name, parameter in own.items():
            self.masters.get(name, parameter.detach()).copy_(distributed.rows_of(weights[name], parameter))
        self.spread()

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state_dict, as one process has it. All processes must ask."""
        return self._optimizer_state(self.optimizer.state_dict(), distributed.whole)

    def set_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take over what `optimizer_state` gave."""
        self.optimizer.load_state_dict(self._optimizer_state(state, distributed.rows_of))

    def _optimizer_state(self, state: dict[str, Any], change: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
        """`state` with what belongs to rows changed to what belongs to whole matrices, or back."""
        if not self._shards:
            return state
        changed, parameters = dict(state["state"]), self.parameters
        for number, values in changed.items():
            shard = self._shards.get(id(parameters[number]))
            if shard is not None:  # how many steps were taken is a number, and everybody's
                changed[number] = {name: change(v, shard) if v.dim() else v for name, v in values.items()}
        return {**state, "state": changed}

    def whole(self) -> None:
        """Put the masters themselves into the model, for saving. Training ends with this, on all processes."""
        whole = self.weights()
        for name, parameter in list(self.model.named_parameters()):
            if distributed.is_shard(parameter):
                place, _, leaf = name.rpartition(".")
                setattr(self.model.get_submodule(place), leaf, nn.Parameter(whole[name]))
            elif name in self.masters:
                parameter.data = self.masters[name]


@dataclass(frozen=True)
class Update:
    """What one optimizer step did: mean loss, gradient norm before clipping, total weight."""

    loss: float
    grad_norm: float
    weight: float


def update(
    learner: Learner,
    micro_batches: Iterable[B],
    objective: Callable[[B], tuple[Tensor, Tensor]],
    *,
    lr: float,
    max_norm: float,
    name: str,
) -> Update:
    """One optimizer step over several micro-batches; `name` says which batch it is in errors.

    `objective` gives (summed loss, summed weight). The step uses total loss / total weight, so cutting a batch into
    more micro-batches never changes the gradient, however uneven the rows are; nor does giving them to more processes,
    which all take the same step (or raise the same error). Raises NotFinite before the step.
    """
    losses, weights = 0.0, 0.0
    for micro_batch, counts in learner.turns(micro_batches):
        loss, weight = objective(micro_batch)
        (loss * counts).backward()  # type: ignore[no-untyped-call]
        learner.gather()
        losses += loss.item() * counts
        weights += weight.item() * counts
    losses, weights = distributed.total(losses, weights)
    if weights == 0:
        raise ValueError(f"{name}: every target has weight 0; check the loss weights made by the batch builder.")
    norm = learner.add_up() / weights
    if not (math.isfinite(losses) and math.isfinite(norm)):
        learner.optimizer.zero_grad(set_to_none=True)
        raise NotFinite(
            f"{name}: the loss is {losses / weights:.4g} and the gradient norm {norm:.4g}, so nothing was updated. "
            f"Lower the peak learning rate or look at this batch."
        )
    gradients = [p.grad for p in learner.parameters if p.grad is not None]
    # 1e-6 is torch's own guard in clip_grad_norm_.
    torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / weights)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    learner.spread()
    return Update(losses / weights, norm, weights)
