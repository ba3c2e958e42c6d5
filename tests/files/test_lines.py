"""Files of lines: our records, demonstrations, prompts and comparisons of people and other programs, metrics."""

from __future__ import annotations

import copy
import datetime
import gzip
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files.damage import all_of, anything, at_most, beginning, blocks, check, cuts, equal, flips, outcome, tails
from hypothesis import given, settings
from hypothesis import strategies as st

from palate import metrics
from palate.errors import BadInput, BrokenArtifact, PalateError
from palate.feedback.exchange import rows as rows_of
from palate.feedback.exchange import runs
from palate.records import (
    Demonstration,
    Document,
    Judgement,
    Prompt,
    Record,
    Response,
    conversation,
    read_jsonl,
    write_jsonl,
)
from palate.stages import rank

QUICK = settings(deadline=None, derandomize=True, database=None)

RECORDS: dict[type[Record], list[Record]] = {
    Document: [
        Document(
            id=f"d{i}", text=f"crème {i}\n" * 9, source_kind="text", locator=f"f#{i}", extra={"n": [i, {"a": None}]}
        )
        for i in range(12)
    ],
    Demonstration: [
        Demonstration(id=f"s{i}", messages=conversation("hi", f"hello {i}"), family=f"{i:x}", simulated=i % 2 == 0)
        for i in range(12)
    ],
    Prompt: [Prompt(id=f"p{i}", messages=conversation(f"a\u2028dinner {i}?"), family="f") for i in range(12)],
    Response: [
        Response(id=f"r{i}", prompt_id="p", text=f"t{i}", token_ids=tuple(range(i)), sampling={"temperature": 0.7})
        for i in range(12)
    ],
    Judgement: [
        Judgement(
            id=f"j{i}",
            prompt_id="p",
            annotator="x",
            ranks={"a": 1, "b": 2},
            criteria={"a": {"clarity": 1.0 + i % 5}},
            flags={"b": ["rude"]},
            seconds=2.5,
            confidence=3,
            presented_order=("b", "a"),
        )
        for i in range(12)
    ],
}

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
DEMONSTRATIONS: list[dict[str, Any]] = [
    {"messages": TURNS, "skill": "greet"},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hey"}]},
    {"instruction": "say", "input": "hi", "output": "hi!"},
    {"instruction": "say", "context": "it", "response": "it.", "category": "qa"},
    {"prompt": "one", "completion": "two"},
    {"prompt": TURNS[:1], "completion": TURNS[1:], "more": {"deep": [1, 2.5, None]}},
    {"question": "1 + 1?", "answer": "It is 1 + 1 = 2.\n#### 2"},
    {"demonstration": {"id": "d", "messages": TURNS, "family": "f", "skill": "greet"}},
]
PROMPTS: list[dict[str, Any]] = [
    {"prompt": "one?"},
    {"prompt": TURNS[:1]},
    {"messages": TURNS},
    {"instruction": "do", "context": "this", "category": "c"},
    {"question": "1 + 1?", "answer": "2"},
    {"prompt": "2 + 2?", "answer": 4, "level": ["easy"]},
]
COMPARISONS: list[dict[str, Any]] = [
    {"prompt": "p1", "responses": ["a", "b", "c"], "ranks": [2, 1, 2], "annotator": "x"},
    {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"},
    {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "no"}]},
    {"prompt": "p2", "chosen": "good", "rejected": "bad", "score": 1.5},
    {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "no"}]},
    {"prompt": {"role": "prompter", "text": "q", "replies": [
        {"role": "assistant", "text": "x", "rank": 1, "replies": [
            {"role": "prompter", "text": "and?", "replies": [{"role": "assistant", "text": "so", "rank": None}]}]},
        {"role": "assistant", "text": "y", "rank": 0, "deleted": False}]}},
    {"instruction": "do", "input": "it", "output": ["well", "badly"], "history": [["hi", "hello"]], "more": 1},
    {"id": 7, "title": "t", "body": "b", "answers": [{"text": "x", "score": -1}, {"text": "y", "score": 2}]},
    {
        "prompt": {"id": "p", "messages": TURNS[:1], "family": "f"},
        "responses": [{"id": "r", "prompt_id": "p", "text": "t"}, {"id": "s", "prompt_id": "p", "text": "u"}],
        "judgements": [{"id": "j", "prompt_id": "p", "annotator": "x", "ranks": {"s": 1, "r": 2}}],
    },
]  # fmt: skip


