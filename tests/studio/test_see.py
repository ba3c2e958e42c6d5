"""See: figures, who may see whose, what the run does now, the report in its frame."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests_small import SMALL
from tests_studio import CAMPAIGN, responses

from palate.feedback.people import Person
from palate.metrics import Metrics, read_on
from palate.records import CRITERIA, Demonstration, Judgement, Prompt, conversation, write_jsonl
from palate.studio import figures, plots
from palate.studio.app import build
from palate.studio.background import Background
from palate.studio.effects import (
    Arm,
    Arms,
    By,
    Changed,
    Curve,
    Example,
    Point,
    Ranked,
    Said,
    Share,
    Surprise,
    Surprises,
)
from palate.studio.here import Studio
from palate.workspace import Workspace

from .conftest import asking, in_turn

HALF = Share(mean=0.5, low=0.4, high=0.6, n=9)


def judged(studio: Studio, who: str, prompt: int, order: str = "0123", **values: object) -> None:
    answers = [r.id for r in responses() if r.prompt_id == f"prompt-{prompt}"]
    made = Judgement(
        **{  # type: ignore[arg-type]
            "id": f"{who} {prompt} {order}",
            "prompt_id": f"prompt-{prompt}",
            "annotator": who,
            "ranks": {answers[int(n)]: rank for rank, n in enumerate(order, start=1)},
            "presented_order": answers,
            "seconds": 20.0,
            "created_at": "2026-11-10T09:00:00+00:00",
            **values,
        }
    )
    studio.store.add_judgements([made], CAMPAIGN)


def as_one(studio: Studio, name: str, *roles: str) -> TestClient:
    one = dataclasses.replace(studio, single=Person(name, frozenset(roles)))
    return TestClient(build(one), base_url="http://127.0.0.1:8484", headers={"sec-fetch-site": "same-origin"})


# --- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_judgements(client: TestClient, studio: Studio) -> None:
    for who, order in (("ann", "0123"), ("ben", "0132"), ("cem", "3210")):
        judged(studio, who, 1, order, touched=who != "cem")
    judged(studio, "dora", 2, ranks={}, cannot_rank="no_expertise")
    told = client.get("/api/v1/see").json()
    assert not told["computing"]
    people = told["figures"]["people"]
    assert (people["judgements"], people["cannot_rank"], people["prompts"], people["annotators"]) == (3, 1, 1, 4)
    assert people["agreement"]["mean"] == pytest.approx((5 + 0 + 1) / 18)
    assert people["untouched"] == pytest.approx(1 / 3) and people["median_seconds"] == 20.0
    page = client.get("/see").text
    assert "33.3 %" in page and "72.6 ± 1.5 %" in page and "InstructGPT" in page


def test_simulated_judgements_are_kept_apart_and_say_so(client: TestClient, studio: Studio) -> None:
    judged(studio, "ann", 1, "0123")
    judged(studio, "ben", 1, "0123")
    for prompt in range(4):
        judged(studio, "guest 1", prompt, "0123", simulated=True)
        judged(studio, "guest 2", prompt, "3210", simulated=True)
    told = client.get("/api/v1/see").json()["figures"]
    assert told["people"]["judgements"] == 2 and told["people"]["agreement"]["mean"] == 1.0
    assert told["simulated"]["judgements"] == 8 and told["simulated"]["agreement"]["mean"] == 0.0
    assert [day["judgements"] for day in told["days"]] == [2]
    page = client.get("/see").text
    before, after = page.split("Simulated annotators", 1)
    assert "badge simulated" in after and "guest 1" not in before


def test_only_leads_see_single_people_and_others_see_themselves_after_handing_in(studio: Studio) -> None:
    judged(studio, "ann", 1)
    judged(studio, "ben", 1)
    judged(studio, "guest", 1, simulated=True)
    with as_one(studio, "ann", "lead") as lead, as_one(studio, "eve", "evaluator") as eve:
        rows = {row["name"] for row in lead.get("/api/v1/see").json()["figures"]["rows"]}
        assert rows == {"ann", "ben", "guest"} and "Each of them" in lead.get("/see").text
        assert [row["name"] for row in eve.get("/api/v1/see").json()["figures"]["rows"]] == ["guest"]
        assert eve.get("/api/v1/see/me").json() is None
        for path in ("/see", "/see/part/figures"):
            page = eve.get(path).text
            assert "ann" not in re.findall(r">(ann|ben)<", page) and "Each of them" not in page and ">You<" not in page
        judged(studio, "eve", 1)
        mine = eve.get("/api/v1/see/me").json()
        assert mine["name"] == "eve" and mine["agreement"]["mean"] == 1.0
        assert ">You<" in eve.get("/see").text
        assert eve.get("/api/v1/see/arms").status_code == 403
        assert eve.get("/see/part/arms").status_code == 403
    with as_one(studio, "olga", "author") as author:
        assert author.get("/see").status_code == 200
        assert author.get("/api/v1/see/me").status_code == author.get("/see/changed").status_code == 403


def test_gold_items_are_told_to_leads(client: TestClient, studio: Studio) -> None:
    ids = [r.id for r in responses() if r.prompt_id == "prompt-3"]
    judged(studio, "ann", 3, "0123")
    judged(studio, "ben", 3, "1023")
    client.get("/api/v1/see")
    studio.queue.set_gold("prompt-3", {ids[0]: 1, ids[1]: 2})
    rows = {row["name"]: row["gold"] for row in client.get("/api/v1/see").json()["figures"]["rows"]}
    assert rows["ann"]["mean"] == 1.0 and rows["ben"]["mean"] == 0.0, "counted anew, though no judgement came"


def test_figures_are_counted_anew_only_when_something_came(
    client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    compute = figures.compute
    monkeypatch.setattr(figures, "compute", lambda studio: calls.append(1) or compute(studio))
    for _ in range(3):
        assert client.get("/see").status_code == 200
    assert len(calls) == 1
    judged(studio, "ann", 1)
    assert client.get("/api/v1/see").json()["figures"]["people"]["judgements"] == 1 and len(calls) == 2
    example = Demonstration(id="d", messages=conversation("Hi", "Hello"), family="f", status="accepted")
    studio.store.add_demonstrations([example], studio.writing)
    told = client.get("/api/v1/see").json()["figures"]
    assert (told["demonstrations"], told["accepted"], len(calls)) == (1, 1, 3)


def test_days_without_anything_are_days_too(client: TestClient, studio: Studio) -> None:
    judged(studio, "ann", 1, created_at="2026-11-10T23:59:00+00:00")
    judged(studio, "ann", 2, created_at="2026-11-13T00:01:00+00:00")
    judged(studio, "ann", 3, created_at="when it rained")
    days = client.get("/api/v1/see").json()["figures"]["days"]
    assert [(day["day"][-2:], day["judgements"]) for day in days] == [("10", 1), ("11", 0), ("12", 0), ("13", 1)]


def test_what_takes_long_does_not_hold_the_page(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    compute = figures.compute
    monkeypatch.setattr(figures, "compute", lambda studio: go.wait(30) and compute(studio))
    monkeypatch.setattr("palate.studio.see.PATIENCE", 0.05)
    page = client.get("/see").text
    assert "Counting." in page and "data-computing" in page
    assert client.get("/see/part/figures").status_code == 204
    assert client.get("/api/v1/see").json() == {"figures": None, "computing": True, "error": ""}
    go.set()
    until(lambda: client.get("/see/part/figures").status_code == 200)
    assert "Nobody has judged anything yet." in client.get("/see/part/figures").text


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_background_computes_once_and_tells_what_went_wrong() -> None:
    background, calls, go = Background(), [], threading.Event()

    def slow() -> int:
        calls.append(1)
        go.wait(20)
        return len(calls)

    assert background.ask("x", "a", slow).computing and background.ask("x", "a", slow).value is None
    go.set()
    until(lambda: background.ask("x", "a", slow).value == 1)
    assert len(calls) == 1 and not background.ask("x", "a", slow).computing
    told = background.ask("x", "b", lambda: 1 // 0, patience=10)
    assert told.value is None and not told.computing and "could not be computed" in told.error


# --- plots -----------------------------------------------------------------------------------------------------------


def test_plots_say_what_they_show_and_hold_nothing_that_a_policy_forbids() -> None:
    curve = Curve(
        simulated=False,
        points=[Point(labels=n, subsets=3, accuracy=Share(mean=m, low=m - 0.1, high=m + 0.1, n=9)) for n, m in
                ((10, 0.5), (20, 0.6), (40, 0.65))],
        agreement=Share(mean=0.7, low=0.68, high=0.72, n=9),
    )  # fmt: skip
    for drawn in (
        plots.learning(curve),
        plots.days(["<2026>", "b"], [3, 0], what="J"),
        plots.track(HALF, low=0, high=1),
    ):
        assert "style=" not in drawn and "<2026>" not in drawn
        assert 'role="img"' in drawn or 'aria-hidden="true"' in drawn
    assert "40 judgements: 65.0 %" in plots.learning(curve)
    one = plots.learning(curve.model_copy(update={"points": curve.points[:1], "agreement": None}))
    assert 'cx="50.00%"' in one
    assert 'cx="50.00%"' in plots.track(HALF, low=0, high=1) and 'x1="40.00%" x2="60.00%"' in plots.track(
        HALF, low=0, high=1
    )
    outside = plots.track(Share(mean=1.5, low=-1, high=2, n=1), low=0, high=1)
    assert 'cx="100.00%"' in outside and 'x1="0.00%"' in outside


# --- what the model learned ------------------------------------------------------------------------------------------


class Made:
    """Effects without a model: what the pages make of them is tested here, what is in them in tests/commands."""

    ready = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def key(self) -> str:
        return "always"

    def curve(self) -> list[Curve]:
        return [
            Curve(simulated=yes, points=[Point(labels=40, subsets=1, accuracy=HALF)], agreement=HALF)
            for yes in (False, True)
        ]

    def changed(self, name: str) -> Changed | None:
        self.asked.append(name)
        if name == "nobody":
            return None
        first = Ranked(text="<script>alert(1)</script> **old**", before=1.0, after=0.25)
        example = Example(
            messages=[Said(role="user", content="Soup?")],
            was_first=first,
            is_first=Ranked(text="new", before=0.5, after=2.0),
        )
        return Changed(
            judgements=12, earlier=0, others=30, others_simulated=0, weight=1.0, another_first=HALF, by_chance=HALF,
            random_orders=10, agreed=None, examples=[example], prompts=["prompt-4"],
        )  # fmt: skip

    def arms(self) -> Arms:
        return Arms(
            arms=[Arm(name=n, prompts=4, judgements=9, right=HALF, held_out=HALF) for n in ("unsure", "random")],
            labels=9, difference=Share(mean=0.031, low=-0.01, high=0.07, n=9),
        )  # fmt: skip

    def surprises(self) -> Surprises:
        found = [
            Surprise(
                number=2, prompt="Soup?", better="<script>alert(1)</script> **mine**", worse="theirs", chance=chance,
                by=[By(annotator=name, rationale=f"{name} is cold", learned=chance > 0.1) for name in ("eve", "bo")],
            )
            for chance in (0.034, 0.31)
        ]  # fmt: skip
        return Surprises(pairs=1040, against=77, found=found, prompts=["prompt-4"])


@pytest.fixture
def made(studio: Studio) -> Studio:
    return dataclasses.replace(studio, effects=Made())


def test_without_a_reward_model_the_page_says_what_makes_one(client: TestClient) -> None:
    assert "There is no reward model yet." in client.get("/see").text
    assert "There is no reward model yet." in client.get("/see/changed").text
    assert client.get("/api/v1/see/curve").json() == {"state": "none", "value": None, "error": ""}
    assert "Was choosing worth it?" not in client.get("/queue").text


def test_the_curve_stands_beside_what_people_agree_on(made: Studio) -> None:
    with asking(made) as client:
        page = client.get("/see").text
        assert page.count(">two annotators agree<") == 2 and "badge simulated" in page
        assert client.get("/api/v1/see/curve").json()["value"][1]["simulated"] is True


def test_what_changed_is_shown_side_by_side_and_not_asked_again(made: Studio) -> None:
    with asking(made, "eve") as client:
        page = client.get("/see/changed").text
        assert "Because of your 12 rankings" in page and "Would be first without you" in page
        assert "<script>alert" not in page and "<strong>old</strong>" in page
        assert "+1.00, with you +0.25" in page
        assert in_turn(client).index("Suggest dinner number 4.") == 5, "last of all"
    with asking(made, "nobody") as client:
        assert "You have no rankings that the model learns from yet." in client.get("/see/changed").text
        assert client.get("/api/v1/see/changed").json() == {"state": "ready", "value": None, "error": ""}


def test_both_arms_are_beside_each_other(made: Studio) -> None:
    with asking(made) as client:
        page = client.get("/queue").text
        assert (
            "Was choosing worth it?" in page
            and "+3.1 points" in page
            and "neither is shown to be better" in page
            and "doubt" in page
            and "chance" in page
        )
        assert client.get("/api/v1/see/arms").json()["value"]["labels"] == 9


def test_where_the_model_would_have_bet_against_people(made: Studio) -> None:
    with asking(made) as client:
        assert "/see/surprises" in client.get("/see").text
        page = " ".join(client.get("/see/surprises").text.split())
        assert "Of 1,040 pairs that people put in order, the model would have ordered <strong>77</strong> (7 %)" in page
        assert "3.4 %</strong>." in page and "31 %</strong>, though it has learned" in page
        assert 'href="/queue/items/2"' in page and "eve, bo preferred this" in page and "bo: bo is cold" in page
        assert "<script>alert" not in page and "<strong>mine</strong>" in page and 'id="uncover"' not in page
        assert client.get("/api/v1/see/surprises").json()["value"]["found"][1]["by"][0]["learned"] is True
        assert in_turn(client).index("Suggest dinner number 4.") == 5, "last of all"
        judged(made, "ben", 4, flags={"response-4-0-by-secret-model": ["harmful"]})
        for path in ("/see/surprises", "/see/changed"):
            assert 'id="uncover"' in client.get(path).text, "what somebody called harmful is covered here, too"
    with as_one(made, "eve", "evaluator") as eve:
        assert "/see/surprises" not in eve.get("/see").text and eve.get("/see/part/surprises").status_code == 403


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(studio: Studio, tmp_path: Path) -> Studio:
    """A run that has begun nothing."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "recipe.toml").write_text(SMALL)
    (folder / ".lock").touch()
    return dataclasses.replace(studio, workspace=Workspace(folder), wanted=7)


