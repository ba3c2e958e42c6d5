"""Books: EPUB (a zip of XHTML chapters) and PDF -> one document per chapter.

A chapter longer than `folders.PIECE` times two is cut at paragraph borders like any long text.
"""

from __future__ import annotations

import itertools
import posixpath
import statistics
import urllib.parse
import zipfile
from collections.abc import Iterator
from typing import Any

from lxml import etree

from palate.records import Document
from palate.sources.files import MOST_BYTES, Dropped, Source, brief, document, xml_parser
from palate.sources.folders import pieces
from palate.sources.websites import block_text, parsed

MOST_CHAPTER_BYTES = 50_000_000  # unpacked; a zip can claim any size, so nothing larger is unpacked
LONG_CHAPTER = 20_000
"""Characters; what is longer is cut into pieces, for one document must not outweigh thousands of others."""
PARAGRAPH_GAP = 1.35
"""A distance between lines this many times the usual one starts a paragraph (the usual extra is half a line)."""
SAMPLED_PAGES = 20

_OPF = {"o": "http://www.idpf.org/2007/opf", "dc": "http://purl.org/dc/elements/1.1/"}
_CONTAINER = {"c": "urn:oasis:names:tc:opendocument:xmlns:container"}


def read_epub(source: Source) -> Iterator[Document | Dropped]:
    """One document per item of the spine, in reading order; the navigation is left out."""
    try:
        book = zipfile.ZipFile(source.path)
    except zipfile.BadZipFile as error:
        yield Dropped(source.locator, "damaged", f"not a zip file: {error}")
        return
    with book:
        try:
            container = etree.fromstring(_member(book, "META-INF/container.xml"), xml_parser())
            opf = str(container.find(".//c:rootfile", _CONTAINER).get("full-path"))
            package = etree.fromstring(_member(book, opf), xml_parser())
        except (KeyError, AttributeError, ValueError, etree.XMLSyntaxError, zipfile.BadZipFile) as error:
            yield Dropped(source.locator, "damaged", brief(f"no readable package: {error}"))
            return
        named = package.findtext(".//dc:title", "", _OPF).strip()
        common: dict[str, Any] = {
            "language": package.findtext(".//dc:language", "", _OPF).strip().split("-")[0].lower(),
            "licence": package.findtext(".//dc:rights", "", _OPF).strip(),
        }
        items = {item.get("id"): item for item in package.iterfind(".//o:manifest/o:item", _OPF)}
        for reference in package.iterfind(".//o:spine/o:itemref", _OPF):
            item = items.get(reference.get("idref"))
            if item is None or "nav" in (item.get("properties") or "").split():
                continue
            href = urllib.parse.unquote(str(item.get("href")))
            locator = f"{source.locator}#{href}"
            try:
                raw = _member(book, posixpath.normpath(posixpath.join(posixpath.dirname(opf), href)))
                title, text = _chapter(raw)
            except (KeyError, ValueError, zipfile.BadZipFile, etree.LxmlError) as error:
                yield Dropped(locator, "damaged", brief(error))
                continue
            yield from _told(locator, title or named, text, {"book": named}, common)


def _member(book: zipfile.ZipFile, name: str) -> bytes:
    with book.open(name) as file:
        raw = file.read(MOST_CHAPTER_BYTES + 1)
    if len(raw) > MOST_CHAPTER_BYTES:
        raise ValueError(f"{name} unpacks to more than {MOST_CHAPTER_BYTES // 1_000_000} MB")
    return raw


def _chapter(raw: bytes) -> tuple[str, str]:
    try:
        tree = etree.fromstring(raw, xml_parser())
    except etree.XMLSyntaxError:
        tree = parsed(raw)  # many books are HTML that was never checked
        if tree is None:
            return "", ""
    body = next((e for e in tree.iter() if isinstance(e.tag, str) and etree.QName(e).localname == "body"), tree)
    text = block_text(body)
    heading = next(
        (e for e in body.iter() if isinstance(e.tag, str) and etree.QName(e).localname in ("h1", "h2", "h3")), None
    )
    title = " ".join("".join(heading.itertext()).split()) if heading is not None else ""
    if title and text.startswith(title + "\n\n"):
        text = text[len(title) + 2 :]
    return title, text


