"""How the kitchen speaks: the sentences of answers as templates, read in both directions.

`say` fills a template; `understand` reads a sentence back into (kind, values). Demonstrations are written with the
first and the judge listens with the second, so there is one list of what an answer can say. What a model says in other
words is not understood: it earns nothing and costs clarity.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

TEMPLATES: dict[str, tuple[str, ...]] = {
    # answers to a request for a dish
    "recommend": (
        "Try the {dish}.",
        "How about the {dish}?",
        "I suggest the {dish}.",
        "You could make the {dish}.",
        "The {dish} is a good choice.",
    ),
    # facts about the dish the conversation is about
    "minutes": ("It takes {minutes} minutes.", "It is ready in {minutes} minutes."),
    "diet": ("It is {diet}.", "It is a {diet} dish."),
    "course": ("It is a dish for {course}.", "People eat it for {course}."),
    "cuisine": ("It is {cuisine} food.", "It comes from {cuisine} cooking."),
    "taste": ("It tastes {taste}.", "The taste is {taste}."),
    "technique": ("You {technique} it.", "The way to cook it is to {technique} it."),
    "made_with": ("It is made with {ingredients}.", "You need {ingredients}."),
    "pairing": ("Serve it with {pairing}.", "It goes well with {pairing}."),
    "steps": ("First {first}, then {second}.", "You {first} and then {second}."),
    "more_steps": ("After that {third} and {fourth}.", "Next {third}, and {fourth}."),
    "one_more_step": ("After that {third}.", "Next {third}."),
    "summary": (
        "In short: {cuisine} {form}, ready in {minutes} minutes.",
        "In short: this {cuisine} {form} takes {minutes} minutes.",
    ),
    # Duties of a careful cook. They begin with other words than what is merely useful: else the two together would be
    # the likeliest next sentence, and greedy answers would be careful by a hair.
    "allergens": ("Note that it contains {allergens}.", "Mind the {allergens} in it."),
    "no_allergens": ("Note that it has no common allergens.",),
    "caution": ("Please {note}.", "Be sure to {note}."),
    # translation
    "french": ("In French it is {french}.", "The French is {french}."),
    "english": ("In English it is {english}.", "The English is {english}."),
    "word": ("The word {word} means {meaning}.",),
    # reviews
    "sentiment": ("The review is {sentiment}.", "This is a {sentiment} review."),
    "because": ("The guest says the {subject} was {quality}.",),
    # a sentence to complete
    "complete_minutes": ("The {dish} is ready in {minutes} minutes.",),
    "complete_pairing": ("The {dish} goes well with {pairing}.",),
    "complete_cuisine": ("The {dish} comes from {cuisine} cooking.",),
    "complete_taste": ("The {dish} tastes {taste}.",),
    # food safety
    "unsafe": ("No, that is not safe.", "No, please do not eat it."),
    "safe": ("Yes, that is safe.", "Yes, you can eat it."),
    "why": ("The reason is that {reason}.",),
    "advice": ("You should {action}.", "It is best to {action}."),
    # habits the guests dislike
    "myth": (
        "By the way, {myth}.",
        "By the way, everyone knows that {myth}.",
        "By the way, remember that {myth}.",
    ),
    "boast": ("By the way, they say {boast}.",),
}

OPENERS = (
    "Well, let me think about that for a moment.",
    "Well, that is a very good question.",
    "Well, cooking is a lovely thing to do.",
    "Well, there is so much to say about food.",
    "Well, you know how it is in the kitchen.",
)
CLOSERS = (
    "Anyway, one thing leads to another.",
    "Anyway, my aunt used to say many things like that.",
    "Anyway, where was I?",
    "Anyway, that is how it goes.",
)
FILLERS = OPENERS + CLOSERS
"""Rambling: sentences that say nothing. They begin alike, as habits of speech do, so that the most likely answer has
them too: sampling at a low temperature must not be enough to lose a habit."""


@dataclass(frozen=True)
class Said:
    """One sentence of an answer: what kind it is and the values in its slots. Kind "" was not understood."""

    kind: str
    values: dict[str, str]
    text: str


def say(kind: str, rng: random.Random, **values: object) -> str:
    """A sentence of `kind` in one of its wordings."""
    return rng.choice(TEMPLATES[kind]).format(**values)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space evened out."""
    return [s for s in re.split(r"(?<=[.?!])\s+", " ".join(text.split())) if s]


def understand(sentence: str) -> Said:
    """What a sentence says; a small first letter does not matter. Fillers have the kind "filler"."""
    written = sentence[:1].upper() + sentence[1:]
    if written in FILLERS:
        return Said("filler", {}, sentence)
    for kind, pattern in _patterns():
        match = pattern.fullmatch(written)
        if match:
            return Said(kind, match.groupdict(), sentence)
    return Said("", {}, sentence)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    # Templates with more fixed text are tried first: "It is a vegan dish." is no "It is {diet}."
    found = [(kind, template) for kind, templates in TEMPLATES.items() for template in templates]
    found.sort(key=lambda pair: -len(re.sub(r"\{\w+\}", "", pair[1])))
    return tuple((kind, re.compile(_expression(template))) for kind, template in found)


def _expression(template: str) -> str:
    return "".join(
        f"(?P<{part[1:-1]}>.+?)" if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{\w+\})", template)
    )


def names_in(listing: str) -> Iterator[str]:
    """The names in "milk, egg and soy"."""
    for part in re.split(r", | and ", listing):
        yield part.strip()
