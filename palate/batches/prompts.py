"""Prompts -> ids, with the ones that are too long told apart."""

from __future__ import annotations

from collections.abc import Sequence

from palate.records import Prompt
from palate.text.tokenizer import Tokenizer


def encode(
    prompts: Sequence[Prompt], tokenizer: Tokenizer, *, room: int
) -> tuple[list[Prompt], list[list[int]], list[Prompt]]:
    """(prompts that fit in `room` tokens, their ids, prompts that do not fit)."""
    kept: list[Prompt] = []
    ids: list[list[int]] = []
    too_long: list[Prompt] = []
    for prompt in prompts:
        encoded = tokenizer.encode_prompt(prompt.messages)
        if len(encoded) <= room:
            kept.append(prompt)
            ids.append(encoded)
        else:
            too_long.append(prompt)
    return kept, ids, too_long
