"""kill -9, again and again, at every stage of a run: does the same command end with the same bits?

    python tests/soak/kills.py                 the whole: every publishing step of every stage, and at random
    python tests/soak/kills.py --kills 20      a random choice of 20 of those of the first round

A run of the small recipe that nothing disturbs is made first, in a process of its own (so with other hashes of
strings). Then the same command is given in a second folder and killed; given again and killed; and so on to the end of
the recipe. Then some settings change, so that finished artifacts are replaced, in both folders. At the end every file
of both must be equal byte for byte, and nothing may be left over.

To make a kill cost a second, the process that is killed is forked from one that has imported everything. It runs
`palate.cli.main`, each time with another state of every global random generator and with a wall clock that stands
somewhere else and jumps back. It is killed with SIGKILL, by its parent after a random time or by itself at a chosen
point: before or after the n-th rename, before a file is opened, removed or hashed, in the middle of a line of a log, of
a saved state or of a transaction, after the n-th optimizer step or rollout.

Two things are held still in both runs, because they are measured and differ between any two runs: the seconds and
megabytes that a manifest and the report tell are constants (so the control `sft_continued`, whose steps are counted
from seconds, trains for the same number in both), and `created_at` is not compared.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import importlib
import io
import json
import os
import pkgutil
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

import palate
from palate import cli, flow, metrics, workspace
from palate.feedback.store import Store
from palate.stages import BY_NAME, STAGES, evaluate
from palate.train import resume

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests_small import SMALL, small_recipe

SECONDS, MEGABYTES = 10.0, 100.0
"""What the meters show in both runs."""
STORE = "feedback.sqlite"
SETTINGS = ([], ["--set", "sft.steps=27"])
"""What the command says in the first round, and in the second one, which replaces what the first one made."""
STAGES_OF_A_RUN = [stage.name for stage in STAGES[:-1]] + [
    f"{control} {name}"
    for control in ("sft_continued", "placebo")
    for name in flow.control_stages(control, small_recipe())
]
STAGES_OF_A_RUN.append("evaluate")
LEFT_OVER = (".partial", ".old", ".writing", "-wal", "-shm", "-journal")


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a process dies: in `stage`, when `what` happens for the `nth` time there, or after `seconds`."""

    stage: str
    what: str
    nth: int = 1
    seconds: float | None = None


