import math

import torch
from objectives import reference
from objectives.ragged import batches, close

from palate.objectives.masked import masked_mean, whiten


def test_the_mean_is_of_what_counts() -> None:
    for case in batches(20):
        rows = case.rows(-3, 3)
        padded = case.pad(rows)
        mean = masked_mean(padded, case.mask)
        close(mean, reference.moments(rows)[0], 1e-12)
        (slopes,) = torch.autograd.grad(mean, padded)
        wanted = reference.gradient(lambda at: reference.moments(at)[0], rows)
        close(case.unpad(slopes), wanted, 1e-9)
    assert float(masked_mean(torch.ones(2, 3), torch.zeros(2, 3))) == 0


def test_whitening_equals_its_definition() -> None:
    for case in batches(20)[1:]:
        rows = case.rows(-3, 3)
        padded = case.pad(rows)
        if sum(case.lengths) < 2:
            continue
        white = whiten(padded, case.mask)
        close(case.unpad(white), reference.whitened(rows), 1e-7)  # eps 1e-8 is added to the variance
        tokens = torch.cat([torch.tensor(row) for row in case.unpad(white)])
        assert abs(float(tokens.mean())) < 1e-7 and abs(float(tokens.var(unbiased=False)) - 1) < 1e-6


def test_whitening_one_token_gives_zero() -> None:
    case = batches(1)[0]
    assert case.unpad(whiten(case.pad([[3.0]]), case.mask)) == [[0.0]]


def test_whitening_ignores_padding() -> None:
    torch.manual_seed(0)
    values, mask = torch.randn(2, 5), torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    changed = torch.where(mask == 0, torch.full_like(values, 1e6), values)
    torch.testing.assert_close(whiten(values, mask), whiten(changed, mask))
    picked = whiten(values, mask)[mask == 1]
    assert picked.mean().abs() < 1e-6
    assert math.isclose(picked.var(unbiased=False).item(), 1, abs_tol=1e-4)