def ranked(path: Path) -> list[Record]:
    """What a run takes of rankings, in the order of the judgements."""
    told = runs.rankings(path)
    prompts = {prompt.id: prompt for prompt in told.prompts}
    return [
        record
        for j in told.judgements
        for record in (prompts[j.prompt_id], *(r for r in told.responses if r.prompt_id == j.prompt_id), j)
    ]


FOREIGN: dict[str, tuple[list[dict[str, Any]], Callable[[Path], list[Any]]]] = {
    "demonstrations": (DEMONSTRATIONS, lambda path: list(runs.demonstrations(path).demonstrations)),
    "prompts": (PROMPTS, lambda path: list(runs.prompts(path).prompts)),
    "comparisons": (COMPARISONS, ranked),
}
ALIKE: dict[str, list[dict[str, Any]]] = {
    "demonstrations": [
        {"messages": [{"role": "user", "content": f"hi {n}"}, TURNS[1]], "skill": "greet", "n": n} for n in range(21)
    ],
    "prompts": [{"prompt": f"{n} + {n}?", "answer": 2 * n} if n % 3 else {"prompt": f"hi {n}?"} for n in range(21)],
    "comparisons": [
        {"prompt": f"p{n}", "responses": ["a", "b", "c"], "ranks": [2, 1, 2], "annotator": "x"} for n in range(21)
    ],
}
"""A file is of one format."""


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


# --- cut and flipped -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_our_records(kind: type[Record], times: int, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(path, RECORDS[kind])

    def load(path: Path) -> list[Record]:
        found = list(read_jsonl(path, kind))
        write_jsonl(path.with_name("again.jsonl"), found)  # what was read can be written
        assert list(read_jsonl(path.with_name("again.jsonl"), kind)) == found
        return found

    good = path.read_bytes()
    assert check(load, path, cuts(good), beginning)["refused"] > 35
    for damaged in (flips(good, 25 * times, times), blocks(good, 15 * times, times), tails(good)):
        assert check(load, path, damaged, anything)["refused"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "jsonl.xz"])
def test_files_of_other_programs(name: str, ending: str, times: int, tmp_path: Path) -> None:
    rows, load = ALIKE[name], FOREIGN[name][1]
    path = tmp_path / f"theirs.{ending}"
    good = json.dumps(rows).encode() if ending == "json" else lines(rows)
    if ending.endswith("gz"):
        good = gzip.compress(good, mtime=0)
    elif ending.endswith("xz"):
        good = lzma.compress(good)
    path.write_bytes(good)
    packed = ending != "jsonl"
    counts = check(load, path, cuts(good), equal if packed else beginning)
    assert counts["refused"] == 51 if packed else counts["refused"] > 40, "a packed file knows that it was cut"
    check(load, path, flips(good, 20 * times, times), anything)
    check(load, path, blocks(good, 12 * times, times), anything)
    check(load, path, tails(good), anything)


@pytest.mark.parametrize("name", FOREIGN)
def test_tables_of_other_programs(name: str, times: int, tmp_path: Path) -> None:
    rows, load = FOREIGN[name]
    path = tmp_path / "theirs.parquet"
    row = rows[3 if name == "comparisons" else 2 if name == "demonstrations" else 0]
    pq.write_table(pa.Table.from_pylist([row] * 40), path)
    good = path.read_bytes()
    assert check(load, path, cuts(good), equal)["refused"] == 51
    check(load, path, flips(good, 30 * times, times), anything)
    check(load, path, blocks(good, 15 * times, times), anything)
    check(load, path, tails(good), anything)


