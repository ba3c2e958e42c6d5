"""The chat as people use it: answers that grow, two blind ones by keys, branches, a server that dies."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests_browser import needs_browser, opened
from tests_chatting import Chatting, chatting

pytestmark = [pytest.mark.slow, needs_browser]
BYTE_BY_BYTE = """
const whole = window.fetch;
window.fetch = async (path, ...more) => {
  const answer = await whole(path, ...more);
  if (!String(path).endsWith("/chat/say") || !answer.ok) return answer;
  const bytes = new Uint8Array(await answer.arrayBuffer());
  let at = 0;
  const pull = (to) => { if (at < bytes.length) to.enqueue(bytes.slice(at, at += 1)); else to.close(); };
  const body = new ReadableStream({ pull });
  return new Response(body, { status: answer.status, headers: answer.headers });
};
"""
"""The network may cut anywhere; here it cuts everywhere."""
WATCH = """
window.seen = [];
const grown = () => document.querySelector(".live .prose")?.textContent;
const look = () => { if (grown()) window.seen.push(grown()); };
const what = { childList: true, subtree: true, characterData: true };
new MutationObserver(look).observe(document.getElementById("talk"), what);
"""
"""What is on the page while an answer grows."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Chatting]:
    with chatting(tmp_path) as found:
        yield found


@contextmanager
def chat(browser: Browser, served: Chatting, **more: object) -> Iterator[Page]:
    with opened(browser, f"{served.url}/chat", **more) as page:  # type: ignore[arg-type]
        ready(page)
        yield page


def ready(page: Page) -> None:
    page.wait_for_selector("#chat[data-ready]")


def ask(page: Page, text: str, answers: int = 1) -> None:
    page.fill("#message", text)
    page.keyboard.press("Enter")
    answered(page, answers)


def answered(page: Page, answers: int = 1) -> None:
    expect(page.locator(".said:not(.live):not(.user):not(.missing)")).to_have_count(answers)
    expect(page.locator(".live")).to_have_count(0)


def test_an_answer_grows_as_text_and_ends_as_what_the_server_cleaned(browser: Browser, served: Chatting) -> None:
    go = threading.Semaphore(30)
    served.models.gate = lambda: go.acquire(timeout=20)
    with chat(browser, served) as page:
        page.fill("#message", "**Hello** <img src=x onerror=alert(1)>")
        page.keyboard.press("Enter")
        expect(page.locator(".live .prose")).to_have_text(re.compile(r"Lamb für \*\*Hello\*\* <img"))
        assert page.locator(".live img, .live strong").count() == 0, "while it grows it is text, whatever is in it"
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        go.release(1000)
        answered(page)
        last = page.locator(".said.assistant .prose")
        expect(last).to_have_text("Lamb für Hello <img src=x onerror=alert(1)> 🍮 <script>alert(1)</script>")
        assert last.locator("strong").inner_text() == "Hello" and last.locator("img, script").count() == 0
        expect(page.locator("#said")).to_have_text(re.compile("^ppo: Lamb für"))
        assert page.url != f"{served.url}/chat"
        page.reload()
        expect(page.locator(".said.assistant .prose strong")).to_have_text("Hello")


def test_a_network_that_cuts_letters_in_two_loses_none(browser: Browser, served: Chatting) -> None:
    with opened(browser, f"{served.url}/chat") as page:
        page.add_init_script(BYTE_BY_BYTE)
        page.reload()
        ready(page)
        page.evaluate(WATCH)
        ask(page, "crème brûlée")
        seen = page.evaluate("window.seen")
        assert seen[-1] == "Lamb für crème brûlée 🍮 <script>alert(1)</script>" and not any("\ufffd" in s for s in seen)


@pytest.mark.parametrize(("key", "told"), [("a", "You found A better"), ("x", "You found both bad")])
def test_two_blind_answers_by_keys(browser: Browser, served: Chatting, key: str, told: str) -> None:
    with chat(browser, served) as page:
        page.get_by_label("Two, blind").check()
        ask(page, "Hello")
        talked = page.locator("#talk").inner_html() + page.locator("#said").inner_text()
        assert not any(name in talked for name in ("ppo", "sft", "base"))
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert not any(name in kept for name in ("ppo", "sft", "base"))
        expect(page.locator("#vote")).to_be_focused()
        expect(page.locator("#composer")).to_be_hidden()
        page.get_by_label("Why?").fill("It is b, a, t and x")
        assert served.studio.store.judgements(served.studio.chats) == [], "letters in a reason choose nothing"
        page.locator("#vote").focus()
        page.keyboard.press(key)
        heard = [name for name, _ in served.models.heard]
        expect(page.locator(".told .note")).to_contain_text(f"{told}. A was {heard[0]}, B was {heard[1]}.")
        (stored,) = served.studio.store.judgements(served.studio.chats)
        assert stored.rationale == "It is b, a, t and x" and stored.seconds is not None and stored.seconds < 60
        expect(page.locator("#message")).to_be_focused()
        page.reload()
        expect(page.locator(".one-of-two .name")).to_have_text(heard)
        assert page.get_by_label("Two, blind").is_checked()


