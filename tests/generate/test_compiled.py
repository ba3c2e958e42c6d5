"""Decoding by our own compiled code, against the network and against the decoder that goes on without it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from generate.test_engine import CPU, PROMPTS, SHAPE, network

from palate.device import Device, compiler
from palate.generate import compiled
from palate.generate.compiled import Compiled
from palate.generate.decoder import Decoder
from palate.generate.engine import generate, stream
from palate.generate.sampling import Sampling
from palate.nn.config import Llama3, Shape

needs_compiler = pytest.mark.skipif(compiler("cpu") is None, reason="this machine has no C++ compiler")
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
    compiled._code.cache_clear()
    yield
    compiled._code.cache_clear()


@needs_compiler
@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, Compiled.few + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_a_step_gives_the_logits_of_the_network(name: str, dtype: torch.dtype, rows: int) -> None:
    """Of a row alone to float32's accuracy with bfloat16 weights, too: only they are rounded, not what they meet."""
    shape = SHAPES[name]
    exact, model = network(shape), Device("cpu", dtype).put(network(shape))
    for parameter, rounded in zip(exact.parameters(), model.parameters(), strict=True):
        parameter.data = rounded.detach().float()
    decoder = compiled.decoder(model, rows, Device("cpu", dtype))
    assert isinstance(decoder, Compiled)
    ids = torch.randint(57, (rows, 60), generator=torch.Generator().manual_seed(0))
    expected = exact(ids)
    close = 1e-4 if dtype == torch.float32 or rows == 1 else 0.1
    for column in range(60):  # the room grows on the way
        decoder.fit(column + 1)
        logits = decoder.step(ids[:, column]).float()
        torch.testing.assert_close(logits, expected[:, column], atol=close, rtol=1e-5)
    assert float(expected.std()) > 0.3


@needs_compiler
@torch.no_grad()
def test_keys_of_many_rows_are_rounded() -> None:
    device = Device("cpu", torch.bfloat16)
    model = device.put(network())
    decoder, plain = compiled.decoder(model, Decoder.few + 1, device), Decoder(model, Decoder.few + 1, device)
    assert isinstance(decoder, Compiled) and decoder.keys[0].dtype == torch.bfloat16
    ids = torch.randint(57, (Decoder.few + 1, 40), generator=torch.Generator().manual_seed(0))
    for column in range(40):
        for one in (decoder, plain):
            one.fit(column + 1)
        ours, theirs = decoder.step(ids[:, column]), plain.step(ids[:, column])
    torch.testing.assert_close(decoder.keys[1], plain.keys[1], atol=0.02, rtol=0.02)
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0)


@needs_compiler
def test_numbers_are_rounded_to_the_nearest() -> None:
    """As torch does; silu(x) * 1 of numbers in bfloat16 is one that is not, and has to be rounded to one."""
    code = compiled._code()
    assert code is not None
    gate = torch.linspace(-80, 90, 4001).bfloat16()
    wide, to = torch.cat((gate, torch.ones_like(gate))), torch.empty_like(gate)
    code.gate_bfloat16(1, len(gate), 1, wide.data_ptr(), to.data_ptr())
    x = gate.double()
    exact = (x / (1 + torch.exp(-x))).bfloat16()
    assert float((to == exact).double().mean()) > 0.999
    torch.testing.assert_close(to.float(), exact.float(), atol=1e-30, rtol=2**-7)
    exactly, full = wide.float(), torch.empty(len(gate))
    code.gate_float32(1, len(gate), 1, exactly.data_ptr(), full.data_ptr())
    torch.testing.assert_close(full.double(), x / (1 + torch.exp(-x)), atol=1e-30, rtol=1e-6)


@needs_compiler
@torch.no_grad()
def test_the_last_of_many_rows_goes_on_with_rounded_keys() -> None:
    """`step` of a row alone reads float32, twice as many bytes as there are."""
    device = Device("cpu", torch.bfloat16)
    model = device.put(network())
    decoder, plain = (make(model, Decoder.few + 1, device) for make in (compiled.decoder, Decoder))
    ids = torch.randint(57, (Decoder.few + 1, 40), generator=torch.Generator().manual_seed(0))
    for column in range(40):
        for one in (decoder, plain):
            one.fit(column + 1)
        tokens = ids[:, column] if column < 20 else ids[5:6, column]
        ours, theirs = decoder.step(tokens), plain.step(tokens)
        if column == 19:
            for one in (decoder, plain):
                one.keep(torch.tensor([5]))
    assert decoder.keys[0].dtype == torch.bfloat16 and decoder.keys[0].shape[0] == 1
    torch.testing.assert_close(decoder.keys[1][:, :, :40], plain.keys[1][:, :, :40], atol=0.02, rtol=0.02)
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0)


