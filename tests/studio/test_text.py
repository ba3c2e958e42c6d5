"""What models and people write, as HTML that does nothing."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from tests_hostile import CORPUS

from palate.studio import text
from palate.studio.text import LONGEST, SCHEMES, TAGS, shown


class Elements(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda text: text[:40])
def test_hostile_text_is_shown_and_does_nothing(hostile: str) -> None:
    seen = Elements(str(shown(hostile)))
    assert set(seen.tags) <= TAGS, "an element that text never makes"
    for name, value in seen.attributes:
        assert name in ("href", "rel", "start", "class"), f"{name}={value}"
        if name == "href":
            assert value.split(":")[0] in SCHEMES, value
    if "<" in hostile and not hostile.startswith("<https"):  # markup is text that people can read
        assert "<" in seen.words


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda text: text[:40])
def test_plain_text_is_that_text(hostile: str) -> None:
    assert Elements(str(text.plain(hostile))).words == hostile


def test_long_text_is_whole() -> None:
    words = "word " * (LONGEST // 4)
    assert Elements(str(shown(words))).words == words


def test_markdown_is_read() -> None:
    html = str(shown("**b** *e* `c`\n\n1. one\n2. two\n\n| a |\n|---|\n| 1 |\n\n[x](https://example.org)\nnext line"))
    for part in ("<strong>b</strong>", "<em>e</em>", "<code>c</code>", "<li>one</li>", "<td>1</td>", "<br>"):
        assert part in html
    assert 'href="https://example.org"' in html and "noopener" in html and "nofollow" in html


def test_nothing_is_told_to_be_nothing() -> None:
    assert "an empty answer" in str(shown(" \n"))
