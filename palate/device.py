"""The machine: the only place that asks what the hardware is and can."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import os
import platform
import random
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from palate import metrics, ranks
from palate.errors import Unsupported
from palate.recipe import Hardware

GIB = 2**30
M = TypeVar("M", bound=nn.Module)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """Where tensors live and in which precision matrix products run."""

    kind: str
    dtype: torch.dtype
    compiles: bool = False
    """Whether networks' blocks are compiled."""
    memory: int = 8 * GIB
    """Bytes it has in all."""
    shard: bool | None = None
    """Whether several processes train a model in shards; None when it does not fit otherwise."""

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.kind)

    def put(self, model: M, *, but: Collection[str] = ()) -> M:
        """`model` moved here, its matrices held in `dtype`, which is what a network runs in.

        Norms, biases and score heads stay float32: they are few, and what they scale is float32, too. Values are
        rounded, so what is to be trained or saved keeps its own float32 copy (`Learner.make`). What is named in `but`
        stays as it is.
        """
        for name, parameter in model.named_parameters():
            if name in but:
                continue
            rounded = parameter.dim() >= 2 and name != "score.weight"
            parameter.data = parameter.data.to(self.torch, self.dtype if rounded else parameter.dtype)
        return model

    def compile(self, model: M) -> M:
        """`model` with its blocks compiled, if that pays here. For what is trained and what is compared with that: code
        for a network that only reads would take longer to make than it saves."""
        if self.compiles and (compile_blocks := getattr(model, "compile_blocks", None)):
            from torch._dynamo.exc import TorchDynamoException  # two seconds of importing, wanted only here

            try:
                compile_blocks()
            except TorchDynamoException as error:  # as with a C++ compiler but without Python's headers
                told = next((line for line in str(error).splitlines() if "error" in line.lower()), str(error))
                metrics.say(f"      compiling fails here: slower, with the same result up to rounding ({told[:200]})")
                for module in model.modules():
                    module._compiled_call_impl = None  # what `module.compile` had set
                model.zero_grad(set_to_none=True)  # what the try left, if it came that far
        return model


COMPILING = 300.0
"""Seconds of pretraining and SFT from which compiling the blocks pays: it takes 10 to 40, most of it once on a machine,
and saves a seventh to a quarter."""


def measure(wanted: Hardware) -> Hardware:
    """`wanted` with everything it leaves open filled in from this machine; nothing is compiled where it does not say so
    (palate/dial.py knows how long training is). Frozen into the resolved recipe. Raises Unsupported when the device it
    names is not there."""
    kind = wanted.device or (
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    if not {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]:
        raise Unsupported(
            f"hardware.device is {kind!r}, and torch {torch.__version__} finds no such device here. "
            f'Install the build of torch for it, or go on with `--set hardware.device="cpu"`.'
        )
    threads = wanted.threads or _cores()
    torch.set_num_threads(threads)
    dtype = wanted.dtype or _dtype(kind)
    compiled = bool(wanted.compile)
    room = wanted.memory_gib or round(memory(kind) / GIB, 1)
    return Hardware(device=kind, dtype=dtype, threads=threads, memory_gib=room, compile=compiled, shard=wanted.shard)


def products_per_second(kind: str, dtype: str, size: int = 1024, seconds: float = 0.1) -> float:
    """Floating-point operations per second in products of two matrices of `size` x `size`: the most that training can
    reach. The best of the tries that fit into `seconds`."""
    one = torch.ones(size, size, device=kind, dtype=DTYPES[dtype])
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        started = time.perf_counter()
        float((one @ one)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def compiler(kind: str) -> str | None:
    """The program that torch.compile needs here, or None where there is none: a C++ compiler on CPUs, on CUDA Triton
    and a C compiler. Blocks are not compiled on Apple's GPUs: torch calls that a prototype."""
    if kind == "mps" or (kind == "cuda" and importlib.util.find_spec("triton") is None):
        return None
    wanted = (os.environ.get("CXX"), "g++", "clang++", "c++") if kind == "cpu" else (os.environ.get("CC"), "gcc", "cc")
    return next((found for name in wanted if name and (found := shutil.which(name))), None)


def describe(kind: str) -> str:
    """The processor's name and its memory."""
    if kind == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / GIB:.0f} GiB"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {memory(kind) / GIB:.0f} GiB"


def processor() -> str:
    """The processor's name and what it can do, where the system tells: code compiled for one may not run on another."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    return f"{platform.processor()} {platform.machine()}"


CONTAINER = Path("/sys/fs/cgroup")
"""Where the limits of a container stand (Linux, control groups version 2)."""


def memory(kind: str) -> int:
    """Bytes that the device has in all; on CPUs no more than the control group of a container allows."""
    if kind == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    if kind == "mps":
        return int(torch.mps.recommended_max_memory())
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        whole = min(whole, int((CONTAINER / "memory.max").read_text(encoding="utf-8")))
    return whole


def _dtype(kind: str) -> Literal["float32", "bfloat16"]:
    """What matrices are held in: bfloat16 where its products are faster than float32's. Asked of the clock, because
    processors that only emulate them, and libraries that were told to, run them many times slower."""
    if kind == "mps":  # not measured on one yet
        return "float32"
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    rounded, exact = (products_per_second(kind, dtype) for dtype in ("bfloat16", "float32"))
    return "bfloat16" if rounded > 1.2 * exact else "float32"


def _cores() -> int:
    """Those that this process may use, and no more than the control group of a container allows: threads for cores that
    are not there wait for each other, and a step takes many times as long."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max" where nothing is limited
        quota, period = map(int, (CONTAINER / "cpu.max").read_text(encoding="utf-8").split())
        there = min(there, max(1, quota // period))
    return there


def open_device(hardware: Hardware) -> Device:
    """The device that a resolved recipe's [hardware] names; also sets the number of threads, of which processes on one
    machine have equal parts, as each has a GPU of its own. Raises Unsupported when there are not enough of those."""
    full = measure(hardware)
    if full.threads:
        torch.set_num_threads(max(1, full.threads // ranks.local_world()))
    assert full.device and full.dtype
    if ranks.world() > 1 and full.device != "cpu":
        there = torch.cuda.device_count() if full.device == "cuda" else 1
        if ranks.local_world() > there or full.device == "mps":
            raise Unsupported(
                f"{ranks.local_world()} processes on this machine, which has {there} {full.device} device: start one "
                f'process for each CUDA device (--nproc-per-node), or set hardware.device = "cpu".'
            )
        torch.cuda.set_device(ranks.local_rank())
    if full.device == "cpu":
        _keep_freed_memory()
    compiles = bool(full.compile) and compiler(full.device) is not None
    if compiles:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_code()))
    elif full.compile:
        metrics.say(f"      there is no compiler for {full.device} here: slower, with the same result up to rounding")
    room = int((full.memory_gib or 8) * GIB) // (ranks.local_world() if full.device == "cpu" else 1)
    return Device(full.device, DTYPES[full.dtype], compiles, room, full.shard)


def compiled_code() -> Path:
    """Where compiled code is kept between runs, so that the second one starts at once: beside other programs' caches.
    torch.compile's own place is in /tmp."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palate" / "compiled"


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


def seeds(count: int, *seed: object) -> list[int]:
    """As many seeds for a purpose, one per request: number i is the same whatever `count` is."""
    random_ = random.Random(repr(seed))
    return [random_.getrandbits(63) for _ in range(count)]


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside, torch uses only algorithms that give the same bits each time."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
