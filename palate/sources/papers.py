"""Papers: JATS (ANSI/NISO Z39.96, what PubMed Central holds) and LaTeX sources as arXiv gives them."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import unicodedata
from collections.abc import Iterator
from typing import Any

from lxml import etree

from palate.records import Document
from palate.sources.files import Dropped, Source, brief, content, decoded, document, head, xml_parser

MOST_TEX_BYTES = 20_000_000
_LEFT_OUT = frozenset(
    ("table-wrap", "fig", "disp-formula", "ref-list", "xref", "table", "tex-math", "fn-group", "math")
)
_XLINK = "{http://www.w3.org/1999/xlink}href"


def read_jats(source: Source) -> Iterator[Document | Dropped]:
    """Abstract and body, a paragraph each, section titles as paragraphs; without figures, tables and references."""
    try:
        tree = etree.fromstring(content(source), xml_parser())
    except etree.XMLSyntaxError as error:
        yield Dropped(source.locator, "damaged", brief(error))
        return
    for number, paper in enumerate([tree] if tree.tag == "article" else list(tree.iter("article")), start=1):
        locator = source.locator if tree.tag == "article" else f"{source.locator}#{number}"
        paragraphs: list[str] = []
        for part in (*paper.iterfind("front//abstract"), *paper.iterfind("body")):
            for element in part.iter("p", "title"):
                inside = {a.tag for a in element.iterancestors()} & _LEFT_OUT
                text = "" if inside or element.getparent().tag == "p" else _inline(element)
                if text:
                    paragraphs.append(text)
        if not paragraphs:
            yield Dropped(locator, "no text", "neither abstract nor body")
            continue
        title = paper.find("front//article-title")
        doi = paper.findtext("front//article-id[@pub-id-type='doi']", "")
        licence = paper.find("front//license")
        yield document(
            "paper",
            locator,
            "\n\n".join(paragraphs),
            title=_inline(title) if title is not None else "",
            url=f"https://doi.org/{doi.strip()}" if doi.strip() else "",
            language=(paper.get("{http://www.w3.org/XML/1998/namespace}lang") or "").split("-")[0].lower(),
            licence=str(licence.get(_XLINK) or licence.get("license-type") or "") if licence is not None else "",
        )


def _inline(element: Any) -> str:
    pieces: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node.tag, str) and node.tag not in _LEFT_OUT:
            pieces.append(node.text or "")
            for child in node:
                walk(child)
                pieces.append(child.tail or "")

    walk(element)
    # Citations are left out, so their brackets are empty now.
    return re.sub(r" ?[(\[][\s,;–-]*[)\]]", "", re.sub(r"\s+", " ", "".join(pieces))).strip()


def is_latex(source: Source) -> bool:
    """Whether a file without a telling name is a LaTeX source or an archive of one."""
    start = head(source)
    return b"\\document" in start or b"ustar" in start[257:265] or start.lstrip()[:1] in (b"%", b"\\")


def read_latex(source: Source) -> Iterator[Document | Dropped]:
    """The prose of a LaTeX paper: abstract and sections, without preamble, mathematics, floats and references."""
    raw = content(source)
    files = {"": raw}
    if raw[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            members = [m for m in archive if m.isfile() and _is_tex(m.name) and m.size <= MOST_TEX_BYTES]
            files = {m.name: archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    elif raw[:2] == b"\x1f\x8b":
        files = {"": gzip.decompress(raw)}
    texts = {name: _tex_decoded(part) for name, part in files.items()}
    main = next((text for text in texts.values() if "\\begin{document}" in text), None)
    if main is None:
        main = next(iter(texts.values()), "")
    title, text = latex_text(_with_inputs(main, texts))
    if not text:
        yield Dropped(source.locator, "no text", "no prose in this LaTeX file")
        return
    yield document("paper", source.locator, text, title=title)


def _is_tex(name: str) -> bool:
    """A LaTeX file that is not macOS's shadow of one ("._main.tex")."""
    return name.endswith(".tex") and not name.rsplit("/", 1)[-1].startswith("._")


