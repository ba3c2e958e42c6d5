"""Web archives: WARC (ISO 28500), ARC and Common Crawl's WET -> the main text of each page.

The main text is found by trafilatura (Barbaresi 2021, ACL demo), in its fast mode: the slower one runs two more
extractors and compares them, at five times the cost for pages that the first already read well.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import zlib
from collections.abc import Iterator
from configparser import ConfigParser
from copy import deepcopy
from typing import Any

from lxml import etree, html

from palate.records import Document
from palate.sources.files import OURS, Dropped, Source, brief, document, opened, suffixes

MOST_PAGE_BYTES = 20_000_000
SHORTEST = 60
"""Characters below which trafilatura takes its rescue path, which brings menus along. Its own 250 is for news."""

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_BLOCK = re.compile(
    "address|article|aside|blockquote|body|br|d[dlt]|div|figcaption|figure|footer|form|h[1-6r]|header|html|li|main|nav"
    "|ol|p|pre|section|table|tbody|t[dhr]|thead|ul"
)
_SILENT = frozenset(("script", "style", "head", "noscript", "template", "svg", "math"))
_SPACE = re.compile(r"[ \t\r\n\f]+")
_SITE = re.compile(r"\s+[|\u2013\u2014·»-]\s+[^|\u2013\u2014·»]*$")
_CHARSET = re.compile(rb"""<meta[^>]+charset=["']?([\w-]+)""", re.IGNORECASE)


def read(source: Source) -> Iterator[Document | Dropped]:
    """One document per page of a web archive."""
    from warcio.archiveiterator import ArchiveIterator

    number = 0
    with source.path.open("rb") as file:
        records = iter(ArchiveIterator(file, arc2warc=True))
        while True:
            try:
                record = next(records)
            except StopIteration:
                break
            except Exception as error:
                # The archive's framing is broken here: what follows cannot be found any more.
                yield Dropped(source.locator, "damaged", brief(f"after {number} records: {error}"))
                return
            if not record.rec_headers.get_header("Content-Length"):
                yield Dropped(source.locator, "damaged", f"after {number} records: cut off inside a record's header")
                return
            if record.rec_type not in ("response", "resource", "conversion"):
                continue
            number += 1
            url = record.rec_headers.get_header("WARC-Target-URI") or ""
            try:
                yield _page(record, url, f"{source.locator}#{number}")
            except OURS:
                raise
            except Exception as error:  # whatever trips over one page, the next is read
                yield Dropped(url or f"{source.locator}#{number}", "damaged", brief(error))
    trouble = _damage(source)
    if trouble:
        yield Dropped(source.locator, "damaged", brief(f"after {number} records: {trouble}"))
    elif not number:
        yield Dropped(source.locator, "empty", "no page in this archive")


def _damage(source: Source) -> str:
    """What is wrong with an archive as a whole, "" when nothing is. warcio takes a broken gzip member, or a header that
    was cut off, for the archive's end."""
    last = b""
    try:
        with opened(source) as file:
            while piece := file.read(1 << 20):
                last = piece
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    header_alone = last.rstrip().rpartition(b"\r\n\r\n")[2].startswith(b"WARC/")
    end = b"\n" if suffixes(source.path)[0] == ".arc" else b"\r\n\r\n"
    return "" if last.endswith(end) and not header_alone else "the last record has no end"


def _page(record: Any, url: str, locator: str) -> Document | Dropped:
    http = record.http_headers
    status = http.get_statuscode() if http else "200"
    declared = (http.get_header("Content-Type") if http else "") or record.rec_headers.get_header("Content-Type") or ""
    kind = declared.split(";")[0].strip().lower()
    if status and status != "200":
        return Dropped(url or locator, "not found", f"the server answered {status}")
    raw = record.content_stream().read(MOST_PAGE_BYTES + 1)
    if len(raw) > MOST_PAGE_BYTES:
        return Dropped(url or locator, "too large", f"over {MOST_PAGE_BYTES // 1_000_000} MB")
    while record.raw_stream.read():  # what a decompressor left over
        pass
    if record.raw_stream.limit > 0:
        return Dropped(url or locator, "damaged", f"cut off: {record.raw_stream.limit} bytes of the record are missing")
    date = record.rec_headers.get_header("WARC-Date") or ""
    extra = {"retrieved_at": date} if date else {}
    if kind == "text/plain":
        text = raw.decode("utf-8").strip()
        if not text:
            return Dropped(url or locator, "no text", "the page has no text")
        return document("website", locator, text, url=url, extra=extra)
    if kind and kind not in _HTML_TYPES:
        return Dropped(url or locator, "not a page", kind[:100])
    charset = re.search(r"charset=[\"']?([\w-]+)", declared, re.IGNORECASE)
    title, text, language = main_text(raw, charset[1] if charset else "")
    if not text:
        return Dropped(url or locator, "no text", "no main text was found in the page")
    return document("website", locator, text, title=title, url=url, language=language, extra=extra)


