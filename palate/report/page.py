"""report.json and its story -> one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from palate.report import plots

MODELS = {
    "base": "Base model",
    "first_sft": "SFT of the first round",
    "sft": "SFT",
    "sft_continued": "SFT continued (control)",
    "best_of_k": "Best of K",
    "ppo": "PPO",
    "dpo": "DPO",
    "grpo": "GRPO",
    "rejection": "Rejection sampling",
    "placebo": "Placebo (control)",
}
CRITERIA = ("accuracy", "helpfulness", "safety", "clarity")


def render(report: dict[str, Any], story: dict[str, Any]) -> str:
    """The page. Whatever a recipe did not make is left out."""
    source = resources.files("palate.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"interval": _interval, "stacked": _stacked}
    return environment.from_string(source).render(
        report=report,
        story=story,
        models=_titles(report),
        criteria=[c for c in CRITERIA if "sft" in report and c in report["sft"]["gold"]],
        plots=_plots(report, story),
        total=sum(cost["seconds"] for cost in report["stages"].values()),
    )


def _start(report: dict[str, Any]) -> str:
    """What the policies of this run began as."""
    return "SFT" if report.get("round", 1) == 1 else "the round before"


def _titles(report: dict[str, Any]) -> dict[str, str]:
    """What the models are called; in a later round the assistant is the policy of the round before."""
    titles = {name: title for name, title in MODELS.items() if name in report}
    return titles | {"sft": "Policy of the round before"} if report.get("round", 1) > 1 else titles


def _interval(told: dict[str, Any] | None, digits: int = 3) -> str:
    """0.512 [0.480, 0.544]."""
    if told is None:
        return "not measured"
    return f"{told['mean']:.{digits}f} [{told['low']:.{digits}f}, {told['high']:.{digits}f}]"


def _stacked(told: dict[str, Any] | None) -> Markup:
    """The same with the interval below, for tables of many columns."""
    if told is None:
        return Markup("not measured")
    return Markup("{:.3f}<small>{:.3f} to {:.3f}</small>").format(told["mean"], told["low"], told["high"])


def _plots(report: dict[str, Any], story: dict[str, Any]) -> dict[str, Markup]:
    found: dict[str, Markup] = {}
    present = [name for name in MODELS if name in report]
    titles = _titles(report)
    if present:
        found["models"] = plots.dots(
            [(titles[name], report[name]["gold"]["overall"]) for name in present], "overall, at its best temperature"
        )
    changes = {MODELS[name]: report[name]["change"] for name in report.get("methods", ())}
    if any(changes.values()):
        measured = [c for c in CRITERIA if c in next(iter(changes.values()))]
        found["change"] = plots.changes(changes, measured, against=_start(report))
    if report.get("round", 1) > 1:
        rounds = [(f"{line['run']}, {MODELS[line['method']]}", line["overall"]) for line in report["rounds"]]
        found["rounds"] = plots.dots(rounds, "overall, at its best temperature")
    curves = story.get("curves", {})
    for stage, names in (
        ("pretrain", ("loss", "held_out_bits_per_byte")),
        ("sft", ("loss", "held_out_loss")),
        ("reward", ("loss", "held_out_accuracy")),
        ("ppo", ("score", "kl", "entropy", "explained_variance", "clip_fraction", "reply_tokens", "eos_rate", "ratio")),
        ("dpo", ("loss", "held_out_accuracy", "kl", "reply_tokens", "eos_rate")),
        ("grpo", ("score", "kl", "entropy", "score_std", "clip_fraction", "reply_tokens", "eos_rate", "ratio")),
        ("rejection", ("score", "kl", "entropy", "best_score", "loss", "reply_tokens", "eos_rate")),
    ):
        if curves.get(stage):
            found[stage] = plots.curves(curves[stage], names)
    paths = {MODELS[name]: path for name, path in report.get("over_optimisation", {}).items() if len(path) > 1}
    if paths:
        found["over_optimisation"] = plots.over_optimisation(paths, reference=_start(report))
    if report.get("reward"):
        found["calibration"] = plots.calibration(report["reward"]["calibration"]["curve"])
    return found
