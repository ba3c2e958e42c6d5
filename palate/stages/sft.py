"""Base + demonstrations -> assistant: predict what people wrote in the assistant's turns. The loop is `train`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from palate import metrics, ranks
from palate.batches.order import step_items
from palate.batches.packed import Packed, filled_up, pack
from palate.device import Device, generator, open_device, seeds
from palate.errors import BadInput, RecipeError
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.metrics import Metrics, Progress
from palate.nn.transformer import LanguageModel
from palate.objectives.next_token import next_token_loss
from palate.recipe import Recipe, Sft
from palate.records import Demonstration, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Encoded, Tokenizer
from palate.train import resume
from palate.train.distributed import gathered, share
from palate.train.memory import make_room
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, update
from palate.weights import adapter
from palate.weights import folder as weights
from palate.workspace import Workspace

SAMPLES = 10
SAMPLE_TOKENS = 128
WIDEST = 1024
"""Tokens of a packed row, unless a conversation is longer: attention costs the square of a row's width, and published
models read many thousand tokens."""


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `sft`: a Hugging Face folder, and samples.jsonl with answers to held-out prompts."""
    settings = recipe.sft
    assert settings is not None
    device = open_device(recipe.hardware)
    source = _start(settings, workspace)
    tokenizer = tokenizers.load(source)
    demonstrations = list(read_jsonl(workspace.read("demonstrations") / "demonstrations.jsonl", Demonstration))
    with workspace.publish() as folder:
        model = _open(recipe, source, workspace)
        room = model.shape.context + 1  # the last token is only predicted, never read
        encoded = {split: _encode(demonstrations, split, tokenizer, room) for split in ("train", "dev")}
        if not encoded["train"]:
            raise BadInput(
                f"no demonstration fits the context of {model.shape.context} tokens.",
                workspace.read("demonstrations"),
                "Write shorter ones or take a model that reads more.",
            )
        learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
        done, _ = resume.load(folder, {"sft": learner})
        log = Metrics(workspace.logs / "sft.jsonl", resume_after=done)

        def save(step: int) -> None:
            log.sync()
            resume.save(folder, step, {"sft": learner})

        train(
            learner, model, encoded["train"], encoded["dev"], settings, device, log, recipe.seed, done, tokenizer, save
        )
        with gathered(model):
            if ranks.leads():
                _write_samples(folder, model, demonstrations, tokenizer, device, recipe.seed)
        learner.whole()
        if ranks.leads():
            if recipe.lora is not None:
                adapter.save(folder / "adapter", model, base=workspace.read("base"))
                model = adapter.merged(model, workspace.read("base"))
            weights.save_language_model(folder, model, source, stops=tokenizer.stops, ids=tokenizer.ids)


def _start(settings: Sft, workspace: Workspace) -> Path:
    """The folder training starts from: the base model, or (start = "sft") the assistant of the run around this one."""
    if settings.start == "base":
        return workspace.read("base")
    if workspace.parent is None:
        raise RecipeError('sft.start = "sft" continues another run\'s assistant; only the control sft_continued does.')
    return workspace.parent.read("sft")


def _open(recipe: Recipe, source: Path, workspace: Workspace) -> LanguageModel:
    """What learns: the whole network in `source`, or adapters beside the base model: fresh, or those of `source`."""
    if recipe.lora is None:
        return weights.load_language_model(source)
    base = workspace.read("base")
    model = weights.load_language_model(base)
    if source != base:
        return adapter.beside(model, source / "adapter")
    rng = generator(recipe.seed, "adapters")
    return adapter.adapt(model, rank=recipe.lora.rank, alpha=recipe.lora.alpha, rng=rng)


def _encode(demonstrations: Sequence[Demonstration], split: str, tokenizer: Tokenizer, room: int) -> list[Encoded]:
    chats = (tokenizer.encode_chat(d.messages) for d in demonstrations if d.split == split)
    return [chat for chat in chats if len(chat.ids) <= room]


