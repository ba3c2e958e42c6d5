"""What is asked of the machine, and what is made of the answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from palate import device, dial
from palate import recipe as recipes
from palate.commands import doctor
from palate.errors import Unsupported
from palate.recipe import Hardware

CPU = Hardware(device="cpu", dtype="float32", threads=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(Unsupported, match=r"'cuda', and torch .* finds no such device here"):
        device.open_device(Hardware(device="cuda"))


@pytest.mark.parametrize(("rounded", "dtype"), [(2.2e11, "bfloat16"), (0.9e11, "float32"), (1.1e11, "float32")])
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, rounded: float, dtype: str) -> None:
    monkeypatch.setattr(device, "products_per_second", lambda kind, name: rounded if name == "bfloat16" else 1e11)
    assert device.measure(Hardware(device="cpu")).dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["avx2", pytest.param("default", marks=pytest.mark.soak)])
def test_a_processor_without_avx512_or_bfloat16_runs_in_float32(tmp_path: Path, capability: str) -> None:
    """The same machine with these parts switched off, in torch's kernels and in oneDNN's: pretraining and an answer."""
    script = """
import sys
from pathlib import Path
sys.path[:0] = ["tests"]
from palate import flow
from palate import recipe as recipes
from tests_small import SMALL
overrides = ["pretrain.steps=6", "sft.steps=3", "sft.warmup_steps=1", "pretrain.warmup_steps=1"]
plain = SMALL.replace('dtype = "float32"', "").replace("threads = 1", "")
recipe, workspace = flow.open_run(recipes.parse(plain, "here", overrides), Path(sys.argv[1]))
print(recipe.hardware.dtype)
flow.run(recipe, workspace, last="sft")
"""
    switched_off = {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        env=os.environ | switched_off, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "float32"
    assert (tmp_path / "run" / "05-sft" / "model.safetensors").is_file()


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


@pytest.mark.slow
def test_a_compiler_that_fails_is_told_and_training_goes_on(tmp_path: Path) -> None:
    """In a process of its own: what torch compiled it keeps, and where it keeps it is decided once."""
    code = """
import torch
from palate.device import Device
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk
shape = Shape(vocab=20, layers=2, dim=16, heads=2, kv_heads=2, hidden=32, context=60)
model = Device("cpu", torch.float32, compiles=True).compile(LanguageModel(Trunk(shape)))
model(torch.zeros(2, 9, dtype=torch.long)).sum().backward()
print(model.trunk.embed.weight.grad.abs().sum() > 0)
"""
    environment = {**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "tensor(True)" in done.stdout
    assert done.stderr.count("compiling fails here: slower") == 1 and "Traceback" not in done.stderr


def test_the_doctor_says_what_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "products_per_second", lambda kind, dtype, seconds=0.0: 2e11)
    monkeypatch.setattr(device, "compiler", lambda kind: "g++")
    monkeypatch.setattr(dial, "pace_of", lambda recipe, found: dial.Pace(1.0, 20_000.0))
    recipe = recipes.load(Path("recipes/kitchen.toml"), ["hardware.dtype=float32"])
    lines = {line.split()[0]: line for line in doctor.report(recipe)}
    assert lines["dtype"].startswith("dtype      float32: the recipe says so")
    assert "GFLOP/s in float32" in lines["products"] and "GiB" in lines["machine"]
    assert lines["pretrain"] == "pretrain   1.1 M tokens: about 55 s before compiling"
    assert lines["with"] == "with sft   2.7 M tokens: about 137 s before compiling"
    assert lines["compile"].startswith("compile    no")
    assert "pretrain" not in {line.split()[0] for line in doctor.report(None)}


@pytest.mark.parametrize(
    ("cpus", "cores"),
    [("150000 100000", 1), ("50000 100000", 1), ("300000 100000", 3), ("max 100000", None), ("9900000 100000", None)],
)
def test_no_more_than_a_container_allows(
    cpus: str, cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "CONTAINER", tmp_path)
    whole = device.memory("cpu")
    (tmp_path / "cpu.max").write_text(f"{cpus}\n")
    (tmp_path / "memory.max").write_text("123456789\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert device._cores() == (cores or 8)
    assert device.memory("cpu") == 123456789 < whole
