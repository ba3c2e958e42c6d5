"""Plain folders: text, Markdown, JSON lines, Parquet and WikiExtractor's files, packed or not."""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Iterator
from typing import Any

from palate.records import Document
from palate.sources.files import Dropped, Source, brief, content, document, head, opened, suffixes

BOOK = 200_000
"""Characters from which a text file is a book and is cut: one document must not outweigh thousands of others."""
PIECE = 2_000
"""Characters of a piece of a book: about 500 tokens, a few paragraphs that belong together."""
LONGEST_PARAGRAPH = 4 * PIECE  # without a blank line for this long, a line's end or a space will do
READ = 1 << 16
TEXT_FIELDS = ("text", "content")
LONGEST_LINE = 100_000_000  # of JSON; beyond it the file is not what it says

_DOC = re.compile(r'^<doc id="([^"]*)"(?: url="([^"]*)")?(?: title="(.*?)")?>\s*$')


def read_text(source: Source) -> Iterator[Document | Dropped]:
    """A text file: one document, or pieces with the locator file#n when it is a book.

    Undecodable bytes drop the file; in a book, what follows them.
    """
    chunks = _decoded(source)
    start = ""
    for chunk in chunks:
        start += chunk
        if len(start) > BOOK:
            break
    if len(start) <= BOOK:
        if start.strip():
            yield document("text", source.locator, start, title=source.path.name.split(".")[0])
        else:
            yield Dropped(source.locator, "no text", "nothing but blanks")
        return
    title = source.path.name.split(".")[0]

    def all_chunks() -> Iterator[str]:
        yield start
        yield from chunks

    for number, piece in enumerate(pieces(all_chunks()), start=1):
        yield document("book", f"{source.locator}#{number}", piece, title=title)


def _decoded(source: Source) -> Iterator[str]:
    with opened(source) as file:
        raw = file.read(READ)
        name = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        decoder = codecs.getincrementaldecoder(name)()
        read = 0
        while raw:
            try:
                yield decoder.decode(raw).replace("\r\n", "\n")
            except UnicodeDecodeError as error:
                raise UnicodeDecodeError(name, b"", read + error.start, read + error.end, error.reason) from None
            read += len(raw)
            raw = file.read(READ)
        yield decoder.decode(b"", final=True)


def pieces(chunks: Iterator[str]) -> Iterator[str]:
    """Text cut at paragraph borders into pieces of about PIECE characters; nothing but blanks is lost."""
    waiting = ""
    for chunk in chunks:
        waiting += chunk
        while len(waiting) > PIECE + LONGEST_PARAGRAPH:
            cut = _border(waiting)
            if waiting[:cut].strip():
                yield waiting[:cut].strip("\n").rstrip()
            waiting = waiting[cut:]
    while waiting.strip():
        cut = _border(waiting) if len(waiting) > 1.5 * PIECE else len(waiting)
        if waiting[:cut].strip():
            yield waiting[:cut].strip("\n").rstrip()
        waiting = waiting[cut:]


def _border(text: str) -> int:
    """Where to cut: the paragraph border next after PIECE characters, else a line's end, else a space."""
    for border in ("\n\n", "\n", " "):
        at = text.find(border, PIECE, PIECE + LONGEST_PARAGRAPH)
        if at >= 0:
            return at + len(border)
    return min(len(text), PIECE + LONGEST_PARAGRAPH)


def json_objects(source: Source) -> Iterator[tuple[int, dict[str, Any] | Dropped]]:
    """(line number, object) of a file of JSON lines; a bad line as Dropped.

    A file that is one array or one object is read, too.
    """
    start = head(source).lstrip()
    # An object over several lines: its first line does not close what it opens.
    over_lines = start[:1] == b"{" and b"\n" in start and not start.split(b"\n", 1)[0].rstrip().endswith(b"}")
    if start[:1] == b"[" or (over_lines and suffixes(source.path)[0] == ".json"):
        try:
            whole = json.loads(content(source))
            values = whole if isinstance(whole, list) else [whole]
        except ValueError as error:
            yield 0, Dropped(source.locator, "damaged", brief(error))
            return
        for number, value in enumerate(values, start=1):
            if isinstance(value, dict):
                yield number, value
            else:
                yield number, Dropped(f"{source.locator}#{number}", "damaged", "not a JSON object")
        return
    number = 0
    with opened(source) as file:
        while True:
            try:
                raw = file.readline(LONGEST_LINE)
            except (EOFError, OSError) as error:
                yield number, Dropped(source.locator, "damaged", brief(f"cut off after line {number}: {error}"))
                return
            if not raw:
                return
            number += 1
            if raw.strip():
                yield number, _json_object(raw, f"{source.locator}#{number}", first=number == 1)


