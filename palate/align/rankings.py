"""What people ranked, as the reward model and direct preference optimization learn from it."""

from __future__ import annotations

from palate.batches.rankings import Group, groups
from palate.errors import BadInput
from palate.measure import preference
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.text.tokenizer import Tokenizer
from palate.workspace import Workspace


def read(workspace: Workspace, tokenizer: Tokenizer, *, room: int) -> tuple[list[Group], list[Group], int]:
    """(train, dev, how many prompts did not fit into `room` tokens with a reply). Raises BadInput where a split has
    nothing to learn from or to measure with."""
    folder = workspace.read("rankings")
    found, too_long = groups(
        read_jsonl(folder / "prompts.jsonl", Prompt),
        read_jsonl(folder / "responses.jsonl", Response),
        read_jsonl(folder / "judgements.jsonl", Judgement),
        tokenizer,
        room=room,
    )
    train = [group for group in found if group.prompt.split == "train"]
    dev = [group for group in found if group.prompt.split == "dev"]
    for split, members in (("train", train), ("dev", dev)):
        if not members:
            raise BadInput(
                f"there is no judged {split} prompt that fits the context of {room} tokens ({too_long} are too long).",
                folder,
                "Rank more prompts, or take a model that reads more.",
            )
        if not any(preference.decided(group) for group in members):
            raise BadInput(
                f"every comparison of answers to the {len(members)} judged {split} prompts is a tie: nobody can tell "
                f"from them what people prefer.",
                folder,
                "Rank more prompts, or let the assistant give answers that differ more: sample.temperature higher.",
            )
    return train, dev, too_long
