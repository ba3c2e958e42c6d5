"""What a run takes from the files that its recipe names."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from palate.errors import BadInput
from palate.feedback import exchange
from palate.feedback.exchange import runs
from palate.feedback.exchange.pile import FORM, Pile
from palate.feedback.words import family_of
from palate.records import Demonstration, Judgement, Prompt, Response, conversation

TAUGHT = Demonstration(id="d", messages=conversation("Hi?", "Hello."), family="theirs", author="ann", skill="greet")
PROMPT = Prompt(id="p", messages=conversation("A dinner?"), family="f")
ANSWERS = [Response(id=i, prompt_id="p", text=f"answer {i}") for i in "abc"]


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ours(path: Path, **records: dict[str, Any]) -> Path:
    """A file of Palate's own lines, as an export gives it: with what was superseded and withdrawn."""
    pile = Pile(**records)
    for answer in ANSWERS if pile.prompts else ():
        pile.add_response(answer)
    path.write_text("".join(exchange.lines_of(pile, "palate")), encoding="utf-8")
    return path


def test_of_our_own_demonstrations_those_that_count(tmp_path: Path) -> None:
    returned = dataclasses.replace(TAUGHT, id="r", status="returned")
    first = dataclasses.replace(TAUGHT, id="e", messages=conversation("Hi?", "Hm."))
    told = {d.id: d for d in (first, dataclasses.replace(TAUGHT, supersedes="e"), returned)}
    path = ours(tmp_path / "k.jsonl", demonstrations=told, prompts={"p": PROMPT})
    taken = runs.demonstrations(path)
    (one,) = taken.demonstrations
    assert one == dataclasses.replace(told["d"], family=family_of(TAUGHT.messages)), "the record stays as it is"
    assert taken.left_out == {
        "a demonstration that is returned": 1, "a demonstration that was written again": 1,
        "a prompt, which shows no answer": 1,
    }  # fmt: skip
    asked = runs.prompts(path)
    assert [p.messages for p in asked.prompts] == [PROMPT.messages, *[conversation("Hi?")] * 2]
    assert {p.skill for p in asked.prompts[1:]} == {"greet"} and asked.left_out["a demonstration that is returned"] == 1


def test_of_our_own_judgements_those_that_count(tmp_path: Path) -> None:
    first = Judgement(id="1", prompt_id="p", annotator="ann", ranks={"a": 1, "b": 2})
    given = {
        "1": first,
        "2": dataclasses.replace(first, id="2", ranks={"a": 2, "b": 1}, supersedes="1"),
        "3": dataclasses.replace(first, id="3", annotator="bo"),
        "4": dataclasses.replace(first, id="4", annotator="bo", ranks={}, supersedes="3", cannot_rank="withdrawn"),
        "5": dataclasses.replace(first, id="5", annotator="cy", ranks={}, rewrite_of="a", rewrite="better"),
    }
    other = Prompt(id="q", messages=conversation("And?"), family="f")
    taken = runs.rankings(ours(tmp_path / "k.jsonl", prompts={"p": PROMPT, "q": other}, judgements=given))
    assert taken.judgements == (given["2"], given["5"]) and taken.prompts == (PROMPT,)
    assert list(taken.responses) == ANSWERS
    assert taken.left_out == {
        "a judgement that another took the place of": 2, "a judgement that orders nothing": 1,
        "a prompt that nobody ranked": 1,
    }  # fmt: skip


def test_what_two_files_say_is_one(tmp_path: Path) -> None:
    pair = {"prompt": "A dinner?", "chosen": "soup", "rejected": "air", "margin": 1}
    one = runs.rankings(lines(tmp_path / "a.jsonl", pair))
    row = {"instruction": " A dinner?", "input": "\n", "output": ["soup", "bread", "air"]}
    two = runs.rankings(lines(tmp_path / "b.jsonl", row))
    assert [p.id for p in one.prompts] == [p.id for p in two.prompts]
    assert len({r.id for r in (*one.responses, *two.responses)}) == 3
    assert one.judgements[0].extra == {"margin": 1} and FORM not in json.dumps([p.to_json() for p in two.prompts])
    for name, wrong in (("demonstrations", pair), ("rankings", {"prompt": "a", "completion": "b"})):
        with pytest.raises(BadInput, match=rf"^[^:]*c\.jsonl: none of its 1 rows \(trl-.*holds {name}"):
            getattr(runs, name)(lines(tmp_path / "c.jsonl", wrong))


