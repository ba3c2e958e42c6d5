"""What people type, and what they are told when it cannot be."""

import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from tests_small import SMALL

import palate
from palate import cli, flow
from palate import recipe as recipes
from palate.errors import BadInput, BrokenArtifact, FolderBusy, PalateError
from palate.feedback.store import open_store
from palate.recipe import Recipe
from palate.train import resume
from palate.workspace import FOLDERS, MAKERS, Workspace

Made = tuple[Recipe, Workspace]


def call(*argv: str) -> int:
    try:
        cli.main(list(argv))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[sft]\nstepz = 3\n", "sft.stepz is not a recipe key. Did you mean sft.steps?"),
        ("[stf]\n", "Did you mean sft?"),
        ("[sft]\nsteps = 0\npeak_lr = 1e-3\n", "sft.steps = 0"),
        ("[sft]\nsteps = 9\npeak_lr = 1e-3\nwarmup_steps = 9\n", "never reach its peak"),
        ("[collect]\nsources = ['kitchen']\n", "needs a [kitchen] section"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_bad_recipe(text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    assert call("run", str(path), "--run", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_missing_and_an_empty_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("missing", "empty"):
        path = tmp_path / "r.toml"
        path.write_text(f"[collect]\nsources = ['{tmp_path / source}']\n")
        assert call("run", str(path), "--run", str(tmp_path / "run")) == 3
        error = capsys.readouterr().err
        assert str(tmp_path / source) in error and "Traceback" not in error


def test_plan_and_stages_as_commands(small_run: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(small_run[1].folder)
    assert call("plan", folder) == 0
    assert "everything is up to date" in capsys.readouterr().out
    assert call("ppo", folder) == 0
    assert "up to date" in capsys.readouterr().err
    assert call("run", folder) == 0  # a run folder goes on with its own recipe
    error = capsys.readouterr().err
    assert error.count("up to date") == 14 and str(Path(folder) / "10-report" / "report.html") in error


def test_ranking_what_is_not_there(small_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = copy_of(small_run, tmp_path)
    folder = str(copy.folder)
    assert call("rank", folder, "--fresh") == 2
    assert "has no [fresh] section" in capsys.readouterr().err
    assert call("rank", folder, "--fresh", "--quick") == 2
    assert "Give one of them" in capsys.readouterr().err
    recipe = copy.folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + "\n[fresh]\n")
    assert call("rank", folder, "--fresh") == 3
    assert "no answer is queued yet" in capsys.readouterr().err
    shutil.rmtree(copy.path("reward"))
    assert call("rank", folder, "--quick") == 4
    said = capsys.readouterr()
    assert "08-reward does not exist yet" in said.err and said.out == "", "told before ten prompts, not after"
    shutil.rmtree(copy.path("samples"))
    assert call("rank", folder) == 4
    assert "06-samples does not exist yet" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"palate {version('palate')}\n"


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", str(tmp_path)) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_stage_before_its_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(SMALL)
    assert call("sft", str(tmp_path)) == 4
    assert "Run `palate pretrain" in capsys.readouterr().err


def test_one_process_per_run(tmp_path: Path) -> None:
    one = Workspace(tmp_path / "run")
    with one.held(), pytest.raises(FolderBusy), Workspace(tmp_path / "run").held():
        pass


def test_a_damaged_artifact_is_seen(small_run: Made, tmp_path: Path) -> None:
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(small_run[1].folder, copy.folder)
    path = copy.read("base") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenArtifact, match=r"model\.safetensors"):
        copy.read("base")


@pytest.mark.parametrize(("stage", "artifact", "room"), [
    ("tokenize", "tokens", 40_000),  # the shards
    ("pretrain", "base", 50_000),  # the resume state
    ("pretrain", "base", 300_000),  # the weights
    ("sample", "samples", 1_000),
    ("rankings", "rankings", 400_000),  # the feedback store
    ("evaluate", "report", 2_000),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("collect", "corpus", 20_000),
        ("tokenize", "tokens", 10_000),  # the tokenizer
        ("write", "demonstrations", 100_000),
        ("sft", "sft", 1_000),  # the log
        ("sft", "sft", 100_000),
        ("reward", "reward", 100_000),
        ("ppo", "ppo", 1_000),
        ("ppo", "ppo", 100_000),
    )),
])  # fmt: skip
def test_a_full_disk_keeps_what_is_finished(
    stage: str, artifact: str, room: int, small_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses to let a file grow beyond `room` bytes, which is how a full disk looks to a program."""
    copy = copy_of(small_run, tmp_path)
    shutil.rmtree(copy.path(artifact))
    store = small_run[1].folder.parent / "feedback.sqlite"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        code = call(stage, str(copy.folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert code == 1 and "Traceback" not in error
    assert "cannot write" in error or "cannot be written" in error
    assert [name for name in FOLDERS if small_run[1].own(name) and not copy.own(name)] == [artifact] and store.is_file()
    assert call(stage, str(copy.folder)) == 0, "with room again it goes on"
    same(small_run, copy, artifact)


@pytest.mark.parametrize(("stage", "artifact", "closed", "told"), [
    ("sft", "sft", "folders", "sft: cannot write"),
    ("rankings", "rankings", "folders", "rank: cannot write"),
    pytest.param("evaluate", "report", "folders", "evaluate: cannot write", marks=pytest.mark.slow),
    ("sft", "sft", "run", "as a run folder: Permission denied"),
    ("rankings", "rankings", "store", "the feedback store cannot be written"),
])  # fmt: skip
def test_what_becomes_read_only(
    stage: str, artifact: str, closed: str, told: str, small_run: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as home:
        copy = copy_of(small_run, Path(home))
        shutil.rmtree(copy.path(artifact))
        (copy.folder / ".lock").touch()
        store = Path(home) / "feedback.sqlite"
        with open_store(f"sqlite:///{store}"):
            pass  # it is there, and empty
        inside = [copy.folder, *copy.folder.rglob("*")]
        paths = {"folders": [p for p in inside if p.is_dir()], "run": inside, "store": [store]}
        with read_only(paths[closed]):
            code = call(stage, str(copy.folder))
        error = capsys.readouterr().err
        assert code == PalateError.exit_code and told in error
        assert error.count("\n") == 1 and "Traceback" not in error
        assert [name for name in FOLDERS if small_run[1].own(name) and not copy.own(name)] == [artifact]
        assert call(stage, str(copy.folder)) == 0, "where it may write again it goes on"
        same(small_run, copy, artifact)


@contextlib.contextmanager
def read_only(closed: list[Path]) -> Iterator[None]:
    """Inside, nobody may write to `closed`: root neither, who gives up the capability to override modes for as long."""
    modes = {path: path.stat().st_mode for path in closed}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    may = capabilities()
    if os.geteuid() == 0:
        capabilities(may & ~(1 << 1))  # CAP_DAC_OVERRIDE, capabilities(7)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            capabilities(may)
        for path, mode in modes.items():
            path.chmod(mode)


def capabilities(wanted: int | None = None) -> int:
    """The lower 32 effective capabilities of this thread, after they were set to `wanted` (capset(2), Linux)."""
    if os.geteuid() != 0:
        return 0
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper halves
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    if wanted is not None:
        sets[0] = wanted
        assert libc.capset(header, sets) == 0
    return int(sets[0])


def test_a_second_process_changes_nothing(
    small_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before it writes, were it only the recipe; those who read or rank are let in."""
    copy = copy_of(small_run, tmp_path)
    folder, recipe = str(copy.folder), copy.folder / flow.RECIPE
    other = tmp_path / "other.toml"
    other.write_text(re.sub(r"^seed = \d+$", "seed = 99", SMALL, flags=re.M))
    before = recipe.read_bytes()
    with copy.held():
        for argv in (["run", str(other), "--run", folder], ["run", folder], ["sft", folder, "--set", "sft.steps=7"]):
            assert call(*argv) == FolderBusy.exit_code
            error = capsys.readouterr().err
            assert f"{folder} is in use by another palate process" in error and error.count("\n") == 1
        with pytest.raises(FolderBusy):
            palate.run(other, folder)
        assert recipe.read_bytes() == before and b"seed = 99" not in before
        assert call("plan", folder) == 0
        for argv, typed in ((["rank", folder, "--count", "1"], ["ba", "q"]), (["chat", folder], ["/quit"])):
            answers = iter(typed)
            monkeypatch.setattr("builtins.input", lambda _, answers=answers: next(answers))
            assert call(*argv) == 0
        assert "1 judgement of" in capsys.readouterr().out


def copy_of(made: Made, home: Path) -> Workspace:
    """The run in another place under the same name, which is part of what is asked of people."""
    copy = Workspace(home / made[1].folder.name)
    shutil.copytree(made[1].folder, copy.folder)
    return copy


def same(made: Made, copy: Workspace, artifact: str) -> None:
    if artifact != "report":  # it tells seconds
        assert copy.manifest(artifact)["digest"] == made[1].manifest(artifact)["digest"]
    stage = MAKERS[artifact]
    if (made[1].logs / f"{stage}.jsonl").exists():
        assert (copy.logs / f"{stage}.jsonl").read_bytes() == (made[1].logs / f"{stage}.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, cli.STOPPED), (signal.SIGTERM, cli.TERMINATED), (signal.SIGKILL, -9)]
)
def test_a_process_that_is_told_to_stop(sent: signal.Signals, code: int, small_run: Made, tmp_path: Path) -> None:
    copy = copy_of(small_run, tmp_path)
    shutil.rmtree(copy.path("base"))
    state = copy.path("base").with_name("03-base.partial") / resume.FILE
    process = subprocess.Popen(
        [sys.executable, "-m", "palate.cli", "pretrain", str(copy.folder)], stderr=subprocess.PIPE, text=True
    )
    while not state.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(sent)
    error = process.communicate()[1]
    assert process.returncode == code and "Traceback" not in error
    if sent != signal.SIGKILL:
        assert error.endswith("palate: stopped. Finished work is kept; the same command goes on from here.\n")
    assert not copy.own("base")
    assert call("pretrain", str(copy.folder)) == 0
    same(small_run, copy, "base")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, cli.STOPPED), (signal.SIGTERM, cli.TERMINATED)])
