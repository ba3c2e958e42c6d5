"""The kitchen's pages in the file formats that the world uses, with planted rubbish whose labels are known.

`labels.json` holds for each planted page its URL, or its locator where a format has no URL, and what it is. So
collection can be scored rule by rule. The same seed gives the same bytes: no clock, no random ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import io
import json
import random
import re
import textwrap
import uuid
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from palate.kitchen.prose import Page

PLANTED = {
    "exact_duplicate": 0.015,
    "near_duplicate": 0.020,
    "spam": 0.012,
    "gibberish": 0.008,
    "stray_language": 0.012,
    "boilerplate": 0.005,
    "personal_data": 0.008,
}
"""Planted pages per page that is given: 8 % together. All are extra pages but personal data, which goes into given
ones."""
EXTRA = sum(share for label, share in PLANTED.items() if label != "personal_data")
LADDER = (0.95, 0.9, 0.8, 0.6, 0.4)
"""Jaccard similarity of word 5-grams that the near duplicates are made for; a rung is reached, never undercut."""
LONG_ENOUGH = 45  # words of an original: below it one changed word costs a whole rung
CHAPTERS = 40  # pages in one book
HOST = "https://kitchen.example"  # RFC 2606: nobody can own it
_DAY = "2026-01-{:02d}T{:02d}:{:02d}:00Z"

Label = dict[str, Any]


def write_raw(folder: Path, pages: Sequence[Page], seed: int) -> None:
    """Write `pages` and the planted ones into websites/, books/, articles/, forums/ and papers/, and labels.json."""
    rng = random.Random(f"kitchen raw {seed}")
    told = _plant(list(pages), rng)
    labels: dict[str, Label] = {}
    keys: dict[int, str] = {}
    for kind, write in (
        ("website", _websites),
        ("book", _books),
        ("article", _articles),
        ("forum", _forums),
        ("paper", _papers),
    ):
        place = folder / f"{kind}s"
        place.mkdir(parents=True, exist_ok=True)
        chosen = [(number, page, label) for number, (page, label) in enumerate(told) if page.kind == kind]
        for (number, _, label), key in zip(chosen, write(place, [page for _, page, _ in chosen], seed)):
            keys[number] = key
            if label:
                labels[key] = label
    for label in labels.values():
        if "of" in label:
            label["of"] = keys[label["of"]]
    (folder / "labels.json").write_text(
        json.dumps(labels, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )


# --- planting -------------------------------------------------------------------------------------------------------


def _plant(pages: list[Page], rng: random.Random) -> list[tuple[Page, Label]]:
    """The given pages and the planted ones; a copy stands behind its original, as collectors keep the first."""
    count = len(pages)
    told: list[tuple[Page, Label]] = [(page, {}) for page in pages]
    usable = [
        n
        for n, p in enumerate(pages)
        if p.language == "en" and p.kind != "forum" and len(" ".join(p.paragraphs).split()) >= LONG_ENOUGH
    ]
    rng.shuffle(usable)

    def take(label: str) -> list[int]:
        wanted = max(1, round(PLANTED[label] * count))
        return [usable.pop() for _ in range(min(wanted, len(usable)))]

    for n in take("personal_data"):
        sentence, values = _personal(rng)
        page = pages[n]
        last = f"{page.paragraphs[-1]} {sentence}"
        told[n] = (
            dataclasses.replace(page, paragraphs=(*page.paragraphs[:-1], last)),
            {
                "label": "personal_data",
                "values": values,
            },
        )
    for n in take("exact_duplicate"):
        told.append((pages[n], {"label": "exact_duplicate", "of": n}))
    for i, n in enumerate(take("near_duplicate")):
        aim = LADDER[i % len(LADDER)]
        copy, reached = _near(pages[n], aim, rng)
        told.append((copy, {"label": "near_duplicate", "similarity": aim, "measured": round(reached, 4), "of": n}))
    makers: tuple[tuple[str, Callable[[random.Random], str], tuple[str, ...]], ...] = (
        ("spam", _spam, ("website", "article", "forum")),
        ("gibberish", _gibberish, ("website", "article", "forum", "paper", "book")),
        # Not in books: the PDF's built-in fonts have no letters for Polish.
        ("stray_language", _stray, ("website", "article", "forum", "paper")),
        ("boilerplate", _notices, ("website", "article")),
    )
    for label, make, kinds in makers:
        for _ in range(max(1, round(PLANTED[label] * count))):
            paragraphs = tuple(make(rng) for _ in range(rng.choice((2, 3))))
            title = " ".join(paragraphs[0].split()[:5]).strip(".,!:;#")
            told.append((Page(rng.choice(kinds), title, paragraphs, "", label), {"label": label}))
    return told


def _grams(paragraphs: Iterable[str]) -> set[tuple[str, ...]]:
    words = re.sub(r"[\W_]+", " ", " ".join(paragraphs).lower()).split()
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def _likeness(one: Iterable[str], other: Iterable[str]) -> float:
    a, b = _grams(one), _grams(other)
    return len(a & b) / len(a | b)


def _near(page: Page, aim: float, rng: random.Random) -> tuple[Page, float]:
    """`page` edited as people edit what they copy, down to the similarity `aim` but not below it."""
    words = [paragraph.split() for paragraph in page.paragraphs]

    def text() -> list[str]:
        return [" ".join(w) for w in words]

    spots = [(i, j) for i, w in enumerate(words) for j in range(len(w)) if j and w[j].isalpha()]
    rng.shuffle(spots)
    for i, j in spots:  # other words for some: each costs up to five 5-grams
        before, words[i][j] = words[i][j], rng.choice(_SUBSTITUTES)
        if _likeness(page.paragraphs, text()) < aim:
            words[i][j] = before
            break
    for added in rng.sample(_ADDED, len(_ADDED)):  # an added remark: each word costs one, which meets the aim closely
        for word in added.split():
            words[-1].append(word)
            if _likeness(page.paragraphs, text()) < aim:
                words[-1].pop()
                return dataclasses.replace(page, paragraphs=tuple(text())), _likeness(page.paragraphs, text())
    return dataclasses.replace(page, paragraphs=tuple(text())), _likeness(page.paragraphs, text())


_SUBSTITUTES = ("really", "quite", "rather", "surely", "truly", "simply", "nicely", "mostly", "often", "always")
_ADDED = (
    "I found this in an old notebook of my neighbour.",
    "Tell me whether it worked for you at home.",
    "My cousin taught me this one last winter.",
    "We had it on Sunday after the long walk.",
)


def _personal(rng: random.Random) -> tuple[str, list[str]]:
    first, last = (
        rng.choice(("anna", "tom", "lucia", "peter", "mina")),
        rng.choice(("keller", "rossi", "smith", "novak")),
    )
    mail = f"{first}.{last}{rng.randrange(10, 99)}@{rng.choice(('bistro', 'kitchen', 'table'))}.example"
    # 555-01xx is reserved for fiction in North America, and +44 7700 900xxx in the United Kingdom.
    phone = rng.choice((f"+1 415 555 01{rng.randrange(10, 99)}", f"(212) 555-01{rng.randrange(10, 99)}",
                        f"+44 7700 900{rng.randrange(100, 999)}"))  # fmt: skip
    sentence = rng.choice(("Write to {m} or call {p} for a table.", "Questions go to {m}, or ring {p} after noon."))
    return sentence.format(m=mail, p=phone), [mail, phone]


def _spam(rng: random.Random) -> str:
    return " ".join(
        rng.sample(
            (
                "BUY NOW and save on knives, this limited offer ends tonight!!!",
                "Click here to claim your prize, you have won a gift card!",
                "Earn $5000 a week, work from home, no experience needed.",
                "Our casino gives you free spins and a jackpot every day.",
                "Order now: a miracle pill to lose weight fast, risk-free.",
                "Lowest price for cheap watches online, money-back guarantee.",
                "Act now! Double your savings with crypto profits, guaranteed income.",
                "Get a free trial with the discount code COOK50, order today.",
            ),
            4,
        )
    )


def _gibberish(rng: random.Random) -> str:
    style = rng.randrange(4)
    count = rng.randrange(18, 30)
    if style == 0:
        return " ".join("".join(rng.choices("bcdfghjklmnpqrstvwxz", k=rng.randrange(4, 9))) for _ in range(count))
    if style == 1:
        return " ".join(rng.choice(("asdf", "qwerty", "hjkl", "dfgh", "zxcv", "asdfgh", "sdfg")) for _ in range(count))
    if style == 2:
        letters = "ABCDEFGHabcdefghijkmnpqrstuvwxyz0123456789"
        return " ".join("".join(rng.choices(letters, k=rng.randrange(14, 24))) for _ in range(count))
    # Words one can say and nobody knows: only the missing function words give them away.
    return " ".join(
        "".join(rng.choice("bdfgklmnprstv") + rng.choice("aeiou") for _ in range(rng.randrange(2, 5)))
        for _ in range(count)
    )


_LANGUAGES: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "de": (
        (
            "Für {x} braucht man frisches Gemüse, etwas Salz und viel Geduld.",
            "Meine Großmutter hat {x} jeden Sonntag für die ganze Familie gekocht.",
            "Zuerst schneidet man die Zwiebeln klein und brät sie in einer heißen Pfanne an.",
            "Danach lässt man {x} bei schwacher Hitze noch eine halbe Stunde ziehen.",
            "Wir servieren {x} am liebsten mit dunklem Brot und einem grünen Salat.",
            "Wer keine Milch verträgt, kann stattdessen Haferdrink verwenden.",
            "Das Gericht schmeckt am nächsten Tag noch besser als am ersten.",
        ),
        {"x": ("den Eintopf", "die Kartoffelsuppe", "den Apfelkuchen", "das Gulasch", "die Linsensuppe")},
    ),
    "es": (
        (
            "Para preparar {x} necesitamos cebolla, ajo y un poco de aceite de oliva.",
            "Mi abuela cocinaba {x} todos los domingos para toda la familia.",
            "Primero cortamos las verduras y las ponemos en una sartén caliente.",
            "Después dejamos que {x} repose durante media hora antes de servir.",
            "En nuestra casa comemos {x} con pan y una ensalada verde.",
            "Quien no puede tomar leche debe usar otra bebida en su lugar.",
            "Al día siguiente este plato está todavía más sabroso que el primero.",
        ),
        {"x": ("la paella", "el gazpacho", "la tortilla", "el cocido", "las lentejas")},
    ),
    "fi": (
        (
            "Kun valmistat ruokaa {x}, tarvitset sipulia, suolaa ja hieman voita.",
            "Isoäitini keitti aina sunnuntaisin {x} koko perheelle.",
            "Ensin vihannekset pilkotaan ja paistetaan kuumalla pannulla.",
            "Sen jälkeen {x} saa hautua hiljaa vielä puoli tuntia.",
            "Meillä {x} syödään tumman leivän ja vihreän salaatin kanssa.",
            "Jos et voi juoda maitoa, käytä sen sijaan kaurajuomaa.",
            "Seuraavana päivänä ruoka maistuu vielä paremmalta kuin tuoreena.",
        ),
        {"x": ("lohikeitto", "karjalanpaisti", "hernekeitto", "kaalilaatikko", "mustikkapiirakka")},
    ),
    "pl": (
        (
            "Aby przygotować {x}, potrzebujemy cebuli, soli i odrobiny masła.",
            "Moja babcia gotowała {x} w każdą niedzielę dla całej rodziny.",
            "Najpierw kroimy warzywa i smażymy je na gorącej patelni.",
            "Potem {x} musi gotować się jeszcze przez pół godziny na małym ogniu.",
            "U nas w domu jemy {x} z ciemnym chlebem i zieloną sałatą.",
            "Kto nie może pić mleka, powinien użyć napoju owsianego.",
            "Następnego dnia to danie smakuje jeszcze lepiej niż pierwszego.",
        ),
        {"x": ("bigos", "barszcz", "żurek", "pierogi z kapustą", "gołąbki")},
    ),
}


def _stray(rng: random.Random) -> str:
    # One language per page would need a memory; a page of two strays is as stray as a page of one.
    sentences, fillings = _LANGUAGES[rng.choice(list(_LANGUAGES))]
    return " ".join(s.format(x=rng.choice(fillings["x"])) for s in rng.sample(sentences, 4))


def _notices(rng: random.Random) -> str:
    return " ".join(
        rng.sample(
            (
                "Please read our privacy policy and the terms of use before you go on.",
                "We use cookies to store your preferences and to measure visits to these pages.",
                "By using this site you give your consent to our cookie policy.",
                "Sign in to your account to see your saved lists and settings.",
                "Subscribe to our newsletter and never miss what is new.",
                "We may share personal information with third parties who help us.",
                "Your browser must have javascript switched on for this page to work.",
                "Contact us by the form below or follow us for more.",
            ),
            5,
        )
    )


# --- formats: each returns the key (URL or locator) of every page -----------------------------------------------------


def _slug(page: Page, number: int) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', page.title.lower()).strip('-')[:40] or 'page'}-{number}"


def _date(number: int) -> str:
    return _DAY.format(number // 1440 % 28 + 1, number // 60 % 24, number % 60)


def _paragraphs(paragraphs: Iterable[str]) -> str:
    return "\n".join(f"<p>{html.escape(p, quote=False)}</p>" for p in paragraphs)


def _html(page: Page, related: Sequence[str], style: int) -> str:
    """A page with what surrounds the text on the web, in three layouts."""
    title, body = html.escape(page.title), _paragraphs(page.paragraphs)
    menu = "".join(f'<li><a href="/{name}">{name.title()}</a></li>' for name in ("recipes", "stories", "shop", "about"))
    links = "".join(f'<li><a href="/p/{n}">{html.escape(r)}</a></li>' for n, r in enumerate(related))
    banner = (
        '<div class="cookie-banner" id="cookie-consent"><p>We use cookies to improve your visit. '
        '<a href="/privacy">Privacy policy</a></p><button>Accept all cookies</button></div>'
    )
    footer = (
        '<footer class="footer"><p>© 2026 The Kitchen. All rights reserved.</p><ul>'
        '<li><a href="/terms">Terms of use</a></li><li><a href="/contact">Contact us</a></li></ul></footer>'
    )
    main = (
        f'<main><article class="post"><h1>{title}</h1>\n<div class="entry-content">{body}</div></article></main>',
        f'<div id="content"><h1 class="entry-title">{title}</h1>\n<div class="post-content">{body}</div></div>',
        f'<section id="main" role="main"><article><header><h1>{title}</h1></header>\n{body}</article></section>',
    )[style % 3]
    return (
        f'<!DOCTYPE html>\n<html lang="{page.language or "en"}"><head><meta charset="utf-8">'
        f"<title>{title} | The Kitchen</title><style>body{{margin:0}}</style></head><body>\n"
        f'<header class="site-header"><nav class="menu"><ul>{menu}</ul></nav></header>\n{banner}\n{main}\n'
        f'<aside class="sidebar"><h3>Related</h3><ul>{links}</ul></aside>\n{footer}\n'
        f"<script>window.visits = 1;</script></body></html>\n"
    )


def _websites(folder: Path, pages: Sequence[Page], seed: int) -> list[str]:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    keys = []
    with (folder / "kitchen.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, page in enumerate(pages):
            url = f"{HOST}/recipes/{_slug(page, number)}"
            body = _html(page, [pages[(number + k) % len(pages)].title for k in (1, 2, 3)], number).encode()
            unique = uuid.UUID(bytes=hashlib.sha256(f"{seed} {url}".encode()).digest()[:16], version=4)
            record = writer.create_warc_record(
                url,
                "response",
                payload=io.BytesIO(body),
                length=len(body),
                http_headers=StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], "HTTP/1.1"),
                warc_headers_dict={"WARC-Date": _date(number), "WARC-Record-ID": f"<urn:uuid:{unique}>"},
            )
            writer.write_record(record)
            keys.append(url)
    return keys


def _books(folder: Path, pages: Sequence[Page], seed: int) -> list[str]:
    keys: list[str] = []
    for number, start in enumerate(range(0, len(pages), CHAPTERS), start=1):
        chapters = pages[start : start + CHAPTERS]
        title = f"The Kitchen, volume {number}"
        if number % 2:
            name = f"kitchen-{number:02d}.epub"
            _epub(folder / name, title, chapters, seed)
            keys += [f"books/{name}#chapter-{n:03d}.xhtml" for n in range(1, len(chapters) + 1)]
        else:
            name = f"kitchen-{number:02d}.pdf"
            (folder / name).write_bytes(_pdf(title, chapters))
            keys += [f"books/{name}#{n}" if len(chapters) > 1 else f"books/{name}" for n in range(1, len(chapters) + 1)]
    return keys


def _epub(path: Path, title: str, chapters: Sequence[Page], seed: int) -> None:
    """EPUB 3 with a navigation document."""
    names = [f"chapter-{n:03d}.xhtml" for n in range(1, len(chapters) + 1)]
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    xhtml = head + '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
    items = "".join(
        f'<item id="c{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(names)))
    contents = "".join(
        f'<li><a href="{name}">{html.escape(page.title)}</a></li>' for name, page in zip(names, chapters)
    )
    identifier = uuid.UUID(bytes=hashlib.sha256(f"{seed} {title}".encode()).digest()[:16], version=4)
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": head + '<container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OEBPS/content.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>',
        "OEBPS/content.opf": head
        + '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">urn:uuid:{identifier}</dc:identifier><dc:title>{title}</dc:title>'
        "<dc:language>en</dc:language><dc:rights>CC0</dc:rights>"
        f'<meta property="dcterms:modified">{_date(0)}</meta></metadata>'
        '<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        f"{items}</manifest>"
        f'<spine><itemref idref="nav"/>{spine}</spine></package>',
        "OEBPS/nav.xhtml": f'{xhtml}<head><title>Contents</title></head><body><nav epub:type="toc"><ol>{contents}'
        "</ol></nav></body></html>",
    }
    for name, page in zip(names, chapters):
        members[f"OEBPS/{name}"] = (
            f"{xhtml}<head><title>{html.escape(page.title)}</title></head><body><section><h2>{html.escape(page.title)}</h2>\n"
            f"{_paragraphs(page.paragraphs)}</section></body></html>"
        )
    with zipfile.ZipFile(path, "w") as book:
        for name, text in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED  # EPUB OCF, 4.3
            info.create_system = 3  # the same bytes whichever system writes them
            book.writestr(info, text.encode())


LEADING, PARAGRAPH, TOP, BOTTOM = 14, 24, 780, 60  # points on an A4 page
LINE = 84  # characters of 11 point Helvetica between the margins


def _pdf(title: str, chapters: Sequence[Page]) -> bytes:
    """A PDF 1.4 with an outline, one chapter after the other, each on a new page; text in a built-in font."""
    streams: list[str] = []
    starts: list[int] = []
    for page in chapters:
        starts.append(len(streams))
        lines: list[tuple[int, str]] = [(0, page.title)]
        for paragraph in page.paragraphs:
            wrapped = textwrap.wrap(paragraph, LINE, break_long_words=False, break_on_hyphens=False)
            lines += [(PARAGRAPH if n == 0 else LEADING, line) for n, line in enumerate(wrapped)]
        at, drawn = TOP, ""
        for step, line in lines:
            at -= step
            if at < BOTTOM:
                streams.append(drawn)
                at, drawn = TOP, ""
            literal = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            drawn += f"BT /F1 11 Tf 60 {at} Td ({literal}) Tj ET\n"
        streams.append(drawn)
    # Objects: 1 catalog, 2 page tree, 3 font, 4 outline root, 5 information, then pages, contents, outline entries.
    first_page, first_stream, first_mark = 6, 6 + len(streams), 6 + 2 * len(streams)
    marks = range(first_mark, first_mark + len(chapters))
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>",
        f"<< /Type /Pages /Count {len(streams)} /Kids ["
        f"{' '.join(f'{first_page + n} 0 R' for n in range(len(streams)))}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        f"<< /Type /Outlines /Count {len(chapters)} /First {marks[0]} 0 R /Last {marks[-1]} 0 R >>".encode(),
        b"<< /Title " + _pdf_text(title) + b" >>",
    ]
    for n in range(len(streams)):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> /Contents "
            + f"{first_stream + n} 0 R >>".encode()
        )
    for stream in streams:
        raw = stream.encode("cp1252", "replace")
        objects.append(f"<< /Length {len(raw)} >>\nstream\n".encode() + raw + b"endstream")
    for n, (page, start) in enumerate(zip(chapters, starts)):
        beside = (f" /Prev {marks[n] - 1} 0 R" if n else "") + (
            f" /Next {marks[n] + 1} 0 R" if n + 1 < len(marks) else ""
        )
        objects.append(
            b"<< /Title "
            + _pdf_text(page.title)
            + f" /Parent 4 0 R{beside} /Dest [{first_page + start} 0 R /Fit] >>".encode()
        )
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 5 0 R >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)


def _pdf_text(text: str) -> bytes:
    return b"<" + (b"\xfe\xff" + text.encode("utf-16-be")).hex().encode() + b">"


def _articles(folder: Path, pages: Sequence[Page], seed: int) -> list[str]:
    """The first third in an Atom feed, the second in RSS, the last as saved pages (in the order of their names)."""
    third = -(-len(pages) // 3)
    urls = [f"{HOST}/news/{_slug(page, number)}" for number, page in enumerate(pages)]
    atom = "".join(
        f'<entry><title>{html.escape(page.title)}</title><link href="{url}"/><id>{url}</id>'
        f'<updated>{_date(n)}</updated><content type="html">{html.escape(_paragraphs(page.paragraphs))}</content>'
        "</entry>\n"
        for n, (page, url) in enumerate(zip(pages[:third], urls))
    )
    (folder / "atom.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom"><title>Kitchen news</title>'
        f"<id>{HOST}/atom</id><updated>{_date(0)}</updated>\n{atom}</feed>\n",
        "utf-8",
    )
    rss = "".join(
        f"<item><title>{html.escape(page.title)}</title><link>{url}</link>"
        f"<description>{html.escape(page.paragraphs[0][:60])} ...</description>"
        f"<content:encoded><![CDATA[{_paragraphs(page.paragraphs)}]]></content:encoded></item>\n"
        for page, url in zip(pages[third : 2 * third], urls[third:])
    )
    (folder / "feed.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<rss version="2.0" '
        'xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel><title>Kitchen stories</title>'
        f"<link>{HOST}</link><description>Stories</description>\n{rss}</channel></rss>\n",
        "utf-8",
    )
    saved = folder / "saved"
    saved.mkdir(exist_ok=True)
    keys = urls[: 2 * third]
    for n, page in enumerate(pages[2 * third :]):
        name = f"article-{n:05d}.html"
        (saved / name).write_text(_html(page, [pages[n].title], 3 * n), "utf-8")
        keys.append(f"articles/saved/{name}")
    return keys


def _forums(folder: Path, pages: Sequence[Page], seed: int) -> list[str]:
    """The first half as Stack Exchange's Posts.xml (questions first, then answers), the rest as JSON lines."""
    half = -(-len(pages) // 2)
    keys: list[str] = []
    rows: list[str] = []
    answers: list[tuple[int, str, int]] = []
    for n, page in enumerate(pages[:half], start=1):
        title, body, replies = _thread(page)
        markup = html.escape(_paragraphs([body]))
        rows.append(
            f'<row Id="{n}" PostTypeId="1" CreationDate="{_date(n)[:-1]}.000" Score="{n % 7}" Body="{markup}" '
            f'Title="{html.escape(title)}" Tags="&lt;cooking&gt;" AnswerCount="{len(replies)}"/>'
        )
        answers += [(n, reply, len(replies) - k) for k, reply in enumerate(replies)]
        keys.append(f"forums/Posts.xml#{n}")
    for n, (parent, reply, score) in enumerate(answers, start=half + 1):
        rows.append(
            f'<row Id="{n}" PostTypeId="2" ParentId="{parent}" CreationDate="{_date(n)[:-1]}.000" Score="{score}" '
            f'Body="{html.escape(_paragraphs([reply]))}"/>'
        )
    (folder / "Posts.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n  ' + "\n  ".join(rows) + "\n</posts>\n", "utf-8"
    )
    with (folder / "threads.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for n, page in enumerate(pages[half:], start=1):
            title, body, replies = _thread(page)
            thread = {"id": n, "title": title, "question": body, "answers": [{"text": reply} for reply in replies]}
            file.write(json.dumps(thread, ensure_ascii=False) + "\n")
            keys.append(f"forums/threads.jsonl#{n}")
    return keys


def _thread(page: Page) -> tuple[str, str, list[str]]:
    """(title, question, answers); the words "Question:" and "Answer:" are the reader's, so they are taken off."""
    first, *rest = page.paragraphs
    return page.title, first.removeprefix("Question: "), [answer.removeprefix("Answer: ") for answer in rest]


def _papers(folder: Path, pages: Sequence[Page], seed: int) -> list[str]:
    keys = []
    for n, page in enumerate(pages):
        name = f"paper-{n:05d}.{'tex' if n % 2 else 'xml'}"
        (folder / name).write_text(_latex(page) if n % 2 else _jats(page, n), "utf-8")
        keys.append(f"papers/{name}" if n % 2 else f"https://doi.org/10.5555/kitchen.{n}")
    return keys


_RUN_IN = re.compile(r"([A-Z][a-z]+\.) (.*)", re.DOTALL)


def _jats(page: Page, number: int) -> str:
    def told(paragraph: str) -> str:
        heading = _RUN_IN.fullmatch(paragraph)
        if heading:
            return f"<p><bold>{heading[1]}</bold> {html.escape(heading[2], quote=False)}</p>"
        return f"<p>{html.escape(paragraph, quote=False)}</p>"

    abstract, *body = page.paragraphs
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Publishing'
        ' DTD v1.2 20190208//EN" "JATS-journalpublishing1.dtd">\n'
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink" xml:lang="{page.language or "en"}"><front><article-meta>'
        f'<article-id pub-id-type="doi">10.5555/kitchen.{number}</article-id><title-group><article-title>'
        f"{html.escape(page.title, quote=False)}</article-title></title-group><permissions><license "
        f'xlink:href="https://creativecommons.org/publicdomain/zero/1.0/"/></permissions><abstract>{told(abstract)}'
        f"</abstract></article-meta></front><body><sec>{''.join(map(told, body))}</sec></body>"
        "<back><ref-list><ref><mixed-citation>Nobody. A reference. 2026.</mixed-citation></ref></ref-list></back>"
        "</article>\n"
    )


def _latex(page: Page) -> str:
    def escaped(text: str) -> str:
        return re.sub(r"([&%$#_{}])", r"\\\1", text)

    def told(paragraph: str) -> str:
        heading = _RUN_IN.fullmatch(paragraph)
        return f"\\paragraph{{{heading[1]}}} {escaped(heading[2])}" if heading else escaped(paragraph)

    abstract, *body = page.paragraphs
    prose = "\n\n".join(map(told, body))
    return (
        "\\documentclass{article}\n\\usepackage[utf8]{inputenc}\n"
        f"\\title{{{escaped(page.title)}}}\n\\begin{{document}}\n\\maketitle\n"
        f"\\begin{{abstract}}\n{escaped(abstract)}\n\\end{{abstract}}\n\n{prose}\n\n"
        "\\begin{thebibliography}{9}\\bibitem{a} Nobody. A reference. 2026.\\end{thebibliography}\n\\end{document}\n"
    )
