"""The run order: which stages a recipe asks for, what is finished, what is stale, what comes next.

Controls (design: "Controls") are runs inside a run: `controls/<name>/` holds a changed recipe and only the artifacts
that differ; everything else is read from the run they belong to. So a control is made by the very same stages.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from palate import metrics, ranks, scorers
from palate import recipe as recipes
from palate.errors import MissingArtifact, RecipeError
from palate.feedback import place
from palate.recipe import Online, Parent, Recipe
from palate.stages import BY_NAME, STAGES, Stage
from palate.workspace import (
    ANCESTOR,
    FOLDERS,
    MAKERS,
    POLICIES,
    VERSION,
    Job,
    Workspace,
    forget_peak,
    hashed,
    write_atomically,
)

RECIPE = "recipe.toml"
OUTSIDE = {
    "written": "people have written since it was made",
    "people": "people have ranked since it was made",
    "fresh": "people have ranked fresh answers since it was made",
}
"""Why a stage is stale, where what it reads outside the run is no file."""


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    stage: Stage
    state: Literal["done", "stale", "missing"]
    why: str


def wanted(recipe: Recipe) -> list[Stage]:
    """The stages whose section is in the recipe, in order."""
    return [stage for stage in STAGES if getattr(recipe, stage.sections[0]) is not None]


def policies(recipe: Recipe) -> list[str]:
    """The methods in the recipe; the first is the one its controls are for."""
    return [name for name in POLICIES if getattr(recipe, name) is not None]


def plan(recipe: Recipe, workspace: Workspace) -> list[Step]:
    """For every stage of the recipe: finished, stale (with the reason) or missing."""
    steps: list[Step] = []
    renewed: set[str] = set()  # artifacts that will be made anew, which makes their readers stale
    for stage in wanted(recipe):
        if not workspace.has(stage.writes):
            steps.append(Step(stage, "missing", f"{FOLDERS[stage.writes]} has not been made yet"))
        elif changed := [need for need in (*stage.reads, *stage.reads_too) if need in renewed]:
            steps.append(Step(stage, "stale", f"{', '.join(FOLDERS[need] for need in changed)} will be made anew"))
        elif reason := _stale(stage, recipe, workspace):
            steps.append(Step(stage, "stale", reason))
        else:
            steps.append(Step(stage, "done", f"{workspace.manifest(stage.writes)['seconds']:.0f} s"))
            continue
        renewed.add(stage.writes)
    return steps


def _stale(stage: Stage, recipe: Recipe, workspace: Workspace) -> str | None:
    try:
        now = _job(stage, recipe, workspace)
    except MissingArtifact as error:
        return str(error)
    before = workspace.manifest(stage.writes)
    if before["key"] == now.key:
        return None
    for name, digest in now.inputs.items():
        if before["inputs"].get(name) != digest:
            return f"its input {FOLDERS.get(name, name)} changed"
    for name, values in now.settings.items():
        if before["settings"].get(name) != values:
            return f"[{name}] of the recipe changed" if name != "seed" else "the seed changed"
    told = before.get("outside", {})
    for name, value in now.outside.items():
        if told.get(name, value) != value:
            return OUTSIDE.get(name, f"{name}, which it reads, changed")
    return "something it reads outside the run changed, or another version of Palate made it"


def _job(stage: Stage, recipe: Recipe, workspace: Workspace) -> Job:
    makers = {s.writes: s.name for s in wanted(recipe)}
    inputs: dict[str, str] = {}
    for need in (*stage.reads, *stage.reads_too):
        if workspace.has(need):
            inputs[need] = str(workspace.manifest(need)["digest"])
        elif need in makers or need in stage.reads:
            raise MissingArtifact(FOLDERS[need], makers.get(need, MAKERS[need]), workspace.folder)
    if stage.name == "evaluate":
        for name, control in control_folders(recipe, workspace).items():
            artifact = "sft" if name == "sft_continued" else policies(recipe)[0]
            inputs[f"controls/{name}"] = str(control.manifest(artifact)["digest"]) if control.own(artifact) else ""
    if stage.name in ("sample", "rank") and (before := workspace.before("rankings")) is not None:
        inputs["parent/rankings"] = str(before.manifest("rankings")["digest"])
    if stage.name == "evaluate":
        for run in workspace.lineage()[:-1]:
            inputs[f"round {run.folder.name}"] = str(run.manifest("report")["digest"]) if run.own("report") else ""
    if stage.name == "sft" and recipe.sft and recipe.sft.start == "sft" and workspace.parent is not None:
        inputs["sft"] = str(workspace.parent.manifest("sft")["digest"])
    settings = recipe.section_hash_input(stage.sections)
    outside = _outside(stage, recipe, workspace)
    key = hashed({"version": VERSION, "inputs": inputs, "settings": settings, "outside": outside, "stage": stage.name})
    return Job(stage.name, stage.writes, key, inputs, settings, outside)


def _outside(stage: Stage, recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """What a stage depends on that is neither an artifact nor in the recipe."""
    outside: dict[str, str] = {}
    if stage.outside:
        outside |= importlib.import_module(stage.module).outside(recipe, workspace)
    if stage.scored and recipe.scoring is not None:
        outside |= scorers.fingerprint(recipe.scoring) | {"learned": str(recipe.scoring.learned)}
    if stage.name == "evaluate" and recipe.fresh is not None:
        from palate.feedback.store import open_store  # a database, which few recipes need before they run

        with open_store(place.store_url(recipe, workspace)) as store:
            campaigns = [place.fresh_campaign(workspace, method) for method in policies(recipe)]
            outside["fresh"] = ", ".join(store.fingerprint(campaign) for campaign in campaigns)
    return outside


def run_stage(name: str, recipe: Recipe, workspace: Workspace) -> bool:
    """Make the artifact of stage `name`; False when the finished one is up to date and nothing was done.

    Raises MissingArtifact when an input is missing, BrokenArtifact when one is damaged, and RecipeError when the recipe
    has no section for the stage.
    """
    stage = BY_NAME[name]
    if getattr(recipe, stage.sections[0]) is None:
        raise RecipeError(f"the recipe has no [{stage.sections[0]}] section, which `{name}` needs. Add one.")
    if stage.waits and not _finished(stage, recipe, workspace):
        importlib.import_module(stage.module).wait(recipe, workspace)
    job = _job(stage, recipe, workspace)
    here = workspace.doing(job)
    here.recover()
    if workspace.own(stage.writes) and workspace.manifest(stage.writes)["key"] == job.key:
        return False
    for need in (*stage.reads, *stage.reads_too):  # a damaged input is told before work begins, not after
        if workspace.has(need):
            workspace.verify(need)
    forget_peak()
    if ranks.world() > 1 and stage.shared:
        _call_the_others(name, recipe, here)
    importlib.import_module(stage.module).run(recipe, here)
    return True


def _finished(stage: Stage, recipe: Recipe, workspace: Workspace) -> bool:
    key = _job(stage, recipe, workspace).key
    return workspace.own(stage.writes) and workspace.manifest(stage.writes)["key"] == key


def run(recipe: Recipe, workspace: Workspace, *, first: str | None = None, last: str | None = None) -> None:
    """Every stage of the recipe in order, each made only when it is not up to date.

    first: start here (earlier artifacts must be finished); last: stop after this one.
    """
    stages = _between(wanted(recipe), first, last)
    for number, stage in enumerate(stages, start=1):
        if stage.name == "evaluate":
            for name in control_folders(recipe, workspace):
                _run_control(name, recipe, workspace)
        _announce(f"[{number}/{len(stages)}] {stage.name}: {stage.summary}", stage, recipe, workspace)


def _announce(title: str, stage: Stage, recipe: Recipe, workspace: Workspace) -> None:
    metrics.say(title)
    if run_stage(stage.name, recipe, workspace):
        manifest = workspace.manifest(stage.writes)
        metrics.say(
            f"      -> {workspace.path(stage.writes)} ({manifest['seconds']:.0f} s, {manifest['peak_mb']:,.0f} MB)"
        )
    else:
        metrics.say(f"      up to date: {workspace.path(stage.writes)}")


def _between(stages: list[Stage], first: str | None, last: str | None) -> list[Stage]:
    names = [stage.name for stage in stages]
    for name in (first, last):
        if name is not None and name not in names:
            raise RecipeError(f"{name} is not a stage of this recipe. Its stages: {', '.join(names)}.")
    start = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if end <= start:
        raise RecipeError(f"--from {first} comes after --until {last}; nothing would run.")
    return stages[start:end]


# --- several processes ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def led() -> Iterator[None]:
    """Around everything that the leader of several processes does: at the end the others may leave, too."""
    if ranks.world() == 1:
        yield
        return
    from palate.train import distributed

    orders = distributed.orders()
    try:
        yield
    except BaseException:
        orders.give({"do": "stop"})
        raise
    orders.give({"do": "leave"})
    distributed.leave()


def _call_the_others(name: str, recipe: Recipe, here: Workspace) -> None:
    from palate.train import distributed

    assert here.job is not None
    parent = str(here.parent.folder) if here.parent is not None else None
    folders = {"folder": str(here.folder), "parent": parent, "job": asdict(here.job)}
    distributed.orders().give({"do": name, "recipe": recipes.dump(recipe), **folders})


def follow() -> None:
    """What all others do: their share of each stage that the leader calls them to, until it lets them go."""
    from palate.train import distributed

    while (order := distributed.orders().take())["do"] not in ("leave", "stop"):
        parent = Workspace(Path(order["parent"])) if order["parent"] is not None else None
        workspace = Workspace(Path(order["folder"]), parent, Job(**order["job"]))
        importlib.import_module(BY_NAME[order["do"]].module).run(recipes.parse(order["recipe"], "leader"), workspace)
    if order["do"] == "stop":
        raise SystemExit(1)  # the leader says why
    distributed.leave()


# --- controls ----------------------------------------------------------------------------------------------------


def control_folders(recipe: Recipe, workspace: Workspace) -> dict[str, Workspace]:
    """The controls the recipe asks for: name -> the run folder inside this run that holds what differs."""
    controls = recipe.controls
    if controls is None or workspace.parent is not None:
        return {}
    names = [name for name in ("sft_continued", "placebo") if getattr(controls, name)]
    return {name: Workspace(workspace.folder / "controls" / name, parent=workspace) for name in names}


def _run_control(name: str, recipe: Recipe, workspace: Workspace) -> None:
    control = control_folders(recipe, workspace)[name]
    changed = CONTROLS[name](recipe, workspace, control)
    for stage_name in control_stages(name, recipe):
        _announce(f"      control {name}: {stage_name}", BY_NAME[stage_name], changed, control)


def _placebo(recipe: Recipe, workspace: Workspace, control: Workspace) -> Recipe:
    """The same pipeline on rankings shuffled within each prompt. Its reward model knows nothing, so the gate is off."""
    assert recipe.rank
    main, *others = policies(recipe)
    settings = getattr(recipe, main)
    changed = recipe.model_copy(
        update={
            "rank": recipe.rank.model_copy(update={"shuffled": True}),
            **dict.fromkeys(others),
            main: settings.model_copy(update={"gate": False}) if isinstance(settings, Online) else settings,
            "controls": None,
            "evaluate": None,
        }
    )
    _write_recipe(changed, control)
    return changed


def _sft_continued(recipe: Recipe, workspace: Workspace, control: Workspace) -> Recipe:
    """SFT goes on for the seconds that the reward model and the policy took (of several the one that took longest),
    counted in steps at SFT's own measured rate.

    The number of steps is measured once and frozen in the control's recipe, so that a resumed run repeats it.
    """
    assert recipe.sft
    steps = None
    made = policies(recipe)
    reward = ["reward"] if recipe.reward else []
    basis = hashed([workspace.manifest(a)["digest"] for a in ("sft", *reward, *made)])
    note = control.folder / "basis.txt"
    if note.is_file() and (control.folder / RECIPE).is_file() and note.read_bytes() == basis.encode():
        frozen = recipes.load(control.folder / RECIPE)
        steps = frozen.sft.steps if frozen.sft else None
    if steps is None:
        rate = recipe.sft.steps / max(workspace.manifest("sft")["seconds"], 0.01)
        took = {a: workspace.manifest(a)["seconds"] for a in (*reward, *made)}
        seconds = sum(took[a] for a in reward) + max(took[a] for a in made)
        steps = max(recipe.sft.warmup_steps + 1, math.ceil(rate * seconds))
    changed = recipe.model_copy(
        update={
            "sft": recipe.sft.model_copy(update={"start": "sft", "steps": steps}),
            "controls": None,
            "evaluate": None,
        }
    )
    _write_recipe(changed, control)
    write_atomically(note, basis)  # after the recipe that it vouches for
    return changed


CONTROLS = {"placebo": _placebo, "sft_continued": _sft_continued}


def control_stages(name: str, recipe: Recipe) -> list[str]:
    """What is made anew in a control."""
    if name == "sft_continued":
        return ["sft"]
    return ["rank", *(["reward"] if recipe.reward else []), policies(recipe)[0]]


# --- opening a run -------------------------------------------------------------------------------------------------


def open_run(recipe: Recipe, folder: Path) -> tuple[Recipe, Workspace]:
    """The recipe with what is measured on this machine filled in, and its run folder with that recipe written first."""
    workspace = Workspace(folder)
    before = recipes.load(folder / RECIPE) if (folder / RECIPE).is_file() else None
    hardware = recipe.hardware
    if before is not None:  # what was measured once stays as it was, so that hashes and resuming stay exact
        hardware = type(hardware)(
            **{k: v if v is not None else getattr(before.hardware, k) for k, v in hardware.model_dump().items()}
        )
    recipe = recipe.model_copy(update={"hardware": hardware})
    if recipe.parent is not None:
        recipe = _continue(recipe, workspace)
    if recipe.dial is not None:
        from palate import dial

        recipe = dial.resolve(recipe, before)
        hardware = recipe.hardware
    if None in hardware.model_dump(exclude={"shard"}).values():
        from palate import dial

        hardware = dial.machine(recipe)
    resolved = recipe.model_copy(update={"hardware": hardware})
    _write_recipe(resolved, workspace)
    return resolved, workspace


def _continue(recipe: Recipe, workspace: Workspace) -> Recipe:
    """Note which run this one continues, and take over what must be as it was there: the world, the adapters' shape."""
    assert recipe.parent is not None
    before = Workspace(Path(recipe.parent.run))
    theirs, _ = reopen(before.folder)
    if before.folder.resolve() == workspace.folder.resolve():
        raise RecipeError(f"parent.run = {recipe.parent.run!r} is this run itself. Name the one before it.")
    wished = [recipe.parent.policy] if recipe.parent.policy else list(POLICIES)
    policy = next((name for name in wished if before.own(name)), None)
    if policy is None:
        raise RecipeError(f"{before.folder} has no {' or '.join(wished)} yet. `palate run {before.folder}` makes it.")
    workspace.folder.mkdir(parents=True, exist_ok=True)
    note = json.dumps({"run": os.path.relpath(before.folder.resolve(), workspace.folder.resolve()), "policy": policy})
    path = workspace.folder / ANCESTOR
    if not path.is_file() or path.read_text(encoding="utf-8") != note:
        write_atomically(path, note)
    return recipe.model_copy(update={"kitchen": recipe.kitchen or theirs.kitchen, "lora": theirs.lora})


