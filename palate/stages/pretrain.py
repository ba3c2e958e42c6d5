"""Token shards -> base model: predict the next token of the corpus. The loop is `train`, at the end."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from palate import metrics, ranks
from palate.batches.packed import Packed
from palate.batches.shards import Shard
from palate.device import Device, generator, open_device
from palate.measure.bits import bits_per_byte
from palate.metrics import Metrics, Progress
from palate.nn.config import Shape, swiglu_hidden
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.objectives.next_token import next_token_loss
from palate.recipe import Model, Pretrain, Recipe
from palate.text import tokenizer as tokenizers
from palate.train import resume
from palate.train.distributed import share
from palate.train.memory import make_room
from palate.train.schedule import schedule
from palate.train.ticks import ticks
from palate.train.update import Learner, update
from palate.weights import folder as weights
from palate.workspace import Workspace

GLANCE_ROWS = 64
"""Held-out rows read while training; the report reads all of them."""


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `base`: a Hugging Face folder of the trained model."""
    settings, model_settings = recipe.pretrain, recipe.model
    assert settings is not None and model_settings is not None
    device = open_device(recipe.hardware)
    tokens = workspace.read("tokens")
    tokenizer = tokenizers.load(tokens)
    train_rows, held_out = Shard(tokens, "train"), Shard(tokens, "val")
    with workspace.publish() as folder:
        model = build(model_settings, tokenizer.vocab, recipe.seed)
        learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
        done, _ = resume.load(folder, {"base": learner})
        log = Metrics(workspace.logs / "pretrain.jsonl", resume_after=done)
        metrics.say(
            f"      {model.shape.parameters / 1e6:.2f} M parameters, "
            f"{settings.steps * settings.batch_rows * model.shape.context / 1e6:.1f} M tokens in {settings.steps} "
            f"steps; the corpus has {train_rows.size / 1e6:.2f} M"
        )

        def save(step: int) -> None:
            log.sync()
            resume.save(folder, step, {"base": learner})

        train(learner, model, train_rows, held_out, settings, device, log, recipe.seed, done, save)
        learner.whole()
        if ranks.leads():
            weights.save_language_model(folder, model, tokens, stops=tokenizer.stops, ids=tokenizer.ids)


def shape(settings: Model, vocab: int) -> Shape:
    """The recipe's shape."""
    return Shape(
        vocab=vocab,
        layers=settings.layers,
        dim=settings.dim,
        heads=settings.heads,
        kv_heads=settings.kv_heads or settings.heads,
        hidden=settings.hidden or swiglu_hidden(settings.dim),
        context=settings.context,
        rope_theta=settings.rope_theta,
        tied=settings.tied,
    )


def build(settings: Model, vocab: int, seed: int) -> LanguageModel:
    """A fresh network of the recipe's shape."""
    model = LanguageModel(Trunk(shape(settings, vocab)))
    initialise(model, model.shape, generator(seed, "initial weights"))
    return model


def objective(model: LanguageModel) -> Callable[[Packed], tuple[Tensor, Tensor]]:
    """The summed loss of rows, and over how many tokens."""

    def loss(rows: Packed) -> tuple[Tensor, Tensor]:
        return next_token_loss(model(rows.ids, rows.segments), rows.targets, rows.weights)

    return loss


def train(
    learner: Learner,
    model: LanguageModel,
    shard: Shard,
    held_out: Shard,
    settings: Pretrain,
    device: Device,
    log: Metrics,
    seed: int,
    done: int,
    save: Callable[[int], None],
) -> None:
    """The loop: rows of packed documents, next-token loss, one optimizer step."""
    width = model.shape.context
    rows_at_once = make_room(model, time=width, device=device, at_most=settings.micro_tokens) // width
    lr = schedule(settings.schedule, peak=settings.peak_lr, warmup=settings.warmup_steps, steps=settings.steps)

    with Progress("pretrain", settings.steps, done=done) as progress:
        for tick in ticks(
            settings.steps, start=done, evaluate_every=settings.evaluate_every, save_every=settings.save_every
        ):
            first = (tick.step - 1) * settings.batch_rows
            batch = shard.rows(share(range(first, first + settings.batch_rows)), width=width, seed=seed)
            micro = batch.to(device.torch).split(rows_at_once)
            result = update(
                learner,
                micro,
                objective(model),
                lr=lr(tick.step),
                max_norm=settings.max_norm,
                name=f"pretrain {tick.step}",
            )
            log.log(tick.step, loss=result.loss, lr=lr(tick.step), grad_norm=result.grad_norm)
            if tick.evaluate:
                bits = bits_per_byte(model, held_out, device, width=width, most_rows=GLANCE_ROWS)
                log.log(tick.step, held_out_bits_per_byte=bits)
            if tick.save:
                save(tick.step)
            progress.advance(note=f"loss {result.loss:.3f}")
