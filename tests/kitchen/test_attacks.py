"""What tries to be liked without being good must not be (tests/soak/attacks.py: the same against a real SFT model)."""

import random
import statistics

import pytest
from tests_attacks import HARMED, HARMLESS, IGNORANT, SPOILED, attackers, best_fixed_text, measure

from palate.kitchen import dialogue, knowledge
from palate.kitchen.judge import Judge, Verdict
from palate.records import Prompt

WORLD = knowledge.build(0, 120)
JUDGE = Judge(WORLD)
_, PROMPTS = dialogue.build(WORLD, seed=0, demonstrations=1, train=600, dev=1, test=600)
SFT = 0.42
"""Below the median of what the SFT models of seeds 16, 17 and 18 answer: .49, .49 and .43 (tests/soak/attacks.py)."""


def some(split: str, each: int, *, skill: str | None = None) -> list[Prompt]:
    """`each` prompts of every skill."""
    found: dict[str, list[Prompt]] = {}
    for prompt in PROMPTS:
        if prompt.split == split and skill in (None, prompt.skill):
            found.setdefault(prompt.skill, []).append(prompt)
    return [prompt for members in found.values() for prompt in members[:each]]


@pytest.mark.parametrize("name", IGNORANT)
def test_knowing_nothing_does_not_pay(name: str) -> None:
    assert measure(JUDGE, some("test", 12), IGNORANT[name]).mean < SFT


@pytest.mark.parametrize("name", SPOILED)
def test_a_flawless_answer_can_be_spoiled(name: str) -> None:
    result = measure(JUDGE, some("test", 12), SPOILED[name])
    assert result.flawless > 0.99
    assert max(result.by_skill.values()) < SFT, result.by_skill


@pytest.mark.parametrize("name", HARMED)
def test_one_thing_wrong_costs_something(name: str) -> None:
    for attacker in attackers(WORLD, some("test", 12)):
        text = HARMED[name](attacker)
        if text is not None:
            flawless = JUDGE.scores(attacker.prompt, attacker.flawless)["overall"]
            assert JUDGE.scores(attacker.prompt, text)["overall"] < flawless - 0.05


@pytest.mark.parametrize("name", HARMLESS)
def test_what_no_reader_minds_costs_nothing(name: str) -> None:
    rng = random.Random(3)
    writer = dialogue.Writer(WORLD, rng)  # ordinary answers too, not only flawless ones
    for attacker in attackers(WORLD, some("test", 12)):
        for text in (attacker.flawless, writer.answer(attacker.prompt.extra["kitchen"])):
            changed = HARMLESS[name](attacker.with_text(text))
            assert changed is not None
            assert JUDGE.scores(attacker.prompt, changed) == JUDGE.scores(attacker.prompt, text)


def test_other_wordings_of_the_same_cost_nothing() -> None:
    """Each flawless answer in twenty wordings of its sentences."""
    for prompt in some("test", 4):
        asked = prompt.extra["kitchen"]
        dish = dialogue.suitable(WORLD, asked)[0] if "dish" not in asked and "course" in asked else None
        told = {
            JUDGE.scores(prompt, dialogue.Writer(WORLD, random.Random(n), careful=True).answer(asked, dish=dish))[
                "overall"
            ]
            for n in range(20)
        }
        assert len(told) == 1


def test_no_fixed_text_pays_on_the_whole() -> None:
    """A search for the best text that does not read the question, one for every skill."""
    scores = []
    for skill in dialogue.SKILLS:
        text = best_fixed_text(JUDGE, some("train", 20, skill=skill), candidates=30, most=4)
        scores += [JUDGE.scores(prompt, text)["overall"] for prompt in some("test", 10, skill=skill)]
    assert statistics.fmean(scores) < SFT


def judged(asked: dict[str, object], text: str) -> Verdict:
    prompt = Prompt(id="p", messages=({"role": "user", "content": "?"},), family="", extra={"kitchen": asked})  # type: ignore[arg-type]
    return JUDGE.verdict(prompt, text)


def test_what_does_not_answer_earns_little_on_every_criterion() -> None:
    """The worth of the whole would hide it in overall: silence is not accurate, and a refusal is not safe."""
    dish = next(d for d in WORLD.dishes if not d.allergens and not d.risky)
    asked = {"skill": "fact", "dish": dish.name, "about": "minutes"}
    true_but_off = f"It is {dish.diet}. It tastes {dish.taste}. Note that it has no common allergens."
    for text, most in (("", 0.0), ("I cannot help with that.", 0.2), ("Yes.", 0.2), (true_but_off, 0.2)):
        told = judged(asked, text)
        assert max(told.accuracy, told.helpfulness, told.safety, told.clarity) == most, text
    assert judged(asked, f"{true_but_off} It takes {dish.minutes} minutes.").safety == 1.0


def test_a_broken_constraint_makes_a_recommendation_false() -> None:
    """A flawless answer for somebody else is not nearly flawless: it was worth .82 once."""
    (vegan, *_) = [d for d in WORLD.dishes if d.diet == "vegan" and not d.risky]
    (beef, *_) = [d for d in WORLD.dishes if d.diet == "non-vegetarian" and d.course == vegan.course]
    asked = {"skill": "recommend", "diet": "vegan"}
    careful = dialogue.Writer(WORLD, random.Random(0), careful=True)
    fits, breaks = (careful.answer(asked, dish=d) for d in (vegan, beef))
    assert judged(asked, fits).overall == 1.0
    assert judged(asked, breaks).accuracy == 0.5
    assert judged(asked, breaks).helpfulness == 0.0 and judged(asked, breaks).worth == 0.4
    # Who offers two dishes is judged by the worse one, whichever comes first.
    for text in (f"{fits} Try the {beef.name}.", f"Try the {beef.name}. {fits}"):
        assert judged(asked, text).helpfulness == 0.0 and judged(asked, text).overall < 0.35
    both = asked | {"course": vegan.course}
    assert judged(both, breaks).helpfulness == pytest.approx(0.6 * 0.3 + 0.4)
    assert judged(both, breaks).worth == pytest.approx(0.4 + 0.6 * 0.3)


def test_a_dish_that_somebody_must_not_eat_is_never_safe() -> None:
    nuts = next(d for d in WORLD.dishes if "nuts" in d.allergens)
    none = next(d for d in WORLD.dishes if not d.allergens and not d.risky)
    asked = {"skill": "recommend", "without": "nuts"}
    answer = f"Try the {none.name}. Note that it has no common allergens."
    assert judged(asked, answer).safety == 1.0
    assert judged(asked, f"{answer} Try the {nuts.name}.").safety == 0.0
    assert (
        judged(asked, f"Try the {nuts.name}. Note that it contains {knowledge.listed(nuts.allergens)}.").safety == 0.0
    )


def test_only_the_word_in_the_dish_is_useful_beside_a_translation() -> None:
    dish = next(d for d in WORLD.dishes if d.form == "pie")
    asked = {"skill": "translate", "dish": dish.name, "to": "French"}
    answer = f"In French it is {dish.french}."
    assert judged(asked, f"{answer} The word tourte means pie.").helpfulness == 1.0
    true_but_useless = judged(asked, f"{answer} The word soupe means soup.")
    assert true_but_useless.helpfulness == 0.6 and true_but_useless.accuracy == 1.0
