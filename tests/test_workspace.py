"""Publishing survives a death at every step, and seconds are seconds whatever the clock does."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.errors import FolderBusy
from palate.workspace import ATTEMPT, MANIFEST, RESUME, Job, Workspace, keep_time, write_atomically


class Died(BaseException):
    """The process is killed here: nothing that would run after an error may run."""


def workspace(folder: Path, key: str) -> Workspace:
    return Workspace(folder).doing(Job("sft", "sft", key, {}, {}))


def make(place: Workspace, text: str) -> bool:
    """What `flow.run_stage` does: finish what was begun, make the artifact unless it is there."""
    assert place.job is not None
    place.recover()
    if place.own("sft") and place.manifest("sft")["key"] == place.job.key:
        return False
    with place.publish() as folder:
        (folder / RESUME).mkdir(exist_ok=True)
        (folder / RESUME / "state.pt").write_text("what a killed stage goes on from")
        (folder / "model").write_text(text)
    return True


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def deaths(monkeypatch: pytest.MonkeyPatch, after: int) -> Callable[[], int]:
    """Die at the `after`th call of what changes the disk; how many there were is told."""
    calls = 0

    def deadly(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Died
            return original(*values, **named)

        return call

    for place, name in (
        (Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (Path, "write_text"),
        (os, "unlink"), (os, "rmdir"), (os, "fsync"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, deadly(getattr(place, name)))
    return lambda: calls


def test_a_death_at_every_step_of_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first artifact, then another in its place; killed at the nth step, for every n, and made again."""
    for before in (False, True):
        for after in range(1000):
            run = tmp_path / f"{before}-{after}"
            if before:
                make(workspace(run, "old"), "old")
            place = workspace(run, "new")
            with monkeypatch.context() as patch:
                calls = deaths(patch, after)
                try:
                    make(place, "new")
                    break  # it came to its end: there is no step left
                except Died:
                    pass
            assert calls() > 10 or after < 10
            found = Workspace(run)
            if found.own("sft"):  # readers see the old one or the new one, whole
                found.verify("sft")
                assert (found.read("sft") / "model").read_text() == found.manifest("sft")["key"]
            make(place, "new")
            assert names(run) == [f"05-sft/{MANIFEST}", "05-sft/model"]
            place.verify("sft")
            assert place.manifest("sft")["key"] == "new"
        assert after > 15


def test_a_sealed_artifact_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed just before the rename: what is finished is not lost."""
    place = workspace(tmp_path, "key")
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "_put_in_place", lambda _: (_ for _ in ()).throw(Died))
        with pytest.raises(Died):
            make(place, "made once")
    assert not place.own("sft")
    assert not make(place, "made twice")
    assert (place.read("sft") / "model").read_text() == "made once"


def test_what_was_there_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two renames, and the recipe is changed back: the old artifact is found again."""
    old = workspace(tmp_path, "old")
    make(old, "old")
    rename = Path.rename

    def die_at_the_second(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise Died
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_at_the_second)
        with pytest.raises(Died):
            make(workspace(tmp_path, "new"), "new")
    assert not old.own("sft")
    assert not make(old, "made again")
    assert (old.read("sft") / "model").read_text() == "old"


def test_half_of_another_attempt_is_never_taken_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed folder of another recipe is being removed, and the process dies; then that recipe is back."""
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "_put_in_place", lambda _: (_ for _ in ()).throw(Died))
        with pytest.raises(Died):
            make(workspace(tmp_path, "first"), "first")

    def some(folder: Path, *_: object, **__: object) -> None:
        (folder / "model").unlink()
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", some)
        with pytest.raises(Died):
            make(workspace(tmp_path, "second"), "second")
    place = workspace(tmp_path, "first")
    assert make(place, "made again")
    place.verify("sft")
    assert names(tmp_path) == [f"05-sft/{MANIFEST}", "05-sft/model"]


def test_what_is_not_sealed_goes_on_from_its_state(tmp_path: Path) -> None:
    place = workspace(tmp_path, "key")
    with pytest.raises(Died), place.publish() as folder:
        (folder / RESUME).mkdir()
        (folder / RESUME / "state.pt").write_text("step 24")
        raise Died
    place.recover()
    assert not place.own("sft")
    with place.publish() as folder:
        assert (folder / RESUME / "state.pt").read_text() == "step 24"


def test_seconds_of_the_dead_count(tmp_path: Path) -> None:
    """SFT is continued for as long as the reward model and PPO took, so a kill must not make them look cheaper."""
    place = workspace(tmp_path, "key")
    with pytest.raises(Died), place.publish() as folder:
        noted = json.loads((folder / ATTEMPT).read_text())
        write_atomically(folder / ATTEMPT, json.dumps({**noted, "since": noted["since"] - 100}))  # 100 s of work
        keep_time(folder)  # as every saved state does
        last = (folder / ATTEMPT).read_bytes()
        raise Died
    (place.partial / ATTEMPT).write_bytes(last)  # kill -9 leaves what was noted last
    with place.publish():
        pass
    assert 100 <= place.manifest("sft")["seconds"] < 110


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wall clock that goes back an hour each time it is asked."""
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    yield


@pytest.mark.usefixtures("jumping")
def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    place = workspace(tmp_path, "key")
    with pytest.raises(Died), place.publish():
        raise Died
    make(place, "made")
    assert 0 <= place.manifest("sft")["seconds"] < 60


def test_the_lock_of_the_dead_holds_nobody_up(tmp_path: Path) -> None:
    """The kernel lets go of it, also when the file stays."""
    place = Workspace(tmp_path / "run")
    code = """
import os, sys
from pathlib import Path
from palate.workspace import Workspace
with Workspace(Path(sys.argv[1])).held():
    os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(place.folder)], check=False)
    assert ended.returncode == -9 and (place.folder / ".lock").exists()
    with place.held(), pytest.raises(FolderBusy), Workspace(tmp_path / "run").held():
        pass
