"""What people ranked, as the reward model and direct preference optimization learn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palate.batches.rankings import Group, groups
from palate.errors import BadInput
from palate.feedback.reliability import Annotator
from palate.measure import preference
from palate.records import Judgement, Prompt, Response, read_jsonl
from palate.text.tokenizer import Tokenizer
from palate.workspace import Workspace


def judged_train(workspace: Workspace) -> list[Judgement]:
    """The judgements of train prompts: what is known of annotators comes from these alone."""
    folder = workspace.read("rankings")
    train = {prompt.id for prompt in read_jsonl(folder / "prompts.jsonl", Prompt) if prompt.split == "train"}
    return [j for j in read_jsonl(folder / "judgements.jsonl", Judgement) if j.prompt_id in train]


def given_now(workspace: Workspace) -> Callable[[Response], bool]:
    """Whether an answer is of this run's assistant, not of an earlier round's, and not from a file."""
    assistant = str(workspace.manifest("sft")["digest"])[:16]
    return lambda response: response.checkpoint == assistant


def read(
    workspace: Workspace, tokenizer: Tokenizer, *, room: int, annotators: Mapping[str, Annotator] | None
) -> tuple[list[Group], list[Group], int]:
    """(train, dev, how many prompts did not fit into `room` tokens with a reply).

    annotators: how much each counts on train prompts; None is all alike. On dev everybody counts alike: it is what is
    measured with. Raises BadInput where a split has nothing to learn from or to measure with.
    """
    folder = workspace.read("rankings")

    def judged(split: str, known: Mapping[str, Annotator] | None) -> tuple[list[Group], int]:
        return groups(
            (prompt for prompt in read_jsonl(folder / "prompts.jsonl", Prompt) if prompt.split == split),
            read_jsonl(folder / "responses.jsonl", Response),
            read_jsonl(folder / "judgements.jsonl", Judgement),
            tokenizer,
            room=room,
            annotators=known,
        )

    (train, train_too_long), (dev, dev_too_long) = judged("train", annotators), judged("dev", None)
    too_long = train_too_long + dev_too_long
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
