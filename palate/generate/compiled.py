"""Decoding on a CPU with a C++ compiler: a row alone in one call of decode.cpp per token, several with calls of it
around torch's products.

It is compiled once on a machine, in a few seconds, and kept in the cache. Without a compiler, or for networks that it
does not know (GPT-2's), `Decoder` goes on alone: the same up to rounding, and slower (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from palate.device import Device, compiled_code, compiler, processor
from palate.generate.decoder import Decoder, product
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel

SOURCE = Path(__file__).with_name("decode.cpp")
PLAIN = (
    "-O3", "-std=c++11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
)  # fmt: skip
"""Sums may be taken in any order, so that they use whole registers; infinities and NaN keep their meaning."""
TRIES = (("-march=native", "-fopenmp"), ("-march=native",), ())
"""What compilers may not know; the first that works is kept."""
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_P, _N, _X = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
SIGNATURES = {
    "step": [_P, _P, _P, _N, _N, _P],
    "attend": [_P, _P, _P, _N, _P, _P, _P],
    "norm": [_N, _N, _X, _N, _P, _P, _P, _P],
    "gate": [_N, _N, _N, _P, _P],
}

CALLS = (
    *(f"{name}_{dtype}" for name in ("step", "norm", "gate") for dtype in NAMES.values()),
    # By the dtype of the matrices and that of keys and values.
    "attend_float32_float32", "attend_bfloat16_float32", "attend_bfloat16_bfloat16",
)  # fmt: skip


class _Sizes(ctypes.Structure):
    """As `Sizes` in decode.cpp."""

    _fields_ = [
        *(
            (name, _N)
            for name in (
                "layers", "dim", "heads", "kv_heads", "head_dim", "hidden", "vocab", "room", "window", "threads",
            )
        ),
        ("eps", ctypes.c_double),
    ]  # fmt: skip


class Compiled(Decoder):
    """Places whose steps are computed by decode.cpp."""

    few = 16
    """Beyond it reading keys and values is what attention costs, and half as many bytes are faster (docs/log.md)."""

    def __init__(self, model: LanguageModel, rows: int, device: Device, code: ctypes.CDLL) -> None:
        self._code = code
        super().__init__(model, rows, device)

    def _hold(self, keys: list[Tensor], values: list[Tensor]) -> None:
        super()._hold(keys, values)
        self._bind()

    def _bind(self) -> None:
        """What the calls are given: sizes, and where each tensor stands."""
        shape, trunk, room = self.shape, self.model.trunk, self.room
        assert trunk.rotary is not None
        size = (shape.layers, shape.dim, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden, len(self.head))
        self._sizes = _Sizes(*size, room, shape.window or room, torch.get_num_threads(), shape.norm_eps)
        layers: list[Tensor | None] = []
        for block, key, value in zip(self.blocks, self.keys, self.values, strict=True):
            norms = (block.norm_attention, block.query_norm, block.key_norm, block.norm_feed_forward)
            first, query, keys, second = (None if norm is None else norm.norm.weight for norm in norms)
            layers += [first, *block.qkv, query, keys, *block.out, second, *block.up, *block.down, key, value]
        turns = [part.flatten(1).contiguous() for part in trunk.rotary.at(torch.arange(room))]
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        work = [torch.empty(n) for n in (shape.dim, shape.dim, wide, shape.heads * shape.head_dim, 2 * shape.hidden)]
        rest = [trunk.embed.weight, self.norm.norm.weight, self.head, *turns, *work]
        self._held = (layers, rest)  # alive as long as calls know where they stand
        self._layers, self._rest = _pointers(layers), _pointers(rest)
        width = ctypes.sizeof(_P) * len(layers) // shape.layers
        self._layer = [ctypes.addressof(self._layers) + i * width for i in range(shape.layers)]

    def step(self, token: Tensor) -> Tensor:
        """As `Decoder.step`; of a row alone the logits are float32."""
        last = int(self.position.max())
        if last >= self.room:
            raise IndexError(f"position {last} of a room of {self.room}")
        # A row that is left of many, whose keys are rounded, goes on as one of several.
        alone = len(token) == 1 and self.keys[0].dtype == torch.float32
        logits = self._alone(token, last) if alone else self._together(token)
        self.position += 1
        return logits

    def _alone(self, token: Tensor, position: int) -> Tensor:
        logits = torch.empty(1, len(self.head))
        call = getattr(self._code, f"step_{NAMES[self.head.dtype]}")
        call(ctypes.byref(self._sizes), self._layers, self._rest, int(token), position, logits.data_ptr())
        return logits

    def _together(self, token: Tensor) -> Tensor:
        dtype, rows, shape = self.head.dtype, len(token), self.shape
        attend = getattr(self._code, f"attend_{NAMES[dtype]}_{NAMES[self.keys[0].dtype]}")
        normalise, gate = (getattr(self._code, f"{name}_{NAMES[dtype]}") for name in ("norm", "gate"))
        x: Tensor = self.model.trunk.embed(token)
        normed, mixed, gated = (
            x.new_empty(rows, width, dtype=dtype) for width in (shape.dim, shape.heads * shape.head_dim, shape.hidden)
        )

        def norm(added: Tensor | None, scale: Tensor) -> Tensor:
            """x takes what a layer adds to it, and is normalised."""
            given = None if added is None else added.data_ptr()
            at = x.data_ptr(), given, scale.data_ptr(), normed.data_ptr()
            normalise(rows, shape.dim, shape.norm_eps, self._sizes.threads, *at)
            return normed

        added = None
        for block, layer in zip(self.blocks, self._layer, strict=True):
            qkv = product(norm(added, block.norm_attention.norm.weight), *block.qkv)
            at = self.position.data_ptr(), qkv.data_ptr(), mixed.data_ptr()
            attend(ctypes.byref(self._sizes), layer, self._rest, rows, *at)
            added = product(mixed, *block.out)
            wide = product(norm(added, block.norm_feed_forward.norm.weight), *block.up)
            gate(rows, shape.hidden, self._sizes.threads, wide.data_ptr(), gated.data_ptr())
            added = product(gated, *block.down)
        return product(norm(added, self.norm.norm.weight), self.head)


def decoder(model: LanguageModel, rows: int, device: Device) -> Decoder:
    """What decodes so many rows of `model` fastest."""
    if device.kind == "cpu" and _known(model) and (code := _code()):
        return Compiled(model, rows, device, code)
    return Decoder(model, rows, device)


def _known(model: LanguageModel) -> bool:
    shape: Shape = model.shape
    matrices = {parameter.dtype for parameter in model.parameters() if parameter.dim() == 2}
    others = {parameter.dtype for parameter in model.parameters() if parameter.dim() != 2}
    return (
        (shape.norm, shape.positions, shape.feed_forward) == ("rms", "rotary", "swiglu")
        and len(matrices) == 1
        and matrices <= set(NAMES)
        and others <= {torch.float32}
    )


def _pointers(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    return (_P * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


@functools.cache
def _code() -> ctypes.CDLL | None:
    """decode.cpp, or None where it cannot be had."""
    program = compiler("cpu")
    for more in TRIES if program else ():
        try:
            code = ctypes.CDLL(str(_library(str(program), (*PLAIN, *more))))
        except (OSError, subprocess.SubprocessError):
            continue  # these flags, this compiler, this cache: the next try has fewer of them
        for name in CALLS:
            function = getattr(code, name)
            function.restype, function.argtypes = None, SIGNATURES[name.partition("_")[0]]
        return code
    return None


def _library(program: str, flags: tuple[str, ...]) -> Path:
    """The shared library, compiled if this machine's processor does not have it yet. Raises OSError or
    SubprocessError."""
    known = hashlib.sha256("\n".join((program, *flags, processor(), SOURCE.read_text(encoding="utf-8"))).encode())
    target = compiled_code() / f"decode-{known.hexdigest()[:16]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            part, whole = Path(name) / "decode.o", Path(name) / "decode.so"
            for command in (
                [program, *flags, "-c", str(SOURCE), "-o", str(part)],
                # Without the compiler's own OpenMP: two of them in one process take each other's cores. Torch's is
                # found when the library is opened.
                [program, "-shared", str(part), "-o", str(whole)],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=60)
            whole.replace(target)
    return target
