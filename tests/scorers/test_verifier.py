"""Which number counts and when two are the same, against cases worked out by hand and GSM8K's own verdicts."""

import gzip
import json
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest

from palate.errors import ScorerFailed
from palate.feedback.exchange import runs
from palate.records import Prompt, conversation
from palate.scorers.verifier import final_number, normalised, verifier

DATA = os.environ.get("PALATE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="PALATE_DATA is not set")


def prompt(answer: object) -> Prompt:
    return Prompt(id="p", messages=conversation("How many?"), family="f", extra={"answer": answer})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42), ("-42", -42), ("\u221242", -42), ("+42", 42), ("It is 42.", 42), ("(42)", 42), ("**42**", 42),
        ("42.50", Fraction(85, 2)), ("42.000", 42), (".5", Fraction(1, 2)), ("...42", 42), ("007", 7),
        ("1,080", 1080), ("109,200,000", 109_200_000), ("12,345.678", Fraction(12_345_678, 1000)), ("1,2,3", 3),
        ("$42", 42), ("-$42", -42), ("$-42", -42), ("US$1,000.00", 1000), ("\\$42", 42), ("\u20ac5", 5), ("42%", 42),
        ("42 km", 42), ("the 3rd", 3), ("3x", 3), ("\\boxed{42}", 42), ("\u7b54\u6848\u662f42", 42),
        ("3/4", Fraction(3, 4)), ("-1/2", Fraction(-1, 2)), ("1 1/2", Fraction(3, 2)), ("6/8", Fraction(3, 4)),
        ("10-5", 5), ("10 - 5", 5), ("= -5", -5), ("(10)-5", 5), ("3 + 4 = 7 eggs", 7),
        ("x2", None), ("1e5", None), ("v2.0.1", None), ("3/4/2024", None), ("3/0", None), ("", None), ("no", None),
        ("9" * 101, None), ("4 and then 3/0", 4),
    ],
)  # fmt: skip
def test_what_a_number_is(text: str, number: int | Fraction | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = <<48/2=24>>24\n#### 72", 72),
        ("#### 72 clips in 2 months", 72),  # the first behind the mark
        ("72 clips in 2 months", 2),  # without one the last of all
        ("#### 1\n#### 2", 2),
        ("7 eggs ####", None),  # the mark promises a number that does not come
        ("####72", 72),
        ("#### -$1,080.50 a year", Fraction(-2161, 2)),
    ],
)
def test_which_number_counts(text: str, number: int | Fraction | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize("piece", ["9", "1,", "1,111", "-", "1/", "1 ", ".", "$", "1 1/", "####", "1.1"])
def test_long_nonsense_is_read_in_linear_time(piece: str) -> None:
    def seconds(times: int) -> float:
        started = time.perf_counter()
        final_number(piece * times)
        return time.perf_counter() - started

    seconds(1000)
    assert seconds(100_000) < 5.0  # squares would take minutes


def test_right_is_one_and_all_else_is_zero() -> None:
    prompts = [prompt("42"), prompt("42"), prompt(42), prompt(42.0), prompt("1,080"), prompt("so it is\n#### 42")]
    texts = ["#### 42.0", "#### 43", "forty-two", "42", "1080", "It is 42!"]
    assert verifier("number")(prompts, texts) == [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_one_third_is_not_its_beginning() -> None:
    assert verifier("number")([prompt("1/3")] * 2, ["0.333", "2/6"]) == [0.0, 1.0]


@pytest.mark.parametrize("answer", [None, "", "  ", True, ["42"], {"a": 1}])
@pytest.mark.parametrize("kind", ["number", "text"])
def test_a_prompt_without_an_answer_is_an_error_and_no_zero(answer: object, kind: str) -> None:
    with pytest.raises(ScorerFailed, match=r"prompt p .*How many.* has no right answer .*\"answer\""):
        verifier(kind)([prompt(answer)], ["42"])  # type: ignore[arg-type]
    bare = Prompt(id="p", messages=conversation("How many?"), family="f")
    with pytest.raises(ScorerFailed, match="has no right answer"):
        verifier(kind)([bare], ["42"])  # type: ignore[arg-type]


def test_a_right_answer_of_another_kind() -> None:
    with pytest.raises(ScorerFailed, match=r"'Paris' of prompt p .* holds no number.*kind = \"text\""):
        verifier("number")([prompt("Paris")], ["Paris"])
    with pytest.raises(ScorerFailed, match="holds no word"):
        verifier("text")([prompt("?!")], ["?!"])


@pytest.mark.parametrize(
    ("text", "evened"),
    [
        (" The  Eiffel\nTower. ", "the eiffel tower"),
        ('"Paris"!', "paris"),
        ("Stra\u00dfe", "strasse"),
        ("\uff30\uff41ris", "paris"),
        ("It must be this:\n#### Paris.", "paris"),
        ("e-mail, please", "e-mail, please"),
        ("3 < 4 > 1", "3 < 4 > 1"),
        ("...", ""),
    ],
)
def test_what_is_the_same_text(text: str, evened: str) -> None:
    assert normalised(text) == evened


def test_texts_are_the_same_or_not() -> None:
    assert verifier("text")([prompt("Paris")] * 4, ["paris.", "Paris, France", "", "#### PARIS"]) == [1, 0, 0, 1]


@needs_data
def test_agrees_with_the_verdicts_of_gsm8ks_authors() -> None:
    """1,319 questions with the solutions of four models, which Cobbe et al. published with `is_correct`."""
    path = Path(str(DATA)) / "gsm8k" / "example_model_solutions.jsonl.gz"
    score, seen = verifier("number"), 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            solved = [told for told in row.values() if isinstance(told, dict)]
            got = score([prompt(row["ground_truth"])] * 4, [told["solution"] for told in solved])
            assert got == [float(told["is_correct"]) for told in solved], row["question"]
            seen += len(solved)
    assert seen == 4 * 1319


@needs_data
@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_gsm8k_is_read_and_its_own_solutions_are_right(name: str, count: int) -> None:
    path = Path(str(DATA)) / "gsm8k" / f"{name}.jsonl.gz"
    demonstrations, prompts = runs.demonstrations(path).demonstrations, runs.prompts(path).prompts
    assert len(demonstrations) == len(prompts) == count
    assert all(d.extra["answer"] == p.extra["answer"] for d, p in zip(demonstrations, prompts, strict=True))
    solutions = [d.messages[-1].content for d in demonstrations]
    assert verifier("number")(prompts, solutions) == [1.0] * count
    wrong = [str(int(str(p.extra["answer"]).replace(",", "").split(".")[0]) + 1) for p in prompts]
    assert verifier("number")(prompts, wrong) == [0.0] * count
