"""Articles: RSS and Atom feeds (feedparser), and saved HTML pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from palate.records import Document
from palate.sources.files import Dropped, Source, brief, content, document
from palate.sources.websites import fragment, main_text


def read_feed(source: Source) -> Iterator[Document | Dropped]:
    """One document per entry that carries text, from its full content or else its summary."""
    import feedparser

    # Sanitising and resolving links work on markup of which we keep none.
    feed = feedparser.parse(io.BytesIO(content(source)), sanitize_html=False, resolve_relative_uris=False)
    if not feed.entries:
        trouble = feed.get("bozo_exception")
        yield Dropped(source.locator, "damaged" if trouble else "empty", brief(trouble or "no entries in this feed"))
        return
    of_feed = str(feed.feed.get("language", "")).split("-")[0].lower()
    licence = str(feed.feed.get("rights", ""))
    for number, entry in enumerate(feed.entries, start=1):
        locator = f"{source.locator}#{number}"
        url = str(entry.get("link", ""))
        bodies: list[Any] = [part.get("value", "") for part in entry.get("content", ())]
        text = max([fragment(str(body)) for body in (*bodies, entry.get("summary", "")) if body], key=len, default="")
        if not text:
            yield Dropped(url or locator, "no text", "an entry without content or summary")
            continue
        extra = {"published": str(entry["published"])} if "published" in entry else {}
        yield document(
            "article",
            locator,
            text,
            title=fragment(str(entry.get("title", ""))),
            url=url,
            language=of_feed,
            licence=licence,
            extra=extra,
        )
    if feed.get("bozo") and "SAX" in type(feed.get("bozo_exception")).__name__:
        yield Dropped(source.locator, "damaged", brief(f"after {len(feed.entries)} entries: {feed.bozo_exception}"))


def read_page(source: Source) -> Iterator[Document | Dropped]:
    """The main text of a saved page; one that marks its text as an article is of that kind, else a website."""
    raw = content(source)
    title, text, language = main_text(raw)
    if not text:
        yield Dropped(source.locator, "no text", "no main text was found in the page")
        return
    lower = raw.lower()
    kind = "article" if b"<article" in lower or b'content="article"' in lower else "website"
    yield document(kind, source.locator, text, title=title, language=language)
