"""What an interrupted training stage needs to go on: weights, optimizer, step, random state, in one file."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from palate import ranks
from palate.errors import BrokenArtifact
from palate.train import distributed
from palate.train.update import Learner
from palate.workspace import RESUME, keep_time, sync

FILE = f"{RESUME}/state.pt"


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end: torch's zip writer aborts the process when an exception stops it midway."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach only the main thread
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for sent in came[:1]:
            signal.raise_signal(sent)


@_unbroken()
def save(folder: Path, step: int, learners: Mapping[str, Learner], extra: Mapping[str, Any] | None = None) -> None:
    """Replace the state in `folder` (an artifact in the making) at once or not at all; the time spent is kept, too.

    All of several processes must call it. The file, which the leader writes, does not tell how many they were.
    """
    state = {
        "step": step,
        "learners": {
            name: {"weights": learner.weights(), "optimizer": learner.optimizer_state()}
            for name, learner in learners.items()
        },
        "extra": dict(extra or {}),
    }
    if not ranks.leads():
        return
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".writing")
    with beside.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's zip writer hides what the system said, a full disk for one
            reason = error.__context__
            raise reason if isinstance(reason, OSError) else OSError(errno.EIO, str(error), str(beside)) from None
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)
    keep_time(folder)


def load(folder: Path, learners: Mapping[str, Learner]) -> tuple[int, dict[str, Any]]:
    """Put the saved state back; (steps done, extra). (0, {}) when there is nothing to resume.

    Raises BrokenArtifact when there is a state and it is damaged or another network's: starting again in silence
    would throw hours away. All of several processes must call it: each reads the file.
    """
    distributed.total(0.0)  # until the leader has thrown away what another attempt left
    path = folder / FILE
    if not path.exists():
        return 0, {}
    try:
        with zipfile.ZipFile(path) as whole:  # torch writes the checksums and does not read them
            if (bad := whole.testzip()) is not None:
                raise ValueError(f"wrong checksum in {bad}")
            # torch takes what is marked as a folder (MS-DOS attribute 0x10) for empty, and fills it with whatever lay
            # in memory.
            if marked := [one.filename for one in whole.infolist() if one.external_attr]:
                raise ValueError(f"{marked[0]} is marked as what it is not")
        # Nothing but tensors and plain values is unpickled; not onto the leader's GPU, where they may come from.
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name, learner in learners.items():
            learner.set_weights(state["learners"][name]["weights"])
            learner.set_optimizer_state(state["learners"][name]["optimizer"])
        return int(state["step"]), dict(state["extra"])
    except Exception as error:  # torch raises a dozen kinds, from its zip reader to its unpickler
        raise BrokenArtifact(
            f"{path} cannot be gone on from ({type(error).__name__}: {str(error)[:120]}). Delete it to begin this "
            f"stage again."
        ) from None
