"""All models and controls -> report.json and report.html: what each stage changed, against controls, with intervals.

Every model answers the dev prompts at each temperature; its best one is chosen there, once, and used on test. Where the
recipe has the kitchen, gold judges; elsewhere the learned reward does, and the report says so: it then shows what PPO
was told to do, not that people like it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from palate import metrics, scorers
from palate.align import fresh
from palate.batches import prompts as prompt_batches
from palate.batches.rankings import Group, groups
from palate.batches.shards import Shard
from palate.device import Device, open_device, seeds
from palate.errors import BadInput
from palate.feedback.place import fresh_campaign, store_url
from palate.feedback.store import open_store
from palate.generate.engine import Reply, generate
from palate.generate.replies import logp_all, score_all
from palate.generate.sampling import Sampling
from palate.kitchen import dialogue, knowledge, panel
from palate.kitchen.judge import Judge as Gold
from palate.kitchen.judge import kitchen_prompt
from palate.measure import answers as measure
from palate.measure.answers import Answers, Judge
from palate.measure.bits import ByteNgram, bits_per_byte
from palate.measure.intervals import bootstrap
from palate.metrics import Progress
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.recipe import Evaluate, Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id
from palate.report import page
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.weights import folder as weights
from palate.weights.adapter import ORIGIN, OWN
from palate.weights.families import context_of
from palate.workspace import FOLDERS, POLICIES, Workspace, peak_mb

TASKS = {"completion": "complete", "translation": "translate", "summarisation": "summarise", "sentiment": "sentiment"}
"""The mission's four tasks -> the skill of their prompts."""
ORDER = ("base", "first_sft", "sft", "sft_continued", "best_of_k", *POLICIES, "placebo")
"""How models stand below each other."""
NGRAM_ORDER = 5
NGRAM_BYTES = 32_000_000
"""Training text of the n-gram baseline; counts of more would fill the memory of a laptop."""
SIDE_BY_SIDE = 10


