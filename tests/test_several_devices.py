"""`torchrun --nproc-per-node 2 -m palate` against one process: the same recipe, run folder and artifacts."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests_small import SMALL

from palate import flow, metrics
from palate.recipe import Recipe
from palate.train import resume
from palate.workspace import FOLDERS, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")]

Made = tuple[Recipe, Workspace]
ROOT = Path(__file__).parent.parent
PLAIN = [f"{stage}.optimizer=sgd" for stage in ("pretrain", "sft", "reward")]
"""Adam divides a gradient by its size, so where one is next to nothing rounding decides the step. Here it does not."""
MAKES = {"pretrain": "base", "sft": "sft", "sample": "samples", "reward": "reward", "ppo": "ppo"}
STARTS = {"pretrain": None, "sft": "base", "reward": "sft", "ppo": "sft"}


def start(*command: str, processes: int = 2) -> subprocess.Popen[str]:
    """`palate COMMAND` by this many processes."""
    launch = ["torch.distributed.run", "--nproc-per-node", str(processes), "-m", "palate", "--"]
    return subprocess.Popen(
        [sys.executable, "-m", *(launch if processes > 1 else ["palate"]), *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def together(*command: str, processes: int = 2) -> tuple[int, str]:
    """Exit code and what was said."""
    process = start(*command, processes=processes)
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def workers(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started, the leader first."""
    return sorted(map(int, Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()))


