"""The run folder: finished artifacts with manifests, published by rename; one process at a time.

    runs/<name>/recipe.toml     the resolved recipe, written first
    runs/<name>/01-corpus/      an artifact: files and manifest.json
    runs/<name>/01-corpus.partial/   the same while it is being made; nobody reads it but the stage that makes it

Readers only ever see finished artifacts: a stage writes into `x.partial/`, then `manifest.json`, then renames. The
manifest's `key` is a hash of everything the stage depends on (its recipe sections, the seed, the digests of its
inputs, what it reads outside the run); a finished artifact with the same key is not made again.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import gc
import hashlib
import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from palate import ranks
from palate.errors import BadInput, BrokenArtifact, FolderBusy, MissingArtifact, PalateError

FOLDERS = {
    "corpus": "01-corpus",
    "tokens": "02-tokens",
    "base": "03-base",
    "demonstrations": "04-demonstrations",
    "sft": "05-sft",
    "samples": "06-samples",
    "rankings": "07-rankings",
    "reward": "08-reward",
    "ppo": "09-policy/ppo",
    "dpo": "09-policy/dpo",
    "grpo": "09-policy/grpo",
    "rejection": "09-policy/rejection",
    "report": "10-report",
}
"""Artifact -> its folder in a run. The numbers make a directory listing read like the recipe."""
POLICIES = ("ppo", "dpo", "grpo", "rejection")
"""The artifacts that are policies, one for each method. A run may have several; the first is the one it is about."""

INHERITED = ("corpus", "tokens", "base", "demonstrations", "sft")
"""What a run has from the run that it continues; its assistant is that run's policy."""
ANCESTOR = "parent.json"
"""In a run that continues another: {"run": path from here, "policy": artifact}."""

MANIFEST = "manifest.json"
ATTEMPT = "attempt.json"
"""In an artifact in the making: the key it is made for, and the seconds spent on it so far."""
RESUME = "resume"
"""In an artifact in the making: the folder of what a killed stage goes on from."""
VERSION = 3
"""Of the layout of artifacts; part of every key, so that a change of layout makes old artifacts stale."""


