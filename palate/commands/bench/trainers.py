"""The contestants of `palate bench preferences`, each in a process of its own: the stage `reward`'s loop, and TRL's
RewardTrainer. Both learn from the same people, and write down how they score the answers they are asked to read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from palate.align.heads import OUTPUTS
from palate.batches.rankings import Group
from palate.commands.bench import peers, people
from palate.commands.bench.worker import Turns
from palate.device import Device, generator, open_device
from palate.generate.replies import score_all
from palate.metrics import Metrics
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.recipe import Hardware, Reward, Sft
from palate.stages import reward, sft
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Encoded
from palate.train.update import Learner
from palate.weights import folder as weights
from palate.workspace import FOLDERS

NEVER = 10**9
HARDWARE = Hardware(compile=False, threads=1)
"""One thread each: several people may work on the machine."""
AT_ONCE = 64
"""Answers that TRL's model reads at once, afterwards."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How one of them trains: a step sees `questions` of them, or as many pairs as these have in the mean."""

    trainer: str
    """A function of this module."""
    lr: float = 3e-4
    epochs: int = 2
    questions: int = 16
    warmup: int = 10
    weight_decay: float = 0.01
    pooling: str = "mean"
    """Of ours; LlamaForSequenceClassification reads the last token."""
    model: str = "sft"
    """Which model of the backbone's it starts from."""
    demonstrations: int = 0
    """Of ours: steps of SFT on the best answers of the questions it is trained on, before it learns to compare."""
    reply: int = people.REPLY
    """The first tokens of an answer, which are all that the network reads."""
    form: str = "whole"
    """Rankings as they are, all their pairs one by one ("pairs"), or one pair of each ("one")."""
    seed: int = 0
    slice: int = 10
    """Optimizer steps in one turn."""


