"""`palate bench arithmetic`: whether PPO and GRPO climb when a right answer can be checked, on sums that a tiny model can
learn.

The data has GSM8K's shape (Cobbe et al. 2021): a question in words, an answer of one worked line that ends in "#### 42".
Every question is about a calculation of its own (23 + 45 and 45 + 23 are one), and the corpus that the base model reads
has all calculations but those, so what is asked on test was shown nowhere. A run of Palate's own stages makes the model:
a folder of text, a tokenizer, pretraining, SFT on few demonstrations, and then policies whose reward is the verifier's
alone ([scoring] learned = 0): no people, no rankings, no reward model.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from palate import flow, metrics
from palate import recipe as recipes
from palate.commands.bench import harness
from palate.metrics import say
from palate.recipe import Recipe
from palate.records import write_jsonl
from palate.scorers.verifier import MARK
from palate.workspace import Workspace

SEEDS = (1, 2, 3)
"""Reported. Sizes and constants were chosen on seeds 101 and 102."""
EDGE = 5
"""Rounds at either end of a training whose mean score is told."""

NAMES = ("Tom", "Ann", "Sam", "Eva", "Max", "Lea", "Ben", "Mia", "Jon", "Ida")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens", "shells", "stamps")
STORIES = {
    "+": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "{name} finds {a} {things} in a box and {b} in a bag. How many {things} is that?",
    ),
    "-": (
        "{name} has {a} {things} and gives {b} to a friend. How many {things} are left?",
        "There are {a} {things} on the table. {name} takes {b} of them. How many are left?",
    ),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """How much there is to learn from."""

    largest: int = 20
    """No number in a question or its answer is larger; the smallest is 1."""
    questions: int = 2000
    """No two alike, and none of them in the text that the base model reads."""
    documents: int = 3000
    """Of `problems` solved problems each: what the base model reads."""
    problems: int = 6


@dataclass(frozen=True)
class Calculation:
    """a + b, or a - b where `sign` is "-"."""

    a: int
    sign: str
    b: int

    @property
    def result(self) -> int:
        """Its value, 1 or more."""
        return self.a + self.b if self.sign == "+" else self.a - self.b


def calculations(largest: int) -> list[Calculation]:
    """All sums and differences of two numbers within 1 to `largest`, the results included."""
    pairs = [(a, b) for a in range(1, largest + 1) for b in range(1, largest + 1)]
    return [c for a, b in pairs for sign in STORIES if 1 <= (c := Calculation(a, sign, b)).result <= largest]


def problem(calculation: Calculation, rng: random.Random) -> tuple[str, str]:
    """A question in words and its worked line, without the "####"."""
    a, b, things = calculation.a, calculation.b, rng.choice(THINGS)
    question = rng.choice(STORIES[calculation.sign]).format(name=rng.choice(NAMES), things=things, a=a, b=b)
    return question, f"{a}{calculation.sign}{b}={calculation.result} {things}."


def write_world(folder: Path, world: World, seed: int) -> None:
    """Write `text/worksheets.jsonl` (what the base model reads) and `questions.jsonl` (GSM8K's lines) into `folder`."""
    rng = random.Random(f"{seed} arithmetic")
    every = calculations(world.largest)
    asked: dict[str, str] = {}
    while len(asked) < world.questions:
        calculation = rng.choice(every)
        question, worked = problem(calculation, rng)
        asked[question] = f"{worked}\n{MARK} {calculation.result}"
    (folder / "text").mkdir(parents=True, exist_ok=True)
    with (folder / "text" / "worksheets.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(world.documents):
            file.write(json.dumps({"text": worksheet(every, world.problems, asked, rng)}) + "\n")
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as file:
        for question, answer in asked.items():
            file.write(json.dumps({"question": question, "answer": answer}) + "\n")


def worksheet(every: Sequence[Calculation], problems: int, asked: Container[str], rng: random.Random) -> str:
    """A page of solved problems, none of those `asked`; the last one ends as GSM8K's do."""
    lines: list[str] = []
    while len(lines) < problems:
        calculation = rng.choice(every)
        question, worked = problem(calculation, rng)
        if question not in asked:
            lines.append(f"Question: {question}\n\nAnswer: {worked}")
    return "\n\n".join(lines) + f"\n{MARK} {calculation.result}"
