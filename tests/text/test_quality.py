"""Every rule with a text it drops and one it keeps."""

from __future__ import annotations

import pytest

from palate.text import quality

GOOD = (
    "The lentil soup is ready in thirty minutes and it tastes of lemon. You wash the lentils, fry the onion in some "
    "oil and then add water. Serve it with dark bread.\n\nThe soup contains celery, so people with an allergy should "
    "leave it."
)
RULES = dict(quality.rules(20, ["en", "fr"]))
BAD = {
    "too_short": "Just a few words.",
    "undecodable": GOOD.replace("o", "\ufffd", 5),
    "spam": "Buy now! Click here for the casino and claim your prize. " + GOOD,
    "boilerplate": "We use cookies. Read our privacy policy. Sign in to your account. Soup is good.",
    "gibberish": "the soup is xkcvbn qwrtzp asdfgh and zxcv bnmklp fghjk good",
    "word_length": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "symbol_ratio": "# soup # bread # salt # oil # rice # beans",
    "bullets_and_ellipses": "- soup\n- bread\n- salt\n- oil\n- rice",
    "duplicate_lines": "Home of soup\nHome of soup\nHome of soup\nThe end of it",
    "top_ngrams": "soup now " * 30,
    "duplicate_ngrams": (GOOD + " ") * 3,
    "few_function_words": " ".join(["lomira", "taneko", "vusari", "belomi"] * 8),
}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_drops_its_own_and_keeps_a_good_text(name: str) -> None:
    assert RULES[name](quality.parts(BAD[name]))
    assert RULES[name](quality.parts(GOOD)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Cookies are cakes. A cookie needs butter, sugar and flour. Bake the cookies for ten minutes.",
        "1. Chop the onion.\n2. Fry the onion.\n3. Add the rice.\n4. Serve it with lemon and the bread that is left.",
        "Voici une recette : tarte aux pommes. Elle est prête en une heure. Pour ce plat il faut des pommes.",
    ],
)
def test_ordinary_kitchen_texts_pass_every_rule(text: str) -> None:
    page = quality.parts(text)
    assert [name for name, rule in quality.rules(5, ["en", "fr"]) if rule(page)] == []


def test_other_scripts_and_unknown_languages_are_not_judged_by_latin_rules() -> None:
    chinese = quality.parts("今天我们做一道很好吃的菜。" * 3)
    assert [name for name, rule in quality.rules(1, ["zh"]) if rule(chinese)] == []
    polish = quality.parts("Moja babcia gotuje zupę. " + " ".join(f"słowo{n}" for n in range(30)))
    assert dict(quality.rules(1, ["pl"]))["few_function_words"](polish) is None
