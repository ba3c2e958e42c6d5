"""What models say of a reply does not depend on what stands around it, and what is sampled is what log-probs say."""

import itertools
import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from tests_games import CPU, language_model

from palate.batches.replies import Replies, lay_out
from palate.device import generator
from palate.generate.engine import generate
from palate.generate.replies import reply_logp, reply_logp_and_entropy, reply_scores
from palate.generate.sampling import Sampling
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel
from palate.objectives.policy import reply_kl
from palate.weights.folder import trunk_copy

SHAPE = Shape(vocab=24, layers=2, dim=24, heads=4, kv_heads=2, hidden=48, context=32)
PROMPTS = [[1, 5, 9], [1, 2, 3, 4, 5, 6], [7], [1, 8]]
REPLIES = [[11, 12], [13], [14, 15, 16, 17, 2], [3, 3, 3, 2]]


def noisy(shape: Shape, seed: object, size: float = 0.3) -> LanguageModel:
    """Far from the symmetric start, so that every position and every token matters."""
    model = language_model(shape, seed)
    for name, parameter in model.named_parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator(seed, name))
    return model.requires_grad_(False)


def padded(replies: Replies, left: int, right: int, fill: int) -> Replies:
    """The same rows with `fill` on both sides: segment 0, mask 0."""

    def widen(values: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(values, (left, right), value=value)

    ids = torch.where(replies.segments == 0, fill, replies.ids)
    return Replies(widen(ids, fill), widen(replies.segments, 0), widen(replies.mask, 0))


@pytest.mark.parametrize(("left", "right", "fill"), [(0, 0, 0), (5, 0, 0), (0, 6, 7), (4, 3, 11)])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_padding_changes_no_logp_value_or_score(
    left: int, right: int, fill: int, positions: Literal["rotary", "learned"]
) -> None:
    model = noisy(replace(SHAPE, positions=positions), 1)
    scorer = ScalarModel(trunk_copy(model.trunk), 3).requires_grad_(False)
    together = padded(lay_out(PROMPTS, REPLIES, pad=0), left, right, fill)
    logp, entropy = reply_logp_and_entropy(model, together, temperature=0.7)
    values = scorer(together.inputs, together.segments[:, :-1])
    pooled = {how: reply_scores(scorer, together, pooling=how) for how in ("last", "mean")}
    for row, (prompt, reply) in enumerate(zip(PROMPTS, REPLIES, strict=True)):
        logits = model(torch.tensor([prompt + reply[:-1]]))[0, len(prompt) - 1 :] / 0.7
        alone = logits.log_softmax(-1)
        expected = alone.gather(-1, torch.tensor(reply).unsqueeze(-1)).squeeze(-1)
        here = together.mask[row].bool()
        torch.testing.assert_close(logp[row][here], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy[row][here], -(alone.exp() * alone).sum(-1), atol=1e-5, rtol=0)
        assert (logp[row][~here] == 0).all()
        scores = scorer(torch.tensor([prompt + reply]))[0]
        torch.testing.assert_close(values[row][here], scores[len(prompt) - 1 : -1], atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled["last"][row], scores[-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled["mean"][row], scores[len(prompt) :].mean(0), atol=1e-5, rtol=0)


def test_sampled_replies_have_the_distribution_of_their_log_probs() -> None:
    """Every reply of a small world is listed: their probabilities sum to 1, and the mean log-ratio of sampled replies
    is the exact KL. Truncated sampling, another temperature or an end that is not counted would each show."""
    small = Shape(vocab=5, layers=1, dim=16, heads=2, kv_heads=1, hidden=32, context=8)
    policy, reference = noisy(small, 2, 0.5), noisy(small, 3, 0.5)
    prompt, end, longest, temperature, n = [1, 3], 2, 3, 0.7, 20_000
    every = [
        list(reply)
        for length in range(1, longest + 1)
        for reply in itertools.product(range(5), repeat=length)
        if end not in reply[:-1] and (length == longest or reply[-1] == end)
    ]
    laid = lay_out([prompt] * len(every), every, pad=0)
    logp = reply_logp(policy, laid, temperature=temperature).double().sum(1)
    ref_logp = reply_logp(reference, laid, temperature=temperature).double().sum(1)
    assert float(logp.exp().sum()) == pytest.approx(1, abs=1e-5)
    exact = float((logp.exp() * (logp - ref_logp)).sum())

    (sampled,) = generate(
        policy, [prompt], Sampling(max_new_tokens=longest, temperature=temperature, stops=(end,)), seeds=[0],
        device=CPU, answers=n,
    )  # fmt: skip
    drawn = lay_out([prompt] * n, [reply.ids for reply in sampled], pad=0)
    kl = reply_kl(
        reply_logp(policy, drawn, temperature=temperature),
        reply_logp(reference, drawn, temperature=temperature),
        drawn.mask,
    )
    error = float(kl.std()) / math.sqrt(n)
    assert exact > 0.5, "the two models differ enough for the test to see something"
    assert error < 0.02 * exact
    assert abs(float(kl.mean()) - exact) < 4 * error, (float(kl.mean()), exact, error)
    counts = {reply: 0 for reply in map(tuple, every)}
    for reply in sampled:
        counts[reply.ids] += 1
        assert reply.ended == (reply.ids[-1] == end)
    # Pearson's statistic has mean k - 1 and variance 2 (k - 1); cells of fewer than 5 expected are pooled.
    expected = {reply: n * float(p.exp()) for reply, p in zip(counts, logp, strict=True)}
    cells = [(counts[r], e) for r, e in expected.items() if e >= 5]
    cells.append((n - sum(c for c, _ in cells), n - sum(e for _, e in cells)))
    statistic = sum((c - e) ** 2 / e for c, e in cells)
    assert statistic < len(cells) + 5 * math.sqrt(2 * len(cells)), (statistic, len(cells))


def test_nothing_is_random_in_training_mode() -> None:
    """No dropout: the log-probs of a training step are those of the rollout."""
    model = noisy(SHAPE, 4)
    scorer = ScalarModel(trunk_copy(model.trunk), 1)
    laid = lay_out(PROMPTS, REPLIES, pad=0)
    assert not any("dropout" in type(m).__name__.lower() for part in (model, scorer) for m in part.modules())
    for part in (model, scorer):
        part.train()
        one, two = part(laid.ids, laid.segments), part(laid.ids, laid.segments)
        part.eval()
        assert torch.equal(one, two) and torch.equal(one, part(laid.ids, laid.segments))
