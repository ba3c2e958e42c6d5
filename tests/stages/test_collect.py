"""The stage: the kitchen's raw files go in, clean documents and a report come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from palate import recipe as recipes
from palate.errors import BadInput
from palate.recipe import Recipe
from palate.stages import collect
from palate.text import corpus
from palate.workspace import Job, Workspace

KITCHEN = "[kitchen]\ncorpus_documents = 1500\n[collect]\nsources = ['kitchen']\nlanguages = ['en', 'fr']\n"


def _run(folder: Path, text: str) -> tuple[Path, dict[str, Any]]:
    workspace = Workspace(folder).doing(Job("collect", "corpus", "key", {}, {}))
    collect.run(recipes.parse(text, "test"), workspace)
    return workspace.read("corpus"), json.loads((workspace.read("corpus") / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return _run(tmp_path_factory.mktemp("run"), KITCHEN)


def _folder(recipe_folder: Path) -> str:
    return f"[collect]\nsources = ['{recipe_folder}']\nmin_words = 5\n"


@pytest.mark.parametrize(
    "label",
    ["exact_duplicate", "near_duplicate", "spam", "gibberish", "stray_language", "personal_data", "boilerplate"],
)
def test_what_was_planted_is_caught(kitchen: tuple[Path, dict[str, Any]], label: str) -> None:
    found = kitchen[1]["planted"][label]
    assert found["planted"] >= 5
    assert found["recall"] >= 0.95


def test_the_ladder_of_near_duplicates(kitchen: tuple[Path, dict[str, Any]]) -> None:
    ladder = kitchen[1]["near_duplicate_ladder"]
    assert [ladder[rung]["recall"] for rung in ("0.95", "0.9", "0.8")] == [1.0, 1.0, 1.0]
    assert ladder["0.4"]["caught"] == 0


def test_clean_pages_are_kept_and_the_report_adds_up(kitchen: tuple[Path, dict[str, Any]]) -> None:
    folder, report = kitchen
    assert report["kept_clean"]["kept"] >= 0.85 * report["kept_clean"]["clean"]
    dropped = sum(rule["dropped"] for rule in report["rules"].values())
    assert report["documents_in"] == report["documents_out"] + dropped
    assert 1400 <= report["documents_in"] <= 1600
    documents = list(corpus.read_documents(folder))
    assert len(documents) == report["documents_out"] == sum(report["by_kind"].values())
    assert sum(len(d.text.encode()) for d in documents) == report["bytes_out"]
    assert set(report["by_kind"]) == {"website", "book", "article", "forum", "paper"}
    assert {d.language for d in documents} >= {"en", "fr"}
    assert len({d.id for d in documents}) == len(documents)
    assert all(len(rule["samples"]) <= 5 for rule in report["rules"].values())
    assert all(len(s["text"]) <= 200 for rule in report["rules"].values() for s in rule["samples"])
    assert sorted(p.name for p in folder.iterdir()) == ["documents-00000.parquet", "manifest.json", "report.json"]


def test_the_same_recipe_gives_the_same_artifact(kitchen: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    again, _ = _run(tmp_path, KITCHEN)
    digests = [json.loads((f / "manifest.json").read_text())["digest"] for f in (kitchen[0], again)]
    assert digests[0] == digests[1]


def test_a_folder_with_a_bad_file_is_collected_and_the_bad_one_is_counted(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for n, food in enumerate(("soup", "bread", "rice")):
        (texts / f"{n}.txt").write_text(f"The {food} is ready in {n} minutes and it tastes of the {food} that we like.")
    (texts / "bad.txt").write_bytes(b"\xff\xff\xff")
    folder, report = _run(tmp_path / "run", _folder(texts))
    assert report["documents_out"] == 3
    assert report["rules"]["unreadable: undecodable"]["dropped"] == 1
    assert "planted" not in report
    assert [d.locator for d in corpus.read_documents(folder)] == ["0.txt", "1.txt", "2.txt"]
    _, report = _run(tmp_path / "short", _folder(texts) + "max_documents = 2\n")
    assert report["documents_out"] == 2


def test_nothing_left_and_missing_folders_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with pytest.raises(BadInput, match="nothing to read"):
        _run(tmp_path / "a", _folder(tmp_path / "texts"))
    (tmp_path / "texts" / "a.txt").write_text("Too short.")
    with pytest.raises(BadInput, match="too_short"):
        _run(tmp_path / "b", _folder(tmp_path / "texts"))
    assert not Workspace(tmp_path / "b").has("corpus")


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    recipe: Recipe = recipes.parse(_folder(tmp_path), "test")
    before = collect.outside(recipe, Workspace(tmp_path / "run"))
    assert before == collect.outside(recipe, Workspace(tmp_path / "run"))
    (tmp_path / "a.txt").write_text("three")
    assert before != collect.outside(recipe, Workspace(tmp_path / "run"))
    assert collect.outside(recipes.parse(KITCHEN, "test"), Workspace(tmp_path / "run")) == {}
