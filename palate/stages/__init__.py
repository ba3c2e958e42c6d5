"""The table of contents of Palate: every stage, in the order of the recipe.

The command line, `palate plan`, the run order and the README's table come from `STAGES`. One stage is one file with
one public `run(recipe, workspace)`; stages never import each other, they talk through the artifacts of a run.

A stage that also depends on something outside the run (text folders, a feedback store) has
`outside(recipe, workspace) -> dict[str, str]`, whose values become part of the artifact's key.
"""

from __future__ import annotations

from dataclasses import dataclass

from palate.workspace import POLICIES


@dataclass(frozen=True)
class Stage:
    """One step of the recipe."""

    name: str
    reads: tuple[str, ...]
    """Artifacts it opens; all must be finished before it starts."""
    writes: str
    module: str
    sections: tuple[str, ...]
    """Recipe sections its result depends on. The first one must be in the recipe for the stage to run."""
    summary: str
    reads_too: tuple[str, ...] = ()
    """Artifacts it opens where the recipe makes them."""
    scored: bool = False
    """Whether what [scoring] names says there how good a reply is."""
    outside: bool = False
    """Whether the module has an `outside` function."""
    waits: bool = False
    """Whether it has a `wait` function, which returns when what has to come from outside is there."""
    shared: bool = False
    """Whether several processes share the work; otherwise the leader does it and the others wait."""


STAGES = (
    Stage(
        "collect",
        reads=(),
        writes="corpus",
        module="palate.stages.collect",
        sections=("collect", "kitchen"),
        summary="websites, books, articles, forums, papers or plain folders -> cleaned, deduplicated documents",
        outside=True,
    ),
    Stage(
        "tokenize",
        reads=("corpus",),
        writes="tokens",
        module="palate.stages.tokenize",
        sections=("tokenize",),
        summary="documents -> byte-level BPE tokenizer and token shards",
    ),
    Stage(
        "adopt",
        reads=(),
        writes="base",
        module="palate.stages.adopt",
        sections=("base",),
        summary="a published model's folder -> base model, instead of pretraining one",
        outside=True,
    ),
    Stage(
        "pretrain",
        reads=("tokens",),
        writes="base",
        module="palate.stages.pretrain",
        sections=("pretrain", "model", "hardware"),
        summary="token shards -> base model",
        shared=True,
    ),
    Stage(
        "write",
        reads=("base",),
        writes="demonstrations",
        module="palate.stages.write",
        sections=("write", "kitchen"),
        summary="people's demonstrations and prompts, split by family into train, dev and test",
        outside=True,
        waits=True,
    ),
    Stage(
        "sft",
        reads=("base", "demonstrations"),
        writes="sft",
        module="palate.stages.sft",
        sections=("sft", "lora", "hardware"),
        summary="base + demonstrations -> assistant (supervised fine-tuning)",
        shared=True,
    ),
    Stage(
        "sample",
        reads=("sft", "demonstrations"),
        writes="samples",
        module="palate.stages.sample",
        sections=("sample", "hardware"),
        summary="assistant + prompts -> K answers per prompt",
        shared=True,
    ),
    Stage(
        "rank",
        reads=("samples", "demonstrations"),
        writes="rankings",
        module="palate.stages.rank",
        sections=("rank", "kitchen"),
        summary="people, files, scorers or the simulated panel order the answers",
        outside=True,
        waits=True,
    ),
    Stage(
        "reward",
        reads=("base", "sft", "demonstrations", "samples", "rankings"),
        writes="reward",
        module="palate.stages.reward",
        sections=("reward", "lora", "hardware"),
        summary="assistant + rankings -> reward model: overall and four criteria",
        shared=True,
    ),
    Stage(
        "ppo",
        reads=("base", "sft", "demonstrations"),
        reads_too=("reward",),
        writes="ppo",
        module="palate.stages.ppo",
        scored=True,
        sections=("ppo", "lora", "hardware"),
        summary="assistant + reward model + prompts -> policy (proximal policy optimization)",
        shared=True,
    ),
    Stage(
        "dpo",
        reads=("base", "sft", "demonstrations", "rankings"),
        writes="dpo",
        module="palate.stages.dpo",
        sections=("dpo", "lora", "hardware"),
        summary="assistant + rankings -> policy, without a reward model (direct preference optimization)",
        shared=True,
    ),
    Stage(
        "grpo",
        reads=("base", "sft", "demonstrations"),
        reads_too=("reward",),
        writes="grpo",
        module="palate.stages.grpo",
        scored=True,
        sections=("grpo", "lora", "hardware"),
        summary="assistant + reward model + prompts -> policy, without a critic (group relative policy optimization)",
        shared=True,
    ),
    Stage(
        "rejection",
        reads=("base", "sft", "demonstrations"),
        reads_too=("reward",),
        writes="rejection",
        module="palate.stages.rejection",
        scored=True,
        sections=("rejection", "lora", "hardware"),
        summary="assistant + reward model + prompts -> policy, from the best of K answers (rejection sampling)",
        shared=True,
    ),
    Stage(
        "evaluate",
        reads=("base", "demonstrations"),
        reads_too=("corpus", "tokens", "sft", "samples", "rankings", "reward", *POLICIES),
        writes="report",
        module="palate.stages.evaluate",
        scored=True,
        sections=("evaluate", "controls", "kitchen", "hardware"),
        summary="all models and controls -> report.html and report.json",
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}
