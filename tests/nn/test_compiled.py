"""Blocks under torch.compile: the same numbers, the same bits after a resume. Slow: compiling takes seconds."""

import copy
import shutil
from pathlib import Path

import pytest
import torch

from palate import device, flow
from palate.device import Device, generator
from palate.generate.engine import generate
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.recipe import Recipe
from palate.train import resume
from palate.workspace import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(device.compiler("cpu") is None, reason="there is no C++ compiler here"),
    pytest.mark.filterwarnings("ignore"),  # torch's own, about its own parts
]
SHAPES = {
    "llama": Shape(vocab=97, layers=2, dim=32, heads=4, kv_heads=2, hidden=64, context=48),
    "qwen3": Shape(vocab=97, layers=2, dim=32, heads=4, kv_heads=2, hidden=64, context=48, qk_norm=True, qkv_bias=True),
    "gpt2": Shape(
        vocab=97, layers=2, dim=32, heads=4, kv_heads=4, hidden=64, context=48, norm="layer", positions="learned",
        feed_forward="gelu", qkv_bias=True, out_bias=True, feed_forward_bias=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["llama", *(pytest.param(n, marks=pytest.mark.soak) for n in ("qwen3", "gpt2"))])
def test_compiled_blocks_compute_the_same(name: str) -> None:
    torch._dynamo.reset()
    shape = SHAPES[name]
    plain = LanguageModel(Trunk(shape))
    initialise(plain, shape, generator("compiled"))
    compiled = copy.deepcopy(plain)
    compiled.compile_blocks()
    ids = torch.randint(97, (3, 40), generator=generator("ids"))
    segments = torch.ones_like(ids)
    segments[1, 20:], segments[2, 30:] = 2, 0
    results = []
    for model in (plain, compiled):
        logits = model(ids, segments)
        logits.square().mean().backward()
        results.append((logits.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(*(logits for logits, _ in results), atol=1e-5, rtol=1e-4)
    for one, other in zip(*(gradients for _, gradients in results), strict=True):
        torch.testing.assert_close(one, other, atol=1e-7 + 1e-4 * float(one.abs().max()), rtol=0)


def test_decoding_never_compiles() -> None:
    torch._dynamo.reset()
    model = LanguageModel(Trunk(SHAPES["llama"]))
    initialise(model, model.shape, generator("compiled"))
    model.compile_blocks()
    torch._dynamo.utils.counters.clear()
    generate(
        model, [[1, 2, 3]], Sampling(max_new_tokens=5), seeds=[0],
        device=Device("cpu", torch.float32),
    )  # fmt: skip
    assert not torch._dynamo.utils.counters["stats"]


@pytest.mark.parametrize(
    "stage", ["pretrain", *(pytest.param(s, marks=pytest.mark.soak) for s in ("sft", "reward", "ppo"))]
)
def test_a_killed_compiled_run_ends_as_the_uninterrupted_one(
    stage: str, small_run: tuple[Recipe, Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, workspace = small_run
    recipe = recipe.model_copy(update={"hardware": recipe.hardware.model_copy(update={"compile": True})})
    saved = resume.save

    def save_and_die(*args: object, **kwargs: object) -> None:
        saved(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    artifact = {"pretrain": "base", "sft": "sft", "reward": "reward", "ppo": "ppo"}[stage]
    files = []
    for name in ("whole", "killed"):
        torch._dynamo.reset()
        place = Workspace(tmp_path / name)
        shutil.copytree(workspace.folder, place.folder, ignore=shutil.ignore_patterns("controls"))
        shutil.rmtree(place.path(artifact))
        if name == "killed":
            monkeypatch.setattr(resume, "save", save_and_die)
            with pytest.raises(KeyboardInterrupt):
                flow.run_stage(stage, recipe, place)
            monkeypatch.setattr(resume, "save", saved)
            torch._dynamo.reset()
        assert flow.run_stage(stage, recipe, place)
        files.append(place.manifest(artifact)["files"])
    assert files[0] == files[1]
    plain = workspace.manifest(artifact)["files"]
    assert files[0]["model.safetensors"] != plain["model.safetensors"], "it was compiled"
