"""A team in browsers: the first lead, an invitation, somebody joins; without scripts, too; nothing hostile acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests_browser import Served, items, needs_browser, opened, serving
from tests_people import PASSWORD

from palate.feedback.people import log
from palate.feedback.store import open_store

from .test_hostile import lay
from .test_pages_browser import pages

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Served]:
    """A studio with accounts."""
    with serving(items(tmp_path / "dinner.jsonl"), "--login") as served:
        yield served


def join(page: Page, link: str, name: str) -> None:
    page.goto(link)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("The same once more").fill(PASSWORD)
    page.get_by_role("button", name="Join").click()
    page.wait_for_url(re.compile(r":\d+/$"))


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_from_the_terminals_link_to_somebody_who_ranks(scripts: bool, team: Served, browser: Browser) -> None:
    with opened(browser, team.url, java_script_enabled=scripts) as ann:
        expect(ann.get_by_role("heading", name="Log in")).to_be_visible()
        join(ann, team.invitation, "ann")
        ann.get_by_role("link", name="People", exact=True).click()
        ann.get_by_role("button", name="Make a link").click()
        link = ann.get_by_label("The link").input_value()
        if scripts:
            ann.get_by_role("button", name="Copy").click()
            expect(ann.get_by_role("button", name="Copied")).to_be_visible()
        with opened(browser, team.url, java_script_enabled=scripts, quiet=False) as bob:  # refusals are said
            join(bob, link, "bob")
            bob.get_by_role("link", name=re.compile("Rank answers")).click()
            expect(bob.get_by_role("heading", name=re.compile("Suggest dinner|Put|Which|Rank"))).to_have_count(1)
            bob.goto(team.url + "/people")
            expect(bob.get_by_role("heading", name="Not for you")).to_be_visible()
            ann.goto(team.url + "/people")
            ann.locator(".someone", has_text="bob").locator("summary").click()
            ann.locator(".someone", has_text="bob").get_by_role("button", name="Shut out").click()
            expect(ann.locator(".someone", has_text="bob").get_by_text("shut out", exact=True)).to_be_visible()
            bob.goto(team.url + "/rank")
            expect(bob.get_by_role("heading", name="Log in")).to_be_visible()
            bob.get_by_label("Name").fill("bob")
            bob.get_by_label("Password").fill(PASSWORD)
            bob.get_by_role("button", name="Log in").click()
            expect(bob.get_by_text("The name or the password is wrong.")).to_be_visible()
        ann.get_by_role("link", name="What was done").click()
        expect(ann.get_by_role("row").filter(has_text="disabled")).to_have_count(1)
    with open_store(team.store) as store:
        assert [event.action for event in log(store)][:2] == ["failed to log in", "disabled"]


def test_logging_out_leaves_no_draft_in_the_browser(team: Served, browser: Browser) -> None:
    with opened(browser, team.url) as page:
        join(page, team.invitation, "ann")
        page.goto(team.url + "/rank")
        page.wait_for_selector("form#rank[data-ready]")
        page.keyboard.press("3")
        page.wait_for_function("Object.keys(localStorage).some((key) => key.startsWith('palate:draft:ann:'))")
        page.goto(team.url + "/me")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(re.compile("/login"))
        assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('palate:draft:'))") == []


def test_nothing_hostile_acts_in_any_page(tmp_path: Path, browser: Browser) -> None:
    """Everything that people, files and models can say is hostile, also the names of annotators."""
    with serving(items(tmp_path / "dinner.jsonl")) as served:
        with open_store(served.store) as store:
            lay(store, "dinner.jsonl", "dinner.jsonl")
        with opened(browser, served.url) as page:
            page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
            page.on("request", lambda asked: None if asked.url.startswith(served.url) else pytest.fail(asked.url))
            for path in (*pages(), *(f"/write/d{n}" for n in range(45)), *(f"/queue/items/{n}" for n in range(7, 50))):
                page.goto(served.url + path)
                assert page.evaluate("window.hacked") is None, path
