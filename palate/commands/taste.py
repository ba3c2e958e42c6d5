"""What a run's reward model reads of every ranked answer, so that its heads are fitted again in seconds: on some of the
judgements, without a person's, with orders dealt at random in their place."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.align import heads
from palate.align.heads import OUTPUTS, Table
from palate.batches.rankings import Group, groups
from palate.commands.quick import PANEL, RANDOM_ORDERS, YOUR_WEIGHT
from palate.device import open_device
from palate.feedback import asked, reliability, statistics
from palate.feedback.reliability import EQUAL, Annotator
from palate.generate.replies import features_all
from palate.measure import preference
from palate.measure.intervals import Interval, bootstrap
from palate.recipe import Recipe, Reward
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.studio.effects import (
    Arm,
    Arms,
    By,
    Changed,
    Curve,
    Example,
    Point,
    Ranked,
    Said,
    Share,
    Surprise,
    Surprises,
)
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.weights import folder as weights
from palate.weights.families import context_of
from palate.workspace import Workspace

SHARES = (16, 8, 4, 2, 1)
"""Parts of the judgements that a learning curve is fitted on: a sixteenth, an eighth, ..., all."""
SUBSETS = 3
"""Random choices of each part."""
FEWEST = 4
"""Judgements; from fewer a head learns nothing that an interval would not hide."""
EXAMPLES = 3
SURPRISES = 20
"""Of how many prompts a pair is shown that the reward model would have ordered the other way."""


@dataclass(frozen=True)
class Taste:
    """A reward model without its network: what it reads of every answer, and its heads as they were trained."""

    table: Table
    trained: Tensor
    """(5, dim)"""
    mix: Tensor
    """(5): what makes log-odds of being preferred of the five scores (palate/align/heads.py)."""
    settings: Reward
    prompts: Mapping[str, Prompt]
    responses: Sequence[Response]
    used: frozenset[str]
    """Ids of the judgements that it was trained on."""
    tokenizer: Tokenizer
    room: int

    def answers(self, prompt: Prompt, by: Mapping[str, list[Response]]) -> list[Response]:
        """Its different answers that are read."""
        return [response for response in by.get(prompt.id, ()) if response.id in self.table.rows]

    def by_prompt(self) -> dict[str, list[Response]]:
        """Prompt id -> its different answers."""
        return asked.answers(self.responses)

    def judged(self, judgements: Sequence[Judgement], split: str | None) -> list[Group]:
        """The prompts of a split (all of them without one) that somebody judged; everybody counts alike."""
        read = self.table.rows.keys()
        found, _ = groups(
            [p for p in self.prompts.values() if split in (None, p.split)],
            [r for r in self.responses if r.id in read],
            [j for j in judgements if read >= {*j.ranks, *j.criteria}],
            self.tokenizer,
            room=self.room,
        )
        return [group for group in found if preference.decided(group)]

    def scores(self, head: Tensor, members: Sequence[Group]) -> list[list[float]]:
        """What a head (dim) gives every candidate."""
        values = self.table.features @ head
        return [[float(values[self.table.rows[r.id]]) for r in group.responses] for group in members]

    def fitted(self, judgements: Sequence[Judgement], known: Mapping[str, Annotator] | None) -> Tensor:
        """The head (dim) of the recipe's mix, fitted on these. Raises ValueError where no pair is left."""
        overall = heads.fit(self.table, judgements, known)
        if self.settings.weights is None:
            return overall
        rows = {name: self.trained[number] for number, name in enumerate(OUTPUTS)}
        rows |= heads.fit_criteria(self.table, judgements) | {"overall": overall}
        return torch.stack([weight * rows[name] for name, weight in self.settings.weights.items()]).sum(dim=0)

    @property
    def head(self) -> Tensor:
        """The head (dim) of the recipe's mix as it was trained, in log-odds."""
        return self.mix @ self.trained

    def known(self, judgements: Sequence[Judgement]) -> Mapping[str, Annotator] | None:
        """How much each annotator counts, where the recipe wants it by agreement."""
        return reliability.annotators(judgements) if self.settings.annotators == "agreement" else None

    def train(self, judgements: Sequence[Judgement]) -> list[Judgement]:
        """Those of prompts that are trained on and whose answers are read."""
        rows = self.table.rows
        return [
            j
            for j in judgements
            if (prompt := self.prompts.get(j.prompt_id)) is not None
            and prompt.split == "train"
            and len(rows.keys() & j.ranks.keys()) > 1
        ]