def _told(
    locator: str, title: str, text: str, extra: dict[str, Any], common: dict[str, Any]
) -> Iterator[Document | Dropped]:
    if not text.strip():
        yield Dropped(locator, "no text", "a chapter without text (a picture, a scan)")
    elif len(text) <= LONG_CHAPTER:
        yield document("book", locator, text, title=title, extra=extra, **common)
    else:
        for number, piece in enumerate(pieces(iter([text])), start=1):
            yield document("book", f"{locator}.{number}", piece, title=title, extra=extra, **common)


def read_pdf(source: Source) -> Iterator[Document | Dropped]:
    """One document per chapter of the outline, or pieces of a PDF that has none."""
    import pypdfium2

    if source.path.stat().st_size > MOST_BYTES:
        yield Dropped(source.locator, "too large", f"over {MOST_BYTES // 1_000_000} MB")
        return
    try:
        book = pypdfium2.PdfDocument(source.path)
    except pypdfium2.PdfiumError as error:
        yield Dropped(source.locator, "damaged", brief(error))
        return
    try:
        named = str(book.get_metadata_dict().get("Title", ""))
        chapters = _outline(book) or [(named, 0)]
        if chapters[0][1] > 0:
            chapters.insert(0, (named, 0))
        usual = _line_step(book)
        ends = [start for _, start in chapters[1:]] + [len(book)]
        for number, ((title, start), end) in enumerate(zip(chapters, ends), start=1):
            locator = f"{source.locator}#{number}" if len(chapters) > 1 else source.locator
            try:
                paragraphs: list[str] = []
                for page in range(start, end):
                    found = _paragraphs(_lines(book[page]), usual)
                    if found and paragraphs and found[0][0].islower() and paragraphs[-1][-1] not in ".!?:":
                        paragraphs[-1] += " " + found.pop(0)  # a sentence that goes on over the page
                    paragraphs += found
            except pypdfium2.PdfiumError as error:
                yield Dropped(locator, "damaged", brief(error))
                continue
            if paragraphs and paragraphs[0] == title:
                del paragraphs[0]
            yield from _told(locator, title, "\n\n".join(paragraphs), {"book": named}, {})
    finally:
        book.close()


def _outline(book: Any) -> list[tuple[str, int]]:
    """(title, first page) of the top level, in page order, one entry for each page at most."""
    found: dict[int, str] = {}
    for mark in book.get_toc(max_depth=1):
        target = mark.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            found.setdefault(page, mark.get_title())
    return [(found[page], page) for page in sorted(found)]


def _lines(page: Any) -> list[tuple[str, float]]:
    """(text, height above the page's foot) of the lines, in reading order as pdfium finds it."""
    text_page = page.get_textpage()
    try:
        lines: list[tuple[str, float]] = []
        at = 0
        for line in text_page.get_text_range().split("\r\n"):
            if line.strip():
                first = at + len(line) - len(line.lstrip())
                # The loose box is the font's and not the letter's, so that a "g" stands no lower than an "a".
                lines.append((line.strip(), float(text_page.get_charbox(first, loose=True)[1])))
            at += len(line) + 2
        return lines
    finally:
        text_page.close()
        page.close()


def _line_step(book: Any) -> float:
    """The usual distance between lines: a page of one-line paragraphs alone could not tell."""
    chosen = range(0, len(book), -(-len(book) // SAMPLED_PAGES) or 1)
    steps = [a[1] - b[1] for n in chosen for a, b in itertools.pairwise(_lines(book[n]))]
    return statistics.median_low([step for step in steps if step > 0] or [0.0])


def _paragraphs(lines: list[tuple[str, float]], usual: float) -> list[str]:
    """Lines closer than PARAGRAPH_GAP times the usual distance belong together."""
    paragraphs: list[str] = []
    steps = [above[1] - below[1] for above, below in itertools.pairwise(lines)]
    for (line, _), step in zip(lines, [None, *steps]):
        # A line that is higher than the one before is the next column's first.
        column = step is not None and step <= 0 and not paragraphs[-1].endswith((".", "!", "?", ":"))
        if step is not None and (column or 0 < step <= PARAGRAPH_GAP * usual):
            joined = paragraphs[-1]
            # pdfium marks a hyphen at a line's end with U+FFFE.
            paragraphs[-1] = joined[:-1] + line if joined.endswith("\ufffe") else f"{joined} {line}"
        else:
            paragraphs.append(line)
    return [p.replace("\ufffe", "") for p in paragraphs]
