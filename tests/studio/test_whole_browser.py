"""From an invitation to a reward model: people write, review and rank in browsers while `palate run` waits for them.

The run is started once and goes on by itself; what the reward model is trained on is what the people did and nothing
else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from tests_browser import answered, needs_browser, opened, serving
from tests_small import SMALL

from palate.feedback.store import open_store
from palate.records import Demonstration, Judgement, Response, read_jsonl
from palate.workspace import Workspace

pytestmark = [pytest.mark.slow, needs_browser]
WRITTEN = {
    "What does a cook taste first?": "The salt.",
    "How do you keep rice warm?": "Under a cloth, off the heat.",
}
WANTED = 12
CHANGES = {
    'demonstrations = ["kitchen"]': f'demonstrations = ["kitchen", "people"]\nuntil = {len(WRITTEN)}',
    'by = ["kitchen"]\noverlap = 2': f'by = ["people"]\nuntil = {WANTED}',
}


def recipe(path: Path) -> Path:
    text = SMALL[: SMALL.index("[ppo]")] + SMALL[SMALL.index("[hardware]") :]
    for before, after in CHANGES.items():
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return path


def until(what: object, happens: object, seconds: float = 120) -> None:
    started = time.monotonic()
    while not happens():  # type: ignore[operator]
        assert time.monotonic() - started < seconds, f"{what} did not come"
        time.sleep(0.3)


def join(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password", exact=True).fill(f"the password of {name}")
    page.get_by_label("The same once more").fill(f"the password of {name}")
    page.get_by_role("button", name="Join").click()
    page.get_by_role("link", name=name).wait_for()


def invited(lead: Page, address: str, role: str) -> str:
    """A link for one person with this role."""
    lead.goto(f"{address}/people")
    form = lead.locator("form[action='/people/invites']")
    for box in form.locator("input[name=roles]").all():
        box.set_checked(box.get_attribute("value") == role)
    form.get_by_role("button", name="Make a link").click()
    return str(lead.get_by_label("The link").input_value())


def write(page: Page, address: str) -> None:
    for asked, answer in WRITTEN.items():
        page.goto(f"{address}/write/new")
        page.get_by_label("What is asked").fill(asked)
        page.get_by_label("The ideal answer").fill(answer)
        page.get_by_role("button", name="Hand in", exact=True).click()
        page.get_by_text(asked).first.wait_for()


def review(page: Page, address: str) -> None:
    for _ in WRITTEN:
        page.goto(f"{address}/review")
        page.get_by_role("heading", name="Should the model answer like this?").wait_for()
        page.get_by_role("button", name=re.compile("^Accept(?! it)")).click()
        page.get_by_text(re.compile("The last one|accepted")).first.wait_for()


def rank(page: Page, how: str, said: dict[tuple[str, ...], list[str]]) -> None:
    """One judgement; what was said is noted: the answers' words in the order shown -> best first."""
    page.wait_for_selector("form#rank[data-ready]")
    shown = answered(page)
    if how == "keys":
        for n in range(len(shown), 0, -1):
            page.keyboard.press(str(n))
    elif how == "buttons":
        page.get_by_role("button", name="Answer 1 is worse").click()
    else:
        last = page.locator(".answer").last
        handle, top = last.locator(".handle").bounding_box(), page.locator(".answer").first.bounding_box()
        assert handle and top
        page.mouse.move(handle["x"] + 8, handle["y"] + 8)
        page.mouse.down()
        page.mouse.move(handle["x"] + 8, top["y"] + 30, steps=6)
        page.mouse.move(handle["x"] + 8, top["y"] + 2, steps=3)
        page.mouse.up()
    said[tuple(shown)] = answered(page)
    with page.expect_navigation():
        page.get_by_role("button", name="Hand in").click()