def sets(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def without(stage: str, made: Made, place: Path) -> Workspace:
    """A copy of the run in which `stage` has still to be done."""
    shutil.copytree(made[1].folder, place)
    shutil.rmtree(place / FOLDERS[MAKES[stage]])
    return Workspace(place)


def alone(stage: str, made: Made, place: Path, overrides: Sequence[str]) -> Workspace:
    """The same by this one process."""
    without(stage, made, place)
    recipe, workspace = flow.reopen(place, overrides)
    assert flow.run_stage(stage, recipe, workspace)
    return workspace


def apart(stage: str, one: Workspace, other: Workspace) -> float:
    """The distance of two models by the way they came from where they began."""
    first, second = (load_file(w.read(MAKES[stage]) / "model.safetensors") for w in (one, other))
    origin = STARTS[stage]
    begun = load_file(one.read(origin) / "model.safetensors") if origin else {n: 0 * t for n, t in first.items()}
    # A score head has no beginning; it would add nothing but its first values.
    names = [name for name in first if name in begun]
    distance = sum(float((first[n] - second[n]).square().sum()) for n in names)
    return (distance / sum(float((first[n] - begun[n]).square().sum()) for n in names)) ** 0.5


soak = pytest.mark.soak
TRIED = (("pretrain", "false"), ("sft", "true"), ("ppo", "false"))
"""At every change; `make soak` tries them all."""


@pytest.mark.parametrize(
    ("stage", "shard"),
    [
        pytest.param(stage, shard, marks=() if (stage, shard) in TRIED else soak)
        for shard in ("false", "true")
        for stage in MAKES
    ],
)
def test_two_make_what_one_makes(small_run: Made, tmp_path: Path, stage: str, shard: str) -> None:
    overrides = [override for override in PLAIN if override.startswith(stage)]
    one = alone(stage, small_run, tmp_path / "one", overrides)
    two = without(stage, small_run, tmp_path / "two")
    code, said = together(stage, str(two.folder), *sets([*overrides, f"hardware.shard={shard}"]))
    assert code == 0, said
    if stage == "sample":
        assert (one.read("samples") / "responses.jsonl").read_bytes() == (
            two.read("samples") / "responses.jsonl"
        ).read_bytes()
        return
    logs = [metrics.read(w.logs / f"{stage}.jsonl") for w in (one, two)]
    assert [sorted(line) for line in logs[0]] == [sorted(line) for line in logs[1]]
    for line, line_too in zip(*logs, strict=True):
        for name in set(line) & {"loss", "grad_norm", "score", "kl", "value_loss", "reply_tokens", "eos_rate"}:
            assert line_too[name] == pytest.approx(line[name], rel=1e-3, abs=1e-5), (line["step"], name)
    if stage == "ppo":  # the very same replies, to watched prompts at the end too
        watched = [[w["text"] for w in metrics.read(v.read("ppo") / "watched.jsonl")] for v in (one, two)]
        assert watched[0] == watched[1]
    assert apart(stage, one, two) < (1e-4 if stage == "ppo" else 1e-5)
    assert one.manifest(MAKES[stage])["key"] == two.manifest(MAKES[stage])["key"]
    assert [p.name for p in sorted(one.read(MAKES[stage]).iterdir())] == [
        p.name for p in sorted(two.read(MAKES[stage]).iterdir())
    ]


@soak
def test_a_whole_recipe(tmp_path: Path) -> None:
    """Controls and report included; and one process finds nothing left to do."""
    recipe, run = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(SMALL)
    code, said = together("run", str(recipe), "--run", str(run))
    assert code == 0, said
    assert (run / "10-report" / "report.html").is_file()
    assert said.count("[1/10] collect") == 1, "one speaks"
    code, said = together("run", str(recipe), "--run", str(run), processes=1)
    assert code == 0 and said.count("up to date") == 14


@pytest.mark.parametrize("shard", [pytest.param("false", marks=soak), "true"])
@pytest.mark.parametrize(("first", "then"), [(2, 1), pytest.param(1, 2, marks=soak)])
@pytest.mark.parametrize("stage", ["pretrain", pytest.param("ppo", marks=soak)])
def test_killed_and_gone_on_with_by_another_number(
    small_run: Made, tmp_path: Path, stage: str, first: int, then: int, shard: str
) -> None:
    longer = ["pretrain.steps=160", "pretrain.optimizer=sgd"] if stage == "pretrain" else ["ppo.rounds=12"]
    overrides = [*longer, *(["ppo.kl_budget=1000.0"] if stage == "ppo" else [])]  # then the state holds a policy more
    undisturbed = alone(stage, small_run, tmp_path / "one", overrides)
    killed = without(stage, small_run, tmp_path / "two")
    command = (stage, str(killed.folder), *sets([*overrides, f"hardware.shard={shard}"]))
    process = start(*command, processes=first)
    state = killed.path(MAKES[stage]).with_name(killed.path(MAKES[stage]).name + ".partial") / resume.FILE
    while not state.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    for number in (process.pid, *workers(process)):
        os.kill(number, signal.SIGKILL)
    process.communicate()
    assert state.exists() and not killed.own(MAKES[stage])
    code, said = together(*command, processes=then)
    assert code == 0, said
    assert apart(stage, undisturbed, killed) < (1e-4 if stage == "ppo" else 1e-5)
    logs = [metrics.read(w.logs / f"{stage}.jsonl") for w in (undisturbed, killed)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]


def test_an_error_ends_all_with_one_line(small_run: Made, tmp_path: Path) -> None:
    workspace = without("pretrain", small_run, tmp_path / "two")
    begun = time.monotonic()
    code, said = together("pretrain", str(workspace.folder), "--set", "pretrain.peak_lr=1e30")
    assert code != 0 and time.monotonic() - begun < 60
    assert said.count("palate:") == 1 and "palate: pretrain 2: the loss is" in said, said


@pytest.mark.parametrize("whom", [pytest.param("torchrun", marks=soak), pytest.param("leader", marks=soak), "other"])
def test_a_signal_ends_all_with_one_line(small_run: Made, tmp_path: Path, whom: str) -> None:
    """SIGTERM to the launcher, or a process that is killed."""
    workspace = without("pretrain", small_run, tmp_path / "two")
    process = start("pretrain", str(workspace.folder), "--set", "pretrain.steps=100000")
    log = workspace.logs / "pretrain.jsonl"
    log.unlink()
    while not metrics.read(log):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    leader, other = workers(process)
    told = {"torchrun": process.pid, "leader": leader, "other": other}[whom]
    os.kill(told, signal.SIGTERM if whom == "torchrun" else signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count("palate:") == 1, said
