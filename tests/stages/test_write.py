import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests_small import small_recipe

from palate import flow
from palate import recipe as recipes
from palate.errors import BadInput, RecipeError
from palate.feedback import campaigns, demonstrations, place
from palate.feedback.campaigns import Settings
from palate.feedback.store import open_store
from palate.feedback.words import make_prompt
from palate.recipe import Recipe
from palate.records import Demonstration, Prompt, conversation, read_jsonl
from palate.scorers.verifier import verifier
from palate.stages import write
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def test_splits_do_not_share_a_family(small_run: Made) -> None:
    folder = small_run[1].read("demonstrations")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    shown = {d.family for d in read_jsonl(folder / "demonstrations.jsonl", Demonstration)}
    assert {p.split for p in prompts} == {"train", "dev", "test"}
    assert not shown & {p.family for p in prompts if p.split == "test"}


def write_from(tmp_path: Path, small_run: Made, *files: list[object]) -> Workspace:
    """Run the stage on files, over the small run's base model."""
    paths = [tmp_path / f"people{n or ''}.jsonl" for n in range(len(files))]
    for path, lines in zip(paths, files, strict=True):
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    named = ", ".join(f'"{path}"' for path in paths)
    recipe = small_recipe(f"write.demonstrations=[{named}]", "write.prompts=[]", "write.dev_prompts=4",
                          "write.test_prompts=4")  # fmt: skip
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("write", recipe, workspace)
    return workspace


TEN = range(10)


def test_files_of_three_formats(tmp_path: Path, small_run: Made) -> None:
    files: list[list[object]] = [
        [{"messages": [{"role": "user", "content": f"a {i}?"}, {"role": "assistant", "content": "yes"}]} for i in TEN],
        [{"instruction": f"do {i}", "input": "this", "output": "done"} for i in TEN],
        [{"instruction": f"say {i}", "context": "", "response": "said", "category": "open_qa"} for i in TEN],
    ]
    workspace = write_from(tmp_path, small_run, *files)
    folder = workspace.read("demonstrations")
    kept = list(read_jsonl(folder / "demonstrations.jsonl", Demonstration))
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    assert len(prompts) == 30 and sum(p.split == "test" for p in prompts) == 4
    assert len(kept) == 22
    assert any(d.messages[0].content == "do 1\n\nthis" for d in kept) or any(
        p.messages[0].content == "do 1\n\nthis" for p in prompts
    )