@dataclass(frozen=True)
class Job:
    """What is being made right now: the stage, the artifact, and the key its manifest will carry."""

    stage: str
    artifact: str
    key: str
    inputs: Mapping[str, str]
    """Artifact name -> digest of each input."""
    settings: Mapping[str, Any]
    """The recipe sections the key was made from."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """What it reads that is neither, with what tells that it changed."""


@dataclass(frozen=True)
class Workspace:
    """A run folder. `parent` is where artifacts are looked up that this folder lacks (controls are runs in a run).

    A run may continue another (recipe: [parent]). Then it has that one's policy for its assistant, and what the
    assistant was made from.
    """

    folder: Path
    parent: Workspace | None = None
    job: Job | None = None

    # --- reading -----------------------------------------------------------------------------------------------

    def path(self, artifact: str) -> Path:
        """Where `artifact` lies in this folder, whether it exists or not."""
        return self.folder / FOLDERS[artifact]

    def has(self, artifact: str) -> bool:
        """Whether a finished `artifact` is here or in the parent."""
        return self._find(artifact) is not None

    def own(self, artifact: str) -> bool:
        """Whether a finished `artifact` is in this very folder."""
        return (self.path(artifact) / MANIFEST).is_file()

    def _find(self, artifact: str) -> Path | None:
        if self.own(artifact):
            return self.path(artifact)
        if self.parent is not None:
            return self.parent._find(artifact)
        if artifact in INHERITED and (continued := self.continues) is not None:
            before, policy = continued
            return before._find(policy if artifact == "sft" else artifact)
        return None

    @property
    def continues(self) -> tuple[Workspace, str] | None:
        """The run that this one continues, and the artifact of it that is the assistant here. Raises BrokenArtifact
        when the note of it is damaged or that run is gone."""
        note = self.folder / ANCESTOR
        if not note.is_file():
            return None
        told = _read_json(note)
        run, policy = told.get("run"), told.get("policy")
        if not isinstance(run, str) or policy not in FOLDERS:
            raise BrokenArtifact(f"{note} is damaged. Delete it and run the recipe again.")
        before = Workspace((self.folder / run).resolve())
        if not before.folder.is_dir():
            raise BrokenArtifact(f"{note} names {before.folder}, which is gone. Put it back, or delete {self.folder}.")
        return before, policy

    def before(self, artifact: str) -> Workspace | None:
        """The run before this one, where it has a finished `artifact`."""
        continued = (self.parent or self).continues
        return continued[0] if continued is not None and continued[0].own(artifact) else None

    def lineage(self) -> list[Workspace]:
        """The runs that led to this one, the first one first, itself last."""
        runs = [self.parent if self.parent is not None else self]
        while (continued := runs[0].continues) is not None:
            runs.insert(0, continued[0])
        return runs

    def read(self, artifact: str) -> Path:
        """The folder of the finished `artifact`, every file of which is what was published.

        Raises MissingArtifact naming the stage that makes it, or BrokenArtifact naming the file that is damaged.
        """
        self.verify(artifact)
        return self._existing(artifact)

    def verify(self, artifact: str) -> None:
        """Compare every file of the finished `artifact` with its manifest. Raises BrokenArtifact at a difference."""
        folder = self._existing(artifact)
        for name, told in self.manifest(artifact)["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != told["bytes"] or _sha256(path) != told["sha256"]:
                maker = self.manifest(artifact)["stage"]
                raise BrokenArtifact(f"{path} is not what {maker} published. Delete {folder} and run the stage again.")

    def _existing(self, artifact: str) -> Path:
        found = self._find(artifact)
        if found is None:
            raise MissingArtifact(FOLDERS[artifact], MAKERS[artifact], self.folder)
        return found

    def manifest(self, artifact: str) -> dict[str, Any]:
        """The manifest of the finished `artifact`; its files are not looked at. Raises MissingArtifact or
        BrokenArtifact."""
        path = self._existing(artifact) / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            files, seconds, peak = values["files"], values["seconds"], values["peak_mb"]
            sound = values["digest"] == hashed(files) and isinstance(values["key"], str)
            sound &= isinstance(values["inputs"], dict) and isinstance(values["settings"], dict)
            sound &= all(isinstance(number, int | float) for number in (seconds, peak))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise BrokenArtifact(f"{path} is damaged. Delete its folder and run the stage again.")
        return dict(values)

    @property
    def logs(self) -> Path:
        """Folder of the metrics files."""
        return self.folder / "logs"

    # --- writing -----------------------------------------------------------------------------------------------

    def doing(self, job: Job) -> Workspace:
        """The same folder, bound to the artifact that is being made."""
        return replace(self, job=job)

    @property
    def partial(self) -> Path:
        """Where the artifact that is being made is written until it is published."""
        assert self.job is not None, "a stage is run through flow.run_stage, which says what is being made"
        path = self.path(self.job.artifact)
        return path.with_name(path.name + ".partial")

    @contextlib.contextmanager
    def publish(self) -> Iterator[Path]:
        """A folder to write the artifact into; on leaving without an error it is sealed and renamed into place.

        What an interrupted attempt with the same key left (its `resume/` state) is still there; what an attempt
        with another key left is removed first. A full disk or a read-only folder raises PalateError. Of several
        processes the leader does all this, and it alone writes into the folder.
        """
        job = self.job
        assert job is not None
        partial = self.partial
        if not ranks.leads():
            yield partial
            return
        try:
            attempt = _read_attempt(partial / ATTEMPT)
            if partial.exists() and attempt.get("key") != job.key:
                _discard(partial)
                attempt = {}
            partial.mkdir(parents=True, exist_ok=True)
            for half in partial.rglob("*.writing"):
                half.unlink()  # of a process that died in `write_atomically`
            spent = {"key": job.key, "seconds": attempt.get("seconds", 0.0), "since": time.monotonic()}
            write_atomically(partial / ATTEMPT, json.dumps(spent))
            try:
                yield partial
            except BaseException:
                with contextlib.suppress(OSError):
                    keep_time(partial)
                raise
            self._seal(job, partial, keep_time(partial))
            self._put_in_place()
        except OSError as error:
            where = error.filename2 or error.filename or partial  # a copy's target is the second
            raise PalateError(
                f"{job.stage}: cannot write {where}: {error.strerror or error}. Free some space or mend the folder's "
                f"permissions, then run the same command again: finished work is kept."
            ) from error

    def recover(self) -> None:
        """Bring to an end what a process began that died while it published this artifact."""
        assert self.job is not None
        final = self.path(self.job.artifact)
        outgoing = final.with_name(final.name + ".old")
        if outgoing.exists() and final.exists():
            shutil.rmtree(outgoing)
        elif outgoing.exists():
            outgoing.rename(final)
        if _read_json(self.partial / MANIFEST).get("key") == self.job.key:  # sealed: nothing is missing but the rename
            self._put_in_place()

    def _put_in_place(self) -> None:
        assert self.job is not None
        partial, final = self.partial, self.path(self.job.artifact)
        outgoing = final.with_name(final.name + ".old")
        if (partial / RESUME).exists():
            shutil.rmtree(partial / RESUME)
        (partial / ATTEMPT).unlink(missing_ok=True)
        if final.exists():
            final.rename(outgoing)
        partial.rename(final)
        sync(final.parent)
        shutil.rmtree(outgoing, ignore_errors=True)

    def _seal(self, job: Job, folder: Path, seconds: float) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ATTEMPT)
        made = [p for p in paths if p.relative_to(folder).parts[0] != RESUME]
        for path in (*made, folder):
            sync(path)  # a manifest on the disk vouches for files on the disk
        files = {str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in made}
        # What was made, without when or how fast: two runs of the same recipe have the same digest.
        digest = hashed(files)
        manifest = {
            "format": VERSION,
            "stage": job.stage,
            "artifact": job.artifact,
            "key": job.key,
            "inputs": dict(job.inputs),
            "settings": dict(job.settings),
            "outside": dict(job.outside),
            "digest": digest,
            "files": files,
            "code": _code_version(),
            "hardware": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "seconds": round(seconds, 2),
            "peak_mb": round(peak_mb(), 1),
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run folder against a second process. Raises FolderBusy at once when it is taken."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("a+")
        except OSError as error:
            raise PalateError(f"cannot use {self.folder} as a run folder: {error.strerror}.") from error
        with lock:
            try:
                # The kernel lets go of it when the process dies, however it dies.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderBusy(
                    f"{self.folder} is in use by another palate process; wait for it or stop it."
                ) from None
            yield


MAKERS = {
    "corpus": "collect",
    "tokens": "tokenize",
    "base": "pretrain",
    "demonstrations": "write",
    "sft": "sft",
    "samples": "sample",
    "rankings": "rank",
    "reward": "reward",
    "ppo": "ppo",
    "dpo": "dpo",
    "grpo": "grpo",
    "rejection": "rejection",
    "report": "evaluate",
}
"""Artifact -> the stage that makes it (a test holds this against `stages.STAGES`); `adopt` makes `base`, too."""


def hashed(values: Any) -> str:
    """SHA-256 of JSON-ready values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader sees the old or the new content, never a part."""
    beside = path.with_name(path.name + ".writing")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk before anything counts on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def keep_time(folder: Path) -> float:
    """Seconds spent so far on the artifact in the making in `folder`, by this process and those that died before it;
    noted there, so that they still count if this one dies, too. No change of the clock changes them."""
    attempt = _read_attempt(folder / ATTEMPT)
    if not attempt:
        return 0.0
    now = time.monotonic()
    attempt |= {"seconds": attempt["seconds"] + now - attempt["since"], "since": now}
    write_atomically(folder / ATTEMPT, json.dumps(attempt))
    return float(attempt["seconds"])


def _discard(partial: Path) -> None:
    # What says that it can be used goes first, so that half of it is never taken for the whole.
    for name in (MANIFEST, ATTEMPT):
        (partial / name).unlink(missing_ok=True)
    shutil.rmtree(partial)


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MiB."""
    try:  # Linux: this can be reset between stages (see `forget_peak`), which getrusage's figure cannot
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 1024