def test_equal_replies_of_a_tree_are_one_answer(tmp_path: Path) -> None:
    def said(text: str, rank: int) -> dict[str, Any]:
        return {"message_id": f"{text}{rank}", "text": text, "role": "assistant", "rank": rank, "replies": []}

    tree = {"text": "Hi?", "role": "prompter", "replies": [said("a", 0), said("b", 1), said("a", 2)]}
    same = {"text": "Ho?", "role": "prompter", "replies": [said("a", 0), said("a", 1)]}
    taken = runs.rankings(lines(tmp_path / "t.jsonl", {"prompt": tree}, {"prompt": same}))
    (judgement,) = taken.judgements
    texts = {response.id: response.text for response in taken.responses}
    assert {texts[id_]: rank for id_, rank in judgement.ranks.items()} == {"a": 1, "b": 2}
    assert taken.left_out == {"a judgement that orders nothing": 1, "a prompt that nobody ranked": 1}


@pytest.mark.parametrize(
    ("columns", "row", "said", "extra"),
    [
        ("prompt,response,level", "Hi?,Hello.,3", ("Hi?", "Hello."), {"level": "3"}),
        ("Instruction, Input,Output", "Add,1 1,2", ("Add\n\n1 1", "2"), {}),
        ("instruction,context,response,category", "Add,1 1,2,sums", ("Add\n\n1 1", "2"), {}),
        ("question,answer", "1 + 1?,so #### 2", ("1 + 1?", "so #### 2"), {"answer": "2"}),
        ("question,completion", "1 + 1?,2", ("1 + 1?", "2"), {}),
        ("prompt,completion", '"a, ""b""?",c', ('a, "b"?', "c"), {}),
    ],
)
def test_examples_of_a_sheet(
    columns: str, row: str, said: tuple[str, str], extra: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"{columns}\n{row}\n{row}\n")
    (one,) = runs.demonstrations(path).demonstrations
    assert one.messages == conversation(*said) and one.extra == extra
    assert {p.messages for p in runs.prompts(path).prompts} == {conversation(said[0])}
    path.write_text(f"{columns}\n")
    for read in (runs.demonstrations, runs.prompts, runs.rankings, exchange.read_file):
        with pytest.raises(BadInput, match=r"s\.csv: there is no row below"):
            read(path)


def test_prompts_of_a_sheet_and_what_is_no_example(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("prompt,answer\n1 + 1?,2\n")
    assert [p.extra for p in runs.prompts(path).prompts] == [{"answer": "2"}]
    path.write_text("prompt\nHi?\n \nHo?\n")
    told = runs.prompts(path)
    assert [p.messages for p in told.prompts] == [conversation("Hi?"), conversation("Ho?")]
    assert told.left_out == {"an empty prompt": 1}
    for content in ("prompt,response,rank\nHi?,a,1\nHi?,b,2\n", "prompt,answer_1,answer_2\nHi?,a,b\n"):
        path.write_text(content)
        with pytest.raises(BadInput, match="holds demonstrations"):
            runs.demonstrations(path)
    path.write_text("prompt,good\nHi?,a\n")
    with pytest.raises(BadInput, match=r"s\.csv:1: which columns hold answers\?"):
        runs.demonstrations(path)


def test_an_import_does_not_forget_what_stands_beside_an_instruction(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("instruction,input,output\nAdd,1 1,2\n")
    form, pile = exchange.read_file(path)
    assert form == "alpaca" and [d.messages for d in pile.demonstrations.values()] == [conversation("Add\n\n1 1", "2")]
    assert list(exchange.rows_of(pile, "alpaca")) == [{"instruction": "Add", "input": "1 1", "output": "2"}]
    path.write_text("question,answer\n1 + 1?,2\n")
    assert exchange.read_file(path)[0] == "csv-long", "which may be an answer to rank: nobody said what it is"