def _json_object(raw: bytes, locator: str, *, first: bool) -> dict[str, Any] | Dropped:
    try:
        value = json.loads(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return Dropped(locator, "undecodable", f"byte {error.start} of the line is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Dropped(locator, "damaged", brief(error))
    return value if isinstance(value, dict) else Dropped(locator, "damaged", "not a JSON object")


def read_json_lines(source: Source) -> Iterator[Document | Dropped]:
    """One document per line, from its field "text" or "content"; what else the line holds goes into `extra`."""
    for number, found in json_objects(source):
        locator = f"{source.locator}#{number}"
        yield found if isinstance(found, Dropped) else _from_fields(found, locator)


def _from_fields(values: dict[str, Any], locator: str) -> Document | Dropped:
    values = dict(values)
    field = next((name for name in TEXT_FIELDS if isinstance(values.get(name), str)), None)
    if field is None:
        return Dropped(locator, "no text", brief(f"no field {' or '.join(TEXT_FIELDS)}: {', '.join(values)}"))
    text = values.pop(field)
    if not text.strip():
        return Dropped(locator, "no text", f"the field {field} is blank")
    known = {name: str(values.pop(name) or "") for name in ("title", "url", "language", "licence") if name in values}
    values.pop("id", None)  # ours follows from the locator
    kept = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool)}
    return document("text", locator, text, extra=kept, **known)


def read_parquet(source: Source) -> Iterator[Document | Dropped]:
    """One document per row of a Parquet file with a column "text" or "content"."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(source.path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield _from_fields(row, f"{source.locator}#{number}")
    except (pa.ArrowException, OSError) as error:
        yield Dropped(source.locator, "damaged", brief(f"after row {number}: {error}"))


def is_wiki(source: Source) -> bool:
    """Whether a text file is WikiExtractor's: its first line opens a <doc>."""
    return head(source).lstrip()[:9] == b'<doc id="'


def read_wiki(source: Source) -> Iterator[Document | Dropped]:
    """One document per <doc> ... </doc>; every line is a paragraph, and the title's line is left out."""
    opening: re.Match[str] | None = None
    lines: list[str] = []
    with opened(source) as file:
        number = 0
        while True:
            try:
                raw = file.readline()
            except (EOFError, OSError) as error:
                yield Dropped(source.locator, "damaged", brief(f"cut off after line {number}: {error}"))
                return
            if not raw:
                break
            number += 1
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield Dropped(f"{source.locator}:{number}", "undecodable", f"byte {error.start} is not UTF-8")
                continue
            if found := _DOC.match(line):
                opening, lines = found, []
            elif line.strip() == "</doc>" and opening is not None:
                yield _wiki_page(source.locator, opening, lines)
                opening = None
            elif opening is None and line.strip():
                yield Dropped(f"{source.locator}:{number}", "damaged", "a line outside of every document")
            elif line.strip():
                lines.append(line.strip())
    if opening is not None:
        yield Dropped(f"{source.locator}#{opening[1]}", "damaged", "the file ends inside this document")


def _wiki_page(locator: str, opening: re.Match[str], lines: list[str]) -> Document | Dropped:
    title = html.unescape(opening[3] or "")
    body = lines[1:] if lines and lines[0] == title else lines
    if not body:
        return Dropped(f"{locator}#{opening[1]}", "no text", "a title without text")
    return document(
        "text", f"{locator}#{opening[1]}", "\n\n".join(body), title=title, url=html.unescape(opening[2] or "")
    )
