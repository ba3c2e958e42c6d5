"""One dial: a size, a number of layers or minutes -> the sections [model] and [pretrain]. Where the rule comes from:
docs/dial.md."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch

from palate import device, metrics, ranks
from palate.batches.packed import Packed
from palate.device import COMPILING, Device, compiler, generator, open_device
from palate.errors import RecipeError
from palate.nn.config import Shape
from palate.recipe import Hardware, Model, Pretrain, Recipe
from palate.stages import pretrain
from palate.train.memory import make_room
from palate.train.update import Learner, update

SIZES = {"nano": 1, "micro": 2, "tiny": 3, "mini": 4, "small": 6, "medium": 8, "base": 12}
"""Layers by name; "base" has the shape of GPT-2 small."""
HEAD_WIDTH = 64
"""Every layer makes the network as much wider, so every layer has one head."""
OPTIMIZER = "muon"
PEAK_LR = 8e-3
"""For every size and batch of the sweep within .011 bits per byte of the best rate."""
WARM_UP = 0.05
"""Share of the steps that the rate rises in; then it falls in a line to 0."""
TOKENS_PER_STEP, SHORT = 2048, 2e6
"""The batch of a training on 2 million tokens or less. The best one grows as a power of the tokens, whatever the model
(Bergsma et al. 2025, arXiv:2505.13738); here as their root."""
TOKENS_PER_PARAMETER = 20
"""What a size is trained on: the optimum of Hoffmann et al. 2022, section 3, for a given amount of computing."""
LEAST_TOKENS_PER_PARAMETER = 8
"""From here on the larger of two neighbouring sizes is taken for the same minutes: each has six times fewer tokens per
parameter than the one before it, and this is the middle about those 20."""
GLANCES = 20
"""How often held-out text is looked at and the state saved on the way."""
MEASURED = 1.5
"""Seconds of steps that tell a model's pace."""
SLOWEST = 1e10
"""Operations per second that every machine reaches in training. What is short even so is not timed."""


def resolve(recipe: Recipe, before: Recipe | None) -> Recipe:
    """`recipe` with what follows from its [dial] filled in; `before` is the recipe that its run has already.

    What followed once stays until the dial is turned, so that hashes and resuming are exact. What a person changes in
    it is theirs: then the dial is gone. Raises RecipeError where no model can be trained in the minutes.
    """
    dial = recipe.dial
    if dial is None:
        return recipe
    if dial.gave:
        if before is None:  # the recipe of a run was copied, to do the same again
            return recipe
        if any(getattr(recipe, name) != getattr(before, name) for name in dial.gave):
            return recipe.model_copy(update={"dial": None})
    asked = _without_answer(recipe)
    if before is not None and before.dial is not None and _same(asked, _without_answer(before)):
        return _answered(asked, **{name: getattr(before, name) for name in before.dial.gave})
    return _turn(asked)


def _without_answer(recipe: Recipe) -> Recipe:
    assert recipe.dial is not None
    dial = recipe.dial.model_copy(update={"gave": ()})
    return recipe.model_copy(update={"dial": dial} | dict.fromkeys(recipe.dial.gave))


def _same(one: Recipe, other: Recipe) -> bool:
    """Whether the dial stands alike in both, and beside the same."""
    return all(getattr(one, name) == getattr(other, name) for name in ("dial", "model", "pretrain", "tokenize"))


def _turn(recipe: Recipe) -> Recipe:
    """`recipe` with what follows from its dial."""
    dial, tokenize = recipe.dial, recipe.tokenize
    assert dial is not None and tokenize is not None
    if dial.minutes is not None:
        return _fit(recipe, dial.minutes, tokenize.vocab)
    chosen = model(dial.layers or SIZES[str(dial.size)], dial.context)
    if recipe.pretrain is not None:
        return _answered(recipe, model=chosen)
    shape = pretrain.shape(chosen, tokenize.vocab)
    return _answered(recipe, model=chosen, pretrain=training(shape, TOKENS_PER_PARAMETER * shape.parameters))


