"""Pages name tests; each of them must exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`?(tests/[\w/.]+\.py)::(\w+)")


def missing(text: str) -> list[str]:
    """The tests named in `text` that are not there."""
    lost = []
    for file, name in NAMED.findall(text):
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            lost.append(f"{file}::{name}")
    return lost


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    assert missing(page.read_text(encoding="utf-8")) == []


def test_a_test_that_is_gone_is_noticed() -> None:
    assert missing("see `tests/test_docs.py::test_gone` and tests/gone.py::test_it, tests/test_docs.py::missing") == [
        "tests/test_docs.py::test_gone", "tests/gone.py::test_it",
    ]  # fmt: skip


def test_ppo_answers_every_row_of_the_checklist() -> None:
    """One line for each of the 38 details that break PPO quietly: a named test, or why there is none."""
    page = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", page, flags=re.M)
    assert [int(number) for number, *_ in rows] == list(range(1, 39))
    for number, _, _, held in rows:
        assert NAMED.search(held) or held.startswith("no test: "), number
