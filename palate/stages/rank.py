"""People, files or the simulated panel order the answers -> a snapshot of their judgements.

Whoever ranks, the judgements go into the feedback store and come back from it; the artifact holds what was used.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from palate import metrics
from palate.errors import BadInput
from palate.feedback import formats, split, statistics
from palate.feedback.store import Store, open_store
from palate.kitchen import knowledge, panel
from palate.recipe import Rank, Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl, write_jsonl
from palate.workspace import Workspace

POLL_SECONDS = 2.0


def outside(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The files it reads; and for people, how many judgements this run has or waits for."""
    settings = recipe.rank
    assert settings is not None
    told = {name: formats.fingerprint(Path(name)) for name in settings.by if name not in ("kitchen", "people")}
    if settings.until is not None and "people" in settings.by:
        with open_store(store_url(recipe, workspace)) as store:
            told["people"] = str(max(settings.until, store.count_judgements(campaign(workspace))))
    return told


def store_url(recipe: Recipe, workspace: Workspace) -> str:
    """Where people's work lives: the recipe's store, or feedback.sqlite beside the run."""
    if recipe.feedback.store is not None:
        return recipe.feedback.store
    run = workspace.parent or workspace
    return f"sqlite:///{run.folder.resolve().parent / 'feedback.sqlite'}"


def campaign(workspace: Workspace) -> str:
    """Which round of asking a run is: its name and the answers it shows. A control shares it with its run."""
    run = workspace.parent or workspace
    return f"{run.folder.resolve().name}:{str(run.manifest('samples')['digest'])[:12]}"


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `rankings`: prompts.jsonl, responses.jsonl, judgements.jsonl and report.json."""
    settings = recipe.rank
    assert settings is not None
    samples = workspace.read("samples")
    prompts = list(read_jsonl(samples / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(samples / "responses.jsonl", Response))
    files = [Path(name) for name in settings.by if name not in ("kitchen", "people")]
    name = campaign(workspace)
    with workspace.publish() as folder, open_store(store_url(recipe, workspace)) as store:
        judgements: list[Judgement] = []
        if "kitchen" in settings.by or "people" in settings.by:
            store.add_prompts(prompts, name)
            store.add_responses(responses, name)
            if "kitchen" in settings.by:
                store.add_judgements(_panel(recipe, settings, prompts, responses), name)
            if settings.until is not None and "people" in settings.by:
                _wait_for_people(store, name, settings.until, workspace)
            judgements += store.judgements(name)
        else:
            prompts, responses = [], []
        if files:
            theirs = _from_files(files, recipe.seed)
            prompts += theirs[0]
            responses += theirs[1]
            judgements += theirs[2]
        if not judgements:
            raise BadInput("there is no judgement.", ", ".join(settings.by), "Rank some answers: `palate rank RUN`.")
        if settings.shuffled:
            judgements = _shuffled(judgements, recipe.seed)
        write_jsonl(folder / "prompts.jsonl", prompts)
        write_jsonl(folder / "responses.jsonl", responses)
        write_jsonl(folder / "judgements.jsonl", judgements)
        report = {"campaign": name, "placebo": settings.shuffled, **statistics.summary(judgements, responses)}
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _panel(recipe: Recipe, settings: Rank, prompts: Sequence[Prompt], responses: Iterable[Response]) -> list[Judgement]:
    """The simulated guests' judgements (marked simulated)."""
    assert recipe.kitchen is not None
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    world = knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)
    members = panel.guests(world, settings.annotators, recipe.seed)
    return panel.judge(world, prompts, by_prompt, members, overlap=settings.overlap, seed=recipe.seed)


def _wait_for_people(store: Store, name: str, wanted: int, workspace: Workspace) -> None:
    """Until `wanted` judgements are in the store. Ctrl-C loses nothing: they stay there."""
    spoken = -1
    while (count := store.count_judgements(name)) < wanted:
        if count != spoken:
            metrics.say(f"      {count} of {wanted} judgements; rank with `palate rank {workspace.folder}` elsewhere")
            spoken = count
        time.sleep(POLL_SECONDS)


def _from_files(files: Sequence[Path], seed: int) -> tuple[list[Prompt], list[Response], list[Judgement]]:
    """Comparisons of files; a tenth of the prompts, by family, is held out as dev."""
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    judgements: dict[str, Judgement] = {}
    for path in files:
        for comparison in formats.read_comparisons(path):
            asked = prompts.setdefault(comparison.prompt.id, comparison.prompt)
            same = asked.messages == comparison.prompt.messages
            same &= all(responses.setdefault(r.id, r).text == r.text for r in comparison.responses)
            same &= all(judgements.setdefault(j.id, j) == j for j in comparison.judgements)
            if not same:
                raise BadInput(
                    f"two different records about the prompt {comparison.prompt.id} have the same id.",
                    path,
                    "Give each its own id.",
                )
    placed = split.assign((p.family for p in prompts.values()), dev=len(prompts) // 10, test=0, seed=seed)
    return (
        [dataclasses.replace(p, split=placed[p.family]) for p in prompts.values()],
        list(responses.values()),
        list(judgements.values()),
    )


def _shuffled(judgements: Sequence[Judgement], seed: int) -> list[Judgement]:
    """The same judgements without what they knew. Ranks are dealt out at random within their judgement, so its ties
    stay. Scores are dealt out over all answers of all prompts: within a prompt its mean would stay, and "answers with
    a warning come from prompts whose answers are safe" is knowledge (docs/log.md)."""
    rng = random.Random(f"{seed} placebo")
    scores = [given for judgement in judgements for given in judgement.criteria.values()]
    rng.shuffle(scores)
    dealt = iter(scores)
    return [
        dataclasses.replace(
            judgement.dealt(rng),
            criteria={name: next(dealt) for name in judgement.criteria},
            source="placebo",
        )
        for judgement in judgements
    ]
