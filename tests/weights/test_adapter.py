"""Low-rank adapters: their arithmetic, their files, and `peft` on the same files where it is installed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights.test_families import CONTEXT, VOCAB, theirs

from palate.device import Device, generator
from palate.errors import BadInput, Unsupported
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.nn import lora
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk
from palate.weights import adapter
from palate.weights import folder as weights

SHAPES = {
    "llama": Shape(vocab=40, layers=2, dim=24, heads=4, kv_heads=2, hidden=40, context=16),
    "qwen2": Shape(vocab=40, layers=2, dim=24, heads=4, kv_heads=2, hidden=40, context=16, family="qwen2",
                   qkv_bias=True),
    "gpt2": Shape(vocab=40, layers=2, dim=24, heads=4, kv_heads=4, hidden=40, context=16, family="gpt2", norm="layer",
                  positions="learned", feed_forward="gelu", qkv_bias=True, out_bias=True, feed_forward_bias=True),
}  # fmt: skip
CPU = Device("cpu", torch.float32)
IDS = torch.randint(0, 40, (3, 12), generator=torch.Generator().manual_seed(0))


def language_model(name: str) -> LanguageModel:
    torch.manual_seed(3)
    return LanguageModel(Trunk(SHAPES[name])).float()


def stirred(model: Any, seed: int = 0) -> Any:
    """Adapters with something in them."""
    rng = generator("stirred", seed)
    with torch.no_grad():
        for _, layer in lora.adapters(model):
            layer.B.normal_(0, 0.3, generator=rng)
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_fresh_adapters_change_nothing_and_only_they_learn(name: str) -> None:
    model = language_model(name)
    before = model(IDS)
    adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0))
    assert torch.equal(model(IDS), before)
    model(IDS).square().sum().backward()
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {n for n, _ in model.named_parameters() if n.endswith((".A", ".B"))}
    assert all((p.grad is not None) == (n in learning) for n, p in model.named_parameters())
    assert len(learning) == 2 * 2 * 4  # A and B, two layers, four matrices: qkv, out, gate_up (up), down
    assert all(bool(p.grad.abs().sum() > 0) for n, p in model.named_parameters() if n.endswith(".B"))


@pytest.mark.parametrize("name", SHAPES)
def test_adapters_are_the_papers_equation_and_merge(name: str) -> None:
    """Against W + alpha / rank * B A written out, part by part."""
    model = language_model(name)
    plain = {n: p.detach().clone() for n, p in model.named_parameters()}
    adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0))
    stirred(model)
    expected = language_model(name)
    for layer_name, layer in lora.adapters(model):
        rows = 0
        for number, count in enumerate(layer.parts):
            a, b = layer.A[3 * number : 3 * number + 3], layer.B[rows : rows + count]
            plain[f"{layer_name}.weight"][rows : rows + count] += 6.0 / 3 * (b @ a)
            rows += count
    expected.load_state_dict(plain, strict=False)
    logits = model(IDS)
    torch.testing.assert_close(logits, expected(IDS), atol=1e-5, rtol=1e-5)
    assert (logits - language_model(name)(IDS)).abs().max() > 0.05
    merged = language_model(name)
    lora.merge(model, merged)
    torch.testing.assert_close(merged(IDS), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_decoding_reads_the_adapters(name: str) -> None:
    """Whatever way the engine takes to a layer's weight."""
    model, merged = language_model(name), language_model(name)
    stirred(adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0)))
    lora.merge(model, merged)
    for layer_name, layer in lora.adapters(model):
        torch.testing.assert_close(layer.weight, merged.get_submodule(layer_name).weight)

    def said(of: LanguageModel) -> list[tuple[int, ...]]:
        prompts = [row.tolist() for row in IDS[:, :6]]
        replies = generate(
            of, prompts, Sampling(max_new_tokens=9, temperature=3.0), seeds=range(len(prompts)), device=CPU
        )
        return [reply.ids for (reply,) in replies]

    assert said(model) == said(merged) != said(language_model(name))


