"""People's demonstrations and prompts, from the studio, files or the kitchen -> split by family: train, dev, test."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from palate import metrics
from palate.errors import BadInput, Unsupported
from palate.feedback import campaigns, place, split, words
from palate.feedback.demonstrations import Shelf
from palate.feedback.exchange import runs
from palate.feedback.store import Store, open_store
from palate.kitchen import dialogue, knowledge
from palate.recipe import Recipe, Write
from palate.records import Conversation, Demonstration, Prompt, write_jsonl
from palate.text import tokenizer as tokenizers
from palate.weights.families import context_of
from palate.workspace import Workspace, fingerprint

HELD_OUT = 20
"""One in this many training families of demonstrations is kept for the held-out loss."""
KITCHEN_DEMONSTRATIONS = 4000
POLL_SECONDS = 2.0
ASKED = ("kitchen", "people")
"""Who writes for this run; every other name is a file."""
T = TypeVar("T", Demonstration, Prompt)


def outside(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The files it reads, with what tells that they changed; and of people, what they have written that counts now."""
    settings = recipe.write
    assert settings is not None
    names = (*settings.demonstrations, *settings.prompts)
    told = {name: fingerprint(Path(name)) for name in names if name not in ASKED}
    if "people" in names:
        with open_store(place.store_url(recipe, workspace)) as store:
            shelf = _shelf(store, workspace)
            review = _reviewed(store, workspace)
            prompts = store.count_prompts(shelf.campaign) if "people" in settings.prompts else 0
            told["written"] = f"{shelf.fingerprint(review=review)}, {prompts} prompts"
            few = shelf.count(review=review) < (settings.until or 0) or not (shelf.standing() or prompts)
        if few and workspace.own("demonstrations"):  # a run that was moved without its store keeps what it has
            told["written"] = workspace.manifest("demonstrations").get("outside", {}).get("written", told["written"])
    return told


def _shelf(store: Store, workspace: Workspace) -> Shelf:
    """What people have written for this run."""
    run = workspace.parent or workspace
    return Shelf(store, place.writing(run.folder.resolve().name))


def _reviewed(store: Store, workspace: Workspace) -> bool:
    """Whether a second person must have accepted what counts."""
    return campaigns.settings(store, (workspace.parent or workspace).folder.resolve().name).review


