"""The published architectures that a model folder can hold: what their config.json says about the shape, and where on
disk each of our tensors lies. Inside, some weights are fused for speed; on disk they have the names and layouts of
Hugging Face's transformers.

One table per layout, read in both directions, so that what is saved is what is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.errors import BadInput, Unsupported
from palate.nn.config import Linear, Llama3, Shape, Yarn

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where one tensor of a trunk lies on disk."""

    ours: str
    theirs: tuple[str, ...]
    """Several names are one tensor of ours cut into `rows` along its first dimension."""
    rows: tuple[int, ...] = ()
    transposed: bool = False
    """GPT-2 keeps its matrices as (inputs, outputs)."""


@dataclass(frozen=True)
class Family:
    """One architecture."""

    name: str
    """`model_type` in config.json, and `Shape.family`."""
    language_model: str
    scorer: str
    """The classes of transformers, as config.json names them."""
    prefix: str
    """What stands before the trunk's names in a language model or scorer."""
    shape: Callable[[Config, str], Shape]
    """(config, family name) -> shape. Raises Unsupported, KeyError (missing), TypeError or ValueError (garbled)."""
    config: Callable[[Shape], dict[str, Any]]
    places: Callable[[Shape], Iterator[Place]]
    ignored: tuple[str, ...] = ()
    """Endings of names that old folders hold beside the weights: tables made anew from the shape."""


def context_of(folder: Path) -> int:
    """How many tokens the model in `folder` reads, by its config.json; nothing else is read, and torch is not needed.
    Raises BadInput."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return FAMILIES[config["model_type"]].shape(config, config["model_type"]).context
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Unsupported) as error:
        raise BadInput(f"config.json cannot be read ({error}).", folder, "Make it or copy it again.") from None


# --- LLaMA and those that follow its layout -------------------------------------------------------------------------


def _read_llama(config: Config, family: str) -> Shape:
    _refuse(
        {
            f"hidden_act {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
            "a part of each head turned (partial_rotary_factor)": _rope(config).get("partial_rotary_factor", 1.0)
            != 1.0,
        }
    )
    heads = whole(config, "num_attention_heads")
    biased = flag(config, "attention_bias")
    return Shape(
        family=family,
        vocab=whole(config, "vocab_size"),
        layers=whole(config, "num_hidden_layers"),
        dim=whole(config, "hidden_size"),
        heads=heads,
        kv_heads=whole(config, "num_key_value_heads", heads),
        head_dim=whole(config, "head_dim", whole(config, "hidden_size") // heads),
        hidden=whole(config, "intermediate_size"),
        context=whole(config, "max_position_embeddings"),
        norm_eps=number(config, "rms_norm_eps"),
        rope_theta=number(_rope(config), "rope_theta", number(config, "rope_theta", 10_000.0)),
        scaling=_scaling(config),
        window=_window(config, family),
        qk_norm=family == "qwen3",
        qkv_bias=biased or family == "qwen2",
        out_bias=biased,
        feed_forward_bias=flag(config, "mlp_bias"),
        tied=flag(config, "tie_word_embeddings"),
    )


def _write_llama(shape: Shape) -> dict[str, Any]:
    config = {
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
        "tie_word_embeddings": shape.tied,
    }
    if shape.scaling is not None:
        config["rope_scaling"] = _scaling_told(shape.scaling)
    if shape.family == "llama":
        config |= {"attention_bias": shape.out_bias, "mlp_bias": shape.feed_forward_bias}
    if shape.family == "qwen3":
        config["attention_bias"] = shape.out_bias
    if shape.family == "mistral":
        config["sliding_window"] = shape.window
    if shape.family in ("qwen2", "qwen3"):
        config |= {
            "use_sliding_window": shape.window is not None,
            "sliding_window": shape.window,
            "max_window_layers": shape.layers if shape.window is None else 0,
        }
    return config


def _llama_places(shape: Shape) -> Iterator[Place]:
    yield Place("embed.weight", ("embed_tokens.weight",))
    yield Place("norm.weight", ("norm.weight",))
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for i in range(shape.layers):
        ours, theirs = f"blocks.{i}", f"layers.{i}"
        yield Place(f"{ours}.norm_attention.weight", (f"{theirs}.input_layernorm.weight",))
        yield Place(f"{ours}.norm_feed_forward.weight", (f"{theirs}.post_attention_layernorm.weight",))
        for kind in ("weight", "bias") if shape.qkv_bias else ("weight",):
            names = tuple(f"{theirs}.self_attn.{n}_proj.{kind}" for n in "qkv")
            yield Place(f"{ours}.attention.qkv.{kind}", names, rows=(queries, keys, keys))
        for kind in ("weight", "bias") if shape.out_bias else ("weight",):
            yield Place(f"{ours}.attention.out.{kind}", (f"{theirs}.self_attn.o_proj.{kind}",))
        if shape.qk_norm:
            yield Place(f"{ours}.attention.query_norm.weight", (f"{theirs}.self_attn.q_norm.weight",))
            yield Place(f"{ours}.attention.key_norm.weight", (f"{theirs}.self_attn.k_norm.weight",))
        for kind in ("weight", "bias") if shape.feed_forward_bias else ("weight",):
            names = tuple(f"{theirs}.mlp.{n}_proj.{kind}" for n in ("gate", "up"))
            yield Place(f"{ours}.feed_forward.gate_up.{kind}", names, rows=(shape.hidden, shape.hidden))
            yield Place(f"{ours}.feed_forward.down.{kind}", (f"{theirs}.mlp.down_proj.{kind}",))


def _rope(config: Config) -> Config:
    """What config.json says about rotary positions, under its newer or older name."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(told, Mapping):
        raise ValueError(f"rope_scaling = {told!r}")
    return told


