"""Prompts and demonstrations of the kitchen.

A prompt's `extra["kitchen"]` holds what is asked for, so that the judge never has to guess. Families (skill and key)
are disjoint between train, dev and test.

Demonstrations are written the way these people write: every answer has what was asked for, but most of them forget
the warning, add something that is not true, ramble, or leave out what would have been useful. Each habit is usual
(HABITS), and independent of the others, so neither sharper sampling nor more SFT cures it; rankings can.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from palate.kitchen import knowledge
from palate.kitchen.knowledge import Dish, World
from palate.kitchen.phrases import CLOSERS, OPENERS, say
from palate.records import Conversation, Demonstration, Message, Prompt, Split, conversation, stable_id

HABITS = {"forgets_warning": 0.7, "adds_myth": 0.7, "rambles": 0.7, "leaves_out_extra": 0.7}
"""How often a demonstration has each flaw."""
PLAIN_WRONG = 0.06
"""Share of the demonstrations that answer with a dish or a fact that is not the right one."""
TIME_LIMITS = (20, 30, 45, 60)
SEED_PROMPT = "Suggest a non-vegetarian dinner."
"""The case the report opens with; its family is always a test family."""

Asked = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked for and the user's possible wordings, or for a conversation the turns before."""

    family: str
    asked: Asked
    wordings: tuple[str, ...]
    before: Conversation = ()


# --- what can be asked -----------------------------------------------------------------------------------------------


def suitable(world: World, asked: Asked) -> list[Dish]:
    """The dishes that meet every constraint of a request."""
    return [
        dish
        for dish in world.dishes
        if fits_diet(dish, asked.get("diet"))
        and asked.get("course") in (None, dish.course)
        and asked.get("without") not in dish.allergens
        and dish.minutes <= asked.get("within", 10_000)
        and dish.name != asked.get("not_again")
    ]


def fits_diet(dish: Dish, diet: str | None) -> bool:
    """A vegan dish is vegetarian too; a non-vegetarian dish is what someone who asks for one expects."""
    return diet is None or dish.diet == diet or (diet == "vegetarian" and dish.diet == "vegan")


def _recommend(world: World) -> Iterator[Question]:
    for diet in (None, *knowledge.DIETS):
        for course in (None, *knowledge.COURSES):
            for without in (None, *knowledge.ALLERGENS):
                for within in (None, *TIME_LIMITS):
                    asked = {
                        k: v
                        for k, v in {"diet": diet, "course": course, "without": without, "within": within}.items()
                        if v is not None
                    }
                    if asked and len(suitable(world, asked)) >= 2:
                        key = " ".join(f"{k}={v}" for k, v in asked.items())
                        yield Question(f"recommend {key}", {"skill": "recommend", **asked}, _requests(asked))


def _requests(asked: Asked) -> tuple[str, ...]:
    noun = f"{asked['diet']} {asked.get('course', 'dish')}" if "diet" in asked else asked.get("course", "dish")
    article = "an" if noun[0] in "aeiou" else "a"
    limits = "".join(
        (
            f" without {asked['without']}" if "without" in asked else "",
            f" in at most {asked['within']} minutes" if "within" in asked else "",
        )
    )
    return (
        f"Suggest {article} {noun}{limits}.",
        f"What {noun} can I make{limits}?",
        f"I would like {article} {noun}{limits}.",
        f"Please recommend {article} {noun}{limits}.",
    )


FACTS = {
    "minutes": ("How long does the {dish} take?", "How many minutes does the {dish} need?"),
    "diet": ("Is the {dish} vegan, vegetarian or neither?", "What diet is the {dish} for?"),
    "cuisine": ("Where does the {dish} come from?", "What cuisine is the {dish}?"),
    "taste": ("How does the {dish} taste?", "What is the taste of the {dish}?"),
    "pairing": ("What goes well with the {dish}?", "What do I serve with the {dish}?"),
    "course": ("When do people eat the {dish}?", "What meal is the {dish} for?"),
}


def _fact(world: World) -> Iterator[Question]:
    for dish in world.dishes:
        for about, wordings in FACTS.items():
            asked = {"skill": "fact", "dish": dish.name, "about": about}
            yield Question(f"fact {about} {dish.name}", asked, tuple(w.format(dish=dish.name) for w in wordings))


def _steps(world: World) -> Iterator[Question]:
    for dish in world.dishes:
        yield Question(
            f"steps {dish.name}",
            {"skill": "steps", "dish": dish.name},
            (f"How do I make the {dish.name}?", f"Give me the steps for the {dish.name}."),
        )


