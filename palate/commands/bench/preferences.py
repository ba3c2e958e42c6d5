"""`palate bench preferences DATA FOLDER`: the reward model on what real people preferred.

Beside it, on the same questions held out: a reward of the answer's length, one of its words, and TRL's RewardTrainer
on the same backbone, pairs, steps and pairs in a step. Both trainers take turns, so their seconds can be compared.
Then ours on rankings as a whole against the same rankings taken apart into pairs. What is finished is kept in FOLDER,
and the command goes on from there. No answer of anybody is in its result.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palate import metrics
from palate.batches.rankings import Group
from palate.commands.bench import backbone, harness, people, trainers
from palate.commands.bench.harness import OURS
from palate.commands.bench.shakespeare import side_by_side
from palate.commands.bench.trainers import Entry
from palate.measure import preference
from palate.measure.intervals import bootstrap
from palate.text import tokenizer as tokenizers
from palate.workspace import FOLDERS, MANIFEST, write_atomically

PEER = "trl"
HOW = "`make .venv-trl/ready`, then `.venv-trl/bin/python -m palate.cli bench preferences`"
ERRORS = 1.96 + 0.8416
"""How many standard errors a difference has to be so that a two-sided test at 5 % finds it four times in five: the
normal quantiles of .975 and .80 (Cohen 1988; Card et al. 2020, "With Little Power Comes Great Responsibility")."""
WHOLE = "rankings"
FORMS = {"all pairs": "pairs", "one pair": "one"}
"""Ways to read the same rankings taken apart, by the name they have in the tables."""


@dataclass(frozen=True)
class Trial:
    """Other ways to train ours on a set, each told by what differs, and the parts of the questions that tell: those
    apart, or those held out, which is to understand a result and not to choose by it."""

    name: str
    read: tuple[str, ...]
    ways: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how large."""

    training: Mapping[str, Mapping[str, Any]]
    """By set, how both train on it: about sixteen pairs in a step everywhere."""
    ranked: tuple[str, ...]
    """Sets whose questions have more than two answers."""
    chosen_on: tuple[str, ...]
    """Sets whose questions apart choose the learning rates."""
    lrs: tuple[float, ...]
    tried: tuple[Trial, ...]
    steps: int = backbone.STEPS
    sft_steps: int = backbone.SFT_STEPS


PLAN = Plan(
    training={
        "helpful": {"epochs": 1, "questions": 16},
        "harmless": {"epochs": 1, "questions": 16},
        "open-assistant": {"epochs": 2, "questions": 4},
        "stack-exchange": {"epochs": 1, "questions": 4},
    },
    ranked=("open-assistant", "stack-exchange"),
    chosen_on=("helpful",),
    lrs=(1e-4, 3e-4),
    tried=(
        Trial(
            "helpful",
            ("dev",),
            {
                "last token": {"pooling": "last"},
                "two epochs": {"epochs": 2},
                "from the base": {"model": "base"},
                "after SFT on preferred answers": {"demonstrations": 83},
            },
        ),
        Trial(
            "open-assistant",
            ("0", "1", "2"),
            {"416 tokens of an answer": {"reply": 416}, "last token": {"pooling": "last"}},
        ),
    ),
)


def main(data: Path, folder: Path, target: Path | None, plan: Plan = PLAN) -> None:
    """Measure. Raises Unsupported where TRL is not installed, BadInput when a file of `data` cannot be read."""
    harness.need("trl", HOW)
    harness.publish(measure(data.resolve(), folder, plan), target)


def measure(data: Path, folder: Path, plan: Plan) -> dict[str, Any]:
    """Everything that the tables need."""
    folder.mkdir(parents=True, exist_ok=True)
    run = backbone.make(data, folder.resolve(), people.families(data), steps=plan.steps, sft_steps=plan.sft_steps)
    bench = Bench(data, folder.resolve(), run, plan)
    lrs, trials = bench.choose()
    workloads: dict[str, Any] = {name: bench.against(name, lrs) for name in plan.training}
    workloads |= {f"{name}: rankings and pairs": bench.forms(name, lrs) for name in plan.ranked}
    workloads["learning rates"] = {"trials": trials}
    for trial in plan.tried:
        workloads[f"{trial.name}: other ways to train ours"] = {"trials": bench.tried(trial, lrs)}
    return {
        "bench": "preferences",
        "machine": harness.machine(),
        "backbone": _backbone(run),
        "learning_rates": lrs,
        "training": {name: dict(told) for name, told in plan.training.items()},
        "workloads": workloads,
    }


