"""Policy gradients without a critic: the replies to one prompt are each other's baseline."""

from __future__ import annotations

from torch import Tensor

from palate.objectives.policy import policy_loss


def group_advantages(scores: Tensor, eps: float = 1e-4) -> Tensor:
    """(score - mean) / std over the K replies to one prompt (Shao et al. 2024, "DeepSeekMath", section 4.1.2).

    scores (prompts, K) -> (prompts, K). The paper does not say which std; this is a sample's, which divides by K - 1.
    eps is so large because equal scores differ from their own mean by a rounding error, which must not become a goal.
    Raises ValueError for K = 1: a reply alone has no baseline.
    """
    return _centred(scores) / (scores.std(dim=1, keepdim=True) + eps)


def leave_one_out_advantages(scores: Tensor) -> Tensor:
    """Score minus the mean score of the *other* replies to the prompt (RLOO; Kool et al. 2019, Ahmadian et al. 2024):

        A_i = r_i - 1/(K-1) sum_{j != i} r_j = K/(K-1) (r_i - mean)

    scores (prompts, K) -> (prompts, K). The baseline does not see the reply it judges, so the policy gradient has no
    bias. Nothing is divided by a std, so a prompt whose replies are nearly alike counts little; Liu et al. 2025
    ("Dr. GRPO") use the same but for the constant K/(K-1). Raises ValueError for K = 1.
    """
    replies = scores.shape[1]
    return _centred(scores) * replies / (replies - 1)


def _centred(scores: Tensor) -> Tensor:
    if scores.shape[1] < 2:
        raise ValueError("a group has one reply, so nothing to compare it with; sample at least two per prompt.")
    return scores - scores.mean(dim=1, keepdim=True)


def group_policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    ref_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    kl_weight: float,
) -> tuple[Tensor, Tensor]:
    """GRPO (Shao et al. 2024, eq. 3, negated): the clipped surrogate with one advantage for a whole reply, plus
    kl_weight times the KL to the reference as a loss (`kl_loss`, not the paper's estimator).

    logp, old_logp, ref_logp, mask (batch, time); advantages (batch). Returns (sum, number of tokens): every token of
    the batch counts alike. Eq. 3 divides each reply by its own length first, which makes a long wrong reply cheap (Liu
    et al. 2025, section 3); that is mask / mask.sum(dim=1, keepdim=True), and the weight is then the number of replies.
    """
    surrogate, weight = policy_loss(logp, old_logp, advantages.unsqueeze(1), mask, clip=clip)
    return surrogate + kl_weight * kl_loss(logp, ref_logp, mask)[0], weight


def kl_loss(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """KL(policy || reference) as a loss: sum of 1/2 (logp - ref_logp)^2 (k2 of Schulman 2020), and number of tokens.

    On tokens that the policy sampled, its *gradient* is on average that of the exact KL of each token's distribution
    (Tang & Munos 2025); its value is not the KL. The estimators with the right value have a wrong gradient: that of
    log pi/ref (k1) is zero on average, that of ref/pi - 1 - log ref/pi (k3; Shao et al. 2024, eq. 4) belongs to the
    reverse, KL(reference || policy). What a token does to the tokens after it is not in the gradient; that needs the KL
    in the reward (`shaped_rewards`). logp, ref_logp, mask (batch, time).
    """
    return (0.5 * (logp - ref_logp) ** 2 * mask).sum(), mask.sum()