def test_a_column_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    when, price = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), Decimal("1.5")
    row = {"instruction": "i", "output": "o", "at": when, "price": price, "raw": b"\xff"}
    pq.write_table(pa.Table.from_pylist([row]), path)
    found = list(runs.demonstrations(path).demonstrations)
    write_jsonl(tmp_path / "d.jsonl", found)
    assert list(read_jsonl(tmp_path / "d.jsonl", Demonstration)) == found
    assert found[0].extra["price"] == "1.5"


def test_a_table_whose_text_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    bad = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"instruction": bad, "output": ["o"]}), path)
    with pytest.raises(BadInput, match=r"t\.parquet"):
        runs.demonstrations(path)


# --- every odd line --------------------------------------------------------------------------------------------------

ODD = [
    (b"\xff\xfe", "not UTF-8"),
    (b"\x00", "not a JSON object"),
    (b"[1]", "object"),
    (b'"text"', "object"),
    (b"12", "object"),
    (b"null", "object"),
    (b"{", "cut off"),
    (b'{"a": 1', "cut off"),
    (b'{"a": ' + b"9" * 5000 + b"}", "cut off"),
    (b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "deep"),
    (b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}", "deep"),
    (b'{"a": ' + b'{"a": ' * 400 + b"1" + b"}" * 401, "deep"),
    (b'{"a": "\\ud83d"}', "half of a character"),
    (b'{"\\udc00": 1}', "half of a character"),
    (b'{"a": NaN}', "NaN"),
    (b'{"a": [1, -Infinity]}', "Infinity"),
]


