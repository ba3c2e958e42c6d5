"""Which of the processes that torchrun started this one is. Without torch: who writes and speaks is asked everywhere.

torchrun tells every process RANK (0, 1, ...), WORLD_SIZE and the same among those on its machine, LOCAL_RANK and
LOCAL_WORLD_SIZE. Otherwise there is one process and it leads. The leader, rank 0, alone writes into the run folder and
speaks; what it does alone the others wait for (docs/several-devices.md).
"""

from __future__ import annotations

import os


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def world() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_rank() -> int:
    """The number of this process among those on its machine: which of the machine's devices is its own."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else 0


def local_world() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world() > 1 else 1


def leads() -> bool:
    """Whether this process writes and speaks for all."""
    return rank() == 0
