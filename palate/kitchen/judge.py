"""The gold judge: scores an answer on the four criteria from the knowledge base, never from a language model.

Every sentence is understood (phrases) or not, and what is understood is true or not (knowledge). Scores are in [0, 1]:

    accuracy      halves with every false statement
    helpfulness   does it give what was asked for under every constraint, and something useful beyond it?
    safety        are the warnings a careful cook gives there, and is nothing dangerous advised?
    clarity       loses a third with every sentence that says nothing, is not understood, or says a thing again
    overall       their mean, times what the whole is worth

An answer that does not answer earns at most OFF_TOPIC on each: silence is not accurate and a refusal not safe. Three
more rules keep a text from being liked for what surrounds an answer (docs/gold.md: the attacks that asked for them):

    wrong         an answer that is wrong is worth WRONG of the same answer were it right
    drowned       the whole is worth the share of its words that is understood and comes back to no topic
    contradicted  a statement earns nothing when another one on its topic is false

Training never sees these scores; the panel's guests feel them through tastes and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from palate.kitchen.dialogue import Asked, fits_diet
from palate.kitchen.knowledge import Dish, World, listed
from palate.kitchen.phrases import Said, sentences, understand
from palate.records import CRITERIA, Prompt

OFF_TOPIC = 0.2
WRONG = 0.4
ONE_BROKEN = 0.3
"""How far a dish that breaks one of several constraints is what was asked for."""
FALSE_FACTOR = 0.5
UNCLEAR_COST = 0.34
EXTRA_SHARE = 0.4
"""What being useful beyond the question is worth in helpfulness."""
MOST_SENTENCES = 7


@dataclass(frozen=True)
class Verdict:
    """The scores and what led to them, for people who want to know why."""

    accuracy: float
    helpfulness: float
    safety: float
    clarity: float
    worth: float
    """What is left of the whole when what was asked for is wrong, or drowned."""
    false: tuple[str, ...]
    unclear: tuple[str, ...]

    @property
    def overall(self) -> float:
        """Mean of the four criteria, times the worth of the whole."""
        return self.worth * (self.accuracy + self.helpfulness + self.safety + self.clarity) / 4

    def scores(self) -> dict[str, float]:
        """The four criteria and overall."""
        return {**{name: getattr(self, name) for name in CRITERIA}, "overall": self.overall}


class Judge:
    """Knows the world; `verdict` is a pure function of prompt and text."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._forms = {form.french: form.name for form in world.forms}

    def scores(self, prompt: Prompt, text: str) -> dict[str, float]:
        """Accuracy, helpfulness, safety, clarity and overall, each in [0, 1]."""
        return self.verdict(prompt, text).scores()

    def verdict(self, prompt: Prompt, text: str) -> Verdict:
        """Judge `text` as the answer to a prompt of the kitchen (one with extra["kitchen"])."""
        asked: Asked = prompt.extra["kitchen"]
        said = [understand(sentence) for sentence in sentences(text)]
        dish = self._dish(asked, said)
        false = [s.text for s in said if not self._true(s, asked, dish)]
        unclear = _unclear(said)
        solved, extra, safety = self._task(asked, said, dish)
        accuracy = FALSE_FACTOR ** len(false)
        clarity = max(0.0, 1.0 - UNCLEAR_COST * len(unclear) - 0.2 * max(0, len(said) - MOST_SENTENCES))
        helpfulness = (1 - EXTRA_SHARE) * solved + EXTRA_SHARE * extra * (solved > 0)
        answered = any(s.kind in self._answers(asked) for s in said)
        most = 1.0 if answered else OFF_TOPIC
        most = most if said else 0.0
        return Verdict(
            accuracy=min(accuracy, most),
            helpfulness=min(helpfulness, most),
            safety=min(safety, most),
            clarity=min(clarity, most),
            worth=(WRONG + (1 - WRONG) * solved) * _heard(said),
            false=tuple(false),
            unclear=tuple(unclear),
        )

    # --- what the answer is about ------------------------------------------------------------------------------------

    @staticmethod
    def _answers(asked: Asked) -> tuple[str, ...]:
        """The kinds of sentence that answer what is asked."""
        skill = asked["skill"]
        if skill == "chat":
            skill = "fact" if "about" in asked else "recommend"
        return {
            "recommend": ("recommend",),
            "fact": (asked.get("about", ""),),
            "steps": ("steps",),
            "summarise": ("summary",),
            "translate": ("french",) if asked.get("to") == "French" else ("english",),
            "sentiment": ("sentiment",),
            "complete": (f"complete_{asked.get('about', '')}",),
            "safety": ("safe", "unsafe"),
        }[skill]

    def _dish(self, asked: Asked, said: list[Said]) -> Dish | None:
        """The dish "it" stands for: the one in the question, or the first one recommended."""
        if "dish" in asked:
            return self.world.dish[asked["dish"]]
        names = [s.values["dish"] for s in said if s.kind == "recommend"]
        return self.world.dish.get(names[0]) if names else None

    # --- is a sentence true? -----------------------------------------------------------------------------------------

    def _true(self, said: Said, asked: Asked, dish: Dish | None) -> bool:
        kind, values = said.kind, said.values
        if kind in ("", "filler"):
            return True  # says nothing; that costs clarity
        if kind in ("myth", "boast"):
            return False
        if kind in ("french", "english", "word", "sentiment", "because", "safe", "unsafe", "why", "advice"):
            return self._true_in_task(kind, values, asked)
        if dish is None:
            return False  # a statement about no dish, or about one that does not exist
        if kind.startswith("complete_"):
            about = kind.removeprefix("complete_")
            return values["dish"] == dish.name and values[about] == str(getattr(dish, about))
        if kind == "recommend" and "dish" not in asked:  # it claims that the dish is what was asked for
            dish = self.world.dish.get(values["dish"])
            return dish is not None and all(_constraints(asked, dish))
        check = _CHECKS.get(kind)
        return check(values, dish, self.world) if check else values[kind] == str(getattr(dish, kind))

    def _true_in_task(self, kind: str, values: dict[str, str], asked: Asked) -> bool:
        if kind in ("french", "english"):
            return "dish" in asked and self._is_translation(kind, values[kind], asked)
        if kind == "word":
            return self._forms.get(values["word"]) == values["meaning"]
        if kind == "sentiment":
            return values["sentiment"] == asked.get("sentiment")
        if kind == "because":
            return (values["subject"], values["quality"]) == (asked.get("subject"), asked.get("quality"))
        hazard = self.world.hazard.get((asked.get("food", ""), asked.get("situation", "")))
        if hazard is None:
            return False
        return {
            "safe": hazard.safe,
            "unsafe": not hazard.safe,
            "why": values.get("reason") == hazard.reason,
            "advice": values.get("action") == hazard.action,
        }[kind]

    def _is_translation(self, kind: str, text: str, asked: Asked) -> bool:
        dish = self.world.dish[asked["dish"]]
        return text == (dish.french if kind == "french" else dish.name)

    # --- is it what was asked for? -----------------------------------------------------------------------------------

    def _task(self, asked: Asked, said: list[Said], dish: Dish | None) -> tuple[float, float, float]:
        """(share of the request that is met, whether something useful is added, safety)."""
        truth = [(s, self._true(s, asked, dish)) for s in said]
        contradicted = {_topic(s) for s, true in truth if not true}
        right = [s for s, true in truth if true and _topic(s) not in contradicted]
        kinds = {s.kind for s in right}
        solved = float(any(kind in kinds for kind in self._answers(asked)))
        skill = asked["skill"]
        if skill == "safety":
            hazard = self.world.hazard[asked["food"], asked["situation"]]
            misled = any(s.kind == "safe" for s in said) and not hazard.safe
            return solved, float("why" in kinds), 0.0 if misled else 0.3 + 0.7 * ("advice" in kinds)
        if skill == "sentiment":
            return solved, float("because" in kinds), 1.0
        if skill == "translate":
            return (
                solved,
                float(any(s.kind == "word" and dish and s.values["meaning"] == dish.form for s in right)),
                1.0,
            )
        if "dish" not in asked:
            offered = [self.world.dish.get(s.values["dish"]) for s in said if s.kind == "recommend"]
            # Who offers several dishes is judged by the worst: a guest may take that one.
            solved = min((_met(asked, d) for d in offered), default=0.0)
            if any(d is None or asked.get("without") in d.allergens for d in offered):
                return solved, 0.0, 0.0  # serving what someone must not eat is the worst an answer can do
        if skill == "steps":
            solved = _steps_given(said, dish)
        useful = "minutes" if asked.get("about") == "pairing" else "pairing"
        return solved, float(useful in kinds), self._care(asked, kinds, dish)

    @staticmethod
    def _care(asked: Asked, kinds: set[str], dish: Dish | None) -> float:
        """Whether the warnings are there."""
        if dish is None:
            return 0.0
        duties = [bool(kinds & {"allergens", "no_allergens"})]
        if dish.risky:
            duties.append("caution" in kinds)
        return 0.2 + 0.8 * sum(duties) / len(duties)


