"""Model folders of every supported family against transformers, in both directions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from palate.device import Device, generator
from palate.errors import BadInput, Unsupported
from palate.generate.engine import generate, stream
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights

CPU = Device("cpu", torch.float32)
IDS = {"pad": 0, "bos": 1, "eos": 2}
VOCAB, CONTEXT = 270, 64
ROPE = {"rope_theta": 10_000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32} | ROPE  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0} | ROPE
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, grouped, untied": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    "llama, every bias, wide heads": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 20}),
    "llama, other theta and eps": ("Llama", {"rope_parameters": {"rope_theta": 5e5}, "rms_norm_eps": 1e-3}),
    "llama, linear scaling": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.5} | ROPE}),
    "llama, llama3 scaling": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 32}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN, "head_dim": 32}),
    "llama, yarn, its own attention": ("Llama", {"rope_parameters": YARN | {"attention_factor": 0.7}}),
    "llama, yarn, mscale, not rounded": (
        "Llama",
        {"rope_parameters": YARN | {"mscale": 0.8, "mscale_all_dim": 0.5, "truncate": False}},
    ),
    "mistral": ("Mistral", {"num_key_value_heads": 2, "sliding_window": None, "tie_word_embeddings": False}),
    "mistral, sliding window": ("Mistral", {"num_key_value_heads": 1, "sliding_window": 7, "head_dim": 16}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2, untied, yarn": ("Qwen2", {"tie_word_embeddings": False, "rope_parameters": YARN}),
    "qwen2, sliding window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2, "head_dim": 24}),
    "qwen3, biased, untied": ("Qwen3", {"attention_bias": True, "tie_word_embeddings": False, "head_dim": 12}),
    "gpt2": ("GPT2", {}),
    "gpt2, narrow, untied": ("GPT2", {"n_inner": 56, "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}),
}


def theirs(name: str, **changes: Any) -> Any:
    """transformers' model with random weights, far from what it starts as."""
    family, settings = MODELS[name]
    if family == "GPT2":
        common: dict[str, Any] = {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}
        kind = transformers.GPT2LMHeadModel
    else:
        common = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
                  "num_key_value_heads": 4, "max_position_embeddings": CONTEXT, "head_dim": 12,
                  "tie_word_embeddings": True}  # fmt: skip
        kind = getattr(transformers, f"{family}ForCausalLM")
    shared = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{family}Config")(**shared, **common | settings | changes)
    config._attn_implementation = "eager"
    model = kind(config).eval()
    rng = generator("their weights", name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.train(["soup and stew"] * 3, VOCAB).save(folder)
    return folder


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """ids and segments (batch, time): a full row, one padded on the left, one on the right, one on both sides."""
    ids = torch.randint(3, VOCAB, (4, 40), generator=generator("ids"))
    real = torch.ones_like(ids)
    real[1, :11], real[2, 29:], real[3, :4], real[3, 33:] = 0, 0, 0, 0
    return ids * real, real


def their_logits(model: Any, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    positions = (real.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=real, position_ids=positions).logits
    return logits


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_transformers_in_both_directions(name: str, tmp_path: Path, tokenizer: Path) -> None:
    peer = theirs(name)
    peer.save_pretrained(tmp_path / "theirs")
    model = weights.load_language_model(tmp_path / "theirs").eval()
    ids, real = batch()
    expected = their_logits(peer, ids, real)
    counted = real.bool()
    assert float(expected[counted].std()) > 0.3, "random enough to be a test"
    with torch.no_grad():
        ours = model(ids, real)
    torch.testing.assert_close(ours[counted], expected[counted], atol=1e-4, rtol=0)
    assert sum(p.numel() for p in model.parameters()) == model.shape.parameters

    weights.save_language_model(tmp_path / "ours", model, tokenizer, stops=(2,), ids=IDS)
    again = weights.load_language_model(tmp_path / "ours").eval()
    assert again.shape == model.shape
    with torch.no_grad():
        assert torch.equal(again(ids, real), ours), "saving and loading back is exact"
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert type(back) is type(peer)
    assert torch.equal(their_logits(back, ids, real), expected), "what we save, transformers reads to the last bit"
    mine, given = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert set(mine) == set(given) and all(torch.equal(mine[n], given[n]) for n in given)


@pytest.mark.parametrize("name", MODELS)
def test_generation_with_the_cache_equals_generation_without(name: str, tmp_path: Path) -> None:
    theirs(name).save_pretrained(tmp_path)
    model = weights.load_language_model(tmp_path).eval()
    prompts = [[1, 5, 9], [1, *range(30, 60)], [1]]  # padded to the longest, across the cache's 32 while answering
    sampling = Sampling(max_new_tokens=20, temperature=0.0, stops=(2,))
    replies = generate(model, prompts, sampling, seeds=[0] * 3, device=CPU, answers=2)
    for prompt, (one, two) in zip(prompts, replies, strict=True):
        assert one.ids == two.ids
        ids = list(prompt)
        for _ in range(20):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] == 2:
                break
        assert list(one.ids) == ids[len(prompt) :]
        streamed = stream(model, prompt, sampling, seed=0, device=CPU)
        assert list(streamed) == [i for i in one.ids if i != 2]


@pytest.mark.parametrize("name", ["llama, grouped, untied", "mistral", "qwen2", "qwen3", "gpt2"])
def test_scorers_are_read_by_transformers_as_sequence_classifiers(name: str, tmp_path: Path, tokenizer: Path) -> None:
    theirs(name).save_pretrained(tmp_path / "theirs")
    model = ScalarModel(weights.load_language_model(tmp_path / "theirs").trunk, 5)
    weights.save_scalar_model(tmp_path / "ours", model, tokenizer, labels="abcde", ids=IDS, extra={"mean": 1.5})
    again, extra = weights.load_scalar_model(tmp_path / "ours")
    ids = torch.randint(3, VOCAB, (2, 9), generator=generator("ids"))
    assert torch.equal(again(ids), model(ids)) and extra == {"mean": 1.5}
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(peer(ids).logits, model(ids)[:, -1], atol=1e-4, rtol=0)


def test_who_may_read_the_folder_may_read_the_weights(tmp_path: Path, tokenizer: Path) -> None:
    theirs("llama").save_pretrained(tmp_path / "theirs")
    model = weights.load_language_model(tmp_path / "theirs")
    weights.save_language_model(tmp_path / "ours", model, tokenizer, stops=(2,), ids=IDS)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "ours").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_old_and_large_folders(tmp_path: Path) -> None:
    """GPT-2's own folder has no prefix and holds its masks; large models lie in several files, some in bfloat16."""
    model = theirs("gpt2")
    model.save_pretrained(tmp_path)
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(tmp_path / "model.safetensors").items()}
    for layer in range(3):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT)
    save_file(tensors, tmp_path / "model.safetensors")
    ids, real = batch()
    ours = weights.load_language_model(tmp_path)(ids, real)
    torch.testing.assert_close(ours[real.bool()], their_logits(model, ids, real)[real.bool()], atol=1e-4, rtol=0)

    large = theirs("qwen2").to(torch.bfloat16)
    large.save_pretrained(tmp_path / "large", max_shard_size="60KB")
    assert len(list((tmp_path / "large").glob("model-*.safetensors"))) > 2
    ours = weights.load_language_model(tmp_path / "large")(ids, real)
    assert ours.dtype == torch.float32
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "large", dtype=torch.float32).eval()
    torch.testing.assert_close(ours[real.bool()], their_logits(peer, ids, real)[real.bool()], atol=1e-4, rtol=0)
    sorted((tmp_path / "large").glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        weights.load_language_model(tmp_path / "large")


def test_config_written_by_transformers_4(tmp_path: Path) -> None:
    """Before version 5 theta stood by itself and scaling under its own name, with `type` in the oldest."""
    theirs("llama, llama3 scaling").save_pretrained(tmp_path)
    new = weights.load_language_model(tmp_path).shape
    config = json.loads((tmp_path / "config.json").read_text())
    told = config.pop("rope_parameters")
    config["rope_theta"] = told.pop("rope_theta")
    config["rope_scaling"] = told
    told["type"] = told.pop("rope_type")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert weights.load_language_model(tmp_path).shape == new


def llama_but_for(changes: dict[str, Any], folder: Path) -> None:
    """A LLaMA folder whose config.json says something else."""
    theirs("llama").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not supported; supported are LlamaForCausalLM, "
         "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, GPT2LMHeadModel"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "supported are linear, llama3 and yarn"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 4,
          "max_window_layers": 1}, "in some layers only"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    llama_but_for(changes, tmp_path)
    with pytest.raises(Unsupported, match=message):
        weights.load_language_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "holds 'model.layers.2"),
        ({"num_hidden_layers": 4}, r"no tensor 'model.layers.3"),
        ({"hidden_size": 96, "head_dim": 12}, "by config.json it is"),
        ({"num_key_value_heads": 3}, "evenly"),
        ({"num_attention_heads": -4}, "num_attention_heads = -4"),
        ({"vocab_size": "many"}, "vocab_size = 'many'"),
        ({"rms_norm_eps": None}, "rms_norm_eps = None"),
        ({"hidden_size": 2**30, "vocab_size": 2**30}, "by config.json it is"),
    ],
)
def test_a_config_that_does_not_fit_is_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    llama_but_for(changes, tmp_path)
    with pytest.raises(BadInput, match=message):
        weights.load_language_model(tmp_path)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    from palate.nn.transformer import Trunk, initialise

    shape = Shape(vocab=30, layers=2, dim=16, heads=2, kv_heads=2, hidden=24, context=16, family="gpt2", norm="layer",
                  positions="learned", feed_forward="gelu", qkv_bias=True, out_bias=True,
                  feed_forward_bias=True)  # fmt: skip
    states = []
    for _ in range(2):
        model = LanguageModel(Trunk(shape))
        initialise(model, shape, generator("start"))
        states.append(model.state_dict())
        torch.rand(3)  # what others draw in between must not matter
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not states[0]["trunk.blocks.0.attention.qkv.bias"].any()
