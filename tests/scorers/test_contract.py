"""One finite number per text, or an error that says whose fault it is."""

import math

import numpy as np
import pytest
import torch

from palate.errors import ScorerFailed
from palate.records import Prompt, conversation
from palate.scorers import Weighted, checked, combined, score_each

PROMPTS = [Prompt(id=f"p{i}", messages=conversation(f"{i} + {i}?"), family="f") for i in range(3)]
TEXTS = ["0", "two", "4"]


@pytest.mark.parametrize(
    "given",
    [
        [0, 1, 2],
        (0.0, 1.0, 2.0),
        [False, True, 2],
        np.array([0, 1, 2]),
        np.array([0, 1, 2], dtype=np.float32),
        torch.tensor([0.0, 1.0, 2.0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_of_every_kind_become_floats(given: object) -> None:
    got = checked(given, "mine", PROMPTS, TEXTS)
    assert got == [0.0, 1.0, 2.0] and {type(value) for value in got} == {float}


@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, None, "1", b"1", 1j, [1.0], 10**400, np.float32("nan")], ids=repr
)
def test_what_is_no_finite_number_names_scorer_prompt_and_value(wrong: object) -> None:
    with pytest.raises(ScorerFailed) as caught:
        checked([0.0, wrong, 1.0], "function mine.py:f", PROMPTS, TEXTS)
    told = str(caught.value)
    assert "function mine.py:f" in told and "prompt p1" in told and "'two'" in told
    assert repr(wrong)[:40] in told or len(repr(wrong)) > 60


@pytest.mark.parametrize(
    ("given", "told"),
    [([1.0, 2.0], "2 values for 3 texts"), ([], "0 values"), (1.0, "returned 1.0"), (None, "returned None"),
     ("abc", "returned 'abc'"), ({"a": 1, "b": 2, "c": 3}, "not a list"), ({1, 2, 3}, "not a list")],
)  # fmt: skip
def test_another_number_of_values(given: object, told: str) -> None:
    with pytest.raises(ScorerFailed, match=told):
        checked(given, "mine", PROMPTS, TEXTS)


def test_the_sum_is_weighted_and_does_not_depend_on_the_order_of_scorers() -> None:
    long = Weighted("long", -0.1, lambda prompts, texts: [float(len(t)) for t in texts])
    right = Weighted("right", 2.0, lambda prompts, texts: [float(t.isdigit()) for t in texts])
    tenth = Weighted("tenth", 1.0, lambda prompts, texts: [0.1] * len(texts))
    scorers = [long, right, tenth]
    each = score_each(scorers, PROMPTS, TEXTS)
    assert each == {"long": [1.0, 3.0, 1.0], "right": [1.0, 0.0, 1.0], "tenth": [0.1, 0.1, 0.1]}
    assert combined(scorers, each) == pytest.approx([2.0, -0.2, 2.0], abs=1e-12)
    assert combined(scorers, each) == combined(scorers[::-1], each)


def test_a_scorer_of_any_kind_is_checked() -> None:
    with pytest.raises(ScorerFailed, match="short returned 1 values for 3 texts"):
        score_each([Weighted("short", 1.0, lambda prompts, texts: [1.0])], PROMPTS, TEXTS)
