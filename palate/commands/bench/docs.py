"""`palate bench docs`: the tables of a page made from the JSON of the measurements, so that no figure is ever typed.

    <!-- bench: NAME -->
    what stands here is replaced by the tables of benchmarks/NAME.json
    <!-- end -->

All other text of the page stays as it is. The place "fits" is computed, not measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from palate import metrics
from palate.commands.bench import fits
from palate.errors import BadInput
from palate.workspace import write_atomically

PLACE = re.compile(r"(<!-- bench: (?P<name>[\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MACHINE = ("gpu", "processor", "cores", "capability", "system", "torch", "transformers", "trl", "palate")


def main(page: Path, folder: Path) -> None:
    """Rewrite the tables of `page`. Raises BadInput when it or a JSON file cannot be read."""
    try:
        before = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"it cannot be read ({error.strerror}).", page, "Name the page that has the places.") from None
    after = rewritten(before, folder)
    if after != before:
        write_atomically(page, after)
    metrics.say(f"{page}: {'tables made anew' if after != before else 'up to date'}")


def rewritten(text: str, folder: Path) -> str:
    """The page with every place filled from `folder`. A place whose JSON does not exist says so."""

    def fill(place: re.Match[str]) -> str:
        path = folder / f"{place['name']}.json"
        if place["name"] == fits.PLACE:
            lines = list(fits.table())
        else:
            lines = list(tables(_load(path))) if path.is_file() else ["Not measured yet.", ""]
        return place[1] + "\n" + "\n".join(lines) + place[3]

    return PLACE.sub(fill, text)


def _load(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result["machine"], dict):
            raise TypeError("machine is no table")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"this is no result of `palate bench` ({error}).", path, "Measure again.") from None
    return dict(result)


def tables(result: Mapping[str, Any]) -> Iterator[str]:
    """The lines of Markdown for one result: where it was measured, then per workload who did what and the ratios."""
    machine = result["machine"]
    yield "; ".join(f"{name} {machine[name]}" for name in MACHINE if name in machine) + (
        f"; medians of {result['repeats']}" if "repeats" in result else ""
    )
    yield ""
    parts: Mapping[str, Any] = result.get("workloads") or {"": result}
    for name, part in parts.items():
        if name:
            yield f"**{name}**: {_words(part['workload'])}" if "workload" in part else f"**{name}**"
            yield ""
        if "ceiling_tflops" in part:
            tops = (f"{top:.3f} TFLOP/s in {dtype}" for dtype, top in part["ceiling_tflops"].items())
            yield f"Matrix products reach {', '.join(tops)}."
            yield ""
        yield from _table(part.get("contestants", {}))
        yield from _table({str(number): trial for number, trial in enumerate(part.get("trials", ()), start=1)})
        yield from _table(part.get("differences", {}))
        yield from _ratios(part.get("times_faster", {}))


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in values.items())


def _table(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One row per contestant, one column per thing that any of them has."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if not columns:
        return
    yield "| | " + " | ".join(column.replace("_", " ") for column in columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_number(row.get(column, "")) for column in columns) + " |"
    yield ""


def _ratios(found: Mapping[str, Any]) -> Iterator[str]:
    """How many times faster ours is; the lowest and highest of the rounds in brackets."""
    rows = list(_leaves(found, ()))
    if not rows:
        return
    yield "| times as fast as | against | ratio of medians [lowest, highest round] |"
    yield "|---|---|---|"
    for path, peer, ratio in rows:
        yield f"| {' / '.join(path)} | {peer} | **{ratio['ratio']:.2f}** [{ratio['low']:.2f}, {ratio['high']:.2f}] |"
    yield ""


def _leaves(found: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, dict[str, float]]]:
    """(path, peer, ratio) of everything in `found` that has a ratio. The peer is named where the ratio is or above."""
    for name, value in found.items():
        if not isinstance(value, dict):
            continue
        if "ratio" in value:
            yield (*path, name), str(value.get("peer", found.get("peer", ""))), value
        else:
            yield from _leaves(value, (*path, name))


def _number(value: object) -> str:
    if isinstance(value, Mapping):  # a mean with its interval
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}"
        if isinstance(value, int) and value >= 10_000
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
