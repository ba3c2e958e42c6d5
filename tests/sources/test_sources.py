"""Every format is read back; damage is counted and does not end the reading."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate import sources
from palate.errors import BadInput
from palate.kitchen import raw
from palate.kitchen.prose import Page
from palate.records import Document
from palate.sources import Dropped, folders, papers, websites

WORDS = [
    "soup",
    "bread",
    "lemon",
    "rice",
    "onion",
    "butter",
    "garlic",
    "pepper",
    "salt",
    "honey",
    "apple",
    "ginger",
    "bean",
    "carrot",
    "mint",
    "basil",
    "oil",
    "egg",
]


def _pages(count: int = 60) -> list[Page]:
    rng = random.Random(5)
    kinds = ("website", "book", "article", "forum", "paper")

    def paragraph() -> str:
        return " ".join(
            f"The {rng.choice(WORDS)} goes with {rng.choice(WORDS)} & {rng.choice(WORDS)} in {rng.randrange(99)} ways."
            for _ in range(3)
        )

    pages = []
    for n in range(count):
        kind, body = kinds[n % 5], [paragraph() for _ in range(3)]
        title = f"Number {n} of the {rng.choice(WORDS)}"
        if kind == "forum":
            body = [f"Question: {title}", *(f"Answer: {answer}" for answer in body[1:])]
        if kind == "paper":
            body = [f"Abstract. {body[0]}", f"Method. {body[1]}", body[2]]
        pages.append(Page(kind, title, tuple(body), "en", "soup"))
    return pages


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    raw.write_raw(folder, _pages(), 3)
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes(kitchen: Path, tmp_path: Path) -> None:
    raw.write_raw(tmp_path / "again", _pages(), 3)
    raw.write_raw(tmp_path / "other", _pages(), 4)
    assert _bytes(tmp_path / "again") == _bytes(kitchen)
    assert _bytes(tmp_path / "other") != _bytes(kitchen)


@pytest.mark.parametrize("kind", ["website", "book", "article", "forum", "paper"])
def test_a_page_reads_the_same_from_every_format(kitchen: Path, kind: str) -> None:
    labels = json.loads((kitchen / "labels.json").read_text(encoding="utf-8"))
    changed = [key for key, label in labels.items() if label["label"] == "personal_data"]
    found = list(sources.read(kitchen / f"{kind}s"))
    assert not [d for d in found if isinstance(d, Dropped)]
    texts = {d.text for d in found if isinstance(d, Document)}
    assert {d.source_kind for d in found if isinstance(d, Document)} == {kind}
    missing = [p for p in _pages() if p.kind == kind and "\n\n".join(p.paragraphs) not in texts]
    assert len(missing) <= len(changed)
    titles = {d.title for d in found if isinstance(d, Document)}
    assert {p.title for p in _pages() if p.kind == kind} <= titles


def test_all_formats_and_labels_are_written(kitchen: Path) -> None:
    endings = {"".join(p.suffixes[-2:]) if p.name.endswith(".gz") else p.suffix for p in kitchen.rglob("*.*")}
    assert {".warc.gz", ".epub", ".xml", ".html", ".jsonl", ".tex", ".json"} <= endings
    labels = json.loads((kitchen / "labels.json").read_text(encoding="utf-8"))
    assert {label["label"] for label in labels.values()} == set(raw.PLANTED)
    found = {d.locator for d in sources.read(kitchen)} | {d.url for d in sources.read(kitchen) if hasattr(d, "url")}
    keys = set(labels)
    assert keys <= found


def test_a_pdf_of_many_chapters_keeps_their_order(tmp_path: Path) -> None:
    body = tuple(f"Paragraph {n} tells" + " of soup and of bread" * 15 + "." for n in range(30))
    long = Page("book", "Long", body, "en", "")
    chapters = [long, *(p for p in _pages(20) if p.kind == "book")]
    (tmp_path / "a.pdf").write_bytes(raw._pdf("Book", chapters))
    found = [d for d in sources.read(tmp_path) if isinstance(d, Document)]
    assert [d.title for d in found] == [page.title for page in chapters]
    assert found[0].text.count("\n\n") == 29
    assert found[1].text == "\n\n".join(chapters[1].paragraphs)


def test_missing_and_empty_sources_are_bad_input(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadInput) as caught:
            list(sources.read(path))
        assert "\n" not in str(caught.value)


def test_plain_folders(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Soup\n\nHot.")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    with lzma.open(tmp_path / "c.txt.xz", "wt", encoding="utf-8") as file:
        file.write("packed")
    (tmp_path / ".hidden").write_text("no")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.write('{"text": "first", "url": "u", "score": 1}\n{"content": "second"}\n')
    (tmp_path / "e.json").write_text('{\n "text": "whole"\n}')
    (tmp_path / "f.jsonl").write_text(
        '{"title": "Q", "question": "How?", "answers": ["So.", {"body": "<p>Or so.</p>"}]}\n'
    )
    pq.write_table(pa.table({"text": ["from parquet"], "n": [1]}), tmp_path / "g.parquet")
    (tmp_path / "wiki_00").write_text(
        '<doc id="7" url="http://w/7" title="A &amp; B">\nA & B\n\nLine one.\nLine two.\n\n</doc>\n'
    )
    found = list(sources.read(tmp_path))
    assert [d.text for d in found if isinstance(d, Document)] == [
        "one\ntwo",
        "# Soup\n\nHot.",
        "packed",
        "first",
        "second",
        "whole",
        "Question: Q\n\nHow?\n\nAnswer: So.\n\nAnswer: Or so.",
        "from parquet",
        "Line one.\n\nLine two.",
    ]
    by_locator = {d.locator: d for d in found if isinstance(d, Document)}
    assert by_locator["d.jsonl.gz#1"].url == "u"
    assert by_locator["d.jsonl.gz#1"].extra == {"score": 1}
    assert by_locator["wiki_00#7"].title == "A & B"


def test_a_book_is_cut_at_paragraph_borders_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n} " + "tells of soup " * 30 for n in range(700)]
    (tmp_path / "novel.txt").write_text("\n\n".join(p.strip() for p in paragraphs))
    found = [d for d in sources.read(tmp_path) if isinstance(d, Document)]
    assert [d.locator for d in found[:2]] == ["novel.txt#1", "novel.txt#2"]
    assert {d.source_kind for d in found} == {"book"}
    assert "\n\n".join(d.text for d in found) == "\n\n".join(p.strip() for p in paragraphs)
    lengths = [len(d.text) for d in found[:-1]]
    assert min(lengths) >= folders.PIECE
    assert max(lengths) < 2 * folders.PIECE


def test_text_without_paragraphs_is_cut_too() -> None:
    assert max(map(len, folders.pieces(iter(["x" * 50_000])))) <= folders.PIECE + folders.LONGEST_PARAGRAPH
    assert "".join(folders.pieces(iter(["x" * 50_000]))) == "x" * 50_000


def test_damage_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    noise = random.Random(1)
    lines = "".join(json.dumps({"text": f"line {n} {noise.random()}"}) + "\n" for n in range(3000))
    packed = gzip.compress(lines.encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.txt").write_bytes(b"caf\xe9 latin one")
    (tmp_path / "c.jsonl").write_bytes(
        b'{"text": "good"}\n{"text": "cut\n\xff\xfe\n{"title": "none"}\n[1]\n{"text": "end"}\n'
    )
    (tmp_path / "d.epub").write_bytes(b"PK not a zip")
    (tmp_path / "e.pdf").write_bytes(b"%PDF-1.4 broken")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 broken")
    (tmp_path / "g.nxml").write_text("<article><body><p>cut")
    (tmp_path / "h.bin").write_bytes(b"\x00\x01")
    (tmp_path / "i.txt").write_bytes(b"")
    (tmp_path / "j.warc.gz").write_bytes(os.urandom(64))
    (tmp_path / "k.txt.gz").write_bytes(gzip.compress(os.urandom(0) + b"x" * 999, mtime=0)[:-9])
    (tmp_path / "z.txt").write_text("the last one is fine")
    found = list(sources.read(tmp_path))
    reasons = {}
    for d in found:
        if isinstance(d, Dropped):
            assert d.detail
            assert "\n" not in d.detail
            reasons.setdefault(d.locator.split("#")[0], []).append(d.reason)
    assert reasons == {
        "a.jsonl.gz": ["damaged"],
        "b.txt": ["undecodable"],
        "c.jsonl": ["damaged", "undecodable", "no text", "damaged"],
        "d.epub": ["damaged"],
        "e.pdf": ["damaged"],
        "f.parquet": ["damaged"],
        "g.nxml": ["damaged"],
        "h.bin": ["unknown format"],
        "i.txt": ["empty"],
        "j.warc.gz": ["damaged"],
        "k.txt.gz": ["damaged"],
    }
    texts = [d.text for d in found if isinstance(d, Document)]
    assert texts[-1] == "the last one is fine"
    assert [t for t in texts if not t.startswith("line")] == ["good", "end", "the last one is fine"]
    assert len(texts) > 500  # what stands before the cut in the gzip is kept


def test_a_damaged_archive_member_drops_that_chapter_alone(kitchen: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(kitchen / "books/kitchen-01.epub") as book, zipfile.ZipFile(tmp_path / "b.epub", "w") as out:
        for name in book.namelist():
            if not name.endswith("chapter-002.xhtml"):
                out.writestr(name, book.read(name))
    found = list(sources.read(tmp_path))
    assert [d.locator for d in found if isinstance(d, Dropped)] == ["b.epub#chapter-002.xhtml"]
    assert len(found) > 5


def test_xml_reads_nothing_but_its_own_bytes(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    secret = tmp_path / "secret" / "s.bin"
    secret.write_text("SECRET")
    (tmp_path / "p.nxml").write_text(
        f'<!DOCTYPE article [<!ENTITY x SYSTEM "file://{secret}">]>'
        "<article><body><p>Soup &x; is good.</p></body></article>"
    )
    (tmp_path / "posts.xml").write_text(
        f'<!DOCTYPE posts [<!ENTITY x SYSTEM "file://{secret}">]><posts><row Id="1" PostTypeId="1" Title="T" Body="B"/>'
        "&x;</posts>"
    )
    assert "SECRET" not in "".join(d.text for d in sources.read(tmp_path) if isinstance(d, Document))
    bomb = '<!DOCTYPE article [<!ENTITY a "xxxxxxxxxx">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    (tmp_path / "p.nxml").write_text(bomb + "]><article><body><p>&j;</p></body></article>")
    assert all(len(getattr(d, "text", "")) < 1000 for d in sources.read(tmp_path))


def test_html_leaves_the_surroundings_out() -> None:
    page = next(p for p in _pages() if p.kind == "website")
    for style in range(3):
        title, text, language = websites.main_text(raw._html(page, ["Other one", "Another"], style).encode())
        assert (title, text, language) == (page.title, "\n\n".join(page.paragraphs), "en")
    assert websites.fragment("plain\n\ntext") == "plain\n\ntext"
    assert websites.fragment("<p>a<script>x</script>b</p><ul><li>c</li></ul>") == "ab\n\nc"


def test_stack_exchange_threads_put_the_accepted_answer_first(tmp_path: Path) -> None:
    (tmp_path / "Posts.xml").write_text(
        '<posts><row Id="1" PostTypeId="1" AcceptedAnswerId="3" Title="How?" Body="&lt;p&gt;Tell me.&lt;/p&gt;"/>'
        '<row Id="2" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;So.&lt;/p&gt;"/>'
        '<row Id="3" PostTypeId="2" ParentId="1" Score="1" Body="&lt;p&gt;Thus.&lt;/p&gt;"/>'
        '<row Id="4" PostTypeId="5" Body="wiki"/></posts>'
    )
    (thread,) = sources.read(tmp_path)
    assert isinstance(thread, Document)
    assert thread.text == "Question: How?\n\nTell me.\n\nAnswer: Thus.\n\nAnswer: So."
    cut = (tmp_path / "Posts.xml").read_text()[:-40]
    (tmp_path / "Posts.xml").write_text(cut)
    found = list(sources.read(tmp_path))
    assert isinstance(found[-1], Dropped)
    assert isinstance(found[0], Document)


def test_latex_becomes_prose() -> None:
    title, text = papers.latex_text(
        "\\documentclass{a}\\title{On \\emph{soup}}\n\\begin{document}\\maketitle % no\n"
        "\\section{Intro}\nWe \\textbf{cook} 50\\% of cr\\`eme~\\cite{x}, see $x^2$.\n\n"
        "\\begin{figure}no\\end{figure}\nEnd \\& done.\n\\end{document}"
    )
    assert title == "On soup"
    assert text == "Intro\n\nWe cook 50% of crème, see.\n\nEnd & done."


@pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA names no folder of real data")
def test_real_files_are_read() -> None:
    data = Path(os.environ["PALATE_DATA"])
    threads = [d for d in sources.read(data / "stackexchange-beer" / "Posts.xml.gz") if isinstance(d, Document)]
    assert len(threads) > 500
    found = list(sources.read(data / "realformat" / "papers" / "jats"))
    assert len([d for d in found if isinstance(d, Document)]) == 3
    found = list(sources.read(data / "realformat" / "epub"))
    assert len([d for d in found if isinstance(d, Document)]) > 60
    found = list(sources.read(data / "realformat" / "papers" / "latex"))
    assert len([d for d in found if isinstance(d, Document)]) == 2


def test_a_broken_installation_is_not_blamed_on_the_documents(kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(raw: bytes, charset: str = "") -> None:
        raise ImportError("no trafilatura")

    monkeypatch.setattr(websites, "main_text", missing)
    with pytest.raises(ImportError):
        list(sources.read(kitchen / "websites"))
