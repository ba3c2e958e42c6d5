"""See and Queue in a real browser: what runs is followed, and left alone when nobody looks."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests_browser import Served, items, needs_browser, opened, serving

from palate import flow
from palate.feedback import place
from palate.feedback.store import open_store
from palate.metrics import Metrics
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id
from palate.workspace import Workspace

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def run(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> Workspace:
    folder = tmp_path / "small"
    shutil.copytree(small_run[1].folder, folder)
    return Workspace(folder)


def hide(page: Page, hidden: bool) -> None:
    """As if the tab was put behind another."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true }); "
        "document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_a_running_stage_is_followed_and_not_asked_for_while_nobody_looks(run: Workspace, browser: Browser) -> None:
    shutil.rmtree(run.folder / "09-policy/ppo")
    partial = run.folder / "09-policy/ppo.partial"
    partial.mkdir()
    (partial / "attempt.json").write_text(json.dumps({"key": "k", "seconds": 1.0, "since": time.monotonic()}))
    log = Metrics(run.logs / "ppo.jsonl")
    log.log(1, score=0.1, kl=0.0)
    prompts = list(read_jsonl(run.read("demonstrations") / "prompts.jsonl", Prompt))
    Metrics(partial / "watched.jsonl").log(1, prompt_id=prompts[0].id, text="<b>soup</b>", score=0.25)
    with (run.folder / ".lock").open("a") as lock, serving(run.folder) as studio:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with opened(browser, studio.url + "/see") as page:
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url) if "/api/v1/live" in request.url else None)
            live = page.locator("#live")
            expect(live.locator("figure")).to_have_count(2)
            expect(live).to_contain_text("ppo runs, step 1")
            expect(live).to_contain_text("<b>soup</b>")
            log.log(2, score=0.4, kl=0.02)
            expect(live).to_contain_text("step 2", timeout=5000)
            assert "after=0" not in asked[-1], "only what is new"
            hide(page, hidden=True)
            page.wait_for_timeout(500)
            before = len(asked)
            log.log(3, score=0.7, kl=0.05)
            page.wait_for_timeout(5000)
            assert len(asked) == before, "nobody looks"
            hide(page, hidden=False)
            expect(live).to_contain_text("step 3", timeout=5000)
            fcntl.flock(lock, fcntl.LOCK_UN)
            expect(live).to_contain_text("was begun and has stopped", timeout=5000)


def test_what_is_computed_comes_into_the_page(run: Workspace, browser: Browser) -> None:
    """A person ranks; what that changed and the curve are there without loading the page again."""
    recipe, _ = flow.reopen(run.folder)
    with serving(run.folder) as studio, opened(browser, studio.url + "/see") as page:
        expect(page.locator("[data-part=curve] .plot")).to_have_count(1, timeout=60_000)
        expect(page.locator("[data-part=curve]")).to_contain_text("simulated")
        answers: dict[str, list[str]] = {}
        for response in read_jsonl(run.read("samples") / "responses.jsonl", Response):
            answers.setdefault(response.prompt_id, []).append(response.id)
        prompts = {p.id for p in read_jsonl(run.read("samples") / "prompts.jsonl", Prompt) if p.split == "train"}
        with open_store(place.store_url(recipe, run)) as store:
            for id_ in sorted(prompts)[:12]:
                ranks = {answer: rank for rank, answer in enumerate(sorted(answers[id_]), start=1)}
                told = Judgement(id=stable_id("ann", id_), prompt_id=id_, annotator="ann", ranks=ranks)
                store.add_judgements([told], place.campaign(run))
        page.goto(studio.url + "/see")
        page.get_by_role("link", name="See what changed").click()
        expect(page.locator("main")).to_contain_text("Because of your 12 rankings", timeout=60_000)
        page.goto(studio.url + "/report")
        frame = page.frame_locator("iframe.report")
        expect(frame.locator("h1")).to_be_visible()


def test_a_lead_frees_a_prompt_without_leaving_the_page(tmp_path: Path, browser: Browser) -> None:
    studio: Served
    with serving(items(tmp_path / "dinner.jsonl")) as studio, opened(browser, studio.url + "/rank") as page:
        page.goto(studio.url + "/queue")
        expect(page.locator("[data-held]")).to_have_text("1")
        page.get_by_role("button", name="Let others have it").click()
        expect(page.locator("#held")).to_contain_text("Others may have it now.")
        expect(page.locator("#held")).to_contain_text("Nobody has a prompt open.")
        page.set_input_files("#file", files=[{
            "name": "menu.jsonl", "mimeType": "text/plain",
            "buffer": b'{"prompt": "A soup?", "responses": ["Leek.", "Pea."], "ranks": [2, 1]}\n',
        }])  # fmt: skip
        page.get_by_role("button", name="Take in").click()
        expect(page.locator("h1")).to_have_text("menu.jsonl")
        page.get_by_role("link", name="To the queue").click()
        page.get_by_label("That say").fill("soup")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="A soup?").click()
        page.get_by_label("Answer 1").select_option("2")
        page.get_by_label("Answer 2").select_option("1")
        page.get_by_role("button", name="This order is right").click()
        expect(page.locator("h1")).to_have_text("A prompt with a known order")
