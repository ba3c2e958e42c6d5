"""`palate bench ppo`: one PPO update against TRL's, which was taken out of its releases after 1.9.2.

A rollout of 64 prompts, one reply each, then 4 epochs over it with a critic of its own: generation, log-probs under
policy and reference, scores, values, advantages, optimizer steps. Ours is the stage `ppo`'s own loop, theirs is
PPOTrainer's. No reply ends early on either side. Told are the whole update and what of it is generation.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from palate.align import rollout
from palate.align.limit import Limit
from palate.align.session import Session
from palate.commands.bench import harness, peers
from palate.commands.bench.harness import OURS, Record, Turn
from palate.commands.bench.worker import Paced, Turns
from palate.device import generator, open_device
from palate.generate.replies import reply_scores
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, initialise
from palate.recipe import Hardware, Ppo
from palate.stages import ppo
from palate.train.update import Learner

P = ParamSpec("P")
R = TypeVar("R")

NEVER = 10**9
LR = 1e-4
MORE = 4
"""Times as many prompts as one rollout needs."""
HOW = "`make .venv-trl/ready`, then `.venv-trl/bin/python -m palate.cli bench ppo`"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One update: `rows` prompts of `prompt` tokens, `reply` new ones each, `epochs` over all of them at once."""

    layers: int = 4
    dim: int = 256
    heads: int = 4
    hidden: int = 704
    vocab: int = 2048
    rows: int = 64
    prompt: int = 32
    reply: int = 48
    epochs: int = 4

    @property
    def shape(self) -> Shape:
        """Of policy, reference, critic and reward model alike."""
        return Shape(
            vocab=self.vocab,
            layers=self.layers,
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.heads,
            hidden=self.hidden,
            context=2 * (self.prompt + self.reply),
        )

    def prompts(self) -> list[list[int]]:
        """Random ids, never 0 (BOS, EOS and padding of the peer)."""
        size = (MORE * self.rows, self.prompt)
        ids: list[list[int]] = torch.randint(1, self.vocab, size, generator=generator("bench")).tolist()
        return ids


def main(target: Path | None, repeats: int) -> None:
    """Measure. Raises Unsupported where TRL is not installed."""
    harness.need("trl", HOW)
    result = {"bench": "ppo", "machine": harness.machine(), "repeats": repeats, **measure(Workload(), repeats)}
    harness.publish(result, target)


def measure(workload: Workload, repeats: int) -> dict[str, Any]:
    """Seconds of an update and of its parts for each, and how many times faster ours is."""
    plain = asdict(workload)
    own = {OURS: False, f"{OURS}_compiled": True}
    orders: dict[str, harness.Order] = {
        name: (f"{__name__}:ours", {"workload": plain, "compiled": compiled}) for name, compiled in own.items()
    }
    for variant in peers.TRL_VARIANTS:
        orders[f"trl_{variant}"] = (f"{__name__}:trl", {"workload": plain, "variant": variant})
    with harness.workers(orders) as contestants:
        records = harness.take_turns(contestants, repeats)
    theirs = {name: record for name, record in records.items() if name not in own}
    best = harness.fastest(theirs)
    return {
        "workload": plain,
        "contestants": {name: told(record) for name, record in records.items()},
        "times_faster": {
            name: {
                f"trl_{kind}": {
                    "peer": peer,
                    "update": harness.times_faster(records[name], theirs[peer]),
                    "without_generation": harness.times_faster(
                        records[name], theirs[peer], seconds=_without_generation
                    ),
                }
                for kind, peer in (("default", "trl_default"), ("fastest", best))
            }
            for name in own
        },
    }


def _without_generation(turn: Turn) -> float:
    return turn.seconds - turn.told["generation_seconds"]


def told(record: Record) -> dict[str, float]:
    return {
        "seconds": round(record.seconds, 3),
        "generation_seconds": round(record.told("generation_seconds"), 3),
        "peak_mb": round(record.peak_mb),
        "warm_up_seconds": round(record.warm_up, 1),
    }


