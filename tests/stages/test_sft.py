import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from palate import metrics
from palate.batches.packed import Packed, few_sizes, pack
from palate.device import Device, generator
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.recipe import Recipe
from palate.records import conversation
from palate.stages import sft
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.train.update import Learner
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
CPU = Device("cpu", torch.float32)
REPLIES = ("Try the soup.", "No, the stew.")
PROMPTS = ("Suggest a dinner.", "And for lunch?")


def test_it_learned_and_left_samples(small_run: Made) -> None:
    _, workspace = small_run
    lines = metrics.read(workspace.logs / "sft.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert any("held_out_loss" in line for line in lines)
    samples = (workspace.read("sft") / "samples.jsonl").read_text().splitlines()
    assert samples and set(json.loads(samples[0])) == {"prompt", "person", "model", "ended"}


def test_the_control_goes_on_from_the_assistant(small_run: Made) -> None:
    _, workspace = small_run
    control = Workspace(workspace.folder / "controls" / "sft_continued", parent=workspace)
    assert control.own("sft") and not control.own("base")
    first = metrics.read(control.logs / "sft.jsonl")[0]["loss"]
    assert first < metrics.read(workspace.logs / "sft.jsonl")[0]["loss"] - 0.5


class Stop(Exception):
    pass


def objective_of(
    model: LanguageModel, made: Made, patch: pytest.MonkeyPatch
) -> Callable[[Packed], tuple[Tensor, Tensor]]:
    """The objective that the stage's loop hands to `update`."""
    recipe, workspace = made
    tokenizer = tokenizers.load(workspace.read("sft"))
    seen: list[Callable[[Packed], tuple[Tensor, Tensor]]] = []

    def keep(learner: object, micro: object, objective: Callable[[Packed], tuple[Tensor, Tensor]], **_: object) -> None:
        seen.append(objective)
        raise Stop

    patch.setattr(sft, "update", keep)
    chats = [tokenizer.encode_chat(conversation("Hello.", "Good day."))]
    learner = Learner.make("adamw", model, CPU, weight_decay=0.0)
    with pytest.raises(Stop):
        sft.train(learner, model, chats, [], recipe.sft, CPU, None, 0, 0, tokenizer, print)  # type: ignore[arg-type]
    return seen[0]


def network(vocab: int) -> LanguageModel:
    shape = Shape(vocab=vocab, layers=2, dim=32, heads=2, kv_heads=2, hidden=64, context=64)
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("test"))
    return model


def packed(tokenizer: Tokenizer, *prompts: str) -> Packed:
    """One conversation of two turns, answered the same whatever the prompts are."""
    chat = tokenizer.encode_chat(conversation(prompts[0], REPLIES[0], prompts[1], REPLIES[1]))
    return pack([(chat.ids, chat.weights)], width=64, pad=tokenizer.pad)


def other_words(tokenizer: Tokenizer) -> tuple[str, str]:
    """Prompts of as many tokens as PROMPTS have, all of them different: letters that were never merged."""
    ids = [tokenizer.encode(prompt) for prompt in PROMPTS]
    first, second = (("QZXJ" * 16)[: len(prompt)] for prompt in ids)
    assert [len(tokenizer.encode(first)), len(tokenizer.encode(second))] == [len(prompt) for prompt in ids]
    return first, second


def gradients(model: LanguageModel, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


def test_what_counts_is_every_word_and_end_of_the_assistant(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    rows = packed(tokenizer, *PROMPTS)
    said = [[*tokenizer.encode(reply), tokenizer.end] for reply in REPLIES]
    assert rows.targets[rows.weights > 0].tolist() == said[0] + said[1]
    assert rows.weights.sum() == len(said[0]) + len(said[1]), "each of them once, with weight 1"


def test_other_prompts_change_no_loss_weight(small_run: Made) -> None:
    """Prompt text of the same length decides no weight: neither where they stand nor how much they are."""
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    one, two = packed(tokenizer, *PROMPTS), packed(tokenizer, *other_words(tokenizer))
    assert torch.equal(one.weights, two.weights) and torch.equal(one.segments, two.segments)
    told = [int(n) for n in (one.ids != two.ids).sum(dim=1)]
    assert told == [sum(len(tokenizer.encode(p)) for p in PROMPTS)]


def test_what_a_prompt_would_have_been_asked_for_is_never_learned(
    small_run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands as target where the weight is 0 (prompts, markers, padding): loss and gradients bit for bit."""
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    model = network(tokenizer.vocab)
    objective = objective_of(model, small_run, monkeypatch)
    rows = packed(tokenizer, *PROMPTS)
    rubbish = torch.randint(0, tokenizer.vocab, rows.targets.shape, generator=generator("rubbish"))
    results = []
    for given in (rows, replace(rows, targets=torch.where(rows.weights == 0, rubbish, rows.targets))):
        loss, weight = objective(given)
        results.append((loss.item(), weight.item(), gradients(model, loss)))
    assert results[0][:2] == results[1][:2]
    for name, gradient in results[0][2].items():
        assert torch.equal(gradient, results[1][2][name]), name


def test_what_fills_the_products_up_counts_for_nothing(small_run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits are made for a number of positions that is met often; loss, weight and gradients are those of all."""
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    model = network(tokenizer.vocab)
    chat = tokenizer.encode_chat(conversation(PROMPTS[0], REPLIES[0], PROMPTS[1], REPLIES[1]))
    rows = pack([(chat.ids, chat.weights)] * 3, width=64, pad=tokenizer.pad)
    counted = int((rows.weights > 0).sum())
    assert few_sizes(counted) > counted, "there is something to fill up"
    loss, weight = objective_of(model, small_run, monkeypatch)(rows)
    plain, every = next_token_loss(model(rows.ids, rows.segments), rows.targets, rows.weights)
    torch.testing.assert_close(loss, plain)
    assert weight == every == counted
    expected = gradients(model, plain)
    for name, gradient in gradients(model, loss).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_model_that_cannot_look_back_learns_the_same_from_any_prompt(
    small_run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt may act only through attention: what the assistant says is learned *given* the prompt. With attention's
    output at zero, loss and every gradient but that output's own are those of any other prompt; with attention they
    are not."""
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    model = network(tokenizer.vocab)
    objective = objective_of(model, small_run, monkeypatch)
    rows = [packed(tokenizer, *PROMPTS), packed(tokenizer, *other_words(tokenizer))]
    seeing = [objective(given)[0].item() for given in rows]
    assert seeing[0] != seeing[1]
    for block in model.trunk.blocks:
        block.attention.out.weight.data.zero_()
    losses = [objective(given)[0] for given in rows]
    assert losses[0].item() == losses[1].item()
    one, two = (gradients(model, loss) for loss in losses)
    for name in one:
        if not name.endswith("attention.out.weight"):
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-7, msg=name)
    assert not torch.equal(one["trunk.blocks.0.attention.out.weight"], two["trunk.blocks.0.attention.out.weight"])
