"""Tables that come from the JSON alone."""

import json
from pathlib import Path

import pytest

from palate.commands.bench import docs
from palate.errors import BadInput

RESULT = {
    "bench": "train",
    "machine": {"processor": "Some CPU, 8 GiB", "cores": 2, "torch": "2.11", "python": "3.11"},
    "repeats": 7,
    "workloads": {
        "a": {
            "workload": {"layers": 6, "dim": 384},
            "ceiling_tflops": {"float32": 0.1, "bfloat16": 0.41},
            "contestants": {
                "palate": {"tokens_per_second": 12345, "share_of_ceiling": 0.5},
                "gpt_float32": {"tokens_per_second": 678, "peak_mb": 900},
            },
            "times_faster": {
                "palate": {"gpt_default": {"peer": "gpt_float32", "ratio": 2.1, "low": 2.0, "high": 2.25}}
            },
        }
    },
}
PAGE = "# Speed\n\nTold by hand.\n\n<!-- bench: train -->\nstale\n<!-- end -->\n\nAlso by hand.\n"


def test_a_place_is_filled_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps(RESULT), encoding="utf-8")
    after = docs.rewritten(PAGE, tmp_path)
    assert after.startswith("# Speed\n\nTold by hand.\n\n<!-- bench: train -->\n")
    assert after.endswith("<!-- end -->\n\nAlso by hand.\n")
    assert "stale" not in after
    for line in (
        "processor Some CPU, 8 GiB; cores 2; torch 2.11; medians of 7",
        "**a**: layers 6, dim 384",
        "Matrix products reach 0.100 TFLOP/s in float32, 0.410 TFLOP/s in bfloat16.",
        "| | tokens per second | share of ceiling | peak mb |",
        "| palate | 12,345 | 0.5 |  |",
        "| gpt_float32 | 678 |  | 900 |",
        "| palate / gpt_default | gpt_float32 | **2.10** [2.00, 2.25] |",
    ):
        assert line in after.splitlines()
    assert docs.rewritten(after, tmp_path) == after


def test_the_peer_may_be_named_above_several_ratios() -> None:
    ratio = {"ratio": 1.5, "low": 1.0, "high": 2.0}
    lines = list(docs.tables({"machine": {}, "times_faster": {"trl_fastest": {"peer": "trl_bf16", "update": ratio}}}))
    assert "| trl_fastest / update | trl_bf16 | **1.50** [1.00, 2.00] |" in lines


def test_paired_differences_have_a_table_of_their_own() -> None:
    told = {"palate - trl": {"difference": 0.02, "detectable": 0.031}}
    lines = list(docs.tables({"machine": {}, "contestants": {"palate": {"accuracy": 0.6}}, "differences": told}))
    assert lines[-4:] == ["| | difference | detectable |", "|---|---|---|", "| palate - trl | 0.02 | 0.031 |", ""]


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert "Not measured yet." in docs.rewritten(PAGE, tmp_path)


def test_a_broken_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="this is no result of `palate bench`"):
        docs.rewritten(PAGE, tmp_path)


def test_a_mean_stands_with_its_interval() -> None:
    gain = {"mean": 0.25, "low": -0.0214, "high": 0.5, "n": 400}
    assert "| ppo | 0.250 [-0.021, 0.500] |" in docs.tables({"machine": {}, "contestants": {"ppo": {"gain": gain}}})


@pytest.mark.parametrize("name", ["performance.md", "methods.md", "reward.md", "scoring.md"])
def test_the_page_is_what_its_figures_give(name: str) -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs" / name).read_text(encoding="utf-8")
    assert docs.rewritten(page, root / "benchmarks") == page