def test_demonstrations_of_a_table_and_prompts_of_a_sheet(tmp_path: Path, small_run: Made) -> None:
    """The table could be instructions or pairs; that it is named as demonstrations tells. Who reads it is told why a
    row is not used."""
    rows = [{"instruction": f"do {n}", "output": "done" if n else "", "chosen": "a", "rejected": "b"} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    sheet = "prompt,answer_1,answer_2\n" + "".join(f"ask {n},a,b\n" for n in range(12)) + "same,a,a\n"
    (tmp_path / "s.csv").write_text(sheet)
    (tmp_path / "o.jsonl").write_text("".join(json.dumps({"prompt": f"ask {n}", "answer": n}) + "\n" for n in range(3)))
    recipe = small_recipe(
        f'write.demonstrations=["{tmp_path / "t.parquet"}"]', "write.dev_prompts=2", "write.test_prompts=2",
        f'write.prompts=["{tmp_path / "s.csv"}", "{tmp_path / "o.jsonl"}"]',
    )  # fmt: skip
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("write", recipe, workspace)
    folder = workspace.read("demonstrations")
    kept = list(read_jsonl(folder / "demonstrations.jsonl", Demonstration))
    assert [d.messages for d in kept] == [conversation(f"do {n}", "done") for n in range(1, 9)]
    asked = {p.messages[0].content: p.extra.get("answer") for p in read_jsonl(folder / "prompts.jsonl", Prompt)}
    assert asked == {f"ask {n}": n if n < 3 else None for n in range(12)}
    assert list(json.loads((folder / "report.json").read_text())["files"].values()) == [
        {"format": "alpaca", "rows": 9, "left_out": {"an empty answer": 1}},
        {"format": "csv", "rows": 13, "left_out": {"fewer than two different answers": 1}},
        {"format": "prompts", "rows": 3, "left_out": {}},
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"messages": [', r"people.jsonl:2.*not a JSON object"),
        ({"speech": "hi"}, r"people.jsonl:2.*keys speech"),
        ({"instruction": "x", "output": 5}, r"people.jsonl:2.*is not"),
        ({"instruction": "x", "output": "y", "history": ["x"]}, r"people.jsonl:2.*history is no list"),
    ],
)
def test_a_damaged_line_is_named(line: object, told: str, tmp_path: Path, small_run: Made) -> None:
    good = {"instruction": "x", "output": "y"}
    with pytest.raises(BadInput, match=told):
        write_from(tmp_path, small_run, [good, line])


def test_conversations_longer_than_the_context(tmp_path: Path, small_run: Made) -> None:
    with pytest.raises(BadInput, match="no demonstration is left"):
        write_from(tmp_path, small_run, [{"instruction": "x " * 900, "output": "y"}] * 3)


def test_prompts_carry_the_right_answers_of_their_demonstrations(tmp_path: Path, small_run: Made) -> None:
    sums: list[object] = [{"question": f"{i} + {i}?", "answer": f"It is\n#### {2 * i}"} for i in range(20)]
    turns = [{"role": role, "content": text} for role, text in (
        ("user", "hi"), ("assistant", "hello"), ("user", "1 + 1?"), ("assistant", "2"))]  # fmt: skip
    sums += [{"question": "Who?", "answer": "Ada"}, {"question": "Who?", "answer": "Bob"}]
    sums += [{"question": "When?", "answer": "Now."}]
    brief = {"instruction": "Where?", "output": "Here.", "system": "Be brief.", "answer": "here"}
    files = sums, [{"messages": turns, "answer": "2"}], [{"instruction": "When?", "output": "Soon."}, brief]
    folder = write_from(tmp_path, small_run, *files).read("demonstrations")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    answers = {p.messages[-1].content: p.extra.get("answer") for p in prompts}
    others = {"hi": None, "Who?": None, "When?": "Now.", "Where?": "here"}
    assert answers == {f"{i} + {i}?": str(2 * i) for i in range(20)} | others
    assert conversation("Where?", system="Be brief.") in [p.messages for p in prompts]
    report = json.loads((folder / "report.json").read_text())
    assert report["with_answer"] == 22
    assert report["dropped"] == {"answer: another line of its prompt has another": 1}


@pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA is not set")
def test_gsm8k_is_a_file_of_demonstrations(tmp_path: Path, small_run: Made) -> None:
    path = Path(os.environ["PALATE_DATA"]) / "gsm8k" / "train.jsonl.gz"
    recipe = small_recipe(f'write.demonstrations=["{path}"]', "write.prompts=[]", "write.train_prompts=5000")
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("write", recipe, workspace)
    prompts = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
    kept = list(read_jsonl(workspace.read("demonstrations") / "demonstrations.jsonl", Demonstration))
    assert {p.split for p in prompts} == {"train", "dev", "test"} and len(prompts) > 1000 and kept
    right = verifier("number")
    assert right(kept, [d.messages[-1].content for d in kept]) == [1.0] * len(kept)
    assert right(prompts, ["nothing"] * len(prompts)) == [0.0] * len(prompts)


def asks_people(tmp_path: Path, small_run: Made, *more: str) -> tuple[Recipe, Workspace]:
    url = f'feedback.store="sqlite:///{tmp_path / "people.sqlite"}"'
    asked = ['write.demonstrations=["people"]', "write.prompts=[]", "write.dev_prompts=2", "write.test_prompts=2"]
    recipe = recipes.parse(recipes.dump(small_run[0]), "small", [*asked, url, *more])
    return recipe, Workspace(tmp_path / "run", parent=small_run[1])


def by(author: str, number: int, status: str = "waiting", answer: str = "Soup.") -> Demonstration:
    messages = conversation(f"Dish {number}?", answer)
    return Demonstration(id=f"{author}{number}", messages=messages, family="whatever", author=author, status=status)


def test_people_who_write_are_waited_for(
    tmp_path: Path, small_run: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, workspace = asks_people(tmp_path, small_run, "write.until=12")
    name = place.writing(small_run[1].folder.name)
    turns = iter(range(100))

    def people_work(seconds: float) -> None:
        assert seconds == write.POLL_SECONDS
        with open_store(place.store_url(recipe, workspace)) as store:
            if (turn := next(turns)) == 0:
                store.add_demonstrations([by("ann", n) for n in range(15)], name)
                return
            for id_ in [f"ann{n}" for n in range(6 * turn - 6, 6 * turn)]:
                demonstrations.review(store, name, id_, reviewer="bob", verdict="accepted", now=0.0)

    monkeypatch.setattr(write.time, "sleep", people_work)
    assert flow.run_stage("write", recipe, workspace)
    folder = workspace.read("demonstrations")
    kept = list(read_jsonl(folder / "demonstrations.jsonl", Demonstration))
    asked = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    assert len(asked) == 12 and {p.split for p in asked} == {"train", "dev", "test"}
    assert len(kept) == 8 and {(d.author, d.reviewer, d.status) for d in kept} == {("ann", "bob", "accepted")}
    assert not {d.family for d in kept} & {p.family for p in asked if p.split != "train"}
    assert json.loads((folder / "report.json").read_text())["people"] == 8
    told = capsys.readouterr().err
    assert "0 of 12 demonstrations; write with `palate studio" in told
    assert "0 of 12 demonstrations, 15 wait for a review" in told and "6 of 12 demonstrations, 9 wait" in told

    assert not flow.run_stage("write", recipe, workspace), "what was waited for has come: nothing is stale"
    with open_store(place.store_url(recipe, workspace)) as store:
        demonstrations.review(store, name, "ann14", reviewer="bob", verdict="accepted", now=0.0)
    (step,) = (step for step in flow.plan(recipe, workspace) if step.stage.name == "write")
    assert (step.state, step.why) == ("stale", "people have written since it was made")
    assert flow.run_stage("write", recipe, workspace)
    (tmp_path / "people.sqlite").unlink()
    assert not flow.run_stage("write", recipe, workspace), "who lost the store keeps what was written"


def test_what_nobody_has_to_review_counts_at_once(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace = asks_people(tmp_path, small_run, "write.until=12")
    with open_store(place.store_url(recipe, workspace)) as store:
        name = place.writing(small_run[1].folder.name)
        campaigns.decide(store, small_run[1].folder.name, Settings(review=False))
        store.add_demonstrations([by("ann", n) for n in range(13)], name)
        demonstrations.review(store, name, "ann1", reviewer="bob", verdict="returned", comment="No.", now=0.0)
    assert flow.run_stage("write", recipe, workspace)
    assert len(list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))) == 12


def test_people_beside_files_and_the_prompts_they_wrote(tmp_path: Path, small_run: Made) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Line {n}?", "completion": "Yes."}) + "\n" for n in range(5)))
    recipe, workspace = asks_people(
        tmp_path, small_run, "write.until=6", f'write.demonstrations=["people", "{path}"]', 'write.prompts=["people"]'
    )
    with open_store(place.store_url(recipe, workspace)) as store:
        name = place.writing(small_run[1].folder.name)
        alone = [make_prompt(conversation(f"Alone {n}?"), "studio") for n in range(4)]
        system = conversation("Dish 0?", "Stew.", "And 1?", "Fish.", system="Be brief.")
        several = Demonstration(id="s", messages=system, family="x", author="ann", status="accepted")
        store.add_prompts([*alone, make_prompt(conversation("Dish 1?"), "studio")], name)
        store.add_demonstrations([several, *(by("ann", n, "accepted") for n in range(5))], name)
    assert flow.run_stage("write", recipe, workspace)
    folder = workspace.read("demonstrations")
    asked = {tuple(m.content for m in p.messages) for p in read_jsonl(folder / "prompts.jsonl", Prompt)}
    assert asked == {
        *((f"Alone {n}?",) for n in range(4)), *((f"Dish {n}?",) for n in range(5)), ("Be brief.", "Dish 0?"),
    }  # fmt: skip
    report = json.loads((folder / "report.json").read_text())
    assert sum(report["demonstrations"].values()) > report["people"] >= 1
    with open_store(place.store_url(recipe, workspace)) as store:
        store.add_prompts([make_prompt(conversation("One more?"), "studio")], name)
    assert flow.run_stage("write", recipe, workspace), "another prompt makes it stale"


def test_people_who_write_without_a_number(small_run: Made) -> None:
    with pytest.raises(RecipeError, match="needs until = N: how many demonstrations"):
        small_recipe('write.demonstrations=["kitchen", "people"]')
