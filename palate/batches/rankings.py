"""Judgements -> what the reward model learns from: per prompt its candidates, pair targets and criterion labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from palate.batches.replies import Replies, lay_out
from palate.feedback.reliability import EQUAL, Annotator
from palate.records import CRITERIA, Judgement, Prompt, Response, stable_id
from palate.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Group:
    """One prompt with its K ranked candidates.

    targets[i][j]: mean over judgements of P(i preferred to j), counted[i][j] how many judgements compared them, each as
    many as its annotator weighs (i < j only). labels[i]: per criterion the mean score scaled to [-1, 1], or None.
    """

    prompt: Prompt
    responses: tuple[Response, ...]
    prompt_ids: tuple[int, ...]
    reply_ids: tuple[tuple[int, ...], ...]
    targets: tuple[tuple[float, ...], ...]
    counted: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[float | None, ...], ...]
    place: Mapping[str, int] = field(default_factory=dict)
    """Response id -> number of its candidate; equal answers are one candidate."""
    worth: float = 1.0
    """How much one comparison of this prompt weighs: what only careless people judged counts less than the others."""


def groups(
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    judgements: Iterable[Judgement],
    tokenizer: Tokenizer,
    *,
    room: int,
    annotators: Mapping[str, Annotator] | None = None,
) -> tuple[list[Group], int]:
    """(one group per prompt that has judgements, how many prompts did not fit into `room` tokens with a reply).

    annotators: what is known of who judged; without it everybody counts alike.

    Sampled ids are used as they are; a response without ids (from a file) is encoded and closed with the end marker.
    Responses of one prompt with the same ids are one candidate: judged twice, compared never. A rewrite by a
    person, who does not count tokens, is left out where it does not fit; of the others its judgement is heard.
    """
    by_prompt: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_prompt.setdefault(judgement.prompt_id, []).append(judgement)
    answers: dict[str, list[Response]] = {}
    for response in responses:
        answers.setdefault(response.prompt_id, []).append(response)
    found: list[Group] = []
    too_long = 0
    for prompt in prompts:
        judged = by_prompt.get(prompt.id)
        if not judged:
            continue
        ids = tuple(tokenizer.encode_prompt(prompt.messages))
        group = _group(prompt, ids, answers.get(prompt.id, []), judged, tokenizer, annotators or {}, room)
        if len(ids) + max(map(len, group.reply_ids), default=0) > room:
            too_long += 1
        elif any(any(row) for row in group.counted):
            found.append(group)
    return found, too_long


def _group(
    prompt: Prompt,
    prompt_ids: tuple[int, ...],
    answers: Sequence[Response],
    judged: Sequence[Judgement],
    tokenizer: Tokenizer,
    annotators: Mapping[str, Annotator],
    room: int,
) -> Group:
    rewritten = {stable_id("response", j.prompt_id, j.rewrite) for j in judged if j.rewrite}
    left_out: set[str] = set()
    candidates: dict[tuple[int, ...], Response] = {}
    place: dict[str, int] = {}
    for answer in answers:
        ids = answer.token_ids or tokenizer.encode_reply(prompt.messages, answer.text)
        if answer.id in rewritten and len(prompt_ids) + len(ids) > room:
            left_out.add(answer.id)
            continue
        candidates.setdefault(ids, answer)
        place[answer.id] = list(candidates).index(ids)
    count = len(candidates)
    totals = [[0.0] * count for _ in range(count)]
    weights = [[0.0] * count for _ in range(count)]
    comparisons = 0
    scores: list[list[list[float]]] = [[[] for _ in CRITERIA] for _ in range(count)]
    for judgement in judged:
        for a, b, weight, told in annotators.get(judgement.annotator, EQUAL).evidence(judgement):
            if a in left_out or b in left_out:
                continue
            i, j = place[a], place[b]
            if i == j:
                continue
            i, j, told = (i, j, told) if i < j else (j, i, weight - told)
            totals[i][j] += told
            weights[i][j] += weight
            comparisons += 1
        for answer_id, given in judgement.criteria.items():
            if answer_id in left_out:
                continue
            for number, name in enumerate(CRITERIA):
                if name in given:
                    scores[place[answer_id]][number].append((given[name] - 3) / 2)
    return Group(
        prompt=prompt,
        responses=tuple(candidates.values()),
        prompt_ids=prompt_ids,
        reply_ids=tuple(candidates),
        targets=tuple(tuple(_share(t, w) for t, w in zip(row, weight)) for row, weight in zip(totals, weights)),
        counted=tuple(map(tuple, weights)),
        labels=tuple(tuple(sum(s) / len(s) if s else None for s in row) for row in scores),
        place=place,
        worth=sum(map(sum, weights)) / max(comparisons, 1),
    )


def _share(told: float, weight: float) -> float:
    """Mean target; one choice against one's own order bias tells more than a certainty, which no loss can use."""
    return min(1.0, max(0.0, told / weight)) if weight else 0.0


