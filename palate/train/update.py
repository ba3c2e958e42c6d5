"""The one place where gradients become a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor, nn

from palate.device import Device
from palate.errors import NotFinite
from palate.train import optimizer as optimizers

B = TypeVar("B")


@dataclass(frozen=True)
class Learner:
    """A model and its optimizer.

    A step is often smaller than the distance between two neighbouring bfloat16 numbers, so a matrix that the model
    holds in bfloat16 has a float32 master (Micikevicius et al. 2018, "Mixed precision training", section 3.1): its
    gradients are summed there, the optimizer steps it, and the model gets it back rounded.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    masters: Mapping[str, Tensor] = field(default_factory=dict)
    """By the parameter's name; what is not here is float32 in the model itself."""

    @classmethod
    def make(cls, kind: str, model: nn.Module, device: Device, *, weight_decay: float) -> Learner:
        """`model`, which is float32 still, put on `device` with its masters and the optimizer `kind` over them."""
        whole = {name: p.detach().to(device.torch) for name, p in model.named_parameters() if p.requires_grad}
        device.put(model)
        own = dict(model.named_parameters())
        masters = {name: value for name, value in whole.items() if own[name].dtype != value.dtype}
        trained = {name: masters.get(name, own[name]) for name in whole}
        return cls(model, optimizers.make(kind, trained, weight_decay=weight_decay), masters)

    @cached_property
    def _rounded(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Every parameter that has a master, and that."""
        own = dict(self.model.named_parameters())
        return [(own[name], master) for name, master in self.masters.items()]

    @property
    def parameters(self) -> list[Tensor]:
        """What the optimizer steps."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def gather(self) -> None:
        """Add the gradients of rounded parameters to their masters'."""
        for parameter, master in self._rounded:
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def spread(self) -> None:
        """Give the model its masters' values, rounded."""
        for parameter, master in self._rounded:
            parameter.copy_(master)

    def weights(self) -> dict[str, Tensor]:
        """Every trained number by its parameter's name, in float32; not copies."""
        own = self.model.named_parameters()
        return {name: self.masters.get(name, p.detach()) for name, p in own if p.requires_grad}

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `weights` gave. Raises ValueError when they are another network's."""
        own = self.weights()
        if own.keys() != weights.keys() or any(own[name].shape != weights[name].shape for name in own):
            raise ValueError("the weights are another network's")
        for name, value in own.items():
            value.copy_(weights[name])
        self.spread()

    def whole(self) -> None:
        """Put the masters themselves into the model, for saving. Training ends with this."""
        for parameter, master in self._rounded:
            parameter.data = master


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
    more micro-batches never changes the gradient, however uneven the rows are. Raises NotFinite before the step.
    """
    losses, weights = 0.0, 0.0
    for micro_batch in micro_batches:
        loss, weight = objective(micro_batch)
        loss.backward()  # type: ignore[no-untyped-call]
        learner.gather()
        losses += loss.item()
        weights += weight.item()
    if weights == 0:
        raise ValueError(f"{name}: every target has weight 0; check the loss weights made by the batch builder.")
    gradients = [p.grad for p in learner.parameters if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).item() / weights
    if not (math.isfinite(losses) and math.isfinite(norm)):
        learner.optimizer.zero_grad(set_to_none=True)
        raise NotFinite(
            f"{name}: the loss is {losses / weights:.4g} and the gradient norm {norm:.4g}, so nothing was updated. "
            f"Lower the peak learning rate or look at this batch."
        )
    # 1e-6 is torch's own guard in clip_grad_norm_.
    torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)) / weights)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    learner.spread()
    return Update(losses / weights, norm, weights)