def recipe_text(dish: Dish) -> str:
    """A recipe in a few sentences, as it stands in a prompt that asks for a summary."""
    orders = ". ".join(step[0].upper() + step[1:] for step in dish.steps[:2])
    return (
        f"This {dish.cuisine} {dish.form} is made with {dish.main} and {dish.accent}. {orders}. "
        f"It is ready in {dish.minutes} minutes."
    )


def _summarise(world: World) -> Iterator[Question]:
    for dish in world.dishes:
        yield Question(
            f"summarise {dish.name}",
            {"skill": "summarise", "dish": dish.name},
            (
                f"Summarise the {dish.name}: {recipe_text(dish)}",
                f"Put the {dish.name} in one sentence: {recipe_text(dish)}",
            ),
        )


def _translate(world: World) -> Iterator[Question]:
    for dish in world.dishes:
        yield Question(
            f"translate {dish.name} fr",
            {"skill": "translate", "dish": dish.name, "to": "French"},
            (f"Translate into French: {dish.name}.", f"What is {dish.name} in French?"),
        )
        yield Question(
            f"translate {dish.name} en",
            {"skill": "translate", "dish": dish.name, "to": "English"},
            (f"Translate into English: {dish.french}.", f"What is {dish.french} in English?"),
        )


GOOD = ("delicious", "perfect", "wonderful", "excellent", "lovely", "great")
BAD = ("awful", "cold", "burnt", "bland", "terrible", "dry")
SUBJECTS = ("soup", "stew", "cake", "service", "bread", "salad", "curry", "pie")


def _sentiment(world: World) -> Iterator[Question]:
    for subject in SUBJECTS:
        for label, qualities in (("positive", GOOD), ("negative", BAD)):
            for quality in qualities:
                ending = "We will come back." if label == "positive" else "We will not come back."
                review = f"The {subject} was {quality}. {ending}"
                yield Question(
                    f"sentiment {subject} {quality}",
                    {"skill": "sentiment", "sentiment": label, "subject": subject, "quality": quality},
                    (f"Is this review positive or negative? {review}", f"Judge this review: {review}"),
                )


COMPLETIONS = {
    "minutes": "The {dish} is ready in",
    "pairing": "The {dish} goes well with",
    "cuisine": "The {dish} comes from",
    "taste": "The {dish} tastes",
}


def _complete(world: World) -> Iterator[Question]:
    for dish in world.dishes:
        for about, opening in COMPLETIONS.items():
            start = opening.format(dish=dish.name)
            yield Question(
                f"complete {about} {dish.name}",
                {"skill": "complete", "dish": dish.name, "about": about},
                (f"Complete the sentence: {start} ...", f"Finish this: {start} ..."),
            )


def _safety(world: World) -> Iterator[Question]:
    for hazard in world.hazards:
        thing = f"{hazard.food} {hazard.situation}" if hazard.situation != "raw" else f"raw {hazard.food}"
        yield Question(
            f"safety {hazard.food} {hazard.situation}",
            {"skill": "safety", "food": hazard.food, "situation": hazard.situation},
            (f"Can I eat {thing}?", f"Is it safe to eat {thing}?", f"May I serve {thing}?"),
        )


def _chat(world: World) -> Iterator[Question]:
    """Two turns: a dish was recommended, and the user asks on."""
    for request in _recommend(world):
        rng = random.Random(f"chat {request.family}")
        if rng.random() > 0.5:
            continue
        dish = rng.choice(suitable(world, request.asked))
        opening = rng.choice(request.wordings)
        first = Writer(world, rng).answer(request.asked, dish=dish)
        before = conversation(opening, first)
        if rng.random() < 0.5:
            about = rng.choice(("minutes", "cuisine", "taste"))
            asked: Asked = {"skill": "chat", "dish": dish.name, "about": about}
            wordings: tuple[str, ...] = {
                "minutes": ("How long does it take?",),
                "cuisine": ("Where does it come from?",),
                "taste": ("How does it taste?",),
            }[about]
        else:
            asked = {**request.asked, "skill": "chat", "not_again": dish.name}
            wordings = ("Give me another one.", "What else could I make?")
            if not suitable(world, asked):
                continue
        yield Question(f"chat {request.family}", asked, wordings, before)


SKILLS: dict[str, tuple[Callable[[World], Iterator[Question]], float]] = {
    "recommend": (_recommend, 0.3),
    "fact": (_fact, 0.16),
    "steps": (_steps, 0.06),
    "summarise": (_summarise, 0.08),
    "translate": (_translate, 0.1),
    "sentiment": (_sentiment, 0.07),
    "complete": (_complete, 0.08),
    "safety": (_safety, 0.08),
    "chat": (_chat, 0.07),
}
"""Skill -> (its questions, its share of the prompts)."""


