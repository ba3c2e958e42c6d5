"""What people and models wrote -> HTML that cannot do anything. The one place where text becomes markup."""

from __future__ import annotations

import functools

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

LONGEST = 50_000
"""Characters that are read as Markdown; longer text is shown as it is, whole."""
TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
SCHEMES = {"http", "https", "mailto"}


@functools.lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # Raw HTML is text. A picture would be fetched from elsewhere, which tells others who reads what.
    made = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False})
    return made.enable(["table", "strikethrough"]).disable("image")


def shown(text: str) -> Markup:
    """Markdown as HTML, whatever else is in it as text."""
    if not text.strip():
        return Markup('<p class="empty">(an empty answer)</p>')
    if len(text) > LONGEST:
        return plain(text)
    html = nh3.clean(
        _markdown().render(text),
        tags=TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes=SCHEMES,
        url_relative="deny",  # an answer has no business with the studio's own pages
        link_rel="noopener nofollow noreferrer",
    )
    return Markup(html)


def plain(text: str) -> Markup:
    """The same as it was written, with its line breaks."""
    return Markup('<p class="plain">') + escape(text) + Markup("</p>")
