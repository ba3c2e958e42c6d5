"""What people are asked: which prompts, in which order, and which of their answers they see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from palate.records import Prompt, Response

HELD_OUT = 5
"""Every fifth prompt that people are asked is held out (dev). Whoever stops early, or waits for few judgements, has
then some to learn from and some to measure with, which the reward model needs."""


def answers(responses: Iterable[Response]) -> dict[str, list[Response]]:
    """Prompt id -> its answers, equal texts once: nobody can prefer one of two equal answers."""
    found: dict[str, list[Response]] = {}
    for response in responses:
        others = found.setdefault(response.prompt_id, [])
        if response.text not in {other.text for other in others}:
            others.append(response)
    return found


def rankable(prompts: Iterable[Prompt], responses: Iterable[Response]) -> list[Prompt]:
    """The prompts with two different answers at least, in the order given."""
    distinct = answers(responses)
    return [prompt for prompt in prompts if len(distinct.get(prompt.id, ())) > 1]


def in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts, every fifth one held out for as long as there are some; apart from that in the order given."""
    held_out = [prompt for prompt in prompts if prompt.split != "train"]
    train = [prompt for prompt in prompts if prompt.split == "train"]
    found: list[Prompt] = []
    while train and held_out:
        found += [*train[: HELD_OUT - 1], held_out[0]]
        del train[: HELD_OUT - 1], held_out[0]
    return found + train + held_out


def fewest_first(prompts: Sequence[Prompt], others: Mapping[str, int], overlap: int) -> list[Prompt]:
    """The same prompts for one more person, when `others` have judged each so often: first those begun that lack some
    of the `overlap` judgements each should have, then those nobody has judged, and those that have enough last."""

    def turn(prompt: Prompt) -> int:
        has = others.get(prompt.id, 0)
        return 2 if has >= overlap else int(has == 0)

    return sorted(prompts, key=turn)