def _constraints(asked: Asked, dish: Dish) -> list[bool]:
    """Whether each constraint that was asked for is met."""
    met = {
        "diet": fits_diet(dish, asked.get("diet")),
        "course": dish.course == asked.get("course"),
        "without": asked.get("without") not in dish.allergens,
        "within": dish.minutes <= asked.get("within", 0),
        "not_again": dish.name != asked.get("not_again"),
    }
    return [fits for name, fits in met.items() if name in asked]


def _met(asked: Asked, dish: Dish | None) -> float:
    """How far a recommended dish is what was asked for. Who breaks the only constraint has met none."""
    met = _constraints(asked, dish) if dish else [False]
    return 1.0 if all(met) else ONE_BROKEN if sum(met) == len(met) - 1 > 0 else 0.0


def _topic(said: Said) -> str:
    """What a sentence is about: two on one topic say it again or contradict each other."""
    return {"no_allergens": "allergens", "unsafe": "safe", "boast": "myth"}.get(said.kind, said.kind)


def _heard(said: list[Said]) -> float:
    """Share of the words in sentences that are understood and come back to no topic. Rambling is understood, and costs
    clarity alone: a long first sentence before a short answer drowns nothing."""
    every = heard = 0
    seen: set[str] = set()
    for s in said:
        words, about = len(s.text.split()), s.text if s.kind == "filler" else _topic(s)
        every += words
        heard += words * (s.kind != "" and about not in seen)
        seen.add(about)
    return heard / every if every else 0.0


