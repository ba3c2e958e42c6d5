"""Documents on disk: Parquet files that are written and read a row group at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from palate.errors import BadInput
from palate.records import Document

GROUP = 2_000  # documents in memory at once
FIELDS = ("id", "text", "source_kind", "locator", "title", "url", "language", "licence")
SCHEMA = pa.schema([(name, pa.string()) for name in (*FIELDS, "extra")])


def write_documents(folder: Path, documents: Iterable[Document]) -> int:
    """Write documents-00000.parquet into `folder`; the number of documents is returned."""
    count = 0
    stream = iter(documents)
    with pq.ParquetWriter(folder / "documents-00000.parquet", SCHEMA) as writer:
        while group := list(itertools.islice(stream, GROUP)):
            columns = {name: [getattr(d, name) for d in group] for name in FIELDS}
            columns["extra"] = [json.dumps(d.extra, ensure_ascii=False, sort_keys=True) for d in group]
            writer.write_table(pa.table(columns, schema=SCHEMA))
            count += len(group)
    return count


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of a corpus artifact, in order. Raises BadInput when a file is damaged."""
    paths = sorted(folder.glob("documents-*.parquet"))
    if not paths:
        raise BadInput("there is no documents-*.parquet here.", folder, "Run `palate collect` again.")
    for path in paths:
        try:
            for group in pq.ParquetFile(path).iter_batches(GROUP):
                for row in group.to_pylist():
                    yield Document(**{**row, "extra": json.loads(row["extra"])})
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise BadInput(f"unreadable ({str(error)[:80]}).", path, "Run `palate collect` again.") from None