def folder_of(run: Studio) -> Path:
    assert run.workspace is not None
    return run.workspace.folder


def begun(run: Studio, artifact: str) -> Path:
    partial = folder_of(run) / f"{artifact}.partial"
    partial.mkdir(parents=True)
    (partial / "attempt.json").write_text(json.dumps({"key": "k", "seconds": 60.0, "since": time.monotonic() - 5}))
    return partial


def finished(run: Studio, *artifacts: str) -> None:
    for artifact in artifacts:
        path = folder_of(run) / artifact
        path.mkdir(parents=True)
        (path / "manifest.json").write_text("{}")


def test_a_studio_on_a_file_has_no_run(client: TestClient) -> None:
    assert client.get("/api/v1/live").json()["state"] == "none"
    assert "The run now" not in client.get("/see").text


def test_nothing_runs_and_what_comes_next(run: Studio) -> None:
    with asking(run) as client:
        assert (client.get("/api/v1/live").json()["state"], client.get("/api/v1/live").json()["next"]) == (
            "idle",
            "collect",
        )
        finished(run, "01-corpus", "02-tokens")
        assert client.get("/api/v1/live").json()["next"] == "pretrain"
        page = client.get("/see").text
        assert "Nothing runs." in page and "<strong>pretrain</strong>" in page
        finished(run, "03-base", "04-demonstrations", "05-sft", "06-samples", "07-rankings", "08-reward")
        finished(run, "09-policy/ppo", "10-report")
        assert client.get("/api/v1/live").json()["state"] == "done"


