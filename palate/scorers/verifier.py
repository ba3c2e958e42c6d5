"""Verifiable rewards: 1 where an answer is the right one, 0 where it is not. The right one is the prompt's
`extra["answer"]`, as `palate.feedback.exchange` reads it from GSM8K's lines and others.

Which number of a reply counts follows GSM8K (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"): the
one that follows "####". Where a reply has no "####", its last number counts. What a number is:

    42   -42   +42   .5   42.50     equal by value: 42.50 is 42.5, exactly (0.333 is not 1/3)
    1,080   109,200,000             commas between groups of three digits; 1,2,3 are three numbers
    $42   -$42   $-42   42%         currency and percent signs are left off; so are units (42 km, 3rd)
    3/4   1 1/2                     fractions and mixed numbers; 3/0 is none
    x2   1e5   v2.0.1   3/4/2024    none: a number does not begin inside a word; no powers of ten, no dates
    10-5                            10 and 5: a sign follows no digit, letter or closing bracket

Numbers of more than 100 digits are none: nobody asked for them, and reading them takes long.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal

from palate.errors import ScorerFailed
from palate.records import Prompt
from palate.scorers.contract import Scorer, about, brief

MARK = "####"
LONGEST_DIGITS = 100

# Possessive (++): a number is taken whole or not at all, and a text of digits alone is read in linear time.
_NUMBER = re.compile(
    r"""(?<!\w) (?<![0-9][./])
        (?: (?<![)\]]) (?P<sign>[-\u2212+]) )?
        (?: \\?[$\u20ac\u00a3] (?P<inner>[-\u2212]?) )?
        (?: (?P<whole>[0-9]++)[ ](?P<part>[0-9]++/[0-9]++)
          | (?P<fraction>[0-9]++/[0-9]++)
          | (?P<decimal> (?: [0-9]{1,3}(?:,[0-9]{3})++(?![0-9]) | [0-9]++ ) (?:\.[0-9]++)? | (?<!\.)\.[0-9]++ )
        )
        (?!/[0-9]) (?!\.[0-9]) (?![eE][-+]?[0-9])""",
    re.VERBOSE | re.ASCII,
)


def verifier(kind: Literal["number", "text"]) -> Scorer:
    """A scorer that gives 1.0 to the right answer and 0.0 to any other, a reply without an answer included.

    Raises ScorerFailed for a prompt that has no right answer, or one of another kind.
    """
    same = {"number": _same_number, "text": _same_text}[kind]

    def score(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        return [float(same(_right(prompt), text, prompt)) for prompt, text in zip(prompts, texts, strict=True)]

    return score


def _right(prompt: Prompt) -> str:
    answer: Any = prompt.extra.get("answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        raise ScorerFailed(
            f"{about(prompt)} has no right answer to compare with. Give its line of the prompts file an "
            f'"answer", or leave [scoring.verifier] out.'
        )
    return str(answer)


def _same_number(answer: str, text: str, prompt: Prompt) -> bool:
    right = final_number(answer)
    if right is None:
        raise ScorerFailed(
            f"the right answer {brief(answer)} of {about(prompt)} holds no number. Mend its line, or set "
            f'scoring.verifier.kind = "text".'
        )
    return final_number(text) == right


def _same_text(answer: str, text: str, prompt: Prompt) -> bool:
    right = normalised(answer)
    if not right:
        raise ScorerFailed(f"the right answer {brief(answer)} of {about(prompt)} holds no word. Mend its line.")
    return normalised(text) == right


def final_number(text: str) -> Fraction | None:
    """The number that counts in a reply: the first after the last "####", or the last of all; None without one.

    >>> final_number("She has 3 + 4 = 7 eggs.\\n#### 1,007.50")
    Fraction(2015, 2)
    """
    _, mark, after = text.rpartition(MARK)
    numbers = [n for n in map(_value, _NUMBER.finditer(after)) if n is not None]
    if not numbers:
        return None
    return numbers[0] if mark else numbers[-1]


def _value(found: re.Match[str]) -> Fraction | None:
    if sum(c.isdigit() for c in found[0]) > LONGEST_DIGITS:
        return None
    try:
        if found["whole"] is not None:
            size = Fraction(found["whole"]) + Fraction(found["part"])
        else:
            size = Fraction(found["fraction"] or found["decimal"].replace(",", ""))
    except ZeroDivisionError:
        return None
    minus = (found["sign"] in ("-", "\u2212")) != bool(found["inner"])
    return -size if minus else size


def normalised(text: str) -> str:
    """What is compared of words: those after the last "####" (all, where there is none), case, spacing, forms of
    Unicode (NFKC) and the punctuation around them evened out.

    >>> normalised(" The  Eiffel Tower. ")
    'the eiffel tower'
    """
    said = unicodedata.normalize("NFKC", text.rpartition(MARK)[2]).casefold()
    return " ".join(_without_edges(said).split())


def _without_edges(text: str) -> str:
    edge: Callable[[str], bool] = lambda c: c.isspace() or unicodedata.category(c)[0] in "PZC"  # noqa: E731
    start, end = 0, len(text)
    while start < end and edge(text[start]):
        start += 1
    while end > start and edge(text[end - 1]):
        end -= 1
    return text[start:end]
