"""The network against itself and against definitions; tests/weights holds it against transformers."""

import pytest
import torch

from palate.batches.packed import pack
from palate.device import Device, generator
from palate.generate.engine import generate, stream
from palate.generate.sampling import Sampling
from palate.nn import attention
from palate.nn.attention import attend, causal_mask
from palate.nn.config import Shape
from palate.nn.norms import Norm, _RmsNorm
from palate.nn.rotary import Rotary, rotate
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, initialise, pooled

CPU = Device("cpu", torch.float32)
SHAPES = {
    "tied": Shape(vocab=300, layers=2, dim=32, heads=4, kv_heads=4, hidden=64, context=48),
    "grouped, untied": Shape(vocab=300, layers=3, dim=48, heads=6, kv_heads=2, hidden=96, context=48, tied=False),
}


def network(shape: Shape) -> LanguageModel:
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("test"))
    for parameter in model.parameters():  # away from the symmetric start
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator("noise", parameter.shape))
    return model.eval()


def test_packed_texts_do_not_see_each_other() -> None:
    model = network(SHAPES["tied"])
    texts = [list(range(10, 22)), list(range(40, 49)), list(range(80, 100))]
    rows = pack([(t, [1] * len(t)) for t in texts], width=48, pad=0)
    packed = model(rows.ids, rows.segments)
    for text in texts:
        alone = model(torch.tensor([text[:-1]]))[0]
        row, start = next(
            (r, c)
            for r in range(len(rows.ids))
            for c in range(48)
            if rows.ids[r, c : c + len(text) - 1].tolist() == text[:-1]
        )  # fmt: skip
        torch.testing.assert_close(packed[row, start : start + len(text) - 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("longest", "new"), [(7, 40), (35, 12)])  # across the cache's 32 while answering, and asking
def test_generation_with_the_cache_equals_generation_without(longest: int, new: int) -> None:
    model = network(SHAPES["grouped, untied"])
    prompts = [[1, 5, 9], [1, *range(30, 29 + longest)], [1]]
    sampling = Sampling(max_new_tokens=new, temperature=0.0, stops=(299,))
    replies = generate(model, prompts, sampling, seeds=[0] * 3, device=CPU, answers=2)
    for prompt, (one, two) in zip(prompts, replies, strict=True):
        assert one.ids == two.ids  # greedy
        ids = list(prompt)
        for _ in range(new):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            if ids[-1] == 299:
                break
        assert list(one.ids) == ids[len(prompt) :]
        streamed = stream(model, prompt, sampling, seed=0, device=CPU)
        assert list(streamed) == [i for i in one.ids if i != 299]


def test_rotation_equals_complex_multiplication_and_its_gradient_is_right() -> None:
    shape = SHAPES["tied"]
    positions = torch.tensor([[0, 1, 5, 40], [3, 2, 1, 0]])
    cos, sin = Rotary(shape).at(positions)
    x = torch.randn(2, 4, 3, shape.head_dim, generator=generator("x"), dtype=torch.float64)
    half = shape.head_dim // 2
    speeds = shape.rope_theta ** (-2 * torch.arange(half, dtype=torch.float64) / shape.head_dim)
    angles = positions[:, :, None, None] * speeds  # (batch, time, 1, half)
    expected = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    turned = rotate(x, cos.double(), sin.double())
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), dim=-1), atol=1e-5, rtol=0)
    wide = (cos.double(), sin.double())
    assert torch.autograd.gradcheck(lambda y: rotate(y, *wide), (x.requires_grad_(),))


def test_gradients_of_what_is_written_out() -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64, generator=generator("x"), requires_grad=True)
    norm = Norm(8, 1e-5).double()
    norm.weight.data = torch.randn(8, dtype=torch.float64, generator=generator("w"))
    torch.testing.assert_close(norm(x), torch.nn.functional.rms_norm(x, (8,), norm.weight, 1e-5), atol=1e-12, rtol=0)
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(lambda w: _RmsNorm.apply(x.detach(), w, 1e-5), (norm.weight,))


def test_pooling() -> None:
    scores = torch.arange(8.0).view(1, 8, 1)
    mask = torch.tensor([[0.0, 0, 1, 1, 1, 0, 0, 0]])
    assert float(pooled(scores, mask, "mean")) == 3.0
    assert float(pooled(scores, mask, "last")) == 4.0


def test_a_fresh_score_head_gives_scores_of_order_one() -> None:
    """N(0, 1 / sqrt(d + 1)) (Stiennon et al. 2020): the norm makes every coordinate of order one."""
    torch.manual_seed(0)
    weight = ScalarModel(Trunk(SHAPES["tied"]), 2000).score.weight.detach()
    assert float(weight.std()) * (SHAPES["tied"].dim + 1) ** 0.5 == pytest.approx(1, abs=0.02)
    assert abs(float(weight.mean())) < 0.01


@pytest.mark.parametrize("window", [None, 3])
def test_torchs_own_attention_is_the_same(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GPUs run, on texts side by side and padding, forward and backward."""
    source = generator("attention")
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    mask = causal_mask(segments, window)
    parts = [torch.randn(2, 4, 8, 6, generator=source).requires_grad_() for _ in range(3)]
    written = attend(*parts, mask)
    gradients = torch.autograd.grad(written.square().sum(), parts)
    monkeypatch.setattr(attention, "FUSED", {"cpu"})
    fused = attend(*parts, mask)
    torch.testing.assert_close(fused, written, atol=1e-6, rtol=1e-5)
    for one, other in zip(torch.autograd.grad(fused.square().sum(), parts), gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
