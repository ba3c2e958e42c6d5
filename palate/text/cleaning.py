"""Cleaning that changes a text but keeps the document: Unicode, whitespace, boilerplate lines, personal data.

Personal data follows FineWeb's formatter (Penedo et al. 2024, arXiv:2406.17557: e-mail and public IP addresses) and
adds phone and card numbers. Placeholders are fixed words and not example addresses in rotation: the same text must
give the same bytes whatever was cleaned before it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import unicodedata
from collections.abc import Callable

# Format characters that carry no text: byte order marks, zero-width space, soft hyphen, direction marks. The joiners
# U+200C and U+200D stay, for Persian, the Indic scripts and emoji are spelt with them.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\uffff]"
)
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_NEWLINES = re.compile("\r\n?|\u0085|\u2028|\u2029|\x0b|\x0c")
_INNER_SPACES = re.compile(r"(?<=\S)[ \t]{2,}")  # indentation stays: it is part of code and of verse
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")

# UTF-8 that was read as Windows-1252: a lead byte and its continuation bytes. Only the leads of Latin letters (Â Ã Ä Å)
# and of punctuation (â) count: "2 \u00d7\u00a010" would be a Hebrew letter otherwise.
_MOJIBAKE = re.compile(
    "(?:[\u00c2-\u00c5][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    "|\u00e2[\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]{2})+"
)

_POLICY = re.compile(
    # C4 (Raffel et al. 2020) drops lines with such phrases. Its "use cookies" is left out: recipes use cookies.
    r"privacy policy|cookie policy|terms of (?:use|service)|(?:we|site|website) uses? cookies|accept (?:all )?cookies"
    r"|(?:enable|requires?) javascript|all rights reserved|subscribe to our newsletter",
    re.IGNORECASE,
)
POLICY_LINE = 200  # a longer line is prose that mentions the phrase

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.)+[A-Za-z]{2,24}\b")
_CARD = re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-]|\.\d)")
_IP = re.compile(
    r"(?<![\w.])(?<!version )(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)"
)
_PHONE = re.compile(
    r"(?<![\w+])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"  # international, 7 to 15 digits by E.164
    r"|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}"  # North America, as in dolma's tagger (Soldaini et al. 2024)
    r"|0[1-9](?:[ .]\d{2}){4}"  # France
    r")(?!\w)"
)


def unicode_text(text: str) -> str:
    """NFC, one kind of line end, no control or invisible format characters."""
    return unicodedata.normalize("NFC", _CONTROL.sub("", _NEWLINES.sub("\n", text)))


def mojibake(text: str) -> str:
    """UTF-8 that was once read as Windows-1252, read rightly; what does not decode is left as it is.

    >>> mojibake("crÃ¨me brÃ»lÃ©e, itâ€™s good; Ã la carte")
    'crème brûlée, it’s good; Ã la carte'
    """
    return _MOJIBAKE.sub(_redecoded, text)


def _redecoded(match: re.Match[str]) -> str:
    raw = bytearray()
    for character in match[0]:
        try:
            raw += character.encode("cp1252")
        except UnicodeEncodeError:  # the five holes of Windows-1252 pass through as their number
            if ord(character) > 255:
                return match[0]
            raw.append(ord(character))
    with contextlib.suppress(UnicodeDecodeError):
        return raw.decode("utf-8")
    return match[0]


def whitespace(text: str) -> str:
    """Plain spaces, no trailing ones, at most one blank line in a row."""
    text = _TRAILING.sub("", _INNER_SPACES.sub(" ", _SPACES.sub(" ", text)))
    return _BLANK_LINES.sub("\n\n", text).strip("\n").rstrip()


def boilerplate_lines(text: str) -> str:
    """Without the short lines that are a site's legal notices, after C4."""
    if not _POLICY.search(text):
        return text
    kept = [line for line in text.split("\n") if len(line) > POLICY_LINE or not _POLICY.search(line)]
    return _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n")


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812)."""
    doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def personal_data(text: str) -> tuple[str, dict[str, int]]:
    """`text` with [email], [card], [ip] and [phone] in place of such data, and how many of each.

    >>> personal_data("Write to anna@example.org or call +1 415 555 0132.")
    ('Write to [email] or call [phone].', {'email': 1, 'phone': 1})
    """
    found: dict[str, int] = {}
    for name, pattern, holds in _PERSONAL:

        def replaced(match: re.Match[str], name: str = name, holds: Callable[[str], bool] = holds) -> str:
            if not holds(match[0]):
                return match[0]
            found[name] = found.get(name, 0) + 1
            return f"[{name}]"

        text = pattern.sub(replaced, text)
    return text, found


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    isbn = len(digits) == 13 and digits.startswith(("978", "979"))
    return not isbn and len(set(digits)) > 1 and luhn(digits)


def _is_public(found: str) -> bool:
    return ipaddress.ip_address(found).is_global


def _is_phone(found: str) -> bool:
    return 7 <= sum(c.isdigit() for c in found) <= 15


# In this order: a card number holds what looks like a phone number.
_PERSONAL: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, lambda found: True),
    ("card", _CARD, _is_card),
    ("ip", _IP, _is_public),
    ("phone", _PHONE, _is_phone),
)


def clean(text: str) -> tuple[str, dict[str, int]]:
    """The cleaned text, and which rule changed it how often ("unicode": 1, "personal_data email": 2, ...)."""
    changes: dict[str, int] = {}
    for name, rule in (
        ("unicode", unicode_text),
        ("mojibake", mojibake),
        ("whitespace", whitespace),
        ("boilerplate_lines", boilerplate_lines),
    ):
        after = rule(text)
        if after != text:
            changes[name] = 1
        text = after
    text, found = personal_data(text)
    changes.update({f"personal_data {name}": count for name, count in found.items()})
    return text, changes
