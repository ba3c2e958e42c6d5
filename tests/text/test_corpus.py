"""The corpus on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from palate.errors import BadInput
from palate.records import Document
from palate.text import corpus


def _documents(count: int) -> list[Document]:
    return [
        Document(
            id=str(n), text=f"text {n}\n\né", source_kind="text", locator=f"a#{n}", title="t", extra={"n": n, "s": "é"}
        )
        for n in range(count)
    ]


def test_documents_come_back_in_order_over_groups_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "ROWS_PER_GROUP", 3)
    monkeypatch.setattr(corpus, "GROUPS_PER_FILE", 2)
    told = _documents(14)
    assert corpus.write_documents(tmp_path, iter(told)) == 14
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"documents-{n:05d}.parquet" for n in range(3)]
    assert list(corpus.read_documents(tmp_path)) == told


def test_writing_takes_no_more_than_a_group_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "GROUP_CHARACTERS", 20)
    groups = list(corpus._groups(iter(_documents(6))))
    assert max(len(rows) for rows in groups) <= 3


def test_a_damaged_file_and_an_empty_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no documents"):
        list(corpus.read_documents(tmp_path))
    corpus.write_documents(tmp_path, _documents(5))
    path = tmp_path / "documents-00000.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadInput, match=r"documents-00000\.parquet: damaged"):
        list(corpus.read_documents(tmp_path))
