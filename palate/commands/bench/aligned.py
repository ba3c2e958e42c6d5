"""`palate bench aligned FOLDER`: what aligning does in the kitchen, where gold is known, on several seeds.

    methods   SFT, its controls, best of K, and every method on the same rankings
    rounds    the policy of a round is sampled, ranked and trained again
    safety    the reward model's safety head counts 0, 1/2 or 1 in what the policy follows
    stop      a policy without a leash: where gold falls while the learned reward rises, and where the alarm stops it

Everything is an ordinary run in FOLDER that a person could have made with `palate run`; a part that was made is not
made again, so a measurement that was stopped goes on. Seeds that settings were chosen on are refused.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from palate import flow, metrics
from palate import recipe as recipes
from palate.align.alarms import NEAR, alarms
from palate.align.watch import figures
from palate.commands.bench import harness
from palate.errors import BadInput
from palate.measure.intervals import bootstrap
from palate.recipe import Recipe
from palate.records import Prompt, read_jsonl
from palate.report import plots
from palate.workspace import POLICIES, Workspace, write_atomically

Gold = Callable[[Recipe], Callable[[Prompt, str], dict[str, float]]]
"""The recipe's world -> (prompt, answer) -> what the answer is worth by each criterion."""
CHOSEN_ON = frozenset(range(101, 106))
ALARM_CHOSEN_ON = CHOSEN_ON | frozenset((*range(41, 46), *range(51, 56)))
"""What the alarms were chosen on: earlier choices had come too late on three of five of each (docs/alarms.md)."""
SEEDS = {part: (41, 42, 43, 44, 45) for part in ("methods", "rounds", "safety")} | {"stop": (61, 62, 63, 64, 65)}
METHODS = """
[dpo]
max_new_tokens = 84
evaluate_every = 31
[grpo]
rounds = 12
rollout_prompts = 64
max_new_tokens = 84
evaluate_every = 3
[rejection]
rounds = 8
max_new_tokens = 84
evaluate_every = 2
"""
ROUNDS = 3
SAFETY = (0.0, 0.5, 1.0)
CRITERIA = ("overall", "accuracy", "helpfulness", "safety", "clarity")
T975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t: 97.5 % point by degrees of freedom."""
T80 = {1: 1.376, 2: 1.061, 3: 0.978, 4: 0.941, 5: 0.920, 6: 0.906, 7: 0.896, 8: 0.889, 9: 0.883}
"""The same of 80 %: a difference of (t97.5 + t80) standard errors is noticed four times of five."""


def main(
    kitchen: Path, gold: Gold, folder: Path, target: Path | None, seeds: Sequence[int] | None, parts: Sequence[str]
) -> None:
    """Measure `parts` in `folder`, each for `seeds` or its own; `kitchen` is the recipe. Raises BadInput for a seed
    settings were chosen on."""
    wanted = {part: tuple(seeds or SEEDS[part]) for part in parts}
    for part, numbers in wanted.items():
        if chosen := sorted(set(numbers) & (ALARM_CHOSEN_ON if part == "stop" else CHOSEN_ON)):
            raise BadInput(f"settings were chosen on seed {chosen[0]}.", "--seeds", f"Take others for {part}.")
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in parts}
    for seed in sorted({number for numbers in wanted.values() for number in numbers}):
        own = [part for part in parts if seed in wanted[part]]
        recipe, run = made(kitchen, folder, seed, last=None if {"methods", "rounds"} & set(own) else "reward")
        for part in own:
            metrics.say(f"seed {seed}: {part}")
            found[part].append({"seed": seed} | PARTS[part](recipe, run, gold))
    tables: dict[str, Any] = {}
    for part in parts:
        told = {"workload": {"seeds": " ".join(map(str, wanted[part]))}}
        tables |= {name: told | table for name, table in TABLES[part](found[part]).items()}
    result = {"bench": "aligned", "machine": harness.machine(), "workloads": tables, "found": found}
    harness.publish(result, target)
    if target is not None and "stop" in found:
        write_atomically(target.with_suffix(".svg"), picture(found["stop"]))


def made(kitchen: Path, folder: Path, seed: int, *, last: str | None) -> tuple[Recipe, Workspace]:
    """The kitchen with every method, or up to the stage `last`, made where it is not."""
    text = kitchen.read_text(encoding="utf-8") + METHODS
    # No number behind a hyphen: the round after "s-41" would be "s-42", which is another seed's run.
    recipe = recipes.parse(text, str(kitchen), [f"seed={seed}", f"name=s{seed}"])
    place = folder / recipe.name
    with Workspace(place).held():
        resolved, run = flow.open_run(recipe, place)
        flow.run(resolved, run, last=last)
    return resolved, run


# --- what is measured of one seed ------------------------------------------------------------------------------------


def methods(recipe: Recipe, run: Workspace, gold: Gold) -> dict[str, Any]:
    """Of each model gold, KL and seconds; of each two of them the paired difference of overall."""
    report = _report(run)
    names = [name for name in report["win_rates"] if name in report]
    rows = {}
    for name in names:
        told, seconds = report[name], report["stages"].get(name, {}).get("seconds")
        rows[name] = {c: told["gold"][c]["mean"] for c in CRITERIA} | {"kl": told["kl"], "seconds": seconds}
        rows[name] |= {"win_rate_vs_sft": report["win_rates"][name].get("sft", {}).get("mean")}
    return {"models": rows, "differences": report["differences"], "reward": report["reward"]["accuracy_vs_gold"]}


def rounds(recipe: Recipe, run: Workspace, gold: Gold) -> dict[str, Any]:
    """Of each round what its policy gained over the policy before."""
    place = run.folder
    for _ in range(ROUNDS - 1):
        settings, place = flow.next_round(place)
        settings = settings.model_copy(update={"dpo": None, "grpo": None, "rejection": None, "controls": None})
        with Workspace(place).held():
            resolved, run = flow.open_run(settings, place)
            flow.run(resolved, run)
    return {"rounds": [line for line in _report(run)["rounds"] if line["method"] == "ppo"]}


def safety(recipe: Recipe, run: Workspace, gold: Gold) -> dict[str, Any]:
    """Gold of the watched dev answers after PPO on rewards in which safety counts more and more; the labels are the
    same."""
    assert recipe.reward and recipe.ppo
    found = {}
    for weight in SAFETY:
        mix = (recipe.reward.weights or {"overall": 1.0}) | {"safety": weight}
        changed = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"weights": mix})})
        inside = _inside(changed, run, f"safety-{weight}", ("reward", "ppo"))
        found[str(weight)] = _looks(changed, inside, gold)[-1]
    return {"weights": found}


def stop(recipe: Recipe, run: Workspace, gold: Gold) -> dict[str, Any]:
    """Every round of a PPO that nothing holds back, and the round to which the alarm would have gone back."""
    assert recipe.ppo
    loose = {"kl_weight": 0.0, "kl_budget": None, "halt": False, "gate": False, "rounds": 18, "evaluate_every": 1}
    changed = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update=loose | {"schedule": "constant"})})
    inside = _inside(changed, run, "loose", ("ppo",))
    looks = _looks(changed, inside, gold)
    ending = [line["step"] for line in metrics.read(inside.read("ppo") / "alarms.jsonl") if line["ends"]]
    halted = min(ending, default=None)
    # `Limit` with halt: the last policy that was not near an alarm; without an alarm the last of all.
    back = [look for look in looks if halted is None or (look["round"] < halted and not look["near"])]
    kept = back[-1]
    peak = max(look["overall"] for look in looks)
    first = next(look for look in looks if look["overall"] == peak)
    before = halted is None or kept["round"] <= first["round"] or kept["overall"] >= 0.95 * peak
    fallen = [look for look in looks if look["round"] > first["round"] and look["overall"] < 0.95 * peak]
    return {
        "looks": looks, "halted": halted, "kept": kept, "peak": first, "last": looks[-1], "in_time": before,
        "reproduced": bool(fallen) and looks[-1]["score"]["mean"] > first["score"]["mean"],
    }  # fmt: skip


PARTS: dict[str, Callable[[Recipe, Workspace, Gold], dict[str, Any]]] = {
    "methods": methods, "rounds": rounds, "safety": safety, "stop": stop,
}  # fmt: skip


def _inside(recipe: Recipe, run: Workspace, name: str, stages: Sequence[str]) -> Workspace:
    """A run inside the run, as a control is: what is not made there is read from the run."""
    inside = Workspace(run.folder / "aligned" / name, parent=run)
    with inside.held():
        for stage in stages:
            flow.run_stage(stage, recipe, inside)
    return inside


def _looks(recipe: Recipe, run: Workspace, gold: Gold) -> list[dict[str, Any]]:
    """Gold, learned score and KL of the watched answers, look by look."""
    judge = gold(recipe)
    prompts = {p.id: p for p in read_jsonl(run.read("demonstrations") / "prompts.jsonl", Prompt)}
    rounds_: dict[int, list[dict[str, Any]]] = {}
    for line in metrics.read(run.read("ppo") / "watched.jsonl"):
        rounds_.setdefault(line["step"], []).append(line)
    found, first = [], figures(rounds_[0])
    for round_, lines in sorted(rounds_.items()):
        told = [judge(prompts[line["prompt_id"]], line["text"]) for line in lines]
        look: dict[str, Any] = {name: statistics.fmean(scores[name] for scores in told) for name in CRITERIA}
        look |= {"round": round_, "kl": statistics.fmean(line["kl"] for line in lines)}
        look["near"] = any(alarm.ends for alarm in alarms(figures(lines), first, share=NEAR))
        look["gold"] = bootstrap([scores["overall"] for scores in told]).to_json()
        # A reward model that is worth nothing gives no score, and then there is one look.
        look["score"] = bootstrap([line.get("score", 0.0) for line in lines]).to_json()
        found.append(look)
    return found


def _report(run: Workspace) -> dict[str, Any]:
    return dict(json.loads((run.read("report") / "report.json").read_text(encoding="utf-8")))


# --- what is told of all seeds ---------------------------------------------------------------------------------------


def over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """Mean with the 95 % interval of Student's t over seeds: "0.512 [0.480, 0.544]"; a mean alone of one seed."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = T975[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"


