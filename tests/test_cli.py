"""What people type, and what they are told when it cannot be."""

import resource
import shutil
import socket
from importlib.metadata import version
from pathlib import Path

import pytest
from tests_small import SMALL

import palate
from palate import cli, flow
from palate import recipe as recipes
from palate.errors import BadInput, BrokenArtifact, FolderBusy
from palate.recipe import Recipe
from palate.workspace import Workspace

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
    copy.verify("base")
    path = copy.read("base") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenArtifact, match=r"model\.safetensors"):
        copy.verify("base")


@pytest.mark.parametrize(("stage", "artifact", "room"), [
    ("pretrain", "base", 50_000),  # the resume state
    ("pretrain", "base", 300_000),  # the weights
    ("sample", "samples", 1_000),
    ("rankings", "rankings", 100_000),  # the feedback store
    ("evaluate", "report", 2_000),
])  # fmt: skip
def test_a_full_disk_keeps_what_is_finished(
    stage: str, artifact: str, room: int, small_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system refuses to let a file grow beyond `room` bytes, which is how a full disk looks to a program."""
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(small_run[1].folder, copy.folder)
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
    assert not copy.own(artifact) and copy.own("tokens") and store.is_file()
    assert call(stage, str(copy.folder)) == 0, "with room again it goes on"


def test_ctrl_c(small_run: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "run_stage", stopped)
    assert call("ppo", str(small_run[1].folder)) == cli.STOPPED
    assert "Finished work is kept" in capsys.readouterr().err


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
    chat.talk(small_run[1].folder, model=None, temperature=0.0, read=lambda _: next(lines), show=said.append)
    told = "".join(said)
    assert "talking with policy" in told and "now base" in told and "This run has policy, sft, base" in told


def test_nothing_calls_out(small_run: Made, calls_out: list[str]) -> None:
    assert small_run[1].own("report"), "every stage ran"
    assert calls_out == []
    with pytest.raises(OSError, match="calls nobody"):
        socket.create_connection(("localhost", 9), timeout=1)
    assert calls_out.pop().startswith("getaddrinfo")
