"""Judgements as they were given -> the order that is learned from them: what a person wrote is above what it corrects.

Figures about people (agreement, bias) are of the judgements as given: nobody showed anybody a rewritten answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from palate.feedback.words import response_id
from palate.records import Judgement, Response, stable_id


def taught(judgements: Iterable[Judgement], responses: Sequence[Response]) -> tuple[list[Judgement], list[Response]]:
    """(judgements with what they teach as ranks, the responses and those that people wrote).

    A judgement with a rewrite ranks it above all that it ranked (edited > chosen > rejected). One that says only which
    of several is best (`extra["only_best"]`) becomes as many as there are others: that they share a rank says nothing.
    What was turned so already stays as it is.
    """
    known = {response.id: response for response in responses}
    found: list[Judgement] = []
    for judgement in judgements:
        for one in _apart(judgement):
            written = _written(one)
            if written is None or _same_text(known, written, one):
                found.append(one)
                continue
            known.setdefault(written.id, written)
            found.append(_above(one, written.id))
    return found, list(known.values())


def _written(judgement: Judgement) -> Response | None:
    """The answer that an annotator wrote."""
    if not judgement.rewrite or judgement.rewrite_of is None:
        return None
    id_ = response_id(judgement.prompt_id, judgement.rewrite)
    return Response(id=id_, prompt_id=judgement.prompt_id, text=judgement.rewrite, origin="human")


def _same_text(known: dict[str, Response], written: Response, judgement: Judgement) -> bool:
    """Whether nothing was changed, or this was turned into ranks before."""
    original = known.get(judgement.rewrite_of or "")
    return written.id in judgement.ranks or (original is not None and original.text == written.text)


def _above(judgement: Judgement, written: str) -> Judgement:
    """With `written` before all others. Whoever could not rank them has still said what is better than one."""
    below = judgement.ranks or {judgement.rewrite_of or "": 1}
    return dataclasses.replace(judgement, ranks={written: 1, **{id_: rank + 1 for id_, rank in below.items()}})


def _apart(judgement: Judgement) -> Iterator[Judgement]:
    """One judgement for each that the best one is better than."""
    best = [id_ for id_, rank in judgement.ranks.items() if rank == 1]
    if not judgement.extra.get("only_best") or len(judgement.ranks) < 3 or len(best) != 1:
        yield judgement
        return
    for other in judgement.ranks:
        if other != best[0]:
            yield dataclasses.replace(
                judgement, id=stable_id(judgement.id, other), ranks={best[0]: 1, other: 2}, supersedes=None
            )
