"""A person's own function: how it is found, what it is given, and what is said when it fails."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.errors import BadInput, ScorerFailed
from palate.records import Prompt, conversation
from palate.scorers import function

PROMPTS = [Prompt(id=f"p{i}", messages=conversation(f"{i}?"), family="f", extra={"limit": i}) for i in range(3)]
TEXTS = ["a", "b c", "d e f"]
Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(code: str) -> Path:
        path = tmp_path / "rewards.py"
        path.write_text(code, encoding="utf-8")
        return path

    return write


def test_it_is_given_prompts_and_texts(written: Written) -> None:
    path = written(
        "def brief(prompts, texts):\n    return [p.extra['limit'] - len(t.split()) for p, t in zip(prompts, texts)]\n"
    )
    assert function.load(f"{path}:brief")(PROMPTS, TEXTS) == [-1.0, -1.0, -1.0]
    assert function.short(f"{path}:brief") == "function rewards.py:brief"


def test_what_it_does_to_its_lists_is_its_own_affair(written: Written) -> None:
    path = written(
        "def f(prompts, texts):\n    texts.sort(reverse=True); prompts.clear()\n    return [1] * len(texts)\n"
    )
    prompts, texts = list(PROMPTS), list(TEXTS)
    assert function.load(f"{path}:f")(prompts, texts) == [1.0] * 3
    assert prompts == PROMPTS and texts == TEXTS


def test_an_edit_within_the_second_is_seen(written: Written) -> None:
    for value in (1, 2, 3):  # of the same length: a compiled copy would be taken for current
        path = written(f"def f(prompts, texts):\n    return [{value}.0] * len(texts)\n")
        assert function.load(f"{path}:f")(PROMPTS, TEXTS) == [value] * 3
    assert [p.name for p in path.parent.iterdir()] == ["rewards.py"], "nothing is left beside it"


def test_what_lies_beside_it_can_be_imported(written: Written, tmp_path: Path) -> None:
    (tmp_path / "beside_rewards.py").write_text("HALF = 0.5\n")
    path = written(
        "from __future__ import annotations\nimport dataclasses\nfrom beside_rewards import HALF\n"
        "@dataclasses.dataclass\nclass Kept:\n    value: float\n"
        "def f(prompts, texts):\n    yield from (Kept(HALF).value for _ in texts)\n"
    )
    before = list(sys.path)
    assert function.load(f"{path}:f")(PROMPTS, TEXTS) == [0.5] * 3
    assert sys.path == before


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tastes_of_mine").mkdir()
    (tmp_path / "tastes_of_mine" / "__init__.py").write_text("")
    (tmp_path / "tastes_of_mine" / "food.py").write_text("def f(prompts, texts):\n    return [len(t) for t in texts]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "tastes_of_mine.food:f"
    assert function.load(name)(PROMPTS, TEXTS) == [1.0, 3.0, 5.0]
    assert function.short(name) == "function tastes_of_mine.food:f"
    before = function.fingerprint(name)
    (tmp_path / "tastes_of_mine" / "food.py").write_text("def f(prompts, texts):\n    return [0 for t in texts]\n")
    assert function.fingerprint(name) != before


def test_the_fingerprint_is_of_the_content(written: Written) -> None:
    first = function.fingerprint(f"{written('A = 1')}:f")
    assert function.fingerprint(f"{written('A = 2')}:f") != first
    assert function.fingerprint(f"{written('A = 1')}:f") == first


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def f(prompts, texts):\n    x = 1\n    return [x / 0 for _ in texts]\n", r"rewards\.py:3: func.*ZeroDiv"),
        ("import json\ndef f(prompts, texts):\n    return json.loads('{')\n", r"rewards\.py:3: .*JSONDecodeError"),
        ("def f(prompts, texts):\n    for t in texts:\n        yield 1\n        1 / 0\n", r"rewards\.py:4: .*ZeroDiv"),
        ("import sys\ndef f(prompts, texts):\n    sys.exit()\n", r"rewards\.py:3: .*SystemExit"),
        ("def f(prompt):\n    return 1\n", r"rewards\.py: function rewards\.py:f .*TypeError"),
        ("def f(prompts, texts):\n    return [float('nan')] * 3\n", r"function rewards\.py:f returned nan .*prompt p0"),
        ("def f(prompts, texts):\n    return [1, 1]\n", r"2 values for 3 texts"),
        ("def f(prompts, texts):\n    return None\n", r"returned None"),
        ("async def f(prompts, texts):\n    return [1, 1, 1]\n", r"returned <coroutine"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_failing_function_is_told_with_its_line_and_gives_no_score(code: str, told: str, written: Written) -> None:
    scorer = function.load(f"{written(code)}:f")
    with pytest.raises(ScorerFailed, match=told):
        scorer(PROMPTS, TEXTS)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = 1\ndef f(:\n", r"rewards\.py:2: cannot be run: SyntaxError"),
        ("import nothing_like_it\n", r"rewards\.py:1: cannot be run: ModuleNotFoundError"),
        ("def helper():\n    raise OSError('no')\nhelper()\n", r"rewards\.py:2: cannot be run: OSError: no"),
        ("raise SystemExit(3)\n", r"rewards\.py:1: cannot be run"),
        ("def brief(prompts, texts): ...\n", r"no function f in it.*brief"),
        ("f = 3\n", r"no function f in it"),
        ("\x00", r"cannot be run"),
    ],
)
def test_a_file_that_cannot_be_used(code: str, told: str, written: Written) -> None:
    with pytest.raises(BadInput, match=told):
        function.load(f"{written(code)}:f")


@pytest.mark.parametrize("name", ["nowhere.py:f", "no.such.module:f", "nosuchmodule:f", "a\x00b.py:f"])
def test_nothing_there(name: str) -> None:
    for of in (function.load, function.fingerprint):
        with pytest.raises(BadInput):
            of(name)
