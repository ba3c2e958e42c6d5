import random
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.commands import quick
from palate.commands.rank import NotAnOrder, ask, laid_out, parse_order, rank, written
from palate.feedback import asked, care
from palate.feedback.store import open_store
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, conversation
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
            annotator="me", rng=random.Random(0), upsetting={})
    )  # fmt: skip
    assert [j.prompt_id for j in given] == ["0", "0", "2"]
    assert given[1].supersedes == given[0].id
    assert all(set(j.presented_order) == {r.id for r in responses[j.prompt_id]} for j in given)
    first = given[0]
    assert first.ranks[first.presented_order[0]] == 1
    assert given[1].presented_order == given[0].presented_order, "who mends an order finds the answers where they were"
    assert any("You said a > b > c." in line for line in said)
    assert any("is not one of" in line for line in said)
    assert not any("sft" in line or "checkpoint" in line for line in said)


def test_the_last_order_can_be_taken_back_and_words_are_understood() -> None:
    prompts = [Prompt(id=str(i), messages=conversation(f"q{i}"), family="f") for i in range(2)]
    responses = {p.id: [Response(id=f"{p.id}{k}", prompt_id=p.id, text=f"text {k}") for k in "xy"] for p in prompts}
    said: list[str] = []
    given = list(
        ask(prompts, responses, read=typing("UNDO", "Skip", "a>b", "undo", "b=a", ""), write=said.append,
            annotator="me", rng=random.Random(0), upsetting={})
    )  # fmt: skip
    assert [j.prompt_id for j in given] == ["1", "1"] and given[1].supersedes == given[0].id
    assert sorted(given[1].ranks.values()) == [1, 1]
    assert any("there is none before it" in line for line in said)
    assert not list(
        ask(
            prompts,
            responses,
            read=typing("quit"),
            write=said.append,
            annotator="me",
            rng=random.Random(0),
            upsetting={},
        )
    )


def test_what_may_upset_is_shown_to_whoever_wants_to_see_it() -> None:
    prompts = [Prompt(id=str(i), messages=conversation(f"q{i}"), family="f") for i in range(2)]
    responses = {p.id: [Response(id=f"{p.id}{k}", prompt_id=p.id, text=f"{p.id} {k}") for k in "xy"] for p in prompts}
    said: list[str] = []

    def sits(*lines: str) -> list[str]:
        said.clear()
        given = ask(prompts, responses, read=typing(*lines), write=said.append, annotator="me", rng=random.Random(0),
                    upsetting={"0": ["violence", "flagged"]})  # fmt: skip
        return [judgement.prompt_id for judgement in given]

    assert sits("s", "a>b", "u", "u", "what?", "skip") == ["1"]
    assert said.count("This may upset you: violence, somebody called it harmful.") == 2
    assert not any("0 x" in line or "q0" in line for line in said)
    assert sits("", "a>b", "u", "b>a", "q") == ["0", "0"]
    assert any("0 x" in line for line in said) and sum("may upset" in line for line in said) == 1
    assert sits("q") == sits() == []


def test_topics_that_somebody_avoids_do_not_come(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    def sits(annotator: str, *lines: str) -> list[str]:
        said.clear()
        given = rank(small_run[1].folder, url=url, campaign="c", annotator=annotator, count=1, overlap=9,
                     read=typing(*lines), write=said.append)  # fmt: skip
        return [judgement.prompt_id for judgement in given]

    said: list[str] = []
    url = f"sqlite:///{tmp_path / 'mine.sqlite'}"
    (first,) = sits("me", "a>b", "")
    with open_store(url) as store:
        answer = store.responses_to(first, "c")[0]
        flags = {answer.id: ["harmful"]}
        flagged = Judgement(id="f", prompt_id=first, annotator="you", ranks={}, cannot_rank="harmful", flags=flags)
        store.add_judgements([flagged], "c")
        care.wish(store, "bo", care.Wishes(avoid=("flagged",)))
        care.wish(store, "cy", care.Wishes(cover=False))
    assert sits("ann", "", "a>b", "") == [first] and any("called it harmful" in line for line in said)
    assert sits("cy", "a>b", "") == [first]
    assert sits("bo", "a>b", "") != [first] and not any("may upset" in line for line in said)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ({"x": 2, "y": 1, "z": 2}, "b > a = c"),
        ({"x": 1, "y": 1, "z": 1}, "a = b = c"),
        ({"z": 1, "x": 2}, "c > a (b not ranked)"),
    ],
)
def test_an_order_is_said_back(ranks: dict[str, int], text: str) -> None:
    told = Judgement(id="j", prompt_id="p", annotator="me", ranks=ranks, presented_order=("x", "y", "z"))
    assert written(told) == text


