"""Learning from rankings without a reward model: the policy's own log-ratios are the scores."""

from __future__ import annotations

from torch import Tensor

from palate.objectives.preference import preference_loss


def direct_preference_loss(
    logp: Tensor, ref_logp: Tensor, targets: Tensor, weights: Tensor, worth: Tensor | float = 1.0, *, beta: float
) -> tuple[Tensor, Tensor]:
    """DPO. Rafailov et al. 2023, eq. 7:

        L = -E[ log sigmoid( beta log pi(y_w) / ref(y_w) - beta log pi(y_l) / ref(y_l) ) ]

    which is the ranking loss on scores beta log pi / ref (their eq. 5; its partition function depends on the prompt
    alone and falls out of every difference). So ties, several annotators and K > 2 are what they are for a reward
    model, and a soft target is label smoothing.

    logp, ref_logp (prompts, candidates): log-probabilities summed over each reply's tokens, end marker included; a
    candidate that is not there has weight 0 in every pair. targets, weights (prompts, candidates, candidates), worth
    (prompts) and what is returned: as in `preference_loss`.
    """
    return preference_loss(beta * (logp - ref_logp), targets, weights, worth)
