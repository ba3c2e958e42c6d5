"""The dial: what follows from it, what stays, and what it refuses."""

import time
from pathlib import Path
from typing import Any

import pytest

from palate import device, dial, flow
from palate import recipe as recipes
from palate.batches.packed import Packed
from palate.device import open_device
from palate.errors import RecipeError
from palate.nn.config import Shape
from palate.recipe import Model, Recipe
from palate.stages import pretrain
from palate.train.update import Learner, Update

PLAIN = 'name = "dialled"\n[tokenize]\nvocab = 600\n[hardware]\ndevice = "cpu"\ndtype = "float32"\nthreads = 1\n'
OWN_MODEL = "[model]\nlayers = 1\ndim = 32\nheads = 1\ncontext = 32\n"
OWN_PRETRAIN = "[pretrain]\nsteps = 7\npeak_lr = 1e-2\nwarmup_steps = 1\n"


def recipe(text: str, *overrides: str) -> Recipe:
    return recipes.parse(PLAIN + text, "here", overrides)


@pytest.mark.parametrize(("turned", "layers"), [('size = "micro"', 2), ("layers = 5", 5)])
def test_a_size_gives_the_shape_and_the_training(turned: str, layers: int) -> None:
    made = dial.resolve(recipe(f"[dial]\n{turned}\ncontext = 64"), None)
    assert made.model and made.pretrain and made.dial
    assert (made.model.layers, made.model.dim, made.model.heads, made.model.context) == (
        layers,
        64 * layers,
        layers,
        64,
    )
    shape = pretrain.shape(made.model, 600)
    tokens = made.pretrain.steps * made.pretrain.batch_rows * 64
    assert tokens == pytest.approx(20 * shape.parameters, rel=0.01)
    assert made.dial.gave == ("model", "pretrain")
    assert recipes.parse(recipes.dump(made), "dumped") == made


def test_a_long_training_takes_more_tokens_a_step() -> None:
    shape = pretrain.shape(dial.model(2, 256), 600)
    short, long = dial.training(shape, 1e6), dial.training(shape, 2e8)
    assert short.batch_rows * 256 == 2048 and short.steps == 488
    assert long.batch_rows * 256 == 20480 and long.steps == 9766
    assert all(made.warmup_steps < made.steps for made in (short, long, dial.training(shape, 1.0)))


