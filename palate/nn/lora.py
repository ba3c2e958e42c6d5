"""Low-rank adapters (Hu et al. 2021, "LoRA", eq. 3): W stays as it is, and B A beside it learns.

h = W x + alpha / rank * B A x,    A (rank, inputs) at random, B (outputs, rank) zero: nothing changes at first
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.nn.linear import Linear

M = TypeVar("M", bound=nn.Module)


class Adapted(nn.Module):
    """A linear layer that stays as it is, with adapters beside it.

    Where one matrix of ours is several on disk (queries, keys, values), each of the `parts`, which are numbers of
    rows, has an adapter of its own: A (parts * rank, inputs) holds theirs one below the other, B (outputs, rank) too.
    """

    def __init__(self, frozen: Linear, parts: Sequence[int], *, rank: int, scale: float) -> None:
        super().__init__()
        assert sum(parts) == frozen.out_features, (parts, frozen.out_features)
        self.frozen, self.parts, self.rank, self.scale = frozen, list(parts), rank, scale
        self.A = nn.Parameter(frozen.weight.new_zeros(len(self.parts) * rank, frozen.in_features))
        self.B = nn.Parameter(frozen.weight.new_zeros(frozen.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.A.dtype)
        inner = torch.split(F.linear(x, self.A) * self.scale, self.rank, dim=-1)
        beside = [F.linear(part, rows) for part, rows in zip(inner, torch.split(self.B, self.parts), strict=True)]
        plain: Tensor = self.frozen(x)
        return plain + (beside[0] if len(beside) == 1 else torch.cat(beside, dim=-1))

    @property
    def weight(self) -> Tensor:
        """The matrix that x could be multiplied with instead, made anew each time: decoding reads it once a batch."""
        return (self.frozen.weight.float() + self.product()).to(self.A.dtype)

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return self.frozen.bias

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(A, B) of each part: (rank, inputs), (rows, rank)."""
        return list(zip(torch.split(self.A, self.rank), torch.split(self.B, self.parts), strict=True))

    def product(self) -> Tensor:
        """alpha / rank * B A (outputs, inputs) in float32: what training added to the weight."""
        return self.scale * torch.cat([b.float() @ a.float() for a, b in self.pairs()])


def adapt(model: nn.Module, parts: dict[str, tuple[int, ...]], *, rank: int, scale: float) -> None:
    """Freeze everything in `model` and put adapters beside the layers named in `parts`."""
    model.requires_grad_(requires_grad=False)
    for name, rows in parts.items():
        above, _, last = name.rpartition(".")
        layer = model.get_submodule(name)
        assert isinstance(layer, Linear), name
        setattr(model.get_submodule(above), last, Adapted(layer, rows, rank=rank, scale=scale))


def initialise(model: nn.Module, rng: torch.Generator) -> None:
    """A uniform within 1/sqrt(inputs), as the paper's code has it, and B zero."""
    for _, layer in adapters(model):
        bound = 1 / math.sqrt(layer.A.shape[1])
        with torch.no_grad():
            layer.A.copy_(torch.empty(layer.A.shape).uniform_(-bound, bound, generator=rng))
            layer.B.zero_()


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """Every adapted layer with its name."""
    for name, layer in model.named_modules():
        if isinstance(layer, Adapted):
            yield name, layer


def adapted(model: nn.Module) -> bool:
    """Whether adapters learn and the network itself does not."""
    return next(adapters(model), None) is not None


@torch.no_grad()
def merge(learned: nn.Module, into: nn.Module) -> None:
    """Add what the adapters of `learned` learned to the weights of `into`, which is the network they sit on."""
    for name, layer in adapters(learned):
        plain = into.get_submodule(name)
        assert isinstance(plain, Linear), name
        plain.weight += layer.product()


def twin(model: M) -> M:
    """A copy that learns by itself and shares everything that is frozen: of one base there is one in memory, however
    many adapters learn on it (Santacroce et al. 2023, "Efficient RLHF", section 3)."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})
