import json
import os
from pathlib import Path

import pytest
from tests_small import small_recipe

from palate import flow
from palate.errors import BadInput
from palate.recipe import Recipe
from palate.records import Demonstration, Prompt, read_jsonl
from palate.scorers.verifier import verifier
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def test_splits_do_not_share_a_family(small_run: Made) -> None:
    folder = small_run[1].read("demonstrations")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    shown = {d.family for d in read_jsonl(folder / "demonstrations.jsonl", Demonstration)}
    assert {p.split for p in prompts} == {"train", "dev", "test"}
    assert not shown & {p.family for p in prompts if p.split == "test"}


def write_from(tmp_path: Path, small_run: Made, lines: list[object]) -> Workspace:
    """Run the stage on a file, over the small run's base model."""
    path = tmp_path / "people.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    recipe = small_recipe(f'write.demonstrations=["{path}"]', "write.prompts=[]", "write.dev_prompts=4",
                          "write.test_prompts=4")  # fmt: skip
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("write", recipe, workspace)
    return workspace


def test_files_of_three_formats(tmp_path: Path, small_run: Made) -> None:
    lines: list[object] = []
    for i in range(10):
        lines += [
            {"messages": [{"role": "user", "content": f"a {i}?"}, {"role": "assistant", "content": "yes"}]},
            {"instruction": f"do {i}", "input": "this", "output": "done"},
            {"instruction": f"say {i}", "context": "", "response": "said", "category": "open_qa"},
        ]
    workspace = write_from(tmp_path, small_run, lines)
    folder = workspace.read("demonstrations")
    demonstrations = list(read_jsonl(folder / "demonstrations.jsonl", Demonstration))
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    assert len(prompts) == 30 and sum(p.split == "test" for p in prompts) == 4
    assert len(demonstrations) == 22
    assert any(d.messages[0].content == "do 1\n\nthis" for d in demonstrations) or any(
        p.messages[0].content == "do 1\n\nthis" for p in prompts
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"messages": [', r"people.jsonl:2.*not a JSON object"),
        ({"speech": "hi"}, r"people.jsonl:2.*keys speech"),
        ({"instruction": "x", "output": ""}, r"people.jsonl:2.*empty"),
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
    lines: list[object] = [{"question": f"{i} + {i}?", "answer": f"It is\n#### {2 * i}"} for i in range(20)]
    turns = [{"role": role, "content": text} for role, text in (
        ("user", "hi"), ("assistant", "hello"), ("user", "1 + 1?"), ("assistant", "2"))]  # fmt: skip
    lines += [{"messages": turns, "answer": "2"}]
    lines += [{"question": "Who?", "answer": "Ada"}, {"question": "Who?", "answer": "Bob"}]
    lines += [{"question": "When?", "answer": "Now."}, {"instruction": "When?", "output": "Soon."}]
    folder = write_from(tmp_path, small_run, lines).read("demonstrations")
    answers = {p.messages[0].content: p.extra.get("answer") for p in read_jsonl(folder / "prompts.jsonl", Prompt)}
    assert answers == {f"{i} + {i}?": str(2 * i) for i in range(20)} | {"hi": None, "Who?": None, "When?": "Now."}
    report = json.loads((folder / "report.json").read_text())
    assert report["with_answer"] == 21
    assert report["dropped"] == {"answer: another line of its prompt has another": 1}


@pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA is not set")
def test_gsm8k_is_a_file_of_demonstrations(tmp_path: Path, small_run: Made) -> None:
    path = Path(os.environ["PALATE_DATA"]) / "gsm8k" / "train.jsonl.gz"
    recipe = small_recipe(f'write.demonstrations=["{path}"]', "write.prompts=[]", "write.train_prompts=5000")
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("write", recipe, workspace)
    prompts = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
    demonstrations = list(read_jsonl(workspace.read("demonstrations") / "demonstrations.jsonl", Demonstration))
    assert {p.split for p in prompts} == {"train", "dev", "test"} and len(prompts) > 1000 and demonstrations
    right = verifier("number")
    assert right(demonstrations, [d.messages[-1].content for d in demonstrations]) == [1.0] * len(demonstrations)
    assert right(prompts, ["nothing"] * len(prompts)) == [0.0] * len(prompts)
