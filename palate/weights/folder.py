"""A model folder <-> the network. Every folder we write is a Hugging Face folder: config.json, model.safetensors,
generation_config.json and the tokenizer's files. `families` says what the names in it mean."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.errors import BadInput, Unsupported
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk
from palate.weights.families import FAMILIES, Family, Place, whole

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    # Not read here; some of llama.cpp's tools ask for them.
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
WEIGHTS = "model.safetensors"
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
KNOWN = "known_ids"
"""In config.json under "palate": how many ids the tokenizer has, where the model has room for more."""
INDEX = "model.safetensors.index.json"
"""Large models lie in several files; this one says which tensor is in which."""


def save_language_model(
    folder: Path, model: LanguageModel, tokenizer: Path, *, stops: Sequence[int], ids: Mapping[str, int | None]
) -> None:
    """Write `model` into `folder` with the tokenizer files of the folder `tokenizer`.

    stops: ids at which generation ends; ids: {"pad": .., "bos": .., "eos": ..}.
    """
    family = FAMILIES[model.shape.family]
    tensors = _to_disk(model.trunk, family)
    if not model.shape.tied:
        tensors["lm_head.weight"] = model.head.weight
    _write(folder, _config(model.shape, family.language_model, ids), tensors, tokenizer)
    _write_generation(folder, stops, ids)


def _write_generation(folder: Path, stops: Sequence[int], ids: Mapping[str, int | None]) -> None:
    generation = {
        "bos_token_id": ids["bos"],
        "eos_token_id": list(stops),
        "pad_token_id": ids["pad"],
        "do_sample": True,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def copy_weights(
    source: Path, folder: Path, *, known: int, stops: Sequence[int], ids: Mapping[str, int | None]
) -> None:
    """The model of another folder byte for byte, with a config.json that names the ids of its tokenizer: `known` says
    how many there are. Raises OSError."""
    names = list(_weight_files(source))
    for name in [*names, INDEX] if (source / INDEX).is_file() else names:
        shutil.copyfile(source / name, folder / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"pad_token_id": ids["pad"], "bos_token_id": ids["bos"], "eos_token_id": ids["eos"]}
    config["palate"] = {KNOWN: known}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_generation(folder, stops, ids)


def save_scalar_model(
    folder: Path,
    model: ScalarModel,
    tokenizer: Path,
    *,
    labels: Sequence[str],
    ids: Mapping[str, int | None],
    extra: Mapping[str, Any],
) -> None:
    """Write a scoring model as a sequence-classification folder, one label per score; `extra` goes into config.json
    under "palate"."""
    family = FAMILIES[model.shape.family]
    config = _config(model.shape, family.scorer, ids)
    config["num_labels"] = len(labels)
    config["id2label"] = {str(i): name for i, name in enumerate(labels)}
    config["label2id"] = {name: i for i, name in enumerate(labels)}
    config["palate"] = config.get("palate", {}) | dict(extra)
    _write(folder, config, {**_to_disk(model.trunk, family), "score.weight": model.score.weight}, tokenizer)


def load_language_model(folder: Path) -> LanguageModel:
    """The language model in a folder of ours or of transformers. Raises BadInput or Unsupported, whose message names
    what is supported."""
    config, family = _read_config(folder, {f.language_model: f for f in FAMILIES.values()})
    shape = _shape(config, family, folder)
    tensors = _read_tensors(folder)
    with torch.device("meta"):  # no memory, no random numbers: the file's tensors take these places
        model = LanguageModel(Trunk(shape))
    state = _trunk_state(tensors, model.trunk, family, folder)
    if shape.tied:
        tensors.pop("lm_head.weight", None)
        state["head.weight"] = state["trunk.embed.weight"]
    else:
        state["head.weight"] = _take(tensors, "lm_head.weight", model.head.weight.shape, folder)
    _fill(model, state, left=tensors, family=family, folder=folder)
    if shape.tied:
        model.head.weight = model.trunk.embed.weight
    return model


def read_extra(folder: Path) -> dict[str, Any]:
    """What config.json of a scoring model holds under "palate"; its weights are not read."""
    return dict(_read_config(folder, {f.scorer: f for f in FAMILIES.values()})[0].get("palate", {}))


def load_scalar_model(folder: Path) -> tuple[ScalarModel, dict[str, Any]]:
    """The scoring model in `folder` and what its config holds under "palate". Raises as `load_language_model`."""
    config, family = _read_config(folder, {f.scorer: f for f in FAMILIES.values()})
    shape = _shape(config, family, folder)
    labels, extra = config.get("id2label"), config.get("palate", {})
    if not isinstance(labels, dict) or not labels or not isinstance(extra, dict):
        raise BadInput("config.json lacks or garbles 'id2label'.", folder, "Copy the folder again.")
    tensors = _read_tensors(folder)
    with torch.device("meta"):
        model = ScalarModel(Trunk(shape), len(labels))
    state = _trunk_state(tensors, model.trunk, family, folder)
    state["score.weight"] = _take(tensors, "score.weight", model.score.weight.shape, folder)
    _fill(model, state, left=tensors, family=family, folder=folder)
    return model, extra


def fit_vocabulary(model: LanguageModel, vocab: int, folder: Path) -> None:
    """Let a model say nothing but its tokenizer's `vocab` ids. Raises BadInput when it lacks some of them."""
    if model.shape.vocab < vocab:
        raise BadInput(
            f"the model knows {model.shape.vocab} ids and its tokenizer makes {vocab}: they do not belong together.",
            folder,
            "Copy model and tokenizer from the same place.",
        )
    model.head.known = vocab


