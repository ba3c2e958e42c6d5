"""The machine: the only place that asks what the hardware is and can."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from palate.recipe import Hardware

M = TypeVar("M", bound=nn.Module)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which precision matrix products run."""

    kind: str
    dtype: torch.dtype

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.kind)

    def put(self, model: M) -> M:
        """`model` moved here, its matrices held in `dtype`, which is what a network runs in.

        Norms, biases and score heads stay float32: they are few, and what they scale is float32, too. Values are
        rounded, so what is to be trained or saved keeps its own float32 copy (`Learner.make`).
        """
        for name, parameter in model.named_parameters():
            rounded = parameter.dim() >= 2 and name != "score.weight"
            parameter.data = parameter.data.to(self.torch, self.dtype if rounded else parameter.dtype)
        return model


def measure(wanted: Hardware) -> Hardware:
    """`wanted` with everything it leaves open filled in from this machine. Frozen into the resolved recipe."""
    kind = wanted.device or (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    return Hardware(
        device=kind,
        dtype=wanted.dtype or ("bfloat16" if _has_bfloat16(kind) else "float32"),
        threads=wanted.threads or _cores(),
    )


def _has_bfloat16(kind: str) -> bool:
    """Whether bfloat16 products are run by the hardware and not emulated."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        check = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or getattr(
            torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None
        )
        return bool(check and check())
    return False


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_device(hardware: Hardware) -> Device:
    """The device that a resolved recipe's [hardware] names; also sets the number of threads."""
    full = measure(hardware)
    if full.threads:
        torch.set_num_threads(full.threads)
    assert full.device and full.dtype
    if full.device == "cpu":
        _keep_freed_memory()
    return Device(full.device, DTYPES[full.dtype])


def _keep_freed_memory() -> None:
    """Ask glibc to keep what a step frees for the next step. By default every large tensor is given back to the system
    and comes again as zeroed pages, which cost a tenth of a training step (docs/log.md)."""
    # M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of mallopt(3); 32 MiB is the most it takes for the last.
    with contextlib.suppress(AttributeError, OSError):  # not on macOS, nor with musl
        for option, value in ((-1, 2**31 - 1), (-2, 2**27), (-3, 2**25)):
            ctypes.CDLL(None).mallopt(option, value)


def generator(*seed: object) -> torch.Generator:
    """A torch random generator for a purpose: the same parts give the same stream, others an unrelated one."""
    return torch.Generator().manual_seed(random.Random(repr(seed)).getrandbits(63))


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside, torch uses only algorithms that give the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
