"""Muon: torch's own numbers, and an update without a preferred direction."""

import pytest
import torch

from palate.train.optimizer import Muon, orthogonal

SHAPES = [(12, 8), (8, 12), (12, 8), (8, 8), (12, 8)]


@pytest.mark.parametrize("at_once", [2**26, 200])  # 200: two matrices of 12 x 8 in one go, then the third
def test_the_same_numbers_as_torchs(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(Muon, "AT_ONCE", at_once)
    torch.manual_seed(0)
    ours = [torch.randn(shape) for shape in SHAPES]
    theirs = [torch.nn.Parameter(matrix.clone()) for matrix in ours]
    mine = Muon(ours, weight_decay=0.1)
    peer = torch.optim.Muon(theirs, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for number in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape) * 10.0 ** (number - 2)
            other.grad = one.grad.clone()
        ours[3].grad = theirs[3].grad = None  # as of a matrix that no micro-batch reached
        mine.param_groups[0]["lr"] = peer.param_groups[0]["lr"] = 0.1 / (number + 1)
        mine.step()
        peer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=0, atol=2e-3)  # roundings of bfloat16
    assert not torch.equal(ours[0], ours[2])


@pytest.mark.parametrize("shape", [(3, 64, 24), (3, 24, 64), (1, 32, 32)])
def test_an_orthogonal_update(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1e-4, 1.0, 1e4])[: shape[0], None, None]
    made = orthogonal(matrices)
    assert made.shape == shape and made.dtype == torch.bfloat16
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = torch.einsum("bik,bij,bkj->bk", u, made.float(), v)  # what is left along each direction
    if shape[1] != shape[2]:  # a square one has directions that nearly vanish, which take more steps
        assert inner.min() > 0.6 and inner.max() < 1.3
    else:
        assert inner.min() > 0 and inner.max() < 1.3
    assert orthogonal(torch.zeros(1, 4, 4)).abs().max() == 0
