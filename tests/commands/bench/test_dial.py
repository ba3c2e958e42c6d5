"""The sweep behind the dial."""

import json
from pathlib import Path

import pytest

from palate.commands.bench import dial, docs
from palate.commands.bench.dial import Trial
from palate.errors import BadInput
from palate.recipe import Recipe
from palate.workspace import Workspace


def test_a_sweep_goes_on_where_it_stopped(
    small_run: tuple[Recipe, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target = small_run[1].folder, tmp_path / "dial.json"
    short, longer = (Trial(layers=1, rows=2, optimizer="muon", lr=8e-3, tokens=tokens) for tokens in (1024, 20_480))
    monkeypatch.setattr(dial, "trials", lambda: [short])
    dial.main(folder, target)
    monkeypatch.setattr(dial, "trials", lambda: [short, longer])
    asked: list[Trial] = []
    measure = dial.measure
    monkeypatch.setattr(dial, "measure", lambda trial, tokens: asked.append(trial) or measure(trial, tokens))
    dial.main(folder, target)
    assert asked == [longer], "the first is in the file"
    result = json.loads(target.read_text())
    two, forty = result["trials"]
    assert (two["steps"], forty["steps"]) == (2, 40)
    assert forty["bits_per_byte"] < two["bits_per_byte"] - 0.3
    assert f"| 2 | 1 | 2 | muon | 0.008 | 20,480 | linear | 1 | 40 | {forty['parameters']:,} |" in "\n".join(
        docs.tables(result)
    )


def test_a_run_without_tokens_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="it has no tokens"):
        dial.main(tmp_path, tmp_path / "dial.json")


def test_a_file_that_is_no_sweep_is_told(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    target = tmp_path / "train.json"
    target.write_text('{"bench": "train"}')
    with pytest.raises(BadInput, match="it is no sweep"):
        dial.main(small_run[1].folder, target)


def test_no_trial_is_there_twice() -> None:
    assert len(set(dial.trials())) == len(dial.trials()) > 15