def with_one_more_id(model: LanguageModel) -> LanguageModel:
    """The model with room for one id more, whose row is the mean of the others, so that no distribution changes much
    (Hewitt 2021, "Initializing new word embeddings for pretrained language models")."""
    grown = LanguageModel(Trunk(dataclasses.replace(model.shape, vocab=model.shape.vocab + 1)))
    state = model.state_dict()
    for name in ("trunk.embed.weight", "head.weight"):
        state[name] = torch.cat([state[name], state[name].mean(dim=0, keepdim=True)])
    grown.load_state_dict(state)
    return grown


def trunk_copy(trunk: Trunk) -> Trunk:
    """A new trunk with the same weights: a reward model starts as the SFT model's body."""
    copy = Trunk(trunk.shape)
    copy.load_state_dict(trunk.state_dict())
    return copy


# --- config.json ----------------------------------------------------------------------------------------------------


def _config(shape: Shape, architecture: str, ids: Mapping[str, int | None]) -> dict[str, Any]:
    known = {} if shape.known is None else {"palate": {KNOWN: shape.known}}
    return {
        "architectures": [architecture],
        "model_type": shape.family,
        **FAMILIES[shape.family].config(shape),
        "torch_dtype": "float32",
        "pad_token_id": ids["pad"],
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        **known,
    }


def _read_config(folder: Path, wanted: Mapping[str, Family]) -> tuple[dict[str, Any], Family]:
    """config.json and the family of its architecture, which must be one of `wanted`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = str((config.get("architectures") or ["none"])[0])
    except FileNotFoundError:
        raise BadInput("there is no config.json.", folder, "Name a model folder (ours or Hugging Face's).") from None
    except (OSError, ValueError, AttributeError, TypeError, LookupError, RecursionError):
        raise BadInput("config.json is damaged.", folder, "Copy the folder again.") from None
    if found in wanted:
        if config.get("quantization_config"):
            raise Unsupported(f"{folder}: quantised weights are not supported; take the folder in full precision.")
        return dict(config), wanted[found]
    if any(found in (f.language_model, f.scorer) for f in FAMILIES.values()):
        raise BadInput(f"this is a {found}, expected one of {', '.join(wanted)}.", folder, "Name another model folder.")
    raise Unsupported(f"{folder}: architecture {found} is not supported; supported are {', '.join(wanted)}.")


def _shape(config: Mapping[str, Any], family: Family, folder: Path) -> Shape:
    try:
        shape = family.shape(config, family.name)
        ours = config.get("palate") or {}
        return dataclasses.replace(shape, known=whole(ours, KNOWN) if KNOWN in ours else None)
    except Unsupported as error:
        raise Unsupported(f"{folder}: {error}") from None
    except KeyError as error:
        raise BadInput(f"config.json lacks {error}.", folder, "Copy the folder again.") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"config.json has a value that cannot be: {error}.", folder, "Copy the folder again.") from None


# --- tensors --------------------------------------------------------------------------------------------------------


def _to_disk(trunk: Trunk, family: Family) -> dict[str, Tensor]:
    state, tensors = trunk.state_dict(), {}
    for place in family.places(trunk.shape):
        parts = state[place.ours].split(place.rows or len(state[place.ours]))
        for name, part in zip(place.theirs, parts, strict=True):
            tensors[family.prefix + name] = part.t() if place.transposed else part
    return tensors


def _trunk_state(tensors: dict[str, Tensor], trunk: Trunk, family: Family, folder: Path) -> dict[str, Tensor]:
    """The trunk's tensors under our names, taken out of `tensors`."""
    # Folders of a bare trunk (GPT-2's own) have no prefix.
    prefix = family.prefix if any(name.startswith(family.prefix) for name in tensors) else ""
    shapes = {name: parameter.shape for name, parameter in trunk.named_parameters()}

    def read(place: Place) -> Tensor:
        whole = shapes[place.ours]
        parts = []
        for name, rows in zip(place.theirs, place.rows or whole[:1], strict=True):
            shape = (rows, *whole[1:])
            part = _take(tensors, prefix + name, shape[::-1] if place.transposed else shape, folder)
            parts.append(part.t() if place.transposed else part)
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)

    return {f"trunk.{place.ours}": read(place) for place in family.places(trunk.shape)}


