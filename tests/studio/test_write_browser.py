"""Writing and reviewing as people do it: by keys, with a server that dies, without scripts."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests_browser import Served, needs_browser, opened
from tests_chatting import chatting

from palate.feedback.demonstrations import Shelf
from palate.feedback.store import open_store
from palate.records import Demonstration, conversation

pytestmark = [pytest.mark.slow, needs_browser]
WRITING = "dinner.jsonl:write"


def ready(page: Page) -> None:
    page.wait_for_selector("form[data-ready]")


def texts(served: Served) -> list[list[str]]:
    with open_store(served.store) as store:
        return [[m.content for m in d.messages] for d in store.demonstrations(WRITING)]


def waiting(served: Served, *records: tuple[str, str, str]) -> None:
    with open_store(served.store) as store:
        store.add_demonstrations(
            [
                Demonstration(id=id_, messages=conversation(a, b), family="f", author="bob", status="waiting")
                for id_, a, b in records
            ],
            WRITING,
        )


def test_a_conversation_by_keys(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/write") as page:
        page.keyboard.press("n")
        ready(page)
        page.keyboard.type("Suggest dinner.")
        page.keyboard.press("Tab")
        page.keyboard.type("Soup, **hot**.")
        expect(page.locator("[data-words]").first).to_have_text("2 words")
        expect(page.locator("#preview .turn.assistant strong")).to_have_text("hot")
        page.keyboard.press("Alt++")
        page.keyboard.type("And for dessert?")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#banner")).to_have_text("Write the answer, or keep the prompt only.")
        page.keyboard.type("Cake.")
        page.get_by_role("button", name="Turn 2 earlier").click()
        expect(page.locator("#said")).to_have_text("Now turn 1 of 2.")
        page.get_by_role("button", name="Turn 1 later").click()
        page.keyboard.press("Alt++")
        page.get_by_role("button", name="Remove turn 3").click()
        page.get_by_label("Skill").fill("recommend")
        page.keyboard.press("Control+Enter")
        page.wait_for_url(re.compile("kept="))
        expect(page.get_by_text("It is stored, and it counts.")).to_be_visible()
    assert texts(served) == [["Suggest dinner.", "Soup, **hot**.", "And for dessert?", "Cake."]]


def test_the_guidelines_are_one_key_away_while_one_types(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/write/new") as page:
        ready(page)
        page.keyboard.type("What is h")
        page.keyboard.press("F1")
        expect(page.locator("dialog#guidelines")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("dialog#guidelines")).to_be_hidden()
        page.keyboard.type("ot?")
        assert page.get_by_label("What is asked").input_value() == "What is hot?"


def test_a_draft_survives_a_killed_server_and_a_closed_tab(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/write/new")
    ready(page)
    page.keyboard.type("Suggest dinner.")
    page.wait_for_timeout(1500)  # it is on the server now
    served.kill()
    page.get_by_label("The ideal answer").press_sequentially("Soup.")
    page.keyboard.press("Alt++")
    page.keyboard.type("And then?")
    page.get_by_label("The ideal answer").last.fill("Cake.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#banner")).to_contain_text("does not answer")
    page.close()
    served.start()
    page = context.new_page()
    page.goto(f"{served.url}/write")
    page.get_by_role("link", name="Go on").click()
    ready(page)
    assert page.get_by_label("The ideal answer").all()[1].input_value() == "Cake."
    page.keyboard.press("Control+Enter")
    page.wait_for_url(re.compile("kept="))
    assert texts(served) == [["Suggest dinner.", "Soup.", "And then?", "Cake."]]
    page.goto(f"{served.url}/write/new")
    ready(page)
    assert page.get_by_label("What is asked").input_value() == "", "what was handed in does not come back"
    context.close()


def test_what_the_server_never_heard_of_is_on_the_list(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/write/new")
    ready(page)
    served.kill()
    page.keyboard.type("Never sent.")
    page.close()
    served.start()
    page = context.new_page()
    page.goto(f"{served.url}/write")
    expect(page.locator("#kept-here")).to_contain_text("Never sent.")
    context.close()


def test_the_same_words_are_shown_and_refused(browser: Browser, served: Served) -> None:
    waiting(served, ("one", "Suggest a vegan dinner under 20 minutes", "Fry tofu."))
    with opened(browser, f"{served.url}/write/new", quiet=False) as page:
        ready(page)
        page.keyboard.type("Suggest a vegan dinner under 30 minutes")
        expect(page.locator("#alike")).to_contain_text("asks nearly the same (60 %)")
        page.get_by_label("What is asked").fill("suggest a vegan dinner under 20 minutes")
        page.get_by_label("The ideal answer").fill("Fry tofu!")
        expect(page.locator("#alike")).to_contain_text("it will be refused")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#banner")).to_contain_text("word for word")
        assert page.locator("#alike a").get_attribute("href") == "/write/one"
    assert len(texts(served)) == 1


def test_a_prompt_alone_and_its_answer(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/write/new") as page:
        ready(page)
        page.keyboard.type("Which knife first?")
        page.get_by_role("button", name="Keep the prompt only").click()
        page.wait_for_url(re.compile("kept=prompt"))
        page.get_by_role("link", name="Answer this").click()
        ready(page)
        page.keyboard.type("A chef's knife.")
        page.keyboard.press("Control+Enter")
        page.wait_for_url(re.compile("kept="))
        expect(page.get_by_text("Prompts without an answer")).to_be_visible()
        assert page.get_by_role("link", name="Answer this").count() == 0
    assert texts(served) == [["Which knife first?", "A chef's knife."]]


def test_reviewing_by_keys(browser: Browser, served: Served) -> None:
    waiting(served, *((str(n), f"Dinner {n}?", f"Soup {n}.") for n in range(4)))
    with opened(browser, f"{served.url}/review") as page:

        def next_one(said: str) -> None:
            expect(page.get_by_text(f"The last one: {said}.")).to_be_visible()

        ready(page)
        page.keyboard.press("a")
        next_one("accepted")
        ready(page)
        page.keyboard.press("r")
        page.keyboard.type("Which soup? a x")
        page.keyboard.press("Control+Enter")
        next_one("came back")
        ready(page)
        page.keyboard.press("x")
        page.keyboard.type("No.")
        page.wait_for_timeout(1300)
        page.reload()
        ready(page)
        assert page.get_by_label("A comment for bob").input_value() == "No.", "a comment is kept"
        page.keyboard.press("x")
        next_one("rejected")
        ready(page)
        page.keyboard.press("u")
        page.wait_for_url(re.compile("/review/2"))
        page.go_back()
        ready(page)
        page.keyboard.press("e")
        page.keyboard.press("Control+A")
        page.keyboard.type("Onion soup.")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_text("That was all. Thank you!")).to_be_visible()
    with open_store(served.store) as store:
        shelf = Shelf(store, WRITING)
        assert [(one.status, one.comment) for one in shelf.standing().values()] == [
            ("accepted", ""), ("returned", "Which soup? a x"), ("rejected", "No."), ("accepted", ""),
        ]  # fmt: skip
        assert shelf.accepted(review=True)[-1].messages[-1].content == "Onion soup."


def test_without_scripts(browser: Browser, served: Served) -> None:
    with opened(browser, f"{served.url}/write/new", java_script_enabled=False) as page:
        page.get_by_label("What is asked").fill("Suggest dinner.")
        page.get_by_label("The ideal answer").fill("Soup.")
        page.get_by_role("button", name="Add a turn").click()
        page.get_by_label("What is asked").nth(1).fill("And then?")
        page.get_by_label("The ideal answer").nth(1).fill("Cake.")
        page.get_by_role("button", name="Check and preview").click()
        expect(page.locator("#preview")).to_contain_text("Cake.")
        page.get_by_role("button", name="Hand in").click()
        page.wait_for_url(re.compile("kept="))
    assert texts(served) == [["Suggest dinner.", "Soup.", "And then?", "Cake."]]


def test_a_model_drafts_and_what_came_of_it_says_so(browser: Browser, tmp_path: Path) -> None:
    go = threading.Semaphore(8)
    with chatting(tmp_path) as studio, opened(browser, f"{studio.url}/write/new") as page:
        studio.models.gate = lambda: go.acquire(timeout=20)
        ready(page)
        answer = page.get_by_label("The ideal answer")
        page.get_by_role("button", name="Let a model draft this answer").click()
        expect(page.locator("#banner")).to_have_text("Write what is asked first; then a model can draft the answer.")
        page.get_by_label("What is asked").fill("dinner")
        answer.fill("Mine.")
        page.get_by_role("button", name="Let a model draft this answer").click()
        expect(answer).to_have_value("Lamb für")  # it grows
        assert not answer.is_editable()
        go.release(1000)
        expect(answer).to_have_value("Lamb für dinner 🍮 <script>alert(1)</script>")
        expect(page.get_by_text("drafted by a model")).to_be_visible()
        page.get_by_role("button", name="Take the draft out again").click()
        expect(answer).to_have_value("Mine.")
        expect(page.get_by_text("drafted by a model")).to_be_hidden()
        page.get_by_role("button", name="Let a model draft this answer").click()
        expect(answer).to_have_value(re.compile(r"</script>$"))
        answer.fill("Lamb für dinner 🍮 and rice")
        expect(page.locator("[data-changed]")).to_have_text(re.compile(r"\d+ % of its words are changed"))
        page.keyboard.press("Control+Enter")
        page.wait_for_url(re.compile("kept="))
        expect(page.locator(".mine").get_by_text("drafted by a model")).to_be_visible()
        (kept,) = studio.studio.store.demonstrations("inn:write")
    assert kept.messages[-1].content == "Lamb für dinner 🍮 and rice" and kept.drafted_by == "model"
    assert kept.extra["draft"]["model"] == "ppo" and kept.extra["draft"]["text"].endswith("<script>alert(1)</script>")


def test_a_draft_that_is_stopped_stays_marked(browser: Browser, tmp_path: Path) -> None:
    go = threading.Semaphore(8)
    with chatting(tmp_path) as studio, opened(browser, f"{studio.url}/write/new") as page:
        studio.models.gate = lambda: go.acquire(timeout=20)
        ready(page)
        answer = page.get_by_label("The ideal answer")
        page.get_by_label("What is asked").fill("dinner")
        page.get_by_role("button", name="Let a model draft this answer").click()
        expect(answer).to_have_value("Lamb für")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Let a model draft this answer")).to_be_visible()
        go.release(1000)
        expect(answer).to_have_value("Lamb für")
        page.get_by_role("button", name="Hand in", exact=True).click()
        page.wait_for_url(re.compile("kept="))
        (kept,) = studio.studio.store.demonstrations("inn:write")
    assert kept.messages[-1].content == "Lamb für" and kept.drafted_by == "model"