class Clock:
    """Adds up the seconds spent in a function."""

    def __init__(self) -> None:
        self._spent = 0.0

    def around(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self._spent += time.perf_counter() - started

        return timed

    def read(self) -> float:
        """The seconds since it was last read."""
        spent, self._spent = self._spent, 0.0
        return spent


# --- contestants: each in a process of its own ------------------------------------------------------------------------


class _Rounds(Paced):
    """A turn is a round; what of it was generation is told."""

    def __init__(self, path: Path, turns: Turns, clock: Clock) -> None:
        super().__init__(path, turns, every=1)
        self._clock = clock

    def told(self) -> dict[str, float]:
        return {"generation_seconds": self._clock.read()}


def ours(turns: Turns, *, workload: Mapping[str, Any], compiled: bool = False) -> None:
    """The stage's own loop; a turn is one round."""
    work = Workload(**workload)
    device = open_device(Hardware(compile=compiled))
    shape = work.shape
    settings = Ppo.model_validate(
        {
            "rounds": NEVER,
            "rollout_prompts": work.rows,
            "max_new_tokens": work.reply,
            "epochs": work.epochs,
            "minibatch_rows": work.rows,
            "policy_lr": LR,
            "critic_lr": LR,
            "schedule": "constant",
            "warmup_steps": 0,
            "critic_warmup_rounds": 0,
            "evaluate_every": NEVER,
            "save_every": NEVER,
        }
    )
    policy = LanguageModel(Trunk(shape))
    initialise(policy, shape, generator("policy"))
    reference = copy.deepcopy(policy)
    scorers = [ScalarModel(Trunk(shape), 1, generator(name)) for name in ("reward", "critic")]
    for scorer in scorers:
        initialise(scorer.trunk, shape, generator("trunk"))
    reward, critic = scorers
    for frozen in (reference, reward):
        device.compile(device.put(frozen).eval().requires_grad_(requires_grad=False))
    learner, critics = (Learner.make("adamw", network, device, weight_decay=0.0) for network in (policy, critic))
    models = ppo.Models(
        policy=policy,
        critic=critic,
        reference=reference,
        reward=lambda replies: reply_scores(reward, replies, pooling="last")[:, 0],
        stops=(),
        pad=0,
    )
    clock = Clock()
    rollout.generate = clock.around(rollout.generate)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as name:
        log = _Rounds(Path(name) / "ppo.jsonl", turns, clock)
        turns()
        asked = work.prompts()
        session = Session(0, log, Limit(learner, settings.kl_budget))
        ppo.train(learner, critics, models, asked, settings, device, session)


def trl(turns: Turns, *, workload: Mapping[str, Any], variant: str) -> None:
    """PPOTrainer's own loop with its defaults but for what makes the work the same; a turn is one update."""
    datasets, transformers, theirs = map(peers.library, ("datasets", "transformers", "trl.experimental.ppo"))
    work = Workload(**workload)
    open_device(Hardware(compile=False))
    torch.manual_seed(0)
    config = peers.llama_config(work.shape, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_labels=1)
    dtype = peers.trl_dtype(variant)
    clock = Clock()
    theirs.ppo_trainer.batch_generation = clock.around(theirs.ppo_trainer.batch_generation)

    class Updates(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns(generation_seconds=clock.read())

    with tempfile.TemporaryDirectory() as name:
        trainer = theirs.PPOTrainer(
            args=theirs.PPOConfig(
                output_dir=name,
                bf16=variant == "bf16",
                use_cpu=not torch.cuda.is_available(),
                per_device_train_batch_size=work.rows,
                local_rollout_forward_batch_size=work.rows,
                num_ppo_epochs=work.epochs,
                response_length=work.reply,
                total_episodes=10**6 * work.rows,
                num_sample_generations=0,
                gradient_checkpointing=variant == "default",
                learning_rate=LR,
                lr_scheduler_type="constant",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            processing_class=peers.tokenizer(work.vocab),
            model=transformers.LlamaForCausalLM(config).to(dtype),
            ref_model=transformers.LlamaForCausalLM(config).to(dtype),
            reward_model=transformers.LlamaForSequenceClassification(config).to(dtype),
            value_model=transformers.LlamaForSequenceClassification(config).to(dtype),
            train_dataset=datasets.Dataset.from_dict({"input_ids": work.prompts()}),
            eval_dataset=datasets.Dataset.from_dict({"input_ids": work.prompts()}),
            callbacks=[Updates()],
        )
        turns()
        trainer.train()
