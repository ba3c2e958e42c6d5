"""Assistant + rankings -> reward model: five scores per answer, learned from the order people gave. The loop is
`train`, at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from palate import metrics, ranks
from palate.align import heads, players, rankings
from palate.align.heads import OUTPUTS
from palate.batches.order import step_items
from palate.batches.rankings import Group, RankedBatch, batch, by_size, pair_count
from palate.device import Device, generator, open_device
from palate.feedback import reliability
from palate.feedback.reliability import Annotator
from palate.generate.replies import features_all, reply_scores, score_all
from palate.measure import preference
from palate.metrics import Metrics, Progress
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.objectives.preference import criteria_loss, preference_loss
from palate.recipe import Recipe, Reward
from palate.records import Judgement
from palate.text import tokenizer as tokenizers
from palate.train import resume
from palate.train.distributed import share
from palate.train.memory import make_room
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, update
from palate.weights import adapter
from palate.weights import folder as weights
from palate.weights.families import context_of
from palate.workspace import VERSION, Workspace, hashed

SCALE_PROMPTS = 256
"""How many prompts' replies say the scale of the score: of 4 replies each, it is known to 3 % of itself."""


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `reward`: a sequence-classification folder with one score per criterion and overall, and report.json
    with its accuracy on held-out prompts."""
    settings = recipe.reward
    assert settings is not None
    device = open_device(recipe.hardware)
    source = workspace.read("sft")
    tokenizer = tokenizers.load(source)
    judgements = rankings.judged_train(workspace)
    known = reliability.annotators(judgements)
    trusted = known if _compared(known) and settings.annotators == "agreement" else None
    train_groups, dev_groups, too_long = rankings.read(
        workspace, tokenizer, room=context_of(source), annotators=trusted
    )
    with workspace.publish() as folder:
        trained, base = _trained_before(workspace), players.open_base(recipe, workspace)
        model = players.open_reward(workspace, base)[0] if trained else _start(recipe, workspace, base)
        learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
        if trained:
            metrics.say("      only the weights of the heads changed: what was trained stays")
        else:
            done, _ = resume.load(folder, {"reward": learner})
            log = Metrics(workspace.logs / "reward.jsonl", resume_after=done)

            def save(step: int) -> None:
                log.sync()
                resume.save(folder, step, {"reward": learner})

            pad = tokenizer.pad
            train(learner, model, train_groups, dev_groups, settings, device, log, recipe.seed, done, pad, save)
        report = _measure(model, train_groups, dev_groups, settings, tokenizer.pad, device)
        report |= {"train_prompts": len(train_groups), "dev_prompts": len(dev_groups), "too_long": too_long}
        report |= {"train_pairs": pair_count(train_groups), "dev_pairs": pair_count(dev_groups), "seed": recipe.seed}
        report["annotators"] = reliability.report(judgements, known)
        every = [*train_groups, *dev_groups]
        features = _features(model, every, settings, tokenizer.pad, device)
        if ranks.leads():
            heads.keep(folder, every, features)
            report["influence"] = _influence(folder, judgements, dev_groups, trusted, recipe.seed)
        now = rankings.given_now(workspace)
        own_groups = [group for group in train_groups if any(map(now, group.responses))] or train_groups
        ranked, own = (
            [s for group in _scores(model, _some(members), settings, tokenizer.pad, device) for s in group]
            for members in (train_groups, own_groups)
        )
        scale = heads.scale(ranked, own, report["slope"], settings)
        learner.whole()
        if ranks.leads():
            (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            if recipe.lora is not None:
                origin = workspace.read("base")
                adapter.save(folder / "adapter", model, base=origin)
                model = model.on(adapter.merged(model, origin).trunk)
            weights.save_scalar_model(folder, model, source, labels=OUTPUTS, ids=tokenizer.ids, extra=scale)


def _start(recipe: Recipe, workspace: Workspace, base: LanguageModel | None) -> ScalarModel:
    """The assistant's body, all of which learns, or its adapters do, beside `base`; and a fresh head."""
    trunk = players.open_assistant(workspace, base).trunk
    return ScalarModel(trunk, len(OUTPUTS), generator(recipe.seed, "score head"))