def forget_peak() -> None:
    """Let `peak_mb` count from here, where the system allows it (Linux).

    What earlier stages freed goes back to the system first (glibc keeps it otherwise), or it would count as ours.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def fingerprint(path: Path) -> str:
    """Size and time of a file outside the run: enough to see that it changed without reading it. Raises BadInput."""
    try:
        told = path.stat()
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot be read ({reason}).", path, "Check the path in the recipe.") from None
    return f"{told.st_size} {told.st_mtime_ns}"


def _sha256(path: Path) -> str:
    told = path.stat()
    return _sha256_of(path, told.st_size, told.st_mtime_ns)


@functools.lru_cache(1024)  # a stage opens an artifact several times, and a run several stages
def _sha256_of(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_attempt(note: Path) -> dict[str, Any]:
    """What an interrupted attempt noted; {} when there was none. Raises BrokenArtifact: hours of work that nobody can
    tell whose they are must not vanish in silence."""
    values = _read_json(note)
    if note.exists():
        try:
            return {"key": str(values["key"]), "seconds": float(values["seconds"]), "since": float(values["since"])}
        except (KeyError, ValueError, TypeError):
            raise BrokenArtifact(
                f"{note} is damaged, so what was begun there cannot go on. Delete {note.parent} to begin again."
            ) from None
    return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _code_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"palate {version('palate')}"
    except PackageNotFoundError:
        return "palate (not installed)"
