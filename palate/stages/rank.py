"""People, files, scorers or the simulated panel order the answers -> a snapshot of their judgements.

Whoever ranks, the judgements go into the feedback store and come back from it; the artifact holds what was used.
"""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from palate import metrics, scorers
from palate.errors import BadInput
from palate.feedback import asked, rewrites, split, statistics
from palate.feedback.exchange import runs
from palate.feedback.place import campaign, chats, store_url
from palate.feedback.store import Store, open_store
from palate.kitchen import knowledge, panel
from palate.recipe import Rank, Recipe, Scoring
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id, write_jsonl
from palate.workspace import Workspace, fingerprint

POLL_SECONDS = 2.0
ASKED = ("kitchen", "people", "scorers")
"""Who ranks this run's own answers; every other name is a file."""


def outside(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The files it reads; what scorers go by; and of people, which judgements count now."""
    settings = recipe.rank
    assert settings is not None
    told = {name: fingerprint(Path(name)) for name in settings.by if name not in ASKED}
    if "scorers" in settings.by:
        assert recipe.scoring is not None
        told |= scorers.fingerprint(recipe.scoring)
    if _waits(settings):
        with open_store(store_url(recipe, workspace)) as store:
            name = campaign(workspace)
            told["people"] = store.fingerprint(name, simulated=False)
            if store.count_judgements(_chats(workspace), simulated=False):
                told["people"] += f" chats {store.fingerprint(_chats(workspace), simulated=False)}"
            few = store.count_judgements(name, simulated=False) < (settings.until or 0)
        if few and workspace.own("rankings"):  # a run that was moved without its store keeps the snapshot it has
            told["people"] = workspace.manifest("rankings").get("outside", {}).get("people", told["people"])
    return told


def _waits(settings: Rank) -> bool:
    return settings.until is not None and "people" in settings.by


def _chats(workspace: Workspace) -> str:
    """The campaign of what people judged while they chatted. A control shares it with its run."""
    return chats((workspace.parent or workspace).folder.resolve().name)


def wait(recipe: Recipe, workspace: Workspace) -> None:
    """Until as many judgements of people as the recipe says are in the store. Ctrl-C loses none: they stay there."""
    settings = recipe.rank
    assert settings is not None
    if not _waits(settings):
        return
    assert settings.until is not None
    samples, name, spoken = workspace.read("samples"), campaign(workspace), -1
    with open_store(store_url(recipe, workspace)) as store:
        while (count := store.count_judgements(name, simulated=False)) < settings.until:
            if spoken < 0:
                _warn(samples, settings.until)
            if count != spoken:
                has = f"{count} of {settings.until} judgements"
                here = workspace.folder
                metrics.say(
                    f"      {has}; rank with `palate rank {here}` in another terminal, or in the browser: "
                    f"`palate studio {here}`"
                )
                spoken = count
            time.sleep(POLL_SECONDS)


def _warn(samples: Path, wanted: int) -> None:
    """Of what one person can never bring to an end."""
    prompts = read_jsonl(samples / "prompts.jsonl", Prompt)
    can = len(asked.rankable(prompts, read_jsonl(samples / "responses.jsonl", Response)))
    if can < wanted:
        metrics.say(
            f"      {can} prompts have two different answers, so {wanted} judgements take {-(-wanted // max(can, 1))} "
            f"people at least; sample.prompts or rank.until is the key to change"
        )


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `rankings`: prompts.jsonl, responses.jsonl, judgements.jsonl and report.json."""
    settings = recipe.rank
    assert settings is not None
    samples = workspace.read("samples")
    prompts = list(read_jsonl(samples / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(samples / "responses.jsonl", Response))
    name = campaign(workspace)
    with workspace.publish() as folder, open_store(store_url(recipe, workspace)) as store:
        judgements: list[Judgement] = []
        if set(settings.by) & set(ASKED):
            store.add_prompts(prompts, name)
            store.add_responses(responses, name)
            if "kitchen" in settings.by:
                store.add_judgements(_panel(recipe, settings, prompts, responses), name)
            if "scorers" in settings.by:
                assert recipe.scoring is not None
                before = {j.prompt_id: j for j in store.judgements(name) if j.source == SCORED}
                memory = (workspace.parent or workspace).folder / scorers.GRADES
                store.add_judgements(_by_scorers(recipe.scoring, prompts, responses, before, memory), name)
            # Scorers that are no longer asked are still in the store.
            judgements += [j for j in store.judgements(name) if j.source != SCORED or "scorers" in settings.by]
        else:
            prompts, responses = [], []
        taken = {file: runs.rankings(Path(file)) for file in settings.by if file not in ASKED}
        theirs = _together(taken, recipe.seed)
        prompts += theirs[0]
        responses += theirs[1]
        judgements += theirs[2]
        fresh = len(judgements)
        if not fresh:
            raise BadInput("there is no judgement.", ", ".join(settings.by), "Rank some answers: `palate rank RUN`.")
        report = {"campaign": name, "placebo": settings.shuffled, **statistics.summary(judgements, responses)}
        report["files"] = {file: told.to_json() for file, told in taken.items()}
        if "people" in settings.by:
            theirs = _from_chats(store, workspace, prompts)
            report["from_chats"] = len(theirs[2])
            prompts, responses, judgements = prompts + theirs[0], responses + theirs[1], judgements + theirs[2]
        report["rewrites"] = sum(judgement.rewrite is not None for judgement in judgements)
        judgements, responses = rewrites.taught(judgements, responses)
        fresh = len(judgements)
        if (round_before := workspace.before("rankings")) is not None:
            earlier = round_before.read("rankings")
            prompts, responses, judgements = _with_earlier(earlier, prompts, responses, judgements)
        report["earlier_judgements"] = len(judgements) - fresh
        if settings.shuffled:
            judgements = _shuffled(judgements, recipe.seed)
        write_jsonl(folder / "prompts.jsonl", prompts)
        write_jsonl(folder / "responses.jsonl", responses)
        write_jsonl(folder / "judgements.jsonl", judgements)
        if recipe.scoring is not None and "scorers" in settings.by:
            report["scorers"] = scorers.fingerprint(recipe.scoring)
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _from_chats(
    store: Store, workspace: Workspace, prompts: Sequence[Prompt]
) -> tuple[list[Prompt], list[Response], list[Judgement]]:
    """What people judged while they chatted with this run's models. What begins with a question that is held out
    is left out: what is measured with that one would be known."""
    name = _chats(workspace)
    judged = store.judgements(name, simulated=False)
    demonstrations = workspace.read("demonstrations") / "prompts.jsonl"
    known = [*prompts, *(read_jsonl(demonstrations, Prompt) if demonstrations.is_file() else ())]
    held_out = {prompt.messages for prompt in known if prompt.split != "train"}
    about = {judgement.prompt_id for judgement in judged}
    found = [
        prompt
        for prompt in store.prompts(name)
        if prompt.id in about and not any(prompt.messages[:n] in held_out for n in range(1, len(prompt.messages) + 1))
    ]
    kept = {prompt.id for prompt in found}
    return (
        found,
        [response for response in store.responses(name) if response.prompt_id in kept],
        [judgement for judgement in judged if judgement.prompt_id in kept],
    )


def _with_earlier(
    folder: Path, prompts: list[Prompt], responses: list[Response], judgements: list[Judgement]
) -> tuple[list[Prompt], list[Response], list[Judgement]]:
    """This round's, and what earlier rounds ranked to train on. What they held out measured another assistant's
    answers."""
    trained = [p for p in read_jsonl(folder / "prompts.jsonl", Prompt) if p.split == "train"]
    kept = {prompt.id for prompt in trained}
    answers = [r for r in read_jsonl(folder / "responses.jsonl", Response) if r.prompt_id in kept]
    earlier = [j for j in read_jsonl(folder / "judgements.jsonl", Judgement) if j.prompt_id in kept]
    return (
        list({p.id: p for p in (*trained, *prompts)}.values()),
        list({r.id: r for r in (*answers, *responses)}.values()),
        [*earlier, *judgements],
    )


def _panel(recipe: Recipe, settings: Rank, prompts: Sequence[Prompt], responses: Iterable[Response]) -> list[Judgement]:
    """The simulated guests' judgements (marked simulated)."""
    assert recipe.kitchen is not None
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    world = knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)
    members = panel.guests(world, settings.annotators, recipe.seed)
    return panel.judge(world, prompts, by_prompt, members, overlap=settings.overlap, seed=recipe.seed)


SCORED = "scorers"
"""`source` of the judgements that no person gave."""
BATCH_PROMPTS = 16
"""Whose answers a scorer is given at once: a judge's take minutes, and the person who waits sees how far it is."""


def _by_scorers(
    settings: Scoring,
    prompts: Sequence[Prompt],
    responses: Iterable[Response],
    before: Mapping[str, Judgement],
    memory: Path,
) -> list[Judgement]:
    """One judgement per prompt by the weighted sum of the scorers, marked simulated; where it is not what they said
    `before`, it supersedes that."""
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    opened = scorers.open(settings, memory=memory)
    annotator = " + ".join(one.name for one in opened)
    asked = [prompt for prompt in prompts if prompt.id in by_prompt]
    found: list[Judgement] = []
    with metrics.Progress("scored", len(asked), unit="prompts") as progress:
        for start in range(0, len(asked), BATCH_PROMPTS):
            part = asked[start : start + BATCH_PROMPTS]
            whose = [prompt for prompt in part for _ in by_prompt[prompt.id]]
            answers = [answer for prompt in part for answer in by_prompt[prompt.id]]
            each = scorers.score_each(opened, whose, [answer.text for answer in answers])
            worth = dict(zip([answer.id for answer in answers], scorers.combined(opened, each), strict=True))
            scores = {answer.id: {name: each[name][row] for name in each} for row, answer in enumerate(answers)}
            for prompt in part:
                ids = [answer.id for answer in by_prompt[prompt.id]]
                told = {id_: scores[id_] for id_ in ids}
                ranks = _ranks({id_: worth[id_] for id_ in ids})
                found.append(_scored(prompt, ranks, told, annotator, before.get(prompt.id)))
            progress.advance(len(part))
    return found


def _ranks(worth: Mapping[str, float]) -> dict[str, int]:
    """Competition ranks (1, 1, 3, ...). Sums that differ by rounding alone are a tie."""
    rounded = {answer: round(value, 9) for answer, value in worth.items()}
    return {answer: 1 + sum(other > value for other in rounded.values()) for answer, value in rounded.items()}


def _scored(
    prompt: Prompt,
    ranks: dict[str, int],
    scores: dict[str, dict[str, float]],
    annotator: str,
    before: Judgement | None,
) -> Judgement:
    """scores: answer -> scorer -> what it gave, which is kept beside the ranks."""
    if before is not None and (before.annotator, before.ranks, before.extra) == (annotator, ranks, {"scores": scores}):
        return before
    return Judgement(
        id=stable_id("judgement", annotator, prompt.id, json.dumps([ranks, scores]), before.id if before else ""),
        prompt_id=prompt.id,
        annotator=annotator,
        ranks=ranks,
        simulated=True,
        supersedes=before.id if before else None,
        source=SCORED,
        extra={"scores": scores},
    )


def _together(taken: Mapping[str, runs.Taken], seed: int) -> tuple[list[Prompt], list[Response], list[Judgement]]:
    """What files hold; a tenth of the prompts, by family, is held out as dev. Raises BadInput for two records of one id
    that differ."""
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    judgements: dict[str, Judgement] = {}
    for path, told in taken.items():
        same = all(prompts.setdefault(p.id, p).messages == p.messages for p in told.prompts)
        same &= all(responses.setdefault(r.id, r).text == r.text for r in told.responses)
        same &= all(judgements.setdefault(j.id, j).ranks == j.ranks for j in told.judgements)
        if not same:
            raise BadInput("a record in it has the id of another one before it.", path, "Give each its own id.")
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