def read(recipe: Recipe, run: Workspace, source: Workspace) -> Taste:
    """The reward model of the run `source` on its own ranked answers and on those that `run` asks about, which is the
    same run or a later one. What was not kept at training is read by the network now."""
    settings = recipe.reward
    assert settings is not None
    folder, ranked = source.read("reward"), source.read("rankings")
    table, tokenizer, room = heads.read(folder), tokenizers.load(folder), context_of(folder)
    prompts = {p.id: p for p in read_jsonl(ranked / "prompts.jsonl", Prompt)}
    responses = {r.id: r for r in read_jsonl(ranked / "responses.jsonl", Response)}
    if run.has("samples"):
        samples = run.read("samples")
        prompts |= {p.id: p for p in read_jsonl(samples / "prompts.jsonl", Prompt)}
        responses |= {r.id: r for r in read_jsonl(samples / "responses.jsonl", Response)}
    model, extra = weights.load_scalar_model(folder)
    unread = [
        (r.id, ids, reply)
        for r in responses.values()
        if r.id not in table.rows and r.prompt_id in prompts
        for ids in (tuple(tokenizer.encode_prompt(prompts[r.prompt_id].messages)),)
        for reply in (r.token_ids or tokenizer.encode_reply(prompts[r.prompt_id].messages, r.text),)
        if len(ids) + len(reply) <= room
    ]
    trained = model.score.weight.detach().float().clone()
    if unread:
        device = open_device(recipe.hardware)
        asked_ids, replies = [ids for _, ids, _ in unread], [reply for _, _, reply in unread]
        more = features_all(
            device.put(model), asked_ids, replies, pooling=str(extra["pooling"]), pad=tokenizer.pad, device=device
        )
        at = len(table.features)
        rows = {**table.rows, **{id_: at + number for number, (id_, _, _) in enumerate(unread)}}
        table = Table(rows, torch.cat([table.features, more]))
    used = frozenset(j.id for j in read_jsonl(ranked / "judgements.jsonl", Judgement))
    return Taste(
        table, trained, torch.tensor(extra["mix"]), settings, prompts, list(responses.values()), used, tokenizer, room
    )


def unsure(taste: Taste) -> dict[str, float]:
    """Prompt id -> how unsure the reward model is of its answers: the entropy (nats) of what it predicts of a pair, a
    mean over all pairs. 0 is certain, ln 2 is a coin."""
    values = (taste.table.features @ taste.head).tolist()
    by, found = taste.by_prompt(), {}
    for prompt in taste.prompts.values():
        given = [values[taste.table.rows[r.id]] for r in taste.answers(prompt, by)]
        pairs = [_entropy(a - b) for a, b in itertools.combinations(given, 2)]
        if pairs:
            found[prompt.id] = sum(pairs) / len(pairs)
    return found


def _chance(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))


def _entropy(log_odds: float) -> float:
    p = _chance(log_odds)
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


# --- the learning curve ----------------------------------------------------------------------------------------------