def test_a_training_of_ones_own_stays() -> None:
    made = dial.resolve(recipe("[dial]\nlayers = 1\n" + OWN_PRETRAIN), None)
    assert made.model and made.pretrain and made.dial
    assert made.pretrain.steps == 7 and made.model.layers == 1
    assert made.dial.gave == ("model",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[dial]\n", "one of size, layers and minutes"),
        ("[dial]\nlayers = 2\nminutes = 1.0\n", "one of size, layers and minutes"),
        ("[dial]\nlayers = 2\n" + OWN_MODEL, r"\[model\] says what \[dial\]"),
        ("[dial]\nminutes = 1.0\n" + OWN_PRETRAIN, r"\[pretrain\] says what \[dial\]"),
        ('[dial]\nlayers = 2\n[base]\nfolder = "x"\n', r"\[base\] and \[dial\]"),
        ("[dial]\nlayers = 2\ncontext = 64\n[sample]\nmax_new_tokens = 64\n", r"dial\.context = 64"),
    ],
)
def test_contradictions_are_refused(text: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe(text)


def test_it_needs_a_vocabulary() -> None:
    with pytest.raises(RecipeError, match=r"needs a \[tokenize\]"):
        recipes.parse("[dial]\nlayers = 2\n", "here")


# --- what followed once stays -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A machine that does exactly so many operations a second, and counts how often it is measured."""
    told = {"flops": 2e10, "start": 1.0, "asked": 0.0}

    def measure(settings: Model, vocab: int, device: object, tokens: float) -> dial.Pace:
        told["asked"] += 1
        shape: Shape = pretrain.shape(settings, vocab)
        return dial.Pace(told["start"], told["flops"] / shape.flops_per_token(shape.context))

    monkeypatch.setattr(dial, "measure", measure)
    return told


def test_minutes_choose_the_largest_model_that_gets_enough_tokens(machine: dict[str, float]) -> None:
    layers = []
    for minutes in (0.1, 60.0, 300.0, 600.0):
        made = dial.resolve(recipe(f"[dial]\nminutes = {minutes}", "hardware.compile=false"), None)
        assert made.model and made.pretrain
        shape = pretrain.shape(made.model, 600)
        tokens = made.pretrain.steps * made.pretrain.batch_rows * shape.context
        glances = dial.GLANCES * pretrain.GLANCE_ROWS * shape.context / 3
        seconds = (tokens + glances) * shape.flops_per_token(shape.context) / machine["flops"] + machine["start"]
        assert seconds == pytest.approx(60 * minutes, rel=0.02 if minutes > 1 else 0.2)
        assert made.model.layers == 1 or tokens >= dial.LEAST_TOKENS_PER_PARAMETER * shape.parameters * 0.99
        larger = next((s for n in dial.SIZES.values() if n > made.model.layers for s in [dial.model(n, 256)]), None)
        if larger:
            bigger = pretrain.shape(larger, 600)
            there = machine["flops"] / bigger.flops_per_token(256) * 60 * minutes
            assert there < 1.1 * dial.LEAST_TOKENS_PER_PARAMETER * bigger.parameters + glances
        layers.append(made.model.layers)
    assert layers == sorted(layers) and layers[0] < layers[1] < layers[2]


def test_minutes_with_a_model_of_ones_own(machine: dict[str, float]) -> None:
    made = dial.resolve(recipe("[dial]\nminutes = 1.0\n" + OWN_MODEL, "hardware.compile=false"), None)
    assert made.model and made.model.dim == 32 and made.pretrain and made.dial
    assert made.dial.gave == ("pretrain",) and machine["asked"] == 2
    machine["flops"] = 1.0
    with pytest.raises(RecipeError, match=r"learns 0 tokens with this \[model\], less than two steps"):
        dial.resolve(recipe("[dial]\nminutes = 1.0\n" + OWN_MODEL, "hardware.compile=false"), None)
    with pytest.raises(RecipeError, match=r"with the smallest size, less than two steps. Give it more minutes\.$"):
        dial.resolve(recipe("[dial]\nminutes = 1.0", "hardware.compile=false"), None)


def test_a_run_keeps_what_was_measured_until_the_dial_is_turned(machine: dict[str, float], tmp_path: Path) -> None:
    asked = recipe("[dial]\nminutes = 1.0", "hardware.compile=false")
    first, _ = flow.open_run(asked, tmp_path)
    machine["flops"] *= 3  # the machine is less busy now
    assert flow.open_run(asked, tmp_path)[0] == first, "the recipe again"
    assert flow.reopen(tmp_path)[0] == first, "the run again"
    assert flow.reopen(tmp_path, ["seed=3"])[0] == first.model_copy(update={"seed": 3}), "another key"
    turned, _ = flow.reopen(tmp_path, ["dial.minutes=2.0"])
    assert turned.pretrain and first.pretrain and turned.pretrain.steps > first.pretrain.steps
    assert turned == flow.reopen(tmp_path)[0]


def test_what_a_person_changes_is_theirs(machine: dict[str, float], tmp_path: Path) -> None:
    first, _ = flow.open_run(recipe("[dial]\nminutes = 1.0", "hardware.compile=false"), tmp_path)
    changed, _ = flow.reopen(tmp_path, ["pretrain.steps=1100"])
    assert changed.dial is None and changed.pretrain and changed.pretrain.steps == 1100
    assert changed.model == first.model
    assert flow.reopen(tmp_path)[0] == changed


def test_a_copied_recipe_does_the_same_on_another_machine(machine: dict[str, float], tmp_path: Path) -> None:
    first, _ = flow.open_run(recipe("[dial]\nminutes = 1.0", "hardware.compile=false"), tmp_path / "one")
    machine["flops"] *= 3
    copied = recipes.load(tmp_path / "one" / flow.RECIPE)
    assert flow.open_run(copied, tmp_path / "other")[0] == first


def test_the_machine_is_measured_by_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the batch of the training, the first step apart; the clock goes on by a second in each."""
    now, rows, step = [0.0], [], dial.update

    def timed(learner: Learner, micro: list[Packed], *rest: Any, **named: Any) -> Update:
        now[0] += 1.0
        rows.append(sum(len(part.ids) for part in micro))
        return step(learner, micro, *rest, **named)

    monkeypatch.setattr(dial, "update", timed)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    device = open_device(recipe("").hardware.model_copy(update={"compile": False, "memory_gib": 8.0}))
    pace = dial.measure(dial.model(1, 64), 600, device, 8e6)
    assert rows == [64, 64, 64, 64], "twice 2,048 tokens, as training on 8 million takes"
    assert pace == dial.Pace(1.0, 4096.0)


def test_minutes_are_measured_by_one_process_alone(
    machine: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of several would wait for the others, which wait for orders. What one has planned they may run."""
    asked = recipe("[dial]\nminutes = 1.0", "hardware.compile=false")
    monkeypatch.setattr("palate.ranks.world", lambda: 2)
    with pytest.raises(RecipeError, match="one process"):
        flow.open_run(asked, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(dial, "measure", lambda *_: dial.Pace(1.0, 1e4))
    planned, _ = flow.open_run(asked, tmp_path)
    monkeypatch.setattr("palate.ranks.world", lambda: 2)
    assert flow.open_run(asked, tmp_path)[0] == planned


# --- the whole recipe ------------------------------------------------------------------------------------------------


def test_tokens_that_are_learned_from() -> None:
    kitchen = recipes.load(Path("recipes/kitchen.toml"))
    assistant = 420 * 16 * 160 + 320 * 32 * 160
    assert dial.pretraining_tokens(kitchen) == 420 * 16 * 160
    assert dial.training_tokens(kitchen) == assistant
    assert dial.training_tokens(kitchen.model_copy(update={"sft": None})) == 420 * 16 * 160
    assert dial.fresh_network(kitchen.model_copy(update={"pretrain": None})) is None


@pytest.mark.parametrize(
    ("speed", "products", "compiler", "ranks", "compiled"),
    [
        (8_000.0, 1e12, "g++", 1, True),
        (8_000.0, 1e12, None, 1, False),
        (100_000.0, 1e12, "g++", 1, False),
        (1e12, 4e10, "g++", 1, True),  # longer than it pays even at the speed of products: nothing is timed
        (1.0, 4e10, "g++", 2, False),  # and of several processes none times a step
    ],
)
def test_blocks_are_compiled_when_training_is_long_and_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, speed: float, products: float, compiler: str | None, ranks: int, *, compiled: bool
) -> None:
    monkeypatch.setattr(dial, "compiler", lambda kind: compiler)
    monkeypatch.setattr(dial.ranks, "world", lambda: ranks)
    monkeypatch.setattr(device, "products_per_second", lambda kind, dtype: products)
    monkeypatch.setattr(dial, "measure", lambda *_: dial.Pace(1.0, speed))
    own = ("hardware.device=cpu", "hardware.dtype=float32", "hardware.threads=1")
    kitchen = recipes.load(Path("recipes/kitchen.toml"), list(own))
    assert dial.machine(kitchen).compile is compiled
    told = recipes.load(Path("recipes/kitchen.toml"), [*own, f"hardware.compile={str(not compiled).lower()}"])
    assert dial.machine(told).compile is not compiled, "the recipe's word counts"
    assert dial.machine(kitchen.model_copy(update={"pretrain": None})).compile is False, "the network is another's"
    assert dial.machine(kitchen.model_copy(update={"sft": None})).compile is False, "a third of it"
