"""Sampling one token, and whole batches against decoding each reply by itself without a cache."""

import pytest
import torch

from palate.device import Device, generator
from palate.generate.engine import Reply, generate, pick
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise

CPU = Device("cpu", torch.float32)
SHAPE = Shape(vocab=60, layers=2, dim=32, heads=4, kv_heads=2, hidden=64, context=64)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_a_token_is_as_likely_as_it_should_be(temperature: float) -> None:
    """Evenly spread numbers in [0, 1) must fall on each token as often as its probability says, to one in all."""
    draws = 20_000
    logits = 2 * torch.randn(1, 30, generator=generator("logits"))
    uniform = (torch.arange(draws) + 0.5) / draws
    chosen = pick(logits.expand(draws, -1), uniform, temperature)
    share = torch.bincount(chosen, minlength=30) / draws
    weights = [float(torch.exp(value.double() / temperature)) for value in logits[0]]
    for token, weight in enumerate(weights):
        assert abs(float(share[token]) - weight / sum(weights)) <= 1.5 / draws


def test_the_last_number_stays_inside_the_vocabulary() -> None:
    logits = torch.zeros(3, 7)
    assert pick(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), 1.0).tolist() == [0, 3, 6]


def network() -> LanguageModel:
    model = LanguageModel(Trunk(SHAPE))
    initialise(model, SHAPE, generator("engine"))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator("noise", parameter.shape))
    return model.eval()


@torch.no_grad()
def alone(model: LanguageModel, prompt: list[int], uniform: torch.Tensor, stops: range, temperature: float) -> Reply:
    """The same reply with no cache, no batch and no padding."""
    ids: list[int] = []
    for number in uniform:
        logits = model(torch.tensor([prompt + ids]))[:, -1]
        ids.append(int(pick(logits, number.view(1), temperature)))
        if ids[-1] in stops:
            break
    return Reply(tuple(ids), ids[-1] in stops)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_replies_that_end_at_different_times_are_what_they_are_alone(temperature: float) -> None:
    """One id in twelve ends a reply, so rows leave the batch all the time."""
    model = network()
    prompts = [[1, 5, 9], [1, *range(30, 41)], [1], [7, 8, 9, 10], [50] * 6]
    answers, new, stops = 6, 36, range(55, 60)
    uniforms = torch.rand(len(prompts), answers, new, generator=generator("uniform"))
    replies = generate(
        model,
        prompts,
        stops=stops,
        max_new_tokens=new,
        temperature=temperature,
        rng=generator("uniform"),
        device=CPU,
        answers=answers,
    )
    expected = [
        [alone(model, prompt, uniforms[i, k], stops, temperature) for k in range(answers)]
        for i, prompt in enumerate(prompts)
    ]
    assert replies == expected
    lengths = {len(reply.ids) for several in replies for reply in several}
    assert (
        len(lengths) > 6 and any(r.ended for s in replies for r in s) and not all(r.ended for s in replies for r in s)
    )
