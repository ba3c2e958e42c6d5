"""The measurements of aligning: what is made of several seeds' figures, and all of it on a small kitchen."""

import json
import math
import statistics
from pathlib import Path

import pytest
from tests_small import SMALL

from palate.commands.bench import aligned, docs
from palate.errors import BadInput
from palate.kitchen import knowledge
from palate.kitchen.judge import Judge


def test_the_interval_over_seeds_is_students() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5]  # mean .3, std .1581, standard error .0707
    assert aligned.over_seeds(values) == "0.300 [0.104, 0.496]"
    assert aligned.over_seeds([0.25]) == "0.250"
    error = statistics.stdev(values) / math.sqrt(5)
    assert aligned.noticeable(values) == pytest.approx((2.776 + 0.941) * error)
    assert aligned.noticeable([1.0]) == math.inf


def test_seeds_that_settings_were_chosen_on_are_refused(tmp_path: Path) -> None:
    for seeds, part, which in (([41, 103], "methods", 103), ([41, 71], "stop", 41)):
        with pytest.raises(BadInput, match=f"chosen on seed {which}"):
            aligned.main(tmp_path, lambda _: lambda *_: {}, tmp_path, None, seeds, [part])


def test_what_stops_in_time() -> None:
    def told(mean):
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 9}

    looks = [
        {"round": i, "overall": gold, "gold": told(gold), "kl": float(i), "score": told(i / 2)}
        for i, gold in enumerate((0.4, 0.5, 0.3))
    ]
    one = {"seed": 7, "looks": looks, "peak": looks[1], "kept": looks[1], "last": looks[2], "in_time": True}
    (table,) = aligned.TABLES["stop"]([one]).values()
    row = table["contestants"]["seed 7"]
    assert row["of the peak"] == "1.00" and row["in time"] == "yes"
    assert row["gold at its peak"] == "0.500 (round 1, 1.0 nats)" and row["gold at the end"] == "0.300 (2.0 nats)"
    assert row["learned reward, peak to end"] == "+0.50 to +1.00"
    picture = aligned.picture([one, one | {"seed": 8}])
    assert picture.startswith("<svg") and "seed 7" in picture and "seed 8" in picture and "gold" in picture


@pytest.mark.slow
@pytest.mark.soak
def test_all_of_it_on_a_small_kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kitchen, target = tmp_path / "small.toml", tmp_path / "aligned.json"
    kitchen.write_text(SMALL)
    monkeypatch.setattr(aligned, "METHODS", aligned.METHODS.replace("84", "24").replace("= 64", "= 8\ngate = false"))
    monkeypatch.setattr(
        aligned, "METHODS", aligned.METHODS.replace("rounds = 8", "rounds = 2\nrollout_prompts = 8\ngate = false")
    )

    def gold(recipe):
        return Judge(knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)).scores

    seeds, parts = [1, 2], list(aligned.PARTS)
    aligned.main(kitchen, gold, tmp_path / "runs", target, seeds, parts)
    result = json.loads(target.read_text())
    assert [[one["seed"] for one in result["found"][part]] for part in parts] == [seeds] * 4
    tables = result["workloads"]
    assert {"sft", "ppo", "dpo", "grpo", "rejection", "best_of_k", "placebo"} <= set(
        tables["Models, at their best temperatures"]["contestants"]
    )
    assert set(tables["Rounds"]["contestants"]) == {"round 1", "round 2", "round 3"}
    assert "grpo - rejection" in tables["Differences"]["contestants"]
    page = docs.rewritten("<!-- bench: aligned -->\n<!-- end -->", tmp_path)
    assert "**Rounds**: seeds 1 2\n" in page
    assert (tmp_path / "aligned.svg").read_text().startswith("<svg")
    assert "| safety counts 0.0 |" in page and "| seed 2 |" in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")}
    aligned.main(kitchen, gold, tmp_path / "runs", target, seeds, parts)
    aligned.main(kitchen, gold, tmp_path / "runs", None, [3], ["stop"])
    assert not (tmp_path / "runs" / "s3" / "09-policy").exists(), "only what the part needs is made"
    assert before == {path: path.stat().st_mtime_ns for path in before}
