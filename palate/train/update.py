"""The one place where gradients become a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from palate.errors import NotFinite

B = TypeVar("B")


@dataclass(frozen=True)
class Learner:
    """A model and its optimizer, nothing more."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


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
        losses += loss.item()
        weights += weight.item()
    if weights == 0:
        raise ValueError(f"{name}: every target has weight 0; check the loss weights made by the batch builder.")
    parameters = [p for p in learner.model.parameters() if p.grad is not None]
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.div_(weights)
    norm = nn.utils.clip_grad_norm_(parameters, max_norm).item()
    if not (math.isfinite(losses) and math.isfinite(norm)):
        learner.optimizer.zero_grad(set_to_none=True)
        raise NotFinite(
            f"{name}: the loss is {losses / weights:.4g} and the gradient norm {norm:.4g}, so nothing was updated. "
            f"Lower the peak learning rate or look at this batch."
        )
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    return Update(losses / weights, norm, weights)
