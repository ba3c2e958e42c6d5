"""What an interrupted stage left: `resume/state.pt` and `attempt.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from files.damage import all_of, check, equal
from torch import nn

from palate.device import Device
from palate.errors import BrokenArtifact
from palate.train import resume
from palate.train.update import Learner
from palate.workspace import Job, Workspace


def learner(width: int = 3, kind: str = "adamw") -> Learner:
    torch.manual_seed(0)
    model = nn.ModuleDict({"blocks": nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))})
    return Learner.make(kind, model, Device("cpu", torch.float32), weight_decay=0.1)


def trained(kind: str = "adamw") -> Learner:
    one = learner(kind=kind)
    one.model.blocks(torch.ones(2, 4)).square().sum().backward()
    one.optimizer.param_groups[0]["lr"] = 0.1
    one.optimizer.step()
    return one


def state(folder: Path) -> list[Any]:
    """Everything a state puts back, as plain values."""
    one = learner()
    step, extra = resume.load(folder, {"base": one})
    values: list[Any] = [step, extra["kept"].tolist()]
    values += [v.tolist() for v in one.model.state_dict().values()]
    for entry in one.optimizer.state_dict()["state"].values():
        values += [v.tolist() for v in entry.values()]
    return values


def test_a_damaged_state_is_told_and_never_half_loaded(tmp_path: Path, times: int) -> None:
    resume.save(tmp_path, 7, {"base": trained()}, {"kept": torch.arange(200.0)})
    path = tmp_path / resume.FILE
    good = path.read_bytes()
    counts = check(lambda path: state(path.parents[1]), path, all_of(good, some=20 * times, seed=times), equal)
    assert counts["refused"] > 51 + 20 * times


def test_tensors_marked_as_folders_are_not_read_as_empty(tmp_path: Path) -> None:
    """Bit 4 of the external attributes, which no checksum covers: torch reads such a tensor without an error."""
    resume.save(tmp_path, 7, {"base": trained()}, {"kept": torch.arange(200.0)})
    path = tmp_path / resume.FILE
    good = path.read_bytes()
    start = good.find(b"PK\x01\x02")
    while start >= 0:
        path.write_bytes(good[: start + 38] + bytes([good[start + 38] ^ 0x10]) + good[start + 39 :])
        with pytest.raises(BrokenArtifact, match=r"state\.pt cannot be gone on from .* is marked as what it is not"):
            resume.load(tmp_path, {"base": learner()})
        start = good.find(b"PK\x01\x02", start + 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        {},
        {"step": 1},
        {"step": 1, "learners": {}, "extra": {}},
        {"step": "x", "learners": {"base": None}, "extra": {}},
        [1, 2],
        "a string",
        {"step": 1, "learners": {"base": {"weights": {}, "optimizer": {}}}, "extra": {}},
    ],
    ids=str,
)
def test_a_state_of_something_else(content: object, tmp_path: Path) -> None:
    path = tmp_path / resume.FILE
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(BrokenArtifact, match=r"state\.pt cannot be gone on from .* Delete it") as caught:
        resume.load(tmp_path, {"base": learner()})
    assert "\n" not in str(caught.value)


def test_a_state_that_would_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "it_ran",))

    path = tmp_path / resume.FILE
    path.parent.mkdir()
    torch.save({"step": 1, "learners": Evil(), "extra": {}}, path)
    with pytest.raises(BrokenArtifact, match=r"state\.pt"):
        resume.load(tmp_path, {"base": learner()})
    assert not (tmp_path / "it_ran").exists()


def test_a_state_of_another_shape_or_optimizer(tmp_path: Path) -> None:
    resume.save(tmp_path, 7, {"base": trained()})
    for other in (learner(width=5), learner(kind="muon")):
        with pytest.raises(BrokenArtifact, match=r"state\.pt"):
            resume.load(tmp_path, {"base": other})
    with pytest.raises(BrokenArtifact, match=r"state\.pt"):
        resume.load(tmp_path, {"policy": learner()})


def test_a_damaged_note_of_an_attempt(tmp_path: Path, times: int) -> None:
    """Without it nobody knows whether the state beside it belongs to this recipe, and it may be hours of work."""
    job = Job("pretrain", "base", "some key", {}, {})
    workspace = Workspace(tmp_path / "run").doing(job)
    note, kept = workspace.partial / "attempt.json", workspace.partial / "resume" / "state.pt"
    kept.parent.mkdir(parents=True)
    kept.write_text("hours of work")
    note.write_text(json.dumps({"key": job.key, "seconds": 12.5, "since": 1.0}))

    class Died(Exception):
        pass

    def begin(path: Path) -> str:
        try:
            with workspace.publish() as folder:
                (folder / "x").write_text("x")
                raise Died
        except Died:
            return kept.read_text() if kept.exists() else "gone"

    counts = check(begin, note, all_of(note.read_bytes(), some=20 * times, seed=times), lambda good, got: True)
    assert kept.exists() or counts["loaded"], "a note with another key is another attempt, whose state is removed"
    assert counts["refused"] > 51
