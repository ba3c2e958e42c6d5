import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest

from palate.errors import BadInput
from palate.feedback import campaigns, demonstrations, exchange, split, statistics
from palate.feedback.exchange import runs
from palate.feedback.exchange.pile import Pile
from palate.feedback.exchange.runs import Taken
from palate.feedback.store import append_records, open_store
from palate.feedback.tables import PROMPTS
from palate.records import Demonstration, Judgement, Prompt, Response, conversation

PROMPT = Prompt(id="p", messages=conversation("Suggest a dinner."), family="f")
RESPONSES = [Response(id=i, prompt_id="p", text=f"answer {i}") for i in "abc"]


def judgement(number: str, who: str, **ranks: int) -> Judgement:
    return Judgement(id=number, prompt_id="p", annotator=who, ranks=ranks, presented_order=("a", "b", "c"))


def test_what_goes_in_comes_out_and_again_is_no_error(store_url: str) -> None:
    given = [judgement("1", "x", a=1, b=2, c=2)]
    for new in (1, 0):
        with open_store(store_url) as store:
            store.add_prompts([PROMPT], "one")
            store.add_responses(RESPONSES, "one")
            assert store.add_judgements(given, "one") == new
            assert store.judgements("one") == given and store.judgements("two") == []
            assert store.prompts("one") == [PROMPT] and store.responses("one") == RESPONSES


