"""One token: how likely each is, what is cut off as transformers cuts it, and where random numbers come from."""

import math

import pytest
import torch

from palate.device import generator
from palate.generate.sampling import Sampling, draw, min_p, repetition_penalty, top_k, top_p, uniforms

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("vocab", [30, 64, 200])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_a_token_is_as_likely_as_it_should_be(temperature: float, vocab: int) -> None:
    """Evenly spread numbers in [0, 1) must fall on each token as often as its probability says, to one in all."""
    draws = 20_000
    logits = 2 * torch.randn(1, vocab, generator=generator("logits"))
    uniform = (torch.arange(draws) + 0.5) / draws
    chosen, logp = draw(logits.expand(draws, -1), uniform, Sampling(max_new_tokens=1, temperature=temperature))
    share = torch.bincount(chosen, minlength=vocab) / draws
    weights = [math.exp(float(value) / temperature) for value in logits[0]]
    for token, weight in enumerate(weights):
        assert abs(float(share[token]) - weight / sum(weights)) <= 1.5 / draws
    expected = torch.tensor([math.log(weight / sum(weights)) for weight in weights])
    torch.testing.assert_close(logp, expected[chosen], atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocab", [7, 64, 129])
def test_a_token_of_probability_0_is_never_drawn(vocab: int) -> None:
    """The largest number there is, and 0, where the tokens at both ends are cut off."""
    logits = torch.zeros(3, vocab)
    logits[:, [0, 1, vocab - 2, vocab - 1]] = -math.inf
    token, logp = draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-24]), Sampling(max_new_tokens=1))
    assert token.tolist() == [2, vocab // 2, vocab - 3]
    torch.testing.assert_close(logp, torch.full((3,), -math.log(vocab - 4)))


def test_temperature_0_takes_the_most_likely_and_tells_its_log_prob() -> None:
    logits = torch.randn(5, 40, generator=generator("greedy"))
    token, logp = draw(logits, torch.rand(5), Sampling(max_new_tokens=1, temperature=0.0))
    assert torch.equal(token, logits.argmax(dim=-1))
    torch.testing.assert_close(logp, logits.log_softmax(dim=-1).amax(dim=-1))


LOGITS = 3 * torch.randn(50, 90, generator=generator("cut"))


@pytest.mark.parametrize("k", [1, 2, 17, 90])
def test_top_k_is_transformers(k: int) -> None:
    assert torch.equal(top_k(LOGITS, k), transformers.TopKLogitsWarper(k)(None, LOGITS))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_is_transformers(p: float) -> None:
    assert torch.equal(top_p(LOGITS, p), transformers.TopPLogitsWarper(p)(None, LOGITS))


@pytest.mark.parametrize("p", [0.001, 0.05, 0.5, 1.0])
def test_min_p_is_transformers(p: float) -> None:
    assert torch.equal(min_p(LOGITS, p), transformers.MinPLogitsWarper(p)(None, LOGITS))


@pytest.mark.parametrize("penalty", [0.8, 1.3])
def test_repetition_penalty_is_transformers(penalty: float) -> None:
    ids = torch.randint(90, (50, 30), generator=generator("seen"))
    seen = torch.zeros(50, 90, dtype=torch.bool).scatter_(1, ids, value=True)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids, LOGITS)
    assert torch.equal(repetition_penalty(LOGITS, seen, penalty), expected)


def test_all_of_them_in_the_order_of_transformers() -> None:
    """Penalty, temperature, k, p, min p: the log-probs of what is drawn are those of the processed logits."""
    ids = torch.randint(90, (50, 30), generator=generator("seen"))
    seen = torch.zeros(50, 90, dtype=torch.bool).scatter_(1, ids, value=True)
    logits = LOGITS
    for change in (
        transformers.RepetitionPenaltyLogitsProcessor(1.2), transformers.TemperatureLogitsWarper(1.7),
        transformers.TopKLogitsWarper(25), transformers.TopPLogitsWarper(0.9), transformers.MinPLogitsWarper(0.1),
    ):  # fmt: skip
        logits = change(ids, logits)
    sampling = Sampling(max_new_tokens=1, temperature=1.7, top_k=25, top_p=0.9, min_p=0.1, repetition_penalty=1.2)
    token, logp = draw(LOGITS, torch.rand(50, generator=generator("u")), sampling, seen)
    expected = logits.log_softmax(dim=-1).gather(1, token.unsqueeze(1)).squeeze(1)
    assert len({float(v) for v in expected}) > 20
    torch.testing.assert_close(logp, expected, atol=1e-5, rtol=0)


def test_random_numbers_are_a_function_of_seed_answer_and_place() -> None:
    whole = uniforms([5, 2**63 - 1, 0], 4, 100)
    assert whole.shape == (3, 4, 100)
    assert torch.equal(uniforms([5], 2, 60)[0], whole[0, :2, :60])
    assert torch.equal(uniforms([0], 4, 100)[0], whole[2])
    assert len(whole.unique()) > 1190


def test_random_numbers_are_splitmix64() -> None:
    """The generator's first outputs for seed 0, from its authors' program, are the seeds of answers 0 and 1."""
    from palate.generate.sampling import _mixed, _signed, _steps

    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _mixed(_steps(3)).tolist() == [_signed(value) for value in first]


def test_random_numbers_are_even_and_unrelated() -> None:
    numbers = uniforms(range(100), 10, 100)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    counts = torch.histc(numbers, bins=100, min=0, max=1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 99 + 5 * math.sqrt(2 * 99)
    for one, two in (
        (numbers[1:], numbers[:-1]),
        (numbers[:, 1:], numbers[:, :-1]),
        (numbers[..., 1:], numbers[..., :-1]),
    ):
        together = torch.stack((one.flatten(), two.flatten()))
        assert abs(float(torch.corrcoef(together)[0, 1])) < 4 / math.sqrt(one.numel())


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1.0), ("top_p", 0.0), ("top_p", 1.1), ("min_p", -0.1), ("top_k", -1), ("max_new_tokens", 0),
     ("repetition_penalty", 0.0), ("temperature", math.nan)],
)  # fmt: skip
def test_numbers_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Sampling(**{"max_new_tokens": 5, name: value})  # type: ignore[arg-type]
