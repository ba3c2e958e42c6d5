"""What a page may hold: everything that could act, found in its elements as a browser reads them."""

from __future__ import annotations

import re

import lxml.html

FORBIDDEN = {
    "applet", "audio", "base", "embed", "foreignobject", "frame", "frameset", "math", "object", "source",
    "style", "video",
}  # fmt: skip
ADDRESSES = ("action", "background", "data", "formaction", "href", "ping", "poster", "src", "srcset", "xlink:href")
AWAY = re.compile(r"(https?://|mailto:).*", re.S)


def acts(html: str) -> list[str]:
    """What in a page could act, or reach elsewhere, that our own templates have no need of."""
    found = []
    for element in lxml.html.document_fromstring(html or "<p></p>").iter():
        if not isinstance(element.tag, str):
            continue
        tag = element.tag.lower()
        if tag in FORBIDDEN or (tag == "script" and not re.match(r"/static/[\w.-]+(\?\w+)?$", element.get("src", ""))):
            found.append(tag)
        if tag == "script" and (element.text or "").strip():
            found.append("a script with words")
        if tag == "iframe" and element.get("src") != "/report/frame":
            found.append("iframe")
        if tag == "template" and not element.get("id"):  # ours have one; of what others write nothing has
            found.append("template")
        if tag == "meta" and element.get("http-equiv"):
            found.append("meta http-equiv")
        if tag == "link" and not element.get("href", "").startswith("/static/"):
            found.append("link")
        for name, value in element.attrib.items():
            found += _attribute(tag, str(name).lower(), str(value), element)
    return found


def _attribute(tag: str, name: str, value: str, element: lxml.html.HtmlElement) -> list[str]:
    if (
        name.startswith("on")
        or name in ("style", "srcdoc")
        or (name == "autofocus" and tag not in ("input", "textarea"))
    ):
        return [f"{tag} {name}"]
    if name in ADDRESSES and not _stays(value):
        away = tag == "a" and AWAY.fullmatch(value) and "noopener" in element.get("rel", "")
        return [] if away else [f"{tag} {name}={value[:60]}"]
    return []


def _stays(address: str) -> bool:
    """Whether an address is one of this site, as browsers read it: without white space and control characters."""
    read = re.sub(r"[\x00-\x20\x7f]", "", address)
    return not re.match(r"[/\\]{2}", read) and ":" not in re.split(r"[/?#]", read)[0]