def _backbone(run: Path) -> dict[str, Any]:
    """What the base has read, and how well it reads."""
    lines = [json.loads(line) for line in (run / "logs" / "pretrain.jsonl").read_text(encoding="utf-8").splitlines()]
    bits = [line["held_out_bits_per_byte"] for line in lines if "held_out_bits_per_byte" in line]
    config = json.loads((run / FOLDERS["base"] / "config.json").read_text(encoding="utf-8"))
    told = {name: config[name] for name in ("num_hidden_layers", "hidden_size", "vocab_size")}
    return {**told, "steps": lines[-1]["step"], "held_out_bits_per_byte": round(bits[-1], 3)}


@dataclass(frozen=True)
class Bench:
    """The data, the folder that keeps what is finished, the backbone's run, and the plan."""

    data: Path
    folder: Path
    run: Path
    plan: Plan

    def questions(self, name: str) -> dict[str, list[Group]]:
        """Those of a set, split."""
        tokenizer = tokenizers.load(self.run / FOLDERS["sft"])
        return people.splits(people.read(self.data / people.FILES[name], tokenizer))

    def entries(self, name: str, lrs: Mapping[str, float]) -> dict[str, Entry]:
        """Both trainers on a set."""
        told = self.plan.training[name]
        return {
            OURS: Entry(trainer="ours", lr=lrs[OURS], **told),
            PEER: Entry(trainer="theirs", lr=lrs[PEER], pooling="last", **told),
        }

    def choose(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """(each trainer's learning rate, what each rate reached on the questions apart): the one that is right most
        often."""
        right: dict[str, dict[float, list[float]]] = {OURS: {}, PEER: {}}
        for name in self.plan.chosen_on:
            apart = self.questions(name)["dev"]
            for lr in self.plan.lrs:
                for who, told in self.race(name, 0, "dev", self.entries(name, dict.fromkeys(right, lr))).items():
                    right[who].setdefault(lr, []).extend(preference.right(apart, told["scores"]))
        lrs = {who: max(found, key=lambda lr, found=found: statistics.mean(found[lr])) for who, found in right.items()}  # type: ignore[misc]
        return lrs, [
            {"trainer": who, "lr": lr, **_told(values)} for who, found in right.items() for lr, values in found.items()
        ]

    def tried(self, trial: Trial, lrs: Mapping[str, float]) -> list[dict[str, Any]]:
        """What ours reaches as it is, and in other ways."""
        parts, chosen = self.questions(trial.name), self.entries(trial.name, lrs)
        found: dict[str, list[float]] = {}
        for read in trial.read:
            fold = 0 if read == "dev" else int(read)
            runs = {"as above": self.race(trial.name, fold, read, chosen)[OURS]}  # as it ran beside the peer
            for way, changes in trial.ways.items():
                runs[way] = self.race(trial.name, fold, read, {OURS: replace(chosen[OURS], **changes)})[OURS]
            for way, told in runs.items():
                found.setdefault(way, []).extend(preference.right(parts[read], told["scores"]))
        return [{"way": way, **_told(values)} for way, values in found.items()]

    def against(self, name: str, lrs: Mapping[str, float]) -> dict[str, Any]:
        """Ours, TRL and the trivial ones on one set: every question that is not apart is held out once."""
        parts, chosen = self.questions(name), self.entries(name, lrs)
        right: dict[str, list[float]] = {}
        runs = []
        for fold in range(people.FOLDS):
            training, held_out = people.training(parts, fold), parts[str(fold)]
            runs.append(self.race(name, fold, str(fold), chosen))
            scores = {who: told["scores"] for who, told in runs[-1].items()}
            scores["length only"] = preference.length_scores(training, held_out)
            scores["bag of words"] = preference.word_scores(training, held_out)
            for who, given in scores.items():
                right.setdefault(who, []).extend(preference.right(held_out, given))
        rows = {who: _told(values) for who, values in right.items()}
        for who in chosen:
            seconds = [run[who]["seconds_per_step"] * run[who]["steps"] for run in runs]
            rows[who] |= {"seconds": round(statistics.mean(seconds), 1), "steps": runs[0][who]["steps"]}
        by_fold = [run[PEER]["seconds_per_step"] / run[OURS]["seconds_per_step"] for run in runs]
        ratio = {"ratio": round(statistics.mean(by_fold), 2), "low": round(min(by_fold), 2)}
        return {
            "workload": _counted(parts),
            "contestants": rows,
            "differences": {f"{OURS} - {who}": _difference(right[OURS], right[who]) for who in rows if who != OURS},
            "times_faster": {name: {"peer": PEER, **ratio, "high": round(max(by_fold), 2)}},
        }

    def forms(self, name: str, lrs: Mapping[str, float]) -> dict[str, Any]:
        """Ours on whole rankings, on all their pairs one by one, and on one pair of each."""
        parts, chosen = self.questions(name), self.entries(name, lrs)
        right: dict[str, list[float]] = {}
        reads: dict[str, list[int]] = {}
        for fold in range(people.FOLDS):
            runs = {WHOLE: self.race(name, fold, str(fold), chosen)[OURS]}  # as it ran beside the peer
            runs |= self.race(
                name, fold, str(fold), {shown: replace(chosen[OURS], form=form) for shown, form in FORMS.items()}
            )
            for shown, told in runs.items():
                right.setdefault(shown, []).extend(preference.right(parts[str(fold)], told["scores"]))
                reads.setdefault(shown, []).append(told["answers_read"])
        return {
            "workload": _counted(parts),
            "contestants": {
                shown: {**_told(values), "answers_read": round(statistics.mean(reads[shown]))}
                for shown, values in right.items()
            },
            "differences": {f"{WHOLE} - {shown}": _difference(right[WHOLE], right[shown]) for shown in FORMS},
        }

    def race(self, name: str, fold: int, read: str, entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
        """Train all entries by turns, `fold` of the set held out; of each its scores of the questions `read`, steps,
        seconds of one step and answers read. What was measured before is taken from the folder."""
        asked = {
            "backbone": json.loads((self.run / FOLDERS["sft"] / MANIFEST).read_text(encoding="utf-8"))["digest"],
            "cut": [people.PROMPT, people.MOST_ANSWERS],
            **{"name": name, "fold": fold, "read": read, "entries": {who: asdict(e) for who, e in entries.items()}},
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        kept = self.folder / "races" / f"{name}-{read}-{digest}.json"
        if kept.is_file():
            return dict(json.loads(kept.read_text(encoding="utf-8")))
        metrics.say(f"{name}, reading {read}: {', '.join(entries)}")
        kept.parent.mkdir(exist_ok=True)
        where = {"data": str(self.data / people.FILES[name]), "run": str(self.run), "fold": fold, "read": read}
        with tempfile.TemporaryDirectory() as scratch:
            given: dict[str, dict[str, Any]] = {
                who: {"entry": asdict(entry), **where, "target": str(Path(scratch) / f"{number}.json")}
                for number, (who, entry) in enumerate(entries.items())
            }
            orders = {who: (f"{trainers.__name__}:{entry.trainer}", given[who]) for who, entry in entries.items()}
            training = people.training(self.questions(name), fold)
            lessons = {who: trainers.lesson(training, entry) for who, entry in entries.items()}
            with harness.workers(orders) as contestants:
                taken = side_by_side(
                    contestants, {who: one.steps // entries[who].slice for who, one in lessons.items()}
                )
            found = {}
            for who, lesson in lessons.items():
                *trained, _ = taken[who]
                counted = trained[1:] or trained  # the first turn warms up
                found[who] = {
                    "scores": json.loads(Path(given[who]["target"]).read_text(encoding="utf-8")),
                    "steps": lesson.steps,
                    "seconds_per_step": statistics.mean(turn.seconds for turn in counted) / entries[who].slice,
                    "answers_read": lesson.answers,
                }
        write_atomically(kept, json.dumps(found) + "\n")
        return found


def _told(right: Sequence[float]) -> dict[str, float | int]:
    """Accuracy with its interval."""
    interval = bootstrap(right)
    return {"accuracy": round(interval.mean, 3), "low": round(interval.low, 3), "high": round(interval.high, 3)}


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Paired by question, with its interval, its standard error, and the least difference that as many questions would
    show four times in five."""
    each = np.subtract(ours, theirs)
    interval = bootstrap(each.tolist())
    error = float(each.std(ddof=1) / len(each) ** 0.5)
    told = {"difference": interval.mean, "low": interval.low, "high": interval.high, "standard_error": error}
    return {name: round(value, 3) + 0.0 for name, value in {**told, "detectable": ERRORS * error}.items()}  # no -0


def _counted(parts: Mapping[str, Sequence[Group]]) -> dict[str, int]:
    """How much of what there is."""
    held_out = [group for name, members in parts.items() if name != "dev" for group in members]
    return {
        "questions": len(held_out),
        "trained_on": round(len(held_out) * (people.FOLDS - 1) / people.FOLDS),
        "answers": sum(len(group.reply_ids) for group in held_out),
        "pairs": sum(len(people.decided_pairs(group)) for group in held_out),
        "apart": len(parts["dev"]),
    }
