"""The run order where it can be interrupted."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from palate import flow
from palate import recipe as recipes
from palate.errors import BrokenArtifact
from palate.recipe import Recipe
from palate.stages import sample
from palate.workspace import Workspace, hashed

Made = tuple[Recipe, Workspace]


class Died(BaseException):
    """The process is killed here."""


def test_the_continued_sft_is_not_as_long_as_another_ppo_took(
    small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPO was made again and took longer, and the process dies while the control's recipe is being changed: the number
    of steps of the time before must not pass for the measured one."""
    recipe, made = small_run
    run = Workspace(tmp_path / "run")
    for artifact in ("sft", "reward", "ppo"):
        run.path(artifact).mkdir(parents=True)
        shutil.copy(made.path(artifact) / "manifest.json", run.path(artifact))
    control = flow.control_folders(recipe, run)["sft_continued"]

    def steps() -> int:
        changed = flow.CONTROLS["sft_continued"](recipe, run, control)
        assert changed == recipes.load(control.folder / flow.RECIPE) and changed.sft
        return changed.sft.steps

    before = steps()
    assert steps() == before, "measured once"
    manifest = run.manifest("ppo")
    manifest |= {"seconds": 100 * manifest["seconds"], "files": {}, "digest": hashed({})}
    (run.path("ppo") / "manifest.json").write_text(json.dumps(manifest))
    write = flow.write_atomically
    for dies_at in (1, 2):
        calls = itertools.count(1)

        def until(path: Path, text: str, calls: Iterator[int] = calls, dies_at: int = dies_at) -> None:
            if next(calls) == dies_at:
                raise Died
            write(path, text)

        with monkeypatch.context() as patch:
            patch.setattr(flow, "write_atomically", until)
            with pytest.raises(Died):
                steps()
    assert steps() > 5 * before


def test_a_damaged_input_is_told_before_work_begins(
    small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, made = small_run
    run = Workspace(Path(shutil.copytree(made.folder, tmp_path / "run")))
    shutil.rmtree(run.path("samples"))
    with (run.path("demonstrations") / "prompts.jsonl").open("ab") as file:
        file.write(b"\n")
    started: list[str] = []
    monkeypatch.setattr(sample, "run", lambda *_: started.append("sample"))
    with pytest.raises(BrokenArtifact, match=r"prompts\.jsonl"):
        flow.run_stage("sample", recipe, run)
    assert not started
