"""The page stands alone and shows text as text."""

import json
import re

from lxml import html

from palate.recipe import Recipe
from palate.report import page, plots
from palate.workspace import Workspace


def test_nothing_comes_from_elsewhere(small_run: tuple[Recipe, Workspace]) -> None:
    text = (small_run[1].read("report") / "report.html").read_text(encoding="utf-8")
    tree = html.fromstring(text)
    assert not tree.xpath("//script | //link | //img | //iframe")
    for value in tree.xpath("//@src | //@href"):
        assert value.startswith("#"), value
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    assert len(tree.xpath("//*[local-name()='svg']")) >= 6
    ids = tree.xpath("//@id")
    assert len(ids) == len(set(ids)), "an id that comes twice shows another plot's shapes"


def test_answers_are_shown_as_text_and_missing_parts_are_left_out() -> None:
    attack = "<script>alert(1)</script>"
    report = {
        "name": attack,
        "judged_by": "learned reward",
        "simulated_people": False,
        "n": {"dev_prompts": 1, "test_prompts": 1, "too_long": 3},
        "temperatures": [0.0],
        "K": 4,
        "seed": 0,
        "bits_per_byte": {"base": 1.0},
        "stages": {"collect": {"seconds": 1.0, "peak_mb": 2.0}},
    }
    story = {
        "opening": None,
        "side_by_side": [
            {"prompt": [("user", attack)], "skill": "", "answers": {"base": {"text": attack, "overall": 0.0}}},
        ],
        "curves": {},
        "collection": {"documents_in": 1, "documents_out": 1, "rules": {}},
        "rankings": {},
    }
    text = page.render(report, story)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "no policy yet" in text and "Nobody knows the truth" in text
    assert "3 more are longer" in text
    told = "Programs ranked answers in this run"
    assert told not in text and told in page.render(report | {"ranked_by_scorers": True}, story)


def test_the_same_plot_gives_the_same_bytes() -> None:
    rows = [("one", {"mean": 0.5, "low": 0.4, "high": 0.6})]
    assert plots.dots(rows, "x") == plots.dots(rows, "x")
    assert json.dumps(str(plots.curves([{"step": 1, "a": 2.0}], ["a"])))
