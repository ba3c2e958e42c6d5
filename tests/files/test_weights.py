"""Model folders: config.json and weights that are damaged, lie about themselves or belong to another model."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from files.damage import at_most, blocks, check, cuts, equal, flips, outcome, tails, told_in_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import palate
from palate import cli
from palate.device import generator
from palate.errors import PalateError
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, initialise
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights

SHAPE = Shape(vocab=300, layers=1, dim=8, heads=2, kv_heads=1, hidden=16, context=32, tied=False)
IDS = {"pad": 0, "bos": 1, "eos": 2}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    (place / "tokenizer").mkdir()
    tokenizers.train(["the lemon soup of the day"] * 9, 300).save(place / "tokenizer")
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("files"))
    scorer = ScalarModel(Trunk(SHAPE), 2)
    initialise(scorer, SHAPE, generator("files"))
    folders = {name: place / name for name in ("model", "scorer")}
    weights.save_language_model(folders["model"], model, place / "tokenizer", stops=[2], ids=IDS)
    weights.save_scalar_model(
        folders["scorer"],
        scorer,
        place / "tokenizer",
        labels=["clarity", "overall"],
        ids=IDS,
        extra={"pooling": "mean"},
    )
    return folders


@pytest.fixture
def model(originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals["model"], tmp_path / "model"))


@pytest.fixture
def scorer(originals: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals["scorer"], tmp_path / "scorer"))


def state(found: torch.nn.Module) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in found.state_dict().items()}


def load(path: Path) -> list[Any]:
    found = weights.load_language_model(path.parent)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.state_dict().values())
    assert found(torch.tensor([[1, 2, 3]])).shape == (1, 3, found.shape.vocab)
    return [found.shape, state(found)]


def same_shape(good: object, got: object) -> bool:
    """Weights carry no checksum of their own: a flipped bit in a number is another number. (In a run the manifest has
    one.) Shape and names must be those of the good file."""
    assert isinstance(good, list) and isinstance(got, list)
    return good[0] == got[0] and good[1].keys() == got[1].keys()


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_cut_weights_are_never_half_loaded(model: Path) -> None:
    path = model / "model.safetensors"
    counts = check(load, path, cuts(path.read_bytes()), equal, name="model.safetensors")
    assert counts == {"refused": 51, "loaded": 0}


def test_damaged_weights(model: Path, times: int) -> None:
    path = model / "model.safetensors"
    good = path.read_bytes()
    for damaged in (flips(good, 20 * times, times), blocks(good, 15 * times, times), tails(good)):
        check(load, path, damaged, same_shape, name=model.name)
    header = 8 + struct.unpack("<Q", good[:8])[0]
    in_header = ((what, content + good[header:]) for what, content in flips(good[:header], 30 * times, times))
    check(load, path, in_header, same_shape, name=model.name)


def test_a_damaged_config(model: Path, times: int) -> None:
    """A digit that stays a digit is another model (rope_theta, eps): nothing but a manifest could tell."""
    path = model / "config.json"
    good = path.read_bytes()
    assert check(load, path, cuts(good), equal, name=model.name)["refused"] >= 50
    for damaged in (flips(good, 25 * times, times), blocks(good, 15 * times, times), tails(good)):
        check(load, path, damaged, lambda good, got: True, name=model.name)


# --- a header that lies ----------------------------------------------------------------------------------------------


def with_header(model: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = model / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    text = json.dumps(change(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


NAME = "model.layers.0.mlp.up_proj.weight"


def told(header: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**header, NAME: {**header[NAME], **changes}}


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "shape that needs more bytes": lambda h: told(h, shape=[16, 800]),
    "shape turned": lambda h: told(h, shape=[8, 16]),
    "shape of one dimension": lambda h: told(h, shape=[128]),
    "huge shape": lambda h: told(h, shape=[2**40, 2**40]),
    "negative shape": lambda h: told(h, shape=[-16, -8]),
    "shape of text": lambda h: told(h, shape="16"),
    "unknown dtype": lambda h: told(h, dtype="F33"),
    "integers": lambda h: told(h, dtype="I32"),
    "halves": lambda h: told(h, dtype="F16"),
    "offsets beyond the end": lambda h: told(h, data_offsets=[0, 2**50]),
    "offsets backwards": lambda h: told(h, data_offsets=[512, 0]),
    "offsets of another tensor": lambda h: told(h, data_offsets=h["model.norm.weight"]["data_offsets"]),
    "a tensor renamed": lambda h: {k.replace("up_proj", "upproj"): v for k, v in h.items()},
    "a list": lambda h: [h],
    "nothing": lambda h: {},
    "text": lambda h: "header",
    "a tensor that is none": lambda h: {**h, NAME: None},
}


def refused(model: Path, what: str) -> None:
    got = outcome(load, model / "model.safetensors", what)
    assert isinstance(got, PalateError), f"{what}: loaded"
    told_in_one_line(got, model.name)


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(lie: str, model: Path) -> None:
    with_header(model, LIES[lie])
    refused(model, lie)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_header_of_another_length(length: int, model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(PalateError, match=r"model\.safetensors"), at_most(10):
        load(path)


# --- tensors that are not those of the config ------------------------------------------------------------------------


def changed(model: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors")


def put(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, value)


def poisoned(value: float) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors[NAME].view(-1).__setitem__(77, value)


WRONG: dict[str, Callable[[dict[str, Tensor]], None]] = {
    "one missing": lambda tensors: tensors.__delitem__(NAME),
    "the head missing": lambda tensors: tensors.__delitem__("lm_head.weight"),
    "one too many": put("model.layers.1.mlp.up_proj.weight", torch.zeros(16, 8)),
    "NaN": poisoned(float("nan")),
    "infinite": poisoned(float("-inf")),
    "another shape": put(NAME, torch.zeros(16, 9)),
    "turned": put(NAME, torch.zeros(8, 16)),
    "a number": put(NAME, torch.zeros(())),
    "empty": put(NAME, torch.zeros(0, 8)),
    "integers": put(NAME, torch.zeros(16, 8, dtype=torch.int8)),
    "booleans": put(NAME, torch.zeros(16, 8, dtype=torch.bool)),
    "complex": put(NAME, torch.zeros(16, 8, dtype=torch.complex64)),
    "eight bits": put(NAME, torch.zeros(16, 8).to(torch.float8_e4m3fn)),
    "another vocabulary": put("model.embed_tokens.weight", torch.zeros(299, 8)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tensors_that_do_not_belong(wrong: str, model: Path) -> None:
    changed(model, WRONG[wrong])
    refused(model, wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype, model: Path) -> None:
    before = weights.load_language_model(model)
    changed(model, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))
    after = weights.load_language_model(model)
    for name, tensor in after.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, before.state_dict()[name].to(dtype).float(), rtol=0, atol=0)


# --- several files ---------------------------------------------------------------------------------------------------


def in_shards(model: Path) -> Path:
    tensors = load_file(model / "model.safetensors")
    half = sorted(tensors)[: len(tensors) // 2]
    parts = [{n: tensors[n] for n in half}, {n: t for n, t in tensors.items() if n not in half}]
    index = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(part, model / name)
        index |= dict.fromkeys(part, name)
    (model / "model.safetensors").unlink()
    path = model / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return path


def test_weights_in_several_files(model: Path, times: int) -> None:
    whole = load(model / "model.safetensors")
    path = in_shards(model)
    assert load(path) == whole
    good = path.read_bytes()
    check(load, path, cuts(good), equal, name=model.name)
    for damaged in (flips(good, 20 * times, times), blocks(good, 15 * times, times), tails(good)):
        check(load, path, damaged, equal, name=model.name)
    part = model / "model-00002-of-00002.safetensors"
    assert check(load, part, cuts(part.read_bytes()), equal, name=part.name)["loaded"] == 0
    part.unlink()
    with pytest.raises(PalateError, match="model-00002-of-00002"):
        load(path)


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        5,
        [],
        {},
        {"a": 5},
        {"a": None},
        {"a": "../x.safetensors"},
        {"a": "/dev/zero"},
        {"a": "a\0b"},
        {"a": ""},
        "x",
    ],
    ids=str,
)
def test_an_index_of_anything(weight_map: Any, model: Path) -> None:
    path = in_shards(model)
    for text in (json.dumps({"weight_map": weight_map}), json.dumps(weight_map), "[" * 9000):
        path.write_text(text)
        got = outcome(load, path, text[:50])
        assert isinstance(got, PalateError)
        told_in_one_line(got, model.name)


def test_an_index_never_leads_out_of_the_folder(model: Path) -> None:
    """Though the file is there and would be right."""
    path = in_shards(model)
    part = model / "model-00002-of-00002.safetensors"
    part.rename(model.parent / part.name)
    path.write_text(path.read_text().replace(part.name, f"../{part.name}"))
    with pytest.raises(PalateError, match="outside the folder"):
        load(path)


# --- config.json -----------------------------------------------------------------------------------------------------

SIZES = st.sampled_from([0, -1, 1, 7, 2**31, 2**63, 2**100, 0.0, 1.5, -0.5, 1e300, float("inf"), float("nan")])
VALUES = st.recursive(
    SIZES | st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from(["silu", "gelu", "llama3", "yarn"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["rope_type", "type", "factor", "rope_theta", "0", "mix"]), inner, max_size=2)
    ),
    max_leaves=4,
)
MORE = ["rope_scaling", "rope_parameters", "sliding_window", "use_sliding_window", "layer_types", "quantization_config",
        "partial_rotary_factor", "pretraining_tp", "palate", "id2label"]  # fmt: skip


@pytest.mark.parametrize("kind", ["model", "scorer"])
def test_any_value_in_config(kind: str, originals: dict[str, Path], tmp_path: Path, times: int) -> None:
    folder = Path(shutil.copytree(originals[kind], tmp_path / "model"))
    path = folder / "config.json"
    good = json.loads(path.read_text())
    whole = load(path)[1] if kind == "model" else state(weights.load_scalar_model(folder)[0])

    def read(path: Path) -> object:
        if kind == "model":
            return load(path)[1]
        found, extra = weights.load_scalar_model(path.parent)
        assert isinstance(extra, dict)
        found(torch.tensor([[1, 2, 3]]))
        return state(found)

    @settings(max_examples=40 * times, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from([*good, *MORE]), VALUES, st.booleans())
    def one(name: str, value: Any, gone: bool) -> None:
        values = {k: v for k, v in good.items() if k != name} if gone else {**good, name: value}
        path.write_text(json.dumps(values))
        got = outcome(read, path, f"{name} {'gone' if gone else value!r}")
        if isinstance(got, PalateError):
            told_in_one_line(got, folder.name)
        else:
            assert got == whole, f"{name} = {value!r} changed the weights that were read"

    one()


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"x"', "{}", '{"architectures": []}', '{"architectures": 5}',
                                  '{"architectures": [null]}', "[" * 9000, "\xff", '{"a": ' + "9" * 5000 + "}"],
                         ids=lambda text: text[:16])  # fmt: skip
def test_a_config_that_is_none(text: str, model: Path, scorer: Path) -> None:
    readers: tuple[Callable[[Path], object], ...] = (
        lambda path: weights.load_language_model(path.parent),
        lambda path: weights.load_scalar_model(path.parent),
    )
    for folder, read in zip((model, scorer), readers, strict=True):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        got = outcome(read, folder / "config.json", text[:20])
        assert isinstance(got, PalateError)
        told_in_one_line(got, folder.name)


def test_a_model_of_the_other_kind(model: Path, scorer: Path) -> None:
    with pytest.raises(PalateError, match="LlamaForSequenceClassification"):
        weights.load_language_model(scorer)
    with pytest.raises(PalateError, match="LlamaForCausalLM"):
        weights.load_scalar_model(model)


def test_files_that_are_no_files(model: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        path = model / name
        good = path.read_bytes()
        path.unlink()
        for make in (lambda path: None, lambda path: path.mkdir()):
            make(path)
            got = outcome(lambda path: palate.load(path.parent), path, "missing or a folder")
            assert isinstance(got, PalateError)
            told_in_one_line(got, model.name)
        path.rmdir()
        path.write_bytes(good)
    assert palate.load(model)


# --- the reward model's own part -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra", [None, {}, {"pooling": "max"}, {"labels": 5}, {"labels": ["a"]}, {"labels": None}], ids=str
)
def test_a_reward_model_without_its_settings(extra: Any, scorer: Path) -> None:
    """A classifier that somebody else made has none; `score` says so."""
    path = scorer / "config.json"
    good = json.loads(path.read_text())
    given_ = {"pooling": "mean", "labels": ["clarity", "overall"]}
    path.write_text(json.dumps({**good, "palate": given_}))
    assert len(palate.score(scorer, "Soup?", ["yes", "no"])) == 2
    path.write_text(json.dumps({**good, "palate": {**given_, **extra} if extra else extra}))
    got = outcome(lambda _: palate.score(scorer, "Soup?", ["yes", "no"]), path, str(extra))
    assert isinstance(got, PalateError)
    told_in_one_line(got, scorer.name)


# --- through the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_chat_with_a_damaged_folder(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model / name
    good = path.read_bytes()
    for content in (good[: len(good) // 2], b"", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(SystemExit) as end, at_most(30):
            cli.main(["chat", str(model)])
        error = capsys.readouterr().err
        assert end.value.code not in (0, None) and error.count("\n") == 1 and str(model) in error
        assert "Traceback" not in error
