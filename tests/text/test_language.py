"""Which languages are kept."""

from __future__ import annotations

import pytest

from palate.text import language


@pytest.mark.parametrize(
    ("text", "code", "kept"),
    [
        ("The soup is ready in thirty minutes and it tastes of lemon; serve it with dark bread.", "en", True),
        ("Voici une recette : la soupe est prête en trente minutes, et les enfants l'aiment aussi.", "fr", True),
        ("Meine Großmutter hat den Eintopf jeden Sonntag für die ganze Familie gekocht.", "de", False),
        ("Mi abuela cocinaba la tortilla todos los domingos para toda la familia y los vecinos.", "es", False),
        ("Isoäitini keitti aina sunnuntaisin keittoa koko perheelle ja se maistui hyvältä.", "fi", False),
        ("Moja babcia gotowała barszcz w każdą niedzielę dla całej naszej rodziny.", "pl", False),
    ],
)
def test_wanted_languages_stay(text: str, code: str, kept: bool) -> None:
    spoken, reason = language.judge(text, ["en", "fr"])
    assert spoken == code
    assert (reason is None) == kept


def test_short_texts_get_the_benefit_of_the_doubt_and_no_list_keeps_all() -> None:
    assert language.judge("Guten Tag", ["en"]) == ("en", None)
    assert language.judge("Guten Tag", ["en", "fr"]) == ("", None)
    assert language.judge("Meine Großmutter hat den Eintopf jeden Sonntag für die Familie gekocht.", [])[1] is None
