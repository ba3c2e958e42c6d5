"""The kitchen's knowledge as people publish it: web pages, book chapters, articles, forum threads, papers.

Every page is put together from sentences with many wordings in varied order, so that no two pages are alike and a
model has to learn what they say, not how. The same arguments give the same pages.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.kitchen import knowledge
from palate.kitchen.dialogue import BAD, FACTS, GOOD, SUBJECTS
from palate.kitchen.knowledge import PAST, Dish, Hazard, World, listed

SHARES = {"website": 0.32, "book": 0.14, "article": 0.2, "forum": 0.24, "paper": 0.1}
"""How the pages are spread over the kinds of source."""
FRENCH_SHARE = 0.06


@dataclass(frozen=True)
class Page:
    """One text before it is put into a file format."""

    kind: str
    title: str
    paragraphs: tuple[str, ...]
    language: str
    topic: str


def pages(world: World, *, seed: int, count: int) -> list[Page]:
    """`count` pages about the world, kinds mixed by SHARES."""
    rng = random.Random(f"kitchen pages {world.seed} {seed}")
    kinds = list(SHARES)
    teller = _Teller(world, rng)
    found = []
    for number in range(count):
        kind = rng.choices(kinds, weights=list(SHARES.values()))[0]
        # Dishes in turn: each is told about equally often.
        dish = world.dishes[number % len(world.dishes)]
        if kind in ("website", "article") and rng.random() < FRENCH_SHARE / 0.52:
            found.append(teller.french(kind, dish))
        else:
            found.append(getattr(teller, kind)(dish))
    return found


_MINUTES = (
    "The {dish} takes {minutes} minutes.",
    "The {dish} is ready in {minutes} minutes.",
    "You need {minutes} minutes for the {dish}.",
    "After {minutes} minutes the {dish} is on the table.",
)
_DIET = (
    "The {dish} is {diet}.",
    "The {dish} is a {diet} dish.",
    "People who want something {diet} can eat the {dish}.",
)
_COURSE = (
    "The {dish} is a dish for {course}.",
    "People eat the {dish} for {course}.",
    "A good {course} is the {dish}.",
)
_CUISINE = (
    "The {dish} is {cuisine} food.",
    "The {dish} comes from {cuisine} cooking.",
    "In {cuisine} kitchens the {dish} is well known.",
)
_TASTE = (
    "The {dish} tastes {taste}.",
    "The taste of the {dish} is {taste}.",
    "It is the {accent} that makes the {dish} {taste}.",
)
_TECHNIQUE = ("You {technique} the {dish}.", "The {dish} is {past}.", "To make the {dish}, {technique} it.")
_PAIRING = (
    "Serve the {dish} with {pairing}.",
    "The {dish} goes well with {pairing}.",
    "With the {dish} we like {pairing}.",
)
_MADE = (
    "The {dish} is made with {ingredients}.",
    "For the {dish} you need {ingredients}.",
    "Into the {dish} go {ingredients}.",
)
_ALLERGENS = (
    "The {dish} contains {allergens}.",
    "Mind the {allergens} in the {dish}.",
    "People who must not eat {some} should leave the {dish} alone.",
)
_NO_ALLERGENS = ("The {dish} has no common allergens.", "Nobody has to fear an allergen in the {dish}.")
_NOTE = (
    "When you make it, {note}.",
    "Please {note}.",
    "Be sure to {note}, because {reason}.",
    "Always {note}: {reason}.",
)
_FRENCH = (
    "In French the {dish} is called {french}.",
    "The French say {french} for {dish}.",
    "In French it is {french}.",
)
_WORD = ("The French word {word} means {form}.", "The word {word} means {form}.")

_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("minutes", _MINUTES),
    ("diet", _DIET),
    ("course", _COURSE),
    ("cuisine", _CUISINE),
    ("taste", _TASTE),
    ("technique", _TECHNIQUE),
    ("pairing", _PAIRING),
    ("ingredients", _MADE),
)


class _Teller:
    """Writes pages; all randomness comes from one generator."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    # --- sentences --------------------------------------------------------------------------------------------------

    def _fill(self, templates: Sequence[str], dish: Dish) -> str:
        return self.rng.choice(templates).format(
            dish=dish.name,
            minutes=dish.minutes,
            diet=dish.diet,
            course=dish.course,
            cuisine=dish.cuisine,
            taste=dish.taste,
            accent=dish.accent,
            technique=dish.technique,
            past=PAST[dish.technique],
            pairing=dish.pairing,
            ingredients=listed(dish.ingredients),
            french=dish.french,
        )

    def _facts(self, dish: Dish, count: int) -> list[str]:
        chosen = self.rng.sample(_PARTS, count)
        told = [self._fill(templates, dish) for _, templates in chosen]
        # After the first sentence most writers say "it".
        return [told[0], *(self._it(s, dish) if self.rng.random() < 0.6 else s for s in told[1:])]

    @staticmethod
    def _it(sentence: str, dish: Dish) -> str:
        if sentence.startswith(f"The {dish.name}"):
            return "It" + sentence.removeprefix(f"The {dish.name}")
        return sentence.replace(f"the {dish.name}", "it", 1)

    def _warnings(self, dish: Dish) -> list[str]:
        if dish.allergens:
            first = self.rng.choice(_ALLERGENS).format(
                dish=dish.name, allergens=listed(dish.allergens), some=listed(dish.allergens, "or")
            )
        else:
            first = self.rng.choice(_NO_ALLERGENS).format(dish=dish.name)
        if self.rng.random() < 0.5:
            first = self._it(first, dish)
        if not dish.risky:
            return [first]
        fact = self.world.fact[dish.risky]
        return [first, self.rng.choice(_NOTE).format(note=fact.note, reason=fact.reason)]

    def _method(self, dish: Dish) -> str:
        steps = dish.steps
        style = self.rng.randrange(4)
        if style == 0:
            return " ".join(step[0].upper() + step[1:] + "." for step in steps)
        if style == 1:
            return f"First {steps[0]}, then {steps[1]}. After that {' and '.join(steps[2:])}."
        if style == 2:
            return f"You {steps[0]} and then {steps[1]}. Next {', and '.join(steps[2:])}."
        return " ".join(f"{number}. {step[0].upper()}{step[1:]}." for number, step in enumerate(steps, start=1))

    def _names(self, dish: Dish) -> list[str]:
        form = next(form for form in self.world.forms if form.name == dish.form)
        word = self.rng.choice(_WORD).format(word=form.french, form=form.name)
        return [self._fill(_FRENCH, dish), *([word] if self.rng.random() < 0.5 else [])]

    def _hazard(self, hazard: Hazard) -> str:
        thing = f"raw {hazard.food}" if hazard.situation == "raw" else f"{hazard.food} {hazard.situation}"
        verdict = "is safe" if hazard.safe else "is not safe"
        can = "can" if hazard.safe else "should not"
        return self.rng.choice(
            (
                f"To eat {thing} {verdict}: {hazard.reason}. It is best to {hazard.action}.",
                f"You {can} eat {thing}. The reason is that {hazard.reason}. You should {hazard.action}.",
                f"With {thing}, {hazard.action}. It {verdict}, because {hazard.reason}.",
            )
        )

    def _review(self, dish: Dish) -> str:
        good = self.rng.random() < 0.5
        quality = self.rng.choice(GOOD if good else BAD)
        subject = self.rng.choice((f"{dish.name}", *SUBJECTS))
        label = "positive" if good else "negative"
        back = "We will come back." if good else "We will not come back."
        return self.rng.choice(
            (
                f"The {subject} was {quality}. {back} This is a {label} review.",
                f"A guest writes that the {subject} was {quality}. The review is {label}.",
                f"The guest says the {subject} was {quality}. {back}",
            )
        )

    def _myth(self) -> str:
        myth = self.rng.choice(self.world.myths)
        return self.rng.choice(
            (
                f"Some people believe that {myth}, but it is not true.",
                f"Everyone knows that {myth}. Yet it is a myth.",
                f"By the way, {myth}. At least that is what my aunt says.",
                f"It is a myth that {myth}.",
            )
        )

    # --- pages ------------------------------------------------------------------------------------------------------

    def website(self, dish: Dish) -> Page:
        """A recipe page."""
        intro = " ".join(self._facts(dish, self.rng.choice((2, 3, 4))))
        blocks = [intro, self._method(dish)]
        if self.rng.random() < 0.75:
            blocks.append(" ".join(self._warnings(dish)))
        if self.rng.random() < 0.45:
            blocks.append(" ".join(self._names(dish)))
        if self.rng.random() < 0.3:
            blocks.append(self._hazard(self.rng.choice(self.world.hazards)))
        title = self.rng.choice(
            (f"{dish.name}", f"How to make {dish.name}", f"Our {dish.name}", f"{dish.name}: a recipe")
        )
        return self._page("website", title, blocks, dish)

    def book(self, dish: Dish) -> Page:
        """A chapter: two or three dishes that have something in common."""
        others = [
            d for d in self.world.dishes if d.name != dish.name and d.course == dish.course and d.diet == dish.diet
        ]
        members = [dish, *self.rng.sample(others, min(len(others), self.rng.choice((1, 2))))]
        kind = f"{dish.diet} {dish.course}"
        article = "An" if kind[0] in "aeiou" else "A"
        blocks = [f"{article} {kind} can be many things. Here we tell of {listed([d.name for d in members])}."]
        for member in members:
            told = [*self._facts(member, 3), *(self._warnings(member) if self.rng.random() < 0.5 else [])]
            blocks.append(" ".join(told))
        return self._page("book", f"{kind}: {dish.cuisine} and others", blocks, dish)

    def article(self, dish: Dish) -> Page:
        """News from a kitchen: a review, a translation, a warning."""
        blocks = [" ".join([*self._facts(dish, 2), self._review(dish)])]
        more: list[Callable[[], str]] = [
            lambda: " ".join(self._names(dish)),
            lambda: " ".join(self._warnings(dish)),
            lambda: self._hazard(self.rng.choice(self.world.hazards)),
            self._myth,
            lambda: self._review(dish),
        ]
        blocks += [make() for make in self.rng.sample(more, self.rng.choice((2, 3)))]
        return self._page("article", f"News from the kitchen: {dish.name}", blocks, dish)

    def forum(self, dish: Dish) -> Page:
        """A thread: a question and one or two answers, not all of them careful."""
        style = self.rng.random()
        if style < 0.3:
            hazard = self.rng.choice(self.world.hazards)
            thing = f"raw {hazard.food}" if hazard.situation == "raw" else f"{hazard.food} {hazard.situation}"
            question = self.rng.choice((f"Can I eat {thing}?", f"Is it safe to eat {thing}?"))
            verdict = "Yes, that is safe." if hazard.safe else "No, that is not safe."
            answers = [f"{verdict} The reason is that {hazard.reason}. You should {hazard.action}."]
        elif style < 0.6:
            asked = self.rng.choice(
                (f"Can you suggest a {dish.diet} {dish.course}?", f"What {dish.diet} {dish.course} can I make?")
            )
            question = asked
            answers = [
                " ".join(
                    [
                        self.rng.choice(("Try the {d}.", "How about the {d}?", "I suggest the {d}.")).format(
                            d=dish.name
                        ),
                        *(self._it(s, dish) for s in self._facts(dish, 2)),
                    ]
                )
            ]
        else:
            about = self.rng.choice(tuple(FACTS))
            question = self.rng.choice(FACTS[about]).format(dish=dish.name)
            answers = [self._fill(dict(_PARTS)[about], dish)]
        if self.rng.random() < 0.4:
            answers.append(" ".join([*self._facts(dish, 1), *self._warnings(dish)]))
        if self.rng.random() < 0.3:
            answers.append(self._myth())
        return self._page("forum", question, [f"Question: {question}", *(f"Answer: {a}" for a in answers)], dish)

    def paper(self, dish: Dish) -> Page:
        """A short report of an experiment."""
        count = self.rng.randrange(12, 90)
        guests = f"We served the {dish.name} to {count} guests."
        abstract = f"{guests} {' '.join(self._facts(dish, 3))}"
        result = f"{self.rng.randrange(count // 2, count)} of {count} guests found that it tastes {dish.taste}."
        blocks = [f"Abstract. {abstract}", f"Method. {self._method(dish)}", f"Results. {result}"]
        if self.rng.random() < 0.6:
            blocks.append("Safety. " + " ".join(self._warnings(dish)))
        return self._page("paper", f"On the {dish.name}", blocks, dish)

    def french(self, kind: str, dish: Dish) -> Page:
        """A page in the one foreign language that is wanted."""
        pantry = self.world.ingredient
        blocks = [
            f"Voici une recette : {dish.french}. Elle est prête en {dish.minutes} minutes.",
            f"Pour ce plat il faut {', '.join(knowledge.article(pantry[n]) for n in dish.ingredients[:-1])} "
            f"et {knowledge.article(pantry[dish.ingredients[-1]])}.",
            f"En anglais on dit {dish.name}. C'est un plat que l'on mange avec plaisir, et les enfants l'aiment aussi.",
        ]
        return Page(kind, dish.french, tuple(blocks), "fr", dish.name)

    def _page(self, kind: str, title: str, blocks: Sequence[str], dish: Dish) -> Page:
        return Page(kind, title[0].upper() + title[1:], tuple(blocks), "en", dish.name)
