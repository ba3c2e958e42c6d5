"""Websites, books, articles, forums, papers and folders -> cleaned, deduplicated documents."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate import sources
from palate.errors import BadInput
from palate.kitchen import knowledge, prose, raw
from palate.metrics import Progress
from palate.recipe import Recipe
from palate.records import Document, stable_id
from palate.sources import Dropped
from palate.text import cleaning, corpus, language, quality
from palate.text.dedup import Exact, Near
from palate.workspace import Workspace

KITCHEN = "kitchen"
SAMPLES, SAMPLE_CHARACTERS = 5, 200  # per rule, in report.json: enough to judge a rule by eye


def outside(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """What the corpus depends on outside the run: a fingerprint of names, sizes and times per source folder.

    Contents are not read: a folder may hold terabytes, and a stage that is finished is asked often.
    """
    settings = recipe.collect
    assert settings is not None
    prints: dict[str, str] = {}
    for name in settings.sources:
        if name != KITCHEN:
            found = sources.files(Path(name))
            told = [(p.as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in found]
            prints[name] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return prints


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `corpus`: documents-*.parquet and report.json. The rules and their sources: docs/collect.md."""
    settings = recipe.collect
    assert settings is not None
    with workspace.publish() as folder:
        for old in (*folder.glob("documents-*.parquet"), *folder.glob("report.json")):
            old.unlink()  # of an interrupted attempt
        raws = folder / "raw"
        shutil.rmtree(raws, ignore_errors=True)
        labels = _cook(recipe, raws) if KITCHEN in settings.sources else {}
        sifter = _Sifter(recipe, labels)
        count = corpus.write_documents(folder, _kept(recipe, raws, sifter))
        shutil.rmtree(raws, ignore_errors=True)
        report = sifter.report()
        if not count:
            worst = max(sifter.rules.items(), key=lambda rule: rule[1]["dropped"], default=("", {}))[0]
            raise BadInput(
                f"none of {report['documents_in']} documents is left; most fell to the rule {worst}.",
                ", ".join(settings.sources),
                "Collect other text or loosen [collect].",
            )
        (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cook(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write the kitchen's raw files into `folder`; their labels are returned and taken away from the readers."""
    kitchen = recipe.kitchen
    assert kitchen is not None
    world = knowledge.build(kitchen.seed, kitchen.dishes)
    # The recipe counts planted pages, too.
    pages = prose.pages(world, seed=kitchen.seed, count=round(kitchen.corpus_documents / (1 + raw.EXTRA)))
    raw.write_raw(folder, pages, kitchen.seed)
    labels: dict[str, Any] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    (folder / "labels.json").unlink()
    return labels


def _kept(recipe: Recipe, raws: Path, sifter: _Sifter) -> Iterator[Document]:
    settings = recipe.collect
    assert settings is not None
    places = [(name, raws if name == KITCHEN else Path(name)) for name in settings.sources]
    files = [(name, path, file) for name, path in places for file in sources.files(path)]
    most = settings.max_documents
    # In bytes, since one archive may hold what a thousand files do.
    total = sum(file.stat().st_size for _, _, file in files)
    kept = 0
    with Progress("collecting", max(total // 1000, 1), unit="kB") as progress:
        for name, path, file in files:
            locator = file.name if path.is_file() else file.relative_to(path).as_posix()
            left = file.stat().st_size // 1000
            for found in sources.read_file(file, locator):
                # A guess, since text is not what the file's bytes are: never more than the file, made up at its end.
                read = min(len(found.text) // 1000, left) if isinstance(found, Document) else 0
                left -= read
                document = sifter.sift(found, name)
                if document is not None:
                    yield document
                    kept += 1
                    if kept == most:
                        return
                progress.advance(read, f"{sifter.read:,} documents read, {kept:,} kept")
            progress.advance(left)


class _Sifter:
    """Asks every rule in order and counts what each did. Texts are not held, only hashes of them."""

    def __init__(self, recipe: Recipe, labels: dict[str, Any]) -> None:
        settings = recipe.collect
        assert settings is not None
        self.languages = settings.languages
        self.quality = quality.rules(settings.min_words, settings.languages)
        self.exact, self.near = Exact(), Near(settings.near_duplicate)
        self.threshold = settings.near_duplicate
        self.labels = labels
        self.read = self.kept = self.bytes = 0
        self.kinds: Counter[str] = Counter()
        self.rules: dict[str, dict[str, Any]] = {}
        # Of kitchen pages only: key -> the rule that dropped it, "" when it was kept.
        self.fates: dict[str, str] = {}
        self.leaks: set[str] = set()

    def sift(self, found: Document | Dropped, source: str) -> Document | None:
        """The document as it goes into the corpus, or None when a rule drops it."""
        self.read += 1
        key = (found.url if isinstance(found, Document) and found.url else found.locator) if source == KITCHEN else ""
        if isinstance(found, Dropped):
            self._drop(f"unreadable: {found.reason}", found.locator, found.detail, key)
            return None
        text, changes = cleaning.clean(found.text)
        for rule, times in changes.items():
            self._count(rule.partition(" ")[0], "changed", found.locator, text)
            if " " in rule:
                entry = self.rules[rule.partition(" ")[0]]
                detail = entry.setdefault("found", {})
                detail[rule.partition(" ")[2]] = detail.get(rule.partition(" ")[2], 0) + times
        # Two sources may name their files alike.
        document = dataclasses.replace(found, id=stable_id(source, found.source_kind, found.locator), text=text)
        verdict = self._verdict(document)
        if isinstance(verdict, tuple):
            self._drop(verdict[0], found.locator, f"{verdict[1]}: {text}", key)
            return None
        if key:
            self.fates[key] = ""
            if any(value in text for value in self.labels.get(key, {}).get("values", ())):
                self.leaks.add(key)
        self.kept += 1
        self.bytes += len(text.encode())
        self.kinds[document.source_kind] += 1
        return dataclasses.replace(document, language=verdict)

    def _verdict(self, document: Document) -> tuple[str, str] | str:
        """(rule, reason) that drops the document, or the language of one that stays."""
        text = document.text
        page = quality.parts(text)
        for name, rule in self.quality:
            reason = rule(page)
            if reason:
                return name, reason
        spoken, reason = language.judge(text, self.languages)
        if reason:
            return "language", reason
        place = document.url or document.locator
        first = self.exact.of(place, text)
        if first is not None:
            return "exact_duplicate", f"of {first}"
        similar = self.near.of(place, text)
        if similar is not None:
            return "near_duplicate", f"{similar[1]:.2f} like {similar[0]}"
        return spoken

    def _drop(self, rule: str, locator: str, text: str, key: str) -> None:
        self._count(rule, "dropped", locator, text)
        if key:
            self.fates[key] = rule

    def _count(self, rule: str, what: str, locator: str, text: str) -> None:
        entry = self.rules.setdefault(rule, {"dropped": 0, "changed": 0, "samples": []})
        entry[what] += 1
        if len(entry["samples"]) < SAMPLES:
            entry["samples"].append({"locator": locator, "text": text[:SAMPLE_CHARACTERS]})

    def report(self) -> dict[str, Any]:
        """report.json."""
        values: dict[str, Any] = {
            "documents_in": self.read,
            "documents_out": self.kept,
            "bytes_out": self.bytes,
            "by_kind": dict(sorted(self.kinds.items())),
            "rules": dict(sorted(self.rules.items())),
        }
        if self.labels:
            values |= self._score()
        return values

    def _score(self) -> dict[str, Any]:
        """How much of what was planted was caught, and how much of the rest was kept."""
        planted: dict[str, Counter[str]] = {}
        ladder: dict[str, Counter[str]] = {}
        for key, label in self.labels.items():
            if key not in self.fates:
                continue  # max_documents ended the reading before it
            name = label["label"]
            fate = self.fates[key]
            caught = (fate != "" or key not in self.leaks) if name == "personal_data" else fate != ""
            if name == "near_duplicate":
                ladder.setdefault(str(label["similarity"]), Counter()).update(planted=1, caught=int(caught))
                if label["similarity"] < self.threshold:
                    continue  # made to be kept; the ladder shows it
            planted.setdefault(name, Counter()).update(planted=1, caught=int(caught))
        clean = [fate for key, fate in self.fates.items() if key not in self.labels]
        return {
            "planted": {name: _recall(counts) for name, counts in sorted(planted.items())},
            "near_duplicate_ladder": {rung: _recall(counts) for rung, counts in sorted(ladder.items(), reverse=True)},
            "kept_clean": {
                "clean": len(clean),
                "kept": clean.count(""),
                "lost_to": dict(Counter(fate for fate in clean if fate).most_common()),
            },
        }


def _recall(counts: Counter[str]) -> dict[str, float]:
    planted, caught = counts["planted"], counts["caught"]
    return {"planted": planted, "caught": caught, "recall": round(caught / planted, 4)}
