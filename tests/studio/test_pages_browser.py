"""Every page, light and dark, on a phone and on a wide screen: nothing in the console, nothing cut, and axe-core finds
nothing serious (WCAG 2.2 A and AA, and what it calls best practice)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import APIRoute
from playwright.sync_api import Browser
from tests_browser import Served, items, needs_browser, opened, serving

from palate.recipe import Recipe
from palate.studio.app import ROUTERS
from palate.workspace import Workspace

pytestmark = [pytest.mark.slow, needs_browser]
SERIOUS = ("serious", "critical")
LOUD = ("error", "warning")
NO_PAGES = {"/guidelines/text", "/report/frame", "/logout", "/queue/export"}


def pages() -> list[str]:
    """The addresses of all pages that can be opened just so."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {r.path for r in routes if "GET" in r.methods and not {"{", "."} & set(r.path) and "/api/v" not in r.path}
    return sorted(found - NO_PAGES)


@pytest.fixture(scope="module")
def file_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(items(tmp_path_factory.mktemp("pages") / "dinner.jsonl")) as found:
        yield found


@pytest.fixture(scope="module")
def run_studio(small_run: tuple[Recipe, Workspace]) -> Iterator[Served]:
    with serving(small_run[1].folder) as found:
        yield found


@pytest.mark.parametrize(("scheme", "of"), [("light", "run_studio"), ("dark", "run_studio"), ("light", "file_studio")])
def test_all_pages(scheme: str, of: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    address: str = request.getfixturevalue(of).url
    wrong: list[str] = []
    for width in (390, 1280):
        size = {"width": width, "height": 800}
        with opened(browser, address, color_scheme=scheme, viewport=size, quiet=False) as page:
            page.on("console", lambda told: wrong.append(f"{told.text} {told.location}") if told.type in LOUD else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            for here in pages():
                page.goto(address + here)
                page.wait_for_timeout(150)
                if page.locator("h1").count() != 1:
                    wrong.append(f"{here}: a page has one heading of the first level")
                if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    wrong.append(f"{here}: something sticks out at {width} px")
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme: str, browser: Browser, run_studio: Served) -> None:
    address = run_studio.url
    wrong = []
    # Our policy is there to stop scripts like axe's own.
    with opened(browser, address, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce", quiet=False) as page:
        for here in pages():
            page.goto(address + here)
            page.wait_for_timeout(150)
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in SERIOUS]
            wrong += [(here, v["id"], [node["target"] for node in v["nodes"]][:3]) for v in found]
    assert wrong == []


def test_the_first_page_says_what_to_do(browser: Browser, file_studio: Served) -> None:
    with opened(browser, file_studio.url) as page:
        page.get_by_role("link", name="Rank answers").click()
        page.wait_for_selector("form#rank")


def test_guidelines_and_keys_are_one_key_away(browser: Browser, file_studio: Served) -> None:
    with opened(browser, f"{file_studio.url}/rank") as page:
        page.wait_for_selector("form#rank[data-ready]")
        page.keyboard.press("h")
        page.get_by_role("dialog", name="Guidelines").get_by_text("Length is not quality").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").get_by_text("the best answer, then the next best").wait_for()


def test_on_every_page_the_theme_changes_at_a_click(browser: Browser, file_studio: Served) -> None:
    still = []
    with opened(browser, file_studio.url, color_scheme="light", quiet=False) as page:
        for here in pages():
            page.goto(file_studio.url + here)
            page.wait_for_timeout(150)
            look = "getComputedStyle(document.body).backgroundColor"
            before = page.evaluate(look)
            page.get_by_role("button", name="Light or dark").click()
            still += [here] if page.evaluate(look) == before else []
    assert still == []


def test_the_theme_is_remembered(browser: Browser, file_studio: Served) -> None:
    with opened(browser, file_studio.url, color_scheme="light") as page:
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 20, 18)"
