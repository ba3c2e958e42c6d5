"""Books, papers, websites, forums and folders: a damaged document is counted with its reason, and the rest goes on."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files.damage import TRIED, Damaged, at_most, blocks, cuts, flips, tails

from palate import recipe as recipes
from palate import sources
from palate.kitchen import raw
from palate.kitchen.prose import Page
from palate.records import Document
from palate.sources import Dropped
from palate.stages import collect
from palate.text import corpus
from palate.workspace import Job, Workspace

HEALTHY = "The soup is ready in twenty minutes and it tastes of the lemon that we like."


def pages() -> list[Page]:
    kinds = ("website", "book", "article", "forum", "paper")
    found = []
    for n in range(25):
        body = tuple(
            f"Paragraph {k} of page {n} tells how the soup and the bread are made in {n + k} ways." for k in range(3)
        )
        if kinds[n % 5] == "forum":
            body = (f"Question: Page {n}", *(f"Answer: {text}" for text in body[1:]))
        elif kinds[n % 5] == "paper":
            body = (f"Abstract. {body[0]}", *body[1:])
        found.append(Page(kinds[n % 5], f"Page {n}", body, "en", "soup"))
    return found


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of every format."""
    folder = tmp_path_factory.mktemp("raw")
    raw.write_raw(folder / "made", pages(), 3)
    out = folder / "files"
    out.mkdir()
    chosen: dict[str, Path] = {}
    for path in sorted((folder / "made").rglob("*")):
        if path.is_file() and path.name != "labels.json":
            ending = "".join(path.suffixes) or path.name
            if ending not in chosen or path.stat().st_size < chosen[ending].stat().st_size:
                chosen[ending] = path
            if ending == ".xml":
                shutil.copyfile(path, out / f"{path.parent.name}-{path.name}")
    for ending, path in chosen.items():
        if ending != ".xml":
            shutil.copyfile(path, out / f"one{ending}")
    books = [page for page in pages() if page.kind == "book"]
    (out / "book.pdf").write_bytes(raw._pdf("Book", books))
    lines = "".join(json.dumps({"text": f"{HEALTHY} {n}", "n": n}) + "\n" for n in range(40))
    (out / "lines.jsonl").write_text(lines)
    (out / "lines.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (out / "one.warc").write_bytes(gzip.decompress((out / "one.warc.gz").read_bytes()))
    (out / "plain.txt").write_text((HEALTHY + " Crème brûlée.\n\n") * 9)
    (out / "wiki_00").write_text(
        "".join(f'<doc id="{n}" url="u" title="T {n}">\nT {n}\n\n{HEALTHY}\n\n</doc>\n' for n in range(9))
    )
    pq.write_table(pa.table({"text": [f"{HEALTHY} {n}" for n in range(40)], "n": range(40)}), out / "rows.parquet")
    return out


FORMATS = ("book.pdf", "lines.jsonl", "lines.jsonl.gz", "plain.txt", "wiki_00", "rows.parquet", "one.epub", "one.html",
           "one.warc.gz", "one.warc", "one.tex", "one.jsonl", ".xml")  # fmt: skip


def test_every_format_is_among_the_files(kitchen: Path) -> None:
    names = [p.name for p in kitchen.iterdir()]
    assert all(any(name.endswith(ending) for name in names) for ending in FORMATS), names


def damage(good: bytes, times: int) -> Iterator[Damaged]:
    yield from cuts(good)
    yield from flips(good, 12 * times, times)
    yield from blocks(good, 12 * times, times)
    yield from tails(good)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_damaged_file_is_counted_and_the_next_is_read(ending: str, kitchen: Path, tmp_path: Path, times: int) -> None:
    """Nothing is raised, every document that comes can be written, and a file that gives none is counted."""
    for path in sorted(p for p in kitchen.iterdir() if p.name.endswith(ending)):
        good = path.read_bytes()
        folder = tmp_path / path.name
        folder.mkdir()
        (folder / "zz.txt").write_text(HEALTHY)
        whole = {d.text for d in sources.read(path) if isinstance(d, Document)}
        assert whole
        reasons: Counter[str] = Counter()
        for number, (what, content) in enumerate(damage(good, times)):
            (folder / path.name).write_bytes(content)
            with at_most(20):
                found = list(sources.read(folder))
            TRIED["collected beside a healthy file"] += 1
            last = found[-1]
            assert isinstance(last, Document) and last.text == HEALTHY, what
            documents = [d for d in found[:-1] if isinstance(d, Document)]
            dropped = [d for d in found[:-1] if isinstance(d, Dropped)]
            assert documents or dropped, f"{path.name}, {what}: neither read nor counted"
            for drop in dropped:
                reasons[drop.reason] += 1
                assert drop.detail and drop.detail.isprintable() and len(drop.detail) <= 200
            if number % 5 == 0:
                corpus.write_documents(folder, documents)
                (folder / "documents-00000.parquet").unlink(missing_ok=True)
            for document in documents:
                "".join((document.text, document.title, document.url, document.locator, str(document.extra))).encode()
        assert path.suffix in (".txt", ".html", ".tex") or reasons["damaged"] + reasons["undecodable"] > 5, reasons


WHOLE_OR_COUNTED = ("lines.jsonl.gz", "rows.parquet", "one.epub", "one.warc.gz", "one.warc", ".xml", "wiki_00")


@pytest.mark.parametrize("ending", WHOLE_OR_COUNTED)
def test_a_cut_is_counted_beside_what_stands_before_it(ending: str, kitchen: Path, tmp_path: Path) -> None:
    """In a format that knows its end, no cut file passes for a whole one: what was lost is in the report."""
    for path in sorted(p for p in kitchen.iterdir() if p.name.endswith(ending)):
        good = path.read_bytes().rstrip()
        whole = [d for d in sources.read(path) if isinstance(d, Document)]
        cut_file = tmp_path / path.name
        for what, content in cuts(good):
            cut_file.write_bytes(content)
            found = list(sources.read_file(cut_file, path.name))
            documents = [d for d in found if isinstance(d, Document)]
            assert len(documents) <= len(whole)
            if ".warc" in ending:
                assert {d.text for d in documents} <= {d.text for d in whole}, f"{what}: half a page passes for a page"
            if [d.text for d in documents] != [d.text for d in whole]:
                assert any(isinstance(d, Dropped) for d in found), f"{path.name}, {what}: {len(documents)} and no word"


POSTS = (
    b'<posts><row Id="1" PostTypeId="1" Title="T" Body="B"/><row Id="%s" PostTypeId="1" %s Title="U" Body="C"/>'
    b'<row Id="2" PostTypeId="1" Title="V" Body="D"/></posts>'
)


@pytest.mark.parametrize(
    ("name", "content", "texts", "reason"),
    [
        ("a.jsonl", b'{"text": "one \\ud800 two"}\n{"text": "fine"}\n', ["fine"], "undecodable"),
        ("a.jsonl", b'{"text": "fine", "title": "\\udfff"}\n{"text": "too"}\n', ["too"], "undecodable"),
        ("a.jsonl", b'{"text": "fine", "x": "\\udfff"}\n{"text": "too"}\n', ["too"], "undecodable"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": ' + b"[" * 20_000 + b'\n{"text": "too"}', ["fine", "too"], "damaged"),
        ("a.jsonl", b'{"text": "fine", "n": ' + b"9" * 5000 + b'}\n{"text": "too"}\n', ["too"], "damaged"),
        ("a.jsonl", b'{"text": 5}\n{"text": null}\n{"text": {}}\n{"text": "too"}\n', ["too"], "no text"),
        ("a.json", b"[" * 50_000, [], "damaged"),
        ("a.json", b'[{"text": "fine"}, 5, [1]]', ["fine"], "damaged"),
        ("a.txt", b"\xff\xfe\x00\xd8", [], "undecodable"),
        ("a.nxml", b"<article><body>" + b"<sec>" * 20_000, [], "damaged"),
        ("Posts.xml", POSTS % (b"99999999999999999999", b""), ["Question: T\n\nB", "Question: V\n\nD"], "damaged"),
        ("Posts.xml", POSTS % ("²".encode(), b""), ["Question: T\n\nB", "Question: V\n\nD"], "damaged"),
        ("Posts.xml", POSTS % (b"7", b'Score="x"'), ["Question: T\n\nB", "Question: V\n\nD"], "damaged"),
        ("a.jsonl", b'{"question": "Q", "answers": [5, {"text": 7}]}', ["Question: Q\n\nAnswer: 5\n\nAnswer: 7"], None),
    ],
)  # fmt: skip
def test_odd_documents(name: str, content: bytes, texts: list[str], reason: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with at_most(10):
        found = list(sources.read(tmp_path))
    assert [d.text for d in found if isinstance(d, Document)] == texts
    assert {d.reason for d in found if isinstance(d, Dropped)} == ({reason} if reason else set())


def test_what_is_quoted_of_a_damaged_page_can_be_read(kitchen: Path, tmp_path: Path) -> None:
    good = (kitchen / "one.warc").read_bytes()
    typed = b"Content-Type: text/html"
    assert good.count(typed) > 1
    (tmp_path / "a.warc").write_bytes(good.replace(typed, typed[:14] + bytes(9), 1))
    (drop,) = (d for d in sources.read(tmp_path) if isinstance(d, Dropped))
    assert drop.reason == "not a page" and drop.detail.isprintable()


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in (b"caf\xe9.txt", b"good.txt", b"ba\xffd.epub"):
        Path(os.fsdecode(os.fsencode(texts) + b"/" + name)).write_text(HEALTHY + name.decode("latin-1"))
    settings = recipes.parse(f"[collect]\nsources = ['{texts}']\nmin_words = 5\n", "test")
    workspace = Workspace(tmp_path / "run").doing(Job("collect", "corpus", "key", {}, {}))
    collect.run(settings, workspace)
    report = json.loads((workspace.read("corpus") / "report.json").read_text(encoding="utf-8"))
    assert report["documents_in"] == 3 and report["rules"]["unreadable: damaged"]["dropped"] == 1
    assert {d.locator for d in corpus.read_documents(workspace.read("corpus"))} <= {r"caf\udce9.txt", "good.txt"}


def test_a_damaged_file_of_each_kind_in_a_collection(kitchen: Path, tmp_path: Path) -> None:
    """The stage: all files cut in their middle, one healthy; the report's numbers add up."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for path in kitchen.iterdir():
        good = path.read_bytes()
        (texts / path.name).write_bytes(good[: len(good) // 2])
    (texts / "zz.txt").write_text("Bread needs flour, water and salt, and it has to rest for as long as the night.")
    settings = recipes.parse(f"[collect]\nsources = ['{texts}']\nmin_words = 5\n", "test")
    workspace = Workspace(tmp_path / "run").doing(Job("collect", "corpus", "key", {}, {}))
    collect.run(settings, workspace)
    report = json.loads((workspace.read("corpus") / "report.json").read_text(encoding="utf-8"))
    dropped = sum(rule["dropped"] for rule in report["rules"].values())
    assert report["documents_in"] == report["documents_out"] + dropped
    unreadable = sum(rule["dropped"] for name, rule in report["rules"].items() if name.startswith("unreadable"))
    assert unreadable >= 7 and report["documents_out"] >= 8
    assert "zz.txt" in {d.locator for d in corpus.read_documents(workspace.read("corpus"))}
