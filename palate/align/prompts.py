"""Which prompts a method practises on, and which it is watched at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from palate.batches import prompts as prompt_batches
from palate.errors import BadInput
from palate.recipe import Aligning, Online
from palate.records import Prompt, read_jsonl
from palate.text import tokenizer as tokenizers
from palate.weights.families import context_of
from palate.workspace import Workspace

WATCHED = 128
"""Dev prompts whose answers are kept at every evaluation, so that the report can judge how the policy changed."""


@dataclass(frozen=True)
class Asked:
    """Train prompts, and dev prompts whose answers are looked at; of each the record and its ids."""

    train: Sequence[Prompt]
    train_ids: Sequence[Sequence[int]]
    watched: Sequence[Prompt]
    watched_ids: Sequence[Sequence[int]]


def read(workspace: Workspace, settings: Aligning) -> Asked:
    """The prompts that leave room for an answer. Raises BadInput where a round wants more."""
    path, source = workspace.read("demonstrations") / "prompts.jsonl", workspace.read("sft")
    tokenizer, room = tokenizers.load(source), context_of(source) - settings.max_new_tokens
    every = list(read_jsonl(path, Prompt))
    train, ids, too_long = prompt_batches.encode([p for p in every if p.split == "train"], tokenizer, room=room)
    dev = sorted((p for p in every if p.split == "dev"), key=lambda p: p.id)  # ids are hashes: a mix of all skills
    watched, watched_ids, _ = prompt_batches.encode(dev, tokenizer, room=room)
    if isinstance(settings, Online) and len(ids) < settings.rollout_prompts:
        name = f"{settings.method}.rollout_prompts"
        raise BadInput(
            f"{len(ids)} train prompts fit ({len(too_long)} are too long), fewer than {name} = "
            f"{settings.rollout_prompts}.",
            path,
            f"Add prompts or set {name} lower.",
        )
    return Asked(train, ids, watched[:WATCHED], watched_ids[:WATCHED])