def _scaling(config: Config) -> Linear | Llama3 | Yarn | None:
    told = _rope(config)
    kind = told.get("rope_type", told.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise Unsupported(f"rope scaling {kind} is not supported; supported are linear, llama3 and yarn.")
    factor = number(told, "factor")
    if factor < 1:
        raise ValueError(f"rope scaling's factor = {factor}, less than 1")
    if kind == "linear":
        return Linear(factor=factor)
    # Qwen's cards leave the original context to the model's own.
    original = whole(told, "original_max_position_embeddings", whole(config, "max_position_embeddings"))
    if kind == "llama3":
        low, high = number(told, "low_freq_factor"), number(told, "high_freq_factor")
        if not 0 < low < high:
            raise ValueError(f"low_freq_factor = {low} and high_freq_factor = {high}, which must be larger")
        return Llama3(factor=factor, low=low, high=high, original_context=original)
    return Yarn(
        factor=factor,
        original_context=original,
        beta_fast=number(told, "beta_fast", 32.0),
        beta_slow=number(told, "beta_slow", 1.0),
        attention_factor=number(told, "attention_factor", _yarn_attention(told, factor)),
        truncate=bool(told.get("truncate", True)),
    )


def _yarn_attention(told: Config, factor: float) -> float:
    """YaRN, section 3.4: 0.1 ln(factor) + 1; DeepSeek's folders give weights to both halves of a quotient."""

    def strength(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0

    if told.get("mscale") and told.get("mscale_all_dim"):
        return strength(number(told, "mscale")) / strength(number(told, "mscale_all_dim"))
    return strength(1.0)


def _scaling_told(scaling: Linear | Llama3 | Yarn) -> dict[str, Any]:
    match scaling:
        case Linear(factor=factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.original_context,
            }
        case Yarn():
            return {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "original_max_position_embeddings": scaling.original_context,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.truncate,
            }


def _window(config: Config, family: str) -> int | None:
    """The sliding window, where the family has one and every layer uses it."""
    kinds = set(config.get("layer_types") or ())
    if family in ("qwen2", "qwen3"):
        if not flag(config, "use_sliding_window") or config.get("sliding_window") is None:
            return None
        first = 0 if config.get("max_window_layers") == 0 else whole(config, "max_window_layers", 28)
        if not kinds:  # transformers' rule: layers from this one on slide
            layers = range(whole(config, "num_hidden_layers"))
            kinds = {"sliding_attention" if i >= first else "full_attention" for i in layers}
    elif family != "mistral":
        return None
    _refuse({"a sliding window in some layers only": len(kinds) > 1})
    if kinds == {"full_attention"} or config.get("sliding_window") is None:
        return None
    return whole(config, "sliding_window")


# --- GPT-2 ----------------------------------------------------------------------------------------------------------


def _read_gpt2(config: Config, family: str) -> Shape:
    act = config.get("activation_function", "gelu_new")
    _refuse(
        {
            f"activation_function {act}": act not in ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights = false": not config.get("scale_attn_weights", True),
            "scale_attn_by_inverse_layer_idx": config.get("scale_attn_by_inverse_layer_idx", False),
            "add_cross_attention": config.get("add_cross_attention", False),
        }
    )
    dim, heads = whole(config, "n_embd"), whole(config, "n_head")
    return Shape(
        family=family,
        vocab=whole(config, "vocab_size"),
        layers=whole(config, "n_layer"),
        dim=dim,
        heads=heads,
        kv_heads=heads,
        hidden=whole(config, "n_inner", 4 * dim),
        context=whole(config, "n_positions"),
        norm="layer",
        norm_eps=number(config, "layer_norm_epsilon"),
        positions="learned",
        feed_forward="gelu",
        qkv_bias=True,
        out_bias=True,
        feed_forward_bias=True,
        tied=flag(config, "tie_word_embeddings", default=True),
    )


def _write_gpt2(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab,
        "n_embd": shape.dim,
        "n_inner": shape.hidden,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_positions": shape.context,
        "layer_norm_epsilon": shape.norm_eps,
        "activation_function": "gelu_new",
        "tie_word_embeddings": shape.tied,
        # Palate trains without dropout; a folder of ours says so to whoever trains on.
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _gpt2_places(shape: Shape) -> Iterator[Place]:
    yield Place("embed.weight", ("wte.weight",))
    yield Place("place.weight", ("wpe.weight",))
    for kind in ("weight", "bias"):
        yield Place(f"norm.{kind}", (f"ln_f.{kind}",))
        for i in range(shape.layers):
            ours, theirs, matrix = f"blocks.{i}", f"h.{i}", kind == "weight"
            yield Place(f"{ours}.norm_attention.{kind}", (f"{theirs}.ln_1.{kind}",))
            yield Place(f"{ours}.norm_feed_forward.{kind}", (f"{theirs}.ln_2.{kind}",))
            yield Place(f"{ours}.attention.qkv.{kind}", (f"{theirs}.attn.c_attn.{kind}",), transposed=matrix)
            yield Place(f"{ours}.attention.out.{kind}", (f"{theirs}.attn.c_proj.{kind}",), transposed=matrix)
            yield Place(f"{ours}.feed_forward.up.{kind}", (f"{theirs}.mlp.c_fc.{kind}",), transposed=matrix)
            yield Place(f"{ours}.feed_forward.down.{kind}", (f"{theirs}.mlp.c_proj.{kind}",), transposed=matrix)


# --- reading values -------------------------------------------------------------------------------------------------


def whole(config: Config, name: str, default: int | None = None) -> int:
    """A whole number of at least 1. Absent or null takes the default. Raises KeyError or ValueError."""
    value = config[name] if default is None else default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise ValueError(f"{name} = {value!r}")
    return value


def number(config: Config, name: str, default: float | None = None) -> float:
    """A finite number above 0. Absent or null takes the default. Raises KeyError or ValueError."""
    value = config[name] if default is None else default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} = {value!r}")
    return float(value)


def flag(config: Config, name: str, *, default: bool = False) -> bool:
    """True or false. Absent or null takes the default. Raises ValueError."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r}")
    return value


def _refuse(present: Mapping[str, object]) -> None:
    found = [name for name, is_there in present.items() if is_there]
    if found:
        raise Unsupported(f"{', '.join(found)} is not supported.")


def _like_llama(name: str, title: str) -> Family:
    return Family(
        name=name,
        language_model=f"{title}ForCausalLM",
        scorer=f"{title}ForSequenceClassification",
        prefix="model.",
        shape=_read_llama,
        config=_write_llama,
        places=_llama_places,
        ignored=("rotary_emb.inv_freq",),
    )


FAMILIES = {
    "llama": _like_llama("llama", "Llama"),
    "mistral": _like_llama("mistral", "Mistral"),
    "qwen2": _like_llama("qwen2", "Qwen2"),
    "qwen3": _like_llama("qwen3", "Qwen3"),
    "gpt2": Family(
        name="gpt2",
        language_model="GPT2LMHeadModel",
        scorer="GPT2ForSequenceClassification",
        prefix="transformer.",
        shape=_read_gpt2,
        config=_write_gpt2,
        places=_gpt2_places,
        ignored=(".attn.bias", ".attn.masked_bias"),
    ),
}
"""Every family that can be read and written, by `model_type`."""
