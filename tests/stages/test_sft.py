import json

from palate import metrics
from palate.recipe import Recipe
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def test_it_learned_and_left_samples(small_run: Made) -> None:
    _, workspace = small_run
    lines = metrics.read(workspace.logs / "sft.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert any("held_out_loss" in line for line in lines)
    samples = (workspace.read("sft") / "samples.jsonl").read_text().splitlines()
    assert samples and set(json.loads(samples[0])) == {"prompt", "person", "model", "ended"}


def test_the_control_goes_on_from_the_assistant(small_run: Made) -> None:
    _, workspace = small_run
    control = Workspace(workspace.folder / "controls" / "sft_continued", parent=workspace)
    assert control.own("sft") and not control.own("base")
    first = metrics.read(control.logs / "sft.jsonl")[0]["loss"]
    assert first < metrics.read(workspace.logs / "sft.jsonl")[0]["loss"] - 0.5
