"""Cleaning changes what it should and nothing else."""

from __future__ import annotations

import pytest

from palate.text import cleaning


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (cleaning.unicode_text, "cre\u0300me\u00ad\u200b \x00x\r\ny\ufeff", "cr\u00e8me x\ny"),
        (cleaning.unicode_text, "می\u200cخواهم 👩\u200d🍳", "می\u200cخواهم 👩\u200d🍳"),
        (cleaning.mojibake, "crÃ¨me brÃ»lÃ©e â€œgoodâ€\x9d itâ€™s", "crème brûlée “good” it’s"),
        (cleaning.mojibake, "Ã la carte, âne, 2\u00d7\u00a010", "Ã la carte, âne, 2\u00d7\u00a010"),
        (cleaning.whitespace, "a\u00a0  b \n\n\n\nc\t \n    code", "a b\n\nc\n    code"),
        (cleaning.boilerplate_lines, "Soup.\nPrivacy policy | Terms of use\nBread.", "Soup.\nBread."),
        (
            cleaning.boilerplate_lines,
            "For the crust, use cookies and butter.",
            "For the crust, use cookies and butter.",
        ),
    ],
)
def test_text_rules(rule, before: str, after: str) -> None:
    assert rule(before) == after


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("mail a.b+c@mail.example.org now", "email"),
        ("card 4111 1111 1111 1111 here", "card"),
        ("from 8.8.8.8 today", "ip"),
        ("call +1 415 555 0132 or", "phone"),
        ("call (212) 555-0147.", "phone"),
        ("call +44 7700 900123.", "phone"),
        ("appelez 01 23 45 67 89 !", "phone"),
    ],
)
def test_personal_data_is_replaced(text: str, kind: str) -> None:
    after, found = cleaning.personal_data(text)
    assert found == {kind: 1}
    assert f"[{kind}]" in after
    assert not any(c.isdigit() for c in after)


@pytest.mark.parametrize(
    "text",
    [
        "bake at 180 for 40 minutes, 1.5 kg, 2024-05-06 and 10:30",
        "from 192.168.0.1 and version 1.2.3.4",
        "card 4111 1111 1111 1112",
        "ISBN 978-0-306-40615-7",
        "in 1914-1918 about 1 000 000 people, 3.14159265358979",
        "@home a@b",
    ],
)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert cleaning.personal_data(text) == (text, {})


def test_luhn() -> None:
    assert cleaning.luhn("4111111111111111")
    assert not cleaning.luhn("4111111111111112")


def test_clean_counts_its_changes_and_is_idempotent() -> None:
    text, changes = cleaning.clean("Soup\u00a0is  good. \n\n\nWrite to a@b.example, b@c.example.")
    assert text == "Soup is good.\n\nWrite to [email], [email]."
    assert changes == {"whitespace": 1, "personal_data email": 2}
    assert cleaning.clean(text) == (text, {})
