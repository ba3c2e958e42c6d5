"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def make(kind: str, parameters: Mapping[str, Tensor], *, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer `kind` over float32 `parameters`, by their names in the network; the learning rate is set before
    every step.

    Matrices decay, norms and other vectors do not (Brown et al. 2020, appendix B).
    """
    return OPTIMIZERS[kind](parameters, weight_decay)


def _groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def _adamw(parameters: Mapping[str, Tensor], weight_decay: float) -> torch.optim.Optimizer:
    # betas (0.9, 0.95): Brown et al. 2020. eps 1e-8 is torch's default (Loshchilov & Hutter 2019).
    return torch.optim.AdamW(_groups(parameters.values(), weight_decay), lr=0.0, betas=(0.9, 0.95), fused=True)


def _sgd(parameters: Mapping[str, Tensor], weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(_groups(parameters.values(), weight_decay), lr=0.0, momentum=0.9, nesterov=True)


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for embeddings, heads and norms.

    One learning rate: Muon's updates are scaled to AdamW's size ("match_rms_adamw", Liu et al. 2025).
    """

    def __init__(self, parameters: Mapping[str, Tensor], weight_decay: float) -> None:
        inside = {name: p for name, p in parameters.items() if p.dim() == 2 and ".blocks." in f".{name}"}
        others = [p for name, p in parameters.items() if name not in inside]
        self.muon = torch.optim.Muon(
            list(inside.values()), lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(_groups(others, weight_decay), lr=0.0, betas=(0.9, 0.95), fused=True)
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's signature
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]


OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd, "muon": MuonAdamW}
