"""Palate's objectives beside those of TRL 1.9.2, the last release with PPO, on the same random tensors: `make trl`.

TRL's own code is run, never copied. Functions are called; a trainer's loss method is called on a bare object that has
what the method reads; code in the middle of a training loop is cut out of the installed source, line by line, and
executed. Values and gradients are compared in float64. Prints the table of docs/objectives.md and fails when a quantity
that should agree does not, or one that should differ does not either.
"""

import inspect
import sys
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import accelerate
import torch
import transformers
import trl
from torch import Tensor
from trl.experimental.ppo import ppo_trainer
from trl.trainer import dpo_trainer, grpo_trainer, reward_trainer, rloo_trainer
from trl.trainer import utils as trl_utils

from palate.objectives.advantage import generalised_advantages, shaped_rewards
from palate.objectives.direct import direct_preference_loss
from palate.objectives.group import group_advantages, group_policy_loss, leave_one_out_advantages
from palate.objectives.masked import masked_mean, whiten
from palate.objectives.next_token import token_entropy, token_logp
from palate.objectives.policy import approximate_kl, policy_loss, value_loss
from palate.objectives.preference import preference_loss

SEEDS = 20
AGREES = 1e-6
"""Largest difference that is rounding: TRL computes n / (n - 1) in float32, and eps stands before or after it."""
CLIP, BETA = 0.2, 0.1


def cut(of: Callable[..., Any], first: str, last: str) -> str:
    """TRL's source of `of` from the first line that begins with `first` to the next that begins with `last`."""
    lines = inspect.getsource(of).splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().startswith(first)]
    ends = [i for i, line in enumerate(lines) if line.strip().startswith(last) and starts and i >= starts[0]]
    if not ends:
        sys.exit(f"{of.__qualname__} of trl {trl.__version__} has no lines from {first!r} to {last!r}.")
    return textwrap.dedent("\n".join(lines[starts[0] : ends[0] + 1]))


PPO_MASKS_TO_ADVANTAGES = cut(ppo_trainer.PPOTrainer.train, "response_idxs =", "advantages = torch.masked_fill(")
PPO_LOSSES = cut(ppo_trainer.PPOTrainer.train, "new_logprobs = torch.masked_fill(", "pg_loss = masked_mean(")
PPO_KL = cut(ppo_trainer.PPOTrainer.train, "approxkl =", "approxkl =")
GRPO_ADVANTAGES = cut(
    grpo_trainer.GRPOTrainer._generate_and_score_completions,
    "rewards = (rewards_per_func",
    "advantages = advantages / (std_rewards",
)
RLOO_ADVANTAGES = cut(
    rloo_trainer.RLOOTrainer._generate_and_score_completions, "scorable_counts =", "advantages = rewards - baselines"
)


def run(code: str, module: Any, **names: Any) -> SimpleNamespace:
    """Everything TRL's lines leave behind when they are executed among `names`."""
    space = {**vars(module), **names}
    exec(code, space)
    return SimpleNamespace(**{name: value for name, value in space.items() if not name.startswith("__")})


# --- the table --------------------------------------------------------------------------------------------------------

ROWS: dict[str, tuple[str, str]] = {}
DIFFERENCE: dict[str, float] = defaultdict(float)


def compare(quantity: str, code: str, ours: Any, theirs: Any, *, at: Tensor | None = None, why: str = "") -> None:
    """Note the largest difference of values, and of gradients with respect to `at`. why: what makes them differ."""
    ROWS[quantity] = (code, why)
    pairs = [(ours, theirs)]
    if at is not None:
        pairs.append(tuple(torch.autograd.grad(loss, at, retain_graph=True)[0] for loss in (ours, theirs)))
    worst = max(float((a - b).detach().abs().max()) for a, b in pairs)
    DIFFERENCE[quantity] = max(DIFFERENCE[quantity], worst)


