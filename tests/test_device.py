"""What is asked of the machine, and what is made of the answer."""

from pathlib import Path

import pytest
import torch

from palate import device
from palate import recipe as recipes
from palate.commands import doctor
from palate.recipe import Hardware
from palate.stages import pretrain

CPU = Hardware(device="cpu", dtype="float32", threads=1)


@pytest.mark.parametrize(
    ("seconds", "compiler", "compiled"),
    [(1000.0, "/usr/bin/g++", True), (1000.0, None, False), (100.0, "/usr/bin/g++", False)],
)
def test_blocks_are_compiled_when_training_is_long_and_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, seconds: float, compiler: str | None, compiled: bool
) -> None:
    monkeypatch.setattr(device, "compiler", lambda kind: compiler)
    monkeypatch.setattr(device, "products_per_second", lambda kind, dtype: 1e11)
    assert device.measure(CPU, seconds * 0.6e11).compile is compiled
    assert device.measure(CPU).compile is False, "nothing is trained"
    wanted = CPU.model_copy(update={"compile": not compiled})
    assert device.measure(wanted, seconds * 0.6e11).compile is not compiled, "the recipe's word counts"


def test_products_per_second_is_what_the_machine_does() -> None:
    torch.set_num_threads(1)
    assert 1e8 < device.products_per_second("cpu", "float32", size=128, seconds=0.01) < 1e13


def test_a_compiler_that_is_not_there_is_told_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    opened = device.open_device(CPU.model_copy(update={"compile": True}))
    assert not opened.compiles
    assert "no compiler" in capsys.readouterr().err


def test_planned_operations(tmp_path: Path) -> None:
    """6 per parameter in a product and token, 12 layers x width x context for attention."""
    recipe = recipes.load(Path("recipes/kitchen.toml"))
    assert recipe.model and recipe.tokenize
    made = pretrain.build(recipe.model, recipe.tokenize.vocab, 0)
    count = sum(p.numel() for p in made.parameters())
    tokens = 420 * 32 * 160
    assert pretrain.operations(recipe) == tokens * (6 * count + 12 * 4 * 128 * 160)
    assert pretrain.operations(recipe.model_copy(update={"pretrain": None})) == 0


def test_the_doctor_says_what_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "products_per_second", lambda kind, dtype, seconds=0.0: 2e11)
    recipe = recipes.load(Path("recipes/kitchen.toml"), ["hardware.dtype=float32"])
    lines = {line.split()[0]: line for line in doctor.report(recipe)}
    assert lines["dtype"].endswith("the recipe says so")
    assert "GFLOP/s in float32" in lines["products"] and "GiB" in lines["machine"]
    assert "14.2 TFLOP" in lines["pretrain"]
    assert lines["compile"].startswith("compile    no")
    assert "pretrain" not in {line.split()[0] for line in doctor.report(None)}
