"""Finished artifacts: a damaged file is never read, whoever reads it, and the command line says so in one line."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from files.damage import all_of, at_most, check, cuts, equal, outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import cli, flow
from palate.errors import BrokenArtifact, PalateError
from palate.recipe import Recipe
from palate.workspace import FOLDERS, Job, Workspace

Made = tuple[Recipe, Workspace]
CLOCK = itertools.count(1)


def published(folder: Path) -> Workspace:
    workspace = Workspace(folder)
    with workspace.doing(Job("tokenize", "tokens", "k", {"corpus": "d"}, {"seed": 1})).publish() as place:
        (place / "train.bin").write_bytes(bytes(range(256)) * 8)
        (place / "index.json").write_text('{"dtype": "uint16"}')
    return workspace


@pytest.mark.parametrize("name", ["train.bin", "index.json"])
def test_every_damage_to_a_published_file_is_seen(name: str, tmp_path: Path, times: int) -> None:
    workspace = published(tmp_path)

    def read(path: Path) -> bytes:
        os.utime(path, ns=(0, next(CLOCK)))  # two writes may fall into one tick of the file system's clock
        return (workspace.read("tokens") / name).read_bytes()

    path = tmp_path / "02-tokens" / name
    damaged = list(all_of(path.read_bytes(), some=30 * times, seed=times))
    counts = check(read, path, iter(damaged), equal)
    assert counts["loaded"] == 0 and counts["refused"] > 0.8 * len(damaged)
    path.unlink()
    with pytest.raises(BrokenArtifact, match=name):
        workspace.read("tokens")


def test_a_damaged_manifest(tmp_path: Path, times: int) -> None:
    """What decides (digest, files, types) is checked; a changed key makes the stage run again."""
    workspace = published(tmp_path)
    path = tmp_path / "02-tokens" / "manifest.json"
    deciding = ("digest", "files")

    def read(_: Path) -> list[object]:
        workspace.read("tokens")
        manifest = workspace.manifest("tokens")
        assert isinstance(manifest["inputs"], dict) and isinstance(manifest["key"], str)
        return [manifest[name] for name in deciding]

    good = path.read_bytes()
    assert check(read, path, cuts(good), equal)["refused"] >= 50  # without its last byte, a line's end, it is whole
    check(read, path, all_of(good, some=60 * times, seed=times), equal)


def test_a_manifest_of_anything(tmp_path: Path) -> None:
    workspace = published(tmp_path)
    path = tmp_path / "02-tokens" / "manifest.json"
    good = json.loads(path.read_text())

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(sorted(good)), st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none()))
    def one(name: str, value: object) -> None:
        path.write_text(json.dumps({**good, name: value}))
        got = outcome(lambda _: workspace.manifest("tokens"), path, f"{name} = {value}")
        if isinstance(got, PalateError):
            assert "manifest.json is damaged" in str(got)
        else:
            assert name not in ("files", "digest", "inputs", "settings") or value == good[name]

    one()
    for text in ("", "[]", "3", "null", "[" * 50_000, "{}"):
        path.write_text(text)
        with pytest.raises(BrokenArtifact, match=r"manifest\.json is damaged"):
            workspace.read("tokens")


# --- through the command line ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_run(small_run: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(small_run[1].folder, folder)
    return folder


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = 0
    try:
        with at_most(60):
            cli.main(list(argv))
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().err


def cut(path: Path) -> Iterator[None]:
    """The file cut in its middle, and put back after it."""
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    yield
    path.write_bytes(good)


CASES = [
    ("sample", "sft", "model.safetensors"),
    ("sample", "demonstrations", "prompts.jsonl"),
    ("tokenize", "corpus", "documents-00000.parquet"),
    ("pretrain", "tokens", "train.bin"),
    ("pretrain", "tokens", "index.json"),
    ("write", "base", "tokenizer.json"),
    ("sft", "base", "config.json"),
    ("rankings", "samples", "responses.jsonl"),
    ("reward", "rankings", "judgements.jsonl"),
    ("ppo", "reward", "report.json"),
    ("ppo", "reward", "model.safetensors"),
    ("evaluate", "ppo", "watched.jsonl"),
    ("evaluate", "corpus", "report.json"),
    ("chat", "ppo", "model.safetensors"),
    ("rank", "samples", "prompts.jsonl"),
]
WRITES = {"sample": "samples", "tokenize": "tokens", "pretrain": "base", "write": "demonstrations", "sft": "sft",
          "rankings": "rankings", "reward": "reward", "ppo": "ppo", "evaluate": "report"}  # fmt: skip


@pytest.mark.parametrize(("stage", "artifact", "name"), CASES, ids=[f"{s}-{n}" for s, _, n in CASES])
def test_a_stage_refuses_a_cut_input(
    stage: str, artifact: str, name: str, a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a_run / FOLDERS[WRITES[stage]] if stage in WRITES else None
    aside = a_run / "aside"
    if made is not None:
        made.rename(aside)
    try:
        for _ in cut(a_run / FOLDERS[artifact] / name):
            code, told = call(capsys, stage, str(a_run))
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
            aside.rename(made)
    assert code == BrokenArtifact.exit_code, told
    assert f"{FOLDERS[artifact]}/{name} is not what" in told and "run the stage again" in told
    assert told.count("\n") == 1 and "Traceback" not in told


@pytest.mark.parametrize(
    ("name", "command", "code"),
    [
        ("recipe.toml", "plan", 2),
        ("03-base/manifest.json", "plan", 5),
        ("03-base/manifest.json", "sft", 5),
        ("logs/ppo.jsonl", "evaluate", 3),
    ],
)
def test_other_files_of_a_run(
    name: str, command: str, code: int, a_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = a_run / FOLDERS["report"]
    if command == "evaluate":
        report.rename(a_run / "aside")
    path = a_run / name
    good = path.read_bytes()
    try:
        path.write_bytes(good[:100] + b"\xff\xfe{" + good[100:])
        got, told = call(capsys, command, str(a_run))
    finally:
        path.write_bytes(good)
        if command == "evaluate":
            (a_run / "aside").rename(report)
    assert got == code and name in told and "Traceback" not in told, told
    assert command == "evaluate" or told.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")],
    ids=["python", "torch"],
)
def test_a_machine_that_is_too_small(
    error: Exception, a_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(flow, "run_stage", fails)
    code, told = call(capsys, "sft", str(a_run))
    assert code == 1 and told.count("\n") == 1 and "not enough memory" in told
    error.args = ("a fault of ours",)
    if isinstance(error, RuntimeError):
        with pytest.raises(RuntimeError, match="a fault of ours"):
            call(capsys, "sft", str(a_run))


@pytest.mark.parametrize(
    "content", [b"no database, though it is long enough to be one " * 30, b"SQLite format 3\x00\x10"]
)
def test_a_store_that_is_none(content: bytes, a_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = a_run.parent / "feedback.sqlite"
    before = store.read_bytes() if store.exists() else None
    made = a_run / FOLDERS["rankings"]
    made.rename(a_run / "aside")
    store.write_bytes(content)
    try:
        code, told = call(capsys, "rankings", str(a_run))
        assert store.read_bytes() == content, "what may be mended is left as it was"
    finally:
        shutil.rmtree(made, ignore_errors=True)
        (a_run / "aside").rename(made)
        store.unlink() if before is None else store.write_bytes(before)
    assert code == 3 and told.count("\n") == 1 and "feedback.sqlite" in told and "restored from a backup" in told


def test_the_notes_of_a_control(small_run: Made, tmp_path: Path) -> None:
    """basis.txt says what the number of steps was measured from; when it is damaged they are measured again."""
    copy = Workspace(tmp_path / "run")
    shutil.copytree(small_run[1].folder, copy.folder)
    note = copy.folder / "controls" / "sft_continued" / "basis.txt"
    note.write_bytes(b"\xff\xfe" + note.read_bytes())
    control = flow.control_folders(small_run[0], copy)["sft_continued"]
    changed = flow._sft_continued(small_run[0], copy, control)
    assert changed.sft and changed.sft.steps > 0
    (control.folder / "recipe.toml").write_bytes(b"\xff")
    flow._write_recipe(changed, control)
    assert (control.folder / "recipe.toml").read_bytes() != b"\xff"