def _write_samples(
    folder: Path,
    model: LanguageModel,
    demonstrations: Sequence[Demonstration],
    tokenizer: Tokenizer,
    device: Device,
    seed: int,
) -> None:
    held_out = [d for d in demonstrations if d.split == "dev"][:SAMPLES]
    prompts = [tokenizer.encode_prompt(d.messages[:-1]) for d in held_out]
    fitting = [(d, p) for d, p in zip(held_out, prompts, strict=True) if len(p) < model.shape.context // 2]
    replies = generate(
        model,
        [p for _, p in fitting],
        Sampling(max_new_tokens=min(SAMPLE_TOKENS, model.shape.context // 2), stops=tokenizer.stops),
        seeds=seeds(len(fitting), seed, "sft samples"),
        device=device,
    )
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        for (demonstration, _), (reply,) in zip(fitting, replies, strict=True):
            line = {
                "prompt": demonstration.messages[-2].content,
                "person": demonstration.messages[-1].content,
                "model": tokenizer.decode(reply.ids),
                "ended": reply.ended,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


@torch.no_grad()
def held_out_loss(
    model: LanguageModel,
    chats: Sequence[Encoded],
    objective: Callable[[Packed], tuple[Tensor, Tensor]],
    *,
    pad: int,
    width: int,
    rows_at_once: int,
) -> float:
    """Mean loss in nats per assistant token of conversations no step has seen."""
    model.eval()
    losses, tokens = 0.0, 0.0
    for start in range(0, len(chats), 64):
        packed = pack([(c.ids, c.weights) for c in chats[start : start + 64]], width=width, pad=pad)
        for rows in packed.split(rows_at_once):
            loss, weight = objective(rows)
            losses, tokens = losses + loss.item(), tokens + weight.item()
    model.train()
    return losses / max(tokens, 1.0)


def train(
    learner: Learner,
    model: LanguageModel,
    chats: Sequence[Encoded],
    held_out: Sequence[Encoded],
    settings: Sft,
    device: Device,
    log: Metrics,
    seed: int,
    done: int,
    tokenizer: Tokenizer,
    save: Callable[[int], None],
) -> None:
    """The loop: conversations packed without seeing each other, loss on the assistant's tokens, one optimizer step."""
    longest = max(len(chat.ids) for chat in (*chats, *held_out)) - 1
    width = min(model.shape.context, max(longest, WIDEST))
    at_once = make_room(model, time=width, device=device, at_most=settings.micro_tokens)
    rows_at_once = at_once // width
    lr = schedule(settings.schedule, peak=settings.peak_lr, warmup=settings.warmup_steps, steps=settings.steps)

    def objective(rows: Packed) -> tuple[Tensor, Tensor]:
        rows = rows.to(device.torch)
        hidden = model.trunk(rows.ids, rows.segments).flatten(0, 1)
        targets, weights = rows.targets.flatten(), rows.weights.flatten()
        counted = weights.nonzero().squeeze(1)  # what users wrote and padding need no logits
        at = filled_up(counted)
        return next_token_loss(model.head(hidden[at]), targets[at], filled_up(weights[counted]))

    with Progress("sft", settings.steps, done=done) as progress:
        for tick in ticks(
            settings.steps, start=done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            chosen = step_items(count=len(chats), per_step=settings.batch_rows, step=tick.step, seed=seed)
            batch = pack([(chats[i].ids, chats[i].weights) for i in chosen], width=width, pad=tokenizer.pad)
            micro = batch.rows(share(range(len(batch.ids)))).split(rows_at_once)
            result = update(
                learner, micro, objective, lr=lr(tick.step), max_norm=settings.max_norm, name=f"sft {tick.step}"
            )
            log.log(tick.step, loss=result.loss, lr=lr(tick.step), grad_norm=result.grad_norm)
            if tick.evaluate and held_out:
                loss = held_out_loss(
                    model,
                    held_out,
                    objective,
                    pad=tokenizer.pad,
                    width=width,
                    rows_at_once=rows_at_once,
                )
                log.log(tick.step, held_out_loss=loss)
                if not tick.save and tick.step == settings.steps:
                    metrics.say(f"      held-out loss {loss:.3f} nats per token ({len(held_out)} conversations)")
            if tick.save:
                save(tick.step)
            progress.advance(note=f"loss {result.loss:.3f}")