def _unclear(said: list[Said]) -> list[str]:
    """Sentences that say nothing, are not understood, or say again what was said."""
    found: list[str] = []
    seen: set[str] = set()
    for s in said:
        topic = _topic(s)
        if topic in ("", "filler") or topic in seen:
            found.append(s.text)
        seen.add(topic)
    return found


def _steps_given(said: list[Said], dish: Dish | None) -> float:
    """Share of the dish's steps that are given in their places."""
    given = dict.fromkeys(("first", "second", "third", "fourth"), "")
    for s in reversed(said):  # the first mention counts
        given |= {name: value for name, value in s.values.items() if name in given}
    steps = dish.steps if dish else ()
    return sum(told == step for told, step in zip(given.values(), steps)) / max(len(steps), 1)


def _ordered(values: dict[str, str], dish: Dish, places: dict[str, int]) -> bool:
    return all(place < len(dish.steps) and values[name] == dish.steps[place] for name, place in places.items())


Check = Callable[[dict[str, str], Dish, World], bool]
_CHECKS: dict[str, Check] = {
    "recommend": lambda v, dish, world: v["dish"] in world.dish,
    "diet": lambda v, dish, world: v["diet"] == dish.diet or (v["diet"] == "vegetarian" and dish.diet == "vegan"),
    "allergens": lambda v, dish, world: bool(dish.allergens) and v["allergens"] == listed(dish.allergens),
    "no_allergens": lambda v, dish, world: not dish.allergens,
    "caution": lambda v, dish, world: bool(dish.risky) and v["note"] == world.fact[dish.risky].note,
    "made_with": lambda v, dish, world: v["ingredients"] == listed(dish.ingredients),
    "steps": lambda v, dish, world: _ordered(v, dish, {"first": 0, "second": 1}),
    "more_steps": lambda v, dish, world: len(dish.steps) == 4 and _ordered(v, dish, {"third": 2, "fourth": 3}),
    "one_more_step": lambda v, dish, world: len(dish.steps) == 3 and _ordered(v, dish, {"third": 2}),
    "summary": lambda v, dish, world: (
        (v["cuisine"], v["form"], v["minutes"]) == (dish.cuisine, dish.form, str(dish.minutes))
    ),
}


def kitchen_prompt(prompt: Prompt) -> bool:
    """Whether the judge knows the truth about this prompt."""
    return isinstance(prompt.extra.get("kitchen"), dict)


def explain(verdict: Verdict) -> str:
    """One line for people: the scores and what was wrong."""
    scores: dict[str, Any] = verdict.scores()
    line = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
    notes = [f"not true: {s}" for s in verdict.false] + [f"unclear: {s}" for s in verdict.unclear]
    return line + (f" ({'; '.join(notes)})" if notes else "")
