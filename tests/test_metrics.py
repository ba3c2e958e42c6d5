"""A log goes on where the saved state does, whatever the dead process left in it."""

from pathlib import Path

import pytest

from palate.errors import BrokenArtifact, NotFinite
from palate.metrics import Metrics, read

LINE = "crème brûlée \u2028 and \x85 in one line"  # both end a line for str.splitlines, neither for JSON


def test_a_log_that_is_ahead_of_the_state(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    log = Metrics(path)
    for step in (1, 1, 2, 3):
        log.log(step, text=LINE)
    whole = path.read_bytes()
    assert [line["text"] for line in read(path)] == [LINE] * 4
    first = whole.index(b"\n") + 1
    for cut in (*range(first, 2 * first + 2), *range(2 * first + 2, len(whole), 7), len(whole)):
        path.write_bytes(whole[:cut])  # it died anywhere in a line, in a character too
        again = Metrics(path, resume_after=1)
        kept = [line["step"] for line in read(path)]
        assert kept == ([1, 1] if cut >= 2 * first else [1])
        for step in [1, 1, 2, 3][len(kept) :]:
            again.log(step, text=LINE)
        assert path.read_bytes() == whole


def test_a_stage_that_starts_again_keeps_nothing(tmp_path: Path) -> None:
    """Step 0 of PPO's watched answers would be there twice."""
    path = tmp_path / "watched.jsonl"
    Metrics(path).log(0, text="before the first round")
    Metrics(path, resume_after=0, gaps=True).log(0, text="before the first round")
    assert len(read(path)) == 1


@pytest.mark.parametrize("held", [b"", b'{"step": 1}\n{"step": 2}\n', b'{"step": 1}\n\x00\x00\x00\n{"step": 3}\n'])
def test_a_log_that_is_behind_the_state(held: bytes, tmp_path: Path) -> None:
    """Somebody cleared logs/, or the power went before it was on the disk: never a hole without a word."""
    path = tmp_path / "sft.jsonl"
    path.write_bytes(held)
    with pytest.raises(BrokenArtifact, match=r"sft\.jsonl (ends at step [02], but|is damaged before its step 3)"):
        Metrics(path, resume_after=3)
    if b"\0" not in held:
        Metrics(path, resume_after=3, gaps=True)


def test_not_a_number_is_no_metric(tmp_path: Path) -> None:
    log = Metrics(tmp_path / "sft.jsonl")
    with pytest.raises(NotFinite, match="sft: loss is nan at step 1"):
        log.log(1, loss=float("nan"))
    assert read(log.path) == []
