"""Whole batches against decoding each reply by itself without a cache, and what a reply does not depend on."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from palate.batches.replies import lay_out
from palate.device import Device, generator, seeds
from palate.generate import compiled
from palate.generate.decoder import Decoder
from palate.generate.engine import Reply, generate, stream
from palate.generate.replies import reply_logp
from palate.generate.sampling import Sampling, draw, uniforms
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise

CPU = Device("cpu", torch.float32)
SHAPE = Shape(vocab=60, layers=2, dim=32, heads=4, kv_heads=2, hidden=64, context=64)
STOPS = tuple(range(55, 60))
PROMPTS = [[1, 5, 9], [1, *range(30, 41)], [1], [7, 8, 9, 10], [50] * 6]


def network(shape: Shape = SHAPE) -> LanguageModel:
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("engine"))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator("noise", parameter.shape))
    return model.eval()


@torch.no_grad()
def check(
    replies: list[list[Reply]],
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    sampling: Sampling,
) -> None:
    """Each reply by itself with no cache, no batch and no padding: every token is the one drawn after those before."""
    drawn = uniforms(numbers, len(replies[0]), sampling.max_new_tokens)
    for i, (prompt, several) in enumerate(zip(prompts, replies, strict=True)):
        for k, reply in enumerate(several):
            read = [*prompt, *reply.ids]
            logits = model(torch.tensor([read[:-1]]))[0, len(prompt) - 1 :]
            seen = torch.zeros_like(logits, dtype=torch.bool)
            for step in range(len(reply.ids)):
                seen[step, read[: len(prompt) + step]] = True
            tokens, logps = draw(logits, drawn[i, k, : len(reply.ids)], sampling, seen)
            assert list(reply.ids) == tokens.tolist()
            assert reply.logps == pytest.approx(logps.tolist(), abs=1e-4)
            ends = [token in sampling.stops for token in reply.ids]
            full = min(sampling.max_new_tokens, model.shape.context - len(prompt))
            assert ends[-1] == reply.ended and not any(ends[:-1]) and (reply.ended or len(ends) == full)


@pytest.mark.parametrize("compiler", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize("rows", [1, 3, 8, 512])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1.3},
        {"temperature": 0.0},
        {"repetition_penalty": 1.3, "top_p": 0.9},
        {"top_k": 9, "min_p": 0.02},
    ],
    ids=str,
)
def test_replies_that_end_at_different_times_are_what_they_are_alone(
    rows: int, options: dict[str, float], compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One id in twelve ends a reply, so rows leave the batch and others take their places all the time."""
    if not compiler:
        monkeypatch.setattr(compiled, "_code", lambda: None)
    model = network()
    sampling = Sampling(max_new_tokens=36, stops=STOPS, **options)  # type: ignore[arg-type]
    numbers = seeds(len(PROMPTS), "numbers")
    replies = generate(model, PROMPTS, sampling, seeds=numbers, device=CPU, answers=6, rows=rows)
    check(replies, model, PROMPTS, numbers, sampling)
    lengths = {len(reply.ids) for several in replies for reply in several}
    if options.get("temperature") != 0:
        assert len(lengths) > 6 and {r.ended for s in replies for r in s} == {True, False}


def test_a_reply_depends_on_its_prompt_and_seed_alone() -> None:
    """The same request alone, in a batch of 64, in another order, and where places are filled again and again."""
    model, rng = network(), random.Random(0)
    prompts = [[rng.randrange(50) for _ in range(rng.randrange(1, 20))] for _ in range(64)]
    numbers = seeds(64, "alone")
    sampling = Sampling(max_new_tokens=30, stops=STOPS)
    together = generate(model, prompts, sampling, seeds=numbers, device=CPU)
    order = list(range(64))
    rng.shuffle(order)
    turned = generate(model, [prompts[i] for i in order], sampling, seeds=[numbers[i] for i in order], device=CPU)
    few = generate(model, prompts, sampling, seeds=numbers, device=CPU, rows=5)
    for i in range(64):
        ids = together[i][0].ids
        assert turned[order.index(i)][0].ids == ids and few[i][0].ids == ids
        ((single,),) = generate(model, [prompts[i]], sampling, seeds=[numbers[i]], device=CPU)
        assert single.ids == ids
        streamed = list(stream(model, prompts[i], sampling, seed=numbers[i], device=CPU))
        assert streamed == [token for token in ids if token not in STOPS]
    assert len({reply.ids for (reply,) in together}) > 60
    assert together != generate(model, prompts, sampling, seeds=seeds(64, "others"), device=CPU)