@pytest.mark.parametrize(("odd", "told"), ODD, ids=[str(odd[:14]) for odd, _ in ODD])
def test_an_odd_line_is_told_with_its_number(odd: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    good = lines([RECORDS[Prompt][0].to_json()])
    path.write_bytes(good + b"\n  \n" + odd + b"\n" + good)
    for read in (lambda: list(read_jsonl(path, Prompt)), lambda: list(rows_of.rows(path))):
        with pytest.raises(BadInput, match=rf"p\.jsonl:4: .*{told}") as caught, at_most(5):
            read()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_mark_carriage_returns_and_empty_lines_are_no_damage(tmp_path: Path) -> None:
    rows = ALIKE["demonstrations"]
    plain, windows = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    plain.write_bytes(lines(rows))
    windows.write_bytes(b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n\r\n"))
    one, two = (runs.demonstrations(path).demonstrations for path in (plain, windows))
    assert [d.messages for d in one] == [d.messages for d in two] and len(one) == 21
    array = tmp_path / "c.json"
    array.write_bytes(b"\xef\xbb\xbf \r\n" + json.dumps(rows, indent=1).encode())
    assert [d.messages for d in runs.demonstrations(array).demonstrations] == [d.messages for d in one]


def test_an_array_of_what_are_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b'[{"prompt": "a"}, 5]', b"[[]]", b"[" * 20_000, b'[{"prompt": "\\ud800"}]', b"[NaN]"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.json"):
            runs.prompts(path)


def test_a_deep_tree_of_replies(tmp_path: Path) -> None:
    """Thirty turns are read; a thousand are refused, and do not end in a traceback."""

    def tree(depth: int) -> bytes:
        node = '{"role": "assistant", "text": "a", "rank": 0, "replies": []}'
        for level in range(depth):
            role = ("prompter", "assistant")[level % 2]
            node = f'{{"role": "{role}", "text": "t{level}", "replies": [{node}]}}'
        return node.encode()

    path = tmp_path / "trees.jsonl"
    path.write_bytes(tree(31))
    with pytest.raises(BadInput, match=r"none of its 1 rows \(oasst\) holds rankings"):
        runs.rankings(path)
    for depth in (333, 3001):
        path.write_bytes(tree(depth))
        with pytest.raises(BadInput, match=r"trees\.jsonl:1"):
            runs.rankings(path)


# --- wrong values ----------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
NAMES = st.sampled_from(["role", "content", "text", "rank", "replies", "id", "prompt", "messages", "chosen", "ranks"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in inside for place in places(inner, (*here, key)))]


def changed(value: Any, place: tuple[Any, ...], new: Any, how: str) -> Any:
    """A copy in which what stands at `place` is replaced, taken away or doubled."""
    if not place:
        return new
    result = copy.deepcopy(value)
    holder = result
    for key in place[:-1]:
        holder = holder[key]
    if how == "gone":
        del holder[place[-1]]
    elif how == "twice" and isinstance(holder, list):
        holder.append(holder[place[-1]])
    else:
        holder[place[-1]] = new
    return result


def test_true_is_no_whole_number() -> None:
    """To Python it is one: an id of a token would silently be 1."""
    good = {"id": "r", "prompt_id": "p", "text": "t", "token_ids": [5, 1]}
    assert Response.from_json(good).token_ids == (5, 1)
    with pytest.raises(ValueError, match="token_ids"):
        Response.from_json(good | {"token_ids": [5, True]})
    judged = RECORDS[Judgement][1].to_json()
    assert Judgement.from_json(judged | {"confidence": 1}).confidence == 1
    with pytest.raises(ValueError, match="confidence"):
        Judgement.from_json(judged | {"confidence": True})


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_a_record_with_a_wrong_value(kind: type[Record], times: int, tmp_path: Path) -> None:
    path, again = tmp_path / "r.jsonl", tmp_path / "again.jsonl"
    good = RECORDS[kind][1].to_json()
    good = json.loads(json.dumps(good))

    def load(path: Path) -> list[Record]:
        return list(read_jsonl(path, kind))

    @settings(QUICK, max_examples=40 * times)
    @given(st.sampled_from(places(good)), VALUES, st.sampled_from(["new", "gone", "twice"]))
    def one(place: tuple[Any, ...], value: Any, how: str) -> None:
        line = changed(good, place, value, how)
        path.write_bytes(lines([line]))
        got = outcome(load, path, json.dumps(line))
        if isinstance(got, PalateError):
            assert "r.jsonl:1" in str(got) and "\n" not in str(got) and len(str(got)) < 700
            return
        assert isinstance(got, list) and len(got) == 1
        write_jsonl(again, got)
        assert load(again) == got
        told = json.loads(again.read_bytes())
        assert {key: told[key] for key in line} == line, "nothing was turned into something else on the way"

    one()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_row_with_a_wrong_value(name: str, times: int, tmp_path: Path) -> None:
    rows, load = FOREIGN[name]
    path = tmp_path / "r.jsonl"

    def one_row(row: dict[str, Any]) -> None:
        @settings(QUICK, max_examples=12 * times)
        @given(st.sampled_from(places(row)), VALUES, st.sampled_from(["new", "gone", "twice"]))
        def one(place: tuple[Any, ...], value: Any, how: str) -> None:
            path.write_bytes(lines([changed(row, place, value, how)]))
            got = outcome(load, path, path.read_text())
            if isinstance(got, PalateError):
                assert "r.jsonl" in str(got) and "\n" not in str(got) and len(str(got)) < 900
                assert "r.jsonl:1" in str(got) or "none of its 1 rows" in str(got)
            else:
                assert isinstance(got, list)
                for found in got:
                    write_jsonl(tmp_path / "again.jsonl", [found])
                    assert list(read_jsonl(tmp_path / "again.jsonl", type(found))) == [found]

        one()

    for row in rows:
        one_row(row)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_files(times: int, tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    log = metrics.Metrics(path)
    for step in range(1, 30):
        log.log(step, loss=1 / step, text="half\u2028a line\x85and\x0ban end")
    assert len(metrics.read(path)) == 29, "a line ends where it ends, whatever is written in it"
    good = path.read_bytes()
    check(metrics.read, path, cuts(good), beginning)
    check(metrics.read, path, all_of(good, some=15 * times), anything)

    def resumed(path: Path) -> list[dict[str, Any]]:
        before = path.read_bytes()
        try:
            metrics.Metrics(path, resume_after=20)
            kept = metrics.read(path)
        finally:
            path.write_bytes(before)
        return kept

    assert [line["step"] for line in resumed(path)] == list(range(1, 21))
    check(resumed, path, cuts(good), beginning)
    check(resumed, path, flips(good, 20 * times, times), anything)
    check(resumed, path, blocks(good, 15 * times, times), anything)


def test_a_damaged_line_in_the_middle_does_not_cut_the_log(tmp_path: Path) -> None:
    """Only the last line can be one that was being written when the process died."""
    path = tmp_path / "sft.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st\n{"step": 4}\n')
    for gaps in (True, False):
        with pytest.raises(BrokenArtifact, match=r"sft\.jsonl is damaged before its step 4"):
            metrics.Metrics(path, resume_after=4, gaps=gaps)
    assert path.read_text().count("\n") == 4, "it is left as it was"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    metrics.Metrics(path, resume_after=2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


# --- ids -------------------------------------------------------------------------------------------------------------


def test_two_people_who_rank_the_same_answers_are_two_judgements(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    row = {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2]}
    rows = [{**row, "annotator": "x"}, {**row, "annotator": "y"}, {**row, "annotator": "x", "ranks": [2, 1]}]
    path.write_bytes(lines([*rows, rows[0]]))
    judgements = runs.rankings(path).judgements
    assert [j.annotator for j in judgements] == ["x", "y", "x"], "the same line twice is one judgement"


K_WAY: dict[str, Any] = COMPARISONS[-1]


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("judgements", 0, "prompt_id"), "q", "j belongs to the prompt q, this one is p"),
        (("responses", 0, "prompt_id"), "q", "r belongs to the prompt q, this one is p"),
        (("responses", 1, "id"), "r", "two different responses have the same id"),
        (("judgements", 0, "ranks"), {"s": 1, "z": 2}, "names the answer z"),
        (("judgements", 0, "criteria"), {"z": {"clarity": 1.0}}, "names the answer z"),
        (("judgements", 0, "criteria"), {"r": {"clarity": 9.0}}, "scores are 1 to 5"),
        (("judgements", 0, "ranks"), {"s": 0, "r": 1}, "ranks are 1, 2, 3"),
        (("judgements", 0, "ranks"), {"s": 1.5, "r": 1}, "the field 'ranks'"),
    ],
)
def test_ids_and_numbers_that_do_not_belong(place: tuple[Any, ...], value: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    path.write_bytes(lines([K_WAY, changed(K_WAY, place, value, "new")]))
    with pytest.raises(BadInput, match=rf"k\.jsonl:2: .*{told}"):
        runs.rankings(path)


@pytest.mark.parametrize(
    ("place", "value"), [(("responses", 0, "text"), "another"), (("prompt", "messages", 0, "content"), "another?"),
                         (("judgements", 0, "ranks"), {"s": 2, "r": 1})]
)  # fmt: skip
def test_the_same_id_for_two_records_of_a_file(place: tuple[Any, ...], value: Any, tmp_path: Path) -> None:
    path, other = tmp_path / "k.jsonl", tmp_path / "other.jsonl"
    path.write_bytes(lines([K_WAY, K_WAY]))
    taken = {"k.jsonl": runs.rankings(path)}
    assert len(rank._together(taken, seed=0)[2]) == 1
    other.write_bytes(lines([changed(K_WAY, place, value, "new")]))
    with pytest.raises(BadInput, match=r"^other\.jsonl: .*has the id of another"):
        rank._together(taken | {"other.jsonl": runs.rankings(other)}, seed=0)
    path.write_bytes(lines([K_WAY, changed(K_WAY, place, value, "new")]))
    with pytest.raises(BadInput, match=r"k\.jsonl:2: .*another record has the id"):
        runs.rankings(path)
