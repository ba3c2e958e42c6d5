"""Log-probabilities and cross-entropy against loops written from the definition, and against torch."""

import math
import random

import pytest
import torch
from objectives import reference
from objectives.ragged import close
from torch.nn import functional as F

from palate.device import generator
from palate.objectives.next_token import next_token_loss, token_entropy, token_logp

ROWS, VOCAB = (3, 200), 37  # more rows than one chunk has


def logits(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (4 * torch.randn(*ROWS, VOCAB, generator=generator("logits"), dtype=torch.float64)).to(dtype)


def targets() -> torch.Tensor:
    return torch.randint(0, VOCAB, ROWS, generator=generator("targets"))


def test_logp_and_entropy_equal_the_definition() -> None:
    temperature = 0.7
    given, wanted = logits(), targets()
    logp, entropy = token_logp(given, wanted, temperature), token_entropy(given, temperature)
    for row in range(ROWS[0]):
        for t in range(ROWS[1]):
            weights = [math.exp(value / temperature) for value in given[row, t].tolist()]
            p = [w / sum(weights) for w in weights]
            assert math.isclose(float(logp[row, t]), math.log(p[int(wanted[row, t])]), abs_tol=1e-10)
            assert math.isclose(float(entropy[row, t]), -sum(q * math.log(q) for q in p), abs_tol=1e-10)


def test_gradient_equals_finite_differences() -> None:
    small = logits()[:, :3].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_logp(x, targets()[:, :3], 0.7), (small,))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3)])
def test_loss_and_gradient_equal_torchs_cross_entropy(dtype: torch.dtype, tolerance: float) -> None:
    weights = (torch.rand(ROWS, generator=generator("weights")) > 0.3).float()
    ours, theirs = logits(dtype).requires_grad_(), logits(dtype).requires_grad_()
    total, weight = next_token_loss(ours, targets(), weights)
    each = F.cross_entropy(theirs.float().flatten(0, 1), targets().flatten(), reduction="none")
    expected = (each * weights.flatten()).sum()
    assert float(weight) == float(weights.sum())
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    total.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad.float(), theirs.grad.float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(8))
def test_the_loss_equals_the_paper(seed: int) -> None:
    """With weights of 0, 1 and between."""
    rng = random.Random(seed)
    positions, vocab = rng.choice([1, 2, 7, 30]), rng.randint(2, 9)
    rows = [[rng.uniform(-4, 4) for _ in range(vocab)] for _ in range(positions)]
    wanted = [rng.randrange(vocab) for _ in rows]
    counted = [rng.choice([0.0, 1.0, 0.3]) for _ in rows]
    given = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    loss, weight = next_token_loss(given, torch.tensor(wanted), torch.tensor(counted, dtype=torch.float64))
    close([loss, weight], list(reference.next_token(rows, wanted, counted)), 1e-12)
    (slopes,) = torch.autograd.grad(loss, given)
    close(slopes.tolist(), reference.gradient(lambda at: reference.next_token(at, wanted, counted)[0], rows), 1e-8)
