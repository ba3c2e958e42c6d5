"""A model folder <-> the network. Every folder we write is a Hugging Face folder: config.json, model.safetensors,
generation_config.json and the tokenizer's files. Inside, some weights are fused for speed; on disk they have the names
of transformers' LLaMA."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from palate.errors import BadInput, Unsupported
from palate.nn.config import Shape
from palate.nn.transformer import Block, LanguageModel, ScalarModel, Trunk

ARCHITECTURES = ("LlamaForCausalLM", "LlamaForSequenceClassification")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def save_language_model(
    folder: Path, model: LanguageModel, tokenizer: Path, *, stops: Sequence[int], ids: Mapping[str, int]
) -> None:
    """Write `model` into `folder` with the tokenizer files of the folder `tokenizer`.

    stops: ids at which generation ends; ids: {"pad": .., "bos": .., "eos": ..}.
    """
    config = _config(model.shape, "LlamaForCausalLM", ids)
    tensors = _to_disk(model.trunk, prefix="model.")
    if not model.shape.tied:
        tensors["lm_head.weight"] = model.head.weight
    _write(folder, config, tensors, tokenizer)
    generation = {
        "bos_token_id": ids["bos"],
        "eos_token_id": list(stops),
        "pad_token_id": ids["pad"],
        "do_sample": True,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def save_scalar_model(
    folder: Path,
    model: ScalarModel,
    tokenizer: Path,
    *,
    labels: Sequence[str],
    ids: Mapping[str, int],
    extra: Mapping[str, Any],
) -> None:
    """Write a scoring model as a sequence-classification folder, one label per score; `extra` goes into config.json
    under "palate"."""
    config = _config(model.shape, "LlamaForSequenceClassification", ids)
    config["num_labels"] = len(labels)
    config["id2label"] = {str(i): name for i, name in enumerate(labels)}
    config["label2id"] = {name: i for i, name in enumerate(labels)}
    config["palate"] = dict(extra)
    _write(folder, config, {**_to_disk(model.trunk, prefix="model."), "score.weight": model.score.weight}, tokenizer)


def load_language_model(folder: Path) -> LanguageModel:
    """The language model in a folder of ours or of transformers (LLaMA). Raises BadInput or Unsupported."""
    config, tensors = _read(folder, "LlamaForCausalLM")
    model = LanguageModel(Trunk(_shape(config, folder)))
    state = {f"trunk.{k}": v for k, v in _from_disk(tensors, model.shape, folder).items()}
    state["head.weight"] = tensors["model.embed_tokens.weight" if model.shape.tied else "lm_head.weight"]
    model.load_state_dict(state)
    return model


def load_scalar_model(folder: Path) -> tuple[ScalarModel, dict[str, Any]]:
    """The scoring model in `folder` and what its config holds under "palate"."""
    config, tensors = _read(folder, "LlamaForSequenceClassification")
    model = ScalarModel(Trunk(_shape(config, folder)), len(config["id2label"]))
    state = {f"trunk.{k}": v for k, v in _from_disk(tensors, model.shape, folder).items()}
    state["score.weight"] = tensors["score.weight"]
    model.load_state_dict(state)
    return model, dict(config.get("palate", {}))


def check_vocabulary(model: LanguageModel, vocab: int, folder: Path) -> None:
    """Refuse a model whose embedding has no row for some of its tokenizer's `vocab` ids. Raises BadInput."""
    if model.shape.vocab < vocab:
        raise BadInput(
            f"the model knows {model.shape.vocab} ids and its tokenizer makes {vocab}: they do not belong together.",
            folder,
            "Copy model and tokenizer from the same place.",
        )


def trunk_copy(trunk: Trunk) -> Trunk:
    """A new trunk with the same weights: a reward model starts as the SFT model's body."""
    copy = Trunk(trunk.shape)
    copy.load_state_dict(trunk.state_dict())
    return copy


def _config(shape: Shape, architecture: str, ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.dim,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "float32",
        "pad_token_id": ids["pad"],
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
    }