def test_append_only(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_prompts([PROMPT], "one")
        store.add_responses(RESPONSES, "one")
        store.add_judgements([judgement("1", "x", a=1, b=2)], "one")
        before = store.revision()
        with pytest.raises(BadInput, match="another record"):
            store.add_judgements([judgement("1", "x", a=2, b=1)], "one")
        assert store.revision() == before
        changed = Judgement(id="2", prompt_id="p", annotator="x", ranks={"a": 2, "b": 1}, supersedes="1")
        store.add_judgements([changed], "one")
        assert store.judgements("one") == [changed] and len(store.judgements("one", include_superseded=True)) == 2
        assert store.revision() > before


def test_a_ranking_of_unknown_answers_is_refused_whole(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_responses(RESPONSES, "one")
        with pytest.raises(BadInput, match="ranks response z"):
            store.add_judgements([judgement("1", "x", a=1, b=2), judgement("2", "x", a=1, z=2)], "one")
        assert store.count_judgements("one") == 0


def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "f.sqlite").write_text("this is no database, though it is long enough to be read as one" * 20)
    with pytest.raises(BadInput, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path / 'f.sqlite'}")


def test_concordance_by_hand() -> None:
    """m = 3, n = 3: rank sums 4, 6, 8; S = 8; W = 12 * 8 / (9 * 24) = 4/9."""
    same = {"a": 1, "b": 2, "c": 3}
    assert statistics.concordance([same, same]) == 1.0
    rankings = [same, same, {"a": 2, "b": 2, "c": 1}]
    # sums 1+1+2.5, 2+2+2.5, 3+3+1 = 4.5, 6.5, 7; mean 6; S = 2.25+.25+1 = 3.5; ties 2^3-2 = 6
    assert statistics.concordance(rankings) == pytest.approx(12 * 3.5 / (9 * 24 - 3 * 6))
    assert statistics.concordance([{"a": 1, "b": 1}, {"a": 1, "b": 1}]) is None


def test_agreement_by_hand() -> None:
    told = statistics.agreement([judgement("1", "x", a=1, b=2, c=3), judgement("2", "y", a=1, b=3, c=2)])
    assert told is not None and told["mean"] == pytest.approx(2 / 3)
    assert statistics.agreement([judgement("1", "x", a=1, b=2)]) is None


def test_biases_by_hand() -> None:
    given = [judgement("1", "x", a=1, b=2, c=3), judgement("2", "y", a=2, b=1, c=3)]
    assert statistics.first_shown(given) == pytest.approx(0.5 - 1 / 3)
    assert statistics.longer_wins(given, {"a": 5, "b": 2, "c": 1}) == pytest.approx(5 / 6)


def test_whole_families_move() -> None:
    families = ["a"] * 5 + ["b"] * 3 + [f"x{i}" for i in range(40)]
    placed = split.assign(families, dev=8, test=8, seed=0)
    counts = {s: sum(placed[f] == s for f in families) for s in ("train", "dev", "test")}
    assert counts["dev"] <= 8 and counts["test"] <= 8 and counts["train"] >= 24
    assert placed == split.assign(families, dev=8, test=8, seed=0)


def test_our_own_format_comes_back_exactly(tmp_path: Path) -> None:
    given = judgement("1", "x", a=1, b=2, c=2)
    pile = Pile(prompts={"p": PROMPT}, judgements={"1": given})
    for response in RESPONSES:
        pile.add_response(response)
    (tmp_path / "k.jsonl").write_text("".join(exchange.lines_of(pile, "palate")))
    told = runs.rankings(tmp_path / "k.jsonl")
    assert (told.prompts, told.responses, told.judgements) == ((PROMPT,), tuple(RESPONSES), (given,))
    pairs = list(exchange.lines_of(pile, "trl-preference"))
    assert len(pairs) == 2
    (tmp_path / "t.jsonl").write_text("".join(pairs))
    told = runs.rankings(tmp_path / "t.jsonl")
    assert [len(j.ranks) for j in told.judgements] == [2, 2] and len(told.responses) == 3


def read_one(tmp_path: Path, row: object) -> Taken:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return runs.rankings(path)


def test_outputs_in_order_best_first(tmp_path: Path) -> None:
    row = {
        "instruction": "And then?", "input": "At night.", "output": ["sleep", "eat", "sleep", "run"],
        "history": [["What by day?", "Work."]], "lang": "en",
    }  # fmt: skip
    one = read_one(tmp_path, row)
    assert one.prompts[0].messages == conversation("What by day?", "Work.", "And then?\n\nAt night.")
    assert one.judgements[0].extra == {"lang": "en"} and one.prompts[0].extra == {}
    assert [r.text for r in one.responses] == ["sleep", "eat", "run"]
    assert list(one.judgements[0].ranks.values()) == [1, 2, 3]
    with pytest.raises(BadInput, match=r"none of its 1 rows .* fewer than two different answers \(1\)"):
        read_one(tmp_path, {**row, "output": ["sleep", "sleep"]})
    for key, value in (("output", ["a", 1]), ("history", [["What?"]]), ("input", 5)):
        with pytest.raises(BadInput, match=r"rows\.jsonl:1: not of the format alpaca-ranked"):
            read_one(tmp_path, {**row, key: value})
    with pytest.raises(BadInput, match=r"none of its 1 rows \(alpaca\) holds rankings: a demonstration"):
        read_one(tmp_path, {**row, "output": "sleep"})


def test_votes_are_ranks_and_as_many_are_a_tie(tmp_path: Path) -> None:
    scores = (1, 5, 1, -2, 7)
    answers = [{"text": text, "score": score, "accepted": text == "b"} for text, score in zip("abcda", scores)]
    one = read_one(tmp_path, {"id": 3, "title": "Which?", "body": "Of these.", "answers": answers})
    assert one.prompts[0].messages == conversation("Which?\n\nOf these.") and one.prompts[0].extra == {"id": 3}
    assert [r.text for r in one.responses] == ["a", "b", "c", "d"]
    assert list(one.judgements[0].ranks.values()) == [1, 2, 3, 4], "an answer that stands twice has its better place"
    assert one.responses[1].extra == {"score": 5, "accepted": True}
    one = read_one(tmp_path, {"title": "Which?", "answers": answers[:4]})
    assert list(one.judgements[0].ranks.values()) == [2, 1, 2, 4]
    with pytest.raises(BadInput, match="fewer than two different answers"):
        read_one(tmp_path, {"title": "Which?", "answers": answers[:1]})
    for wrong in ([{"text": "a", "score": 1.5}], [{"text": "a"}], [{"score": 1}], ["a"]):
        with pytest.raises(BadInput, match=r"rows\.jsonl:1: not of the format stackexchange"):
            read_one(tmp_path, {"title": "Which?", "answers": wrong})


def test_real_files() -> None:
    data = os.environ.get("PALATE_DATA")
    if not data:
        pytest.skip("PALATE_DATA is not set")
    dolly = next((Path(data) / "dolly-15k").glob("*.jsonl*"))
    assert len(runs.demonstrations(dolly).demonstrations) == 14_996, "15 of them stand there twice"
    for path in sorted((Path(data) / "hh-rlhf").rglob("*.gz")):
        told = runs.rankings(path)
        assert len(told.judgements) > 2_000 and all(prompt.messages[-1].role == "user" for prompt in told.prompts)
    for name, count, most in (
        ("oasst-samples/en_100_tree.jsonl.gz", 212, 9),
        ("oasst-samples/oaast_rm_zh.json.gz", 772, 10),
        ("stackexchange-beer/ranked_answers.jsonl.gz", 388, 33),
    ):
        told = runs.rankings(Path(data) / name)
        assert len(told.judgements) == count and max(len(j.ranks) for j in told.judgements) == most


def lines(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_question_with_its_solution_is_a_demonstration_and_a_prompt_with_its_answer(tmp_path: Path) -> None:
    solution = "Half of 48 is <<48/2=24>>24.\n#### 1,024 "
    path = lines(
        tmp_path, {"question": "How many?", "answer": solution, "level": 3}, {"question": "Who?", "answer": "Ada"}
    )
    first, second = runs.demonstrations(path).demonstrations
    assert first.messages == conversation("How many?", solution)
    assert first.extra == {"level": 3, "answer": "1,024"} and second.extra == {"answer": "Ada"}
    asked, other = runs.prompts(path).prompts
    assert asked.messages == conversation("How many?") and asked.family == first.family
    assert (asked.extra, other.extra) == (first.extra, second.extra)


def test_a_prompt_keeps_the_right_answer_and_whatever_else_stands_beside_it(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "1 + 1?"}]
    files = [
        [{"prompt": "1 + 1?", "answer": "2", "category": "sums"}, {"prompt": turns, "answer": 2}, {"prompt": "1 + 1?"}],
        [{"messages": [*turns, {"role": "assistant", "content": "3"}], "answer": "so\n#### 2"}, {"messages": turns}],
        [{"question": "1 + 1?", "answer": "so\n#### 2", "level": 1}, {"question": "1 + 1?", "answer": None}],
        [{"instruction": "Add.", "input": "1 1"}, {"instruction": "Add.", "context": "1 1"}],
        [{"instruction": "Add.", "context": "1 1", "response": "2", "category": "sums"}],
        [{"chosen": hh("1 + 1?", "2"), "rejected": hh("1 + 1?", "3")}],
        [{"instruction": "Add.", "input": "1 1", "output": "", "chosen": "2", "rejected": "3", "answer": 2}],
    ]
    found = [runs.prompts(lines(tmp_path, *rows)).prompts for rows in files]
    assert [[p.extra for p in prompts] for prompts in found] == [
        [{"answer": "2", "category": "sums"}, {"answer": 2}, {}], [{"answer": "so\n#### 2"}, {}],
        [{"answer": "2", "level": 1}, {"answer": None}], [{}, {}], [{}], [{}],
        [{"answer": 2, "chosen": "2", "rejected": "3"}],
    ]  # fmt: skip
    asked = [conversation("1 + 1?"), conversation("Add.\n\n1 1")]
    assert [{p.messages for p in prompts} for prompts in found] == [{asked[n]} for n in (0, 0, 0, 1, 1, 0, 1)]
    assert [found[n][0].skill for n in (0, 1, 4)] == ["sums", "", "sums"]
    assert len({p.id for prompts in found for p in prompts}) == 2, "the same words are the same prompt"
    for wrong in ({"question": 5, "answer": "2"}, {"question": None}, {"answer": "2"}, {"prompt": None}):
        with pytest.raises(BadInput, match=r"rows\.jsonl:1.*no format has these keys"):
            runs.prompts(lines(tmp_path, wrong))
    with pytest.raises(BadInput, match=r"none of its 1 rows \(prompts\) holds prompts: an empty prompt"):
        runs.prompts(lines(tmp_path, {"prompt": " "}))


def hh(question: str, answer: str) -> str:
    return f"\n\nHuman: {question}\n\nAssistant: {answer}"


def test_judgements_are_counted_by_whether_people_gave_them(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add_prompts([PROMPT], "one")
        store.add_responses(RESPONSES, "one")
        theirs = judgement("1", "x", a=1, b=2)
        store.add_judgements([theirs, dataclasses.replace(theirs, id="2", simulated=True)], "one")
        counts = [store.count_judgements("one", simulated=s) for s in (None, True, False)]
    assert counts == [2, 1, 1]


def test_a_character_that_a_database_cannot_read_again_closes_nothing(store_url: str) -> None:
    """PostgreSQL stores U+0000 in JSON, and then reads no field of that record any more."""
    text = "one\x00two \\u0000 \\\x00"
    prompt = Prompt(id="p", messages=conversation(text), family="f", extra={"author": "x"})
    told = Demonstration(id="d", messages=conversation(text, text), family="f", author="x", skill=text)
    with open_store(store_url) as store:
        for new in (1, 0):
            assert store.add_prompts([prompt], "one") == new
            assert store.add_demonstrations([told], "one") == new
        assert store.prompts("one")[0].messages[0].content == "one\ufffdtwo \\u0000 \\\ufffd"
        (standing,) = demonstrations.Shelf(store, "one").standing().values()
        assert standing.skill == "one\ufffdtwo \\u0000 \\\ufffd"
        try:
            campaigns.write_guidelines(store, "one", "a\x00b", "ann")  # no JSON: one database takes it
        except BadInput as error:
            assert store.is_postgresql and "cannot be stored" in str(error)


def test_a_look_inside_another_is_a_part_of_it(store_url: str) -> None:
    with open_store(store_url) as store:
        with store.reading("prompts") as outer, store.reading("responses") as inner:
            assert inner is outer
        with store.writing() as connection:
            append_records(connection, PROMPTS, "c", [(Prompt(id="p", messages=conversation("A?"), family="f"), {})])
            assert store.prompt("p", "c") is not None, "what this transaction stored is there for it"
            seen = []
            other = threading.Thread(target=lambda: seen.append(store.prompt("p", "c")))
            other.start()
            other.join()
            assert seen == [None], "and for no other thread"
        with store.reading("prompts") as later:
            assert later is not connection