def _trained_before(workspace: Workspace) -> bool:
    """Whether the finished reward model differs from the wanted one in the recipe's `weights` alone, which say how the
    heads are mixed and not how they learn."""
    job = workspace.job
    if job is None or not workspace.own("reward"):
        return False

    def learned_from(settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        section = {name: value for name, value in settings["reward"].items() if name != "weights"}
        return hashed({"settings": {**settings, "reward": section}, "inputs": dict(inputs), "version": VERSION})

    told = workspace.manifest("reward")
    return told["format"] == VERSION and (
        learned_from(told["settings"], told["inputs"]) == learned_from(job.settings, job.inputs)
    )


def _some(members: Sequence[Group]) -> Sequence[Group]:
    """Enough of them to know the scale of the score."""
    return members[:: -(-len(members) // SCALE_PROMPTS)]


def _features(model: ScalarModel, members: Sequence[Group], settings: Reward, pad: int, device: Device) -> Tensor:
    """(candidates of all members, dim): what the heads read."""
    asked = [group.prompt_ids for group in members for _ in group.reply_ids]
    replies = [ids for group in members for ids in group.reply_ids]
    return features_all(model, asked, replies, pooling=settings.pooling, pad=pad, device=device)


def _influence(
    folder: Path,
    judgements: Sequence[Judgement],
    unseen: Sequence[Group],
    known: Mapping[str, Annotator] | None,
    seed: int,
) -> dict[str, Any]:
    """What each annotator's judgements changed, where there are several."""
    if len({judgement.annotator for judgement in judgements}) < 2:
        return {}
    return heads.influence(heads.read(folder), judgements, unseen, preference.pair_accuracy, known, seed=seed)


def _compared(known: Mapping[str, Annotator]) -> bool:
    """Whether annotators could be compared with each other; says what came out."""
    if not any(who.shared for who in known.values()):
        metrics.say("      no two annotators judged the same answers: who can be relied on is not known, each weighs 1")
        return False
    least, most = (pick(known, key=lambda name: known[name].weight) for pick in (min, max))
    moved = max(known, key=lambda name: abs(known[name].order_bias))
    metrics.say(
        f"      {len(known)} annotators weigh {known[least].weight:.2f} ({least}) to "
        f"{known[most].weight:.2f} ({most}); order moves {moved} most, {known[moved].order_bias:+.2f} log-odds a place"
    )
    return True


def _scores(
    model: ScalarModel, members: Sequence[Group], settings: Reward, pad: int, device: Device
) -> list[list[list[float]]]:
    """Per group and candidate, the five scores."""
    flat = score_all(
        model,
        [group.prompt_ids for group in members for _ in group.reply_ids],
        [ids for group in members for ids in group.reply_ids],
        pooling=settings.pooling,
        pad=pad,
        device=device,
    ).tolist()
    result, at = [], 0
    for group in members:
        result.append(flat[at : at + len(group.reply_ids)])
        at += len(group.reply_ids)
    return result


def _measure(
    model: ScalarModel, train: Sequence[Group], dev: Sequence[Group], settings: Reward, pad: int, device: Device
) -> dict[str, Any]:
    """Everything a reader asks of a reward model, on prompts it has not seen."""
    overall = [
        [heads.mixed(s, settings.weights) for s in group] for group in _scores(model, dev, settings, pad, device)
    ]
    report: dict[str, Any] = {
        "accuracy": preference.pair_accuracy(dev, overall).to_json(),
        "length_only": preference.length_only(train, dev).to_json(),
        "bag_of_words": preference.bag_of_words(train, dev).to_json(),
        "best_of_k": preference.best_of_k(dev, overall).to_json(),
        "calibration": preference.calibration(dev, overall),
        "slope": preference.slope(dev, overall),
    }
    if people := preference.longer_preferred(dev):
        report["longer_preferred"] = {"people": people.to_json()}
        if model_too := preference.longer_preferred(dev, overall):
            report["longer_preferred"]["reward_model"] = model_too.to_json()
    metrics.say(
        f"      on {len(dev)} held-out prompts: pair accuracy {report['accuracy']['mean']:.3f} "
        f"[{report['accuracy']['low']:.3f}, {report['accuracy']['high']:.3f}], length only "
        f"{report['length_only']['mean']:.3f}, bag of words {report['bag_of_words']['mean']:.3f}; PPO takes the score "
        f"times {report['slope']:.2f}"
    )
    return report


def train(
    learner: Learner,
    model: ScalarModel,
    members: Sequence[Group],
    held_out: Sequence[Group],
    settings: Reward,
    device: Device,
    log: Metrics,
    seed: int,
    done: int,
    pad: int,
    save: Callable[[int], None],
) -> None:
    """The loop: a few prompts with all their ranked answers, ranking loss over all pairs, one optimizer step."""
    steps = max(1, settings.epochs * len(members) // settings.batch_prompts)
    lr = schedule(settings.schedule, peak=settings.peak_lr, warmup=min(settings.warmup_steps, steps // 2), steps=steps)

    def objective(ranked: RankedBatch) -> tuple[Tensor, Tensor]:
        rows = reply_scores(model, ranked.replies, pooling=settings.pooling)
        scores = ranked.spread(rows)  # (prompts, candidates, criteria + overall)
        loss, prompts = preference_loss(scores[..., -1], ranked.targets, ranked.weights, ranked.worth)
        return loss + settings.criteria_weight * criteria_loss(scores[..., :-1], ranked.labels, ranked.present), prompts

    longest = max(len(group.prompt_ids) + max(map(len, group.reply_ids)) for group in members)
    at_once = make_room(model, time=longest, device=device, at_most=settings.micro_tokens)
    with Progress("reward", steps, done=done) as progress:
        for tick in ticks(steps, start=done, evaluate_every=settings.evaluate_every, save_every=settings.save_every):
            chosen = step_items(count=len(members), per_step=settings.batch_prompts, step=tick.step, seed=seed)
            pieces = by_size([members[i] for i in share(chosen)], at_once)
            micro = (batch(piece, pad=pad, device=device.torch) for piece in pieces)
            result = update(
                learner, micro, objective, lr=lr(tick.step), max_norm=settings.max_norm, name=f"reward {tick.step}"
            )
            log.log(tick.step, loss=result.loss, lr=lr(tick.step), grad_norm=result.grad_norm)
            if tick.evaluate:
                scores = _scores(model, held_out, settings, pad, device)
                right = preference.pair_accuracy(held_out, [[s[-1] for s in group] for group in scores])
                log.log(tick.step, held_out_accuracy=right.mean)
                model.train()
            if tick.save:
                save(tick.step)
            progress.advance(note=f"loss {result.loss:.3f}")
