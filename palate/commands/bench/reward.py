"""`palate bench reward`: one epoch of reward-model training on rankings of four answers, against TRL's RewardTrainer.

Both see the same prompts, answers and pairs, as many pairs in a step, from the same backbone. We read each answer once
and compare all of one prompt's (Ouyang et al. 2022, section 3.5); TRL takes the six pairs of four answers as six rows
of two. Ours is the stage `reward`'s own loop.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from palate.align.heads import OUTPUTS
from palate.batches.rankings import Group
from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS, Record
from palate.commands.bench.worker import Paced, Turns
from palate.device import generator, open_device
from palate.nn.config import Shape
from palate.nn.transformer import ScalarModel, Trunk, initialise
from palate.recipe import Hardware, Reward
from palate.records import CRITERIA, Message, Prompt, Response
from palate.stages import reward
from palate.train.update import Learner

NEVER = 10**9
LR = 1e-4
HOW = "`make .venv-trl/ready`, then `.venv-trl/bin/python -m palate.cli bench reward`"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`prompts` of `prompt` tokens, each with `answers` of `shortest` to `longest`; `prompts_per_step` in one step."""

    layers: int = 4
    dim: int = 256
    heads: int = 4
    hidden: int = 704
    vocab: int = 2048
    prompts: int = 64
    prompts_per_step: int = 16
    prompt: int = 32
    answers: int = 4
    shortest: int = 16
    longest: int = 48

    @property
    def shape(self) -> Shape:
        """Of the backbone."""
        return Shape(
            vocab=self.vocab,
            layers=self.layers,
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.heads,
            hidden=self.hidden,
            context=2 * (self.prompt + self.longest),
        )

    @property
    def pairs(self) -> int:
        """Of one prompt's answers."""
        return self.answers * (self.answers - 1) // 2

    def rankings(self) -> list[tuple[list[int], list[list[int]]]]:
        """(prompt ids, answers' ids, best first) with random ids, never 0 (BOS, EOS and padding of the peer)."""
        rng = random.Random("bench")

        def ids(length: int) -> list[int]:
            return [rng.randrange(1, self.vocab) for _ in range(length)]

        return [
            (ids(self.prompt), [ids(rng.randint(self.shortest, self.longest)) for _ in range(self.answers)])
            for _ in range(self.prompts)
        ]


def main(target: Path | None, repeats: int) -> None:
    """Measure. Raises Unsupported where TRL is not installed."""
    harness.need("trl", HOW)
    result = {"bench": "reward", "machine": harness.machine(), "repeats": repeats, **measure(Workload(), repeats)}
    harness.publish(result, target)


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    """Seconds of an epoch for each, and how many times faster ours is."""
    plain = asdict(workload)
    orders: dict[str, harness.Order] = {OURS: (f"{__name__}:ours", {"workload": plain})}
    for variant in peers.TRL_VARIANTS:
        orders[f"trl_{variant}"] = (f"{__name__}:trl", {"workload": plain, "variant": variant})
    with harness.workers(orders) as contestants:
        records = harness.take_turns(contestants, repeats)
    theirs = {name: record for name, record in records.items() if name != OURS}
    return {
        "workload": {**plain, "pairs": workload.pairs * workload.prompts},
        "contestants": {name: _told(record) for name, record in records.items()},
        "times_faster": {
            f"trl_{kind}": {"peer": peer, **harness.times_faster(records[OURS], theirs[peer])}
            for kind, peer in (("default", "trl_default"), ("fastest", harness.fastest(theirs)))
        },
    }


def _told(record: Record) -> dict[str, float]:
    return {
        "seconds": round(record.seconds, 3),
        "peak_mb": round(record.peak_mb),
        "warm_up_seconds": round(record.warm_up, 1),
    }


# --- contestants: each in a process of its own ------------------------------------------------------------------------


def groups(workload: Workload) -> list[Group]:
    """The rankings as the stage reads them: every pair judged once, no scores of criteria."""
    size = range(workload.answers)
    table = tuple(tuple(float(i < j) for j in size) for i in size)  # best first, each pair once
    members = []
    for number, (prompt, answers) in enumerate(workload.rankings()):
        name = str(number)
        members.append(
            Group(
                prompt=Prompt(id=name, messages=(Message(role="user", content=name),), family=name),
                responses=tuple(Response(id=f"{name}-{i}", prompt_id=name, text="") for i in size),
                prompt_ids=tuple(prompt),
                reply_ids=tuple(tuple(answer) for answer in answers),
                targets=table,
                counted=table,
                labels=((None,) * len(CRITERIA),) * workload.answers,
            )
        )
    return members


def ours(turns: Turns, *, workload: Mapping[str, Any]) -> None:
    """The stage's own loop; a turn is one epoch."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=False))
    settings = Reward.model_validate(
        {
            "epochs": NEVER,
            "batch_prompts": work.prompts_per_step,
            "peak_lr": LR,
            "schedule": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.0,
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    model = ScalarModel(Trunk(work.shape), len(OUTPUTS), generator("score head"))
    initialise(model.trunk, work.shape, generator("trunk"))
    learner = Learner.make("adamw", model, device, weight_decay=settings.weight_decay)
    members = groups(work)
    with tempfile.TemporaryDirectory() as name:
        log = Paced(Path(name) / "reward.jsonl", turns, every=work.prompts // work.prompts_per_step)
        turns()
        reward.train(learner, model, members, members[:1], settings, device, log, 0, 0, 0, lambda step: None)


def trl(turns: Turns, *, workload: Mapping[str, Any], variant: str) -> None:
    """RewardTrainer's own loop with its defaults but for what makes the work the same; a turn is one epoch."""
    datasets, transformers, theirs = map(peers.library, ("datasets", "transformers", "trl"))
    work = Workload(**workload)
    open_device(Hardware(compile=False))
    torch.manual_seed(0)
    pairs = [
        {"chosen_ids": prompt + better, "rejected_ids": prompt + worse}
        for prompt, answers in work.rankings()
        for better, worse in combinations(answers, 2)
    ]

    class Epochs(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            turns()

    config = peers.llama_config(work.shape, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_labels=1)
    with tempfile.TemporaryDirectory() as name:
        trainer = theirs.RewardTrainer(
            model=transformers.LlamaForSequenceClassification(config).to(peers.trl_dtype(variant)),
            args=theirs.RewardConfig(
                output_dir=name,
                bf16=variant == "bf16",
                use_cpu=not torch.cuda.is_available(),
                per_device_train_batch_size=work.pairs * work.prompts_per_step,
                num_train_epochs=10**6,
                learning_rate=LR,
                lr_scheduler_type="constant",
                gradient_checkpointing=variant == "default",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            processing_class=peers.tokenizer(work.vocab),
            train_dataset=datasets.Dataset.from_list(pairs),
            callbacks=[Epochs()],
        )
        turns()
        trainer.train()