def noticeable(values: Sequence[float]) -> float:
    """The difference that these seeds would show with an interval above 0 four times of five."""
    if len(values) < 2:
        return math.inf
    return (T975[len(values) - 1] + T80[len(values) - 1]) * statistics.stdev(values) / math.sqrt(len(values))


def _methods_tables(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in found[0]["models"] if all(name in one["models"] for one in found)]
    rows, differences = {}, {}
    for name in names:
        every = [one["models"][name] for one in found]
        rows[name] = {key: over_seeds([told[key] for told in every]) for key in CRITERIA}
        rows[name] |= {"KL": over_seeds([told["kl"] for told in every], 2)}
        if all(told["win_rate_vs_sft"] is not None for told in every):
            rows[name] |= {"win rate against SFT": over_seeds([told["win_rate_vs_sft"] for told in every])}
        if all(told["seconds"] is not None for told in every):
            rows[name] |= {"seconds": over_seeds([told["seconds"] for told in every], 0)}
    policies = [name for name in (*POLICIES, "best_of_k", "sft_continued", "sft") if name in names]
    for number, one in enumerate(policies):
        for other in policies[number + 1 :]:
            values = [told["differences"][one][other]["mean"] for told in found]
            differences[f"{one} - {other}"] = {
                "difference of overall": over_seeds(values),
                "least that these seeds would notice": f"{noticeable(values):.3f}",
            }
    return {"Models, at their best temperatures": {"contestants": rows}, "Differences": {"contestants": differences}}


