"""A foreign file -> its rows: lines of JSON, an array or a Parquet table, packed or not, within limits of size."""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from palate.errors import BadInput
from palate.records import json_lines, json_value

LONGEST = 20_000_000
"""Bytes of a line. A tree of a thousand messages is 1 MB."""
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
HEAD = 4_096  # bytes in which an array must begin


def rows(path: Path, most: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a .jsonl or .json file (also .gz, .xz) or a .parquet table.

    most: bytes that a file may have once unpacked. Raises BadInput.
    """
    if path.suffix == ".parquet":
        refuse_other_files(path, most)
        yield from _table_rows(path)
        return
    refuse_other_files(path, None)
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            start = file.read(HEAD).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
            file.seek(0)
            one_array = start == b"[" and ".json" in path.suffixes
            lines = _array(_whole(file, path, most), path) if one_array else json_lines(_lines(file, path, most), path)
            for number, value in lines:
                yield number, value
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"cannot be read on ({error}).", f"{path}:{number + 1}", "Get the file again.") from None
    if not number:
        raise BadInput("there is nothing in this file.", path, "Get the file again, or take it out of the recipe.")


def byte_lines(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The lines of a file, unpacked (.gz, .xz). Raises BadInput where it cannot be read on, and where a line has more
    than LONGEST bytes or the whole more than `most`: a small packed file can be a very large one."""
    refuse_other_files(path, None)
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield from _lines(file, path, most)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(f"cannot be read on ({error}).", path, "Get the file again.") from None


def _lines(file: Any, path: Path, most: int | None) -> Iterator[bytes]:
    number, size = 0, 0
    while line := file.readline(LONGEST + 1):
        number, size = number + 1, size + len(line)
        if len(line) > LONGEST:
            raise BadInput(f"a line has more than {LONGEST:,} bytes.", f"{path}:{number}", "Part or delete it.")
        if most is not None and size > most:
            raise _too_large(path, most)
        yield line


def _whole(file: Any, path: Path, most: int | None) -> bytes:
    raw = bytes(file.read() if most is None else file.read(most + 1))
    if most is not None and len(raw) > most:
        raise _too_large(path, most)
    return raw


def _too_large(path: Path, most: int) -> BadInput:
    return BadInput(f"it has more than {most:,} bytes.", path, "Part it into several files.")


def refuse_other_files(path: Path, most: int | None) -> None:
    """Raise BadInput for what is no file, an archive, or more than `most` bytes."""
    if path.is_dir():
        raise BadInput("this is a folder.", path, "Name a file.")
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read ({error}).", path, "Check the path.") from None
    if start == b"PK\x03\x04":
        raise BadInput("this is a zip archive or a spreadsheet.", path, "Unpack it, or save the sheet as CSV.")
    if most is not None and size > most:
        raise _too_large(path, most)


def _array(raw: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, value in enumerate(json_value(raw, path), start=1):
        if not isinstance(value, dict):
            raise BadInput(f"expected an object, found {type(value).__name__}.", f"{path}:{number}", "Delete it.")
        yield number, value


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for group in table.iter_batches(1000):
                for row in group.to_pylist():
                    number += 1
                    # Times, decimals and bytes become text, as a record can hold them.
                    yield number, json_value(json.dumps(row, default=str).encode(), f"{path}:{number}")
    except FileNotFoundError:
        raise BadInput("there is no such file.", path, "Check the path.") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadInput(
            f"unreadable Parquet ({str(error)[:80]}).", f"{path}:{number + 1}", "Get the file again."
        ) from None
    if not number:
        raise BadInput("there is nothing in this file.", path, "Get the file again, or take it out of the recipe.")