@needs_compiler
@torch.no_grad()
def test_scores_of_every_size_are_weighed() -> None:
    """Long queries: scores so far below the largest that their exponentials are 0."""
    model = network()
    for block in model.trunk.blocks:
        block.attention.qkv.weight.data[: 6 * 8] *= 30  # type: ignore[union-attr, operator, index]
    decoder = compiled.decoder(model, 3, CPU)
    ids = torch.randint(57, (3, 40), generator=torch.Generator().manual_seed(0))
    decoder.fit(40)
    for column in range(40):
        logits = decoder.step(ids[:, column])
    torch.testing.assert_close(logits, model(ids)[:, -1], atol=1e-3, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("answers", [1, 5])
def test_replies_are_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    model, sampling = network(), Sampling(max_new_tokens=40, stops=(55, 56))
    for seed, prompt in enumerate(PROMPTS):
        (replies,) = generate(model, [prompt], sampling, seeds=[seed], device=CPU, answers=answers)
        streamed = list(stream(model, prompt, sampling, seed=seed, device=CPU))
        with monkeypatch.context() as without:
            without.setattr(compiled, "_code", lambda: None)
            assert type(compiled.decoder(model, 1, CPU)) is Decoder
            (slow,) = generate(model, [prompt], sampling, seeds=[seed], device=CPU, answers=answers)
        for reply, other in zip(replies, slow, strict=True):
            assert reply.ids == other.ids and reply.logps == pytest.approx(other.logps, abs=1e-5)
        assert streamed == [token for token in replies[0].ids if token not in sampling.stops]


@pytest.mark.parametrize(
    ("rows", "shape", "device"),
    [
        (1, replace(SHAPE, norm="layer", positions="learned", feed_forward="gelu"), CPU),
        (1, replace(SHAPE, positions="learned"), CPU),
        (1, SHAPE, Device("mps", torch.float32)),
    ],
    ids=["gpt2", "learned positions", "another device"],
)
def test_what_it_does_not_know_is_decoded_as_before(
    rows: int, shape: Shape, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(shape)
    monkeypatch.setattr(compiled, "Decoder", lambda model, rows, device: (rows, device))
    assert compiled.decoder(model, rows, device) == (rows, device)


@needs_compiler
def test_weights_of_another_kind_are_decoded_as_before() -> None:
    assert type(compiled.decoder(network().double(), 1, Device("cpu", torch.float64))) is Decoder
    mixed = network()
    mixed.trunk.norm.weight.data = mixed.trunk.norm.weight.data.bfloat16()  # type: ignore[union-attr]
    assert type(compiled.decoder(mixed, 1, CPU)) is Decoder


@needs_compiler
def test_it_is_compiled_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compiled._code() is not None
    kept = list((tmp_path / "palate" / "compiled").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    compiled._code.cache_clear()
    monkeypatch.setattr(compiled.subprocess, "run", lambda *a, **k: pytest.fail("compiled again"))
    assert compiled._code() is not None


@needs_compiler
def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "compiler", lambda kind: "false")
    assert compiled._code() is None
    assert list((tmp_path / "palate" / "compiled").iterdir()) == []
    assert type(compiled.decoder(network(), 1, CPU)) is Decoder


@needs_compiler
def test_a_compiler_that_knows_less_is_given_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    """As Apple's, which has no OpenMP."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "TRIES", (("-fno-such-flag",), *compiled.TRIES[1:]))
    assert compiled._code() is not None


@needs_compiler
@torch.no_grad()
def test_a_step_beyond_the_room_is_refused() -> None:
    decoder = compiled.decoder(network(), 1, CPU)
    decoder.fit(1)
    for _ in range(decoder.room):
        decoder.step(torch.tensor([1]))
    with pytest.raises(IndexError, match=r"position 32 of a room of 32"):
        decoder.step(torch.tensor([1]))
