import random
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.commands import quick
from palate.commands.rank import NotAnOrder, ask, parse_order, rank
from palate.feedback.store import open_store
from palate.recipe import Recipe
from palate.records import Prompt, Response, conversation
from palate.workspace import Workspace


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("b>a=c>d", {"b": 1, "a": 2, "c": 2, "d": 4}),
        ("bacd", {"b": 1, "a": 2, "c": 3, "d": 4}),
        (" A = b ", {"a": 1, "b": 1}),
        ("c>a", {"c": 1, "a": 2}),
    ],
)
def test_orders(text: str, ranks: dict[str, int]) -> None:
    assert parse_order(text, "abcd") == ranks


@pytest.mark.parametrize("text", ["", "a", "a>a", "a>e", "a>>b", "hello"])
def test_what_is_no_order(text: str) -> None:
    with pytest.raises(NotAnOrder):
        parse_order(text, "abcd")


def typing(*lines: str) -> Callable[[str], str]:
    waiting = list(lines)

    def read(_: str) -> str:
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    return read


def test_blind_shuffled_with_undo() -> None:
    prompts = [Prompt(id=str(i), messages=conversation(f"q{i}"), family="f") for i in range(3)]
    responses = {p.id: [Response(id=f"{p.id}{k}", prompt_id=p.id, text=f"text {k}") for k in "xyz"] for p in prompts}
    said: list[str] = []
    given = list(
        ask(prompts, responses, read=typing("a>b>c", "nonsense", "u", "b>a>c", "s", "c>b>a", "a>b"), write=said.append,
            annotator="me", rng=random.Random(0))
    )  # fmt: skip
    assert [j.prompt_id for j in given] == ["0", "0", "2"]
    assert given[1].supersedes == given[0].id
    assert all(set(j.presented_order) == {r.id for r in responses[j.prompt_id]} for j in given)
    first = given[0]
    assert first.ranks[first.presented_order[0]] == 1
    assert any("is not one of" in line for line in said)
    assert not any("sft" in line or "checkpoint" in line for line in said)


def test_judgements_are_kept_at_once_and_the_heads_follow(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    recipe, workspace = small_run
    url = f"sqlite:///{tmp_path / 'mine.sqlite'}"
    said: list[str] = []
    given = rank(
        workspace.folder,
        url=url,
        campaign="c",
        annotator="me",
        count=4,
        read=typing(*["b>a"] * 4),
        write=said.append,
        prompts=quick.choose(workspace),
    )
    with open_store(url) as store:
        assert store.judgements("c") == given and len(given) == 4
    moved = quick.refit(recipe, workspace, given)
    assert moved.prompts > 0 and "n = 4" in moved.lines[0]
    assert "orders dealt at random (10 times) change" in moved.lines[2]
