"""What may upset is out of sight and out of hearing until somebody looks; nobody judges it before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests_browser import Served, needs_browser, opened, serving

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def upsetting(tmp_path: Path) -> Iterator[Served]:
    """Two prompts, both of which name a murder."""
    lines = [{"prompt": f"Who was murdered, {n}?", "responses": [f"Answer {a} to {n}." for a in "abc"]} for n in "12"]
    path = tmp_path / "crime.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(path) as found:
        yield found


def texts(page: Page) -> list[str]:
    """What can be seen, and what is read aloud."""
    return page.locator(".prose").all_inner_texts()


def test_it_is_covered_until_somebody_looks(browser: Browser, upsetting: Served) -> None:
    with opened(browser, f"{upsetting.url}/rank") as page:
        page.wait_for_selector("form#rank[data-ready]")
        heard = page.locator("form#rank").aria_snapshot()
        assert "violence" in heard and "murdered" not in heard and "Answer a to" not in heard
        assert not any("murdered" in text or "Answer" in text for text in texts(page))
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
        for key in ("2", "1", "3", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#uncover")).to_be_focused()
        assert upsetting.judgements() == [] and page.locator(".placed").count() == 0
        page.keyboard.press("v")
        assert "murdered" in texts(page)[0] and "murdered" in page.locator("form#rank").aria_snapshot()
        page.keyboard.press("v")
        assert "murdered" not in "".join(texts(page))
        page.get_by_text("Show it").click()
        for key in ("2", "1", "3", "Enter"):
            page.keyboard.press(key)
        page.wait_for_url(re.compile("kept="))
        page.wait_for_selector("form#rank[data-ready]")
        assert "murdered" not in "".join(texts(page)), "the next one is covered anew"
        page.keyboard.press("s")
        page.wait_for_selector("form#rank[data-ready]")
    (judgement,) = upsetting.judgements()
    assert len(judgement.ranks) == 3


def test_without_scripts_it_is_covered_and_can_be_looked_at(browser: Browser, upsetting: Served) -> None:
    with opened(browser, f"{upsetting.url}/rank", java_script_enabled=False) as page:
        assert not any("murdered" in text for text in texts(page))
        page.get_by_text("Show it").click()
        assert "murdered" in texts(page)[0]
        for n, rank in (("1", "2"), ("2", "1")):
            page.get_by_label(f"Rank of answer {n}").select_option(rank)
        page.get_by_role("button", name="Hand in").click()
        page.wait_for_url(re.compile("kept="))
    assert len(upsetting.judgements()) == 1


def test_what_somebody_does_not_want_does_not_come(browser: Browser, upsetting: Served) -> None:
    with opened(browser, f"{upsetting.url}/rank") as page:
        page.get_by_role("link", name="Choose what comes to you").click()
        page.get_by_label("violence", exact=True).check()
        page.locator("#wishes").get_by_role("button", name="Keep").click()
        expect(page.locator("#wishes").get_by_role("status")).to_have_text("Kept.")
        page.goto(f"{upsetting.url}/rank")
        expect(page.get_by_text("every prompt that you want to see")).to_be_visible()
