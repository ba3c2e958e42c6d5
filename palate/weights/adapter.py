"""A folder of adapters <-> the network, in the layout of Hugging Face's `peft`: adapter_config.json and
adapter_model.safetensors, whose names are those of the model's own matrices."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from palate.errors import BadInput, Unsupported
from palate.nn import lora
from palate.nn.config import Shape
from palate.nn.linear import Linear
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.weights import folder as folders
from palate.weights.families import FAMILIES, Place

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ORIGIN = "origin.json"
"""In an adopted base: where it came from."""
OWN = "its own"
"""What it says of the chat template when the model came with one."""
Model = LanguageModel | ScalarModel
M = TypeVar("M", LanguageModel, ScalarModel)


def _layers(shape: Shape) -> Iterator[tuple[str, Place]]:
    """Every matrix inside the blocks: our layer's name in the trunk, and where its weight lies on disk."""
    for place in FAMILIES[shape.family].places(shape):
        if place.ours.startswith("blocks.") and place.ours.endswith(
            ("qkv.weight", "out.weight", "gate_up.weight", "up.weight", "down.weight")
        ):
            yield place.ours.removesuffix(".weight"), place


def adapt(model: M, *, rank: int, alpha: float, rng: torch.Generator) -> M:
    """Freeze `model` and put fresh adapters beside every matrix inside its blocks; a score head goes on learning."""
    _adapt(model, rank=rank, scale=alpha / rank)
    lora.initialise(model, rng)
    return model


def _adapt(model: Model, *, rank: int, scale: float) -> None:
    rows = {name: layer.out_features for name, layer in model.named_modules() if isinstance(layer, Linear)}
    layers = ((f"trunk.{name}", place) for name, place in _layers(model.shape))
    lora.adapt(model, {name: place.rows or (rows[name],) for name, place in layers}, rank=rank, scale=scale)
    if isinstance(model, ScalarModel):
        model.score.requires_grad_()


def beside(model: M, folder: Path) -> M:
    """The network with the adapters in `folder` beside it, which learn; the frozen `model` itself is what they sit on,
    not a copy."""
    adapted = lora.twin(model.requires_grad_(requires_grad=False))
    load(folder, adapted)
    return adapted


def merged(model: Model, base: Path) -> LanguageModel:
    """The network in the folder `base` with what the adapters of `model` learned added to its weights, in float32."""
    whole = folders.load_language_model(base)
    lora.merge(model, whole)
    return whole


def save(folder: Path, model: Model, *, base: Path) -> None:
    """Write the adapters of `model` (and its score head) into `folder`. `base` is the folder they sit on; where it was
    taken from (`palate adopt` notes it), `peft` will look for it there."""
    source, revision = base.name, None
    if (base / ORIGIN).is_file():
        told = json.loads((base / ORIGIN).read_text(encoding="utf-8"))
        source, revision = told["source"], told["revision"]
    family = FAMILIES[model.shape.family]
    layers = dict(lora.adapters(model))
    tensors: dict[str, Tensor] = {}
    for name, place in _layers(model.shape):
        for theirs, (a, b) in zip(place.theirs, layers[f"trunk.{name}"].pairs(), strict=True):
            tensors[_name(family.prefix, theirs, "A")], tensors[_name(family.prefix, theirs, "B")] = a, b
    if isinstance(model, ScalarModel):
        tensors["base_model.model.score.weight"] = model.score.weight
    one = next(iter(layers.values()))
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if isinstance(model, ScalarModel) else "CAUSAL_LM",
        "base_model_name_or_path": source,
        "revision": revision,
        "r": one.rank,
        "lora_alpha": one.scale * one.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(place.transposed for _, place in _layers(model.shape)),
        "target_modules": sorted({t.split(".")[-2] for _, place in _layers(model.shape) for t in place.theirs}),
        "modules_to_save": ["score"] if isinstance(model, ScalarModel) else None,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    folders.write_tensors(folder / WEIGHTS, tensors)


def _name(prefix: str, theirs: str, which: str) -> str:
    return f"base_model.model.{prefix}{theirs.removesuffix('weight')}lora_{which}.weight"


def load(folder: Path, model: Model) -> None:
    """Put the adapters in `folder`, ours or `peft`'s, beside the matrices of `model`, which is frozen. Parts that the
    file has none for get one that adds nothing. Raises BadInput or Unsupported."""
    rank, scale = _read_config(folder)
    _adapt(model, rank=rank, scale=scale)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{WEIGHTS} cannot be read ({error}).", folder, "Copy the folder again.") from None
    prefix, layers = FAMILIES[model.shape.family].prefix, dict(lora.adapters(model))
    for name, place in _layers(model.shape):
        for theirs, pair in zip(place.theirs, layers[f"trunk.{name}"].pairs(), strict=True):
            if _name(prefix, theirs, "A") not in tensors:
                continue
            for which, ours in zip("AB", pair, strict=True):
                _put(tensors, _name(prefix, theirs, which), ours, folder)
    if isinstance(model, ScalarModel):
        _put(tensors, "base_model.model.score.weight", model.score.weight, folder)
    if tensors:
        raise BadInput(f"{WEIGHTS} holds {min(tensors)!r}, which is nothing in this model.", folder, "Name its own.")


@torch.no_grad()
def _put(tensors: dict[str, Tensor], name: str, ours: Tensor, folder: Path) -> None:
    found = tensors.pop(name, None)
    if found is None or found.shape != ours.shape:
        told = "is missing" if found is None else f"is {tuple(found.shape)}, for this model {tuple(ours.shape)}"
        raise BadInput(f"{name} {told} in {WEIGHTS}.", folder, "Name the adapters of this model.")
    ours.copy_(folders.finite(found, name, folder))


def _read_config(folder: Path) -> tuple[int, float]:
    """(rank, what the product is multiplied by)."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        if rank < 1 or not math.isfinite(alpha):
            raise ValueError(f"r = {rank}, lora_alpha = {alpha}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadInput(f"{CONFIG} cannot be read ({error}).", folder, "Copy the folder again.") from None
    others = ("use_dora", "rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices")
    strange = [name for name in others if config.get(name)]
    strange += [f"peft_type {config.get('peft_type')}"] if config.get("peft_type") != "LORA" else []
    strange += [f"bias {config['bias']}"] if config.get("bias", "none") != "none" else []
    if strange:
        raise Unsupported(f"{folder}: adapters with {', '.join(strange)} are not supported.")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
