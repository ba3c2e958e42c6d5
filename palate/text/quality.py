"""Rules that drop a document. Each is a function that returns the reason, or None when the text may stay.

Sources: Gopher, that is MassiveText (Rae et al. 2021, arXiv:2112.11446, appendix A1.1 and table A1), and C4 (Raffel et
al. 2020, arXiv:1910.10683). Their constants were set for web pages of 50 words and more; where a short recipe or forum
answer needs another, the reason stands beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MEAN_WORD = (3.0, 10.0)  # Gopher
SYMBOLS = 0.1  # Gopher: '#' or ellipses per word
BULLETS, ELLIPSES = 0.9, 0.3  # Gopher: shares of lines
BULLET_LINES = 4  # with fewer lines a list of ingredients is the whole document
LETTERS = 0.8  # Gopher: share of words that hold a letter
DUPLICATE_LINES, DUPLICATE_LINE_CHARACTERS = 0.3, 0.2  # Gopher, table A1
TOP_NGRAMS = {2: 0.20, 3: 0.18, 4: 0.16}  # Gopher, table A1: share of characters in the most frequent n-gram
DUPLICATE_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # Gopher, table A1
NGRAM_WORDS = 150
"""Gopher's shares of n-grams hold for pages. In 60 words about "the sesame prawn taco" that name alone exceeds them,
and so does one sentence that an answer repeats from its question."""
SHORT_TOP_COUNT, SHORT_SHARE = 5, 0.5  # in shorter texts: half of the text, and a top n-gram at least five times
ODD_WORDS = 0.25  # share of words nobody can pronounce; names and abbreviations stay well below a tenth
REPLACEMENTS = 0.005  # share of U+FFFD: bytes that were decoded with the wrong table
CAPITALS = 0.5  # share of upper-case words among those of 4 letters and more
SPAM_PHRASES = 3
SPAM_DENSITY = 0.005  # phrases per word; an encyclopedia's page on advertising names them, too
SPAM_LINKS = 0.1  # links per word
BOILERPLATE = 0.4  # share of sentences that are a site's and not an author's

FUNCTION_WORDS = {
    # Gopher's eight are the first; twenty words about a soup often hold only one of those.
    "en": "the be to of and that have with is it in for you a on not are this",
    "fr": "le la les de des et un une est pour que dans il",
    "de": "der die das und ist ein eine nicht mit zu den von",
    "es": "el la los las de que y en un una es con para por",
    "it": "il la di che e un una per con non del le",
    "pt": "o a os as de que e um uma para com em",
    "nl": "de het een en van is dat niet met op in te",
}

_WORD = re.compile(r"\S+")
_LETTER = re.compile(r"[^\W\d_]")
_SYMBOL_WORD = re.compile(r"^[\W_]+$")
_BULLET = re.compile(r"^\s*[•\-*‣▪]\s")
_LATIN = re.compile(r"^[a-z]{4,}$")
_NO_VOWEL = re.compile(r"^[^aeiouy]+$")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}")  # German Angstschweiß has more; a share of words is asked for
_MASH = re.compile(r"asdf|sdfg|dfgh|fghj|ghjk|hjkl|qwer|wert[yz]|uiop|zxcv|xcvb|cvbn")
_MIXED = re.compile(r"^(?=\w*\d)(?=\w*[a-z])(?=\w*[A-Z])[\w+/=]{12,}$")  # keys, hashes, base64
_LINK = re.compile(r"https?://|www\.")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_SPAM = re.compile(
    r"buy now|click here|click below|limited (?:time )?offer|act now|order now|order today|free trial|risk[- ]free"
    r"|100 ?% (?:free|guaranteed|satisfaction)|money[- ]back|best price|lowest price|cheap \w+ online"
    r"|no prescription|viagra|cialis|casino|jackpot|free spins|you (?:have|are|'ve) (?:won|a winner|been selected)"
    r"|claim your|make money|earn \$|work from home|lose weight fast|miracle (?:cure|pill)|double your"
    r"|crypto(?:currency)? profits?|guaranteed (?:income|results|profit)|special promotion|discount code"
    r"|hot singles|payday loan|no credit check",
)
_BOILERPLATE = re.compile(
    # Not the bare word "cookie": that is a cake in most of the texts we want.
    r"privacy policy|(?:we|sites?) uses? cookies|accept (?:all )?cookies|cookie (?:policy|settings|preferences|notice)"
    r"|terms (?:of|and) (?:use|service|conditions)|all rights reserved|javascript|your browser|subscribe|newsletter"
    r"|log ?in|sign (?:in|up)|your account|your consent|third[- ]part(?:y|ies)|we may (?:share|store)|site ?map"
    r"|personal (?:data|information)|page not found|copyright ©?|contact us|follow us|share this|lorem ipsum",
)


@dataclass(frozen=True)
class Parts:
    """A text with the parts that several rules look at, taken once."""

    text: str
    lower: str
    words: Sequence[str]
    lines: Sequence[str]


def parts(text: str) -> Parts:
    """`text`, its words (runs without spaces) and its lines that are not blank."""
    return Parts(text, text.lower(), _WORD.findall(text), [line for line in text.split("\n") if line.strip()])


Rule = Callable[[Parts], str | None]


def too_short(least: int) -> Rule:
    """Fewer than `least` words (Gopher: 50)."""

    def rule(page: Parts) -> str | None:
        return f"{len(page.words)} words" if len(page.words) < least else None

    return rule


def undecodable(page: Parts) -> str | None:
    """Replacement characters: the text was decoded with the wrong table before it came to us."""
    share = page.text.count("\ufffd") / max(len(page.text), 1)
    return f"{share:.1%} replacement characters" if share > REPLACEMENTS else None


def word_length(page: Parts) -> str | None:
    """Mean word length outside 3 to 10 characters (Gopher)."""
    words = [w for w in page.words if not _SYMBOL_WORD.match(w)]
    # Scripts without spaces have "words" of a sentence's length; the bound is about those that have them.
    if not words or (not page.text.isascii() and not _mostly_latin(page.text)):
        return None
    mean = sum(map(len, words)) / len(words)
    return None if MEAN_WORD[0] <= mean <= MEAN_WORD[1] else f"mean word length {mean:.1f}"


def symbol_ratio(page: Parts) -> str | None:
    """Hashes or ellipses on more than a tenth of the words, or too few words with a letter (Gopher)."""
    count = max(len(page.words), 1)
    if page.text.count("#") / count > SYMBOLS:
        return "hash signs"
    if (page.text.count("...") + page.text.count("…")) / count > SYMBOLS:
        return "ellipses"
    share = sum(1 for w in page.words if _LETTER.search(w)) / count
    return f"{share:.0%} of the words hold a letter" if share < LETTERS else None


def bullets_and_ellipses(page: Parts) -> str | None:
    """Nearly all lines are bullets, or many end in an ellipsis (Gopher)."""
    count = len(page.lines)
    if count >= BULLET_LINES and sum(1 for line in page.lines if _BULLET.match(line)) / count > BULLETS:
        return "nearly all lines are bullets"
    cut = sum(1 for line in page.lines if line.rstrip().endswith(("...", "…")))
    return "lines end in an ellipsis" if count and cut / count > ELLIPSES else None


def duplicate_lines(page: Parts) -> str | None:
    """Lines that repeat earlier lines: more than 30 % of them, or 20 % of the characters (Gopher, table A1)."""
    seen: set[str] = set()
    again = characters = 0
    for line in (line.strip() for line in page.lines):
        if line in seen:
            again, characters = again + 1, characters + len(line)
        seen.add(line)
    if again > DUPLICATE_LINES * len(page.lines):
        return f"{again} of {len(page.lines)} lines are repeated"
    if characters > DUPLICATE_LINE_CHARACTERS * len(page.text):
        return f"{characters / len(page.text):.0%} of the characters are in repeated lines"
    return None


def top_ngrams(page: Parts) -> str | None:
    """One 2-, 3- or 4-gram of words makes up too much of the text (Gopher, table A1)."""
    words = page.words
    short = len(words) < NGRAM_WORDS
    for n, most in TOP_NGRAMS.items():
        if len(words) < n:
            return None
        counts = Counter(zip(*(words[i:] for i in range(n))))
        gram, times = max(counts.items(), key=lambda item: (item[1] > 1) * item[1] * len(" ".join(item[0])))
        if times < (SHORT_TOP_COUNT if short else 2):
            continue
        share = len(" ".join(gram)) * times / len(page.text)
        if share > (SHORT_SHARE if short else most):
            return f"one {n}-gram makes {share:.0%} of the text"
    return None


def duplicate_ngrams(page: Parts) -> str | None:
    """Characters inside repeated 5- to 10-grams of words (Gopher, table A1)."""
    words = page.words
    total = max(sum(map(len, words)), 1)
    for n, most in DUPLICATE_NGRAMS.items():
        if len(set(zip(*(words[i:] for i in range(n))))) == max(len(words) - n + 1, 0):
            return None  # without a repeated n-gram there is no longer one either
        seen: set[tuple[str, ...]] = set()
        repeated, at = 0, 0
        while at + n <= len(words):
            gram = tuple(words[at : at + n])
            if gram in seen:
                repeated += sum(map(len, gram))
                at += n
            else:
                seen.add(gram)
                at += 1
        if repeated / total > (SHORT_SHARE if len(words) < NGRAM_WORDS else most):
            return f"{repeated / total:.0%} of the characters are in repeated {n}-grams"
    return None


def gibberish(page: Parts) -> str | None:
    """Words nobody can say: no vowel, six consonants in a row, keyboard rows, keys and hashes.

    Only words in plain Latin letters are judged, so that no other script suffers.
    """
    odd = judged = 0
    for raw in page.words:
        if _MIXED.match(raw):
            odd, judged = odd + 1, judged + 1
            continue
        word = raw.strip(".,;:!?()[]\"'“”‘’").lower()
        if _LATIN.match(word):
            judged += 1
            odd += bool(_NO_VOWEL.match(word) or _CONSONANTS.search(word) or _MASH.search(word))
    share = odd / max(judged, 1)
    return f"{share:.0%} of the words cannot be said" if odd >= 3 and share > ODD_WORDS else None


def spam(page: Parts) -> str | None:
    """Three different selling phrases close together, a link on every tenth word, or shouting."""
    found = _SPAM.findall(page.lower)
    phrases = set(found)
    if len(phrases) >= SPAM_PHRASES and len(found) > SPAM_DENSITY * len(page.words):
        return f"selling phrases: {', '.join(sorted(phrases)[:3])}"
    links = len(_LINK.findall(page.lower))
    if links >= 3 and links / len(page.words) > SPAM_LINKS:
        return f"{links} links in {len(page.words)} words"
    long = [w for w in page.words if len(w) >= 4 and w[0].isalpha()]
    shouted = sum(1 for w in long if w.isupper())
    return "written in capitals" if shouted >= 8 and shouted / len(long) > CAPITALS else None


def boilerplate(page: Parts) -> str | None:
    """Mostly a site's notices (cookies, accounts, copyright) or lorem ipsum; C4 drops such lines and pages."""
    if "lorem ipsum" in page.lower:
        return "lorem ipsum"
    if not _BOILERPLATE.search(page.lower):
        return None
    sentences = [s for s in _SENTENCE.findall(page.lower) if s.strip(" .!?")]
    notices = sum(1 for s in sentences if _BOILERPLATE.search(s))
    if notices >= 2 and notices / max(len(sentences), 1) >= BOILERPLATE:
        return f"{notices} of {len(sentences)} sentences are notices of a site"
    return None


