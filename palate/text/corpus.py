"""The corpus on disk: Parquet files `documents-00000.parquet`, ... with one row per document.

Parquet, because a reader takes one row group at a time, text shrinks to about a third, and every data tool opens it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from palate.errors import BadInput
from palate.records import Document

ROWS_PER_GROUP = 2_000
GROUP_CHARACTERS = 16_000_000  # a row group is held in memory on both sides, so it is bounded by its text, too
GROUPS_PER_FILE = 32  # at most about half a gigabyte of text: small enough to copy, large enough to stay few
COLUMNS = ("id", "text", "source_kind", "locator", "title", "url", "language", "licence", "extra")
SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


def write_documents(folder: Path, documents: Iterable[Document]) -> int:
    """Write `documents` into `folder`, a row group at a time; the number of documents is returned."""
    count = groups = 0
    writer: pq.ParquetWriter | None = None
    try:
        for rows in _groups(documents):
            if writer is None or groups % GROUPS_PER_FILE == 0:
                if writer is not None:
                    writer.close()
                name = f"documents-{groups // GROUPS_PER_FILE:05d}.parquet"
                writer = pq.ParquetWriter(folder / name, SCHEMA, compression="zstd")
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=ROWS_PER_GROUP)
            groups, count = groups + 1, count + len(rows)
    finally:
        if writer is not None:
            writer.close()
    return count


def _groups(documents: Iterable[Document]) -> Iterator[list[dict[str, str]]]:
    rows: list[dict[str, str]] = []
    characters = 0
    for document in documents:
        row = {name: getattr(document, name) for name in COLUMNS[:-1]}
        row["extra"] = json.dumps(document.extra, ensure_ascii=False, sort_keys=True)
        rows.append(row)
        characters += len(document.text)
        if len(rows) == ROWS_PER_GROUP or characters >= GROUP_CHARACTERS:
            yield rows
            rows, characters = [], 0
    if rows:
        yield rows


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents that `write_documents` wrote, in order. Raises BadInput naming a damaged file."""
    paths = sorted(folder.glob("documents-*.parquet"))
    if not paths:
        raise BadInput("there is no documents-*.parquet here.", folder, "Run `palate collect` again.")
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        yield Document.from_json({**row, "extra": json.loads(row["extra"])})
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            why = str(error)[:120] or type(error).__name__
            raise BadInput(f"damaged ({why}).", path, "Delete its folder and run `palate collect` again.") from None
