"""What people preferred, as `palate bench preferences` reads it: real files -> questions with ranked answers, split by
what was asked first."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from palate.batches.rankings import Group, groups
from palate.errors import BadInput
from palate.feedback.exchange import runs
from palate.measure import preference
from palate.text.tokenizer import Tokenizer

FILES = {
    "helpful": "hh-rlhf/helpful-base/test.jsonl.gz",
    "harmless": "hh-rlhf/harmless-base/test.jsonl.gz",
    "open-assistant": "oasst-samples/en_100_tree.jsonl.gz",
    "stack-exchange": "stackexchange-beer/ranked_answers.jsonl.gz",
}
"""Bai et al. 2022 (two), Kopf et al. 2023, and votes on a site about beer."""

PROMPT, REPLY = 96, 256
"""The network reads the last tokens of what was asked and the first of an answer: so every comparison is kept, and
none takes more than 352 tokens. Who counts words sees all of an answer."""
MOST_ANSWERS = 6
"""Of one question, drawn where there are more. One question about beer has 33 answers, and their 528 pairs would be a
quarter of all that TRL sees."""
FOLDS = 3
DEV = 0.15
"""Share of the questions that is for choosing settings. It is in no fold: neither trained on nor reported."""


def families(data: Path) -> set[str]:
    """Of all questions in all files: what a backbone must not have seen. Raises BadInput."""
    return {prompt.family for name in FILES.values() for prompt in runs.rankings(data / name).prompts}


def read(path: Path, tokenizer: Tokenizer, *, reply: int = REPLY) -> list[Group]:
    """The questions of a file with answers of which one is preferred to another, cut to PROMPT and `reply` tokens.
    Ties are left out, since TRL's trainer has none. Raises BadInput."""
    told = runs.rankings(path)
    found, _ = groups(told.prompts, told.responses, told.judgements, tokenizer, room=10**9)
    kept = [without_ties(fewer(cut(group, reply))) for group in found]
    members = [group for group in kept if preference.decided(group)]
    if not members:
        raise BadInput("nobody preferred anything in it.", path, "Name the folder of the data.")
    return members


def cut(group: Group, reply: int) -> Group:
    """The last PROMPT tokens of what was asked, the first `reply` of every answer."""
    return dataclasses.replace(
        group, prompt_ids=group.prompt_ids[-PROMPT:], reply_ids=tuple(ids[:reply] for ids in group.reply_ids)
    )


def fewer(group: Group) -> Group:
    """MOST_ANSWERS of its answers, drawn by its id."""
    count = len(group.reply_ids)
    if count <= MOST_ANSWERS:
        return group
    return only(group, sorted(random.Random(group.prompt.id).sample(range(count), MOST_ANSWERS)))


def only(group: Group, answers: Sequence[int]) -> Group:
    """The same question with these of its answers, in rising order."""

    def square(table: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(table[i][j] for j in answers) for i in answers)

    return dataclasses.replace(
        group,
        responses=tuple(group.responses[i] for i in answers),
        reply_ids=tuple(group.reply_ids[i] for i in answers),
        targets=square(group.targets),
        counted=square(group.counted),
        labels=tuple(group.labels[i] for i in answers),
    )


def without_ties(group: Group) -> Group:
    """The same with only those pairs counted that people told apart."""
    size = range(len(group.reply_ids))
    counted = tuple(tuple(group.counted[i][j] * (group.targets[i][j] != 0.5) for j in size) for i in size)
    return dataclasses.replace(group, counted=counted)


def decided_pairs(group: Group) -> list[tuple[int, int]]:
    """(better, worse) of every pair that counts."""
    return [
        (i, j) if group.targets[i][j] > 0.5 else (j, i)
        for i, j in combinations(range(len(group.reply_ids)), 2)
        if group.counted[i][j]
    ]


def pairs(members: Iterable[Group]) -> list[Group]:
    """Every pair as a question of its own with two answers."""
    return [only(group, sorted(pair)) for group in members for pair in decided_pairs(group)]


def one_pair(members: Iterable[Group], seed: int) -> list[Group]:
    """Of every question one pair, drawn."""
    rng = random.Random(f"{seed} pair")
    return [only(group, sorted(rng.choice(decided_pairs(group)))) for group in members]


def splits(members: Sequence[Group], seed: int = 0) -> dict[str, list[Group]]:
    """{"dev": ..., "0": ..., "1": ..., "2": ...}: about DEV of the questions, and the rest in FOLDS parts. Everything
    that begins with the same first turn is in one of them."""
    sizes = Counter(group.prompt.family for group in members)
    order = sorted(sizes)
    random.Random(f"{seed} folds").shuffle(order)
    place: dict[str, str] = {}
    filled = Counter({str(fold): 0 for fold in range(FOLDS)})
    left = DEV * len(members)
    for family in order:
        if left >= sizes[family]:
            place[family] = "dev"
            left -= sizes[family]
        else:
            place[family] = min(filled, key=lambda name: (filled[name], name))
            filled[place[family]] += sizes[family]
    found: dict[str, list[Group]] = {name: [] for name in ("dev", *filled)}
    for group in members:
        found[place[group.prompt.family]].append(group)
    return found


def training(parts: dict[str, list[Group]], fold: int) -> list[Group]:
    """What is trained on when `fold` is held out."""
    return [group for name, members in parts.items() if name not in ("dev", str(fold)) for group in members]