def test_in_batches_of_the_same_shapes_companions_change_no_bit() -> None:
    model, rng = network(), random.Random(1)
    lengths = [rng.randrange(1, 20) for _ in range(12)]
    one, two = ([[rng.randrange(60) for _ in range(n)] for n in lengths] for _ in range(2))
    two[5] = one[5]
    sampling = Sampling(max_new_tokens=20)
    first, second = (
        generate(model, p, sampling, seeds=s, device=CPU) for p, s in ((one, range(12)), (two, range(5, 17)))
    )
    assert first[5] != second[5]
    second = generate(model, two, sampling, seeds=[*range(20, 25), 5, *range(30, 36)], device=CPU)
    assert first[5] == second[5], "ids and log-probs to the last bit"
    assert all(a != b for i, (a, b) in enumerate(zip(first, second, strict=True)) if i != 5)


def test_answers_of_one_prompt_differ_and_the_first_do_not_depend_on_how_many() -> None:
    model, sampling = network(), Sampling(max_new_tokens=12)
    (few,), (many,) = (generate(model, [[1, 2]], sampling, seeds=[7], device=CPU, answers=k) for k in (2, 40))
    assert [r.ids for r in few] == [r.ids for r in many[:2]]
    assert len({r.ids for r in many}) == 40


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probs_are_those_of_the_training_forward(temperature: float) -> None:
    model = network()
    sampling = Sampling(max_new_tokens=24, temperature=temperature, stops=STOPS)
    replies = [reply for (reply,) in generate(model, PROMPTS, sampling, seeds=range(5), device=CPU)]
    laid = lay_out(PROMPTS, [reply.ids for reply in replies], pad=0)
    logp = reply_logp(model, laid, temperature=temperature)
    for row, reply in enumerate(replies):
        torch.testing.assert_close(logp[row][laid.mask[row].bool()], torch.tensor(reply.logps), atol=1e-5, rtol=0)


def test_a_reply_ends_where_the_context_does() -> None:
    """A long prompt gets fewer tokens, and takes none from the short one beside it."""
    model, sampling = network(), Sampling(max_new_tokens=100)
    prompts = [[1] * 60, [2, 3], [4] * 63]
    replies = generate(model, prompts, sampling, seeds=[1, 2, 3], device=CPU)
    assert [len(reply.ids) for (reply,) in replies] == [4, 62, 1]
    assert not any(reply.ended for (reply,) in replies)
    check(replies, model, prompts, [1, 2, 3], sampling)


def test_what_cannot_be_asked() -> None:
    model, sampling = network(), Sampling(max_new_tokens=3)
    assert generate(model, [], sampling, seeds=[], device=CPU) == []
    assert generate(model, [[1]], sampling, seeds=[1], device=CPU, answers=0) == [[]]
    with pytest.raises(ValueError, match=r"64 tokens leaves no room .* context of 64"):
        generate(model, [[1], [2] * 64], sampling, seeds=[1, 2], device=CPU)
    with pytest.raises(ValueError, match="without a token"):
        next(stream(model, [], sampling, seed=0, device=CPU))
    with pytest.raises(ValueError, match="2 prompts and 1 seeds"):
        generate(model, [[1], [2]], sampling, seeds=[1], device=CPU)


def test_the_model_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generate(model, PROMPTS, Sampling(max_new_tokens=3), seeds=range(5), device=CPU)
    generate(model, PROMPTS[:1], Sampling(max_new_tokens=3), seeds=[0], device=CPU)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) and value.is_contiguous()


def test_asking_less_often_who_is_done_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU is asked: rows go on past their ends for a few steps."""
    model, sampling = network(), Sampling(max_new_tokens=36, stops=STOPS)
    expected = generate(model, PROMPTS, sampling, seeds=range(5), device=CPU, answers=6, rows=7)
    monkeypatch.setattr("palate.generate.engine.asked_every", lambda device: 8)
    replies = generate(model, PROMPTS, sampling, seeds=range(5), device=CPU, answers=6, rows=7)
    assert [[r.ids for r in s] for s in replies] == [[r.ids for r in s] for s in expected]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape", [SHAPE, replace(SHAPE, window=5), replace(SHAPE, qk_norm=True)], ids=["llama", "window", "qk norm"]
)
def test_a_step_gives_the_logits_of_the_uncached_forward(shape: Shape, dtype: torch.dtype) -> None:
    device = Device("cpu", dtype)
    model = device.put(network(shape))
    rows = Decoder.few + 8  # more than are decoded with float32 keys
    decoder = Decoder(model, rows, device)
    ids = torch.randint(60, (rows, 40), generator=generator("ids"))
    assert (decoder.keys[0].dtype == torch.float32) == (dtype == torch.float32)
    for column in range(40):
        decoder.fit(column + 1)
        logits = decoder.step(ids[:, column])
    expected = model(ids)[:, -1].float()
    assert float(expected.std()) > 0.3
    torch.testing.assert_close(logits.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)