@dataclass(frozen=True)
class Bench:
    """What every model is measured with."""

    settings: Evaluate
    tokenizer: Tokenizer
    device: Device
    reward: ScalarModel | None
    pooling: str
    mix: tuple[float, ...]
    judge: Judge | None
    """Gold where the world is known."""
    scorers: tuple[scorers.Weighted, ...]
    """Without gold what the policies were told to follow is all there is: [scoring], or the reward model alone."""
    dev: tuple[Prompt, ...]
    test: tuple[Prompt, ...]
    too_long: int
    """Dev and test prompts left out because an answer would not fit into the context behind them."""
    base_chats: bool
    """Whether the base model came with a chat template, so that it is asked as it was trained to be."""
    seed: int

    def encoded(self, prompts: Sequence[Prompt], *, plain: bool) -> list[list[int]]:
        """Ids of prompts: as chats, or as the questions of a forum page for a model that never saw a chat."""
        if not plain:
            return [self.tokenizer.encode_prompt(prompt.messages) for prompt in prompts]
        return [self.tokenizer.begin(f"Question: {p.messages[-1].content}\n\nAnswer:") for p in prompts]

    def learned(self, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]]) -> list[float]:
        """The reward model's mixed score of each reply."""
        assert self.reward is not None
        chats = self.encoded(prompts, plain=False)
        scores = score_all(self.reward, chats, ids, pooling=self.pooling, pad=self.tokenizer.pad, device=self.device)
        return [float(v) for v in (scores @ torch.tensor(self.mix))]

    def sampling(self, temperature: float) -> Sampling:
        """How answers are drawn: only the temperature is a model's own."""
        return Sampling(
            max_new_tokens=self.settings.max_new_tokens, temperature=temperature, stops=self.tokenizer.stops
        )

    def answer(
        self,
        name: str,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        temperature: float,
        *,
        plain: bool = False,
        best_of: int = 1,
    ) -> Answers:
        """One judged answer per prompt; with `best_of` the one of several that the reward model likes most."""
        replies = generate(
            model,
            self.encoded(prompts, plain=plain),
            self.sampling(temperature),
            # The same random numbers for every model, so that paired differences lose the noise of the draw.
            seeds=seeds(len(prompts), self.seed, "evaluate", temperature, best_of),
            device=self.device,
            answers=best_of,
        )
        chosen = self._best(prompts, replies) if best_of > 1 else [reply for (reply,) in replies]
        texts = [self._text(reply, plain=plain) for reply in chosen]
        ids = tuple(reply.ids for reply in chosen)
        scores = self._scores(prompts, texts, ids)
        ended = sum(reply.ended for reply in chosen) / len(chosen)
        return Answers(name, temperature, tuple(prompts), ids, tuple(texts), tuple(scores), ended)

    def _scores(
        self, prompts: Sequence[Prompt], texts: Sequence[str], ids: Sequence[Sequence[int]]
    ) -> list[dict[str, float]]:
        if self.judge is not None:
            return [self.judge(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        if not self.scorers:
            return [{"overall": value} for value in self.learned(prompts, ids)]
        each = scorers.score_each(self.scorers, prompts, texts)
        return [{"overall": value} for value in scorers.combined(self.scorers, each)]

    def _text(self, reply: Reply, *, plain: bool) -> str:
        text = self.tokenizer.decode(reply.ids)
        # A base model goes on with the thread after its answer; the answer ends where the paragraph does.
        return (text.strip().split("\n\n")[0] if plain else text).strip()

    def _best(self, prompts: Sequence[Prompt], replies: Sequence[Sequence[Reply]]) -> list[Reply]:
        flat = [(prompt, reply) for prompt, several in zip(prompts, replies, strict=True) for reply in several]
        scores = self.learned([p for p, _ in flat], [r.ids for _, r in flat])
        chosen, at = [], 0
        for several in replies:
            part = scores[at : at + len(several)]
            chosen.append(several[part.index(max(part))])
            at += len(several)
        return chosen


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `report`: report.json and report.html."""
    settings = recipe.evaluate
    assert settings is not None
    device = open_device(recipe.hardware)
    started = time.monotonic()
    with workspace.publish() as folder:
        bench = _bench(recipe, workspace, device)
        models = _models(workspace, recipe, device)
        report, answers = _compare(bench, models)
        report |= _header(recipe, workspace, bench)
        if workspace.has("tokens"):
            report["bits_per_byte"] = _bits(workspace.read("tokens"), models, device)
        if "placebo" in models and recipe.reward is not None:
            told = json.loads(
                (_control(workspace, "placebo").read("reward") / "report.json").read_text(encoding="utf-8")
            )
            report["placebo"]["slope"] = told["slope"]
        if workspace.has("reward"):
            report["reward"] = _reward(recipe, workspace, bench)
        story = {
            "opening": _opening(recipe, bench, models),
            "side_by_side": _side_by_side(answers),
            "curves": {
                name: metrics.read(workspace.logs / f"{name}.jsonl")
                for name in ("pretrain", "sft", "reward", *POLICIES)
            },
            "collection": _optional(workspace, "corpus"),
            "rankings": _optional(workspace, "rankings"),
        }
        report["over_optimisation"] = _over_optimisation(bench, workspace, list(models))
        for name in (method for method in POLICIES if method in models and recipe.fresh is not None):
            report[name]["fresh"] = _fresh(recipe, workspace, name)
        report["rounds"] = _rounds(workspace.lineage(), report)
        report["alarms"] = _alarms(workspace, list(models))
        report["stages"] = _costs(workspace) | {"evaluate": _cost(time.monotonic() - started, peak_mb())}
        (folder / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(page.render(report, story), encoding="utf-8")


def _bench(recipe: Recipe, workspace: Workspace, device: Device) -> Bench:
    settings = recipe.evaluate
    assert settings is not None
    source = workspace.read("sft") if workspace.has("sft") else workspace.read("base")
    tokenizer = tokenizers.load(source)
    reward, pooling, mix = None, "mean", ()
    if workspace.has("reward"):
        loaded, extra = weights.load_scalar_model(workspace.read("reward"))
        reward, pooling, mix = device.put(loaded).eval(), str(extra["pooling"]), tuple(extra["mix"])
    every = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
    kept, _, too_long = prompt_batches.encode(every, tokenizer, room=context_of(source) - settings.max_new_tokens)
    kept.sort(key=lambda p: p.id)  # ids are hashes: whatever number is read, all skills are in it
    splits = {name: tuple(p for p in kept if p.split == name) for name in ("dev", "test")}
    if any(p.messages[-1].content == dialogue.SEED_PROMPT for p in splits["test"]):  # the report opens with it
        splits["test"] = tuple(sorted(splits["test"], key=lambda p: p.messages[-1].content != dialogue.SEED_PROMPT))
    for name, members in splits.items():
        if not members:
            raise BadInput(
                f"no {name} prompt fits the context.", workspace.read("demonstrations"), "Use shorter prompts."
            )
    judge = None
    if recipe.kitchen is not None and all(kitchen_prompt(p) for p in kept):
        judge = Gold(knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)).scores
    opened: list[scorers.Weighted] = []
    if judge is None and recipe.scoring is not None:
        opened = scorers.open(recipe.scoring, memory=workspace.folder / scorers.GRADES)
    if judge is None and not opened and reward is None:
        raise BadInput(
            "nothing can say how good an answer is: there is no reward model and no [scoring].",
            "the recipe",
            "Train a reward model, or name a scorer.",
        )
    return Bench(
        settings=settings,
        tokenizer=tokenizer,
        device=device,
        reward=reward,
        pooling=pooling,
        mix=mix,
        judge=judge,
        scorers=tuple(opened),
        dev=splits["dev"][: settings.dev_prompts],
        test=splits["test"][: settings.test_prompts],
        too_long=sum(prompt.split != "train" for prompt in too_long),
        base_chats=_chats(workspace.read("base")),
        seed=recipe.seed,
    )


def _chats(base: Path) -> bool:
    origin = base / ORIGIN
    return origin.is_file() and json.loads(origin.read_text(encoding="utf-8"))["chat_template"] == OWN


def _models(workspace: Workspace, recipe: Recipe, device: Device) -> dict[str, LanguageModel]:
    """Every language model of this run, the controls' too."""
    places: dict[str, Path] = {}
    for name in ("base", "sft", *POLICIES):
        if workspace.has(name):
            places[name] = workspace.read(name)
    if len(rounds := workspace.lineage()) > 1:
        places["first_sft"] = rounds[0].read("sft")
    if recipe.controls is not None:
        for name, artifacts in (("sft_continued", ("sft",)), ("placebo", POLICIES)):
            control = _control(workspace, name)
            if getattr(recipe.controls, name):
                for artifact in filter(control.own, artifacts):
                    places[name] = control.read(artifact)
    return {name: device.put(weights.load_language_model(path)).eval() for name, path in places.items()}


def _bits(tokens: Path, models: dict[str, LanguageModel], device: Device) -> dict[str, float]:
    """Bits per byte of this run's models on its own held-out documents, and of an n-gram."""
    held_out, width = Shard(tokens, "val"), models["base"].shape.context
    found = {
        name: round(bits_per_byte(models[name], held_out, device, width=width), 4)
        for name in ("base", "sft", *POLICIES)
        if name in models
    }
    return found | {"ngram_5": round(_ngram(tokens), 4)}


def _control(workspace: Workspace, name: str) -> Workspace:
    """The run inside this run that holds what a control does differently."""
    return Workspace(workspace.folder / "controls" / name)


def _alarms(workspace: Workspace, models: Sequence[str]) -> list[dict[str, Any]]:
    """The first of each kind for each method, and whether it ended the training."""
    found = []
    for name in (method for method in POLICIES if method in models):
        folder, seen = workspace.read(name), set()
        stopped = json.loads((folder / "report.json").read_text(encoding="utf-8"))["stopped"]
        for line in metrics.read(folder / "alarms.jsonl"):
            if line["name"] not in seen:
                found.append(line | {"method": name, "ended": bool(line["ends"]) and "alarm" in stopped})
            seen.add(line["name"])
    return found


def _fresh(recipe: Recipe, workspace: Workspace, method: str) -> dict[str, Any]:
    """What people said of the answers that were queued while the policy trained ([fresh])."""
    campaign = fresh_campaign(workspace, method)
    with open_store(store_url(recipe, workspace)) as store:
        judgements, responses = store.judgements(campaign), store.responses(campaign)
        told: dict[str, Any] = {"queued": len(store.prompts(campaign)), "judgements": len(judgements)}
    for name, of in (("as_the_reward_model", fresh.agreement), ("policy_preferred", fresh.preferred)):
        interval = of(judgements, responses)
        told[name] = interval.to_json() if interval is not None else None
    return told


def _rounds(lineage: Sequence[Workspace], report: dict[str, Any]) -> list[dict[str, Any]]:
    """What each round's policy gained over the assistant that it began with; a run that continues no other has one."""
    reports = []
    for run in lineage[:-1]:
        if run.own("report"):
            told = json.loads((run.read("report") / "report.json").read_text(encoding="utf-8"))
            reports.append((run, told))
    reports.append((lineage[-1], report))
    found = []
    for run, told in reports:
        for method in told.get("methods", ()):
            line = {key: told[method].get(key) for key in ("gain_over_sft", "win_rate_vs_sft", "kl", "change")}
            learned = told.get("reward", {})
            line |= {"run": run.folder.name, "method": method, "overall": told[method]["gold"]["overall"]}
            line |= {"accuracy": learned.get("accuracy"), "n": told["n"]["test_prompts"]}
            line |= {"judgements": told.get("judgements"), "judged_by": told["judged_by"]}
            found.append(line)
    return found


def _header(recipe: Recipe, workspace: Workspace, bench: Bench) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "judged_by": "gold" if bench.judge is not None else "scorers" if bench.scorers else "learned reward",
        "simulated_people": bool(recipe.rank and "kitchen" in recipe.rank.by),
        "ranked_by_scorers": bool(recipe.rank and "scorers" in recipe.rank.by),
        "n": {"dev_prompts": len(bench.dev), "test_prompts": len(bench.test), "too_long": bench.too_long},
        "temperatures": list(bench.settings.temperatures),
        "K": bench.settings.best_of,
        "round": len(workspace.lineage()),
        "judgements": _optional(workspace, "rankings").get("judgements"),
    }


# --- models against controls -----------------------------------------------------------------------------------------


def _compare(bench: Bench, models: dict[str, LanguageModel]) -> tuple[dict[str, Any], dict[str, Answers]]:
    """The table of models, and each one's test answers at its own best temperature."""
    report: dict[str, Any] = {}
    at_best: dict[str, Answers] = {}
    at_one: dict[str, Answers] = {}
    greedy: dict[str, Answers] = {}
    contenders: list[tuple[str, LanguageModel, int]] = [(name, model, 1) for name, model in models.items()]
    if "sft" in models and bench.reward is not None:
        contenders.append(("best_of_k", models["sft"], bench.settings.best_of))
    contenders.sort(key=lambda contender: ORDER.index(contender[0]))
    total = len(contenders) * (len(bench.settings.temperatures) + 3)
    with Progress("evaluate", total, unit="readings") as progress:
        for name, model, best_of in contenders:
            plain = name == "base" and not bench.base_chats
            # Greedy answers are all the same, so the best of K needs a temperature.
            temperatures = [t for t in bench.settings.temperatures if t > 0 or best_of == 1]
            on_dev = []
            for temperature in temperatures:
                on_dev.append(bench.answer(name, model, bench.dev, temperature, plain=plain, best_of=best_of))
                progress.advance(note=name)
            best = measure.best_temperature(on_dev)
            told: dict[str, Any] = {
                "best_temperature": best,
                "dev": {str(a.temperature): round(a.mean(), 4) for a in on_dev},
            }
            read: dict[float, Answers] = {}
            for key, temperature in (("gold", best), ("gold_greedy", 0.0), ("gold_t1", 1.0)):
                if temperature not in read:
                    # The best of K greedy answers is the greedy answer.
                    several = best_of if temperature > 0 else 1
                    read[temperature] = bench.answer(name, model, bench.test, temperature, plain=plain, best_of=several)
                told[key] = read[temperature].intervals()
                progress.advance(note=name)
            told["ended"] = round(read[best].ended, 4)
            told["kl"] = round(_kl(bench, name, model, models.get("sft"), read[1.0], best_of), 4)
            report[name], at_best[name], at_one[name], greedy[name] = told, read[best], read[1.0], read[0.0]
            report.setdefault("tasks", {})[name] = _tasks(bench, read[0.0])
    # At one temperature nothing else differs; at each one's own, what is gained may be a better temperature, and
    # sampling costs the best of K something.
    for name in (one for one in at_one if one in ("sft_continued", "best_of_k", *POLICIES) and "sft" in at_one):
        report[name]["gain_over_sft_t1"] = measure.gain(at_one[name], at_one["sft"]).to_json()
        report[name]["gain_over_sft_greedy"] = measure.gain(greedy[name], greedy["sft"]).to_json()
    report |= _claims(report, at_best)
    return report, at_best


def _kl(
    bench: Bench, name: str, model: LanguageModel, sft: LanguageModel | None, at_one: Answers, best_of: int
) -> float:
    """Mean over test prompts of the summed token log-ratio model/SFT of one reply sampled at temperature 1, in nats.

    Best of K has no log-probs of its own; log K - (K - 1)/K bounds its KL (Stiennon et al. 2020, appendix G.3).
    """
    if sft is None or name == "sft":
        return 0.0
    if best_of > 1:
        return float(torch.log(torch.tensor(float(best_of)))) - (best_of - 1) / best_of
    pad = bench.tokenizer.pad
    chats = bench.encoded(at_one.prompts, plain=False)
    own = bench.encoded(at_one.prompts, plain=name == "base" and not bench.base_chats)
    replies = [ids or (bench.tokenizer.eos,) for ids in at_one.ids]
    ours = logp_all(model, own, replies, pad=pad, device=bench.device)
    theirs = logp_all(sft, chats, replies, pad=pad, device=bench.device)
    return float((ours - theirs).mean())


def _tasks(bench: Bench, greedy: Answers) -> dict[str, dict[str, float | int]]:
    """Share of each task's test prompts whose core is right (greedy, by gold)."""
    if bench.judge is None:
        return {}
    judge = bench.judge

    def right(prompt: Prompt, text: str) -> float:
        return float(judge(prompt, text)["helpfulness"] >= 0.5)

    found = measure.by_skill(greedy, dict.fromkeys(TASKS.values(), right))
    return {task: found[skill].to_json() for task, skill in TASKS.items() if skill in found}


def _claims(report: dict[str, Any], at_best: dict[str, Answers]) -> dict[str, Any]:
    """Whether it helped: each method against SFT and against the better control, per criterion; every model against
    every other; and the placebo."""
    if "sft" not in at_best:
        return {}
    sft = at_best["sft"]
    # The better control is picked on test, which makes the claim harder, never easier.
    controls = [at_best[name] for name in ("first_sft", "sft", "sft_continued") if name in at_best]
    best = max(controls, key=lambda a: a.mean())
    methods = [name for name in POLICIES if name in at_best]
    for name in methods:
        policy = at_best[name]
        report[name] |= {
            "win_rate_vs_sft": measure.wins(policy, sft).to_json(),
            "gain_over_sft": measure.gain(policy, sft).to_json(),
            "best_control": best.model,
            "gain_over_best_control": measure.gain(policy, best).to_json(),
            "change": {c: measure.gain(policy, sft, c).to_json() for c in policy.scores[0] if c != "overall"},
            "by_skill": measure.gain_by_skill(policy, sft),
        }
    report["sft"]["gain_over_base"] = measure.gain(sft, at_best["base"]).to_json()
    if "first_sft" in at_best:
        for name in methods:
            report[name]["gain_over_first_sft"] = measure.gain(at_best[name], at_best["first_sft"]).to_json()
    if "best_of_k" in at_best:
        report["best_of_k"]["gain_over_sft"] = measure.gain(at_best["best_of_k"], sft).to_json()
        report["best_of_k"]["win_rate_vs_sft"] = measure.wins(at_best["best_of_k"], sft).to_json()
    if "placebo" in at_best:
        report["placebo"]["gain"] = measure.gain(at_best["placebo"], sft).to_json()
    wins = {a: {b: measure.wins(at_best[a], at_best[b]).to_json() for b in at_best if b != a} for a in at_best}
    gains = {a: {b: measure.gain(at_best[a], at_best[b]).to_json() for b in at_best if b != a} for a in at_best}
    return {"methods": methods, "win_rates": wins, "differences": gains}


# --- reward model ----------------------------------------------------------------------------------------------------


def _reward(recipe: Recipe, workspace: Workspace, bench: Bench) -> dict[str, Any]:
    """What the reward stage measured on held-out prompts, and, where gold is known, how far people and model are from
    it: noise_ceiling is how often the judgements themselves order a pair as gold does."""
    told = json.loads((workspace.read("reward") / "report.json").read_text(encoding="utf-8"))
    ranked = json.loads((workspace.read("rankings") / "report.json").read_text(encoding="utf-8"))
    told["panel_agreement"] = ranked.get("agreement", ranked.get("pairwise_agreement"))
    told["accuracy_vs_gold"] = told["noise_ceiling"] = None
    if bench.judge is not None and bench.reward is not None:
        members = _dev_groups(workspace, bench)
        told["accuracy_vs_gold"], told["noise_ceiling"] = _against_gold(members, bench)
    return dict(told)


def _dev_groups(workspace: Workspace, bench: Bench) -> list[Group]:
    folder = workspace.read("rankings")
    assert bench.reward is not None
    found, _ = groups(
        (p for p in read_jsonl(folder / "prompts.jsonl", Prompt) if p.split == "dev"),
        read_jsonl(folder / "responses.jsonl", Response),
        read_jsonl(folder / "judgements.jsonl", Judgement),
        bench.tokenizer,
        room=bench.reward.shape.context,
    )
    return found


def _against_gold(members: Sequence[Group], bench: Bench) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(The reward model's, the judgements' share of pairs ordered as gold does); None where gold likes all alike."""
    assert bench.judge is not None
    learned: list[float] = []
    people: list[float] = []
    for group in members:
        gold = [bench.judge(group.prompt, r.text)["overall"] for r in group.responses]
        scores = bench.learned([group.prompt] * len(gold), group.reply_ids)
        model_right, people_right = [], []
        for i in range(len(gold)):
            for j in range(i + 1, len(gold)):
                if gold[i] == gold[j]:
                    continue
                model_right.append(float((scores[i] > scores[j]) == (gold[i] > gold[j])))
                if group.counted[i][j]:
                    target = group.targets[i][j]
                    people_right.append(0.5 if target == 0.5 else float((target > 0.5) == (gold[i] > gold[j])))
        if model_right:
            learned.append(sum(model_right) / len(model_right))
        if people_right:
            people.append(sum(people_right) / len(people_right))
    return (bootstrap(learned).to_json() if learned else None, bootstrap(people).to_json() if people else None)


def _over_optimisation(bench: Bench, workspace: Workspace, models: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By method: learned reward, KL and gold of the answers it kept on its way (Gao et al. 2023, figure 1), round by
    round (a step of `dpo` is called a round, too)."""
    by_id = {prompt.id: prompt for prompt in read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt)}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in (method for method in POLICIES if method in models):
        rounds: dict[int, list[dict[str, Any]]] = {}
        for line in metrics.read(workspace.read(name) / "watched.jsonl"):
            rounds.setdefault(line["step"], []).append(line)
        found[name] = [_point(bench, by_id, round_, lines) for round_, lines in sorted(rounds.items())]
    return found