def test_a_stage_that_runs_tells_what_is_new(run: Studio) -> None:
    finished(run, "01-corpus", "02-tokens")
    begun(run, "03-base")
    assert run.workspace is not None
    log = Metrics(run.workspace.logs / "pretrain.jsonl")
    log.log(1, loss=6.5, lr=1e-3)
    with asking(run) as client, (folder_of(run) / ".lock").open("a") as lock:
        assert client.get("/api/v1/live").json()["state"] == "stopped", "nobody holds the run"
        fcntl.flock(lock, fcntl.LOCK_EX)
        first = client.get("/api/v1/live").json()
        assert (first["state"], first["stage"], first["folder"]) == ("running", "pretrain", "03-base")
        assert 64 < first["seconds"] < 90 and first["lines"] == [{"step": 1, "loss": 6.5, "lr": 0.001}]
        again = client.get(f"/api/v1/live?log={first['log']}&after={first['after']}").json()
        assert again["lines"] == []
        log.log(2, loss=6.0)
        with log.path.open("a") as file:
            file.write('{"step": 3, "lo')
        more = client.get(f"/api/v1/live?log={first['log']}&after={first['after']}").json()
        assert more["lines"] == [{"step": 2, "loss": 6.0}], "a line that is being written waits"
        assert client.get("/api/v1/live?log=other/sft&after=999").json()["lines"][0]["step"] == 1
        assert "<strong>pretrain</strong> runs" in client.get("/see").text
        Metrics(log.path)  # begun again
        assert client.get(f"/api/v1/live?log={first['log']}&after={more['after']}").json()["after"] == 0


