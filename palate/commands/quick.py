"""`palate rank RUN --quick`: you are a guest too. Ten prompts, then the reward model's heads are fitted again with your
order among the others', and you see which answers changed places because of you."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palate.batches.rankings import Group, batch, groups
from palate.device import open_device
from palate.errors import BadInput
from palate.measure.intervals import bootstrap
from palate.nn.transformer import ScalarModel, pooled
from palate.objectives.preference import preference_loss
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights
from palate.workspace import Workspace

PROMPTS = 10
YOUR_WEIGHT = 10.0
"""One of your judgements counts like this many of the panel's: ten among thousands would not be heard."""
PULL = 0.1
"""L2 pull towards the head as it was, so that ten judgements bend it and do not break it: with a tenth of this, orders
dealt at random move as much as a person's (docs/log.md)."""
STEPS = 100
RANDOM_ORDERS = 10
"""How often your answers are put in a random order instead, to see what moves when nobody has an opinion."""
PANEL = 200
"""Prompts of the panel that hold the head in place; more change nothing and cost seconds."""


@dataclass(frozen=True)
class Moved:
    """What your judgements changed on prompts that you did not see."""

    lines: tuple[str, ...]
    changed: int
    prompts: int


def choose(workspace: Workspace) -> list[Prompt]:
    """Dev prompts to ask about: the reward model has not trained on them."""
    prompts = read_jsonl(workspace.read("samples") / "prompts.jsonl", Prompt)
    return sorted((p for p in prompts if p.split == "dev"), key=lambda p: p.id)  # ids are hashes: a mix of skills