def next_round(folder: Path, overrides: Iterable[str] = ()) -> tuple[Recipe, Path]:
    """The recipe that continues the run in `folder` as it went, and a folder beside it: kitchen, then kitchen-2."""
    recipe, _ = reopen(folder)
    name, number = re.fullmatch(r"(.*?)(?:-(\d+))?", folder.resolve().name).groups()  # type: ignore[union-attr]
    place = folder.parent / f"{name}-{int(number or 1) + 1}"
    kept = ("seed", "kitchen", "sample", "scoring", "rank", "reward", *POLICIES, "fresh", "evaluate", "feedback",
            "hardware")  # fmt: skip
    controls = recipe.controls and recipe.controls.model_copy(update={"sft_continued": False})
    values = {key: getattr(recipe, key) for key in kept} | {"controls": controls}
    made = Recipe(name=place.name, parent=Parent(run=str(folder)), **values)
    return recipes.parse(recipes.dump(made), str(place / RECIPE), overrides), place


def reopen(folder: Path, overrides: Iterable[str] = ()) -> tuple[Recipe, Workspace]:
    """The recipe and workspace of an existing run folder. Raises RecipeError when it is none."""
    path = folder / RECIPE
    if not path.is_file():
        raise RecipeError(
            f"{folder} is not a run folder: it has no {RECIPE}. `palate run RECIPE --run {folder}` makes it."
        )
    changed = list(overrides)
    recipe = recipes.load(path, changed)
    return open_run(recipe, folder) if changed else (recipe, Workspace(folder))


def _write_recipe(recipe: Recipe, workspace: Workspace) -> None:
    workspace.folder.mkdir(parents=True, exist_ok=True)
    path, text = workspace.folder / RECIPE, recipes.dump(recipe)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_atomically(path, text)


def stage_costs(workspace: Workspace) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage name, manifest) of every finished artifact of this run, in order."""
    for stage in STAGES:
        if workspace.own(stage.writes):
            yield stage.name, workspace.manifest(stage.writes)