class Watch:
    """In the process that dies: counts what happens in each stage, and dies where it is told to."""

    def __init__(self, folder: Path, kill: Kill | None, told: Callable[[str], None]) -> None:
        self.folder, self.kill, self.told = str(folder), kill, told
        self.stage = self.artifact = ""
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.times: dict[str, float] = {}

    def reach(self, what: str) -> None:
        if not self.stage:
            return
        self.counts[self.stage, what] += 1
        kill = self.kill
        if not kill or kill.stage != self.stage:
            return
        # A stage that went on from a later state may have passed the chosen point: then it dies before it publishes.
        passed = what == PUBLISHING[0] and kill.what not in PUBLISHING
        if passed or (kill.what == what and kill.nth == self.counts[self.stage, what]):
            self.die(what)

    def due(self, what: str) -> bool:
        """Whether the next `reach(what)` will be the last."""
        kill = self.kill
        here = (self.stage, what)
        return kill is not None and (kill.stage, kill.what) == here and kill.nth == self.counts[here] + 1

    def die(self, what: str) -> None:
        self.told(f"died {what}")
        os.kill(os.getpid(), signal.SIGKILL)

    # --- what is watched ---------------------------------------------------------------------------------------------

    def install(self) -> None:
        sys.addaudithook(self.file_event)
        for name in ("rename", "replace"):
            self.around(Path, name, lambda path, target: f"after rename {self.short(path)} -> {self.short(target)}")
        self.around(Store, "add_judgements", lambda *_: "after a transaction")
        event.listen(Engine, "commit", lambda _: self.reach("before commit"))
        event.listen(Engine, "after_cursor_execute", self.statement)
        for stage in ("pretrain", "sft", "reward", "ppo"):
            self.around(importlib.import_module(f"palate.stages.{stage}"), "update", lambda *_: "after a step")
        for place in ("stages.sft", "stages.sample", "align.rollout", "align.watch", "stages.evaluate"):
            self.around(importlib.import_module(f"palate.{place}"), "generate", lambda *_: "after generating")
        self.log_line(metrics.Metrics.log)
        self.saved_state(torch.save)
        self.run_stage(flow.run_stage)

    def short(self, path: object) -> str:
        """The path with x for the folder of the stage's artifact."""
        inside = os.path.relpath(str(path), self.folder)
        if inside.startswith("controls/"):
            inside = inside.split("/", 2)[2]
        return inside.replace(self.artifact, "x", 1)

    def file_event(self, name: str, values: tuple[Any, ...]) -> None:
        if name not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") or not self.stage:
            return
        path = os.fsdecode(values[0]) if isinstance(values[0], (str, bytes, os.PathLike)) else ""
        if name in ("os.remove", "os.rmdir") and values[1] >= 0:  # relative to an open folder, as shutil.rmtree does
            path = f"{Path(f'/proc/self/fd/{values[1]}').readlink()}/{path}"
        if not str(Path(path).absolute()).startswith(self.folder):
            return
        if name == "open":
            write = isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
            if not write and ".partial" not in path:
                return
            name = "open to write" if write else "open to read"
        self.reach(f"before {name.removeprefix('os.')} {self.short(path)}")

    def around(self, place: Any, name: str, what: Callable[..., str]) -> None:
        original = getattr(place, name)

        @functools.wraps(original)
        def then_reach(*values: Any, **named: Any) -> Any:
            result = original(*values, **named)
            self.reach(what(*values))
            return result

        setattr(place, name, then_reach)

    def statement(self, _: object, __: object, text: str, *___: object) -> None:
        if text.startswith("INSERT"):
            self.reach("in a transaction")

    def log_line(self, original: Callable[..., None]) -> None:
        def log(self_: metrics.Metrics, step: int, **values: Any) -> None:
            if self.due("half a log line"):
                line = json.dumps({"step": step, **values}, ensure_ascii=False).encode()
                with self_.path.open("ab") as file:
                    file.write(line[: len(line) // 2])
            self.reach("half a log line")
            original(self_, step, **values)
            self.reach("after a log line")

        metrics.Metrics.log = log  # type: ignore[method-assign]

    def saved_state(self, original: Callable[..., None]) -> None:
        def save(state: Any, file: Any) -> None:
            if self.due("half a state"):
                whole = io.BytesIO()
                original(state, whole)
                file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
                file.flush()
            self.reach("half a state")
            original(state, file)

        resume.torch.save = save  # type: ignore[attr-defined]

    def run_stage(self, original: Callable[..., bool]) -> None:
        def run_stage(name: str, recipe: Any, place: workspace.Workspace) -> bool:
            self.stage = f"{place.folder.name} {name}" if place.parent is not None else name
            self.artifact = workspace.FOLDERS[BY_NAME[name].writes]
            self.told(f"stage {self.stage}")
            started = time.monotonic()
            made = original(name, recipe, place)
            self.times[self.stage] = time.monotonic() - started
            if self.kill and self.kill.stage == self.stage:
                self.die(AFTER)
            self.stage = ""
            return made

        flow.run_stage = run_stage


def hold_the_meters_still() -> None:
    """Seconds and megabytes are the same in every run; see the head of this file."""
    seal = workspace.Workspace._seal

    def sealed(self: Any, job: Any, folder: Path, seconds: float) -> None:
        assert seconds >= 0
        seal(self, job, folder, SECONDS)

    workspace.Workspace._seal = sealed  # type: ignore[method-assign]
    workspace.peak_mb = lambda: MEGABYTES
    evaluate._cost = lambda *_: {"seconds": SECONDS, "peak_mb": MEGABYTES}


def set_the_clock(seconds: float) -> None:
    """The wall clock stands somewhere else, and is set back by an hour at every tenth look at it."""
    now, looks = time.time, iter(range(10**9))
    time.time = lambda: now() + seconds - 3600 * (next(looks) // 10)


def import_everything() -> None:
    for module in pkgutil.walk_packages(palate.__path__, "palate."):
        if "migrations" not in module.name:
            importlib.import_module(module.name)
    torch.set_num_threads(1)
    hold_the_meters_still()


def palate_run(folder: Path, settings: list[str], kill: Kill | None, told: Callable[[str], None]) -> Watch:
    """The command, in this process. It does not return when it is killed."""
    watch = Watch(folder, kill, told)
    watch.install()
    cli.main(["run", str(folder.parent / "small.toml"), "--run", str(folder), *settings])
    return watch


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        yield


def undisturbed(folder: Path, rounds: int) -> None:
    """The rounds of the run that nothing kills; what happened in each stage is written beside it."""
    import_everything()
    (folder.parent / "small.toml").write_text(SMALL)
    pid = os.getpid()
    happened = []
    for settings in SETTINGS[:rounds]:
        reader, writer = os.pipe()
        if os.fork() == 0:  # the patches of a round end with its process
            with output_to(folder.parent / "output.txt"):
                watch = palate_run(folder, settings, None, lambda _: None)
            found = {"counts": [[*key, n] for key, n in watch.counts.items()], "times": watch.times}
            with os.fdopen(writer, "w") as pipe:
                json.dump(found, pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            happened.append(json.load(pipe))
        os.wait()
    assert os.getpid() == pid
    (folder.parent / "happened.json").write_text(json.dumps(happened))


def killed_once(folder: Path, settings: list[str], kill: Kill | None) -> tuple[str, str] | None:
    """One process of the command in a forked child. The stage and the place where it died, or None when it came to
    its end.

    Raises RuntimeError when it ended in any other way.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 99
        try:
            with output_to(folder.parent / "output.txt"):
                # Whoever draws from a global generator draws something else in every process.
                random.seed()
                numpy.random.seed()
                torch.manual_seed(random.getrandbits(60))
                set_the_clock(random.uniform(-1e9, 1e9))
                palate_run(folder, settings, kill, lambda line: os.write(writer, f"{line}\n".encode()) and None)
                code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    os.close(writer)
    stage, where = "", "at a random time"
    with os.fdopen(reader) as pipe:
        for line in pipe:
            what, _, name = line.rstrip("\n").partition(" ")
            if what == "died":
                where = name
                continue
            stage = name
            if kill and kill.seconds is not None and name == kill.stage:
                time.sleep(kill.seconds)
                os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return stage, where
    if os.waitstatus_to_exitcode(status) == 0:
        return None
    raise RuntimeError(
        f"{kill}: the next command failed with {os.waitstatus_to_exitcode(status)}; see {folder.parent}/output.txt"
    )


AFTER = "after the stage"
ANYWHERE = {
    "half a state": 1,
    "before rename x.partial/resume/state.writing": 1,
    "after rename x.partial/resume/state.writing -> x.partial/resume/state.pt": 1,
    "half a log line": 8,
    "after a log line": 8,
    "after a step": 7,
    "in a transaction": 3,
    "before commit": 4,
    "after a transaction": 1,
    "after generating": 4,
}
"""Where a stage is killed before it publishes, and at most how late: one that goes on from a saved state must not come
to its end before all of these were tried."""
ROLLOUTS_AND_EPOCHS = [("after generating", 2), ("after a step", 5), ("after a step", 14), ("after a step", 23)]
PUBLISHING = [
    "before open to write x.partial/manifest.json.writing",
    "before rename x.partial/manifest.json.writing",
    "after rename x.partial/manifest.json.writing -> x.partial/manifest.json",
    "before remove x.partial/resume/state.pt",
    "before rmdir x.partial/resume",
    "before remove x.partial/attempt.json",
    "before rename x.partial",
    "after rename x.partial -> x",
]
REPLACING = [
    "before rename x",
    "after rename x -> x.old",
    "before rename x.partial",
    "after rename x.partial -> x",
    "before remove x.old/manifest.json",
    "before rmdir x.old",
]


def choose(happened: dict[str, Any], stage: str, rng: random.Random, *, replaces: bool) -> list[Kill]:
    """The kills of one stage, in the order in which they are met."""
    counts = {what: n for name, what, n in happened["counts"] if name == stage}
    if not counts or (replaces and "before rename x" not in counts):
        return []
    if replaces:
        return [Kill(stage, what) for what in REPLACING if what in counts]
    kills = [Kill(stage, what, rng.randint(1, min(n, counts[what]))) for what, n in ANYWHERE.items() if what in counts]
    if stage == "ppo":
        kills += [Kill(stage, what, n) for what, n in ROLLOUTS_AND_EPOCHS]
    others = sorted(set(counts) - {*ANYWHERE, *PUBLISHING})
    kills += [Kill(stage, what, rng.randint(1, counts[what])) for what in rng.sample(others, 1)]
    longest = happened["times"][stage] * (0.3 if "half a state" in counts else 1.0)
    kills += [Kill(stage, "at a random time", seconds=rng.uniform(0.0, longest)) for _ in range(3)]
    return kills + [Kill(stage, what) for what in PUBLISHING if what in counts]


def differences(one: Path, two: Path) -> list[str]:
    """What differs between two runs that were given the same commands."""
    files = [{str(p.relative_to(run)): p for p in run.rglob("*") if p.is_file()} for run in (one, two)]
    found = [f"only one has {name}" for name in sorted(files[0].keys() ^ files[1].keys())]
    found += [f"left over: {p}" for run in (one, two) for p in run.parent.rglob("*") if p.name.endswith(LEFT_OVER)]
    for name in sorted(files[0].keys() & files[1].keys()):
        contents = [place[name].read_bytes() for place in files]
        if name.endswith("manifest.json"):
            contents = [{**json.loads(text), "created_at": ""} for text in contents]
        if contents[0] != contents[1]:
            found.append(f"{name} differs")
    stores = [_rows(run.parent / STORE) for run in (one, two)]
    if stores[0] != stores[1]:
        found.append(f"{STORE} differs: {[len(rows) for rows in stores]} rows")
    return found


def _rows(path: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, row) for table in sorted(tables) for row in connection.execute(f"SELECT * FROM {table}")]


def make_undisturbed(folder: Path, rounds: int) -> None:
    """`undisturbed` in a process of its own."""
    folder.parent.mkdir(parents=True)
    asked = ["--undisturbed", str(folder), "--rounds", str(rounds)]
    subprocess.run([sys.executable, __file__, *asked], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="choose so many of the first round's kills at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it; its undisturbed run is used again")
    parser.add_argument("--undisturbed", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    many = given.rounds or (len(SETTINGS) if given.kills is None else 1)
    if given.undisturbed:
        undisturbed(given.undisturbed, many)
        return 0
    home = given.keep.absolute() if given.keep else Path(tempfile.mkdtemp(prefix="kills-"))
    calm, killed = home / "calm" / "run", home / "killed" / "run"
    killed.parent.mkdir(parents=True)
    if not (calm.parent / "happened.json").exists():
        make_undisturbed(calm, many)
    import_everything()
    (killed.parent / "small.toml").write_text(SMALL)
    happened = json.loads((calm.parent / "happened.json").read_text())
    rng = random.Random(given.seed)
    rounds = [
        [kill for stage in STAGES_OF_A_RUN for kill in choose(happened[number], stage, rng, replaces=number > 0)]
        for number in range(many)
    ]
    if given.kills is not None:
        chosen = sorted(rng.sample(range(len(rounds[0])), min(given.kills, len(rounds[0]))))
        rounds[0] = [rounds[0][at] for at in chosen]
    table: collections.Counter[tuple[str, str]] = collections.Counter()
    started = time.monotonic()
    for settings, kills in zip(SETTINGS, rounds, strict=False):
        for kill in kills:
            place = killed_once(killed, settings, kill)
            if place is not None and not (place[1] == AFTER and table[place]):  # once is enough
                table[place] += 1
                print(f"{time.monotonic() - started:6.1f}  {place[0]:20} {place[1]}", flush=True)
        last = killed_once(killed, settings, None)
        assert last is None
    found = differences(calm, killed)
    for stage in STAGES_OF_A_RUN:
        places = collections.Counter({what: n for (name, what), n in table.items() if name == stage})
        print(
            f"| {stage} | {places.total()} |",
            ", ".join(f"{what} x{n}" if n > 1 else what for what, n in places.items()),
        )
    print(
        f"{table.total()} kills, seed {given.seed}: {'; '.join(found) or 'every file is equal, nothing is left over'}"
    )
    if given.keep is None:
        shutil.rmtree(home)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