def few_function_words(languages: Sequence[str]) -> Rule:
    """Fewer than two different function words in every wanted language (Gopher's rule, and lists for six more).

    Word salad and invented words pass every other rule. It is silent when a wanted language has no list here, when the
    text is not in Latin letters, or short.
    """
    known = bool(languages) and all(language in FUNCTION_WORDS for language in languages)
    lists = [frozenset(FUNCTION_WORDS[language].split()) for language in languages] if known else []

    def rule(page: Parts) -> str | None:
        if not lists or len(page.words) < 20 or not _mostly_latin(page.text):
            return None
        words = {word.strip(".,;:!?()\"'“”").lower() for word in page.words}
        most = max(len(words & known_words) for known_words in lists)
        return f"{most} function words" if most < 2 else None

    return rule


def _mostly_latin(text: str) -> bool:
    letters = [c for c in text[:2000] if c.isalpha()]
    return sum(1 for c in letters if c < "\u0250") > 0.5 * len(letters)


def rules(min_words: int, languages: Sequence[str]) -> tuple[tuple[str, Rule], ...]:
    """(name, rule) in the order in which they are asked; the first that answers drops the document."""
    return (
        ("too_short", too_short(min_words)),
        ("undecodable", undecodable),
        ("spam", spam),
        ("boilerplate", boilerplate),
        ("gibberish", gibberish),
        ("word_length", word_length),
        ("symbol_ratio", symbol_ratio),
        ("bullets_and_ellipses", bullets_and_ellipses),
        ("duplicate_lines", duplicate_lines),
        ("top_ngrams", top_ngrams),
        ("duplicate_ngrams", duplicate_ngrams),
        ("few_function_words", few_function_words(languages)),
    )