@dataclass(frozen=True)
class Lesson:
    """What is read in which portions."""

    examples: list[Group]
    epochs: int
    portion: int
    """Examples in one step."""
    pairs: int
    """In one step, in the mean."""

    @property
    def steps(self) -> int:
        """Optimizer steps, as the stage `reward` counts them."""
        return max(1, self.epochs * len(self.examples) // self.portion)

    @property
    def answers(self) -> int:
        """How many are read: passes through the network."""
        return self.epochs * sum(len(group.reply_ids) for group in self.examples)


def lesson(members: Sequence[Group], entry: Entry) -> Lesson:
    """The examples in their form. All pairs one by one are as many steps as the rankings, and read more answers; one
    pair of each is about as many answers as the rankings in more, smaller steps."""
    every = people.pairs(members)
    mean = max(1, round(len(every) / len(members) * entry.questions))
    if entry.form == "pairs":
        return Lesson(every, entry.epochs, mean, mean)
    if entry.form == "one":
        answers = sum(len(group.reply_ids) for group in members)
        epochs = max(1, round(entry.epochs * answers / (2 * len(members))))
        return Lesson(people.one_pair(members, entry.seed), epochs, entry.questions, entry.questions)
    return Lesson(list(members), entry.epochs, entry.questions, mean)


def _open(entry: Entry, data: str, run: str, fold: int, read: str) -> tuple[Path, list[Group], list[Group], int]:
    """(the backbone's folder, what is trained on, what is read afterwards, the PAD id)."""
    folder = Path(run) / FOLDERS[entry.model]
    tokenizer = tokenizers.load(folder)
    parts = people.splits(people.read(Path(data), tokenizer, reply=entry.reply))
    return folder, people.training(parts, fold), parts[read], tokenizer.pad


def _write(target: str, groups: Sequence[Group], flat: Sequence[float]) -> None:
    """Per question the scores of its answers."""
    scores = iter(flat)
    Path(target).write_text(json.dumps([[next(scores) for _ in group.reply_ids] for group in groups]), encoding="utf-8")


class Sliced(Metrics):
    """The stage's log, which ends a turn with every so many steps; what it reads at the end is no step."""

    def __init__(self, path: Path, turns: Turns, steps: int) -> None:
        super().__init__(path)
        self._turns, self._steps = turns, steps

    def log(self, step: int, **values: float | int | str) -> None:
        """As in every run; then, perhaps, the next contestant's turn."""
        super().log(step, **values)
        if "loss" in values and step % self._steps == 0:
            self._turns()


def ours(turns: Turns, *, entry: Mapping[str, Any], data: str, run: str, fold: int, read: str, target: str) -> None:
    """The stage's own loop; a turn is a slice of it, and the last one reads."""
    told = Entry(**entry)
    folder, members, asked, pad = _open(told, data, run, fold, read)
    device = open_device(HARDWARE)
    work = lesson(members, told)
    settings = Reward.model_validate(
        {
            "epochs": work.epochs,
            "batch_prompts": work.portion,
            "peak_lr": told.lr,
            "schedule": "linear",
            "warmup_steps": told.warmup,
            "weight_decay": told.weight_decay,
            "pooling": told.pooling,
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    seed = 1 + fold + people.FOLDS * told.seed
    language = weights.load_language_model(folder)
    if told.demonstrations:
        _imitate(language, members, told, device, tokenizers.load(folder), seed)
    model = ScalarModel(language.trunk, len(OUTPUTS), generator(seed, "score head"))
    learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
    with tempfile.TemporaryDirectory() as name:
        log = Sliced(Path(name) / "reward.jsonl", turns, told.slice)
        turns()
        reward.train(
            learner, model, work.examples, work.examples[:1], settings, device, log, seed, 0, pad, lambda step: None
        )
    flat = score_all(
        model,
        [group.prompt_ids for group in asked for _ in group.reply_ids],
        [ids for group in asked for ids in group.reply_ids],
        pooling=told.pooling,
        pad=pad,
        device=device,
        rows=AT_ONCE,
    )
    _write(target, asked, flat[:, -1].tolist())
    turns()


def _imitate(
    model: LanguageModel,
    members: Sequence[Group],
    told: Entry,
    device: Device,
    tokenizer: tokenizers.Tokenizer,
    seed: int,
) -> None:
    """SFT on what people preferred: of every question the answer that loses to none of the others."""
    chats = []
    for group in members:
        losers = {worse for _, worse in people.decided_pairs(group)}
        best = next((ids for i, ids in enumerate(group.reply_ids) if i not in losers), group.reply_ids[0])
        chats.append(Encoded((*group.prompt_ids, *best), (0,) * len(group.prompt_ids) + (1,) * len(best)))
    settings = Sft.model_validate(
        {
            "steps": told.demonstrations,
            "batch_rows": told.questions,
            "peak_lr": told.lr,
            "schedule": "linear",
            "warmup_steps": told.warmup,
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    learner = Learner.make(settings.optimizer, model, device, weight_decay=settings.weight_decay)
    with tempfile.TemporaryDirectory() as name:
        log = Metrics(Path(name) / "sft.jsonl")
        sft.train(learner, model, chats, [], settings, device, log, seed, 0, tokenizer, lambda step: None)
    learner.whole()


def theirs(turns: Turns, *, entry: Mapping[str, Any], data: str, run: str, fold: int, read: str, target: str) -> None:
    """RewardTrainer's own loop on every pair that counts, at its fastest that loses nothing: in float32, without
    computing activations twice, pairs of similar length together (at random, its default, most of a batch is padding).
    """
    datasets, transformers, trl = map(peers.library, ("datasets", "transformers", "trl"))
    told = Entry(**entry)
    folder, members, asked, pad = _open(told, data, run, fold, read)
    device = open_device(HARDWARE).torch
    work = lesson(members, told)
    seed = 1 + fold + people.FOLDS * told.seed
    torch.manual_seed(seed)
    pairs = [
        {
            "chosen_ids": [*group.prompt_ids, *group.reply_ids[better]],
            "rejected_ids": [*group.prompt_ids, *group.reply_ids[worse]],
            "length": len(group.prompt_ids) + max(len(group.reply_ids[better]), len(group.reply_ids[worse])),
        }
        for group in members
        for better, worse in people.decided_pairs(group)
    ]

    class Slices(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % told.slice == 0:
                turns()

    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as name:
        trainer = trl.RewardTrainer(
            model=network,
            args=trl.RewardConfig(
                output_dir=name,
                seed=seed,
                bf16=False,
                use_cpu=not torch.cuda.is_available(),
                per_device_train_batch_size=work.pairs,
                max_steps=work.steps,
                learning_rate=told.lr,
                lr_scheduler_type="linear",
                warmup_steps=min(told.warmup, work.steps // 2),
                weight_decay=told.weight_decay,
                gradient_checkpointing=False,
                train_sampling_strategy="group_by_length",
                remove_unused_columns=False,  # or it would not see the lengths
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
            train_dataset=datasets.Dataset.from_list(pairs),
            callbacks=[Slices()],
        )
        turns()
        trainer.train()
    rows = [[*group.prompt_ids, *ids] for group in asked for ids in group.reply_ids]
    _write(target, asked, _read(network.eval(), rows, pad, device))
    turns()


@torch.no_grad()
def _read(network: Any, rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> list[float]:
    """Its scores of rows of ids, those of similar length together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    flat = [0.0] * len(rows)
    for start in range(0, len(order), AT_ONCE):
        part = order[start : start + AT_ONCE]
        width = max(len(rows[i]) for i in part)
        ids = torch.tensor([[*rows[i], *[pad] * (width - len(rows[i]))] for i in part], device=device)
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in part], device=device)
        for i, score in zip(part, network(input_ids=ids, attention_mask=mask).logits.squeeze(-1).tolist(), strict=True):
            flat[i] = score
    return flat
