"""Ranking as people do it: with the mouse, with keys, with buttons, on a phone, without scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect
from tests_browser import Served, answered, items, needs_browser, opened, serving

from palate.feedback.store import open_store
from palate.feedback.tables import SESSIONS
from palate.records import Judgement

pytestmark = [pytest.mark.slow, needs_browser]


def ready(page: Page) -> None:
    page.wait_for_selector("form#rank[data-ready]")


def told(served: Served, judgement: Judgement) -> dict[str, int]:
    """What a judgement says, by the answers' words."""
    with open_store(served.store) as store:
        (campaign,) = store.campaigns()
        texts = {r.id: r.text for r in store.responses(campaign)}
    return {texts[id_]: rank for id_, rank in judgement.ranks.items()}


def only(served: Served) -> dict[str, int]:
    (judgement,) = served.judgements()
    return told(served, judgement)


def next_one(page: Page) -> None:
    page.wait_for_url(re.compile(r"kept="))
    ready(page)


def test_by_keys_in_six_keystrokes(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        for key in ("3", "1", "4", "2", "Enter"):
            page.keyboard.press(key)
        next_one(page)
    assert only(served) == {shown[2]: 1, shown[0]: 2, shown[3]: 3, shown[1]: 4}
    (judgement,) = served.judgements()
    assert judgement.touched and judgement.annotator == "ann" and len(judgement.presented_order) == 4
    assert judgement.guidelines_version.startswith("sha256:") and judgement.seconds is not None


def test_ties_and_answers_left_out_by_keys(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        for key in ("2", "=", "4", "1", "0", "Enter"):
            page.keyboard.press(key)
        next_one(page)
    assert only(served) == {shown[1]: 1, shown[3]: 1, shown[0]: 3}


def test_by_dragging_the_handle(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        handle = page.locator(".answer").nth(3).locator(".handle").bounding_box()
        top = page.locator(".answer").nth(0).bounding_box()
        assert handle and top
        page.mouse.move(handle["x"] + 8, handle["y"] + 8)
        page.mouse.down()
        page.mouse.move(handle["x"] + 8, top["y"] + 40, steps=8)
        page.mouse.move(handle["x"] + 8, top["y"] + 4, steps=4)
        page.mouse.up()
        assert answered(page) == [shown[3], shown[0], shown[1], shown[2]]
        page.get_by_role("button", name="Hand in").click()
        next_one(page)
    assert only(served) == {shown[3]: 1, shown[0]: 2, shown[1]: 3, shown[2]: 4}


def test_by_buttons(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        page.get_by_role("button", name="Answer 1 is worse").click()
        page.get_by_role("button", name="Answer 3 is as good as the one above").click()
        page.get_by_role("button", name="Leave answer 4 unranked").click()
        page.get_by_role("button", name="Hand in").click()
        next_one(page)
    assert only(served) == {shown[1]: 1, shown[0]: 2, shown[2]: 2}


def test_by_arrow_keys_on_the_answer_with_the_focus(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        page.locator(".answer").nth(2).locator(".handle").focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        assert answered(page) == [shown[2], shown[0], shown[1], shown[3]]
        expect(page.locator("#said")).to_have_text("Answer 3, 1st of 4")
        page.keyboard.press("Control+Enter")
        next_one(page)
    assert only(served)[shown[2]] == 1


def test_an_order_that_nobody_touched_is_asked_about(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        page.keyboard.press("Enter")
        expect(page.locator("#untouched")).to_be_visible()
        assert served.judgements() == []
        page.keyboard.press("Enter")
        next_one(page)
    (judgement,) = served.judgements()
    assert not judgement.touched and list(told(served, judgement)) == shown


def test_scores_flags_a_rewrite_and_why(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        page.keyboard.press("2")
        card = page.locator(".answer").nth(0)
        card.get_by_text("Score or flag").click()
        card.get_by_role("group", name="Accuracy").get_by_role("radio", name="4: right but for a detail").check()
        card.get_by_role("checkbox", name="off topic").check()
        page.keyboard.press("r")
        page.keyboard.press("Control+A")
        page.keyboard.type("A better dish.")
        page.get_by_text("Say why").click()
        page.get_by_label("Why this order").fill("It is warm.")
        page.keyboard.press("Control+Enter")
        next_one(page)
    (judgement,) = served.judgements()
    best = min(judgement.ranks, key=lambda id_: judgement.ranks[id_])
    assert told(served, judgement)[shown[1]] == 1
    assert judgement.criteria == {best: {"accuracy": 4}} and judgement.flags == {best: ["off_topic"]}
    assert (judgement.rewrite_of, judgement.rewrite, judgement.rationale) == (best, "A better dish.", "It is warm.")


def test_what_cannot_be_ranked_says_why(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        page.keyboard.press("c")
        page.keyboard.type("I do not know")
        page.get_by_role("button", name="Cannot rank").click()
        next_one(page)
    assert served.judgements() == []
    with open_store(served.store) as store:
        (judgement,) = store.judgements("dinner.jsonl", include_superseded=True)
    assert judgement.cannot_rank == "no_expertise" and judgement.ranks == {}


def test_undo_brings_back_what_was_said_and_the_change_supersedes_it(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        for key in ("4", "3", "2", "Enter"):
            page.keyboard.press(key)
        next_one(page)
        page.keyboard.press("u")
        page.wait_for_url(re.compile("/rank/again/"))
        ready(page)
        assert answered(page) == list(reversed(shown))
        page.get_by_role("button", name="Answer 3 is better").click()
        page.get_by_role("button", name="Change it").click()
        next_one(page)
    assert only(served) == {shown[2]: 1, shown[3]: 2, shown[1]: 3, shown[0]: 4}
    with open_store(served.store) as store:
        assert len(store.judgements("dinner.jsonl", include_superseded=True)) == 2


def test_a_draft_survives_a_killed_server_and_a_closed_tab(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/rank")
    ready(page)
    shown = answered(page)
    page.keyboard.press("3")
    page.get_by_text("Say why").click()
    page.get_by_label("Why this order").fill("Half a thought")
    page.wait_for_timeout(1500)  # it is on the server now
    served.kill()
    page.get_by_label("Why this order").press_sequentially(", and more")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.close()
    served.start()
    page = context.new_page()
    page.goto(f"{served.url}/rank")
    ready(page)
    assert answered(page) == [shown[2], shown[0], shown[1], shown[3]]
    assert page.get_by_label("Why this order").input_value() == "Half a thought, and more"
    page.keyboard.press("Control+Enter")
    next_one(page)
    assert only(served)[shown[2]] == 1
    context.close()


def test_another_browser_gets_the_draft_from_the_server(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        shown = answered(page)
        page.keyboard.press("4")
        page.wait_for_timeout(1500)
    with opened(browser, f"{served.url}/rank") as page:
        ready(page)
        assert answered(page) == [shown[3], shown[0], shown[1], shown[2]]


def test_without_scripts(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/rank", java_script_enabled=False) as page:
        shown = answered(page)
        for number, rank in ((1, "2"), (2, "1"), (3, "2")):
            page.get_by_label(f"Rank of answer {number}").select_option(rank)
        page.get_by_role("button", name="Hand in").click()
        page.wait_for_url(re.compile("kept="))
        assert answered(page)[0] != shown[0]
    assert only(served) == {shown[1]: 1, shown[0]: 2, shown[2]: 2}


def test_on_a_phone_scrolling_moves_nothing_and_nothing_is_cut(browser: Browser, served: Served) -> None:
    with opened(
        browser, f"{served.url}/rank", viewport={"width": 390, "height": 600}, has_touch=True, is_mobile=True
    ) as page:
        ready(page)
        shown = answered(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        client = page.context.new_cdp_session(page)
        for kind, y in (("touchStart", 500), *(("touchMove", y) for y in range(480, 200, -20)), ("touchEnd", 0)):
            points = [] if kind == "touchEnd" else [{"x": 200, "y": y}]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(300)
        assert page.evaluate("scrollY") > 0 and answered(page) == shown


def test_a_session_that_ends_loses_nothing(browser: Browser, tmp_path: Path) -> None:
    password = "a long enough password"
    with serving(items(tmp_path / "dinner.jsonl"), "--login") as served:
        with opened(browser, served.invitation, quiet=False) as page:
            page.get_by_label("Name").fill("lee")
            page.get_by_label("Password", exact=True).fill(password)
            page.get_by_label("The same once more").fill(password)
            page.get_by_role("button", name="Join").click()
            page.goto(f"{served.url}/rank")
            ready(page)
            shown = answered(page)
            with open_store(served.store) as store, store.writing() as connection:
                connection.execute(sa.delete(SESSIONS))
            page.keyboard.press("3")
            page.keyboard.press("Enter")
            expect(page.locator("#banner")).to_contain_text("session has ended")
            assert served.judgements() == []
            other = page.context.new_page()
            other.goto(f"{served.url}/login")
            other.get_by_label("Name").fill("lee")
            other.get_by_label("Password").fill(password)
            other.get_by_role("button", name="Log in").click()
            other.get_by_role("link", name="Rank answers").wait_for()
            page.keyboard.press("Enter")
            next_one(page)
        assert only(served)[shown[2]] == 1