def test_answers_asked_for_again_are_leafed_through_and_one_is_the_best(browser: Browser, served: Chatting) -> None:
    with chat(browser, served) as page:
        ask(page, "Hello")
        page.select_option("#model", "sft")
        page.locator("#talk .said.assistant").focus()
        page.keyboard.press("r")
        expect(page.locator(".said.assistant .pager")).to_contain_text("2 of 2")
        expect(page.locator(".said.assistant .role")).to_contain_text("sft")
        page.keyboard.press("Escape")
        page.locator(".said.assistant").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".said.assistant .role")).to_contain_text("ppo")
        page.get_by_role("button", name="Better than the other").click()
        expect(page.locator(".said.assistant .badge")).to_have_text("the best one")
        (stored,) = served.studio.store.judgements(served.studio.chats)
        texts = {r.id: r.text for r in served.studio.store.responses(served.studio.chats)}
        assert {texts[id_][:4]: rank for id_, rank in stored.ranks.items()} == {"Lamb": 1, "Stew": 2}
        page.reload()
        expect(page.locator(".said.assistant .pager")).to_contain_text("1 of 2"), "one comes back to where one was"


def test_an_edited_question_is_a_branch(browser: Browser, served: Chatting) -> None:
    with chat(browser, served) as page:
        ask(page, "Hello")
        ask(page, "And then?", 2)
        page.locator(".said.user").first.get_by_role("button", name="Edit").click()
        page.get_by_label("Your message, changed").fill("Good evening")
        page.keyboard.press("Enter")
        answered(page)
        expect(page.locator(".said.assistant .prose")).to_have_text(re.compile("Good evening"))
        expect(page.locator(".said.user .pager")).to_contain_text("2 of 2")
        page.get_by_role("button", name="The version before").click()
        expect(page.locator(".said.user .prose")).to_have_text(["Hello", "And then?"])


def test_what_it_should_have_said(browser: Browser, served: Chatting) -> None:
    with chat(browser, served) as page:
        ask(page, "Hello")
        page.get_by_role("button", name="Write what it should have said").click()
        page.get_by_label("What it should have said").fill("Good evening, what can I do?")
        page.wait_for_timeout(1500)  # it is a draft by now
        page.reload()
        page.get_by_role("button", name="Write what it should have said").click()
        expect(page.get_by_label("What it should have said")).to_have_value("Good evening, what can I do?")
        page.get_by_role("button", name="Keep it as the better answer").click()
        expect(page.locator(".said.assistant .role")).to_contain_text("Written by you")
        (stored,) = served.studio.store.judgements(served.studio.chats)
        assert stored.extra["improved"]
        page.get_by_role("button", name="Use as an example").click()
        page.wait_for_url(re.compile("/write/new"))
        expect(page.get_by_label("The ideal answer")).to_have_value("Good evening, what can I do?")


def test_stop_and_a_server_that_dies_lose_nothing(browser: Browser, served: Chatting) -> None:
    go = threading.Semaphore(6)
    served.models.gate = lambda: go.acquire(timeout=20)
    with chat(browser, served, quiet=False) as page:
        page.fill("#message", "Hello")
        page.keyboard.press("Enter")
        expect(page.locator(".live .prose")).to_have_text(re.compile("^Lamb"))
        with page.expect_response("**/chat/stop"):  # before the model goes on
            page.keyboard.press("Escape")
        go.release(100)
        answered(page)
        expect(page.locator(".said.assistant .badge")).to_have_text("stopped")
        page.fill("#message", "What I was about to say")
        served.stop()
        page.wait_for_timeout(1500)
        expect(page.locator("#banner")).to_contain_text("kept in this browser")
        served.start()
        page.reload()
        ready(page)
        expect(page.locator("#message")).to_have_value("What I was about to say")
        expect(page.locator(".said.user .prose")).to_have_text("Hello")
        served.models.gate = lambda: None
        page.locator("#message").focus()
        page.keyboard.press("Enter")
        answered(page, 2)
        expect(page.locator(".said.user .prose")).to_have_text(["Hello", "What I was about to say"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_conversation_is_accessible_and_nothing_sticks_out(
    browser: Browser, served: Chatting, scheme: str, width: int
) -> None:
    how = {"color_scheme": scheme, "viewport": {"width": width, "height": 844}, "bypass_csp": True}
    with chat(browser, served, **how) as page:

        def look(what: str) -> None:
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
            assert [(v["id"], [node["target"] for node in v["nodes"]][:3]) for v in found] == [], what

        ask(page, "Hello " + "long" * 60)
        look("one")
        page.get_by_role("button", name="Ask again").click()
        expect(page.locator(".said.assistant .pager")).to_contain_text("2 of 2")
        page.get_by_role("button", name="Write what it should have said").click()
        look("editing")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_label("Two, blind").check()
        ask(page, "And then?", 2)
        both = [box.bounding_box() for box in page.locator(".one-of-two").all()]
        assert both[0] and both[1] and (both[0]["y"] == both[1]["y"]) == (width == 1280), "beside or below each other"
        look("two")
        page.get_by_role("button", name="B is better").click()
        expect(page.locator(".told")).to_be_visible()
        look("told")