def by_size(members: Sequence[Group], most_tokens: int) -> list[list[Group]]:
    """The groups in pieces of similar length: the rows of a piece, each as long as the longest, are at most
    `most_tokens` tokens (a group that is larger by itself is a piece by itself)."""

    def width(group: Group) -> int:
        return len(group.prompt_ids) + max(map(len, group.reply_ids))

    pieces: list[list[Group]] = []
    rows = 0
    for group in sorted(members, key=width):  # so the newest group is the longest of its piece
        rows += len(group.reply_ids)
        if not pieces or rows * width(group) > most_tokens:
            pieces.append([])
            rows = len(group.reply_ids)
        pieces[-1].append(group)
    return pieces


@dataclass(frozen=True)
class RankedBatch:
    """Candidates of several prompts as rows; `spread` puts a row's score at (prompt, candidate)."""

    replies: Replies
    place: Tensor
    """(rows) index of each row in a flat (prompts * candidates) table."""
    targets: Tensor
    weights: Tensor
    labels: Tensor
    present: Tensor
    worth: Tensor
    """(prompts)"""

    def spread(self, scores: Tensor) -> Tensor:
        """scores (rows, outputs) -> (prompts, candidates, outputs), 0 where a prompt has fewer candidates."""
        prompts, candidates = self.targets.shape[:2]
        table = scores.new_zeros(prompts * candidates, scores.shape[1])
        return table.index_copy(0, self.place, scores).view(prompts, candidates, -1)


def batch(members: Sequence[Group], *, pad: int, device: torch.device) -> RankedBatch:
    """Several groups as tensors: targets, weights (prompts, candidates, candidates), labels, present (prompts,
    candidates, criteria), worth (prompts)."""
    most = max(len(group.reply_ids) for group in members)
    size = (len(members), most, most)
    targets, weights = torch.zeros(size), torch.zeros(size)
    labels = torch.zeros(len(members), most, len(CRITERIA))
    present = torch.zeros_like(labels)
    worth = torch.tensor([group.worth for group in members])
    place: list[int] = []
    for number, group in enumerate(members):
        count = len(group.reply_ids)
        place += [number * most + i for i in range(count)]
        targets[number, :count, :count] = torch.tensor(group.targets)
        weights[number, :count, :count] = torch.tensor(group.counted)
        for i, row in enumerate(group.labels):
            for c, label in enumerate(row):
                if label is not None:
                    labels[number, i, c], present[number, i, c] = label, 1.0
    replies = lay_out(
        [group.prompt_ids for group in members for _ in group.reply_ids],
        [ids for group in members for ids in group.reply_ids],
        pad=pad,
    )
    return RankedBatch(
        replies.to(device),
        *(t.to(device) for t in (torch.tensor(place), targets, weights, labels, present, worth)),
    )


def pair_count(members: Mapping[str, Group] | Sequence[Group]) -> int:
    """How many pairs of candidates were compared at least once."""
    every = members.values() if isinstance(members, Mapping) else members
    return sum(w > 0 for group in every for row in group.counted for w in row)