def test_twins_share_what_is_frozen_and_learn_apart() -> None:
    model = language_model("llama")
    adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0))
    other = stirred(lora.twin(model))
    mine, its = dict(model.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == its.keys()
    for name, parameter in mine.items():
        assert (parameter is its[name]) == (not parameter.requires_grad), name
    assert other.head.weight is other.trunk.embed.weight
    assert not torch.equal(model(IDS), other(IDS))


LLAMA_NAMES = {
    f"base_model.model.model.layers.{layer}.{part}.lora_{which}.weight"
    for layer in (0, 1)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                 "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    for which in "AB"
}  # fmt: skip
GPT2_NAMES = {
    f"base_model.model.transformer.h.{layer}.{part}.lora_{which}.weight"
    for layer in (0, 1)
    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    for which in "AB"
}


@pytest.mark.parametrize(("name", "names"), [("llama", LLAMA_NAMES), ("gpt2", GPT2_NAMES)])
def test_files_have_pefts_names(name: str, names: set[str], tmp_path: Path) -> None:
    model = language_model(name)
    adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0))
    stirred(model)
    base = tmp_path / "03-base"
    base.mkdir()
    (base / adapter.ORIGIN).write_text('{"source": "org/name", "revision": "abc"}')
    adapter.save(tmp_path, model, base=base)
    tensors = load_file(tmp_path / adapter.WEIGHTS)
    assert set(tensors) == names
    shapes = {n.split(".", 4)[-1]: tuple(t.shape) for n, t in tensors.items() if ".0." in n}
    if name == "llama":
        assert shapes["0.self_attn.k_proj.lora_B.weight"] == (12, 3)
        assert shapes["0.mlp.up_proj.lora_B.weight"] == (40, 3) and shapes["0.mlp.down_proj.lora_A.weight"] == (3, 40)
        rows = dict(lora.adapters(model))["trunk.blocks.0.attention.qkv"]
        found = tensors["base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"]
        assert torch.equal(found, rows.B[24:36]), "keys follow queries"
    else:
        assert shapes["0.attn.c_attn.lora_B.weight"] == (72, 3) and shapes["0.attn.c_attn.lora_A.weight"] == (3, 24)
    config = json.loads((tmp_path / adapter.CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (3, 6.0, "CAUSAL_LM")
    assert config["fan_in_fan_out"] == (name == "gpt2") and (config["base_model_name_or_path"], config["revision"]) == (
        "org/name",
        "abc",
    )
    assert config["target_modules"] == (
        ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
        if name == "llama"
        else ["c_attn", "c_fc", "c_proj"]
    )
    again = language_model(name)
    adapter.load(tmp_path, again)
    assert torch.equal(again(IDS), model(IDS))


def test_a_scorer_keeps_its_head(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = ScalarModel(Trunk(SHAPES["llama"]), 5)
    other = ScalarModel(Trunk(SHAPES["llama"]), 5)
    other.trunk.load_state_dict(model.trunk.state_dict())
    adapter.adapt(model, rank=2, alpha=2.0, rng=generator(0))
    assert model.score.weight.requires_grad
    stirred(model)
    adapter.save(tmp_path, model, base=Path("x"))
    assert json.loads((tmp_path / adapter.CONFIG).read_text())["modules_to_save"] == ["score"]
    adapter.load(tmp_path, other)
    assert torch.equal(other(IDS), model(IDS))


def test_what_is_refused(tmp_path: Path) -> None:
    model = language_model("llama")
    adapter.adapt(model, rank=3, alpha=6.0, rng=generator(0))
    adapter.save(tmp_path, model, base=Path("x"))
    good = json.loads((tmp_path / adapter.CONFIG).read_text())
    for change in ({"use_dora": True}, {"rank_pattern": {"q_proj": 4}}, {"bias": "all"}, {"peft_type": "IA3"}):
        (tmp_path / adapter.CONFIG).write_text(json.dumps(good | change))
        with pytest.raises(Unsupported, match=next(iter(change))):
            adapter.load(tmp_path, language_model("llama"))
    for text in ("{", "[]", json.dumps(good | {"r": 0}), json.dumps(good | {"lora_alpha": None})):
        (tmp_path / adapter.CONFIG).write_text(text)
        with pytest.raises(BadInput, match="cannot be read"):
            adapter.load(tmp_path, language_model("llama"))
    (tmp_path / adapter.CONFIG).write_text(json.dumps(good | {"r": 4}))
    with pytest.raises(BadInput, match=r"is \(3, 24\), for this model \(4, 24\)"):
        adapter.load(tmp_path, language_model("llama"))
    (tmp_path / adapter.CONFIG).write_text(json.dumps(good))
    with pytest.raises(BadInput, match="nothing in this model"):
        adapter.load(tmp_path, language_model("gpt2"))
    tensors = load_file(tmp_path / adapter.WEIGHTS)
    bad = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    save_file(tensors | {bad: tensors[bad] * float("nan")}, tmp_path / adapter.WEIGHTS)
    with pytest.raises(BadInput, match="not finite"):
        adapter.load(tmp_path, language_model("llama"))
    (tmp_path / adapter.WEIGHTS).write_bytes(b"xx")
    with pytest.raises(BadInput, match="cannot be read"):
        adapter.load(tmp_path, language_model("llama"))


FAMILIES = ("llama, grouped, untied", "llama, every bias, wide heads", "mistral", "qwen2", "qwen3", "gpt2")


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_reads_ours(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = theirs(name)
    base.save_pretrained(tmp_path / "base")
    ids = torch.randint(0, VOCAB, (2, CONTEXT // 2), generator=torch.Generator().manual_seed(0))
    model = weights.load_language_model(tmp_path / "base")
    adapter.adapt(model, rank=4, alpha=8.0, rng=generator(0))
    adapter.save(tmp_path / "adapter", stirred(model), base=tmp_path / "base")
    with torch.no_grad():
        plain = base(ids).logits
        read = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        logits = read(ids).logits
        assert (logits - plain).abs().max() > 0.05
        torch.testing.assert_close(model(ids), logits, atol=1e-4, rtol=1e-4)
        whole = adapter.merged(model, tmp_path / "base")
        torch.testing.assert_close(whole(ids), read.merge_and_unload()(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_peft_reads_our_scorer(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import transformers

    theirs(name).save_pretrained(tmp_path / "base")
    ids = torch.randint(1, VOCAB, (2, CONTEXT // 2), generator=torch.Generator().manual_seed(0))
    model = ScalarModel(weights.load_language_model(tmp_path / "base").trunk, 5)
    adapter.adapt(model, rank=4, alpha=8.0, rng=generator(0))
    adapter.save(tmp_path / "adapter", stirred(model), base=tmp_path / "base")
    kind = transformers.AutoModelForSequenceClassification
    base = kind.from_pretrained(tmp_path / "base", num_labels=5, pad_token_id=0)
    read = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[:, -1], read(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "settings", [{}, {"target_modules": "all-linear", "use_rslora": True}], ids=["defaults", "all"]
)
def test_we_read_pefts(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Its defaults adapt two matrices of seven (of GPT-2 one)."""
    peft = pytest.importorskip("peft")
    base = theirs(name)
    base.save_pretrained(tmp_path / "base")
    ids = torch.randint(0, VOCAB, (2, CONTEXT // 2), generator=torch.Generator().manual_seed(0))
    more = {"fan_in_fan_out": True} if name == "gpt2" else {}
    made = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings, **more))
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.3)
        made.eval()
        logits = made(ids).logits
        made.save_pretrained(tmp_path / "adapter")
        model = weights.load_language_model(tmp_path / "base")
        plain = model(ids)
        adapter.load(tmp_path / "adapter", model)
        torch.testing.assert_close(model(ids), logits, atol=1e-4, rtol=1e-4)
        assert (logits - plain).abs().max() > 0.05
