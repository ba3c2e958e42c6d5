"""Files as they lie on a disk -> documents: websites, books, articles, forums, papers and plain folders.

`read` walks a file or folder in sorted order and picks the reader by name and content. What cannot be read is yielded
as `Dropped` with its reason, and the rest goes on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from palate.errors import BadInput
from palate.records import Document
from palate.sources import articles, books, folders, forums, papers, websites
from palate.sources.files import OURS, Dropped, Source, brief, head, suffixes

__all__ = ["Dropped", "files", "read"]

Reader = Callable[[Source], Iterator[Document | Dropped]]


def files(path: Path) -> list[Path]:
    """Every file at or under `path` in sorted order, hidden ones left out. Raises BadInput when there is none."""
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = [
            p
            for p in path.rglob("*")
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts)
        ]
        # By the parts of the name, so that the order is the same on every system.
        found.sort(key=lambda p: p.relative_to(path).parts)
    else:
        raise BadInput("there is no such file or folder.", path, "Check collect.sources.")
    if not found or all(p.stat().st_size == 0 for p in found):
        raise BadInput("there is nothing to read here.", path, "Put text files in it or take it out of the sources.")
    return found


def read(path: Path) -> Iterator[Document | Dropped]:
    """The documents of a file or folder, damaged ones as `Dropped`. Raises BadInput when it is missing or empty."""
    for file in files(path):
        yield from read_file(file, file.name if path.is_file() else file.relative_to(path).as_posix())


def read_file(path: Path, locator: str) -> Iterator[Document | Dropped]:
    """The documents of one file; `locator` is the name they are reported under. What cannot be read is counted, and
    what cannot be written down as UTF-8 is none that was read."""
    source = Source(path, locator.encode("utf-8", "backslashreplace").decode())  # a name may be any bytes
    something = False
    for found in _read(source):
        something = True
        if isinstance(found, Document) and not _writable(found):
            yield Dropped(found.locator.encode("utf-8", "replace").decode(), "undecodable", "half of a character")
        elif isinstance(found, Dropped):
            yield Dropped(found.locator, found.reason, brief(found.detail))  # it may quote what is damaged
        else:
            yield found
    if not something:
        yield Dropped(source.locator, "damaged", "nothing that could be read is in it")


def _writable(document: Document) -> bool:
    try:
        for value in vars(document).values():
            (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(source: Source) -> Iterator[Document | Dropped]:
    path, locator = source.path, source.locator
    try:
        if path.stat().st_size == 0:
            yield Dropped(locator, "empty", "the file has no bytes")
            return
        reader = _reader(source)
        if reader is None:
            yield Dropped(locator, "unknown format", f"no reader for {path.name}")
            return
        yield from reader(source)
    except UnicodeDecodeError as error:
        yield Dropped(locator, "undecodable", f"byte {error.start} is not {error.encoding}")
    except (EOFError, zlib.error) as error:
        yield Dropped(locator, "damaged", f"cut off: {error}")
    except OSError as error:  # gzip.BadGzipFile and lzma's errors among them
        yield Dropped(locator, "damaged", brief(error.strerror or error))
    except OURS:
        raise
    except Exception as error:  # a parser that trips over one file must not end the collection
        yield Dropped(locator, "damaged", brief(f"{type(error).__name__}: {error}"))


_BY_SUFFIX: dict[str, Reader] = {
    ".warc": websites.read,
    ".arc": websites.read,
    ".wet": websites.read,
    ".epub": books.read_epub,
    ".pdf": books.read_pdf,
    ".html": articles.read_page,
    ".htm": articles.read_page,
    ".xhtml": articles.read_page,
    ".rss": articles.read_feed,
    ".atom": articles.read_feed,
    ".nxml": papers.read_jats,
    ".tex": papers.read_latex,
    ".parquet": folders.read_parquet,
    ".txt": folders.read_text,
    ".text": folders.read_text,
    ".md": folders.read_text,
    ".markdown": folders.read_text,
    ".rst": folders.read_text,
}

_BY_ROOT: tuple[tuple[bytes, Reader], ...] = (
    (b"<posts", forums.read_posts),
    (b"<rss", articles.read_feed),
    (b"<feed", articles.read_feed),
    (b"<rdf:rdf", articles.read_feed),
    (b"<article", papers.read_jats),
    (b"<html", articles.read_page),
)


def _reader(source: Source) -> Reader | None:
    kind = suffixes(source.path)[0]
    if kind in (".jsonl", ".ndjson", ".json"):
        return forums.read_threads if forums.is_threads(source) else folders.read_json_lines
    if kind in (".txt", "") and folders.is_wiki(source):
        return folders.read_wiki
    if kind in _BY_SUFFIX:
        return _BY_SUFFIX[kind]
    if kind == ".xml":
        start = head(source).lower()
        at = [(start.find(tag), reader) for tag, reader in _BY_ROOT if tag in start]
        return min(at, key=lambda found: found[0])[1] if at else None
    if kind == "" or kind[1:].isdigit():  # Wikipedia's "wiki_00", arXiv's "2004.14974.gz"
        if papers.is_latex(source):
            return papers.read_latex
        return folders.read_json_lines if head(source).lstrip()[:1] == b"{" else None
    return None
