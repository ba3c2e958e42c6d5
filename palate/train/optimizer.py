"""Optimizers by name."""

from __future__ import annotations

import math
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


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
    networks"), at the size of AdamW's updates (Liu et al. 2025, arXiv:2502.16982, eq. 4).

    The same numbers as torch's own, which goes through its matrices one by one: the products of small ones take less
    time than launching them, so matrices of one shape go together (2.2 times faster at 4 layers of 128, 1.4 at 8 of
    512).
    """

    MOMENTUM = 0.95
    """The paper's, with Nesterov's look ahead."""
    AT_ONCE = 2**26
    """Numbers that are stacked in one go: more are no faster, and copies take memory."""

    def __init__(self, matrices: Iterable[Tensor], weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                some = max(1, self.AT_ONCE // shape.numel())
                for start in range(0, len(matrices), some):
                    self._step(matrices[start : start + some], group["lr"], group["weight_decay"])

    def _step(self, matrices: list[Tensor], lr: float, weight_decay: float) -> None:
        """One step of matrices of one shape."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - self.MOMENTUM)
        ahead = torch.stack([gradient.lerp(m, self.MOMENTUM) for gradient, m in zip(gradients, momenta, strict=True)])
        size = 0.2 * math.sqrt(max(matrices[0].shape))
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        for matrix, update in zip(matrices, orthogonal(ahead), strict=True):
            matrix.add_(update, alpha=-lr * size)


def orthogonal(matrices: Tensor) -> Tensor:
    """U V^T of each matrix' singular value decomposition, roughly: singular values between about 0.7 and 1.2. Five
    steps of a Newton-Schulz iteration in bfloat16, whose coefficients rise steepest at 0 (Jordan et al. 2024).

    matrices (count, rows, columns) -> bfloat16 of that shape.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices inside the blocks, AdamW for embeddings, heads and norms, with one learning rate."""

    def __init__(self, parameters: Mapping[str, Tensor], weight_decay: float) -> None:
        inside = {name: p for name, p in parameters.items() if p.dim() == 2 and ".blocks." in f".{name}"}
        others = [p for name, p in parameters.items() if name not in inside]
        self.muon = Muon(inside.values(), weight_decay)
        self.adamw = torch.optim.AdamW(_groups(others, weight_decay), lr=0.0, betas=(0.9, 0.95), fused=True)
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.muon.step()
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
