"""Who may reach a studio, and how it says so when it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests_browser import items

from palate.commands import studio as command
from palate.errors import BadInput
from palate.feedback import care
from palate.feedback.campaigns import Settings
from palate.feedback.store import open_store
from palate.feedback.tables import ITEMS, TOPICS
from palate.records import Prompt, Response, conversation

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "origin",
    [
        "http://x.example",
        "x.example",
        "https://",
        "https://x.example/path",
        "https://x.example?a",
        "ftp://x",
        "javascript:x",
    ],
)
def test_an_origin_is_what_people_type(origin: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--origin"):
        command.open_studio(
            items(tmp_path / "a.jsonl"), host="127.0.0.1", port=None, who="ann", answers=None, store=None,
            browser=False, write=print, origin=origin,
        )  # fmt: skip


def test_only_this_machine_is_this_machine() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        assert command._is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.1.7", "studio.example.org", "", "127.0.0.1.example.org"):
        assert not command._is_loopback(host)


def test_names_that_others_type_are_known() -> None:
    assert command._names("127.0.0.1") == {"localhost"}
    assert len(command._names("0.0.0.0")) >= 2 and command._reachable("0.0.0.0") in command._names("0.0.0.0")
    assert command._reachable("::1") == "[::1]" and command._netloc("https://x.example:444") == {"x.example:444"}


def test_the_page_about_https_starts_what_there_is() -> None:
    """Options that are named exist, and the ports agree."""
    page = (ROOT / "docs" / "studio-https.md").read_text(encoding="utf-8")
    cli = (ROOT / "palate" / "cli.py").read_text(encoding="utf-8")
    named = set(re.findall(r"--[a-z][a-z-]+", page)) - {"--config"}
    assert {"--login", "--origin", "--lead-link", "--host", "--port"} <= named
    for option in named:
        assert f'"{option}' in cli or f"{option[2:].replace('-', '_')}:" in cli or option == "--no-browser", option
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", page)) == {"8484"} == set(re.findall(r"--port (\d+)", page))


def test_what_may_upset_is_noted_when_it_comes_and_not_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*names: str) -> tuple[list[Prompt], list[Response]]:
        prompts = [Prompt(id=name, messages=conversation(f"A {name}?"), family=name) for name in names]
        return prompts, [Response(id=f"{p.id}{a}", prompt_id=p.id, text=a) for p in prompts for a in "ab"]

    marked: list[int] = []
    mark = care.mark
    monkeypatch.setattr(care, "mark", lambda *told: marked.append(len(told[2])) or mark(*told))
    with open_store(f"sqlite:///{tmp_path / 'f.sqlite'}") as store:
        for names in (("murder", "soup"), ("murder", "soup"), ("murder", "soup", "nazi")):
            command.lay(store, "c", *asked(*names), Settings())
        assert marked == [2, 3]
        assert [care.of_prompt(store, "c", name) for name in ("murder", "soup", "nazi")] == [["violence"], [], ["hate"]]
        with store.writing() as connection:  # as when it was killed before it had noted and laid them
            connection.execute(sa.delete(ITEMS))
            connection.execute(sa.delete(TOPICS))
        command.lay(store, "c", *asked("murder"), Settings())
        assert care.of_prompt(store, "c", "murder") == ["violence"]