def test_looking_is_never_in_the_way_of_a_run_that_begins(run: Studio) -> None:
    """The lock is looked at from outside, and never taken, not even for a moment."""
    assert run.workspace is not None
    stop = threading.Event()
    with asking(run) as client:
        looking = threading.Thread(target=lambda: [client.get("/api/v1/live") for _ in iter(stop.is_set, True)])
        looking.start()
        for _ in range(200):
            with run.workspace.held():
                pass
        stop.set()
        looking.join()


def test_samples_of_the_policy_in_training_are_the_last_look(run: Studio) -> None:
    finished(run, "04-demonstrations")
    assert run.workspace is not None
    asked = [Prompt(id=f"q{n}", messages=conversation(f"Soup {n}?"), family="f") for n in range(2)]
    write_jsonl(folder_of(run) / "04-demonstrations" / "prompts.jsonl", asked)
    partial = begun(run, "09-policy/ppo")
    watched = Metrics(partial / "watched.jsonl", gaps=True)
    for step in (0, 4):
        for n in range(2):
            watched.log(step, prompt_id=f"q{n}", text=f"<b>{step}</b> {n}", score=0.5 + n)
    with asking(run) as client:
        told = client.get("/api/v1/live").json()
    assert told["stage"] == "ppo"
    assert told["samples"] == [
        {"step": 4, "prompt": f"Soup {n}?", "text": f"<b>4</b> {n}", "score": 0.5 + n} for n in range(2)
    ]


