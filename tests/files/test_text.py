"""The tokenizer's files, the corpus and the token shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files.damage import all_of, anything, blocks, check, cuts, equal, flips, outcome, tails
from hypothesis import given, settings
from hypothesis import strategies as st
from text.open_models import CHATML, write

from palate.batches.shards import Shard
from palate.errors import BadInput, PalateError
from palate.records import Document, conversation
from palate.text import corpus
from palate.text import tokenizer as tokenizers

TEXT = "Say 'crème brûlée', 日本 and 🍜: it's done in 20 minutes.\n\n\tNext?"
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.train([f"the soup of day {n} is lemon soup with bread" for n in range(50)] * 3, 300).save(folder)
    return folder


def use(path: Path) -> list[Any]:
    """What a stage does with a tokenizer: every id lies below `vocab`, and text comes back as it went in."""
    found = tokenizers.load(path.parent)
    ids = found.encode(TEXT)
    assert all(0 <= i < found.vocab for i in [*ids, found.pad, found.bos, found.eos, found.end])
    assert found.decode(ids) == TEXT
    return [found.vocab, ids, found.fingerprint, found.config]


@pytest.mark.parametrize("name", tokenizers.FILES)
def test_damaged_tokenizers(name: str, made: Path, times: int) -> None:
    path = made / name
    good = path.read_bytes()
    told = made.name  # the folder is named, or the file in it
    assert check(use, path, cuts(good), equal, name=told)["refused"] >= 50
    for damaged in (flips(good, 60 * times, times), blocks(good, 40 * times, times), tails(good)):
        check(use, path, damaged, anything, name=told)


@pytest.mark.parametrize("name", [*tokenizers.FILES, tokenizers.TEMPLATE])
def test_damaged_tokenizers_of_other_models(name: str, tmp_path: Path, times: int) -> None:
    """Nothing vouches for a stranger's files: what still is a tokenizer with a template to train with loads."""
    write(tmp_path, "qwen2")
    (tmp_path / tokenizers.TEMPLATE).write_text(CHATML)

    def use(path: Path) -> None:
        found = tokenizers.load(path.parent)
        found.encode_chat(conversation("Who?", "A chef.", "And now?", "Soup."))
        assert max(found.encode("soup"), default=0) < found.vocab

    path = tmp_path / name
    assert (
        check(use, path, all_of(path.read_bytes(), some=25 * times, seed=times), anything, name=tmp_path.name)[
            "refused"
        ]
        > 10
    )


def test_tokenizers_with_any_value(made: Path, times: int) -> None:
    path = made / "tokenizer.json"
    original = path.read_text()
    good = json.loads(original)
    model = [("model", key) for key in good["model"]]
    places = [*((key,) for key in good), *model, ("added_tokens", 0), ("added_tokens", 0, "id")]

    @settings(max_examples=80 * times, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(places), ANY_JSON | st.just(10**12))
    def one(place: tuple[Any, ...], value: Any) -> None:
        values = json.loads(original)
        holder = values
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        path.write_text(json.dumps(values))
        got = outcome(use, path, f"{place} = {value!r}")
        assert isinstance(got, list) or "\n" not in str(got)

    try:
        one()
    finally:
        path.write_text(original)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "", "{", "[" * 9000])
def test_a_tokenizer_config_that_is_none(content: str, made: Path) -> None:
    path = made / "tokenizer_config.json"
    good = path.read_text()
    try:
        path.write_text(content)
        with pytest.raises(BadInput, match="not a readable tokenizer"):
            tokenizers.load(made)
    finally:
        path.write_text(good)


def test_a_tokenizer_that_its_library_panics_at(made: Path, tmp_path: Path) -> None:
    values = json.loads((made / "tokenizer.json").read_text())
    values["model"]["continuing_subword_prefix"] = "00"
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_bytes((made / "tokenizer_config.json").read_bytes())
    with pytest.raises(BadInput, match="not a readable tokenizer"):
        tokenizers.load(tmp_path)


def test_a_tokenizer_that_loses_letters(made: Path, tmp_path: Path) -> None:
    """A byte without an id is left out by byte-level BPE, without a word."""
    values = json.loads((made / "tokenizer.json").read_text())
    vocab = values["model"]["vocab"]
    vocab["lost"] = vocab.pop("z")
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_bytes((made / "tokenizer_config.json").read_bytes())
    with pytest.raises(BadInput, match="gives back"):
        tokenizers.load(tmp_path)


