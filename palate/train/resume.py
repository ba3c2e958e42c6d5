"""What an interrupted training stage needs to go on: weights, optimizer, step, random state, in one file."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from palate.train.update import Learner
from palate.workspace import RESUME, keep_time, sync

FILE = f"{RESUME}/state.pt"


def save(folder: Path, step: int, learners: Mapping[str, Learner], extra: Mapping[str, Any] | None = None) -> None:
    """Replace the state in `folder` (an artifact in the making) at once or not at all; the time spent is kept, too."""
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".writing")
    state = {
        "step": step,
        "learners": {
            name: {"model": learner.model.state_dict(), "optimizer": learner.optimizer.state_dict()}
            for name, learner in learners.items()
        },
        "extra": dict(extra or {}),
    }
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
    """Put the saved state back; (steps done, extra). (0, {}) when there is nothing to resume."""
    path = folder / FILE
    if not path.exists():
        return 0, {}
    state = torch.load(path, weights_only=True)  # nothing but tensors and plain values is unpickled
    for name, learner in learners.items():
        learner.model.load_state_dict(state["learners"][name]["model"])
        learner.optimizer.load_state_dict(state["learners"][name]["optimizer"])
    return int(state["step"]), dict(state["extra"])
