"""`palate bench arithmetic`: whether PPO and GRPO climb when nothing but a right answer is rewarded, on sums that a
tiny model can learn.

The data has GSM8K's shape (Cobbe et al. 2021): a question in words, an answer of one worked line that ends in
"#### 12". Palate's own stages make everything of it: a folder of solved problems becomes a base model, a few
demonstrations an assistant that is often wrong, and policies follow the verifier alone ([scoring] learned = 0): no
people, no rankings, no reward model. The questions of train, dev and test differ and none is in the text, but with
numbers up to 20 there are only 380 calculations, so what is learned are these, in whatever words they are asked for.

Numbers end at 20 because a model of this size then knows the calculations after half a minute of pretraining; those up
to 99 took it several times as long. How they are cut into tokens is up to the BPE that is trained on this text: in a
worked line ("13-6=7") each digit is a token, in a question most numbers are one.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from palate import metrics
from palate.commands.bench import harness
from palate.errors import BadInput
from palate.scorers.verifier import MARK
from palate.workspace import Workspace, write_atomically

SEEDS = (1, 2, 3)
CHOSEN_ON = (101,)
"""Seeds on which sizes and constants were chosen; they are not reported."""
EDGE = 4
"""Rounds at either end of a training whose mean score is told."""
RLOO = "rloo"
"""GRPO's stage once more."""
OTHER_BASELINE = ("grpo.baseline=leave_one_out", "controls.sft_continued=false")
"""What is changed for it; the control would be made anew for a policy of other seconds."""
CLIMBERS = ("ppo", "grpo", RLOO, "rejection")
MODELS = ("base", "sft", "sft_continued", *CLIMBERS)
"""The base model is asked in the form of its text, not as a chat."""

RECIPE = """
[tokenize]
vocab = 400

[model]
layers = 2
dim = 64
heads = 2
context = 96

[pretrain]
steps = 400
batch_rows = 32
optimizer = "muon"
peak_lr = 6e-3
schedule = "wsd"
warmup_steps = 50
evaluate_every = 400
save_every = 400

[write]
demonstrations = [QUESTIONS]
max_demonstrations = 250
dev_prompts = 150
test_prompts = 400

[sft]
steps = 120
batch_rows = 16
peak_lr = 2e-3
warmup_steps = 5

[scoring]
learned = 0.0
verifier = {kind = "number"}

[ppo]
rounds = 30
rollout_prompts = 256
minibatch_rows = 128
micro_rows = 256
policy_lr = 4e-4
critic_lr = 2e-3
kl_weight = 0.0
max_new_tokens = 20
evaluate_every = 8

[grpo]
rounds = 40
rollout_prompts = 64
answers = 8
minibatch_rows = 128
micro_rows = 256
policy_lr = 4e-4
kl_weight = 0.0
max_new_tokens = 20
evaluate_every = 8

[rejection]
rounds = 16
rollout_prompts = 64
answers = 4
minibatch_rows = 128
micro_rows = 256
policy_lr = 4e-4
max_new_tokens = 20
evaluate_every = 8

[controls]
placebo = false

[evaluate]
temperatures = [0.0, 1.0]
dev_prompts = 150
test_prompts = 400
max_new_tokens = 20

[hardware]
device = "cpu"
dtype = "float32"
compile = false
"""


class Run(Protocol):
    """Runs the stages of a recipe file in a folder, as `palate.run` does."""

    def __call__(self, recipe: Path, folder: Path, *, overrides: Sequence[str]) -> Workspace:
        """The finished run."""
        ...


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