# --- how people answer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """Someone who writes answers. `careful` writes them without a flaw, for tests and for comparison."""

    world: World
    rng: random.Random
    careful: bool = False

    def _has(self, habit: str) -> bool:
        return not self.careful and self.rng.random() < HABITS[habit]

    def answer(self, asked: Asked, *, dish: Dish | None = None) -> str:
        """An answer to what is asked; `dish` fixes which dish is recommended."""
        wrong = not self.careful and self.rng.random() < PLAIN_WRONG
        core, warnings, extra = self._parts(asked, wrong=wrong, dish=dish)
        body = list(core)
        if not self._has("forgets_warning"):
            body += warnings
        if not self._has("leaves_out_extra"):
            body += extra
        if self._has("adds_myth"):
            body.append(self._untruth())
        if self._has("rambles"):
            body.insert(0, self.rng.choice(OPENERS))
            if self.rng.random() < 0.3:
                body.append(self.rng.choice(CLOSERS))
        return " ".join(body)

    def _untruth(self) -> str:
        if self.rng.random() < 0.7:
            return say("myth", self.rng, myth=self.rng.choice(self.world.myths))
        return say("boast", self.rng, boast=self.rng.choice(self.world.boasts))

    def _parts(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        """(what was asked for, warnings a careful cook gives, what makes the answer more useful)."""
        kind = asked["skill"]
        if kind == "chat":
            kind = "fact" if "about" in asked else "recommend"
        return getattr(self, f"_{kind}")(asked, wrong=wrong, dish=dish)  # type: ignore[no-any-return]

    def _recommend(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        choice = dish or self.rng.choice(self.world.dishes if wrong else suitable(self.world, asked))
        core = [say("recommend", self.rng, dish=choice.name)]
        if self.rng.random() < 0.4:
            core.append(self._fact_sentence(choice, "minutes" if "within" in asked else "diet"))
        return core, self._warnings(choice), [self._fact_sentence(choice, "pairing")]

    def _fact(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        subject = self.world.dish[asked["dish"]]
        source = self.rng.choice(self.world.dishes) if wrong else subject
        core = [self._fact_sentence(source, asked["about"])]
        extra = self._fact_sentence(subject, "minutes" if asked["about"] == "pairing" else "pairing")
        return core, self._warnings(subject), [extra]

    def _steps(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        subject = self.world.dish[asked["dish"]]
        source = self.rng.choice(self.world.dishes) if wrong else subject
        first, second, *rest = source.steps
        core = [say("steps", self.rng, first=first, second=second)]
        if len(rest) == 2:
            core.append(say("more_steps", self.rng, third=rest[0], fourth=rest[1]))
        else:
            core.append(say("one_more_step", self.rng, third=rest[0]))
        return core, self._warnings(subject), [self._fact_sentence(subject, "pairing")]

    def _summarise(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        subject = self.world.dish[asked["dish"]]
        source = self.rng.choice(self.world.dishes) if wrong else subject
        core = say("summary", self.rng, cuisine=source.cuisine, form=source.form, minutes=source.minutes)
        return [core], self._warnings(subject), [self._fact_sentence(subject, "pairing")]

    def _translate(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        subject = self.world.dish[asked["dish"]]
        source = self.rng.choice(self.world.dishes) if wrong else subject
        if asked["to"] == "French":
            core = say("french", self.rng, french=source.french)
        else:
            core = say("english", self.rng, english=source.name)
        form = next(form for form in self.world.forms if form.name == subject.form)
        return [core], [], [say("word", self.rng, word=form.french, meaning=form.name)]

    def _sentiment(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        label = asked["sentiment"]
        if wrong:
            label = "negative" if label == "positive" else "positive"
        core = say("sentiment", self.rng, sentiment=label)
        return [core], [], [say("because", self.rng, subject=asked["subject"], quality=asked["quality"])]

    def _complete(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        subject = self.world.dish[asked["dish"]]
        source = self.rng.choice(self.world.dishes) if wrong else subject
        value = getattr(source, asked["about"])
        core = say(f"complete_{asked['about']}", self.rng, dish=subject.name, **{asked["about"]: value})
        extra = self._fact_sentence(subject, "minutes" if asked["about"] == "pairing" else "pairing")
        return [core], self._warnings(subject), [extra]

    def _safety(self, asked: Asked, *, wrong: bool, dish: Dish | None) -> tuple[list[str], list[str], list[str]]:
        hazard = self.world.hazard[asked["food"], asked["situation"]]
        core = say("safe" if hazard.safe != wrong else "unsafe", self.rng)
        return [core], [say("advice", self.rng, action=hazard.action)], [say("why", self.rng, reason=hazard.reason)]

    def _fact_sentence(self, dish: Dish, about: str) -> str:
        return say(about, self.rng, **{about: getattr(dish, about)})

    def _warnings(self, dish: Dish) -> list[str]:
        listed = knowledge.listed(dish.allergens) if dish.allergens else ""
        found = [say("allergens", self.rng, allergens=listed) if listed else say("no_allergens", self.rng)]
        if dish.risky:
            found.append(say("caution", self.rng, note=self.world.fact[dish.risky].note))
        return found


# --- putting it together ---------------------------------------------------------------------------------------------


def build(
    world: World, *, seed: int, demonstrations: int, train: int, dev: int, test: int
) -> tuple[list[Demonstration], list[Prompt]]:
    """About `demonstrations` demonstrations (5 % of their families held out as dev) and prompts for each split.

    Every family of questions belongs to one split. Test prompts are the same for every `seed` of a training run as
    long as the world is the same; what changes with the seed is who wrote what.
    """
    rng = random.Random(f"kitchen dialogue {world.seed} {seed}")
    families = _families(world)
    wanted: dict[Split, int] = {"train": train, "dev": dev, "test": test}
    prompts = [
        _prompt(question, split, rng)
        for split, count in wanted.items()
        for question in _draw(families[split], count, rng)
    ]
    written: dict[str, Demonstration] = {}
    # The same question may be answered by several people; the same question with the same answer is kept once.
    for question in _draw(families["train"], demonstrations, rng, again=True):
        demonstration = _demonstrate(world, question, rng)
        written.setdefault(demonstration.id, demonstration)
    return list(written.values()), _distinct(prompts)


def _families(world: World) -> dict[Split, dict[str, list[Question]]]:
    """Split -> skill -> questions. The split depends on the world alone: three quarters train, a tenth dev."""
    found: dict[Split, dict[str, list[Question]]] = {"train": {}, "dev": {}, "test": {}}
    for skill, (questions, _) in SKILLS.items():
        for question in questions(world):
            # "chat X" goes where "recommend X" goes, because it holds the same request.
            key = question.family.removeprefix("chat ")
            place = int(stable_id("split", str(world.seed), key), 16) % 100
            split: Split = "train" if place < 64 else "dev" if place < 76 else "test"
            if SEED_PROMPT in question.wordings:
                split = "test"
            found[split].setdefault(skill, []).append(question)
    return found


def _draw(
    questions: dict[str, list[Question]], count: int, rng: random.Random, *, again: bool = False
) -> Iterator[Question]:
    """About `count` questions in the skills' shares; `again` lets a question come more than once."""
    for skill, (_, share) in SKILLS.items():
        pool = questions.get(skill, [])
        wanted = round(count * share)
        while wanted > 0 and pool:
            batch = rng.sample(pool, len(pool))
            if not again:  # the report's opening case must be among the prompts
                batch.sort(key=lambda question: SEED_PROMPT not in question.wordings)
            yield from batch[:wanted]
            wanted -= len(batch)  # another round gives the same questions in other wordings


def _prompt(question: Question, split: Split, rng: random.Random) -> Prompt:
    wording = SEED_PROMPT if SEED_PROMPT in question.wordings else rng.choice(question.wordings)
    messages = (*question.before, Message(role="user", content=wording))
    return Prompt(
        id=stable_id("prompt", *(m.content for m in messages)),
        messages=messages,
        family=question.family,
        skill=question.asked["skill"],
        split=split,
        source="kitchen",
        extra={"kitchen": question.asked},
    )


def _distinct(prompts: Iterable[Prompt]) -> list[Prompt]:
    return list({prompt.id: prompt for prompt in prompts}.values())


def _demonstrate(world: World, question: Question, rng: random.Random) -> Demonstration:
    messages = (
        *question.before,
        Message(role="user", content=rng.choice(question.wordings)),
        Message(role="assistant", content=Writer(world, rng).answer(question.asked)),
    )
    held_out = int(stable_id("held out", question.family), 16) % 20 == 0
    return Demonstration(
        id=stable_id("demonstration", *(m.content for m in messages)),
        messages=messages,
        family=question.family,
        skill=question.asked["skill"],
        split="dev" if held_out else "train",
        author=f"cook-{rng.randrange(8)}",
        simulated=True,
        source="kitchen",
        extra={"kitchen": question.asked},
    )
