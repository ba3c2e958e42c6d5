"""Replies as text while they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

UNDECIDED = "\ufffd"  # what a decoder makes of the beginning of a character


def pieces(ids: Iterable[int], decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> Iterator[str]:
    """The text of `ids` in pieces, as soon as each is certain; ends before the first of the `stop` strings.

    Together the pieces are `decode` of all ids up to there. No character is split, though its bytes may be several
    tokens, and no stop string is given in part, though it may begin in one token and end in another: what could still
    become one is held back. `decode` must give the same text for a token whatever comes later, half characters apart.
    """
    if not all(stop):
        raise ValueError("an empty stop string would end every reply before its first word")
    known: list[int] = []  # ids from the last one on that was whole by itself: decoders may look back one token
    given = 0  # characters of these that are in `held` or beyond
    held = ""
    for token in ids:
        known.append(token)
        text = decode(known)
        certain = text.removesuffix(UNDECIDED)
        held += certain[given:]
        given = max(given, len(certain))
        if certain == text and UNDECIDED not in (last := decode(known[-1:])):
            known, given = known[-1:], len(last)
        begins = [place for string in stop if (place := held.find(string)) >= 0]
        if begins:
            if min(begins):
                yield held[: min(begins)]
            return
        if ready := held[: len(held) - _possible(held, stop)]:
            held = held[len(ready) :]
            yield ready
    if rest := held + decode(known)[given:]:
        yield rest


def _possible(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop string."""
    longest = max(map(len, stop), default=1) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in stop)), 0)
