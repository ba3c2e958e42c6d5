"""One row decoded by our own compiled step, against the network and against the decoder that goes on without it."""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generate.test_engine import CPU, PROMPTS, SHAPE, network

from palate.device import Device, compiler
from palate.generate import alone
from palate.generate.alone import Alone
from palate.generate.decoder import Decoder
from palate.generate.engine import generate, stream
from palate.generate.sampling import Sampling
from palate.nn.config import Llama3, Shape

compiled = pytest.mark.skipif(compiler("cpu") is None, reason="this machine has no C++ compiler")
SHAPES = {
    "llama": SHAPE,
    "window": replace(SHAPE, window=5),
    "qk norm": replace(SHAPE, qk_norm=True),
    "biases": replace(SHAPE, qkv_bias=True, out_bias=True, feed_forward_bias=True),
    "odd sizes": replace(SHAPE, vocab=61, dim=42, heads=3, kv_heads=1, head_dim=14, hidden=37),
    "untied": replace(SHAPE, tied=False, known=57),
    "stretched": replace(SHAPE, scaling=Llama3(factor=8.0, low=1.0, high=4.0, original_context=32)),
}


@pytest.fixture
def fresh() -> Iterator[None]:
    """No library that an earlier test opened."""
    alone._compiled.cache_clear()
    yield
    alone._compiled.cache_clear()


@compiled
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_a_step_gives_the_logits_of_the_network(name: str, dtype: torch.dtype) -> None:
    """Of bfloat16 weights, too, to float32's accuracy: only they are rounded, not what they are multiplied with."""
    shape = SHAPES[name]
    exact, model = network(shape), Device("cpu", dtype).put(network(shape))
    for parameter, rounded in zip(exact.parameters(), model.parameters(), strict=True):
        parameter.data = rounded.detach().float()
    decoder = alone.decoder(model, 1, Device("cpu", dtype))
    assert isinstance(decoder, Alone)
    ids = torch.randint(57, (1, 60), generator=torch.Generator().manual_seed(0))
    expected = exact(ids)[0]
    for column in range(60):  # the room grows on the way
        decoder.fit(column + 1)
        logits = decoder.step(ids[:, column])
        torch.testing.assert_close(logits[0], expected[column], atol=1e-4, rtol=1e-5)
    assert float(expected.std()) > 0.3


@compiled
def test_one_reply_is_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = network(), Sampling(max_new_tokens=40, stops=(55, 56))
    for seed, prompt in enumerate(PROMPTS):
        ((reply,),) = generate(model, [prompt], sampling, seeds=[seed], device=CPU)
        streamed = list(stream(model, prompt, sampling, seed=seed, device=CPU))
        with monkeypatch.context() as without:
            without.setattr(alone, "compiler", lambda kind: None)
            without.setattr(alone, "_compiled", alone._compiled.__wrapped__)
            assert type(alone.decoder(model, 1, CPU)) is Decoder
            ((slow,),) = generate(model, [prompt], sampling, seeds=[seed], device=CPU)
        assert reply.ids == slow.ids and reply.logps == pytest.approx(slow.logps, abs=1e-5)
        assert streamed == [token for token in reply.ids if token not in sampling.stops]


@pytest.mark.parametrize(
    ("rows", "shape", "device"),
    [
        (2, SHAPE, CPU),
        (1, replace(SHAPE, norm="layer", positions="learned", feed_forward="gelu"), CPU),
        (1, replace(SHAPE, positions="learned"), CPU),
        (1, SHAPE, Device("mps", torch.float32)),
    ],
    ids=["two rows", "gpt2", "learned positions", "another device"],
)
def test_what_it_does_not_know_is_decoded_as_before(
    rows: int, shape: Shape, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(shape)
    monkeypatch.setattr(alone, "Decoder", lambda model, rows, device: (rows, device))
    assert alone.decoder(model, rows, device) == (rows, device)


@compiled
def test_weights_of_another_kind_are_decoded_as_before() -> None:
    assert type(alone.decoder(network().double(), 1, Device("cpu", torch.float64))) is Decoder
    mixed = network()
    mixed.trunk.norm.weight.data = mixed.trunk.norm.weight.data.bfloat16()  # type: ignore[union-attr]
    assert type(alone.decoder(mixed, 1, CPU)) is Decoder


@compiled
def test_it_is_compiled_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert alone._compiled(torch.float32) is not None
    assert alone._compiled(torch.bfloat16) is not None
    kept = list((tmp_path / "palate" / "compiled").iterdir())
    assert len(kept) == 2 and all(path.suffix == ".so" for path in kept)
    alone._compiled.cache_clear()
    monkeypatch.setattr(alone.subprocess, "run", lambda *a, **k: pytest.fail("compiled again"))
    assert alone._compiled(torch.float32) is not None


@compiled
def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(alone, "compiler", lambda kind: "false")
    assert alone._compiled(torch.float32) is None
    assert list((tmp_path / "palate" / "compiled").iterdir()) == []
    assert type(alone.decoder(network(), 1, CPU)) is Decoder


@compiled
def test_a_compiler_that_knows_less_is_given_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    """As Apple's, which has no OpenMP."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(alone, "TRIES", (("-fno-such-flag",), *alone.TRIES[1:]))
    assert isinstance(alone._compiled(torch.float32), ctypes._CFuncPtr)  # type: ignore[attr-defined]


@compiled
@torch.no_grad()
def test_a_step_beyond_the_room_is_refused() -> None:
    decoder = alone.decoder(network(), 1, CPU)
    decoder.fit(1)
    for _ in range(decoder.room):
        decoder.step(torch.tensor([1]))
    with pytest.raises(IndexError, match=r"position 32 of a room of 32"):
        decoder.step(torch.tensor([1]))
