"""Text while it is made: characters of several tokens, and stop strings that begin in one and end in another."""

import random

import pytest

from palate.generate.text import pieces
from palate.text import tokenizer as tokenizers

TEXT = "Crème brûlée, 寿司 and 🍲🍲 — stew the beans.\nEND of it: END."


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.train([TEXT] * 3, 300)


def bytewise(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    """One token per byte: no merges, so that every character beyond ASCII is several tokens."""
    vocabulary = tokenizer._backend.get_vocab()
    from tokenizers import pre_tokenizers

    ((word, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return [vocabulary[character] for character in word]


def test_no_character_is_split_and_each_comes_at_once(tokenizer: tokenizers.Tokenizer) -> None:
    ids = bytewise(tokenizer, TEXT)
    assert len(ids) == len(TEXT) + 15
    told = list(pieces(ids, tokenizer.decode))
    assert told == list(TEXT)


def test_the_pieces_are_the_text_whatever_the_bytes(tokenizer: tokenizers.Tokenizer) -> None:
    """Random bytes are mostly no UTF-8; and a reply may stop in the middle of a character."""
    rng = random.Random(0)
    every = [i for i in tokenizer._backend.get_vocab().values() if i > 6]
    for _ in range(300):
        ids = [rng.choice(every) for _ in range(rng.randrange(12))]
        assert "".join(pieces(ids, tokenizer.decode)) == tokenizer.decode(ids)
    cut = bytewise(tokenizer, "ab🍲")[:-1]
    assert "".join(pieces(cut, tokenizer.decode)) == "ab\ufffd"


@pytest.mark.parametrize("stop", [["END"], ["END", "stew"], ["司"], ["zzz"], ["🍲🍲"], ["."], ["the beans.\nEN", "EN"]])
@pytest.mark.parametrize("whole", [True, False])
def test_stop_strings_across_tokens(tokenizer: tokenizers.Tokenizer, stop: list[str], whole: bool) -> None:
    ids = tokenizer.encode(TEXT) if whole else bytewise(tokenizer, TEXT)
    read = []

    def tokens():
        for token in ids:
            read.append(token)
            yield token

    expected = TEXT[: min((place for s in stop if (place := TEXT.find(s)) >= 0), default=len(TEXT))]
    assert "".join(pieces(tokens(), tokenizer.decode, stop)) == expected
    if expected != TEXT:
        assert len(read) < len(ids), "what follows is not asked for"


def test_only_what_may_become_a_stop_is_held_back(tokenizer: tokenizers.Tokenizer) -> None:
    ids = bytewise(tokenizer, "a ENtry, EEND")
    assert list(pieces(ids, tokenizer.decode, ["END"])) == ["a", " ", "ENt", "r", "y", ",", " ", "E"]


def test_a_decoder_that_drops_the_first_space_is_read_with_a_token_before() -> None:
    words = [" one", " two", " three"]
    told = pieces(range(3), lambda ids: "".join(words[i] for i in ids).removeprefix(" "))
    assert list(told) == ["one", " two", " three"]


def test_an_empty_stop_is_refused(tokenizer: tokenizers.Tokenizer) -> None:
    with pytest.raises(ValueError, match="empty stop"):
        list(pieces([1], tokenizer.decode, [""]))
