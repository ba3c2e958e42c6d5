"""What people preferred, split and taken apart; and the whole measurement on a few made-up questions."""

import gzip
import importlib.util
import io
import json
import lzma
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.batches.rankings import Group
from palate.commands.bench import backbone, docs, harness, people, preferences, trainers
from palate.commands.bench.preferences import Bench, Plan, Trial
from palate.commands.bench.trainers import Entry
from palate.measure import preference
from palate.records import Prompt, Response, conversation
from palate.text import tokenizer as tokenizers

WORDS = ("the malt", "of hops", "and yeast", "water", "that foam", "to be", "a cellar", "have", "with cold", "warm")
"""With those that a text in English has."""


def said(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count)).capitalize() + "."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that the bench reads, small. Answers that say "thanks" are preferred, ties are among votes,
    and every third question is asked twice."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)

    def packed(name: str, lines: list[Any]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    asked = [said(rng, 5) for _ in range(20)]
    asked += asked[::3]
    for name in ("helpful", "harmless"):
        turns = [f"\n\nHuman: {question}\n\nAssistant:" for question in asked]
        packed(
            people.FILES[name],
            [{"chosen": f"{t} {said(rng, 6)} Thanks.", "rejected": f"{t} {said(rng, 8)}"} for t in turns],
        )
    packed(
        people.FILES["open-assistant"],
        [
            {
                "prompt": {
                    "role": "prompter",
                    "text": question,
                    "replies": [
                        {"role": "assistant", "text": said(rng, 5 + k), "rank": k, "replies": []} for k in range(3)
                    ],
                }
            }
            for question in asked[:20]
        ],
    )
    packed(
        people.FILES["stack-exchange"],
        [
            {
                "id": number,
                "title": question,
                "body": said(rng, 6),
                "answers": [{"text": said(rng, 6), "score": k // 2} for k in range(2 + 10 * (number == 0) + 1)],
            }
            for number, question in enumerate(asked[:20])
        ],
    )
    (folder / "english-novels").mkdir()
    with tarfile.open(folder / "english-novels" / "novels.tar.xz", "w:xz") as archive:
        text = "\n\n".join(said(rng, 40) for _ in range(200)).encode()
        told = tarfile.TarInfo("Somebody_Beer_1850.txt")
        told.size = len(text)
        archive.addfile(told, io.BytesIO(text))
    (folder / "wikipedia-en-2015").mkdir()
    with lzma.open(folder / "wikipedia-en-2015" / "AA.txt.xz", "wt", encoding="utf-8") as file:
        for number in range(400):
            file.write(f'<doc id="{number}" url="" title="Beer {number}">\nBeer {number}\n{said(rng, 60)}\n</doc>\n')
    packed(
        "schema-guided-dialogue/train.jsonl.gz",
        [{"turns": [["USER", said(rng, 15)], ["SYSTEM", said(rng, 20)]]} for _ in range(30)],
    )
    packed(
        "dolly-15k/databricks-dolly-15k.jsonl.gz",
        [
            {"instruction": question, "context": "", "response": said(rng, 8), "category": "qa"}
            for question in (*(said(rng, 7) for _ in range(60)), *asked[:3])
        ],
    )
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.train([" ".join(WORDS) * 3], 320)


def group(scores: list[int], *, question: str = "q") -> Group:
    """One question whose answers have these votes."""
    size = range(len(scores))
    targets = tuple(
        tuple(0.5 if scores[i] == scores[j] else float(scores[i] > scores[j]) if i < j else 0.0 for j in size)
        for i in size
    )
    return Group(
        prompt=Prompt(id=question, messages=conversation(question), family=question),
        responses=tuple(Response(id=f"{question}{i}", prompt_id=question, text=f"{i}") for i in size),
        prompt_ids=tuple(range(300)),
        reply_ids=tuple((i,) * (1 + 500 * (i == 0)) for i in size),
        targets=targets,
        counted=tuple(tuple(float(i < j) for j in size) for i in size),
        labels=((None,) * 4,) * len(scores),
    )


def test_a_first_turn_is_in_one_part_only(data: Path, tokenizer: tokenizers.Tokenizer) -> None:
    for name, file in people.FILES.items():
        members = people.read(data / file, tokenizer)
        parts = people.splits(members)
        assert sum(map(len, parts.values())) == len(members)
        families = {part: {g.prompt.family for g in found} for part, found in parts.items()}
        assert sum(map(len, families.values())) == len(set.union(*families.values())), name
        for fold in range(people.FOLDS):
            trained = {g.prompt.family for g in people.training(parts, fold)}
            assert trained and not trained & families[str(fold)] and not trained & families["dev"]
            assert len(trained) + len(families[str(fold)]) + len(families["dev"]) == sum(map(len, families.values()))
        assert 0 < len(parts["dev"]) <= people.DEV * len(members)
        sizes = [len(parts[str(fold)]) for fold in range(people.FOLDS)]
        assert max(sizes) - min(sizes) <= 2
        assert parts == people.splits(members)


def test_what_the_network_reads_is_cut_at_the_right_ends() -> None:
    short = people.cut(group([2, 1]), 200)
    assert short.prompt_ids == tuple(range(300))[-people.PROMPT :]
    assert [len(ids) for ids in short.reply_ids] == [200, 1]


def test_ties_do_not_count_and_pairs_know_the_better_one() -> None:
    told = people.without_ties(group([1, 3, 1]))
    assert people.decided_pairs(told) == [(1, 0), (1, 2)]
    apart = people.pairs([told])
    assert [tuple(r.text for r in pair.responses) for pair in apart] == [("0", "1"), ("1", "2")]
    assert [people.decided_pairs(pair) for pair in apart] == [[(1, 0)], [(0, 1)]]
    assert people.one_pair([told], 3)[0] in apart
    drawn = {people.one_pair([told], seed)[0].responses[0].text for seed in range(20)}
    assert drawn == {"0", "1"}


def test_only_so_many_answers_of_one_question() -> None:
    many = people.fewer(group(list(range(12))))
    assert len(many.responses) == len(many.reply_ids) == len(many.targets) == people.MOST_ANSWERS
    votes = [int(r.text) for r in many.responses]
    assert votes == sorted(votes) and many == people.fewer(group(list(range(12))))
    assert people.decided_pairs(many) == [(j, i) for i in range(6) for j in range(i + 1, 6)]


def test_lessons_of_the_same_rankings() -> None:
    """Four questions of 4 answers, 6 pairs each: 2 steps of 2 questions an epoch."""
    members = [people.without_ties(group([4, 3, 2, 1], question=str(n))) for n in range(4)]
    entry = Entry(trainer="ours", epochs=3, questions=2)
    whole = trainers.lesson(members, entry)
    assert (whole.steps, whole.portion, whole.pairs, whole.answers) == (6, 2, 12, 48)
    apart = trainers.lesson(members, Entry(trainer="ours", epochs=3, questions=2, form="pairs"))
    assert (apart.steps, apart.portion, apart.answers, len(apart.examples)) == (6, 12, 144, 24)
    one = trainers.lesson(members, Entry(trainer="ours", epochs=3, questions=2, form="one"))
    assert (one.steps, one.answers, len(one.examples)) == (12, 48, 4)


def test_the_detectable_difference_by_hand() -> None:
    """Differences 1, 0, 0, 1: mean .5, standard deviation .5774, standard error .2887, times 2.8016."""
    told = preferences._difference([1, 1, 0, 1], [0, 1, 0, 0])
    assert told["difference"] == 0.5 and told["standard_error"] == 0.289
    assert told["detectable"] == round(2.8016 * np.std([1, 0, 0, 1], ddof=1) / 2, 3) == 0.809


def test_the_backbone_has_not_seen_the_questions(data: Path, tmp_path: Path) -> None:
    backbone.write_demonstrations(data, tmp_path / "d.jsonl", people.families(data))
    assert len((tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()) == 60
    backbone.write_demonstrations(data, tmp_path / "d.jsonl", ())
    assert len((tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()) == 63


HOW = {"epochs": 1, "questions": 2, "warmup": 1, "slice": 2}
SMALL = Plan(
    training={"helpful": HOW, "stack-exchange": HOW},
    ranked=("stack-exchange",),
    chosen_on=("helpful",),
    lrs=(1e-3,),
    tried=(Trial("helpful", ("dev", "1"), {"last token": {"pooling": "last"}, "short": {"reply": 2}}),),
    steps=21,
    sft_steps=21,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for old, new in (
        ("vocab = 4096", "vocab = 320"),
        ("layers = 4", "layers = 1"),
        ("dim = 192", "dim = 16"),
        ("heads = 3", "heads = 2"),
        ("_rows = 16", "_rows = 1"),
        ("_rows = 32", "_rows = 2"),
        ("_prompts = 50", "_prompts = 4"),
    ):
        assert old in backbone.RECIPE
        monkeypatch.setattr(backbone, "RECIPE", backbone.RECIPE.replace(old, new))


def test_ours_end_to_end_and_what_is_finished_is_not_done_again(
    data: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = backbone.make(data, tmp_path, people.families(data), steps=21, sft_steps=21)
    bench = Bench(data, tmp_path, run, SMALL)
    entry = Entry(trainer="ours", **HOW)  # type: ignore[arg-type]
    entries = {name: replace(entry, form=form) for name, form in {"whole": "whole", **preferences.FORMS}.items()}
    entries["imitating"] = replace(entry, demonstrations=2)
    told = bench.race("stack-exchange", 0, "0", entries)
    assert told["imitating"]["scores"] != told["whole"]["scores"]
    asked = bench.questions("stack-exchange")["0"]
    for name, found in told.items():
        assert [len(scores) for scores in found["scores"]] == [len(g.reply_ids) for g in asked]
        lesson = trainers.lesson(people.training(bench.questions("stack-exchange"), 0), entries[name])
        assert (found["steps"], found["answers_read"]) == (lesson.steps, lesson.answers)
        assert found["seconds_per_step"] > 0
    assert told["whole"]["answers_read"] < told["all pairs"]["answers_read"]

    def nobody(orders: object) -> None:
        raise AssertionError("a race was run again")

    monkeypatch.setattr(harness, "workers", nobody)
    assert bench.race("stack-exchange", 0, "0", entries) == told


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed (make .venv-trl/ready)")
def test_against_trl_end_to_end(data: Path, tmp_path: Path, small: None) -> None:
    found = preferences.measure(data, tmp_path, SMALL)
    rows = found["workloads"]["helpful"]["contestants"]
    assert set(rows) == {"palate", "trl", "length only", "bag of words"}
    assert rows["bag of words"]["accuracy"] > 0.9  # "thanks"
    assert rows["palate"]["steps"] == rows["trl"]["steps"] > 0 and rows["trl"]["seconds"] > 0
    assert set(found["workloads"]["stack-exchange: rankings and pairs"]["contestants"]) == {
        "rankings", "all pairs", "one pair",
    }  # fmt: skip
    assert len(found["workloads"]["learning rates"]["trials"]) == 2
    lines = list(docs.tables(found))
    assert any(line.startswith("| palate - bag of words |") for line in lines)
    assert any(line.startswith("| rankings - all pairs |") for line in lines)


def test_real_files(tokenizer: tokenizers.Tokenizer) -> None:
    """A slice of each: split as the made-up ones, and answers that people preferred are a little longer."""
    root = os.environ.get("PALATE_DATA")
    if not root:
        pytest.skip("PALATE_DATA is not set")
    counts = {"helpful": 2352, "harmless": 2310, "open-assistant": 212, "stack-exchange": 388}
    for name, file in people.FILES.items():
        members = people.read(Path(root) / file, tokenizer)
        assert len(members) == counts[name]
        parts = people.splits(members)
        assert len({g.prompt.family for g in members}) == sum(
            len({g.prompt.family for g in part}) for part in parts.values()
        )
        held_out = parts["0"]
        longer = preference.right(held_out, [[float(len(r.text)) for r in g.responses] for g in held_out])
        assert 0.4 < np.mean(longer) < 0.8
