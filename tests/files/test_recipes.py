"""Recipes: random values for every key, damage, and what the command line makes of it."""

from __future__ import annotations

import copy
import datetime
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from files.damage import all_of, anything, at_most, check, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_small import SMALL

from palate import cli
from palate import recipe as recipes
from palate.errors import PalateError, RecipeError
from palate.recipe import Recipe

SCORING = """
[scoring]
function = {name = "a.py:f", weight = -1.0}
judge = {url = "http://127.0.0.1:1/v1", model = "m", key_variable = "K"}
verifier = {kind = "text"}
"""
GOOD: dict[str, Any] = tomllib.loads(recipes.dump(recipes.parse(SMALL + SCORING, "small")))
KEYS = [(name,) for name in GOOD] + [
    (name, key) for name, values in GOOD.items() if isinstance(values, dict) for key in values
]

NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.5, 1e308, 5e-324, math.inf, math.nan]
)
TEXT = st.text(max_size=6) | st.sampled_from(
    ["kitchen", "people", "scorers", "a\x00b", "..", "/", "\x1b[31m", "x" * 3000, "\u202e"]
)
TIMES = st.sampled_from([datetime.date(2024, 1, 1), datetime.time(1), datetime.datetime(2024, 1, 1)])
VALUES = st.recursive(
    NUMBERS | TEXT | st.booleans() | TIMES | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def written(values: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key, ensure_ascii=False)} = {toml(value)}\n" for key, value in values.items())


def one_line(error: PalateError) -> None:
    assert str(error).isprintable() and len(str(error)) < 1000


def test_any_value_at_any_key(tmp_path: Path, times: int) -> None:
    path = tmp_path / "r.toml"

    @settings(max_examples=150 * times, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(KEYS), VALUES)
    def one(key: tuple[str, ...], value: Any) -> None:
        values = copy.deepcopy(GOOD)
        holder = values if len(key) == 1 else values[key[0]]
        holder[key[-1]] = value
        path.write_text(written(values), encoding="utf-8")
        got = outcome(recipes.load, path, f"{key} = {value!r}")
        if isinstance(got, RecipeError):
            one_line(got)
            assert "r.toml" in str(got) and (key[-1] in str(got) or "TOML" in str(got) or "never reach" in str(got))
        else:
            assert isinstance(got, Recipe)
            assert recipes.parse(recipes.dump(got), "dump") == got, (
                "what was accepted is written and read back the same"
            )

    one()


def test_any_key(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from([(), *((name,) for name in GOOD if isinstance(GOOD[name], dict))]), TEXT, VALUES)
    def one(section: tuple[str, ...], key: str, value: Any) -> None:
        values = copy.deepcopy(GOOD)
        (values[section[0]] if section else values)[key] = value
        path.write_text(written(values), encoding="utf-8")
        got = outcome(recipes.load, path, f"{section} {key!r} = {value!r}")
        assert isinstance(got, RecipeError)
        one_line(got)

    one()


def test_a_damaged_recipe(tmp_path: Path, times: int) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipes.dump(recipes.parse(SMALL, "small")), encoding="utf-8")
    good = path.read_bytes()
    assert check(recipes.load, path, all_of(good, some=60 * times, seed=times), anything)["refused"] > 60


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 5000 + "]" * 5000,
        "[" + ".".join("a" * 3000) + "]",
        "seed = " + "9" * 5000,
        "seed = 0x" + "f" * 5000,
        "name = '''a\nb'''",
        'name = "../../etc"',
        'name = "/etc"',
        'name = ""',
        'name = "a\\u0000b"',
        f"name = '{'x' * 300}'",
        "\x00",
        '"a\\nb" = 1',
        f"'{'x' * 9000}' = 1",
        "[model]\nlayers = 1_000_000_000\ndim = 8\nheads = 1",
        "[model]\nlayers = 1\ndim = 8_000_000_000\nheads = 1",
        "[model]\nlayers = 1\ndim = 8\nheads = 1\ncontext = 1_000_000_000_000",
        "[hardware]\nthreads = 1_000_000_000_000",
        "seed = 18446744073709551616",
        "[reward]\npeak_lr = 1e-3\nweights = {overal = 1.0}",
    ],
    ids=lambda text: text[:24],
)
def test_odd_recipes(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    code = 0
    try:
        with at_most(10):
            cli.main(["run", str(path), "--run", str(tmp_path / "run")])
    except SystemExit as end:
        code = int(end.code or 0)
    told = capsys.readouterr().err
    assert code == RecipeError.exit_code and told.count("\n") == 1 and "r.toml" in told and len(told) < 900


@pytest.mark.parametrize(
    "override",
    ["", "=", "a", "a=", ".=1", "a..b=1", "sft=5", "name.x=1", "sft.steps=" + "[" * 5000, "seed=" + "9" * 5000,
     "a\nb=1", "sft.steps=1\nname=2", "sft.steps=\x00"],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_odd_overrides(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.parse(SMALL, "small.toml", [override])
    one_line(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[collect]\nsources = ['a\\u0000b']", "[write]\ndemonstrations = ['a\\u0000b']", "[rank]\nby = ['a\\u0000b']"],
)
def test_paths_that_no_system_has(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.toml"
    for content in (text, text.replace("'a\\u0000b'", '"a\\u0000b"'), text.replace("a\\u0000b", "x" * 5000)):
        path.write_text(content)
        for stage in ("collect", "write", "rank"):
            code = 0
            try:
                cli.main(["run", str(path), "--run", str(tmp_path / "run"), "--from", stage])
            except SystemExit as end:
                code = int(end.code or 0)
            told = capsys.readouterr().err
            assert code and "Traceback" not in told and told.splitlines()[-1].startswith("palate: ")