def _point(bench: Bench, by_id: dict[str, Prompt], round_: int, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    prompts = [by_id[line["prompt_id"]] for line in lines]
    point: dict[str, Any] = {"round": round_, "kl": round(sum(line["kl"] for line in lines) / len(lines), 4)}
    if bench.reward is not None:
        point["learned"] = bootstrap(bench.learned(prompts, [line["token_ids"] for line in lines])).to_json()
    if all("score" in line for line in lines):
        point["score"] = bootstrap([line["score"] for line in lines]).to_json()
    if bench.judge is not None:
        gold = [bench.judge(prompt, line["text"])["overall"] for prompt, line in zip(prompts, lines, strict=True)]
        point["gold"] = bootstrap(gold).to_json()
    return point


# --- for people to read ----------------------------------------------------------------------------------------------


def _opening(recipe: Recipe, bench: Bench, models: dict[str, LanguageModel]) -> dict[str, Any] | None:
    """The chef's five steps on this run's real answers to the seed prompt (or the first test prompt elsewhere)."""
    main = next((name for name in POLICIES if name in models), None)
    if "sft" not in models or main is None or bench.reward is None:
        return None
    prompt = next((p for p in bench.test if p.messages[-1].content == dialogue.SEED_PROMPT), bench.test[0])
    ids = bench.encoded([prompt], plain=False)

    def sampled(model: LanguageModel, answers: int) -> list[Reply]:
        (replies,) = generate(
            model,
            ids,
            bench.sampling(1.0),
            seeds=seeds(1, bench.seed, "opening"),
            device=bench.device,
            answers=answers,
        )
        return replies

    before, after = sampled(models["sft"], 4), sampled(models[main], 4)
    scores = bench.learned([prompt] * 8, [r.ids for r in (*before, *after)])
    texts = [bench.tokenizer.decode(r.ids).strip() for r in (*before, *after)]
    told = [{"text": text, "reward": round(score, 3)} for text, score in zip(texts, scores, strict=True)]
    if bench.judge is not None:
        for line in told:
            line["gold"] = round(bench.judge(prompt, str(line["text"]))["overall"], 3)
    for line, rank in zip(told[:4], _guest_ranks(recipe, prompt, texts[:4]), strict=False):
        line["rank"] = rank
    return {"prompt": prompt.messages[-1].content, "sft": told[:4], "policy": told[4:], "method": main}


def _guest_ranks(recipe: Recipe, prompt: Prompt, texts: Sequence[str]) -> list[int]:
    """How one simulated guest orders the answers; empty where the world is not the kitchen."""
    if recipe.kitchen is None or not kitchen_prompt(prompt):
        return []
    responses = [
        Response(id=stable_id("opening", str(number)), prompt_id=prompt.id, text=text)
        for number, text in enumerate(texts)
    ]
    world = knowledge.build(recipe.kitchen.seed, recipe.kitchen.dishes)
    members = panel.guests(world, 1, recipe.seed)
    (judgement,) = panel.judge(world, [prompt], {prompt.id: responses}, members, overlap=1, seed=recipe.seed)
    return [judgement.ranks[r.id] for r in responses]


def _side_by_side(answers: dict[str, Answers]) -> list[dict[str, Any]]:
    first = next(iter(answers.values()))
    picks = sorted(range(len(first.prompts)), key=lambda i: stable_id("side by side", first.prompts[i].id))
    return [
        {
            "prompt": [(m.role, m.content) for m in first.prompts[i].messages],
            "skill": first.prompts[i].skill,
            "answers": {
                name: {"text": a.texts[i], "overall": round(a.scores[i]["overall"], 3)} for name, a in answers.items()
            },
        }
        for i in picks[:SIDE_BY_SIDE]
    ]


def _ngram(tokens: Path) -> float:
    """Bits per byte of a byte 5-gram on the same held-out documents the network is measured on."""
    tokenizer = tokenizers.load(tokens)

    def texts(split: str) -> Iterator[str]:
        shard, size = Shard(tokens, split), 0
        corpus = shard.tokens
        for start, length in zip(shard.starts, shard.lengths, strict=True):
            text = tokenizer.decode(corpus[start : start + length].tolist())
            yield text
            size += len(text.encode())
            if size > NGRAM_BYTES:
                return

    return ByteNgram(NGRAM_ORDER, texts("train")).bits_per_byte(texts("val"))


def _optional(workspace: Workspace, artifact: str) -> dict[str, Any]:
    if not workspace.has(artifact):
        return {}
    return dict(json.loads((workspace.read(artifact) / "report.json").read_text(encoding="utf-8")))


def _costs(workspace: Workspace) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of every stage, those of the controls with their folder's name in front."""
    found: dict[str, dict[str, float]] = {}
    places = [("", workspace)]
    controls = workspace.folder / "controls"
    if controls.is_dir():
        places += [(f"{path.name}.", Workspace(path)) for path in sorted(controls.iterdir()) if path.is_dir()]
    for prefix, place in places:
        for artifact in FOLDERS:
            if place.own(artifact) and artifact != "report":
                manifest = place.manifest(artifact)
                found[prefix + manifest["stage"]] = _cost(manifest["seconds"], manifest["peak_mb"])
    return found


def _cost(seconds: float, peak: float) -> dict[str, float]:
    return {"seconds": round(seconds, 2), "peak_mb": round(peak, 1)}
