"""Forums: Stack Exchange's Posts.xml and threads as JSON lines -> one document per thread.

A thread reads "Question: ...", then each "Answer: ..." with the accepted one first and the others by score.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lxml import etree

from palate.records import Document
from palate.sources.files import Dropped, Source, brief, document, head, opened
from palate.sources.folders import json_objects
from palate.sources.websites import fragment

QUESTION, ANSWER = "1", "2"  # PostTypeId in the dumps' schema; the other types are wikis and moderation
BATCH = 1_000
_NUMBER = re.compile("-?[0-9]{1,18}")  # what SQLite can hold
LICENCE = "CC BY-SA"  # of every Stack Exchange dump


def read_posts(source: Source) -> Iterator[Document | Dropped]:
    """The threads of a Posts.xml, which may be far larger than memory.

    An answer can stand millions of rows behind its question, so the rows pass through a temporary SQLite file.
    """
    with tempfile.TemporaryDirectory(prefix="palate-posts-") as folder:
        store = sqlite3.connect(Path(folder) / "posts.sqlite", isolation_level=None)
        with contextlib.closing(store):
            store.execute("PRAGMA journal_mode = OFF")
            store.execute("PRAGMA synchronous = OFF")
            store.execute("CREATE TABLE post (id INTEGER, parent INTEGER, score INTEGER, title, body, accepted, tags)")
            trouble = _load(source, store)
            store.execute("CREATE INDEX by_parent ON post (parent)")
            questions = store.execute(
                "SELECT id, title, body, accepted, tags FROM post WHERE parent IS NULL ORDER BY id"
            )
            for number, title, body, accepted, tags in questions:
                answers = store.execute(
                    "SELECT body FROM post WHERE parent = ? ORDER BY id IS ? DESC, score DESC, id", (number, accepted)
                )
                texts = [fragment(row[0]) for row in answers]
                yield _thread(
                    f"{source.locator}#{number}", title, fragment(body), texts, licence=LICENCE, extra={"tags": tags}
                )
    if trouble:
        yield Dropped(source.locator, "damaged", brief(trouble))


def _load(source: Source, store: sqlite3.Connection) -> str:
    """Put the questions and answers into `store`; what stopped the reading is returned, "" at the end of the file."""
    rows: list[tuple[Any, ...]] = []
    trouble = ""

    def flush() -> None:
        store.execute("BEGIN")
        store.executemany("INSERT INTO post VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        store.execute("COMMIT")
        rows.clear()

    with opened(source) as file:
        try:
            for _, row in etree.iterparse(
                file, tag="row", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
            ):
                get = row.attrib.get
                kind = get("PostTypeId")
                if kind in (QUESTION, ANSWER):
                    told = [get(key) or "0" for key in ("Id", "ParentId", "Score", "AcceptedAnswerId")]
                    if all(_NUMBER.fullmatch(number) for number in told):
                        number, parent, score, accepted = map(int, told)
                        above = parent if kind == ANSWER else None
                        texts = [get(key, "") for key in ("Title", "Body", "Tags")]
                        rows.append((number, above, score, *texts[:2], accepted or None, texts[2]))
                    else:
                        trouble = brief(f"a post whose numbers are none: {', '.join(told)}")
                row.clear()
                while row.getprevious() is not None:  # lxml keeps the emptied rows in the tree otherwise
                    del row.getparent()[0]
                if len(rows) >= BATCH:
                    flush()
        except (etree.XMLSyntaxError, EOFError, OSError, ValueError) as error:
            trouble = brief(error)
    flush()
    return trouble


def _thread(locator: str, title: str, body: str, answers: Iterable[str], **fields: Any) -> Document | Dropped:
    title = " ".join(title.split())
    question = body if not title or body == title else f"{title}\n\n{body}" if body else title
    told = [f"Question: {question}"] if question else []
    told += [f"Answer: {answer}" for answer in answers if answer]
    if not told:
        return Dropped(locator, "no text", "a thread without text")
    return document("forum", locator, "\n\n".join(told), title=title, **fields)


def is_threads(source: Source) -> bool:
    """Whether a file of JSON lines holds threads: an object with "answers", "posts" or "replies"."""
    start = head(source).lstrip()
    first = start.split(b"\n", 1)[0]
    try:
        value = json.loads(first)
    except ValueError:  # a first line longer than what we look at
        return start[:1] == b"{" and any(key in first for key in (b'"answers":', b'"posts":', b'"replies":'))
    return isinstance(value, dict) and any(isinstance(value.get(key), list) for key in ("answers", "posts", "replies"))


def read_threads(source: Source) -> Iterator[Document | Dropped]:
    """One thread per line: title, question (or body, text), answers (or posts, replies) of texts or objects."""
    for number, found in json_objects(source):
        locator = f"{source.locator}#{number}"
        if isinstance(found, Dropped):
            yield found
            continue
        body = next((str(found[key]) for key in ("question", "body", "text") if found.get(key)), "")
        replies: list[Any] = next(
            (found[key] for key in ("answers", "posts", "replies") if isinstance(found.get(key), list)), []
        )
        answers = [fragment(_reply(reply)) for reply in replies]
        url = str(found.get("url") or "")
        licence = str(found.get("license") or found.get("licence") or "")
        yield _thread(locator, str(found.get("title") or ""), fragment(body), answers, url=url, licence=licence)


def _reply(reply: Any) -> str:
    if isinstance(reply, Mapping):
        return next((str(reply[key]) for key in ("text", "body", "content") if reply.get(key)), "")
    return str(reply)