def main(
    run: Run, target: Path | None, folder: Path | None, *, overrides: Sequence[str] = (), world: World | None = None
) -> None:
    """Three seeds, one run each in `folder` (a temporary one where None); the figures as JSON into `target`.

    Raises BadInput when `folder` cannot be written, and what the stages raise.
    """
    world = world or World()
    with tempfile.TemporaryDirectory() as name:
        place = folder or Path(name)
        told = {f"seed {seed}": measure(run, place / f"seed-{seed}", world, seed, overrides) for seed in SEEDS}
    gains = [
        run["contestants"][method][gain]["low"]
        for run in told.values()
        for method in ("ppo", "grpo")
        for gain in ("gain_greedy", "gain_at_1")
    ]
    harness.publish(
        {
            "bench": "arithmetic",
            "machine": harness.machine(),
            "world": asdict(world),
            "chosen_on_seeds": list(CHOSEN_ON),
            "both_climb": min(gains) > 0,
            "seconds": round(sum(run["seconds"] for run in told.values()), 1),
            "workloads": told,
        },
        target,
    )


def recipe_for(folder: Path, seed: int) -> str:
    """The recipe (TOML) of the run on the data in `folder`."""
    head = f'name = "arithmetic"\nseed = {seed}\n\n[collect]\nsources = [{json.dumps(str(folder / "text"))}]\n'
    return head + RECIPE.replace("QUESTIONS", json.dumps(str(folder / "questions.jsonl")))


def measure(run: Run, folder: Path, world: World, seed: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Write data and recipe.toml, run it, and once more with the other baseline: what it reuses is only looked at.

    Raises BadInput when `folder` cannot be written.
    """
    recipe = folder / "recipe.toml"
    try:
        write_world(folder, world, seed)
        write_atomically(recipe, recipe_for(folder, seed))
    except OSError as error:
        raise BadInput(f"it cannot be written ({error.strerror}).", folder, "Name another --folder.") from None
    workspace = run(recipe, folder / "run", overrides=overrides)
    report, climbs = read(workspace), {name: climb(workspace, name) for name in ("ppo", "grpo", "rejection")}
    run(recipe, folder / "run", overrides=[*overrides, *OTHER_BASELINE])
    again = read(workspace)
    report |= {RLOO: again["grpo"], "stages": report["stages"] | {RLOO: again["stages"]["grpo"]}}
    climbs[RLOO] = climb(workspace, "grpo")
    seconds = sum(cost["seconds"] for cost in report["stages"].values()) + again["stages"]["evaluate"]["seconds"]
    return {
        "contestants": {name: row(report, name, climbs.get(name)) for name in MODELS},
        "score_by_round": {name: [round(score, 3) for score in climbs[name]] for name in CLIMBERS},
        "seconds": round(seconds, 1),
    }


def read(workspace: Workspace) -> dict[str, Any]:
    """What the run's last stage measured."""
    return dict(json.loads((workspace.read("report") / "report.json").read_text(encoding="utf-8")))


def climb(workspace: Workspace, method: str) -> list[float]:
    """The mean score of each round's replies, on train prompts at temperature 1: the share that is right, less one for
    each reply that does not end."""
    return [line["score"] for line in metrics.read(workspace.logs / f"{method}.jsonl") if "score" in line]


def row(report: Mapping[str, Any], name: str, scores: Sequence[float] | None) -> dict[str, Any]:
    """One model's line of the table: shares of test questions answered right, and gains over SFT, paired."""
    told = report[name]
    found: dict[str, Any] = {"right_greedy": told["gold_greedy"]["overall"], "right_at_1": told["gold_t1"]["overall"]}
    if "gain_over_sft_greedy" in told:
        found |= {"gain_greedy": told["gain_over_sft_greedy"], "gain_at_1": told["gain_over_sft_t1"]}
    if scores is not None:
        found["score_at_first"] = round(statistics.mean(scores[:EDGE]), 3)
        found["score_at_last"] = round(statistics.mean(scores[-EDGE:]), 3)
    found["kl"] = told["kl"]
    stage = {"base": "pretrain", "sft_continued": "sft_continued.sft"}.get(name, name)
    return found | {"seconds": round(report["stages"][stage]["seconds"], 1)}


@dataclass(frozen=True, kw_only=True)
class World:
    """How much there is to learn from."""

    largest: int = 20
    """No number in a question or its answer is larger; the smallest is 1."""
    questions: int = 2000
    """No two alike, and none of them in the text that the base model reads."""
    documents: int = 2000
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