def _shape(config: Mapping[str, Any], folder: Path) -> Shape:
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    unsupported = [
        name
        for name, present in (
            ("attention_bias", config.get("attention_bias")),
            ("mlp_bias", config.get("mlp_bias")),
            ("rope scaling", scaling.get("rope_type", scaling.get("type", "default")) != "default"),
            (f"hidden_act {config.get('hidden_act')}", config.get("hidden_act", "silu") != "silu"),
        )
        if present
    ]
    if unsupported:
        raise Unsupported(f"{folder}: {', '.join(unsupported)} is not supported yet.")
    try:
        heads = int(config["num_attention_heads"])
        shape = Shape(
            vocab=int(config["vocab_size"]),
            layers=int(config["num_hidden_layers"]),
            dim=int(config["hidden_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            hidden=int(config["intermediate_size"]),
            context=int(config["max_position_embeddings"]),
            rope_theta=float(config.get("rope_theta") or scaling.get("rope_theta") or 10_000.0),
            norm_eps=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"config.json lacks or garbles {error}.", folder, "Copy the folder again.") from None
    if config.get("head_dim") not in (None, shape.head_dim):
        raise Unsupported(
            f"{folder}: head_dim {config['head_dim']} differs from hidden_size / heads, not supported yet."
        )
    return shape


def _to_disk(trunk: Trunk, prefix: str) -> dict[str, Tensor]:
    tensors = {f"{prefix}embed_tokens.weight": trunk.embed.weight, f"{prefix}norm.weight": trunk.norm.weight}
    for i, block in enumerate(cast(list[Block], trunk.blocks)):
        at = f"{prefix}layers.{i}."
        shape = trunk.shape
        query, key, value = (
            part.flatten(0, 1)
            for part in block.attention.qkv.weight.view(-1, shape.head_dim, shape.dim).split_with_sizes(
                (shape.heads, shape.kv_heads, shape.kv_heads)
            )
        )
        gate, up = block.feed_forward.gate_up.weight.chunk(2)
        tensors |= {
            f"{at}self_attn.q_proj.weight": query,
            f"{at}self_attn.k_proj.weight": key,
            f"{at}self_attn.v_proj.weight": value,
            f"{at}self_attn.o_proj.weight": block.attention.out.weight,
            f"{at}mlp.gate_proj.weight": gate,
            f"{at}mlp.up_proj.weight": up,
            f"{at}mlp.down_proj.weight": block.feed_forward.down.weight,
            f"{at}input_layernorm.weight": block.norm_attention.weight,
            f"{at}post_attention_layernorm.weight": block.norm_feed_forward.weight,
        }
    return tensors


def _from_disk(tensors: Mapping[str, Tensor], shape: Shape, folder: Path) -> dict[str, Tensor]:
    try:
        state = {"embed.weight": tensors["model.embed_tokens.weight"], "norm.weight": tensors["model.norm.weight"]}
        for i in range(shape.layers):
            at, to = f"model.layers.{i}.", f"blocks.{i}."
            state |= {
                f"{to}attention.qkv.weight": torch.cat([tensors[f"{at}self_attn.{n}_proj.weight"] for n in "qkv"]),
                f"{to}attention.out.weight": tensors[f"{at}self_attn.o_proj.weight"],
                f"{to}feed_forward.gate_up.weight": torch.cat(
                    [tensors[f"{at}mlp.{n}_proj.weight"] for n in ("gate", "up")]
                ),
                f"{to}feed_forward.down.weight": tensors[f"{at}mlp.down_proj.weight"],
                f"{to}norm_attention.weight": tensors[f"{at}input_layernorm.weight"],
                f"{to}norm_feed_forward.weight": tensors[f"{at}post_attention_layernorm.weight"],
            }
    except KeyError as error:
        raise BadInput(f"model.safetensors has no tensor {error}.", folder, "Copy the folder again.") from None
    return state


def _write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    whole = {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}
    path = folder / "model.safetensors"
    try:
        save_file(whole, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk for one
        raise OSError(errno.EIO, str(error), str(path)) from None
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)


def _read(folder: Path, architecture: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = (config.get("architectures") or ["none"])[0]
    except FileNotFoundError:
        raise BadInput("there is no config.json.", folder, "Name a model folder (ours or Hugging Face's).") from None
    except (ValueError, AttributeError, UnicodeDecodeError):
        raise BadInput("config.json is damaged.", folder, "Copy the folder again.") from None
    if found not in ARCHITECTURES:
        raise Unsupported(f"{folder}: architecture {found} is not supported; supported are {', '.join(ARCHITECTURES)}.")
    if found != architecture:
        raise BadInput(f"this is a {found}, expected a {architecture}.", folder, "Name another model folder.")
    try:
        tensors = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise BadInput(f"model.safetensors cannot be read ({error}).", folder, "Copy the folder again.") from None
    return dict(config), tensors