def trainer(**more: Any) -> SimpleNamespace:
    """What a loss method reads from `self` on one process, in training."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        sync_gradients=True,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator,
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        **more,
    )


# --- one batch of random tensors --------------------------------------------------------------------------------------


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def lengths_and_mask(rows: int, width: int) -> tuple[Tensor, Tensor]:
    lengths = torch.randint(1, width - 1, (rows,))
    return lengths, (torch.arange(width) < lengths.unsqueeze(1)).double()


def language_model() -> None:
    logits, targets = 4 * normal(3, 9, 50), torch.randint(50, (3, 9))
    logits.requires_grad_()
    ours, theirs = token_logp(logits, targets), trl_utils.selective_log_softmax(logits, targets)
    compare("log-probability of a token", "`selective_log_softmax`", ours.sum(), theirs.sum(), at=logits)
    compare("entropy of a token", "`entropy_from_logits`", token_entropy(logits), trl_utils.entropy_from_logits(logits))


def masked() -> None:
    values, (_, mask) = normal(5, 12), lengths_and_mask(5, 12)
    compare("masked mean", "`masked_mean`", masked_mean(values, mask), ppo_trainer.masked_mean(values, mask))
    ours, theirs = whiten(values, mask), ppo_trainer.masked_whiten(values, mask.bool()) * mask
    tokens = mask.sum()
    compare("whitening", "`masked_whiten`", ours, theirs, why=BESSEL)
    compare(
        "whitening, times sqrt((n - 1) / n)",
        "`masked_whiten`",
        ours * ((tokens - 1) / tokens).sqrt(),
        theirs,
    )


BESSEL = "the variance is divided by n here, by n - 1 there; both add 1e-8 to it"


def reward_model() -> None:
    scores = normal(6, 2).requires_grad_()
    upper = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64).expand(6, 2, 2)
    ours, prompts = preference_loss(scores, upper, upper)
    chosen_then_rejected = scores.T.flatten().unsqueeze(1)
    theirs = reward_trainer.RewardTrainer.compute_loss(
        trainer(args=SimpleNamespace(center_rewards_coefficient=None)),
        lambda **_: SimpleNamespace(logits=chosen_then_rejected),
        {"attention_mask": torch.ones(12, 3)},
    )
    compare("reward model's loss of pairs", "`RewardTrainer.compute_loss`", ours / prompts, theirs, at=scores)
    # TRL has no rankings: K replies are K(K-1)/2 pairs, and every pair of the batch counts alike.
    scores = normal(2, 4).requires_grad_()
    weights = torch.triu(torch.ones(2, 4, 4, dtype=torch.float64), diagonal=1)
    weights[1, :, 2:] = 0  # the second prompt has two replies: one pair beside six
    pairs = weights.nonzero()
    sides = torch.cat([scores[pairs[:, 0], pairs[:, 1]], scores[pairs[:, 0], pairs[:, 2]]]).unsqueeze(1)
    theirs = reward_trainer.RewardTrainer.compute_loss(
        trainer(args=SimpleNamespace(center_rewards_coefficient=None)),
        lambda **_: SimpleNamespace(logits=sides),
        {"attention_mask": torch.ones(len(sides), 3)},
    )
    ours, prompts = preference_loss(scores, weights, weights)
    compare(
        "reward model's loss of rankings of 4 and of 2",
        "`RewardTrainer.compute_loss`",
        ours / prompts,
        theirs,
        at=scores,
        why="there every pair counts alike; here every prompt, whatever its K (Ouyang et al. 2022, eq. 1)",
    )


def ppo_rollout() -> None:
    rows, width = 5, 12
    lengths, mask = lengths_and_mask(rows, width)
    args = SimpleNamespace(kl_estimator="k1", kl_coef=0.05, gamma=0.99, lam=0.95, whiten_rewards=False)
    given = {
        "responses": torch.zeros(rows, width),
        "logprobs": -normal(rows, width).abs(),
        "ref_logprobs": -normal(rows, width).abs(),
        "values": normal(rows, width),
        "scores": normal(rows),
    }

    def both(lengths: Tensor, mask: Tensor, ours: Tensor) -> tuple[SimpleNamespace, Tensor, Tensor, Tensor]:
        """Theirs for replies of these lengths; our rewards, advantages and returns with the mask `ours`."""
        code = PPO_MASKS_TO_ADVANTAGES
        theirs = run(code, ppo_trainer, args=args, sequence_lengths=lengths - 1, **given)
        logp, ref_logp = (given[name] * mask for name in ("logprobs", "ref_logprobs"))
        rewards = shaped_rewards(given["scores"], logp, ref_logp, ours, kl_weight=args.kl_coef)
        return theirs, rewards, *generalised_advantages(rewards, given["values"], ours, gamma=args.gamma, lam=args.lam)

    source = "`PPOTrainer.train`"
    full = torch.full((rows,), width), torch.ones(rows, width, dtype=torch.float64)
    theirs, rewards, advantages, returns = both(*full, full[1])
    compare("KL penalty per token", source, -args.kl_coef * (given["logprobs"] - given["ref_logprobs"]),
            theirs.non_score_reward)  # fmt: skip
    compare("rewards, replies that fill the width", source, rewards, theirs.rewards)
    compare("GAE returns, replies that fill the width", source, returns, theirs.returns)
    compare("GAE advantages, replies that fill the width", source, advantages, theirs.returns - theirs.values)
    theirs, rewards, advantages, returns = both(lengths, mask, mask)
    late = (
        "there the score comes one position after the reply's last token, on its first PAD, and the critic's value of "
        "that position counts; here it comes on the last token, after which every value is 0"
    )
    compare("rewards, replies that end earlier", source, rewards, theirs.rewards, why=late)
    compare("GAE advantages, replies that end earlier", source, advantages, (theirs.returns - theirs.values) * mask,
            why=late)  # fmt: skip
    longer = (torch.arange(width) < lengths.unsqueeze(1) + 1).double()
    theirs, rewards, advantages, returns = both(lengths, mask, longer)
    compare("rewards, our mask one position longer", source, rewards, theirs.rewards)
    compare("GAE returns, our mask one position longer", source, returns, theirs.returns * longer)
    tokens = mask.sum()
    compare(
        "whitened advantages, so too, times sqrt((n - 1) / n)",
        source,
        whiten(advantages * mask, mask) * ((tokens - 1) / tokens).sqrt(),
        theirs.advantages,
    )


def ppo_losses() -> None:
    rows, width = 6, 12
    lengths, mask = lengths_and_mask(rows, width)
    longer = (torch.arange(width) < lengths.unsqueeze(1) + 1).double()
    logp, values = normal(rows, width).requires_grad_(), normal(rows, width).requires_grad_()
    old_logp, advantages = logp.detach() + 0.3 * normal(rows, width), normal(rows, width)
    old_values, returns = values.detach() + 0.3 * normal(rows, width), normal(rows, width)
    for_all = torch.arange(rows)

    def theirs(part: Tensor) -> SimpleNamespace:
        return run(
            PPO_LOSSES + "\n" + PPO_KL,
            ppo_trainer,
            args=SimpleNamespace(cliprange=CLIP, cliprange_value=CLIP),
            new_logprobs=logp[part],
            mb_logprobs=torch.where(mask[part] > 0, old_logp[part], ppo_trainer.INVALID_LOGPROB),
            mb_advantage=advantages[part] * mask[part],
            mb_values=old_values[part] * longer[part],
            mb_return=returns[part],
            vpred_temp=torch.nn.functional.pad(values[part], (0, 1)).unsqueeze(-1),
            context_length=1,
            padding_mask=mask == 0,
            padding_mask_p1=longer == 0,
            micro_batch_inds=part,
        )

    source = "`PPOTrainer.train`"
    whole = theirs(for_all)
    ours, tokens = policy_loss(logp, old_logp, advantages, mask, clip=CLIP)
    compare("PPO policy loss", source, ours / tokens, whole.pg_loss, at=logp)
    halves = [theirs(part).pg_loss for part in (for_all[:2], for_all[2:])]
    compare(
        "PPO policy loss, micro-batches of 2 and 4 rows",
        source,
        ours / tokens,
        sum(halves) / 2,
        at=logp,
        why="there each micro-batch is divided by its own tokens; here the step by all of them (`train/update.py`)",
    )
    ours, positions = value_loss(values, old_values, returns, mask, clip=CLIP)
    after = "there the critic also learns the value of the position after the reply (see the rewards above)"
    compare("PPO value loss", source, ours / positions, whole.vf_loss, at=values, why=after)
    ours, positions = value_loss(values, old_values, returns, longer, clip=CLIP)
    compare("PPO value loss, our mask one position longer", source, ours / positions, whole.vf_loss, at=values)
    ours = approximate_kl(logp, old_logp, mask)
    compare(
        "approximate KL of the step",
        source,
        ours,
        whole.approxkl,
        why="there PAD positions count in the mean (as 0); here only the reply's tokens",
    )
    compare("approximate KL, times the share of tokens", source, ours * mask.mean(), whole.approxkl)


def direct() -> None:
    pairs, width, vocab = 4, 9, 30
    ids = torch.randint(vocab, (2 * pairs, width))
    counted = torch.zeros(2 * pairs, width, dtype=torch.long)
    for row in counted:
        start = int(torch.randint(1, width, ()))
        row[start : int(torch.randint(start + 1, width + 1, ()))] = 1
    logits = normal(2 * pairs, width, vocab).requires_grad_()
    ref_logp = normal(2 * pairs) - 5
    theirs = dpo_trainer.DPOTrainer._compute_loss(
        trainer(
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            loss_types=["sigmoid"],
            loss_weights=[1.0],
            beta=BETA,
            use_weighting=False,
        ),
        lambda **_: SimpleNamespace(logits=logits),
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "completion_mask": counted,
            "ref_chosen_logps": ref_logp[:pairs],
            "ref_rejected_logps": ref_logp[pairs:],
        },
        return_outputs=False,
    )
    logp = (token_logp(logits[:, :-1], ids[:, 1:]) * counted[:, 1:]).sum(dim=1)
    chosen_first = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64).expand(pairs, 2, 2)
    ours, weight = direct_preference_loss(
        logp.view(2, pairs).T, ref_logp.view(2, pairs).T, chosen_first, chosen_first, beta=BETA
    )
    compare("DPO loss, from logits", "`DPOTrainer._compute_loss`", ours / weight, theirs, at=logits)


def group() -> None:
    prompts, replies, width = 3, 4, 12
    rows = prompts * replies
    scores = normal(prompts, replies)
    theirs = run(
        GRPO_ADVANTAGES,
        grpo_trainer,
        self=SimpleNamespace(reward_weights=torch.ones(1), scale_rewards="group"),
        rewards_per_func=scores.view(-1, 1),
        unscorable_mask=torch.zeros(rows, dtype=torch.bool),
        num_generations=replies,
        device="cpu",
    )
    advantages = group_advantages(scores).flatten()
    source = "`GRPOTrainer._generate_and_score_completions`"
    compare("GRPO advantages", source, advantages, theirs.advantages)
    theirs = run(
        RLOO_ADVANTAGES, rloo_trainer, rewards=scores.flatten(), grouped_rewards=scores, num_generations=replies
    )
    source = "`RLOOTrainer._generate_and_score_completions`"
    compare("RLOO advantages", source, leave_one_out_advantages(scores).flatten(), theirs.advantages)

    _, mask = lengths_and_mask(rows, width)
    per_reply = mask / mask.sum(dim=1, keepdim=True)
    logp = -normal(rows, width).abs()
    logp.requires_grad_()
    old_logp, ref_logp = (logp.detach() + 0.3 * normal(rows, width) for _ in range(2))

    def loss(kind: str, kl_weight: float, part: slice = slice(None)) -> Tensor:
        """TRL's loss of some rows; dapo's is divided by the tokens of all of them, as one of two micro-batches."""
        return grpo_trainer.GRPOTrainer._compute_loss(
            trainer(
                top_entropy_quantile=1.0,
                off_policy_mask_threshold=None,
                importance_sampling_level="token",
                beta=kl_weight,
                loss_type=kind,
                epsilon_low=CLIP,
                epsilon_high=CLIP,
                use_vllm=False,
                current_gradient_accumulation_steps=1,
                max_completion_length=width,
                _entropy_bonus_enabled=False,
                args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
                _get_per_token_logps_and_entropies=lambda *_, **__: (logp[part], torch.zeros_like(logp[part]), None),
            ),
            None,
            {
                "prompt_ids": torch.zeros(rows, 1)[part],
                "prompt_mask": torch.ones(rows, 1)[part],
                "completion_ids": torch.zeros(rows, width)[part],
                "completion_mask": mask[part],
                "advantages": advantages[part],
                "old_per_token_logps": old_logp[part],
                "ref_per_token_logps": ref_logp[part],
                "num_items_in_batch": mask.sum(),
            },
        )

    def ours(weights: Tensor, kl_weight: float) -> Tensor:
        given = (logp, old_logp, ref_logp, advantages, weights)
        total, weight = group_policy_loss(*given, clip=CLIP, kl_weight=kl_weight)
        return total / weight

    source = "`GRPOTrainer._compute_loss`"
    compare("GRPO loss, no KL, weights 1 / length", f"{source}, `grpo`", ours(per_reply, 0), loss("grpo", 0), at=logp)
    compare("GRPO loss, no KL", f"{source}, `bnpo`", ours(mask, 0), loss("bnpo", 0), at=logp)
    two = loss("dapo", 0, slice(0, 5)) + loss("dapo", 0, slice(5, None))
    compare("GRPO loss, no KL, micro-batches of 5 and 7 rows", f"{source}, `dapo`", ours(mask, 0), two, at=logp)
    dr = ours(mask, 0), loss("dr_grpo", 0)
    compare("Dr. GRPO loss", f"{source}, `dr_grpo`", *dr, at=logp,
            why="there rows times the longest allowed reply divide; here the tokens that there are")  # fmt: skip
    dr = ours(mask, 0) * mask.mean(), loss("dr_grpo", 0)
    compare("Dr. GRPO loss, times the share of tokens", f"{source}, `dr_grpo`", *dr, at=logp)
    with_kl = ours(mask, BETA), loss("bnpo", BETA)
    compare("GRPO loss with KL", f"{source}, `bnpo`", *with_kl, at=logp,
            why="there k3, whose gradient is that of KL(reference to policy); here k2, whose gradient is that of "
                "KL(policy to reference)")  # fmt: skip
    ratio = ref_logp - logp
    k3 = ((ratio.exp() - 1 - ratio) * mask).sum() / mask.sum()
    with_k3 = ours(mask, 0) + BETA * k3, loss("bnpo", BETA)
    compare("GRPO loss with KL, k3 for our k2", f"{source}, `bnpo`", *with_k3, at=logp)


def main() -> None:
    warnings.simplefilter("ignore")
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        for part in (language_model, masked, reward_model, ppo_rollout, ppo_losses, direct, group):
            part()
    print(
        f"trl {trl.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"accelerate {accelerate.__version__}; {SEEDS} random batches, float64\n"
    )
    print("| quantity | TRL's code | largest difference | agrees |\n|---|---|---|---|")
    wrong = []
    for quantity, (code, why) in ROWS.items():
        agrees = DIFFERENCE[quantity] <= AGREES
        print(f"| {quantity} | {code} | {DIFFERENCE[quantity]:.0e} | {'yes' if agrees else f'no: {why}'} |")
        if agrees == bool(why):  # or a difference that is not there any more
            wrong.append(quantity)
    if wrong:
        sys.exit(f"\nNot as expected: {'; '.join(wrong)}.")


if __name__ == "__main__":
    main()