def main_text(raw: bytes, charset: str = "") -> tuple[str, str, str]:
    """(title, main text with blank lines between paragraphs, declared language) of an HTML page."""
    import trafilatura

    tree = parsed(raw, charset)
    if tree is None:
        return "", "", ""
    headings = [_SPACE.sub(" ", "".join(h.itertext())).strip() for h in tree.iter("h1")]
    named = tree.find(".//title")
    of_head = _SITE.sub("", _SPACE.sub(" ", named.text or "").strip()) if named is not None else ""
    # A site's name may stand in an h1, too; the one that the page's title repeats is the text's.
    title = next((h for h in headings if h and h == of_head), "") or of_head or (headings[0] if headings else "")
    language = (tree.get("lang") or "").split("-")[0].lower()
    found: Any = trafilatura.bare_extraction(
        tree, fast=True, include_comments=False, favor_recall=True, with_metadata=False, config=_settings()
    )
    lines = [line.strip() for line in (found.text or "").split("\n") if line.strip()] if found is not None else []
    if lines and title and lines[0] == title:
        del lines[0]
    return title, "\n\n".join(lines), language


@functools.cache
def _settings() -> ConfigParser:
    from trafilatura.settings import DEFAULT_CONFIG

    for name in ("trafilatura", "htmldate", "courlan", "justext"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we count what was dropped ourselves
    settings = deepcopy(DEFAULT_CONFIG)
    settings["DEFAULT"]["MIN_EXTRACTED_SIZE"] = str(SHORTEST)
    return settings


def parsed(raw: bytes, charset: str = "") -> Any | None:
    """The tree of an HTML page, or None when there is none in it. Raises UnicodeDecodeError.

    The charset is what the server said, else what the page says, else UTF-8, else Windows-1252 (the HTML standard's
    fallback).
    """
    said = _CHARSET.search(raw[:2048])
    text: str | None = None
    for name in (charset, said[1].decode("ascii") if said else "", "utf-8-sig"):
        if name:
            with contextlib.suppress(UnicodeDecodeError, LookupError):
                text = raw.decode(name)
                break
    if text is None:
        text = raw.decode("cp1252", errors="replace")
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.replace("\x00", ""))
    if not text.strip():
        return None
    try:
        return html.document_fromstring(text, parser=html.HTMLParser(no_network=True, huge_tree=False))
    except etree.ParserError:
        return None


def fragment(markup: str) -> str:
    """The text of an HTML fragment (a forum post, a feed entry), paragraphs apart by blank lines.

    >>> fragment("<p>One <b>pan</b>.</p><p>Two</p>")
    'One pan.\\n\\nTwo'
    """
    if "<" not in markup and "&" not in markup:
        return "\n\n".join(p.strip() for p in re.split(r"\n\s*\n", markup) if p.strip())
    tree = parsed(markup.encode(), "utf-8")
    return "" if tree is None else block_text(tree)


def block_text(tree: Any) -> str:
    """All text below an element, one paragraph per block element, blank lines between them."""
    blocks: list[str] = []
    pieces: list[str] = []

    def end() -> None:
        text = _SPACE.sub(" ", "".join(pieces)).strip()
        if text:
            blocks.append(text)
        pieces.clear()

    for event, element in etree.iterwalk(tree, events=("start", "end", "comment", "pi")):
        if event in ("comment", "pi"):
            pieces.append(element.tail or "")
            continue
        name = etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""
        if name in _SILENT:
            if event == "end":
                pieces.append(element.tail or "")
            continue
        if _BLOCK.fullmatch(name):
            end()
        if event == "start":
            pieces.append("" if _silent_above(element) else element.text or "")
        elif element is not tree:
            pieces.append("" if _silent_above(element) else element.tail or "")
    end()
    return "\n\n".join(blocks)


def _silent_above(element: Any) -> bool:
    return next(element.iterancestors(*_SILENT), None) is not None
