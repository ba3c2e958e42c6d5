"""What every reader shares: a file with the name it is reported under, opened through its compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lxml import etree

from palate.records import Document, stable_id

PACKED = (".gz", ".xz", ".bz2")
HEAD = 4_096
MOST_BYTES = 200_000_000
"""Of a file that has to be in memory as a whole (a page, a feed, a paper); above it the file is refused."""

OURS = (ImportError, AssertionError, MemoryError)
"""Faults of this installation, program or machine. They are raised and not blamed on a document."""


@dataclass(frozen=True)
class Dropped:
    """A document that could not be read. reason: one of a few words to count by; detail: what was found."""

    locator: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Source:
    """A file and the name its documents are reported under."""

    path: Path
    locator: str


def suffixes(path: Path) -> tuple[str, str]:
    """(kind, packing) of a file name in lower case.

    >>> suffixes(Path("AA.txt.xz"))
    ('.txt', '.xz')
    """
    packing = path.suffix.lower()
    if packing in PACKED:
        return Path(path.stem).suffix.lower(), packing
    return packing, ""


def opened(source: Source) -> IO[bytes]:
    """The file's bytes, unpacked as they are read."""
    packing = suffixes(source.path)[1]
    if packing == ".gz":
        return gzip.open(source.path, "rb")  # type: ignore[return-value]
    if packing == ".xz":
        return lzma.open(source.path, "rb")
    if packing == ".bz2":
        return bz2.open(source.path, "rb")
    return source.path.open("rb")


def head(source: Source) -> bytes:
    """The first bytes, for telling formats apart; fewer when the file is short or damaged."""
    with opened(source) as file:
        return file.read(HEAD)


def content(source: Source) -> bytes:
    """All bytes of a file that has to be in memory. Raises ValueError when it is too large."""
    with opened(source) as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES // 1_000_000} MB")
    return raw


def decoded(raw: bytes) -> str:
    """Text in UTF-8, or in UTF-16 when it says so. Raises UnicodeDecodeError."""
    return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def brief(error: object) -> str:
    """An error in one line of at most 200 characters, for `Dropped.detail`."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:200] or type(error).__name__


def document(kind: str, locator: str, text: str, **fields: Any) -> Document:
    """A document whose id follows from its locator."""
    return Document(id=stable_id(kind, locator), text=text, source_kind=kind, locator=locator, **fields)


def xml_parser() -> Any:
    """A parser that reads nothing but the bytes it is given: no external entities, DTD, network or huge trees."""
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_pis=True
    )