def refit(recipe: Recipe, workspace: Workspace, yours: Sequence[Judgement]) -> Moved:
    """Fit the overall head again on the panel's judgements and yours; the body stays as it is, so it takes seconds."""
    device = open_device(recipe.hardware)
    source = workspace.read("reward")
    tokenizer = tokenizers.load(source)
    model, extra = weights.load_scalar_model(source)
    model = device.put(model).eval()
    folder = workspace.read("rankings")
    prompts = list(read_jsonl(folder / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(folder / "responses.jsonl", Response))
    panel = list(read_jsonl(folder / "judgements.jsonl", Judgement))
    room = model.shape.context
    asked = {judgement.prompt_id for judgement in yours}
    theirs, _ = groups((p for p in prompts if p.split == "train"), responses, panel, tokenizer, room=room)
    mine, _ = groups((p for p in prompts if p.id in asked), responses, yours, tokenizer, room=room)
    unseen, _ = groups(
        (p for p in prompts if p.split == "dev" and p.id not in asked), responses, panel, tokenizer, room=room
    )
    if not mine or not unseen:
        raise BadInput("there is nothing to fit or to compare with.", workspace.folder, "Rank a few prompts first.")
    theirs = theirs[:PANEL]
    features = {name: _features(model, part, str(extra["pooling"]), tokenizer.pad, device.torch)
                for name, part in (("theirs", theirs), ("mine", mine), ("unseen", unseen))}  # fmt: skip
    before = model.score.weight[-1].detach().clone()

    def fitted(kept: Sequence[int], orders: Sequence[Group]) -> Tensor:
        """The head after your prompts `kept`, ordered as `orders` says."""
        if not kept:
            return before
        return _fit(before, features["theirs"], theirs, [features["mine"][i] for i in kept],
                    [orders[i] for i in kept], device.torch, tokenizer.pad)  # fmt: skip

    every = range(len(mine))
    held_out = []  # each of your prompts judged by a head fitted without it
    for left_out in every:
        head = fitted([i for i in every if i != left_out], mine)
        held_out.append(
            _agrees(head, features["mine"][left_out], mine[left_out])
            - _agrees(before, features["mine"][left_out], mine[left_out])
        )
    by_chance = []
    for number in range(RANDOM_ORDERS):
        rng = random.Random(f"random order {number}")
        chance = [judgement.dealt(rng) for judgement in yours]
        orders, _ = groups((p for p in prompts if p.id in asked), responses, chance, tokenizer, room=room)
        by_chance += _changes(before, fitted(every, orders), features["unseen"])
    return _moved(before, fitted(every, mine), features, mine, unseen, held_out, by_chance)


def _changes(before: Tensor, after: Tensor, features: Sequence[Tensor]) -> list[float]:
    """Per prompt 1 where the two heads put another answer first, otherwise 0."""
    return [float(int((f @ before).argmax()) != int((f @ after).argmax())) for f in features]


@torch.no_grad()
def _features(
    model: ScalarModel, members: Sequence[Group], pooling: str, pad: int, device: torch.device
) -> list[Tensor]:
    """Per group (candidates, dim): what the head reads of each reply."""
    found = []
    for group in members:
        rows = batch([group], pad=pad, device=device).replies
        hidden = model.trunk(rows.ids, rows.segments).float()
        found.append(pooled(hidden[:, 1:], rows.mask, pooling))
    return found


def _fit(
    start: Tensor,
    theirs: Sequence[Tensor],
    their_groups: Sequence[Group],
    mine: Sequence[Tensor],
    my_groups: Sequence[Group],
    device: torch.device,
    pad: int,
) -> Tensor:
    head = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([head], lr=3e-3)
    louder = [dataclasses.replace(group, worth=YOUR_WEIGHT) for group in my_groups]
    ranked = batch([*their_groups, *louder], pad=pad, device=device)
    table = torch.cat([*theirs, *mine])
    total = ranked.worth.sum()
    for _ in range(STEPS):
        scores = ranked.spread((table @ head).unsqueeze(1))[..., 0]
        loss = preference_loss(scores, ranked.targets, ranked.weights, ranked.worth)[0] / total
        loss = loss + PULL * ((head - start) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return head.detach()


def _agrees(head: Tensor, features: Tensor, group: Group) -> float:
    """Share of your pairs the head orders as you did."""
    scores = (features @ head).tolist()
    right = [
        float((scores[i] > scores[j]) == (group.targets[i][j] > 0.5))
        for i in range(len(scores))
        for j in range(i + 1, len(scores))
        if group.counted[i][j] and group.targets[i][j] != 0.5
    ]
    return sum(right) / len(right) if right else 0.5


def _moved(
    before: Tensor,
    after: Tensor,
    features: dict[str, list[Tensor]],
    mine: Sequence[Group],
    unseen: Sequence[Group],
    held_out: Sequence[float],
    by_chance: Sequence[float],
) -> Moved:
    was = bootstrap([_agrees(before, f, g) for f, g in zip(features["mine"], mine, strict=True)])
    lines = [
        f"The reward model agreed with {was.mean:.0%} of your pairs [{was.low:.0%}, {was.high:.0%}] (n = {was.n})."
    ]
    better = bootstrap(held_out)
    lines.append(
        f"Fitted with your other prompts it agrees {better.mean:+.0%} [{better.low:+.0%}, {better.high:+.0%}] more on "
        f"the one left out (n = {better.n})."
    )
    changes = _changes(before, after, features["unseen"])
    examples: list[str] = []
    for feature, group, changed in zip(features["unseen"], unseen, changes, strict=True):
        if changed and len(examples) < 3:
            old, new = int((feature @ before).argmax()), int((feature @ after).argmax())
            examples.append(
                f"  {group.prompt.messages[-1].content}\n    was first:  {group.responses[old].text}\n"
                f"    is now:     {group.responses[new].text}"
            )
    share = bootstrap(changes)
    lines.append(
        f"On {share.n} prompts you did not see, another answer is now first in {share.mean:.1%} "
        f"[{share.low:.1%}, {share.high:.1%}]; orders dealt at random ({RANDOM_ORDERS} times) change "
        f"{sum(by_chance) / len(by_chance):.1%}."
    )
    return Moved(tuple(lines + examples), int(sum(changes)), share.n)
