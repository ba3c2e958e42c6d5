"""A model somebody else trained, read into our network, must tell its story to the letter."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from palate.device import Device
from palate.generate.engine import generate, stream
from palate.generate.sampling import Sampling
from palate.nn.transformer import LanguageModel
from palate.weights import folder as weights

DATA = os.environ.get("PALATE_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="PALATE_DATA, the folder of real data, is not set")
CPU = Device("cpu", torch.float32)


def to_folder(source: Path, folder: Path) -> None:
    """llama2.c's version 0 file (seven int32 of header, then float32 matrices kind by kind) as a LLaMA folder."""
    dim, hidden, layers, heads, kv_heads, vocab, context = np.fromfile(source, dtype="<i4", count=7).tolist()
    numbers = torch.from_numpy(np.fromfile(source, dtype="<f4", offset=28))
    wide = kv_heads * dim // heads
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        part = numbers[at : at + int(np.prod(shape))].view(*shape)
        at += part.numel()
        return part.clone()

    def half_split(rows: torch.Tensor) -> torch.Tensor:
        """From rotating neighbours (0, 1), (2, 3), ... to rotating halves, as Hugging Face keeps queries and keys."""
        return rows.view(-1, dim // heads // 2, 2, dim).transpose(1, 2).reshape(rows.shape).contiguous()

    embed = take(vocab, dim)
    kinds = [
        (name, take(layers, *shape))
        for name, shape in (
            ("input_layernorm", (dim,)),
            ("self_attn.q_proj", (dim, dim)),
            ("self_attn.k_proj", (wide, dim)),
            ("self_attn.v_proj", (wide, dim)),
            ("self_attn.o_proj", (dim, dim)),
            ("post_attention_layernorm", (dim,)),
            ("mlp.gate_proj", (hidden, dim)),
            ("mlp.down_proj", (dim, hidden)),
            ("mlp.up_proj", (hidden, dim)),
        )
    ]
    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": take(dim)}
    for name, stacked in kinds:
        for layer, matrix in enumerate(stacked):
            turned = half_split(matrix) if name.endswith(("q_proj", "k_proj")) else matrix.clone()
            tensors[f"model.layers.{layer}.{name}.weight"] = turned
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("stories260K")
    to_folder(Path(str(DATA)) / "weights" / "stories260K" / "stories260K.bin", folder)
    return weights.load_language_model(folder).eval()


def oracle() -> dict[str, list[float]]:
    path = Path(str(DATA)) / "weights" / "stories260K" / "greedy_oracle.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_its_first_logits(model: LanguageModel) -> None:
    with torch.no_grad():
        logits = model(torch.tensor([[1]]))[0, 0]
    expected = torch.tensor(oracle()["first_logits"])
    torch.testing.assert_close(logits[: len(expected)], expected, atol=1e-4, rtol=0)


def test_its_256_greedy_ids(model: LanguageModel) -> None:
    bos, *expected = (int(i) for i in oracle()["greedy_ids"])
    assert len(expected) >= 255
    sampling = Sampling(max_new_tokens=len(expected), temperature=0.0)
    ((reply,),) = generate(model, [[bos]], sampling, seeds=[0], device=CPU)
    assert list(reply.ids) == expected
    assert list(stream(model, [bos], sampling, seed=0, device=CPU)) == expected
    with torch.no_grad():  # and without the cache, all positions at once
        assert model(torch.tensor([[bos, *expected[:-1]]]))[0].argmax(dim=-1).tolist() == expected