def _answered(recipe: Recipe, **sections: Model | Pretrain) -> Recipe:
    assert recipe.dial is not None
    dial = recipe.dial.model_copy(update={"gave": tuple(sections)})
    return recipe.model_copy(update={"dial": dial} | sections)


# --- the rule ---------------------------------------------------------------------------------------------------------


def model(layers: int, context: int) -> Model:
    """The shape of so many layers."""
    return Model.model_validate({"layers": layers, "dim": HEAD_WIDTH * layers, "heads": layers, "context": context})


def training(shape: Shape, tokens: float) -> Pretrain:
    """How `shape` is trained on about so many tokens."""
    rows = max(1, round(TOKENS_PER_STEP * math.sqrt(max(1.0, tokens / SHORT)) / shape.context))
    steps = max(2, round(tokens / rows / shape.context))
    seldom = max(20, -(-steps // GLANCES))
    return Pretrain.model_validate(
        {
            "steps": steps,
            "batch_rows": rows,
            "optimizer": OPTIMIZER,
            "peak_lr": PEAK_LR,
            "schedule": "linear",
            "warmup_steps": round(WARM_UP * steps),
            "evaluate_every": seldom,
            "save_every": seldom,
        }
    )


# --- minutes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """What pretraining takes on this machine: `start` seconds until it learns, then so many tokens a second."""

    start: float
    speed: float

    def seconds(self, tokens: float) -> float:
        """What so many tokens take."""
        return self.start + tokens / self.speed

    def tokens(self, seconds: float, context: int) -> float:
        """How many are learned in so many seconds, the reading of held-out text taken off: a third of the work each."""
        return (seconds - self.start) * self.speed - GLANCES * pretrain.GLANCE_ROWS * context / 3


def _fit(recipe: Recipe, minutes: float, vocab: int) -> Recipe:
    """The largest model that gets enough tokens in so many minutes of pretraining, and how many that are."""
    assert recipe.dial is not None
    if ranks.world() > 1:  # steps would wait for the other processes, which wait for orders
        raise RecipeError(
            "dial.minutes is measured by one process: start `palate run RECIPE --run RUN --until tokenize` without "
            "torchrun first, or set dial.size or dial.layers."
        )
    hardware, seconds = recipe.hardware, 60 * minutes
    here = open_device(hardware.model_copy(update={"compile": False}))
    shapes = [recipe.model] if recipe.model else [model(layers, recipe.dial.context) for layers in SIZES.values()]
    chosen, pace = shapes[0], measure(shapes[0], vocab, here, _enough(shapes[0], vocab))
    for larger in shapes[1:]:
        enough = _enough(larger, vocab)
        # A larger one comes nearer to the machine's ceiling, but never by this much.
        most = 2 * pace.speed * _flops(chosen, vocab) / _flops(larger, vocab)
        if most * seconds < enough:
            break
        slower = measure(larger, vocab, here, enough)
        if slower.tokens(seconds, larger.context) < enough:
            break
        chosen, pace = larger, slower
    if hardware.compile is None:
        hardware = hardware.model_copy(update={"compile": seconds > COMPILING and compiler(here.kind) is not None})
    if hardware.compile:
        here = open_device(hardware)
        measure(chosen, vocab, here, _enough(chosen, vocab))  # compiles it, which the stage then finds done
    pace = measure(chosen, vocab, here, pace.tokens(seconds, chosen.context))  # with the batch that it will have
    tokens = pace.tokens(seconds, chosen.context)
    shape = pretrain.shape(chosen, vocab)
    planned = training(shape, tokens)
    if tokens < 2 * planned.batch_rows * chosen.context:
        size, else_ = ("this [model]", " or make the model smaller") if recipe.model else ("the smallest size", "")
        raise RecipeError(
            f"dial.minutes = {minutes:g}: in that time this machine learns {max(0, tokens):,.0f} tokens with {size}, "
            f"less than two steps. Give it more minutes{else_}."
        )
    metrics.say(
        f"      the dial: {pace.speed:,.0f} tokens/s with {chosen.layers} layers ({shape.parameters / 1e6:.1f} M "
        f"parameters), {tokens / 1e6:.1f} M tokens in {minutes:g} minutes"
    )
    answer = {"pretrain": planned} if recipe.model else {"model": chosen, "pretrain": planned}
    return _answered(recipe.model_copy(update={"hardware": hardware}), **answer)


def _enough(settings: Model, vocab: int) -> float:
    """The tokens from which a model of this size is worth its time."""
    return float(LEAST_TOKENS_PER_PARAMETER * pretrain.shape(settings, vocab).parameters)


def _flops(settings: Model, vocab: int) -> int:
    return pretrain.shape(settings, vocab).flops_per_token(settings.context)


def measure(settings: Model, vocab: int, here: Device, tokens: float) -> Pace:
    """The pace of some real optimizer steps of a training on so many `tokens`; the tokens mean nothing."""
    began = time.perf_counter()
    network = pretrain.build(settings, vocab, seed=0)
    learner = Learner.make(OPTIMIZER, network, here, weight_decay=0.1)
    width = settings.context
    planned = training(network.shape, tokens)
    rows = planned.batch_rows
    at_once = make_room(network, time=width, device=here, at_most=planned.micro_tokens) // width
    ids = torch.randint(0, vocab, (rows, width), generator=generator("dial")).to(here.torch)
    batch = Packed(ids, ids, torch.ones(rows, width, device=ids.device), torch.ones_like(ids))
    micro = list(batch.split(at_once))
    step = partial(
        update, learner, micro, pretrain.objective(network), lr=0.0, max_norm=1.0, name="measuring the machine"
    )
    step()
    start = time.perf_counter() - began
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < MEASURED:
        again = time.perf_counter()
        step()
        taken.append(time.perf_counter() - again)
    return Pace(start, rows * width / statistics.median(taken))


# --- the whole recipe ------------------------------------------------------------------------------------------------


def machine(recipe: Recipe) -> Hardware:
    """The recipe's [hardware] with everything it leaves open filled in from this machine."""
    found = device.measure(recipe.hardware)
    if recipe.hardware.compile is None:
        found = found.model_copy(update={"compile": _compiling_pays(recipe, found)})
    return found


def _compiling_pays(recipe: Recipe, found: Hardware) -> bool:
    assert found.device and found.dtype
    shape = fresh_network(recipe)
    if shape is None or compiler(found.device) is None:
        return False
    tokens = training_tokens(recipe)
    work = tokens * shape.flops_per_token(shape.context)
    if work < COMPILING * SLOWEST:
        return False
    at_least = work / device.products_per_second(found.device, found.dtype) / ranks.world()
    if at_least > COMPILING or ranks.world() > 1:  # a step of one process alone would wait for the others
        return at_least > COMPILING
    return pace_of(recipe, found).seconds(tokens) > COMPILING


def pace_of(recipe: Recipe, found: Hardware) -> Pace:
    """How fast the recipe's network learns here before anything is compiled."""
    assert recipe.model and recipe.tokenize
    here = open_device(found.model_copy(update={"compile": False}))
    return measure(recipe.model, recipe.tokenize.vocab, here, pretraining_tokens(recipe))


def fresh_network(recipe: Recipe) -> Shape | None:
    """The network that the recipe trains from the start; None where it comes from elsewhere."""
    if recipe.pretrain is None or recipe.model is None or recipe.tokenize is None:
        return None
    return pretrain.shape(recipe.model, recipe.tokenize.vocab)


def pretraining_tokens(recipe: Recipe) -> int:
    """Tokens that pretraining learns from."""
    assert recipe.pretrain and recipe.model
    return recipe.pretrain.steps * recipe.pretrain.batch_rows * recipe.model.context


def training_tokens(recipe: Recipe) -> int:
    """Tokens that pretraining and SFT learn from, a row counted as full. How many there are after them is not known
    before there are rankings."""
    assert recipe.model
    after = recipe.sft.steps * recipe.sft.batch_rows * recipe.model.context if recipe.sft else 0
    return pretraining_tokens(recipe) + after
