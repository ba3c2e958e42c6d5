"""The measuring of `make oracles`, on texts small enough to count by hand; and a short run of it."""

import gzip
import math
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from oracles.tiny_shakespeare import cut, random_loss, recipe, run, whole_loss, write_tokens

from palate.batches.shards import Shard
from palate.device import Device
from palate.measure.bits import bits_per_byte
from palate.nn.transformer import LanguageModel
from palate.recipe import Model
from palate.stages.pretrain import build

WIDTH = 16
FLOAT32 = Device("cpu", torch.float32)


def little(vocab: int, *, sure: float = 1.0) -> LanguageModel:
    """With embeddings so large that it is far from uniform, and a wrong neighbour costs something."""
    model = build(Model(layers=1, dim=16, heads=2, context=WIDTH), vocab, seed=0).eval()
    torch.nn.init.normal_(model.trunk.embed.weight, std=sure, generator=torch.Generator().manual_seed(3))
    return model


@pytest.mark.parametrize("length", [WIDTH + 1, 3 * WIDTH, 5 * WIDTH + 1, 5 * WIDTH + 8])
def test_every_character_is_predicted_once_from_its_window(length: int) -> None:
    """One character at a time, from nothing but what stands before it in its window."""
    model = little(7)
    tokens = torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))
    nats = 0.0
    for at in range(1, length):
        before = tokens[(at - 1) // WIDTH * WIDTH : at]
        nats -= model(before[None])[0, -1].log_softmax(dim=-1)[tokens[at]].item()
    assert whole_loss(model, tokens, FLOAT32) == pytest.approx(nats / (length - 1), abs=1e-5)


def test_the_packages_bits_per_byte_are_the_same_measure(tmp_path: Path) -> None:
    """On ASCII, where a character is a byte, and a length that leaves no shorter window over."""
    text = "In the middle of the night, he said. " * 40
    text = text[: len(text) // WIDTH * WIDTH + 1 - WIDTH]
    model = little(write_tokens(tmp_path, train=text, val=text))
    shard = Shard(tmp_path, "val")
    tokens = torch.from_numpy(shard.tokens.astype("int64"))
    bits = bits_per_byte(model, shard, FLOAT32, width=WIDTH)
    model.eval()
    nats_of_all = whole_loss(model, tokens, FLOAT32) * (len(text) - 1)
    assert bits * math.log(2) * len(text) == pytest.approx(nats_of_all, rel=1e-5)


def test_random_windows_stay_inside_and_are_averaged() -> None:
    model = little(7, sure=0.0)
    for length in (WIDTH + 1, 100):
        tokens = torch.randint(7, (length,), generator=torch.Generator().manual_seed(2))
        assert random_loss(model, tokens, FLOAT32, seed=0) == pytest.approx(math.log(7))


def test_the_estimate_from_random_windows_is_near_the_whole() -> None:
    model = little(7)
    tokens = torch.arange(2000) % 7
    whole = whole_loss(model, tokens, FLOAT32)
    assert random_loss(model, tokens, FLOAT32, seed=0) == pytest.approx(whole, rel=0.02)
    assert random_loss(model, tokens, FLOAT32, seed=0) == random_loss(model, tokens, FLOAT32, seed=0)


def test_the_shard_holds_the_text(tmp_path: Path) -> None:
    text, last = cut("to be or not to be, that is the question: " * 10)
    assert (len(text), len(last)) == (378, 42)
    vocab = write_tokens(tmp_path, train=text, val=last)
    symbols = sorted(set(text))
    assert vocab == len(symbols)
    rows = Shard(tmp_path, "train").rows([0, 1, 2], width=WIDTH, seed=0)
    assert "".join(symbols[i] for i in rows.ids.flatten()) == text[: 3 * WIDTH]
    assert "".join(symbols[i] for i in rows.targets.flatten()) == text[1 : 3 * WIDTH + 1]
    assert rows.weights.all()


def test_no_more_characters_or_parameters_than_nanogpt() -> None:
    with pytest.raises(SystemExit, match="nanoGPT trains on 1,536,000"):
        recipe(["pretrain.steps=1001"])
    with pytest.raises(SystemExit, match="rows of 128"):
        recipe(["pretrain.steps=500", "model.context=128"])
    with pytest.raises(SystemExit, match="parameters: nanoGPT's have 810,000"):
        run(recipe(["model.hidden=384", "pretrain.steps=51"]), "abc " * 99, "abc " * 99, seed=0)


@pytest.mark.soak
def test_a_short_run_beats_counting_pairs() -> None:
    """On the first 90 % alone, as when tuning."""
    if "PALATE_DATA" not in os.environ:
        pytest.skip("PALATE_DATA names no folder of real data")
    packed = Path(os.environ["PALATE_DATA"]) / "tinyshakespeare" / "input.txt.gz"
    text, held_out = cut(cut(gzip.decompress(packed.read_bytes()).decode())[0])
    pairs, singles = Counter(pairwise(text)), Counter(text)
    counted = sum(-math.log((pairs[a, b] + 1) / (singles[a] + 65)) for a, b in pairwise(held_out)) / (len(held_out) - 1)
    told = run(recipe(["pretrain.steps=200"]), text, held_out, seed=0)
    assert told["symbols"] == 65
    assert told["nats per character"] < counted - 0.1