def _rounds_tables(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = {}
    for number in range(min(len(one["rounds"]) for one in found)):
        lines = [one["rounds"][number] for one in found]
        rows[f"round {number + 1}"] = {
            "gain over the policy before": over_seeds([line["gain_over_sft"]["mean"] for line in lines]),
            "seeds with the interval above 0": sum(line["gain_over_sft"]["low"] > 0 for line in lines),
            "overall": over_seeds([line["overall"]["mean"] for line in lines]),
            "KL of the round": over_seeds([line["kl"] for line in lines], 2),
            "reward model, held-out pairs right": over_seeds([line["accuracy"]["mean"] for line in lines]),
        }
    return {"Rounds": {"contestants": rows}}


def _safety_tables(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = {}
    for weight in found[0]["weights"]:
        every = [one["weights"][weight] for one in found]
        rows[f"safety counts {weight}"] = {name: over_seeds([told[name] for told in every]) for name in CRITERIA}
        rows[f"safety counts {weight}"] |= {"KL": over_seeds([told["kl"] for told in every], 2)}
    first, *_, last = found[0]["weights"]
    moved = [one["weights"][last]["safety"] - one["weights"][first]["safety"] for one in found]
    rows["change of safety"] = {"safety": over_seeds(moved)}
    return {"Safety weight": {"contestants": rows}}


def _stop_tables(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = {}
    for one in found:
        peak, kept, last = one["peak"], one["kept"], one["last"]
        rows[f"seed {one['seed']}"] = {
            "gold at its peak": f"{peak['overall']:.3f} (round {peak['round']}, {peak['kl']:.1f} nats)",
            "gold of what comes back": f"{kept['overall']:.3f} (round {kept['round']}, {kept['kl']:.1f} nats)",
            "of the peak": f"{kept['overall'] / max(peak['overall'], 1e-9):.2f}",
            "gold at the end": f"{last['overall']:.3f} ({last['kl']:.1f} nats)",
            "learned reward, peak to end": f"{peak['score']['mean']:+.2f} to {last['score']['mean']:+.2f}",
            "in time": "yes" if one["in_time"] else "no",
        }
    return {"Over-optimisation and the alarm": {"contestants": rows}}


def picture(found: Sequence[Mapping[str, Any]]) -> str:
    """The looks of part `stop` as SVG, with a ring where the alarm goes back to."""
    paths = {
        f"seed {one['seed']}": [look | {"kept": look["round"] == one["kept"]["round"]} for look in one["looks"]]
        for one in found
    }
    return plots.over_optimisation(paths, reference="SFT")


TABLES: dict[str, Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]] = {
    "methods": _methods_tables, "rounds": _rounds_tables, "safety": _safety_tables, "stop": _stop_tables,
}  # fmt: skip
