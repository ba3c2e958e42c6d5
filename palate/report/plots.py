"""The report's plots as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, ACCENT, SOFT = "#5b6470", "#c2552d", "#2f7f86"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's font
    "svg.hashsalt": "palate",  # the same plot gives the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Several plots share one page: an id must not mean another plot's shape.
    prefix = re.sub(r"\W", "", label)[:24]
    text = re.sub(r'id="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


def dots(rows: Sequence[tuple[str, dict[str, Any]]], label: str, *, zero: bool = False) -> Markup:
    """Means with their intervals, one line each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.45 * len(rows) + 0.9))
        axes = figure.subplots()
        for place, (_, told) in enumerate(reversed(rows)):
            axes.plot([told["low"], told["high"]], [place, place], color=SOFT, linewidth=2.5, solid_capstyle="round")
            axes.plot([told["mean"]], [place], "o", color=ACCENT)
            axes.annotate(
                f"{told['mean']:.3f}",
                (told["mean"], place),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.3)
        if zero:
            axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlabel(label)
        return _svg(figure, label)


def curves(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> Markup:
    """Small multiples of logged numbers by step; what was logged only once is no curve."""
    present = [name for name in names if sum(name in line for line in lines) > 1]
    if not present:
        return Markup()
    with mpl.rc_context(STYLE):
        columns = min(4, max(2, len(present)))
        rows = -(-len(present) // columns)
        figure = Figure(figsize=(2.6 * columns, 1.9 * rows))
        for place, name in enumerate(present, start=1):
            axes = figure.add_subplot(rows, columns, place)
            told = [(line["step"], line[name]) for line in lines if name in line]
            axes.plot([s for s, _ in told], [v for _, v in told], color=SOFT, linewidth=1.4,
                      marker="o" if len(told) < 12 else "", markersize=3)  # fmt: skip
            axes.set_title(name.replace("_", " "), fontsize=9, loc="left")
            axes.tick_params(labelsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        figure.tight_layout()
        return _svg(figure, f"curves {present[0]} {len(lines)}")


def learned_and_gold(path: Sequence[dict[str, float]]) -> Markup:
    """Learned reward and gold by PPO round: they part where the policy exploits the reward model."""
    rounds = [point["round"] for point in path]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 2.6))
        axes = figure.subplots()
        axes.plot(rounds, [point["learned"] for point in path], color=ACCENT, marker="o", markersize=3)
        axes.set_xlabel("PPO round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("learned reward (standard deviations)", color=ACCENT, fontsize=9)
        if "gold" in path[0]:
            other = axes.twinx()
            other.spines["right"].set_visible(True)
            other.plot(rounds, [point["gold"] for point in path], color=SOFT, marker="o", markersize=3)
            other.fill_between(
                rounds,
                [point["gold_low"] for point in path],
                [point["gold_high"] for point in path],
                color=SOFT,
                alpha=0.15,
                linewidth=0,
            )
            other.set_ylabel("gold", color=SOFT, fontsize=9)
        return _svg(figure, "learned reward and gold by round")


def calibration(curve: Sequence[dict[str, float]]) -> Markup:
    """How often people prefer what the reward model prefers, by how sure it is."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.2, 2.8))
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.8, linestyle=":")
        axes.plot([p["confidence"] for p in curve], [p["preferred"] for p in curve], color=ACCENT, marker="o")
        axes.set_xlabel("the model's confidence")
        axes.set_ylabel("people agree")
        return _svg(figure, "calibration of the reward model")
