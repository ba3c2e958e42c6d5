"""Plots as SVG inside a page. Colours come from the style sheet by class, and places are per cent of the width, so a
plot fits a phone with letters that can be read. What it shows is said in words, too, beside it or inside."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from palate.studio.effects import Curve, Share

HEIGHT = 210
FEWEST = 14
"""Places for days: one alone would be a wall."""
TOP, BOTTOM = 14, 26
"""Pixels above and below what is drawn, for letters."""


def _svg(inner: Sequence[str], *, height: int, title: str, desc: str, kind: str) -> Markup:
    told = "".join(inner)
    return Markup(
        f'<svg class="plot {kind}" role="img" width="100%" height="{height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(desc)}</desc>{told}</svg>"
    )


def track(told: Share, *, low: float, high: float, at: float | None = None, known: Sequence[Share] = ()) -> Markup:
    """A mean as a dot and its interval as a line between `low` and `high`; `at`: where nothing would be; `known`: what
    others found, behind it. The numbers stand beside it as text: to who hears the page it says nothing."""

    def x(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / (high - low):.2f}%"

    def wide(one: Share) -> str:
        return f"{max(0.4, 100 * (min(one.high, high) - max(one.low, low)) / (high - low)):.2f}%"

    parts = [f'<rect class="known" x="{x(one.low)}" y="0" width="{wide(one)}" height="22"/>' for one in known]
    parts.append('<line class="base" x1="0" x2="100%" y1="11" y2="11"/>')
    if at is not None:
        parts.append(f'<line class="nothing" x1="{x(at)}" x2="{x(at)}" y1="3" y2="19"/>')
    parts.append(f'<line class="spread" x1="{x(told.low)}" x2="{x(told.high)}" y1="11" y2="11"/>')
    parts.append(f'<circle class="dot" cx="{x(told.mean)}" cy="11" r="5"/>')
    return Markup(f'<svg class="plot track" aria-hidden="true" width="100%" height="22">{"".join(parts)}</svg>')


def days(dates: Sequence[str], counts: Sequence[int], *, what: str) -> Markup:
    """Bars, one for every day from the first to the last (ISO dates), and their counts as text."""
    rows = list(zip(dates, counts, strict=True))
    most, height = max(counts), 120
    step = 100 / max(len(rows), FEWEST)
    parts = []
    for place, (day, count) in enumerate(rows):
        tall = (height - TOP - BOTTOM) * count / most
        if count:
            wide = f"{step * 0.72:.2f}%"
            parts.append(
                f'<rect class="bar" x="{step * (place + 0.14):.2f}%" y="{height - BOTTOM - tall:.1f}" width="{wide}" '
                f'height="{tall:.1f}" rx="2"><title>{escape(day)}: {count}</title></rect>'
            )
    parts.append(f'<line class="base" x1="0" x2="100%" y1="{height - BOTTOM}" y2="{height - BOTTOM}"/>')
    parts.append(f'<text class="label" x="0" y="{height - 8}">{escape(rows[0][0])}</text>')
    if len(rows) > FEWEST // 2:  # there is room for two
        parts.append(
            f'<text class="label end" x="{step * len(rows):.2f}%" y="{height - 8}">{escape(rows[-1][0])}</text>'
        )
    parts.append(f'<text class="label" x="0" y="{TOP - 3}">most on a day: {most}</text>')
    desc = ", ".join(f"{day}: {count}" for day, count in rows if count)
    return _svg(parts, height=height, title=f"{what} per day", desc=desc, kind="days")


def learning(curve: Curve) -> Markup:
    """Accuracy with intervals over how many judgements were learned from (each twice the one before it), beside how
    much annotators agree."""
    told = [point.accuracy for point in curve.points] + ([curve.agreement] if curve.agreement else [])
    low = math.floor(20 * min(0.5, *(one.low for one in told))) / 20
    high = math.ceil(20 * max(one.high for one in told)) / 20
    first, last = math.log(curve.points[0].labels), math.log(curve.points[-1].labels)

    def x(labels: int) -> float:
        return 8 + 84 * ((math.log(labels) - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = []
    if curve.agreement is not None:
        top, under = y(curve.agreement.high), y(curve.agreement.low)
        parts.append(f'<rect class="known" x="0" y="{top:.1f}" width="100%" height="{max(1.0, under - top):.1f}"/>')
        at = y(curve.agreement.mean)
        parts.append(f'<line class="ceiling" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>')
        above = top - 4 if top > TOP else under + 12
        parts.append(f'<text class="label end" x="100%" y="{above:.1f}">two annotators agree</text>')
    for tenth in range(math.ceil(10 * low), math.floor(10 * high) + 1):
        at = y(tenth / 10)
        kind = "nothing" if tenth == 5 else "base"
        parts.append(f'<line class="{kind}" x1="0" x2="100%" y1="{at:.1f}" y2="{at:.1f}"/>')
        name = "50 %, a coin" if tenth == 5 else f"{10 * tenth} %"
        parts.append(f'<text class="label" x="0" y="{at - 4:.1f}">{name}</text>')
    for one, other in itertools.pairwise(curve.points):
        parts.append(
            f'<line class="line" x1="{x(one.labels):.2f}%" y1="{y(one.accuracy.mean):.1f}" '
            f'x2="{x(other.labels):.2f}%" y2="{y(other.accuracy.mean):.1f}"/>'
        )
    for point in curve.points:
        across, mean = f"{x(point.labels):.2f}%", y(point.accuracy.mean)
        ends = f'y1="{y(point.accuracy.low):.1f}" y2="{y(point.accuracy.high):.1f}"'
        parts.append(f'<line class="spread" x1="{across}" x2="{across}" {ends}/>')
        parts.append(f'<circle class="dot" cx="{across}" cy="{mean:.1f}" r="5"/>')
        parts.append(f'<text class="label middle" x="{across}" y="{HEIGHT - 8}">{point.labels:,}</text>')
    desc = "; ".join(f"{p.labels} judgements: {100 * p.accuracy.mean:.1f} %" for p in curve.points)
    return _svg(
        parts, height=HEIGHT, title="Accuracy by how many judgements were learned from", desc=desc, kind="learning"
    )