def test_ctrl_c_and_sigterm(
    sent: signal.Signals,
    code: int,
    small_run: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object, **__: object) -> None:
        os.kill(os.getpid(), sent)
        time.sleep(10)

    monkeypatch.setattr(flow, "run_stage", stopped)
    before = signal.getsignal(signal.SIGTERM)
    assert call("ppo", str(small_run[1].folder)) == code
    error = capsys.readouterr().err
    assert "Finished work is kept" in error and error.strip().count("\n") == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_recipe_comes_back_from_its_own_dump() -> None:
    recipe = recipes.parse(SMALL, "small")
    assert recipes.parse(recipes.dump(recipe), "dump") == recipe


@pytest.mark.parametrize("path", sorted(cli.recipe_folder().glob("*.toml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipes.load(path)


def test_init_and_kitchen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", str(tmp_path / "mine.toml")) == 0
    assert call("init", str(tmp_path / "mine.toml")) == 3
    assert call("kitchen", str(tmp_path / "world"), "--documents", "60", "--dishes", "30") == 0
    assert {"websites", "books", "articles", "forums", "papers"} <= {p.name for p in (tmp_path / "world").iterdir()}


def test_from_python(small_run: Made) -> None:
    folder = small_run[1].folder
    chef = palate.load(folder)
    assert chef.chat("Suggest a dinner.", seed=1) == chef.chat(
        [{"role": "user", "content": "Suggest a dinner."}], seed=1
    )
    assert isinstance(chef.generate("The stew"), str)
    scores = palate.score(folder, "Suggest a dinner.", ["Try the stew.", "No."])
    assert set(scores[0]) == {"accuracy", "helpfulness", "safety", "clarity", "overall"}
    with pytest.raises(BadInput, match="Shorten it"):
        chef.chat("x " * 900)


def test_chat_switches_models(small_run: Made) -> None:
    from palate.commands import chat

    said: list[str] = []
    lines = iter(["hello", "/model base", "hello", "/model nobody", "/new", "/quit"])
    chat.talk(
        small_run[1].folder,
        model=None,
        sampling=replace(chat.SAMPLING, temperature=0.0),
        read=lambda _: next(lines),
        show=said.append,
    )
    told = "".join(said)
    assert "talking with ppo" in told and "now base" in told and "This run has ppo, sft, base" in told


def test_nothing_calls_out(small_run: Made, calls_out: list[str]) -> None:
    assert small_run[1].own("report"), "every stage ran"
    assert calls_out == []
    with pytest.raises(OSError, match="calls nobody"):
        socket.create_connection(("localhost", 9), timeout=1)
    assert calls_out.pop().startswith("getaddrinfo")