def test_answers_fit_the_terminal_and_do_not_steer_it() -> None:
    text = "One line that is longer than the window.\n\n- a list-item\x1b[2J\twith a tab\n" + "x" * 70
    laid = laid_out(text, "  a)  ", "      ", 30)
    assert laid.splitlines()[:2] == ["  a)  One line that is longer", "      than the window."]
    assert max(map(len, laid.splitlines())) == 30 and "\x1b" not in laid and "\\x1b[2J" in laid
    assert laid_out("", "  a)  ", "      ", 30) == "  a)"
    assert "list-item" in laid, "words stay whole where they fit"


def test_whoever_stops_early_has_judged_what_is_held_out_too() -> None:
    prompts = [Prompt(id=str(i), messages=conversation("q"), family="f", split="train") for i in range(10)]
    held_out = [Prompt(id=f"d{i}", messages=conversation("q"), family="f", split="dev") for i in range(3)]
    turns = [prompt.id for prompt in asked.in_turn(prompts + held_out)]
    assert turns == ["0", "1", "2", "3", "d0", "4", "5", "6", "7", "d1", "8", "9", "d2"]
    assert [p.id for p in asked.in_turn(held_out)] == ["d0", "d1", "d2"] and asked.in_turn([]) == []


@pytest.mark.parametrize(
    ("overlap", "first"), [(1, ["c", "d", "a", "b"]), (2, ["a", "c", "d", "b"]), (3, ["a", "b", "c", "d"])]
)
def test_prompts_with_too_few_judgements_come_first(overlap: int, first: list[str]) -> None:
    prompts = [Prompt(id=name, messages=conversation(name), family="f") for name in "abcd"]
    order = asked.fewest_first(prompts, {"a": 1, "b": 2}, overlap)
    assert [prompt.id for prompt in order] == first


def test_nobody_is_asked_to_choose_between_equals() -> None:
    prompts = [Prompt(id=name, messages=conversation("q"), family="f") for name in "abc"]
    texts = {"a": ["yes", "no", "yes"], "b": ["yes", "yes"], "c": []}
    responses = [Response(id=f"{p}{i}", prompt_id=p, text=t) for p, each in texts.items() for i, t in enumerate(each)]
    assert [prompt.id for prompt in asked.rankable(prompts, responses)] == ["a"]
    assert [response.id for response in asked.answers(responses)["a"]] == ["a0", "a1"]


def test_a_sitting_says_what_counts(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> None:
    """How many stand, not how often something was typed; and what the run waits for, when it comes."""
    said: list[str] = []

    def sits(*lines: str, annotator: str = "me", count: int | None = 2, overlap: int = 1) -> list[Judgement]:
        said.clear()
        return rank(
            small_run[1].folder, url=f"sqlite:///{tmp_path / 'mine.sqlite'}", campaign="c", annotator=annotator,
            count=count, read=typing(*lines), write=said.append, wanted=3, overlap=overlap,
        )  # fmt: skip

    given = sits("b>a", "u", "a=b", "b>a", "")
    assert len(given) == 2 and given[0].supersedes is not None and sorted(given[0].ranks.values()) == [1, 1]
    assert "The run waits for 3 judgements and has 0." in said
    kept = [line.rsplit("   ")[-1] for line in said if line.startswith("  kept: ")]
    assert kept == ["1 of 3", "1 of 3", "2 of 3"] and said[-1].startswith("\n2 judgements of me kept in sqlite:///")
    assert not any("goes on by itself" in line for line in said)
    others = sits("b>a", "b>a", annotator="you")
    assert sum("goes on by itself" in line for line in said) == 1 and said[-1].startswith("\n2 judgements of you kept")

    mine, yours = ({judgement.prompt_id for judgement in several} for several in (given, others))
    assert not mine & yours, "one judgement each is what the recipe wants"
    both = sits("b>a", "b>a", "b>a", "b>a", annotator="third", count=4, overlap=2)
    assert {judgement.prompt_id for judgement in both} == mine | yours

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank(small_run[1].folder, url=f"sqlite:///{tmp_path / 'mine.sqlite'}", campaign="c", annotator="me", count=None,
             read=interrupted, write=said.append)  # fmt: skip
    assert said[-1].startswith("\n0 judgements of me kept")
    while sits(*["b>a"] * 9, count=9):
        pass
    assert "me has ranked every prompt of" in said[0], "which is no failure"


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
