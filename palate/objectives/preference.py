"""Ranking loss of a reward model: all pairs of one prompt's ranking in one batch element."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def preference_loss(
    scores: Tensor, targets: Tensor, weights: Tensor, worth: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """Bradley-Terry loss over the pairs of K ranked answers, averaged within each prompt.

    Ouyang et al. 2022 ("InstructGPT"), eq. 1:  L = -1/C(K,2) E[ log sigmoid(r(x, y_w) - r(x, y_l)) ],
    with soft targets: a tie is 1/2, several annotators are averaged (binary cross-entropy).

    scores (prompts, candidates); targets (prompts, candidates, candidates), [p, i, j] = P(i is preferred to j);
    weights the same shape, 0 where a pair was not judged (and on and below the diagonal: each pair once).
    worth (prompts): how much each prompt's mean counts, because `weights` only say what counts within a prompt.
    Returns (sum over prompts of worth times the mean over its pairs, number of prompts that have a pair).
    """
    difference = scores.unsqueeze(2) - scores.unsqueeze(1)  # (prompts, candidates, candidates)
    losses = F.binary_cross_entropy_with_logits(difference, targets, reduction="none") * weights
    pairs = weights.sum(dim=(1, 2))
    judged = pairs > 0
    return (worth * losses.sum(dim=(1, 2)) / pairs.clamp(min=1e-9))[judged].sum(), judged.sum()


def criteria_loss(scores: Tensor, labels: Tensor, present: Tensor) -> Tensor:
    """Squared error of the criterion heads where people scored (Wang et al. 2023, "HelpSteer": attribute regression).

    scores, labels, present (prompts, candidates, criteria); present is 1 where a label exists. Returns the sum over
    prompts of the mean over each prompt's labels, so that it adds to `preference_loss` prompt by prompt.
    """
    errors = ((scores - labels) ** 2 * present).sum(dim=(1, 2))
    return (errors / present.sum(dim=(1, 2)).clamp(min=1)).sum()