def _take(tensors: dict[str, Tensor], name: str, shape: Sequence[int], folder: Path) -> Tensor:
    """The tensor `name` in float32, taken out of `tensors`. Raises BadInput when it is missing or cannot be right."""
    found = tensors.pop(name, None)
    if found is None:
        raise BadInput(f"{WEIGHTS} has no tensor {name!r}.", folder, "Copy the folder again.")
    if tuple(found.shape) != tuple(shape):
        raise BadInput(
            f"{name} is {tuple(found.shape)} in {WEIGHTS}, by config.json it is {tuple(shape)}.",
            folder,
            "Copy both from the same place.",
        )
    return finite(found, name, folder)


def finite(found: Tensor, name: str, folder: Path) -> Tensor:
    """The tensor of a file in float32. Raises BadInput when a value is not finite, Unsupported for other types."""
    if found.dtype not in DTYPES:
        raise Unsupported(f"{folder}: {name} is {found.dtype}; only float32, float16 and bfloat16 weights are read.")
    values = found.float()
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise BadInput(f"{name} holds values that are not finite.", folder, "Copy or train the model again.")
    return values


def _fill(
    model: nn.Module, state: Mapping[str, Tensor], *, left: Mapping[str, Tensor], family: Family, folder: Path
) -> None:
    """Put `state` into `model`. What is `left` of the file was understood by nobody: the config is another model's."""
    unknown = sorted(name for name in left if not name.endswith(family.ignored or ("\0",)))
    if unknown:
        raise BadInput(
            f"{WEIGHTS} holds {unknown[0]!r} and {len(unknown) - 1} more that config.json says nothing about.",
            folder,
            "Copy both from the same place.",
        )
    model.load_state_dict(state, assign=True)


def _write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_tensors(folder / WEIGHTS, tensors)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file() and tokenizer != folder:
            shutil.copyfile(tokenizer / name, folder / name)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file in float32. Raises OSError."""
    whole = {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk for one
        raise OSError(errno.EIO, str(error), str(path)) from None
    config = next(path.parent.glob("*config.json"))
    path.chmod(config.stat().st_mode & 0o777)  # safetensors gives it to its owner alone


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in _weight_files(folder):
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError, ValueError) as error:
            raise BadInput(f"{name} cannot be read ({error}).", folder, "Copy the folder again.") from None
    return tensors


def _weight_files(folder: Path) -> Iterable[str]:
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise Unsupported(
            f"{folder}: its weights are pickled (.bin), and a pickle runs what it likes when it is read; take a folder "
            f"or revision with .safetensors."
        )
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS]
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise BadInput(f"{INDEX} is damaged.", folder, "Copy the folder again.") from None
    if any(Path(name).name != name for name in names):
        raise BadInput(f"{INDEX} names a file outside the folder.", folder, "Copy the folder again.")
    return names