def test_a_control_is_named(run: Studio) -> None:
    control = folder_of(run) / "controls" / "placebo"
    (control / "08-reward.partial").mkdir(parents=True)
    (control / "08-reward.partial" / "attempt.json").write_text(json.dumps({"key": "k", "seconds": 1, "since": 0}))
    Metrics(control / "logs" / "reward.jsonl").log(1, loss=0.7)
    with asking(run) as client:
        told = client.get("/api/v1/live").json()
    assert (told["stage"], told["control"], told["lines"]) == ("reward", "placebo", [{"step": 1, "loss": 0.7}])


def test_a_run_that_waits_says_for_what(run: Studio) -> None:
    finished(run, "01-corpus", "02-tokens", "03-base", "04-demonstrations", "05-sft", "06-samples")
    judged(run, "ann", 1)
    with asking(run) as client, (folder_of(run) / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = client.get("/api/v1/live").json()
        assert (told["state"], told["has"], told["wanted"]) == ("waiting", 1, 7)
        assert "1 of 7" in client.get("/see").text


def test_lines_are_read_on_from_where_one_was(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert read_on(path) == ([], 0)
    path.write_text('{"step": 1}\n{"step": 2, "x": NaN}\nnonsense\n[1]\n{"step": 3}\n{"st')
    lines, end = read_on(path)
    assert lines == [{"step": 1}, {"step": 3}] and end == path.read_text().rindex('{"st')
    assert read_on(path, end) == ([], end)
    path.write_text("".join(f'{{"step": {n}}}\n' for n in range(1000)))
    last, end = read_on(path, most=100)
    assert last[-1] == {"step": 999} and 3 < len(last) < 10 and end == path.stat().st_size
    assert read_on(path, 10**9)[0][0] == {"step": 0}, "it was begun again"


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_can_do_nothing(run: Studio) -> None:
    with asking(run) as client:
        assert "No report yet" in client.get("/report").text and client.get("/report/frame").status_code == 404
        finished(run, "10-report")
        (folder_of(run) / "10-report" / "report.html").write_text("<h1>How good</h1><script>alert(1)</script>")
        page = client.get("/report").text
        assert '<iframe class="report" sandbox src="/report/frame"' in page and "How good" not in page
        frame = client.get("/report/frame")
        policy = frame.headers["content-security-policy"]
        assert frame.text.startswith("<h1>How good</h1>")
        assert policy.startswith("sandbox;") and "default-src 'none'" in policy and "script" not in policy
        assert "frame-ancestors 'self'" in policy and frame.headers["x-frame-options"] == "SAMEORIGIN"
        assert frame.headers["x-content-type-options"] == "nosniff"
        assert "allow-" not in policy, "a sandbox with nothing allowed"


def test_empty_pages_say_what_to_do(client: TestClient) -> None:
    page = client.get("/see").text
    assert "Nobody has judged anything yet." in page and 'href="/rank"' in page
    assert "This studio was opened on a file." in client.get("/report").text


def test_criteria_that_ask_the_same_are_seen(client: TestClient, studio: Studio) -> None:
    for prompt in range(6):
        ids = [r.id for r in responses() if r.prompt_id == f"prompt-{prompt}"]
        scores = {id_: {name: float(1 + (n + prompt) % 5) for name in CRITERIA} for n, id_ in enumerate(ids)}
        judged(studio, "ann", prompt, criteria=scores)
    told = client.get("/api/v1/see").json()["figures"]["people"]
    assert told["correlations"]["accuracy, helpfulness"]["mean"] == pytest.approx(1.0)
    assert "heat-10" in client.get("/see").text
