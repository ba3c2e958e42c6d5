"""Files of other programs go in and come out as they were, through a pile of records and through the store."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from feedback.written import ROWS, SHEETS, UNTOLD, assistant, node, order, rated, user
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import BadInput
from palate.feedback import demonstrations, exchange
from palate.feedback.campaigns import Settings, decide
from palate.feedback.exchange import sheets, stored, turns
from palate.feedback.exchange.pile import Pile
from palate.feedback.store import open_store
from palate.feedback.tables import AUDIT
from palate.records import Demonstration, Judgement, Message, Prompt, Response, conversation

QUICK = settings(deadline=None, derandomize=True, database=None)
Row = dict[str, Any]

PROMPT = Prompt(id="p", messages=conversation("A dinner?"), family="f", extra={"answer": 4})
ANSWERS = [Response(id=i, prompt_id="p", text=f"answer {i}", token_ids=(1, 2), model="sft") for i in "abc"]
ANN = Judgement(
    id="j", prompt_id="p", annotator="ann", ranks={"b": 1, "a": 2}, criteria={"a": {"safety": 4}},
    flags={"c": ["harmful"]}, rewrite_of="b", rewrite="better", rationale="so", confidence=3, seconds=7.5,
    presented_order=("c", "a", "b"),
)  # fmt: skip
TAUGHT = Demonstration(id="d", messages=conversation("Hi?", "Hello."), family="f", author="ann", skill="greet")


def lines(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sheet(path: Path, rows: Iterable[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def written(pile: Pile, name: str) -> list[Any]:
    text = "".join(exchange.lines_of(pile, name))
    if name in exchange.SHEETS:
        return list(csv.reader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.splitlines()]


def pile_of(name: str, folder: Path) -> tuple[str, Pile]:
    """What the fixture of a format is read as, the format told by itself."""
    if name in SHEETS:
        return exchange.read_file(sheet(folder / f"{name}.csv", SHEETS[name]))
    forced = name if name in UNTOLD else None
    return exchange.read_file(lines(folder / f"{name}.jsonl", ROWS[name]), forced)


def expected(name: str) -> list[Any]:
    return SHEETS[name] if name in SHEETS else ROWS[name]


def our_own() -> Pile:
    pile = Pile(demonstrations={"d": TAUGHT}, prompts={"p": PROMPT}, judgements={"j": ANN})
    for answer in ANSWERS:
        pile.add_response(answer)
    return pile


def test_every_format_has_rows_written_by_hand() -> None:
    assert {*ROWS, *SHEETS, "palate"} == set(exchange.FORMATS)


@pytest.mark.parametrize("name", [*ROWS, *SHEETS])
def test_what_is_read_is_written_again(name: str, tmp_path: Path) -> None:
    told, pile = pile_of(name, tmp_path)
    assert told == name and not pile.dropped
    assert written(pile, name) == expected(name)
    again = pile_of(name, tmp_path)[1]
    assert (again.prompts, again.responses, again.judgements, again.demonstrations) == (
        pile.prompts, pile.responses, pile.judgements, pile.demonstrations,
    ), "ids depend on the file alone"  # fmt: skip


def test_every_format_through_the_store(store_url: str, tmp_path: Path) -> None:
    with open_store(store_url) as store:
        for name in (*ROWS, *SHEETS):
            pile = pile_of(name, tmp_path)[1]
            kept = stored.keep(store, pile, name)
            assert (kept.prompts, kept.responses, kept.judgements, kept.demonstrations) == tuple(
                map(len, (pile.prompts, pile.responses, pile.judgements, pile.demonstrations))
            )
            assert stored.keep(store, pile, name) == stored.Kept(0, 0, 0, 0)
    with open_store(store_url) as store:
        for name in (*ROWS, *SHEETS):
            assert written(stored.taken(store, name, name), name) == expected(name), name


def test_our_own_lines_hold_everything(tmp_path: Path) -> None:
    rows = written(our_own(), "palate")
    assert [list(row) for row in rows] == [["demonstration"], ["prompt", "responses", "judgements"]]
    told, pile = exchange.read_file(lines(tmp_path / "k.jsonl", rows))
    assert told == "palate" and written(pile, told) == rows
    assert list(pile.judgements.values()) == [ANN] and list(pile.responses.values()) == ANSWERS
    assert list(pile.demonstrations.values()) == [TAUGHT] and list(pile.prompts.values()) == [PROMPT]


@pytest.mark.parametrize("name", [name for name in exchange.FORMATS if name not in ("palate", "ultrafeedback")])
def test_no_row_is_kept_whole(name: str, tmp_path: Path) -> None:
    """What comes back comes from the records: another answer in a record is another answer in the file."""
    pile = pile_of(name, tmp_path)[1]
    for response in list(pile.responses.values()):
        pile.responses[response.id] = dataclasses.replace(response, text=response.text + " CHANGED")
        pile._answers[response.prompt_id][response.id] = pile.responses[response.id]
    for d in list(pile.demonstrations.values()):
        last = Message(role="assistant", content=d.messages[-1].content + " CHANGED")
        pile.demonstrations[d.id] = dataclasses.replace(d, messages=(*d.messages[:-1], last))
    if pile.responses or pile.demonstrations:
        assert "CHANGED" in json.dumps(written(pile, name))


def test_a_later_judgement_is_written_like_those_of_the_file(tmp_path: Path) -> None:
    row = {"chosen": "\n\nHuman: Hi?\n\nAssistant: a", "rejected": "\n\nHuman: Hi?\n\nAssistant: b"}
    for name in ("hh", "trl-preference", "openai-dpo", "kway", "csv-rankings", "csv-long", "alpaca-ranked", "argilla"):
        pile = exchange.read_file(lines(tmp_path / "hh.jsonl", [row]))[1]
        (first,) = pile.judgements.values()
        better, worse = first.ranks
        later = Judgement(id="later", prompt_id=first.prompt_id, annotator="bo", ranks={worse: 1, better: 2})
        before = len(written(pile, name))
        pile.judgements["later"] = later
        after = written(pile, name)
        assert len(after) > before or name in ("argilla", "csv-long"), name
        if name == "hh":
            assert after[-1] == {"chosen": row["rejected"], "rejected": row["chosen"]}
        if name == "kway":
            assert after[-1] == {"prompt": "Hi?", "responses": ["a", "b"], "ranks": [2, 1], "annotator": "bo"}
        if name == "csv-rankings":
            assert after == [
                ["prompt", "answer_1", "answer_2", "rank_1", "rank_2", "annotator"],
                ["Hi?", "a", "b", "1", "2", ""], ["Hi?", "a", "b", "2", "1", "bo"],
            ]  # fmt: skip
        if name == "argilla":
            assert [one["user_id"] for one in after[0]["responses"]["ranking"] if "user_id" in one] == ["bo"]


def test_a_rewritten_answer_beats_the_one_it_was_made_of() -> None:
    rows = written(our_own(), "trl-preference-text")
    assert [(row["chosen"], row["rejected"]) for row in rows] == [("answer b", "answer a"), ("better", "answer b")]


def test_what_a_format_cannot_hold_is_counted() -> None:
    tie = dataclasses.replace(ANN, ranks={"a": 1, "b": 1, "c": 3}, rewrite=None, rewrite_of=None)
    for name, reason, count in (
        ("hh", "a tie, which a pair cannot say", 1),
        ("alpaca-ranked", "a tie or no order, which a list of outputs cannot say", 1),
        ("ultrafeedback", "a judgement that has no overall scores", 1),
        ("stackexchange", "a judgement that has no votes", 1),
        ("openai-comparisons", "a prompt that asks for no summary of a post or an article", 2),
    ):
        pile = our_own()
        pile.judgements["j"] = tie
        written(pile, name)
        assert pile.dropped[reason] == count, name


# --- the traps -------------------------------------------------------------------------------------------------------


def dropped(tmp_path: Path, name: str | None, *rows: Row) -> tuple[Pile, dict[str, int]]:
    pile = exchange.read_file(lines(tmp_path / "rows.jsonl", rows), name)[1]
    return pile, dict(pile.dropped)


def hh(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {text}" for n, text in enumerate(turns))


def test_pairs_that_nobody_compared_are_left_out_and_counted(tmp_path: Path) -> None:
    fine = {"chosen": hh("Hi?", "a"), "rejected": hh("Hi?", "b")}
    pile, told = dropped(
        tmp_path, None, fine,
        {"chosen": hh("Hi?", "a"), "rejected": hh("Hi?", "a")},
        {"chosen": hh("Hi?", "a"), "rejected": hh("Hi?", "a ")},
        {"chosen": hh("Hi?", "a"), "rejected": hh("Ho?", "b")},
        {"chosen": hh("Hi?", "a", "So?", "b"), "rejected": hh("Hi?", "a")},
        {"chosen": hh("Hi?", "a", "So?", "b"), "rejected": hh("Hi?", "a", "No?", "b")},
        {"chosen": "Well." + hh("Hi?", "a"), "rejected": hh("Hi?", "b")},
    )  # fmt: skip
    assert told == {
        "both answers are the same": 2,
        "they part in what the person said, which nobody compared": 2,
        "one conversation is the beginning of the other": 1,
        "text before the first turn of a transcript": 1,
    }
    assert pile.rows == 7 and written(pile, "hh") == [fine]
    for name, wrap in (("trl-preference", lambda text: [assistant(text)]), ("trl-preference-text", str)):
        asked = [user("Hi?")] if name == "trl-preference" else "Hi?"
        pile, told = dropped(tmp_path, None, {"prompt": asked, "chosen": wrap("a"), "rejected": wrap(" a\n")})
        assert told == {"both answers are the same": 1} and not pile.judgements


def test_a_pair_is_compared_where_it_parts(tmp_path: Path) -> None:
    row = {"chosen": hh("Hi?", "a", "So?", "c"), "rejected": hh("Hi?", "b", "No?", "d")}
    pile, _ = dropped(tmp_path, None, row)
    (prompt,), (better, worse) = pile.prompts.values(), pile.responses.values()
    assert prompt.messages == conversation("Hi?") and (better.text, worse.text) == ("a", "b")


def test_a_mark_inside_a_turn_is_not_written_as_a_transcript() -> None:
    pile = our_own()
    for answer in ANSWERS[:1]:
        pile.responses[answer.id] = dataclasses.replace(answer, text="one\n\nHuman: two")
    assert [row["rejected"] for row in written(pile, "hh")] == ["\n\nHuman: A dinner?\n\nAssistant: answer b"]
    (reason,) = pile.dropped
    assert "which would be read as a new turn" in reason
    pile.prompts["p"] = dataclasses.replace(PROMPT, messages=(Message(role="system", content="x"), *PROMPT.messages))
    assert written(pile, "hh") == [] and pile.dropped["a system message"] == 2


def test_ten_that_should_be_one(tmp_path: Path) -> None:
    pile = exchange.read_file(lines(tmp_path / "u.jsonl", ROWS["ultrafeedback"]))[1]
    first, second = pile.judgements.values()
    texts = {answer.id: answer.text for answer in pile.responses.values()}
    assert {texts[id_]: rank for id_, rank in first.ranks.items()} == {"soup": 1, "bread": 2, "air": 3}
    assert {texts[id_]: rank for id_, rank in second.ranks.items()} == {"b": 1, "c": 1}
    assert first.simulated and first.criteria[next(iter(first.ranks))] == {"helpfulness": 4.0, "accuracy": 5.0}
    assert pile.noted == {
        "overall scores of 10 taken for 1": 1, "overall scores of 10 that may have been 1, not ranked": 1
    }  # fmt: skip
    good = rated("a", 10, fine=4.75), rated("b", 9, fine=4.0)
    row = {"instruction": "A dinner?", "models": [], "completions": list(good)}
    pile, _ = dropped(tmp_path, None, row)
    assert list(next(iter(pile.judgements.values())).ranks.values()) == [1, 2] and not pile.noted


def test_what_no_person_judged_is_not_written_as_if_one_had(tmp_path: Path) -> None:
    pile = exchange.read_file(lines(tmp_path / "u.jsonl", ROWS["ultrafeedback"]))[1]
    with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}") as store:
        stored.keep(store, pile, "one")
        assert written(stored.taken(store, "one", "trl-preference"), "trl-preference") == []
        assert len(written(stored.taken(store, "one", "trl-preference", simulated=True), "trl-preference")) == 3
        assert len(written(stored.taken(store, "one", "palate"), "palate")) == 2


def test_deleted_messages_of_a_tree_are_left_out_with_what_follows(tmp_path: Path) -> None:
    gone = node("2", "x", node("3", "y", role="prompter"), deleted=True, rank=0)
    replies = gone, node("4", "a", rank=1), node("5", "b", rank=2)
    row = {"message_tree_id": "1", "prompt": node("1", "Hi?", *replies, role="prompter")}
    pile, told = dropped(tmp_path, None, row)
    assert told == {"a deleted message": 1} and [r.text for r in pile.responses.values()] == ["a", "b"]
    (back,) = written(pile, "oasst")
    row["prompt"]["replies"].pop(0)
    assert back == row, "ranks stay as they were, 1 and 2"


def test_a_conversation_is_a_tree_and_a_tree_a_conversation(tmp_path: Path) -> None:
    pile = Pile(source="x")
    prompt = pile.ask(conversation("Hi?", "Hello.", "A dinner?"), {})
    answers = [pile.answer(prompt, text) for text in ("soup", "air")]
    pile.judge(prompt, [(answers[0], 2), (answers[1], 1)], {})
    (tree,) = written(pile, "oasst")
    again = exchange.read_file(lines(tmp_path / "t.jsonl", [tree]))[1]
    assert [p.messages for p in again.prompts.values()][-1] == prompt.messages
    (judgement,) = again.judgements.values()
    assert {again.responses[id_].text: rank for id_, rank in judgement.ranks.items()} == {"soup": 2, "air": 1}


def test_roles_and_contents_that_we_do_not_have_are_counted(tmp_path: Path) -> None:
    pile, told = dropped(
        tmp_path, "messages", {"messages": [user("Hi?"), assistant("a")]},
        {"messages": [user("Hi?"), {"role": "tool", "content": "4"}, assistant("a")]},
        {"messages": [user("Hi?"), {"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("a")]},
        {"messages": [assistant("a"), user("Hi?")]}, {"messages": [user("Hi?"), {"role": "system", "content": "x"}]},
        {"messages": [user("Hi?"), assistant(" ")]}, {"messages": [user(""), assistant("a")]},
    )  # fmt: skip
    assert told == {
        "a turn of the role 'tool'": 1, "a turn that is no text": 2, "the last turn is not the assistant's": 1,
        "an empty answer": 1, "an empty question": 1,
    }  # fmt: skip
    assert len(pile.demonstrations) == 1 and [p.messages[-1].content for p in pile.prompts.values()] == ["Hi?"]


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"instruction": "a", "output": "b", "chosen": "b", "rejected": "c"}, "could be alpaca or alpaca-preference"),
        ({"prompt": "a", "answer": "b"}, "no format has these keys"),
        ({"prompt": "a", "response_0": "b", "response_1": "c"}, "no format has these keys"),
        ({"prompt": [user("a")], "completion": "b"}, "no format has these keys"),
        ({"conversations": [], "chosen": {}, "rejected": {}}, "no format has these keys"),
        ({"text": "a"}, "no format has these keys"),
        ({"question": "a", "context": "b", "answer": "c"}, "no format has these keys"),
        ({}, "no format has these keys"),
        ({"messages": [5]}, "a message is an object with role and content"),
        ({"messages": []}, "there is no message in it"),
        ({"messages": [{"role": "user", "content": 5}]}, "content is no text"),
        ({"prompt": "a", "responses": ["b", "c"], "ranks": [1]}, "ranks are no list of as many numbers"),
        ({"prompt": "a", "responses": ["b", "c"], "ranks": [1, "2"]}, "a rank is a whole number"),
        ({"prompt": "a", "responses": ["b", "c"], "palate_format": 1}, "kept for Palate"),
        ({"instruction": "a", "output": ["b", 1]}, "output is no list of texts"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "history is no list of question and answer"),
        ({"title": "a", "answers": [{"text": "b", "score": 1.5}]}, "is no whole number"),
        ({"prompt": node("1", "a", role="assistant")}, "a turn of the person's has the role"),
        ({"prompt": node("1", "a", node("2", "b", rank="x"), role="prompter")}, "is no whole number"),
        ({"instruction": "a", "completions": [{"response": "b", "overall_score": "9"}]}, "is no number"),
        ({"info": {"post": "a"}, "summaries": [{"text": "b"}, {"text": "c"}], "choice": 2}, "neither 0 nor 1"),
        ({"info": {"post": "a"}, "summaries": [{"text": "b"}], "choice": 0}, "no list of two objects"),
        ({"fields": {"prompt": "a"}, "responses": {"q": [{"value": [{"value": "z", "rank": 1}]}]}}, "z, which is no"),
        (
            {"fields": {"c": "a", "d": "b", "response_1": "x", "response_2": "y"}, "responses": {}},
            "which field is the prompt",
        ),
        (
            {"fields": {"prompt": "a"}, "responses": {n: [{"value": [{"value": "x", "rank": 1}]}] for n in "pq"}},
            "several ranking questions",
        ),
        ({"prompt": PROMPT.to_json(), "responses": [], "judgements": [], "more": 1}, "unknown key 'more'"),
        ({"prompt": PROMPT.to_json(), "judgements": [ANN.to_json()]}, "is not among the responses"),
    ],
)  # fmt: skip
def test_a_row_that_is_ambiguous_or_damaged_is_refused(row: Row, told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rows\.jsonl") as refused:
        exchange.read_file(lines(tmp_path / "rows.jsonl", [row]))
    assert told in str(refused.value)


def test_ambiguous_rows_are_read_once_their_format_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", [{"instruction": "a", "output": "b", "chosen": "b", "rejected": "c"}])
    assert len(exchange.read_file(path, "alpaca")[1].demonstrations) == 1
    assert len(exchange.read_file(path, "alpaca-preference")[1].judgements) == 1
    with pytest.raises(BadInput, match="there is no format 'alpaka'"):
        exchange.read_file(path, "alpaka")
    with pytest.raises(BadInput, match="not of the format messages"):
        exchange.read_file(path, "messages")
    path = lines(tmp_path / "p.jsonl", [{"prompt": "1 + 1?", "question": "2 + 2?"}])
    with pytest.raises(BadInput, match=r"p\.jsonl:1: .* which is asked, prompt or question\?"):
        exchange.read_file(path, "prompts")
    with pytest.raises(BadInput, match=r"p\.jsonl:1: .* none of prompt, question, instruction is there"):
        exchange.read_file(lines(tmp_path / "p.jsonl", [{"text": "1 + 1?"}]), "prompts")


def test_ambiguous_rows_are_what_their_reader_takes_them_for(tmp_path: Path) -> None:
    """A recipe names a file as demonstrations, as prompts or as rankings; what is left open by that is refused."""
    both = lines(tmp_path / "r.jsonl", [{"instruction": "a", "output": "b", "chosen": "b", "rejected": "c"}] * 2)
    for wanted, name in (("demonstrations", "alpaca"), ("prompts", "alpaca"), ("rankings", "alpaca-preference")):
        assert exchange.read_into(Pile(), both, wanted=wanted) == name
    asked = lines(tmp_path / "p.jsonl", [{"prompt": "a", "answer": "b"}, {"prompt": "c"}])
    assert exchange.read_into(Pile(), asked, wanted="prompts") == "prompts"
    for wanted in ("demonstrations", "rankings"):
        with pytest.raises(BadInput, match=r"p\.jsonl:1: no format has these keys \(prompt, answer\)"):
            exchange.read_into(Pile(), asked, wanted=wanted)
    several = lines(tmp_path / "s.jsonl", [{"instruction": "a", "output": ["b", "c"], "chosen": "b", "rejected": "c"}])
    with pytest.raises(BadInput, match="could be alpaca-ranked or alpaca-preference"):
        exchange.read_into(Pile(), several, wanted="rankings")
    mixed = lines(tmp_path / "m.jsonl", [{"prompt": "c"}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(BadInput, match=r"m\.jsonl:2: the lines before are of the format prompts"):
        exchange.read_into(Pile(), mixed, wanted="prompts")


def test_a_line_of_another_format_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", [{"prompt": "a"}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(BadInput, match=r"r\.jsonl:2: the lines before are of the format trl-prompt-text"):
        exchange.read_file(path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prompt,left,right\na,b,c\n", "which columns hold answers"),
        ("prompt,answer_1,response_2\na,b,c\n", "have different names"),
        ("prompt,answer_1,answer_2,response\na,b,c,d\n", "which columns hold answers"),
        ("text,answer_1,answer_2\na,b,c\n", "no column is named"),
        ("prompt,question,answer_1,answer_2\na,b,c,d\n", "several columns are named"),
        ("prompt,answer_1,answer_2,answer_1\na,b,c,d\n", "the same name"),
        ("prompt;answer_1;answer_2\na;b;c\n", "not parted by commas"),
        ("prompt,answer_1,answer_2\na,b\n", "2 cells, but there are 3 columns"),
        ("prompt,answer_1,answer_2,rank_1\na,b,c,1\n", "some answers have a column of ranks"),
        ("prompt,answer_1,answer_2,rank_1,rank_2\na,b,c,1,x\n", "the rank 'x' is no whole number"),
        ("prompt,answer_1,answer_2\n", "no row below"),
        ("", "nothing in this file"),
        ('prompt,answer_1,answer_2\na,"b"x,c\n', "unreadable CSV"),
        ("prompt,answer_1,answer_2\na,b,\udcff\n", "not UTF-8"),
    ],
)
def test_a_sheet_that_does_not_tell_is_refused(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=r"s\.csv") as refused:
        exchange.read_file(path)
    assert told in str(refused.value)


def test_columns_of_answers_are_named_where_their_names_do_not_tell(tmp_path: Path) -> None:
    rows = [["prompt", "left", "right", "rank_left", "rank_right"], ["A dinner?", "soup", "air", "2", "1"]]
    path = sheet(tmp_path / "s.csv", rows)
    name, pile = exchange.read_file(path, answers=["left", "right"])
    assert name == "csv-rankings" and written(pile, name) == rows
    with pytest.raises(BadInput, match="there is no column 'middle'"):
        exchange.read_file(path, answers=["left", "middle"])
    with pytest.raises(BadInput, match="names the columns of a CSV"):
        exchange.read_file(lines(tmp_path / "k.jsonl", ROWS["kway"]), answers=["a", "b"])


# --- a sheet's cells -------------------------------------------------------------------------------------------------


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("'=+-@\t\r\n＝a,\"", max_size=6)


@QUICK
@given(CELLS)
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str) -> None:
    told = sheets.safe(cell)
    assert sheets.plain(told) == cell
    assert not told.startswith(tuple(sheets.FORMULA))


@QUICK
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4, unique_by=lambda pair: pair[0]))
def test_answers_of_any_letters_come_back_from_a_sheet(tmp_path_factory: pytest.TempPathFactory, pairs: Any) -> None:
    pile = Pile(source="s")
    for asked, said in pairs:
        prompt = pile.ask(conversation(f"?{asked}"), {})
        for text in (f"{said}", f"{said}."):
            pile.answer(prompt, text)
    path = tmp_path_factory.mktemp("cells") / "s.csv"
    path.write_text("".join(exchange.lines_of(pile, "csv-long")), encoding="utf-8", newline="")
    again = exchange.read_file(path)[1]
    assert [(again.prompts[r.prompt_id].messages, r.text) for r in again.responses.values()] == [
        (pile.prompts[r.prompt_id].messages, r.text) for r in pile.responses.values()
    ]


# --- transcripts -----------------------------------------------------------------------------------------------------

WORDS = st.text(st.sampled_from(list("Human:Assistant \n\t.é")), max_size=24)


@QUICK
@given(st.lists(WORDS, min_size=1, max_size=5))
def test_a_transcript_is_read_and_written_without_a_change(said: list[str]) -> None:
    text = "".join(f"\n\n{('Human', 'Assistant')[n % 2]}:{words}" for n, words in enumerate(said))
    assert turns.write_transcript(turns.read_transcript(text)) == text


@QUICK
@given(st.lists(WORDS, min_size=2, max_size=5))
def test_a_conversation_is_written_as_a_transcript_that_reads_the_same_or_not_at_all(said: list[str]) -> None:
    told = [turns.Turn(message) for message in conversation(*said)]
    try:
        text = turns.write_transcript(told)
    except turns.Left:
        assert any(turns.MARK.search(f"{words}") or words.startswith(("Human:", "Assistant:")) for words in said)
    else:
        assert turns.messages_of(turns.read_transcript(text)) == conversation(*(words.strip() for words in said))


# --- people ----------------------------------------------------------------------------------------------------------


def test_people_are_pseudonyms_that_stay_the_same(store_url: str, tmp_path: Path) -> None:
    theirs = exchange.read_file(lines(tmp_path / "k.jsonl", ROWS["kway"][:1]))[1]
    with open_store(store_url) as store:
        stored.keep(store, our_own(), "one")
        stored.keep(store, theirs, "one")
        stored.keep(store, our_own(), "two")
        hidden = stored.taken(store, "one", "palate")
        (called,) = {j.annotator for j in hidden.judgements.values()} - {"ann"}
        assert called.startswith("person-") and [d.author for d in hidden.demonstrations.values()] == [called]
        assert [j.annotator for j in hidden.judgements.values()] == [called, "ann"], "a name from a file comes back"
        assert '"ann"' not in json.dumps(written(stored.taken(store, "two", "palate"), "palate"))
        assert [j.annotator for j in stored.taken(store, "one", "kway", names=True).judgements.values()] == [
            "ann",
            "ann",
        ]
    with open_store(store_url) as store:
        with store.reading("audit") as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(AUDIT)).scalar_one() == 1
        assert next(iter(stored.taken(store, "two", "kway").judgements.values())).annotator == called
        rows = written(hidden, "palate")
        again = exchange.read_file(lines(tmp_path / "again.jsonl", rows))[1]
        stored.keep(store, again, "three")
        assert written(stored.taken(store, "three", "palate"), "palate") == rows, "a pseudonym is not hidden again"
    with open_store(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        stored.keep(other, our_own(), "one")
        assert next(iter(stored.taken(other, "one", "kway").judgements.values())).annotator not in ("ann", called)


def test_a_draft_of_a_ranking_is_no_judgement(tmp_path: Path) -> None:
    row = {"prompt": "Hi?", "x": "a", "y": "b", "q.responses": [order("x", "y")] * 2}
    row |= {"q.responses.users": ["u1", "u2"], "q.responses.status": ["draft", "submitted"]}
    pile, told = dropped(tmp_path, None, row)
    assert told == {"a draft of a ranking": 1} and [j.annotator for j in pile.judgements.values()] == ["u2"]


def test_demonstrations_are_written_once_they_count(tmp_path: Path) -> None:
    first = dataclasses.replace(TAUGHT, status=demonstrations.WAITING)
    with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}") as store:
        demonstrations.hand_in(store, "one", first)
        demonstrations.hand_in(store, "one", dataclasses.replace(first, id="d2"))
        demonstrations.hand_in(store, "one", dataclasses.replace(first, id="d3", supersedes="d2"))
        demonstrations.review(store, "one", "d3", reviewer="bo", verdict="accepted", now=1.0)
        pile = stored.taken(store, "one", "messages")
        assert len(written(pile, "messages")) == 1
        assert pile.dropped == {"a demonstration that is waiting": 1, "a demonstration that is written again": 1}
        decide(store, "one", Settings(review=False))
        assert len(written(stored.taken(store, "one", "messages"), "messages")) == 2
        whole = stored.taken(store, "one", "palate", names=True)
        assert len(whole.demonstrations) == 3 and first in whole.demonstrations.values()


def test_nothing_of_a_file_is_kept_when_a_part_cannot_be(store_url: str) -> None:
    with open_store(store_url) as store:
        pile = our_own()
        pile.judgements["j2"] = dataclasses.replace(ANN, id="j2", ranks={"a": 1, "nowhere": 2})
        with pytest.raises(BadInput, match="ranks response nowhere"):
            stored.keep(store, pile, "one")
        assert store.campaigns() == [] and store.responses("one") == [] and store.demonstrations("one") == []


# --- items for the studio --------------------------------------------------------------------------------------------


def test_items_of_a_sheet_and_of_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["prompt", "a1", "a2"], ["Hi?", "x", "y"], ["Ho?", "x", "x"], ["He?", "", "z"]]
    prompts, responses, judgements = exchange.read_items(sheet(tmp_path / "s.csv", rows), ["a1", "a2"])
    assert [p.messages for p in prompts] == [conversation("Hi?")] and [r.text for r in responses] == ["x", "y"]
    assert judgements == [] and "fewer than two different answers (2)" in capsys.readouterr().err
    many = {"prompt": "many", "responses": [str(n) for n in range(10)]}
    path = lines(tmp_path / "k.jsonl", [many, {"prompt": "nine", "responses": [str(n) for n in range(9)]}])
    prompts, responses, _ = exchange.read_items(path)
    assert [p.messages for p in prompts] == [conversation("nine")] and len(responses) == 9
    assert exchange.read_items(path)[0] == prompts and "more than nine answers (1)" in capsys.readouterr().err
    assert len(exchange.read_items(lines(tmp_path / "r.jsonl", ROWS["kway"]))[2]) == 4
    for rows_ in (ROWS["messages"], [many]):
        with pytest.raises(BadInput, match="no row has a prompt with two answers"):
            exchange.read_items(lines(tmp_path / "m.jsonl", rows_))


def test_a_file_that_is_too_large_or_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip
    import zipfile

    with zipfile.ZipFile(tmp_path / "z.csv", "w") as archive:
        archive.writestr("s.csv", "prompt,answer_1,answer_2\na,b,c\n")
    with pytest.raises(BadInput, match="a zip archive or a spreadsheet"):
        exchange.read_items(tmp_path / "z.csv")
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb") as packed:
        for _ in range(60):
            packed.write(json.dumps({"prompt": " " * 1_000_000}).encode() + b"\n")
    assert (tmp_path / "bomb.jsonl.gz").stat().st_size < 1_000_000
    with pytest.raises(BadInput, match="more than 50,000,000 bytes"):
        exchange.read_items(tmp_path / "bomb.jsonl.gz")
    (tmp_path / "long.jsonl").write_bytes(b'{"prompt": "' + b"x" * 20_000_001)
    with pytest.raises(BadInput, match="a line has more than 20,000,000 bytes"):
        exchange.read_file(tmp_path / "long.jsonl")
    (tmp_path / "deep.jsonl").write_text('{"messages": ' + "[" * 200 + "]" * 200 + "}")
    with pytest.raises(BadInput, match="more than 100 levels"):
        exchange.read_file(tmp_path / "deep.jsonl")
    with pytest.raises(BadInput, match="no such file"):
        exchange.read_file(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="a folder"):
        exchange.read_file(tmp_path)
