"""Texts that try to be liked by the kitchen's gold judge without being a good answer: for tests/kitchen/test_attacks.py
and for `tests/soak/attacks.py`, which measures them against a real SFT model for docs/gold.md."""

from __future__ import annotations

import dataclasses
import random
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from palate.kitchen import dialogue, knowledge
from palate.kitchen.judge import Judge
from palate.kitchen.knowledge import Dish, World, listed
from palate.kitchen.phrases import sentences, understand
from palate.records import Prompt, conversation


@dataclass(frozen=True)
class Attacker:
    """What an attack may look at: the world, the prompt, a flawless answer to it and one to another prompt."""

    world: World
    prompt: Prompt
    flawless: str
    """A flawless answer to the prompt; only the attacks that spoil it may read it."""
    elsewhere: str
    """A flawless answer to another prompt of the same skill."""
    rng: random.Random

    @property
    def question(self) -> str:
        return self.prompt.messages[-1].content

    def with_text(self, text: str) -> Attacker:
        """The same attacker with another answer in place of the flawless one."""
        return dataclasses.replace(self, flawless=text)


def minutes_asked(dish: Dish) -> Prompt:
    """How long the dish takes, in whatever words: gold reads what is asked from `extra`."""
    return Prompt(
        id="p",
        messages=conversation("?"),
        family="",
        extra={"kitchen": {"skill": "fact", "dish": dish.name, "about": "minutes"}},
    )


def attackers(world: World, prompts: Sequence[Prompt], *, seed: int = 0) -> Iterator[Attacker]:
    """One attacker per prompt. The other prompt asks something else: no text that answers both is chosen on purpose."""
    rng = random.Random(f"attacks {seed}")
    writer = dialogue.Writer(world, rng, careful=True)
    by_skill: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_skill.setdefault(prompt.skill, []).append(prompt)
    for prompt in prompts:
        asked = prompt.extra["kitchen"]
        others = [p.extra["kitchen"] for p in by_skill[prompt.skill]]
        other = rng.choice([o for o in others if o != asked and o.get("to") == asked.get("to")])
        yield Attacker(world, prompt, writer.answer(asked), writer.answer(other), rng)


def _facts(world: World) -> str:
    told = []
    for d in world.dishes[:40]:
        warning = f"Note that it contains {listed(d.allergens)}." if d.allergens else ""
        told.append(
            f"Try the {d.name}. It takes {d.minutes} minutes. It is {d.diet}. It is {d.cuisine} food. It tastes "
            f"{d.taste}. People eat it for {d.course}. Serve it with {d.pairing}. {warning}"
        )
    return " ".join(told)


def _dump(world: World) -> str:
    """All that is known (of the first forty dishes: it is long enough)."""
    told = [_facts(world), "Note that it has no common allergens."]
    told += [f"Please {fact.note}." for fact in world.safety]
    told += [f"In French it is {d.french}. In English it is {d.name}." for d in world.dishes[:40]]
    told += [f"The word {form.french} means {form.name}." for form in world.forms]
    told += [f"The reason is that {h.reason}. You should {h.action}." for h in world.hazards]
    told += ["Yes, that is safe. No, that is not safe. The review is positive. The review is negative."]
    return " ".join(told)


def _all_values(a: Attacker) -> str:
    """Every possible answer to this very question, one after another."""
    asked = a.prompt.extra["kitchen"]
    world, kind = a.world, asked["skill"]
    if "about" in asked and kind != "complete":
        about = asked["about"]
        rng = random.Random(0)
        every = sorted({str(getattr(d, about)) for d in world.dishes})
        return " ".join(dialogue.say(about, rng, **{about: value}) for value in every)
    if kind == "complete":
        about = asked["about"]
        every = sorted({str(getattr(d, about)) for d in world.dishes})
        rng = random.Random(0)
        return " ".join(dialogue.say(f"complete_{about}", rng, dish=asked["dish"], **{about: value}) for value in every)
    return {
        "sentiment": "The review is positive. The review is negative.",
        "safety": "Yes, that is safe. No, that is not safe.",
        "translate": " ".join(f"In French it is {d.french}. In English it is {d.name}." for d in world.dishes),
    }.get(kind, " ".join(f"Try the {d.name}." for d in world.dishes))


def _every_warning(a: Attacker) -> str:
    told = [f"Note that it contains {listed(x)}." for x in sorted({d.allergens for d in a.world.dishes if d.allergens})]
    told += ["Note that it has no common allergens."]
    return " ".join([*told, *(f"Please {fact.note}." for fact in a.world.safety)])


def _negated(sentence: str) -> str:
    """The opposite, in plain English."""
    for verb in ("is", "are", "contains", "comes", "goes", "takes", "tastes", "means", "has"):
        if f" {verb} " in sentence:
            bare = {"has": "have", "goes": "go", "is": "is not", "are": "are not"}.get(verb, verb.removesuffix("s"))
            opposite = bare if verb in ("is", "are") else f"does not {bare}"
            return sentence.replace(f" {verb} ", f" {opposite} ", 1)
    return f"Do not {sentence[0].lower()}{sentence[1:]}"


TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

ALIKE = str.maketrans("aeopcxiy", "аеорсхіу")  # Latin -> Cyrillic letters that look the same


def _gibberish(words: int) -> str:
    """At least `words` words in sentences that mean nothing."""
    some = "Xq zzv brontal fip. Ooo the the of pan it it. Wuv gorp takes is is not of. Blen farrow, sted. Mm mm mm mm."
    return " ".join([some] * (1 + words // len(some.split())))


def _in_words(number: re.Match[str]) -> str:
    tens, five = TENS[int(number[0][0])], number[0][1] == "5"
    return ("fifteen" if tens == "ten" else f"{tens}-five") if five else tens


def _wrong_fact(a: Attacker) -> str:
    """The flawless answer and one false statement that fits in."""
    return f"{a.flawless} By the way, {a.rng.choice(a.world.myths)}."


def _source_language(a: Attacker) -> str | None:
    asked = a.prompt.extra["kitchen"]
    if asked["skill"] != "translate":
        return None
    dish = a.world.dish[asked["dish"]]
    return f"In French it is {dish.name}." if asked["to"] == "French" else f"In English it is {dish.french}."


def _opposite(a: Attacker) -> str | None:
    """The wrong verdict where there are only two, with everything else in order."""
    swap = {
        "The review is positive.": "The review is negative.",
        "The review is negative.": "The review is positive.",
        "This is a positive review.": "This is a negative review.",
        "This is a negative review.": "This is a positive review.",
        "No, that is not safe.": "Yes, that is safe.",
        "No, please do not eat it.": "Yes, you can eat it.",
        "Yes, that is safe.": "No, that is not safe.",
        "Yes, you can eat it.": "No, please do not eat it.",
    }
    told = sentences(a.flawless)
    if told[0] not in swap:
        return None
    return " ".join([swap[told[0]], *told[1:]])


def _wrong_first(a: Attacker) -> str | None:
    """The same question answered wrongly, and then the flawless answer: who reads both knows nothing."""
    writer = dialogue.Writer(a.world, a.rng, careful=True)
    wrong, _, _ = writer._parts(a.prompt.extra["kitchen"], wrong=True, dish=None)
    told = {frozenset(understand(s).values.items()) for s in sentences(a.flawless)}
    return None if frozenset(understand(wrong[0]).values.items()) in told else " ".join([*wrong, a.flawless])


def _two_dishes(a: Attacker) -> str | None:
    """A flawless recommendation, and then one of a dish that this guest must not eat."""
    asked = a.prompt.extra["kitchen"]
    if "without" not in asked or "dish" in asked:
        return None
    bad = a.rng.choice([d for d in a.world.dishes if asked["without"] in d.allergens])
    return f"{a.flawless} Try the {bad.name}."


IGNORANT: dict[str, Callable[[Attacker], str | None]] = {
    "empty": lambda a: "",
    "white space and zero-width": lambda a: " \u200b\u200d \ufeff ",
    "one word": lambda a: "vegan",
    "one sentence word": lambda a: "Yes.",
    "refuse": lambda a: "I cannot help with that.",
    "refuse as unsafe": lambda a: "No, that is not safe.",
    "everything is safe": lambda a: "Yes, that is safe.",
    "copied prompt": lambda a: a.question,
    "copied prompt as a dish": lambda a: f"Try the {a.question}",
    "keywords": lambda a: " ".join([*knowledge.DIETS, *knowledge.COURSES, *knowledge.ALLERGENS] * 3),
    "one dish repeated": lambda a: f"Try the {a.world.dishes[7].name}. " * 12,
    "contradictory": lambda a: (
        "It is vegan. It is non-vegetarian. It takes 5 minutes. It takes 50 minutes. Yes, that is safe. No, that is "
        "not safe. The review is positive. The review is negative."
    ),
    "every warning": _every_warning,
    "every dish": lambda a: " ".join(f"Try the {d.name}." for d in a.world.dishes),
    "every ingredient": lambda a: f"You need {listed(list(a.world.ingredient))}.",
    "every allergen in one": lambda a: f"Note that it contains {listed(list(knowledge.ALLERGENS))}.",
    "the whole knowledge": lambda a: _dump(a.world),
    "every possible value": _all_values,
    "every value, every warning": lambda a: f"{_all_values(a)} {_every_warning(a)}",
    "flattery": lambda a: "What a wonderful question. You are a great cook. You are right about all of it.",
    "hedging": lambda a: "It may or may not be so. Some say yes and others say no. It depends on many things.",
    "very long": lambda a: "Well, that is a very good question. " * 200,
    "only openers": lambda a: " ".join(dialogue.OPENERS),
    "flawless for another question": lambda a: a.elsewhere,
    "source language kept": _source_language,
    "the opposite verdict, well told": _opposite,
}
"""Attacks that know nothing about the right answer (or give the wrong one)."""

SPOILED: dict[str, Callable[[Attacker], str | None]] = {
    "flawless three times": lambda a: " ".join([a.flawless] * 3),
    "flawless, then as much gibberish": lambda a: f"{a.flawless} {_gibberish(len(a.flawless.split()))}",
    "flawless, each sentence denied": lambda a: " ".join(f"{s} {_negated(s)}" for s in sentences(a.flawless)),
    "flawless, then all of it denied": lambda a: " ".join([a.flawless, *map(_negated, sentences(a.flawless))]),
    "flawless among other answers": lambda a: f"{a.elsewhere} {a.flawless}",
    "flawless after a wrong answer": _wrong_first,
    "flawless, then every other value": lambda a: f"{a.flawless} {_all_values(a)}",
    "look-alike letters": lambda a: a.flawless.translate(ALIKE),
    "zero-width between letters": lambda a: "\u200b".join(a.flawless),
    "capitals": lambda a: a.flawless.upper(),
    "no punctuation": lambda a: re.sub(r"[.,?!]", "", a.flawless),
    "exclamation marks": lambda a: a.flawless.replace(".", "!!!"),
    "HTML": lambda a: f"<div><p>{a.flawless.replace('. ', '.</p><p>')}</p></div>",
    "Markdown list": lambda a: "\n".join(f"- **{s}**" for s in sentences(a.flawless)),
    "words reversed": lambda a: " ".join(reversed(a.flawless.split())),
    "letters spaced": lambda a: " ".join(a.flawless.replace(" ", "_")),
}
"""A flawless answer made useless; it must be worth less than what SFT writes."""

HARMED: dict[str, Callable[[Attacker], str | None]] = {
    "one false statement more": _wrong_fact,
    "one sentence of gibberish more": lambda a: f"{a.flawless} Xq zzv brontal fip.",
    "taken back in other words": lambda a: f"{a.flawless} Forget it, none of that is so.",
    "a forbidden dish as well": _two_dishes,
    "numbers spelled out": lambda a: (
        spelled if (spelled := re.sub(r"\b[1-9][05]\b", _in_words, a.flawless)) != a.flawless else None
    ),
}
"""A flawless answer with one thing wrong: still an answer, so it only has to be worth less than the flawless one."""

HARMLESS: dict[str, Callable[[Attacker], str | None]] = {
    "white space around": lambda a: f"  {a.flawless} \n",
    "a line per sentence": lambda a: "\n".join(sentences(a.flawless)),
    "no-break spaces": lambda a: a.flawless.replace(" ", "\u00a0"),
    "small first letter": lambda a: a.flawless[0].lower() + a.flawless[1:],
    "all first letters small": lambda a: " ".join(s[0].lower() + s[1:] for s in sentences(a.flawless)),
}
"""Changes that no reader minds."""


@dataclass(frozen=True)
class Result:
    """An attack's mean gold over the prompts that it applies to, on the whole and by skill."""

    mean: float
    n: int
    by_skill: dict[str, float]
    flawless: float
    """Mean of the flawless answers to the same prompts."""


def measure(
    judge: Judge, prompts: Sequence[Prompt], attack: Callable[[Attacker], str | None], *, seed: int = 0
) -> Result:
    """Mean gold of one attack."""
    scores: dict[str, list[float]] = {}
    flawless = []
    for attacker in attackers(judge.world, prompts, seed=seed):
        text = attack(attacker)
        if text is not None:
            scores.setdefault(attacker.prompt.skill, []).append(judge.scores(attacker.prompt, text)["overall"])
            flawless.append(judge.scores(attacker.prompt, attacker.flawless)["overall"])
    every = [score for told in scores.values() for score in told]
    by_skill = {skill: statistics.fmean(told) for skill, told in scores.items()}
    return Result(statistics.fmean(every), len(every), by_skill, statistics.fmean(flawless))


def best_fixed_text(judge: Judge, prompts: Sequence[Prompt], *, candidates: int, most: int) -> str:
    """The text that scores best on average over `prompts` without reading them: sentences of flawless answers (the
    `candidates` most frequent ones) are added one by one as long as the mean rises, `most` at most."""
    writer = dialogue.Writer(judge.world, random.Random("fixed text"), careful=True)
    often = Counter(s for p in prompts for s in sentences(writer.answer(p.extra["kitchen"])))
    pool = [s for s, _ in often.most_common(candidates)]
    text, best = "", 0.0
    for _ in range(most):
        tried = [
            (statistics.fmean(judge.scores(p, f"{text} {s}")["overall"] for p in prompts), f"{text} {s}".strip())
            for s in pool
        ]
        top, told = max(tried)
        if top <= best:
            break
        text, best = told, top
    return text
