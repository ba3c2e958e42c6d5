"""`palate feedback` as people type it: in, out, backed up and brought back."""

import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from feedback.test_exchange import expected, pile_of, written
from feedback.written import ROWS, SHEETS, UNTOLD

from palate import cli
from palate.feedback import exchange, place
from palate.feedback.exchange import runs
from palate.feedback.exchange.pile import details
from palate.feedback.exchange.rows import rows as rows_of
from palate.feedback.store import open_store
from palate.recipe import Recipe
from palate.records import Judgement
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
DATA = os.environ.get("PALATE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="PALATE_DATA is not set")
GUIDE = Path(__file__).parents[2] / "docs" / "feedback.md"


def call(*argv: str) -> int:
    try:
        cli.main(["feedback", *argv])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", [*ROWS, *SHEETS])
def test_every_format_by_the_command_line(name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    pile_of(name, tmp_path)
    file, store = tmp_path / (f"{name}.csv" if name in SHEETS else f"{name}.jsonl"), str(tmp_path / "s.sqlite")
    forced = ["--format", name] if name in UNTOLD else []
    assert call("import", store, str(file), *forced) == 0
    assert f"({name}) into campaign {name.partition('.')[0]} of sqlite:///" in capfdbinary.readouterr().out.decode()
    assert call("export", store, "--format", name) == 0
    out = tmp_path / "out"
    out.write_bytes(capfdbinary.readouterr().out)
    again = out.rename(tmp_path / ("again.csv" if name in SHEETS else "again.jsonl"))
    assert written(exchange.read_file(again, name)[1], name) == expected(name)
    assert call("export", store, "--format", name, "--out", str(tmp_path / "o")) == 0
    assert (tmp_path / "o").read_bytes() == again.read_bytes()


def test_what_was_kept_and_what_was_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {"prompt": "a", "chosen": "b", "rejected": "b"}
    file, store = lines(tmp_path / "f.jsonl", [ROWS["trl-preference-text"][0], same, same]), tmp_path / "s.sqlite"
    for new in (True, False):
        assert call("import", str(store), str(file), "--campaign", "one") == 0
        told = capsys.readouterr().out
        assert "f.jsonl: 3 rows (trl-preference-text) into campaign one" in told
        assert "  left out: both answers are the same (2)\n" in told
        assert ("  2 answers, 2 of them there already\n" in told) != new
    assert call("import", str(store), str(lines(tmp_path / "g.jsonl", [same]))) == 3
    assert "none of its 1 rows (trl-preference-text) could be used: both answers" in capsys.readouterr().err


def test_nothing_is_stored_of_a_file_with_a_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lines(tmp_path / "f.jsonl", [*ROWS["kway"], {"prompt": "a", "responses": ["b", "c"], "ranks": [1]}])
    assert call("import", str(tmp_path / "s.sqlite"), str(file)) == 3
    error = capsys.readouterr().err
    assert f"f.jsonl:{len(ROWS['kway']) + 1}: not of the format kway" in error and error.count("\n") == 1
    assert not (tmp_path / "s.sqlite").exists()


def test_places_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(lines(tmp_path / "f.jsonl", ROWS["kway"]))
    for argv, told in (
        (("export", str(tmp_path / "none.sqlite")), "there is no such store"),
        (("export", f"sqlite:///{tmp_path / 'none.sqlite'}"), "there is no such store"),
        (("import", str(tmp_path / "none.txt"), file), "there is no such store"),
        (("import", str(tmp_path), file), "this folder is no run"),
        (("import", "x://", file), "cannot be opened"),
        (("import", file, file), "cannot be opened"),
        (("import", str(tmp_path / "s.sqlite"), str(tmp_path / "none.jsonl")), "no such file"),
        (("import", str(tmp_path / "s.sqlite"), file, "--format", "x"), "there is no format 'x'"),
        (("export", str(tmp_path / "s.sqlite"), "--out", "x.csv"), "which CSV is wanted"),
        (("backup", str(tmp_path / "none.sqlite"), str(tmp_path / "b.gz")), "there is no such store"),
        (("restore", str(tmp_path / "none.gz"), str(tmp_path / "s.sqlite")), "no such file"),
    ):
        assert call(*argv) != 0
        error = capsys.readouterr().err
        assert told in error and "Traceback" not in error and error.count("\n") == 1, error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.jsonl"]


def test_which_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, file = str(tmp_path / "s.sqlite"), str(lines(tmp_path / "first.jsonl", ROWS["kway"]))
    assert call("import", store, file) == 0 and call("export", store) == 0
    assert call("import", store, file, "--campaign", "second") == 0
    for argv in (("import", store, file), ("export", store)):
        capsys.readouterr()
        assert call(*argv) == 3 and "several campaigns: first, second. Say which" in capsys.readouterr().err
    assert call("export", store, "--campaign", "third") == 3 and "It has: first, second" in capsys.readouterr().err
    assert call("export", store, "--campaign", "second", "--format", "messages") == 3
    assert "nothing in campaign second can be written as messages" in capsys.readouterr().err


def test_a_run_has_a_store_and_a_campaign(
    small_run: Made, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Judgements of people by name, the panel's only where they can be marked."""
    recipe, workspace = small_run[0], Workspace(tmp_path / "runs" / small_run[1].folder.name)
    shutil.copytree(small_run[1].folder.parent, tmp_path / "runs")
    url, campaign = place.store_url(recipe, workspace), place.campaign(workspace)
    with open_store(url) as store:
        prompt = store.prompts(campaign)[0]
        answers = [r for r in store.responses(campaign) if r.prompt_id == prompt.id][:2]
        ranks = {answer.id: rank for rank, answer in enumerate(answers, start=1)}
        store.add_judgements([Judgement(id="mine", prompt_id=prompt.id, annotator="Ann", ranks=ranks)], campaign)
        panel = store.count_judgements(campaign, simulated=True)
    run = str(workspace.folder)
    assert call("export", run, "--format", "kway") == 0
    told = capfdbinary.readouterr()
    (row,) = [json.loads(line) for line in told.out.splitlines() if b'"ranks"' in line]
    assert row["responses"] == [a.text for a in answers] and row["annotator"].startswith("person-")
    assert f"that no person gave (--simulated takes it) ({panel:,})".encode() in told.err
    assert call("export", run, "--format", "kway", "--names") == 0
    assert b'"annotator": "Ann"' in capfdbinary.readouterr().out
    assert call("export", run) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert sum(j["simulated"] for row in rows for j in row.get("judgements", [])) == panel > 0
    assert call("import", run, str(lines(tmp_path / "k.jsonl", ROWS["kway"][:1]))) == 0
    assert f"into campaign {campaign}".encode() in capfdbinary.readouterr().out


def test_backup_and_restore(store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, file = str(tmp_path / "s.sqlite"), str(lines(tmp_path / "first.jsonl", ROWS["kway"]))
    assert call("import", source, file) == 0 and call("backup", source, str(tmp_path / "b.jsonl.gz")) == 0
    assert call("restore", str(tmp_path / "b.jsonl.gz"), store_url) == 0
    assert call("export", store_url, "--format", "kway", "--out", str(tmp_path / "out.jsonl")) == 0
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ROWS["kway"]
    assert call("export", store_url, "--format", "kway", "--out", str(tmp_path / "out.jsonl")) == 3
    assert "exists already" in capsys.readouterr().err
    assert call("restore", str(tmp_path / "b.jsonl.gz"), store_url) == 3
    assert "Restore into a store that is empty" in capsys.readouterr().err


def test_feedback_needs_no_torch(tmp_path: Path) -> None:
    file = lines(tmp_path / "first.jsonl", ROWS["kway"])
    code = (
        "import sys; from palate import cli; "
        f"cli.main(['feedback', 'import', {str(tmp_path / 's.sqlite')!r}, {str(file)!r}]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_names_every_format() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    assert [name for name in exchange.FORMATS if f"`{name}`" not in page] == []


# --- real data -------------------------------------------------------------------------------------------------------


def through(store: str, file: str, name: str, tmp_path: Path, *options: str) -> tuple[list[Any], list[Any]]:
    """(rows of the file, rows after they went in and out again by the command line)."""
    path, campaign = Path(DATA or "") / file, file.replace("/", "-")
    assert call("import", store, str(path), "--campaign", campaign, *options) == 0
    assert call("export", store, "--campaign", campaign, "--format", name, "--out", str(tmp_path / campaign)) == 0
    with (tmp_path / campaign).open(encoding="utf-8") as out:
        back = [json.loads(line) for line in out]
    return [row for _, row in rows_of(path)], back


@needs_data
@pytest.mark.parametrize(
    ("file", "name", "rows", "left_out", "counts"),
    [
        ("hh-rlhf/helpful-base/test.jsonl.gz", "hh", 2354, 2, {"prompts": 2352, "answers": 4704, "judgements": 2352}),
        ("hh-rlhf/harmless-base/test.jsonl.gz", "hh", 2312, 0, {"prompts": 2310, "answers": 4624, "judgements": 2312}),
        ("oasst-samples/en_100_tree.jsonl.gz", "oasst", 100, 0, {"prompts": 480, "answers": 687, "judgements": 212}),
        (
            "oasst-samples/oaast_rm_zh.json.gz", "alpaca-ranked", 775, 3,
            {"prompts": 750, "answers": 1979, "judgements": 772},
        ),
        (
            "stackexchange-beer/ranked_answers.jsonl.gz", "stackexchange", 388, 0,
            {"prompts": 388, "answers": 1289, "judgements": 388},
        ),
        ("dolly-15k/databricks-dolly-15k.jsonl.gz", "dolly", 15_011, 0, {"demonstrations": 15_011}),
    ],
)  # fmt: skip
def test_real_files_go_in_and_come_out_exactly(
    file: str, name: str, rows: int, left_out: int, counts: dict[str, int], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before, after = through(str(tmp_path / "s.sqlite"), file, name, tmp_path)
    told = capsys.readouterr().out
    assert f"{rows:,} rows ({name})" in told and len(before) == rows and len(after) == rows - left_out
    assert all(f"  {count:,} {what}\n" in told for what, count in counts.items()), told
    kept = [row for row in before if row in after] if left_out else before
    assert kept == after
    said = {"hh": "both answers are the same", "alpaca-ranked": "fewer than two different answers"}.get(name, "")
    assert (f"left out: {said} ({left_out})" in told) == bool(left_out)


@needs_data
@pytest.mark.parametrize(
    ("file", "name", "wanted", "rows"),
    [
        ("dolly-15k/databricks-dolly-15k.jsonl.gz", None, "demonstrations", 15_011),
        ("gsm8k/train.jsonl.gz", None, "demonstrations", 7_473),
        ("gsm8k/test.jsonl.gz", None, "demonstrations", 1_319),
        ("gsm8k/test_socratic.jsonl.gz", None, "demonstrations", 1_319),
        ("gsm8k/example_model_solutions.jsonl.gz", "prompts", "prompts", 1_319),
        ("self-instruct/seed_tasks.jsonl", "prompts", "prompts", 175),
        ("llms-from-scratch/instruction-data.json", None, "demonstrations", 1_100),
        ("llms-from-scratch/instruction-data-with-preference.json.gz", "alpaca", "demonstrations", 1_100),
        ("llms-from-scratch/instruction-data-with-preference.json.gz", "alpaca-preference", "rankings", 1_100),
        ("oasst-samples/oaast_sft_zh.json.gz", None, "demonstrations", 689),
        ("oasst-samples/oaast_rm_zh.json.gz", None, "rankings", 775),
        ("oasst-samples/en_100_tree.jsonl.gz", None, "rankings", 100),
        ("oasst-samples/en_100_message.jsonl.gz", None, "rankings", 100),
        ("hh-rlhf/helpful-base/test.jsonl.gz", None, "rankings", 2_354),
        ("hh-rlhf/harmless-base/test.jsonl.gz", None, "rankings", 2_312),
        ("stackexchange-beer/ranked_answers.jsonl.gz", None, "rankings", 388),
    ],
)
def test_a_stage_reads_of_a_real_file_what_an_import_does(
    file: str, name: str | None, wanted: str, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a run what says the same is one, and what nobody ranked is no ranking; the rest is as many, and the same."""
    path, store = Path(DATA or "") / file, str(tmp_path / "s.sqlite")
    assert call("import", store, str(path), *(("--format", name) if name else ())) == 0
    told = {"demonstrations": runs.demonstrations, "prompts": runs.prompts, "rankings": runs.rankings}[wanted](path)
    assert told.rows == rows and f"{rows:,} rows ({told.form})" in capsys.readouterr().out
    with open_store(f"sqlite:///{store}") as kept:
        (campaign,) = kept.campaigns()
        prompts = {prompt.id: prompt for prompt in kept.prompts(campaign)}
        texts = {response.id: response.text for response in kept.responses(campaign)}
        imported = collections.Counter(
            (prompts[j.prompt_id].messages, tuple((texts[id_], rank) for id_, rank in j.ranks.items()))
            for j in kept.judgements(campaign)
        )
        demonstrations = {d.messages for d in kept.demonstrations(campaign)}
    texts = {response.id: response.text for response in told.responses}
    asked = {prompt.id: prompt for prompt in told.prompts}
    if wanted == "demonstrations":
        assert {d.messages for d in told.demonstrations} == demonstrations and demonstrations
        assert len(told.demonstrations) == len(demonstrations)
    elif wanted == "prompts":
        assert len(told.prompts) == len(prompts) == rows
        assert [p.messages for p in told.prompts] == [p.messages for p in prompts.values()]
    else:
        assert imported == collections.Counter(
            (asked[j.prompt_id].messages, tuple((texts[id_], rank) for id_, rank in j.ranks.items()))
            for j in told.judgements
        )


@needs_data
def test_how_many_real_pairs_part_before_their_last_turn() -> None:
    count = 0
    for part in ("helpful-base", "harmless-base"):
        pile = exchange.read_file(Path(DATA or "") / "hh-rlhf" / part / "test.jsonl.gz")[1]
        pairs = ([details(pile.responses[id_], "hh") for id_ in j.ranks] for j in pile.judgements.values())
        count += sum(any("after" in told for told in pair) for pair in pairs)
    assert count == 14


@needs_data
def test_what_the_real_trees_hold(tmp_path: Path) -> None:
    """Groups by how many answers they have, and pairs in every format that has pairs: all 754 of them, but for three
    answers in which somebody wrote a transcript."""
    store = str(tmp_path / "s.sqlite")
    through(store, "oasst-samples/en_100_tree.jsonl.gz", "oasst", tmp_path)
    with open_store(f"sqlite:///{store}") as kept:
        (campaign,) = kept.campaigns()
        sizes = collections.Counter(len(j.ranks) for j in kept.judgements(campaign))
    assert sizes == SIZES
    pairs = sum(count * size * (size - 1) // 2 for size, count in sizes.items())
    for name in ("hh", "trl-preference", "trl-implicit", "openai-dpo"):
        out = tmp_path / f"{name}.jsonl"
        assert call("export", store, "--format", name, "--out", str(out)) == 0
        pile = exchange.read_file(out, name)[1]
        with out.open(encoding="utf-8") as file:
            assert written(pile, name) == [json.loads(line) for line in file]
        assert len(pile.judgements) == pairs - (3 if name == "hh" else 0), name


SIZES = {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1}


@needs_data
def test_real_pairs_with_alpaca_columns_are_ambiguous_until_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(DATA or "") / "llms-from-scratch" / "instruction-data-with-preference.json.gz"
    store = str(tmp_path / "s.sqlite")
    assert call("import", store, str(file)) == 3
    assert "could be alpaca or alpaca-preference" in capsys.readouterr().err
    before, after = through(
        store, f"llms-from-scratch/{file.name}", "alpaca-preference", tmp_path, "--format", "alpaca-preference"
    )
    assert len(before) == 1100 and len(after) == 1094
    assert after == [row for row in before if row["chosen"].strip() != row["rejected"].strip()]
