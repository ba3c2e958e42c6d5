"""A studio that is started as a user starts it, and a browser in front of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from palate.feedback.store import open_store
from palate.records import Judgement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


class Served:
    """`palate studio PLACE` as a process of its own."""

    def __init__(self, place: Path, *more: str) -> None:
        self.place, self.more, self.port, self.invitation, self.url = place, more, "", "", ""
        self.start()

    def start(self) -> None:
        """Begin to serve; at the same port when it was killed."""
        port = ["--port", self.port] if self.port else []
        command = [sys.executable, "-m", "palate", "studio", str(self.place), "--no-browser", "--annotator", "ann"]
        self.process = subprocess.Popen(
            [*command, *port, *self.more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said: list[str] = []
        self.url = ""
        self.opened = threading.Event()
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()
        assert self.opened.wait(60) and self.url, "".join(self.said)

    def _listen(self) -> None:
        """To what it says, to the end: whoever speaks to nobody comes to a stop when the pipe is full."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"is open: (https?://\S+:(\d+))", line):
                self.url, self.port = found.group(1), found.group(2)
            if found := re.search(r"https?://\S+/invite/\S+", line):
                self.invitation = found.group(0)
            if self.url and (self.invitation or "--login" not in self.more):
                self.opened.set()
        self.opened.set()

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self._gone()

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self._gone()

    def _gone(self) -> None:
        self.process.wait(20)
        self.listening.join(20)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def store(self) -> str:
        """Where it keeps what people do, for a file."""
        return f"sqlite:///{self.place}.feedback.sqlite"

    def judgements(self) -> list[Judgement]:
        """What is stored and stands."""
        with open_store(self.store) as store:
            (campaign,) = store.campaigns()
            return store.judgements(campaign)


@contextmanager
def serving(place: Path, *more: str) -> Iterator[Served]:
    """A studio that is stopped at the end, and in which nothing broke."""
    served = Served(place, *more)
    try:
        yield served
    finally:
        served.stop()
    assert "Traceback" not in "".join(served.said), "".join(served.said)[-3000:]


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium."""
    with sync_playwright() as playwright:
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if root else [])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str, *, quiet: bool = True, **context: Any) -> Iterator[Page]:
    """A page in a browser of its own. At the end nothing was said in its console, unless that is part of the test."""
    own = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    page = own.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto(address)
        yield page
        assert not quiet or said == []
    finally:
        own.close()


def items(path: Path, prompts: int = 6, answers: int = 4) -> Path:
    """A file of prompts with answers."""
    lines = [
        {"prompt": f"Suggest dinner number {p}.", "responses": [f"Dish {a} for dinner {p}." for a in range(answers)]}
        for p in range(prompts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answered(page: Page) -> list[str]:
    """The texts of the answers in the order they are on the page now."""
    return [text.strip() for text in page.locator(".answer .text").all_inner_texts()]
