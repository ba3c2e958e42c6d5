"""`palate refit RUN`: the reward model's heads fitted again on all judgements there are now, in seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from palate.align import heads, rankings
from palate.align.heads import OUTPUTS, Table
from palate.batches.rankings import Group, groups
from palate.errors import BadInput, RecipeError
from palate.feedback import place, reliability
from palate.feedback.store import open_store
from palate.measure import preference
from palate.measure.intervals import Interval
from palate.recipe import Recipe, Reward
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights
from palate.weights.families import context_of
from palate.workspace import Workspace


@dataclass(frozen=True)
class Refitted:
    """What came of it."""

    judgements: int
    new: int
    """Judgements that the reward model was not trained on."""
    seconds: float
    """Of fitting all heads, without reading files."""
    before: Interval
    """Share of held-out pairs that the trained heads order right; `after` that of the fitted ones."""
    after: Interval


def refit(recipe: Recipe, workspace: Workspace, out: Path | None) -> Refitted:
    """Fit all heads on the judgements of the run and of its feedback store, and measure them on its dev prompts; with
    `out` write a reward model with them there. Raises BadInput when that folder is not empty."""
    settings = recipe.reward
    if settings is None:
        raise RecipeError("the recipe has no [reward] section, so there are no heads to fit. Add one.")
    if out is not None and out.exists() and any(out.iterdir()):
        raise BadInput("this folder is not empty.", out, "Name another one.")
    source = workspace.read("reward")
    table, tokenizer = heads.read(source), tokenizers.load(source)
    folder = workspace.read("rankings")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    split = {prompt.id: prompt.split for prompt in prompts}
    used = {j.id: j for j in read_jsonl(folder / "judgements.jsonl", Judgement)}
    with open_store(place.store_url(recipe, workspace)) as store:
        known = {j.id: j for j in store.judgements(place.campaign(workspace)) if j.prompt_id in split}
        gone = {j.supersedes for j in known.values()}
    every = [j for j in (used | known).values() if j.id not in gone]
    train = [j for j in every if split[j.prompt_id] == "train"]
    trusted = reliability.annotators(train) if settings.annotators == "agreement" else None
    dev, _ = groups(
        (prompt for prompt in prompts if prompt.split == "dev"),
        read_jsonl(folder / "responses.jsonl", Response),
        [j for j in every if split[j.prompt_id] == "dev"],
        tokenizer,
        room=context_of(source),
    )
    model, _ = weights.load_scalar_model(source)
    before = model.score.weight.detach().clone()
    started = time.monotonic()
    fitted = heads.fit_criteria(table, train)
    fitted["overall"] = heads.fit(table, train, trusted)
    seconds = time.monotonic() - started
    after = torch.stack([fitted.get(name, before[number]) for number, name in enumerate(OUTPUTS)])
    if out is not None:
        scores = _scores(table, dev, after, settings)
        slope = preference.slope(dev, scores)
        ranked = (table.features @ after.T).tolist()
        answers = filter(rankings.given_now(workspace), read_jsonl(folder / "responses.jsonl", Response))
        rows = {table.rows[answer.id] for answer in answers if answer.id in table.rows}
        own = [ranked[row] for row in sorted(rows)] or ranked
        with torch.no_grad():
            model.score.weight.copy_(after)
        weights.save_scalar_model(
            out, model, source, labels=OUTPUTS, ids=tokenizer.ids, extra=heads.scale(ranked, own, slope, settings)
        )
    return Refitted(
        judgements=len(train),
        new=sum(j.id not in used for j in train),
        seconds=seconds,
        before=preference.pair_accuracy(dev, _scores(table, dev, before, settings)),
        after=preference.pair_accuracy(dev, _scores(table, dev, after, settings)),
    )


def _scores(table: Table, members: Sequence[Group], rows: torch.Tensor, settings: Reward) -> list[list[float]]:
    """The mixed score of every candidate."""
    every = (table.features @ rows.T).tolist()
    return [
        [heads.mixed(every[table.rows[response.id]], settings.weights) for response in group.responses]
        for group in members
    ]