def test_ids_with_a_gap(made: Path, tmp_path: Path) -> None:
    """A model needs a row for the largest id, however many there are."""
    values = json.loads((made / "tokenizer.json").read_text())
    vocab = values["model"]["vocab"]
    last = max(vocab, key=lambda token: vocab[token])
    vocab[last] += 9
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_bytes((made / "tokenizer_config.json").read_bytes())
    assert tokenizers.load(tmp_path).vocab == vocab[last] + 1 == tokenizers.load(made).vocab + 9


# --- corpus ----------------------------------------------------------------------------------------------------------


def documents(folder: Path) -> list[Document]:
    return list(corpus.read_documents(folder))


@pytest.fixture
def a_corpus(tmp_path: Path) -> Path:
    made = [
        Document(id=f"d{n}", text=f"the text of {n} " * 20, source_kind="text", locator=f"f#{n}", extra={"n": n})
        for n in range(300)
    ]
    corpus.write_documents(tmp_path, made)
    return tmp_path / "documents-00000.parquet"


def test_damaged_corpora(a_corpus: Path, times: int) -> None:
    good = a_corpus.read_bytes()

    def load(path: Path) -> list[Document]:
        return documents(path.parent)

    assert check(load, a_corpus, cuts(good), equal)["refused"] == 51
    for damaged in (flips(good, 60 * times, times), blocks(good, 40 * times, times), tails(good)):
        check(load, a_corpus, damaged, anything)


@pytest.mark.parametrize(
    "change",
    [
        {"text": [None]},
        {"extra": ["{"]},
        {"extra": ["3"]},
        {"extra": [None]},
        {"extra": ["[" * 9000]},
        {"id": None},
        {"text": [5]},
        {"text": [["a"]]},
    ],
    ids=str,
)
def test_a_corpus_of_something_else(change: dict[str, Any], tmp_path: Path) -> None:
    table: dict[str, Any] = {name: ["{}" if name == "extra" else name] for name in corpus.COLUMNS}
    table |= change
    pq.write_table(pa.table({k: v for k, v in table.items() if v is not None}), tmp_path / "documents-00000.parquet")
    with pytest.raises(BadInput, match=r"documents-00000\.parquet.*palate collect") as caught:
        documents(tmp_path)
    assert "\n" not in str(caught.value)


# --- shards ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    lengths = [5, 7, 20, 9]
    np.arange(sum(lengths), dtype=np.uint16).tofile(tmp_path / "val.bin")
    part = {"file": "val.bin", "lengths": lengths, "text_bytes": 100}
    (tmp_path / "index.json").write_text(json.dumps({"dtype": "uint16", "vocab": 50, "val": part}))
    return tmp_path


def rows(path: Path) -> list[Any]:
    shard = Shard(path.parent, "val")
    assert shard.text_bytes > 0 and len(shard.starts) == len(shard.lengths)
    return [shard.rows(list(range(6)), width=8, seed=1).ids.tolist(), shard.text_bytes]


def test_damaged_shards(shards: Path, times: int) -> None:
    path = shards / "val.bin"
    good = path.read_bytes()
    counts = check(rows, path, cuts(good), equal, name=shards.name)
    assert counts["loaded"] == 0, "the index says how long it is"
    check(rows, path, blocks(good, 20 * times, times), anything, name=shards.name)
    check(rows, path, tails(good), equal, name=shards.name)
    path = shards / "index.json"
    check(rows, path, all_of(path.read_bytes(), some=60 * times, seed=times), anything, name=shards.name)


def test_an_index_of_any_values(shards: Path, times: int) -> None:
    path = shards / "index.json"
    good = json.loads(path.read_text())
    places = [("dtype",), ("vocab",), ("val",), ("val", "file"), ("val", "lengths"), ("val", "text_bytes")]
    lengths = st.lists(st.integers(-50, 50) | st.just(2**40), max_size=5) | st.just([41.0]) | st.just([[5, 36]])
    names = st.sampled_from(
        ["float64", "object", "O", "S4", "uint8", "uint64", "i,i", "../val.bin", "/dev/zero", "x\0"]
    )

    @settings(max_examples=100 * times, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(places), ANY_JSON | lengths | names)
    def one(place: tuple[str, ...], value: Any) -> None:
        values = json.loads(json.dumps(good))
        (values["val"] if len(place) == 2 else values)[place[-1]] = value
        path.write_text(json.dumps(values))
        got = outcome(rows, path, f"{place} = {value!r}")
        if isinstance(got, PalateError):
            assert "\n" not in str(got) and "palate tokenize" in str(got)

    one()


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "", "[" * 9000])
def test_an_index_that_is_none(content: str, shards: Path) -> None:
    (shards / "index.json").write_text(content)
    with pytest.raises(BadInput, match="palate tokenize"):
        Shard(shards, "val")
