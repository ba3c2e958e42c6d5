"""Thirty evaluators at one studio, and kill -9 in the middle of it: `make soak`, or alone

    python tests/soak/studio.py [--seconds 120] [--evaluators 30] [--kills 10] [--think 1] [--only sqlite]

One process serves, another one plays the evaluators, on the same machine. Each evaluator asks for the next prompt and
hands in an order after `--think` seconds on average (people take tens of seconds; 0 is as fast as answers come), and
writes down what was acknowledged. At the end the store holds exactly that: nothing lost, nothing doubled, no prompt
judged more often than it should be.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np
import sqlalchemy as sa
import tests_postgres

from palate.feedback import campaigns
from palate.feedback.people import People
from palate.feedback.store import open_store

OVERLAP = 3
PROMPTS = 12_000
CAMPAIGN = "load.jsonl"


@dataclass
class Evaluator:
    """One person, who never gives up: what was not acknowledged is sent again."""

    token: str
    port: int
    think: float
    until: float
    rng: random.Random
    acknowledged: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    again: int = 0
    refused: list[str] = field(default_factory=list)
    empty: bool = False

    def work(self) -> None:
        """Until the time is over."""
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while time.time() < self.until:
            item = self.ask("next", "/api/v1/rank/next", {})
            if item is None:
                self.empty = True
                return
            time.sleep(self.rng.expovariate(1 / self.think) if self.think else 0)
            order = self.rng.sample(range(1, len(item["answers"]) + 1), len(item["answers"]))
            ranks = {str(place): rank for rank, place in enumerate(order, start=1)}
            kept = self.ask("hand in", "/api/v1/judgements", {"lease": item["lease"], "ranks": ranks})
            if kept is not None:
                self.acknowledged[kept["id"]] = kept["ranks"]

    def ask(self, what: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        while True:
            started = time.perf_counter()
            try:
                self.connection.request("POST", path, json.dumps(body), headers)
                response = self.connection.getresponse()
                told = json.loads(response.read() or b"null")
            except (OSError, http.client.HTTPException, ValueError):
                self.connection.close()
                self.again += 1
                time.sleep(0.05)
                continue
            if response.status < 300:
                self.seconds.setdefault(what, []).append(time.perf_counter() - started)
                return told
            self.refused.append(f"{response.status} {told}")
            if response.status not in (429, 503):
                return None
            time.sleep(0.1)


class Server:
    """The studio, started as its users start it."""

    def __init__(self, file: Path, url: str, port: int) -> None:
        self.command = [
            sys.executable, "-m", "palate", "studio", str(file), "--store", url, "--login", "--no-browser",
            "--port", str(port),
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        """Until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "open" in line:
                return
        raise SystemExit("the studio did not start")

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def play(url: str, folder: Path, options: argparse.Namespace, kills: int) -> dict[str, Any]:
    """One load on an empty store; the figures. Raises AssertionError where something was lost or doubled."""
    file = folder / CAMPAIGN
    with file.open("w") as lines:
        for number in range(PROMPTS):
            answers = [f"Answer {k} to question {number}, a few words long, as answers are." for k in range(4)]
            lines.write(json.dumps({"prompt": f"Question {number}?", "responses": answers}) + "\n")
    with open_store(url) as store:
        people = People(store)
        first = people.setup_invite()
        assert first is not None
        people.join(first, "lead", "a password of the lead")
        tokens = [_account(people, f"evaluator {n}") for n in range(options.evaluators)]
        campaigns.decide(store, CAMPAIGN, campaigns.Settings(overlap=OVERLAP))
    port = free_port()
    server = Server(file, url, port)
    until = time.time() + options.seconds
    crowd = [Evaluator(t, port, options.think, until, random.Random(n)) for n, t in enumerate(tokens)]
    threads = [threading.Thread(target=one.work) for one in crowd]
    started = time.time()
    for thread in threads:
        thread.start()
    for number in range(kills):
        time.sleep(max(0.0, started + (number + 1) * options.seconds / (kills + 1) - time.time()))
        server.kill()
        server.start()
    for thread in threads:
        thread.join()
    took = time.time() - started
    server.kill()
    return _checked(url, crowd, took, kills)


def _account(people: People, name: str) -> str:
    """A person's token."""
    people.join(people.invite(["evaluator"], by="lead"), name, f"the password of {name}")
    return people.make_token(name, "load")


def _checked(url: str, crowd: list[Evaluator], took: float, kills: int) -> dict[str, Any]:
    said = {id_: ranks for one in crowd for id_, ranks in one.acknowledged.items()}
    with open_store(url) as store:
        stored = store.judgements(CAMPAIGN, include_superseded=True)
    assert sum(len(one.acknowledged) for one in crowd) == len(said), "two people were told of the same judgement"
    assert len(stored) == len({j.id for j in stored}) == len({(j.prompt_id, j.annotator) for j in stored})
    place = {j.id: {id_: str(n) for n, id_ in enumerate(j.presented_order, start=1)} for j in stored}
    kept = {j.id: {place[j.id][id_]: rank for id_, rank in j.ranks.items()} for j in stored}
    lost, more = set(said) - set(kept), set(kept) - set(said)
    assert not lost, f"{len(lost)} acknowledged judgements are gone"
    assert not more, f"{len(more)} judgements are there that nobody was told of"
    assert kept == said, "a judgement is not what was handed in"
    most = max(Counter(j.prompt_id for j in stored).values())
    assert most <= OVERLAP, f"a prompt has {most} judgements, not {OVERLAP}"
    refused = [line for one in crowd for line in one.refused]
    assert not refused, f"{len(refused)} requests were refused: {refused[0]}"
    assert not any(one.empty for one in crowd), "there was nothing left to rank: PROMPTS is too small"
    times = {what: np.array([s for one in crowd for s in one.seconds.get(what, [])]) for what in ("next", "hand in")}
    return {
        "judgements": len(stored),
        "per second": round(len(stored) / took, 1),
        **{
            f"{what} {q} ms": round(1000 * float(np.percentile(values, p)))
            for what, values in times.items()
            for q, p in (("p50", 50), ("p95", 95), ("p99", 99))
        },
        "kills": kills,
        "sent again": sum(one.again for one in crowd),
        "lost": 0,
        "doubled": 0,
    }


@contextmanager
def _postgres():  # type: ignore[no-untyped-def]
    with tests_postgres.server() as url:
        engine = sa.create_engine(url.format(name="postgres"), isolation_level="AUTOCOMMIT")
        count = 0

        def fresh() -> str:
            nonlocal count
            count += 1
            with engine.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE load{count}"))
            return url.format(name=f"load{count}")

        yield fresh


def main() -> None:
    """All four: two databases, with and without kills."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--evaluators", type=int, default=30)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--think", type=float, default=1.0)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    options = parser.parse_args()
    for name in [options.only] if options.only else ["sqlite", "postgresql"]:
        with _postgres() if name == "postgresql" else nullcontext() as fresh:
            for kills in sorted({0, options.kills}):
                with tempfile.TemporaryDirectory() as folder:
                    url = fresh() if fresh else f"sqlite:///{folder}/load.sqlite"
                    told = play(url, Path(folder), options, kills)
                    print(name, json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