def curve(taste: Taste, judgements: Sequence[Judgement], *, simulated: bool) -> Curve | None:
    """Of people or of simulated annotators, measured on their own held-out judgements; None where there are too few."""
    judgements = [j for j in judgements if j.simulated == simulated]
    train, dev = taste.train(judgements), taste.judged(judgements, "dev")
    counts = sorted({len(train) // part for part in SHARES if len(train) // part >= FEWEST})
    if not dev or not counts:
        return None
    rng = random.Random("learning curve")
    points = []
    for count in counts:
        subsets = 1 if count == len(train) else SUBSETS
        every = [_right(taste, rng.sample(train, count), dev) for _ in range(subsets)]
        points.append(Point(labels=count, subsets=subsets, accuracy=_share(bootstrap(_mean(every)))))
    held_out = {group.prompt.id for group in dev}
    agreement = statistics.agreement([j for j in judgements if j.prompt_id in held_out])
    return Curve(simulated=simulated, points=points, agreement=Share.model_validate(agreement) if agreement else None)


def _right(taste: Taste, judgements: Sequence[Judgement], dev: Sequence[Group]) -> list[float]:
    """Per held-out prompt the share of its pairs that heads fitted on these order as annotators did."""
    return preference.right(dev, taste.scores(taste.fitted(judgements, taste.known(judgements)), dev))


def _mean(every: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*every, strict=True)]


def _share(interval: Interval) -> Share:
    return Share(mean=interval.mean, low=interval.low, high=interval.high, n=interval.n)


# --- what one person's rankings changed ------------------------------------------------------------------------------


def changed(taste: Taste, judgements: Sequence[Judgement], name: str) -> Changed | None:
    """With and without a person's judgements, beside those of other people. Without any, beside simulated ones, which
    one person moves only when each of theirs counts as many (`palate rank --quick` does the same). Without those, too,
    the later half of the judgements is held against the first."""
    every = taste.train(judgements)
    own = [j for j in every if j.annotator == name and not j.simulated]
    people = [j for j in every if j.annotator != name and not j.simulated]
    panel = [] if people else _some([j for j in every if j.simulated])
    others = people or panel
    if not own or (not others and len(own) < 2):
        return None
    kept = [] if others else sorted(own, key=lambda j: (j.created_at, j.id))[: len(own) // 2]
    mine = [j for j in own if j not in kept]
    known = taste.known([*others, *own])
    if panel:
        known = {**(known or {}), name: dataclasses.replace(EQUAL, weight=YOUR_WEIGHT)}
    by = taste.by_prompt()
    fixed = [
        (prompt, answers)
        for prompt in sorted(taste.prompts.values(), key=lambda p: p.id)
        if prompt.split == "dev" and len(answers := taste.answers(prompt, by)) > 1
    ]
    if not fixed:
        return None
    rows = [[taste.table.rows[r.id] for r in answers] for _, answers in fixed]

    def places(orders: Sequence[Judgement]) -> tuple[Tensor, list[int]]:
        """(score of every answer in standard deviations, per fixed prompt which answer is first)."""
        values = taste.table.features @ taste.fitted([*others, *kept, *orders], known)
        values = (values - values.mean()) / values.std().clamp(min=1e-6)
        return values, [int(values[some].argmax()) for some in rows]

    before, were = places([])
    after, are = places(mine)
    by_chance = []
    for number in range(RANDOM_ORDERS):
        rng = random.Random(f"random order {number}")
        dealt = places([j.dealt(rng) for j in mine])[1]
        by_chance.append([float(was != now) for was, now in zip(were, dealt, strict=True)])
    seen = {j.prompt_id for j in judgements if j.annotator == name}
    moved = [n for n, (was, now) in enumerate(zip(were, are, strict=True)) if was != now]

    def swing(n: int) -> tuple[bool, float]:
        """Prompts that the person has judged first, then those where most changed."""
        gain = after[rows[n]] - before[rows[n]]
        return fixed[n][0].id not in seen, -float(gain[are[n]] - gain[were[n]])

    shown = sorted(moved, key=swing)[:EXAMPLES]
    fresh = taste.judged([j for j in judgements if j.annotator == name and j.id not in taste.used], None)
    return Changed(
        judgements=len(mine),
        earlier=len(kept),
        others=len(people),
        others_simulated=len(panel),
        weight=YOUR_WEIGHT if panel else 1.0,
        another_first=_share(bootstrap([float(was != now) for was, now in zip(were, are, strict=True)])),
        by_chance=_share(bootstrap(_mean(by_chance))),
        random_orders=RANDOM_ORDERS,
        agreed=_share(preference.pair_accuracy(fresh, taste.scores(taste.head, fresh))) if fresh else None,
        examples=[_example(*fixed[n], rows[n], were[n], are[n], before, after) for n in shown],
        prompts=[fixed[n][0].id for n in shown],
    )


def _some(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Those of PANEL prompts: more simulated ones hold the head no better and cost seconds."""
    prompts = sorted({j.prompt_id for j in judgements})
    chosen = set(random.Random("panel").sample(prompts, min(PANEL, len(prompts))))
    return [j for j in judgements if j.prompt_id in chosen]


def _example(
    prompt: Prompt, answers: Sequence[Response], rows: Sequence[int], was: int, now: int, before: Tensor, after: Tensor
) -> Example:
    was_first, is_first = (
        Ranked(text=answers[at].text, before=float(before[rows[at]]), after=float(after[rows[at]])) for at in (was, now)
    )
    return Example(
        messages=[Said(role=m.role, content=m.content) for m in prompt.messages],
        was_first=was_first,
        is_first=is_first,
    )


# --- active choice ---------------------------------------------------------------------------------------------------


def arms(taste: Taste, judgements: Sequence[Judgement], arm_of: Mapping[str, str], names: Collection[str]) -> Arms:
    """People's judgements by how their prompts were chosen; `arm_of`: prompt id -> the name of its arm."""
    people = [j for j in judgements if not j.simulated]
    by = {name: [j for j in people if arm_of.get(j.prompt_id) == name] for name in names}
    train = {name: taste.train(some) for name, some in by.items()}
    dev = taste.judged(people, "dev")
    labels = min(map(len, train.values()))
    labels = labels if labels >= FEWEST and dev else 0
    right = {name: _held_out(taste, some, labels, dev) for name, some in train.items()} if labels else {}
    found = [
        Arm(
            name=name,
            prompts=len({j.prompt_id for j in some}),
            judgements=len(some),
            right=_trained_right(taste, some),
            held_out=_share(bootstrap(right[name])) if labels else None,
        )
        for name, some in by.items()
    ]
    first, second = names
    difference = [a - b for a, b in zip(right[first], right[second], strict=True)] if labels else []
    return Arms(arms=found, labels=labels, difference=_share(bootstrap(difference)) if difference else None)


def _held_out(taste: Taste, some: Sequence[Judgement], labels: int, dev: Sequence[Group]) -> list[float]:
    rng = random.Random("arms")
    return _mean([_right(taste, rng.sample(some, labels), dev) for _ in range(SUBSETS)])


def _trained_right(taste: Taste, some: Sequence[Judgement]) -> Share | None:
    """Of judgements that it was not trained on."""
    new = taste.judged([j for j in some if j.id not in taste.used], None)
    return _share(preference.pair_accuracy(new, taste.scores(taste.head, new))) if new else None


# --- where people and the model disagree -----------------------------------------------------------------------------


def surprises(taste: Taste, judgements: Sequence[Judgement], numbers: Mapping[str, int]) -> Surprises:
    """How people order pairs, by how little the reward model expects it, one pair a prompt; `numbers`: prompt id -> the
    number of its item."""
    values = (taste.table.features @ taste.head).tolist()
    rows, texts = taste.table.rows, {response.id: response.text for response in taste.responses}
    people = [j for j in judgements if not j.simulated and j.prompt_id in numbers]
    pairs: dict[tuple[str, str, str], list[Judgement]] = {}
    for judgement in people:
        ranked = [(id_, rank) for id_, rank in judgement.ranks.items() if id_ in rows]
        for (better, first), (worse, then) in itertools.permutations(ranked, 2):
            if first < then:
                pairs.setdefault((judgement.prompt_id, better, worse), []).append(judgement)
    margins = {pair: values[rows[pair[1]]] - values[rows[pair[2]]] for pair in pairs}
    against = sorted((margin, pair) for pair, margin in margins.items() if margin < 0)
    least = {pair[0]: (margin, pair) for margin, pair in reversed(against)}  # of every prompt its first one
    shown = sorted(least.values())[:SURPRISES]
    return Surprises(
        pairs=sum(map(len, pairs.values())),
        against=sum(len(pairs[pair]) for _, pair in against),
        found=[
            Surprise(
                number=numbers[prompt],
                prompt=taste.prompts[prompt].messages[-1].content,
                better=texts[better],
                worse=texts[worse],
                chance=_chance(margin),
                by=[
                    By(annotator=j.annotator, rationale=j.rationale, learned=j.id in taste.used)
                    for j in pairs[prompt, better, worse]
                ],
            )
            for margin, (prompt, better, worse) in shown
        ],
        prompts=[prompt for _, (prompt, _, _) in shown],
    )