def test_from_an_invitation_to_a_reward_model(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "inn"
    command = [sys.executable, "-m", "palate", "run", str(recipe(tmp_path / "recipe.toml")), "--run", str(folder)]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until("the run", lambda: (folder / "03-base" / "manifest.json").is_file())
        with serving(folder, "--login") as served:
            _people(browser, served.url, served.invitation, folder)
        assert run.wait(180) == 0, (tmp_path / "log").read_text()
    finally:
        run.kill()


def _people(browser: Browser, address: str, invitation: str, folder: Path) -> None:
    with opened(browser, invitation) as lead:
        join(lead, "lee")
        links = [invited(lead, address, role) for role in ("author", "author", "evaluator", "evaluator")]
        with opened(browser, links[0]) as ann:
            join(ann, "ann")
            write(ann, address)
        with opened(browser, links[1]) as amy:
            join(amy, "amy")
            review(amy, address)
        until("the samples", lambda: (folder / "06-samples" / "manifest.json").is_file())
        time.sleep(2.5)  # the studio looks every two seconds
        said: dict[tuple[str, ...], list[str]] = {}
        with opened(browser, links[2]) as bob, opened(browser, links[3]) as cat:
            join(bob, "bob")
            join(cat, "cat")
            for page in (bob, cat):
                page.goto(f"{address}/rank")
            for number in range(WANTED):  # in turn, each with a prompt in front of them
                rank((bob, cat)[number % 2], ("keys", "drag", "buttons")[number % 3], said)
        until("the reward model", lambda: (folder / "08-reward" / "manifest.json").is_file(), 180)
    _check(folder, said)


def _check(folder: Path, said: dict[tuple[str, ...], list[str]]) -> None:
    workspace = Workspace(folder)
    judged = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    texts = {r.id: r.text for r in read_jsonl(workspace.read("rankings") / "responses.jsonl", Response)}
    assert len(judged) == WANTED == len({j.prompt_id for j in judged}), "two people judged the same prompt"
    assert {j.annotator for j in judged} == {"bob", "cat"} and not any(j.simulated for j in judged)
    for judgement in judged:
        shown = tuple(" ".join(texts[id_].split()) for id_ in judgement.presented_order)
        best_first = [texts[id_] for id_ in sorted(judgement.ranks, key=lambda id_: judgement.ranks[id_])]
        by_words = {tuple(" ".join(t.split()) for t in key): value for key, value in said.items()}
        assert [" ".join(t.split()) for t in best_first] == [" ".join(t.split()) for t in by_words[shown]]
    with open_store(f"sqlite:///{folder.parent / 'feedback.sqlite'}") as store:
        (campaign,) = (name for name in store.campaigns() if name.startswith("inn:") and "write" not in name)
        assert store.judgements(campaign) == judged
    inputs = workspace.manifest("reward")["inputs"]
    assert inputs["rankings"] == workspace.manifest("rankings")["digest"]
    report = json.loads((workspace.read("reward") / "report.json").read_text())
    pairs = sum(len(j.pairs()) for j in judged)
    assert report["train_pairs"] + report["dev_pairs"] == pairs
    learned = list(read_jsonl(workspace.read("demonstrations") / "demonstrations.jsonl", Demonstration))
    theirs = {d.messages[0].content: d.messages[-1].content for d in learned if not d.simulated}
    assert theirs == WRITTEN and {d.author for d in learned if not d.simulated} == {"ann"}
    _check_export(folder, judged, texts)


def _check_export(folder: Path, judged: list[Judgement], texts: dict[str, str]) -> None:
    out = folder.parent / "pairs.jsonl"
    command = [
        sys.executable,
        "-m",
        "palate",
        "feedback",
        "export",
        str(folder),
        "--format",
        "trl-preference",
        "--out",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    pairs = {(line["chosen"][-1]["content"], line["rejected"][-1]["content"]) for line in lines}
    wished = {
        (texts[a], texts[b]) if target == 1.0 else (texts[b], texts[a])
        for j in judged
        for a, b, target in j.pairs()
        if target != 0.5
    }
    assert pairs == wished