def wait(recipe: Recipe, workspace: Workspace) -> None:
    """Until as many demonstrations of people as the recipe says count. Ctrl-C loses none: they are in the store."""
    settings = recipe.write
    assert settings is not None
    if settings.until is None or "people" not in settings.demonstrations:
        return
    spoken = ""
    with open_store(place.store_url(recipe, workspace)) as store:
        shelf = _shelf(store, workspace)
        while (count := shelf.count(review=(review := _reviewed(store, workspace)))) < settings.until:
            waiting = shelf.tally()["waiting"] if review else 0
            has = f"{count} of {settings.until} demonstrations" + (f", {waiting} wait for a review" if waiting else "")
            if has != spoken:
                metrics.say(f"      {has}; write with `palate studio {workspace.folder}` in another terminal")
                spoken = has
            time.sleep(POLL_SECONDS)


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `demonstrations`: demonstrations.jsonl (train and dev), prompts.jsonl (all splits), report.json."""
    settings = recipe.write
    assert settings is not None
    base = workspace.read("base")
    tokenizer = tokenizers.load(base)
    context = context_of(base)
    dropped: Counter[str] = Counter()

    def fits(messages: Conversation, more: int, kind: str) -> bool:
        try:
            tokens = len(tokenizer.encode_chat(messages).ids)
        except (BadInput, Unsupported) as error:  # a chat template need not take every conversation
            return _count(dropped, f"{kind}: {getattr(error, 'what', error)}")
        if settings.max_characters is not None:
            short = sum(len(m.content) for m in messages) <= settings.max_characters
        else:
            short = tokens + more <= context
        return short or _count(dropped, f"{kind} too long")

    with workspace.publish() as folder:
        theirs, wanted = _people(recipe, settings, workspace)
        taken, asking = _files(settings)
        demonstrations, prompts = _read(recipe, settings, dropped, theirs, wanted, taken, asking)
        kept = [d for d in demonstrations if fits(d.messages, 0, "demonstration")]
        # A prompt needs room for an answer: a quarter of the context at least.
        asked = [p for p in prompts if fits(p.messages, context // 4, "prompt")]
        _refuse_empty(kept, asked, dropped, settings)
        write_jsonl(folder / "demonstrations.jsonl", kept)
        write_jsonl(folder / "prompts.jsonl", asked)
        report: dict[str, Any] = {
            "demonstrations": dict(Counter(d.split for d in kept)),
            "prompts": dict(Counter(p.split for p in asked)),
            "skills": dict(Counter(d.skill for d in kept).most_common(20)),
            "simulated": sum(d.simulated for d in kept),
            "people": sum(d.id in {t.id for t in theirs} for d in kept),
            "with_answer": sum("answer" in p.extra for p in asked),
            "dropped": dict(dropped),
            "files": {name: told.to_json() for name, told in (taken | asking).items()},
        }
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _count(dropped: Counter[str], reason: str) -> bool:
    dropped[reason] += 1
    return False


def _refuse_empty(
    demonstrations: Sequence[Demonstration], prompts: Sequence[Prompt], dropped: Counter[str], settings: Write
) -> None:
    where, why = (
        ", ".join(settings.demonstrations),
        ", ".join(f"{n} x {reason}" for reason, n in dropped.most_common(2)),
    )
    if not any(d.split == "train" for d in demonstrations):
        raise BadInput(
            f"no demonstration is left for training ({why or 'none was there'}).", where, "Add some or shorten them."
        )
    for name in ("train", "dev", "test"):
        if not any(p.split == name for p in prompts):
            raise BadInput(
                f"no {name} prompt is left ({why or 'none was dropped'}).",
                where,
                "Add prompts, or lower the other splits.",
            )


def _people(recipe: Recipe, settings: Write, workspace: Workspace) -> tuple[list[Demonstration], list[Prompt]]:
    """What people wrote in the studio that counts, and the prompts they wrote, alone or at the head of an example."""
    demonstrations: list[Demonstration] = []
    prompts: list[Prompt] = []
    if "people" in (*settings.demonstrations, *settings.prompts):
        with open_store(place.store_url(recipe, workspace)) as store:
            shelf = _shelf(store, workspace)
            accepted = shelf.accepted(review=_reviewed(store, workspace))
            # Families as files have them: one that was brought in from elsewhere may name its own in another way.
            written = [dataclasses.replace(d, family=words.family_of(d.messages)) for d in accepted]
            if "people" in settings.demonstrations:
                demonstrations = written
            if "people" in settings.prompts:
                alone = (
                    dataclasses.replace(p, family=words.family_of(p.messages)) for p in store.prompts(shelf.campaign)
                )
                prompts = _distinct([*alone, *(opening for d in written if (opening := _opening(d, {})))])
    return demonstrations, prompts


def _files(settings: Write) -> tuple[dict[str, runs.Taken], dict[str, runs.Taken]]:
    """What the files of demonstrations and those of prompts hold."""
    taken = {name: runs.demonstrations(Path(name)) for name in settings.demonstrations if name not in ASKED}
    return taken, {name: runs.prompts(Path(name)) for name in settings.prompts if name not in ASKED}


def _read(
    recipe: Recipe,
    settings: Write,
    dropped: Counter[str],
    theirs: Sequence[Demonstration],
    wanted: Sequence[Prompt],
    taken: Mapping[str, runs.Taken],
    asking: Mapping[str, runs.Taken],
) -> tuple[list[Demonstration], list[Prompt]]:
    """theirs, wanted: what people wrote in the studio; taken, asking: what files hold."""
    demonstrations: list[Demonstration] = []
    prompts: list[Prompt] = []
    if "kitchen" in (*settings.demonstrations, *settings.prompts):
        assert recipe.kitchen is not None
        written, asked = dialogue.build(
            knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes),
            seed=recipe.seed,
            demonstrations=settings.max_demonstrations or KITCHEN_DEMONSTRATIONS,
            train=settings.train_prompts or KITCHEN_DEMONSTRATIONS // 2,
            dev=settings.dev_prompts,
            test=settings.test_prompts,
        )
        if "kitchen" in settings.demonstrations:
            demonstrations += written
        if "kitchen" in settings.prompts:
            prompts += asked
    from_files = _distinct(d for told in taken.values() for d in told.demonstrations)
    asked_of: Iterator[Prompt | None] = itertools.chain(wanted, *(told.prompts for told in asking.values()))
    if not settings.prompts:
        asked_of = itertools.chain((_opening(d, {}) for d in theirs), (_opening(d, d.extra) for d in from_files))
    others = _asked_once((prompt for prompt in asked_of if prompt is not None), dropped)
    from_files = _distinct([*theirs, *from_files])
    if from_files or others:
        placed = split.assign(
            (p.family for p in others), dev=settings.dev_prompts, test=settings.test_prompts, seed=recipe.seed
        )
        prompts += _cut([dataclasses.replace(p, split=placed[p.family]) for p in others], settings.train_prompts)
        # A demonstration of a dev or test prompt would let the model see the answer.
        chosen = [d for d in from_files if placed.get(d.family, "train") == "train"]
        demonstrations += [_held_out(d) for d in chosen[: settings.max_demonstrations]]
    return demonstrations, prompts


def _held_out(demonstration: Demonstration) -> Demonstration:
    if int(demonstration.family, 16) % HELD_OUT:
        return demonstration
    return dataclasses.replace(demonstration, split="dev")


def _cut(prompts: Sequence[Prompt], most: int | None) -> list[Prompt]:
    train = [p for p in prompts if p.split == "train"]
    return train[:most] + [p for p in prompts if p.split != "train"]


def _distinct(records: Iterable[T]) -> list[T]:
    return list({record.id: record for record in records}.values())


def _opening(demonstration: Demonstration, beside: Mapping[str, Any]) -> Prompt | None:
    """The prompt that a conversation begins with, a system message included. beside: what its line says beside it; of
    several turns that may be about the last one, an answer above all, and is left out."""
    first = next((n for n, message in enumerate(demonstration.messages) if message.role != "system"), None)
    if first is None or demonstration.messages[first].role != "user":
        return None
    messages, told = demonstration.messages[: first + 1], beside if len(demonstration.messages) == first + 2 else {}
    return words.make_prompt(messages, demonstration.source, skill=demonstration.skill, extra=told)


def _asked_once(prompts: Iterable[Prompt], dropped: Counter[str]) -> list[Prompt]:
    """Every prompt once. Where its lines give different answers none is called the right one, and that is counted."""
    found: dict[str, Prompt] = {}
    at_odds: set[str] = set()
    for prompt in prompts:
        before = found.setdefault(prompt.id, prompt)
        if "answer" not in before.extra:
            found[prompt.id] = prompt
        elif prompt.extra.get("answer", before.extra["answer"]) != before.extra["answer"]:
            at_odds.add(prompt.id)
    if at_odds:
        dropped["answer: another line of its prompt has another"] += len(at_odds)
    for id_ in at_odds:
        extra = {name: value for name, value in found[id_].extra.items() if name != "answer"}
        found[id_] = dataclasses.replace(found[id_], extra=extra)
    return list(found.values())
