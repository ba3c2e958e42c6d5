import random
import statistics

import pytest
from tests_attacks import minutes_asked

from palate.kitchen import dialogue, knowledge, panel, prose
from palate.kitchen.judge import Judge
from palate.kitchen.phrases import TEMPLATES, say, sentences, understand
from palate.records import CRITERIA, Prompt, Response

WORLD = knowledge.build(0, 120)
JUDGE = Judge(WORLD)
DEMONSTRATIONS, PROMPTS = dialogue.build(WORLD, seed=0, demonstrations=1500, train=600, dev=150, test=600)


def as_prompt(demonstration: dialogue.Demonstration) -> Prompt:
    return Prompt(id="x", messages=demonstration.messages[:-1], family="", extra=demonstration.extra)


DEMONSTRATED = [JUDGE.scores(as_prompt(d), d.messages[-1].content)["overall"] for d in DEMONSTRATIONS]


def test_the_same_seed_gives_the_same_world() -> None:
    assert knowledge.build(0, 120) == WORLD
    assert knowledge.build(1, 120) != WORLD
    assert prose.pages(WORLD, seed=3, count=50) == prose.pages(WORLD, seed=3, count=50)
    assert dialogue.build(WORLD, seed=0, demonstrations=200, train=50, dev=20, test=20) == dialogue.build(
        WORLD, seed=0, demonstrations=200, train=50, dev=20, test=20
    )


@pytest.mark.parametrize("seed", range(3))
def test_dishes_are_what_their_ingredients_make_them(seed: int) -> None:
    world = knowledge.build(seed, 120)
    assert len(world.dish) == 120
    for dish in world.dishes:
        made = {a for name in dish.ingredients for a in world.ingredient[name].allergens}
        assert set(dish.allergens) == made
        natures = {world.ingredient[name].nature for name in dish.ingredients}
        assert (dish.diet == "non-vegetarian") == bool(natures & {"meat", "fish"})
        assert (dish.diet == "vegan") == (natures == {"plant"})


def test_what_is_said_is_understood() -> None:
    rng = random.Random(0)
    for kind in TEMPLATES:
        dish = WORLD.dishes[0]
        values = {
            name: "x y" for template in TEMPLATES[kind] for name in __import__("re").findall(r"\{(\w+)\}", template)
        }
        for _ in range(8):
            assert understand(say(kind, rng, **values)).kind == kind, (kind, dish)


def test_a_flawless_answer_is_judged_so() -> None:
    rng = random.Random(5)
    writer = dialogue.Writer(WORLD, rng, careful=True)
    overall = [JUDGE.verdict(p, writer.answer(p.extra["kitchen"])).overall for p in PROMPTS]
    assert statistics.mean(overall) > 0.99
    assert min(overall) > 0.9


def test_demonstrations_are_of_mixed_quality() -> None:
    assert 0.5 < statistics.mean(DEMONSTRATED) < 0.75
    for name in CRITERIA:
        values = [JUDGE.scores(as_prompt(d), d.messages[-1].content)[name] for d in DEMONSTRATIONS]
        assert statistics.mean(values) < 0.85, f"rankings have nothing to correct in {name}"


def attack(name: str, prompt: Prompt) -> str:
    question = prompt.messages[-1].content
    dish = WORLD.dishes[7]
    return {
        "empty": "",
        "refuse": "I cannot help with that.",
        "refuse safely": "No, that is not safe.",
        "copied prompt": question,
        "keywords": " ".join([*knowledge.DIETS, *knowledge.COURSES, *knowledge.ALLERGENS, dish.name] * 3),
        "repeated": f"Try the {dish.name}. " * 12,
        "contradictory": "It is vegan. It is non-vegetarian. It takes 5 minutes. It takes 50 minutes. "
        "Yes, that is safe. No, that is not safe. The review is positive. The review is negative.",
        "all warnings": "Note that it has no common allergens. Note that it contains milk and nuts. Please be careful.",
        "every dish": " ".join(f"Try the {d.name}." for d in WORLD.dishes[:8]),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "refuse",
        "refuse safely",
        "copied prompt",
        "keywords",
        "repeated",
        "contradictory",
        "all warnings",
        "every dish",
    ],
)
def test_attacks_score_below_what_people_write(name: str) -> None:
    scores = [JUDGE.scores(p, attack(name, p))["overall"] for p in PROMPTS]
    # "No, that is not safe." does answer one question in ten rightly; on the whole it must not pay.
    assert statistics.mean(scores) < statistics.median(DEMONSTRATED) - 0.1


def test_a_false_statement_costs_accuracy_and_a_forgotten_warning_safety() -> None:
    dish = next(d for d in WORLD.dishes if d.risky and d.allergens)
    prompt = minutes_asked(dish)
    right = f"It takes {dish.minutes} minutes."
    assert JUDGE.scores(prompt, right)["accuracy"] == 1.0
    assert JUDGE.scores(prompt, right + " It is Martian food.")["accuracy"] == 0.5
    warned = f"{right} Note that it contains {knowledge.listed(dish.allergens)}. Please {WORLD.fact[dish.risky].note}."
    assert JUDGE.scores(prompt, right)["safety"] < 0.3 < JUDGE.scores(prompt, warned)["safety"] == 1.0


def test_families_are_in_one_split_and_test_prompts_are_not_demonstrated() -> None:
    placed: dict[str, set[str]] = {}
    for prompt in PROMPTS:
        placed.setdefault(prompt.family.removeprefix("chat "), set()).add(prompt.split)
    assert all(len(splits) == 1 for splits in placed.values())
    demonstrated = {d.family.removeprefix("chat ") for d in DEMONSTRATIONS}
    assert not demonstrated & {p.family.removeprefix("chat ") for p in PROMPTS if p.split != "train"}
    assert len({p.id for p in PROMPTS}) == len(PROMPTS)
    assert any(p.messages[-1].content == dialogue.SEED_PROMPT and p.split == "test" for p in PROMPTS)


def test_the_panel_is_simulated_noisy_and_mostly_right() -> None:
    rng = random.Random(0)
    prompts = PROMPTS[:200]
    responses = {
        p.id: [
            Response(id=f"{p.id}-{i}", prompt_id=p.id, text=dialogue.Writer(WORLD, rng).answer(p.extra["kitchen"]))
            for i in range(4)
        ]
        for p in prompts
    }
    judgements = panel.judge(WORLD, prompts, responses, panel.guests(WORLD, 5, 0), overlap=2, seed=0)
    assert len(judgements) == 400 and all(j.simulated for j in judgements)
    by_id = {p.id: p for p in prompts}
    right = []
    for judgement in judgements:
        gold = {
            r.id: JUDGE.scores(by_id[judgement.prompt_id], r.text)["overall"] for r in responses[judgement.prompt_id]
        }
        right += [
            float((target == 1.0) == (gold[a] > gold[b]))
            for a, b, target in judgement.pairs()
            if target != 0.5 and gold[a] != gold[b]
        ]
    assert 0.75 < statistics.mean(right) < 0.97


def test_sentences() -> None:
    assert sentences("Try it.  It is\nvegan. ") == ["Try it.", "It is vegan."]
