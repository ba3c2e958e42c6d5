"""A row that is decoded alone, as in a chat: one call of alone.cpp per token, where a C++ compiler is at hand.

Ours is compiled once on a machine, in a second or two, and kept in the cache. Without a compiler, or for networks that
it does not know (GPT-2's), `Decoder` goes on alone: the same up to rounding, and slower (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate.device import Device, compiled_code, compiler, processor
from palate.generate.decoder import Decoder
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel

SOURCE = Path(__file__).with_suffix(".cpp")
PLAIN = (
    "-O3", "-std=c++11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
)  # fmt: skip
"""Sums may be taken in any order, so that they use whole registers; infinities and NaN keep their meaning."""
TRIES = (("-march=native", "-fopenmp"), ("-march=native",), ())
"""What compilers may not know; the first that works is kept."""


class Alone(Decoder):
    """One place, whose steps are computed by alone.cpp. Keys and values are float32 (1, kv_heads, room, head_dim)."""

    def __init__(self, model: LanguageModel, device: Device, step: Callable[..., None]) -> None:
        self._step = step
        self._call: tuple[Any, ...] = ()
        super().__init__(model, 1, device)

    def _hold(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super()._hold(keys, values)
        self._call = ()  # they stand elsewhere now

    def step(self, token: Tensor) -> Tensor:
        """As `Decoder.step`; logits in float32."""
        if not self._call:
            self._bind()
        at, logits = int(self.position), torch.empty(1, len(self.head))
        if at >= self.room:
            raise IndexError(f"position {at} of a room of {self.room}")
        self._step(*self._call, int(token), at, logits.data_ptr())
        self.position += 1
        return logits

    def _bind(self) -> None:
        """What the call is given: sizes, and where each tensor stands."""
        shape, trunk = self.shape, self.model.trunk
        assert trunk.rotary is not None
        layers: list[Tensor | None] = []
        for block, key, value in zip(self.blocks, self.keys, self.values, strict=True):
            norms = (block.norm_attention, block.query_norm, block.key_norm, block.norm_feed_forward)
            first, query, keys, second = (None if norm is None else norm.norm.weight for norm in norms)
            layers += [first, *block.qkv, query, keys, *block.out, second, *block.up, *block.down, key, value]
        turns = (part.flatten(1).contiguous() for part in trunk.rotary.at(torch.arange(self.room)))
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        work = (shape.dim, shape.dim, wide, shape.heads * shape.head_dim, 2 * shape.hidden, shape.heads * self.room)
        rest = [trunk.embed.weight, self.norm.norm.weight, self.head, *turns, *(torch.empty(size) for size in work)]
        sizes = [shape.layers, shape.dim, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden, len(self.head)]
        sizes += [self.room, shape.window or shape.context, torch.get_num_threads()]
        self._held = (layers, rest)  # alive as long as the call knows where they stand
        self._call = (
            (ctypes.c_int64 * len(sizes))(*sizes), _pointers(layers), _pointers(rest), ctypes.c_float(shape.norm_eps)
        )  # fmt: skip


def decoder(model: LanguageModel, rows: int, device: Device) -> Decoder:
    """What decodes so many rows of `model` fastest."""
    if rows == 1 and device.kind == "cpu" and _known(model.shape):
        matrices = {parameter.dtype for parameter in model.parameters() if parameter.dim() == 2}
        others = {parameter.dtype for parameter in model.parameters() if parameter.dim() != 2}
        if others <= {torch.float32} and len(matrices) == 1 and (step := _compiled(matrices.pop())):
            return Alone(model, device, step)
    return Decoder(model, rows, device)


def _known(shape: Shape) -> bool:
    return shape.norm == "rms" and shape.positions == "rotary" and shape.feed_forward == "swiglu"


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


@functools.cache
def _compiled(dtype: torch.dtype) -> Callable[..., None] | None:
    """`step` for weights of this dtype, or None where it cannot be had."""
    program = compiler("cpu")
    if program is None or dtype not in (torch.float32, torch.bfloat16):
        return None
    for more in TRIES:
        flags = (*PLAIN, *more, *(("-DBFLOAT16",) if dtype == torch.bfloat16 else ()))
        try:
            step = ctypes.CDLL(str(_library(program, flags))).step
        except (OSError, subprocess.SubprocessError):
            continue  # these flags, this compiler, this cache: the next try has fewer of them
        step.restype = None
        step.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_float] + [ctypes.c_int64] * 2 + [ctypes.c_void_p]
        return step
    return None


def _library(program: str, flags: tuple[str, ...]) -> Path:
    """The shared library, compiled if this machine's processor does not have it yet. Raises OSError or
    SubprocessError."""
    known = hashlib.sha256("\n".join((program, *flags, processor(), SOURCE.read_text(encoding="utf-8"))).encode())
    target = compiled_code() / f"alone-{known.hexdigest()[:16]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            part, whole = Path(name) / "alone.o", Path(name) / "alone.so"
            for command in (
                [program, *flags, "-c", str(SOURCE), "-o", str(part)],
                # Without the compiler's own OpenMP: two of them in one process take each other's cores. Torch's is
                # found when the library is opened.
                [program, "-shared", str(part), "-o", str(whole)],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=60)
            whole.replace(target)
    return target
