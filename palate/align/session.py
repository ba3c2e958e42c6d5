"""What a method's loop is handed: where it stands, where its numbers go, the look at its answers, the limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from palate import ranks
from palate.align import players, prompts
from palate.align.limit import Limit
from palate.align.players import Players
from palate.align.prompts import Asked
from palate.align.watch import Watch
from palate.device import Device, open_device
from palate.feedback import place
from palate.metrics import Metrics
from palate.recipe import Aligning, Online, Recipe
from palate.text import tokenizer as tokenizers
from palate.train import resume
from palate.train.update import Learner
from palate.workspace import Workspace

S = TypeVar("S", bound=Online)


@dataclass(frozen=True)
class Session:
    """One method at work, for the first time or after it was killed."""

    seed: int
    log: Metrics
    limit: Limit
    done: int = 0
    """Rounds or steps that a process before this one did."""
    watch: Callable[[int], dict[str, float]] = lambda _: {"kl": 0.0, "alarms": 0.0, "near": 0.0}
    """Called with the round when it is time to look; what `Watch` sees."""
    save: Callable[[int], None] = lambda _: None
    """Have everything on the disk that the next process needs to go on after this round."""


def begin(
    folder: Path,
    recipe: Recipe,
    workspace: Workspace,
    settings: Aligning,
    device: Device,
    models: Players,
    asked: Asked,
    learners: Mapping[str, Learner],
) -> Session:
    """Take up the work in `folder`. `learners` has the policy under this name, and whatever learns beside it."""
    done, kept = resume.load(folder, learners)
    log = Metrics(workspace.logs / f"{settings.method}.jsonl", resume_after=done)
    views = Metrics(folder / "watched.jsonl", resume_after=done, gaps=True)
    limit = Limit(learners["policy"], settings.kl_budget, settings.halt, kept)
    said = Metrics(folder / "alarms.jsonl", resume_after=done, gaps=True)
    tokenizer = tokenizers.load(workspace.read("sft"))
    queue = None
    if recipe.fresh is not None and models.informed and workspace.parent is None and ranks.leads():
        from palate.align.fresh import Fresh  # needs a database, which training otherwise does not

        campaign = place.fresh_campaign(workspace, settings.method)
        queue = Fresh(place.store_url(recipe, workspace), campaign, recipe.fresh.per_look).look
    watch = Watch(models, asked, settings, tokenizer, device, views, said, recipe.seed, queue)

    def save(round_: int) -> None:
        log.sync()
        views.sync()
        said.sync()
        resume.save(folder, round_, learners, limit.kept)

    if done == 0:
        limit.looked(watch(0), 0)
    return Session(recipe.seed, log, limit, done, watch, save)


def without_critic(
    recipe: Recipe,
    workspace: Workspace,
    settings: S,
    train: Callable[[Learner, Players, Sequence[Sequence[int]], S, Device, Session], dict[str, Any]],
) -> None:
    """Publish the policy of a method whose only network that learns it is; `train` is its loop."""
    device = open_device(recipe.hardware)
    players.check_gate(recipe, settings, workspace)
    asked = prompts.read(workspace, settings)
    base = players.open_base(recipe, workspace)
    models = players.open_players(workspace, device, base, players.open_worth(recipe, workspace, base, asked))
    policy = Learner.make("adamw", models.policy, device, weight_decay=0.0)
    with workspace.publish() as folder:
        session = begin(folder, recipe, workspace, settings, device, models, asked, {"policy": policy})
        if models.informed:
            told = train(policy, models, asked.train_ids, settings, device, session)
        else:
            told = players.nothing_to_follow()
        players.publish(folder, policy, recipe, workspace, told)