def _tex_decoded(raw: bytes) -> str:
    try:
        return decoded(raw)
    except UnicodeDecodeError:
        if re.search(rb"\\usepackage\[latin1\]", raw):
            return raw.decode("latin-1")
        raise


def _with_inputs(main: str, files: dict[str, str]) -> str:
    def included(match: re.Match[str]) -> str:
        name = match[1].strip().removesuffix(".tex")
        return next((t for n, t in files.items() if n.removesuffix(".tex").removeprefix("./") == name), "")

    for _ in range(3):  # files that include files; arXiv's papers go no deeper, and a loop ends
        main = re.sub(r"\\(?:input|include)\{([^}]*)\}", included, main)
    return main


_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", "~": "\u0303", "c": "\u0327"}
_FLOATS = (
    "figure|table|equation|align|gather|eqnarray|multline|tabular|algorithm|thebibliography|verbatim|lstlisting"
    "|tikzpicture"
)


def latex_text(source: str) -> tuple[str, str]:
    """(title, prose) of a LaTeX source. Commands whose meaning is only looks vanish, their words stay."""
    text = re.sub(r"(?<!\\)%.*", "", source)
    named = re.search(r"\\title(?:\[[^\]]*\])?\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    if "\\begin{document}" in text:
        text = text.split("\\begin{document}", 1)[1].split("\\end{document}", 1)[0]
    text = re.sub(r"\\appendix\b.*|\\bibliography\{.*", "", text, flags=re.DOTALL)
    text = re.sub(rf"\\begin\{{({_FLOATS})(\*?)\}}.*?\\end\{{\1\2\}}", "", text, flags=re.DOTALL)
    text = re.sub(r"\\\[.*?\\\]|\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    text = re.sub(
        r"\\(?:title|author|date|thanks|affil|institute|email)\b(?:\[[^\]]*\])?\{(?:[^{}]|\{[^{}]*\})*\}", "", text
    )
    text = re.sub(r"\\(?:sub)*section\*?\{([^{}]*)\}", r"\n\n\1\n\n", text)
    text = re.sub(r"\\(?:sub)?paragraph\*?\{([^{}]*)\}\s*", r"\n\n\1 ", text)
    text = re.sub(r"\\(?:begin|end)\{[^}]*\}(?:\[[^\]]*\])?|\\item\b(?:\[[^\]]*\])?|\\maketitle\b", "\n\n", text)
    return _words(named[1]) if named else "", "\n\n".join(p for p in map(_words, re.split(r"\n\s*\n", text)) if p)


def _words(text: str) -> str:
    text = re.sub(r"~?\\(?:cite\w*|ref|eqref|label|autoref|cref|footnote|vspace|hspace|includegraphics)\*?"
                  r"(?:\[[^\]]*\])*\{(?:[^{}]|\{[^{}]*\})*\}", "", text)  # fmt: skip
    text = re.sub(
        r"\\(['`^\"~c])\s*\{?(\\?[A-Za-z])\}?",
        lambda m: (
            unicodedata.normalize("NFC", m[2].lstrip("\\") + _ACCENTS[m[1]]) if m[1] != "c" or "{" in m[0] else m[0]
        ),
        text,
    )
    text = re.sub(r"\\(?:ss|ae|oe|o|aa|l)\b(?:\{\})?", lambda m: _LETTERS.get(m[0].rstrip("{}")[1:], ""), text)
    text = text.replace("\\\\", " ").replace("~", " ").replace("``", "“").replace("''", "”").replace("---", "—")
    text = re.sub(r"\\([&%$#_{}])", "\x00\\1", text)
    text = re.sub(r"(?<!\x00)\$[^$]*\$", "", text)
    text = re.sub(r"\\(?:text|math)?(?:bf|it|tt|sc|rm|sf|sl)\b", "", text)
    text = re.sub(r"\\[A-Za-z]+\*?(?:\[[^\]]*\])?", "", text)
    text = re.sub(r"(?<!\x00)[{}]", "", text).replace("\x00", "")
    return re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", text)).strip()


_LETTERS = {"ss": "ß", "ae": "æ", "oe": "œ", "o": "ø", "aa": "å", "l": "ł"}
