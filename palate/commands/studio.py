"""`palate studio PLACE`: open the web app on a run, or on a file with prompts and answers, for one person or many."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import socket
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from palate import flow
from palate.commands.effects import Effects
from palate.commands.speaker import Speaker
from palate.errors import BadInput, RecipeError
from palate.feedback import campaigns, care, exchange, place
from palate.feedback.campaigns import Settings
from palate.feedback.people import People, Person
from palate.feedback.queue import Queue
from palate.feedback.store import Store, open_store
from palate.records import Prompt, Response, read_jsonl
from palate.studio.app import build
from palate.studio.here import Studio
from palate.workspace import Workspace

PORT = 8484
LOOK_AGAIN = 2.0
"""Seconds: how often it is looked whether the run has come to other answers."""


@dataclass
class Answers:
    """The answers of a run that are ranked now, in the store and its queue. A run samples others when it comes there,
    so the campaign may change while the studio is open."""

    store: Store
    workspace: Workspace
    settings: Settings
    campaign: str = ""
    looked: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def now(self) -> str:
        """The campaign; what it asks is in the queue."""
        with self._lock:
            if time.monotonic() - self.looked >= LOOK_AGAIN or not self.campaign:
                self._look()
                self.looked = time.monotonic()
        return self.campaign

    def _look(self) -> None:
        name = self.workspace.folder.resolve().name
        if not self.workspace.has("samples"):
            self.campaign = f"{name}:nothing yet"
            return
        campaign = place.campaign(self.workspace)
        if campaign == self.campaign:
            return
        samples = self.workspace.read("samples")
        prompts = list(read_jsonl(samples / "prompts.jsonl", Prompt))
        settings = campaigns.settings(self.store, name, self.settings)
        lay(self.store, campaign, prompts, list(read_jsonl(samples / "responses.jsonl", Response)), settings)
        self.campaign = campaign


def lay(
    store: Store, campaign: str, prompts: Sequence[Prompt], responses: Sequence[Response], settings: Settings
) -> None:
    """Prompts and answers into the store, what can be ranked into its queue, and which of it may upset."""
    new = store.add_prompts(prompts, campaign) + store.add_responses(responses, campaign)
    queue = Queue(store, campaign)
    if new or queue.lacks(prompts, responses):  # before people get it, and not at every start
        care.mark(store, campaign, prompts, responses, settings.topics)
    queue.lay(prompts, responses, random_share=settings.random_share)


def open_studio(
    what: Path,
    *,
    host: str,
    port: int | None,
    who: str,
    answers: Sequence[str] | None,
    store: str | None,
    browser: bool,
    write: Callable[[str], None],
    login: bool = False,
    origin: str = "",
    lead_link: bool = False,
) -> None:
    """Serve until Ctrl-C. Raises BadInput where there is nothing to open or the address cannot be had.

    People log in where `login` says so, where the studio answers other machines, where it has an `origin` (what people
    type, behind a proxy that ends HTTPS), and wherever its store has accounts. lead_link: say a link by which somebody
    becomes a lead, for whoever has lost the password.
    """
    _check_origin(origin)
    is_run = (what / flow.RECIPE).is_file()
    if is_run and store is not None:  # the run would wait for judgements in another place
        raise RecipeError("--store is for a file. A run's store is in its recipe: [feedback] store.")
    url, make = _run(what) if is_run else _file(what, answers)
    with open_store(store or url) as opened:
        studio_of = make(opened)
        people = People(opened)
        accounts = login or lead_link or bool(origin) or not _is_loopback(host) or bool(people.accounts())
        listening = _listen(host, port)
        number = listening.getsockname()[1]
        address = f"{_reachable(host)}:{number}"
        hosts = frozenset({address, *(f"{name}:{number}" for name in _names(host)), *_netloc(origin)})
        studio = studio_of(None if accounts else Person(who, frozenset({"lead"})), hosts)
        app = build(dataclasses.replace(studio, origin=origin))
        base = origin or f"http://{address}"
        link = (people.lead_invite() if lead_link else people.setup_invite()) if accounts else None
        server = Announced(
            uvicorn.Config(
                app,
                log_level="warning",
                server_header=False,
                proxy_headers=False,  # whom a proxy speaks for is decided in studio/doors.py
                timeout_graceful_shutdown=3,
            )
        )

        def ready() -> None:
            write(f"The studio is open: {base}   (Ctrl-C closes it)")
            write(f"Everything people do is kept in {opened.url}")
            if link is not None:
                write(f"This link makes one lead, once: {base}/invite/{link}")
            if accounts and not origin and not _is_loopback(host):
                write("Passwords cross the network readable to others on it. With HTTPS: docs/studio-https.md")
            if browser:
                webbrowser.open(f"{base}/invite/{link}" if link is not None else base)

        server.ready = ready
        with contextlib.suppress(KeyboardInterrupt):  # which is how one closes it
            server.run(sockets=[listening])
        if isinstance(studio.effects, Effects):
            studio.effects.close()
        write("The studio is closed.")


Make = Callable[[Store], Callable[[Person | None, frozenset[str]], Studio]]


def _run(folder: Path) -> tuple[str, Make]:
    recipe, workspace = flow.reopen(folder)
    wanted = recipe.rank.until if recipe.rank is not None and "people" in recipe.rank.by else None
    written = recipe.write.until if recipe.write is not None and "people" in recipe.write.demonstrations else None
    default = Settings(overlap=recipe.rank.overlap if recipe.rank is not None else 1)

    def make(store: Store) -> Callable[[Person | None, frozenset[str]], Studio]:
        asked = Answers(store, workspace, default)
        asked.now()
        name = folder.resolve().name
        effects = Effects(recipe, workspace, store, name)
        threading.Thread(target=effects.watch, name="palate unsure", daemon=True).start()
        return lambda person, hosts: Studio(
            store, name, asked.now, title=name, default=default, wanted=wanted,
            demonstrations_wanted=written, workspace=workspace,
            speaker=Speaker(folder), effects=effects, single=person, hosts=hosts,
        )  # fmt: skip

    return place.store_url(recipe, workspace), make


def _file(path: Path, answers: Sequence[str] | None) -> tuple[str, Make]:
    if path.is_dir():
        raise BadInput("this folder is no run.", path, "Name a run folder, or a file with prompts and answers.")
    prompts, responses, judgements = exchange.read_items(path, answers)

    def make(store: Store) -> Callable[[Person | None, frozenset[str]], Studio]:
        lay(store, path.name, prompts, responses, campaigns.settings(store, path.name))
        store.add_judgements(judgements, path.name)
        return lambda person, hosts: Studio(
            store, path.name, lambda: path.name, title=path.stem, single=person, hosts=hosts
        )

    return f"sqlite:///{path.resolve().with_name(path.name + '.feedback.sqlite')}", make


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reachable(host: str) -> str:
    """What a browser is told for an address to listen at: all of them is none of them."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _names(host: str) -> set[str]:
    """What else this machine is called by those who reach it there."""
    if _is_loopback(host):
        return {"localhost"}
    name = socket.gethostname()
    return {"localhost", name, f"{name.partition('.')[0]}.local"}


def _netloc(origin: str) -> set[str]:
    return {urlsplit(origin).netloc} if origin else set()


def _check_origin(origin: str) -> None:
    told = urlsplit(origin)
    if origin and (told.scheme != "https" or not told.netloc or origin != f"https://{told.netloc}"):
        raise BadInput("this is not what people type.", f"--origin {origin}", "For example https://studio.example.org")


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens; at the next free port where none was named."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port or PORT, (port or PORT) + (1 if port is not None else 20)):
        # Named TCP, so that asyncio switches off Nagle: else an answer of two parts waits 40 ms between them.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, candidate))
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    raise BadInput(f"port {port or PORT} cannot be had ({reason}).", host, "Name another one with --port.")


class Announced(uvicorn.Server):
    """Says when it answers: an address that is told before that is a page that fails."""

    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then the news."""
        await super().startup(sockets=sockets)
        if self.started:
            self.ready()
