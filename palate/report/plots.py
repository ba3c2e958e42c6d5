"""The report's plots as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, ACCENT, SOFT = "#5b6470", "#c2552d", "#2f7f86"
COLOURS = (ACCENT, SOFT, "#8a6bb1", "#b08a1e", "#5b8a3c")
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


def changes(by_model: Mapping[str, Mapping[str, dict[str, Any]]], criteria: Sequence[str], *, against: str) -> Markup:
    """What each model changed `against` what it began as, criterion by criterion, with intervals."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.9 + len(criteria) * (0.2 + 0.2 * len(by_model))))
        axes = figure.subplots()
        step = 0.7 / len(by_model)
        for number, (name, change) in enumerate(by_model.items()):
            colour = COLOURS[number % len(COLOURS)]
            for place, criterion in enumerate(reversed(criteria)):
                told, at = change[criterion], place + (len(by_model) - 1) * step / 2 - number * step
                axes.plot([told["low"], told["high"]], [at, at], color=colour, linewidth=2.2, solid_capstyle="round")
                axes.plot([told["mean"]], [at], "o", color=colour, markersize=5, label=name if place == 0 else None)
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(criteria)), list(reversed(criteria)))
        axes.set_ylim(-0.6, len(criteria) - 0.4)
        axes.set_xlabel(f"change against {against}, paired")
        if len(by_model) > 1:
            axes.legend(frameon=False, fontsize=8, loc="best")
        return _svg(figure, "what each method changed")


def over_optimisation(paths: Mapping[str, Sequence[dict[str, Any]]], *, reference: str) -> Markup:
    """Learned reward, and gold where it is known, over the KL to what training began with (`reference`), one line per
    method or seed: they part where a policy exploits the reward model. Points are in the order of training, `kept` ones
    have a ring; square-root KL as in Gao et al. 2023."""
    every = [point for path in paths.values() for point in path]
    learned = "learned" if all("learned" in point for point in every) else "score"
    kinds = [kind for kind in (learned, "gold") if all(kind in point for point in every)]
    titles = {"learned": "learned reward", "score": "score", "gold": "gold"}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * max(1, len(kinds)), 2.8))
        for column, kind in enumerate(kinds, start=1):
            axes = figure.add_subplot(1, len(kinds), column)
            for number, (name, path) in enumerate(paths.items()):
                colour = COLOURS[number % len(COLOURS)]
                kl = [max(point["kl"], 0.0) for point in path]
                axes.plot(kl, [p[kind]["mean"] for p in path], color=colour, marker="o", markersize=3, label=name)
                ringed = [p for p in path if p.get("kept")]
                at, height = [max(p["kl"], 0.0) for p in ringed], [p[kind]["mean"] for p in ringed]
                axes.plot(at, height, "o", color=colour, markersize=9, fillstyle="none")
                # Not a band: a policy may come nearer again, and a band would fold over itself.
                axes.vlines(
                    kl, [p[kind]["low"] for p in path], [p[kind]["high"] for p in path], color=colour, alpha=0.3
                )
            axes.set_xscale("function", functions=(_root, _square))
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(4))  # more would run into each other where KL is small
            axes.set_xlabel(f"KL to {reference} (nats a reply)")
            axes.set_title(titles[kind], fontsize=10, loc="left")
            axes.tick_params(labelsize=8)
            if column == 1 and len(paths) > 1:
                axes.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        return _svg(figure, f"{' and '.join(titles[kind] for kind in kinds)} over KL")


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(values, 0.0))


def _square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values**2


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
