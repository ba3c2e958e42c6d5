"""What must hold in PPO whatever the reward: tiny networks, ids without text, the code of the stage."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests_games import BANDIT_SHAPE, CPU, END, PAD, language_model, learner, models, play, wanted_share
from torch import Tensor

from palate import metrics
from palate.align import rollout as rollouts
from palate.align.limit import Limit
from palate.align.session import Session
from palate.batches.packed import Packed
from palate.batches.replies import Replies
from palate.device import generator, seeds
from palate.errors import NotFinite
from palate.generate.engine import generate
from palate.generate.replies import reply_logp
from palate.generate.sampling import Sampling
from palate.metrics import Metrics
from palate.recipe import Ppo
from palate.stages import ppo
from palate.train.update import Learner

PROMPTS = [[1], [1, 7, 8, 9], [1, 4], [1, 4, 6], [1, 3], [1, 9, 9, 9, 9], [1, 10], [1, 11, 2]]
SETTINGS = Ppo(
    rounds=4, rollout_prompts=8, max_new_tokens=8, temperature=0.7, epochs=2, minibatch_rows=8, micro_rows=8,
    policy_lr=1e-2, critic_lr=1e-2, schedule="constant", warmup_steps=0, critic_warmup_rounds=0, kl_weight=0.1,
    evaluate_every=1,
)  # fmt: skip


def players(seed: int = 0, *, noise: float = 0.3, std: float = 1.0, mean: float = 0.0, pad: int = PAD) -> ppo.Models:
    """Models whose policy has left the reference, and whose critic says something."""
    made = models(language_model(BANDIT_SHAPE, seed), wanted_share, stops=(END,), std=std, mean=mean)
    for model in (made.policy, made.critic, made.reference):
        for name, parameter in model.named_parameters():
            parameter.data += noise * torch.randn(parameter.shape, generator=generator(seed, type(model), name))
    made.reference.load_state_dict(made.policy.state_dict())
    made.policy.trunk.embed.weight.data += 0.1 * torch.randn(
        made.policy.trunk.embed.weight.shape, generator=generator(seed, "moved")
    )
    return dataclasses.replace(made, pad=pad)


class Recorder(torch.optim.SGD):
    """Keeps the gradients it is given and moves nothing."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.0)
        self.seen: list[list[Tensor]] = []

    def step(self, closure: object = None) -> None:
        self.seen.append([p.grad.clone() for group in self.param_groups for p in group["params"]])


def gradients(
    made: ppo.Models, rollout: ppo.Rollout, settings: Ppo
) -> tuple[list[list[Tensor]], list[list[Tensor]], dict[str, float]]:
    """Of policy and critic, one list per optimizer step of a round, unclipped; and the round's numbers."""
    policy, critic = Recorder(made.policy), Recorder(made.critic)
    watched = ppo.improve(
        Learner(made.policy, policy), Learner(made.critic, critic), made, rollout,
        settings.model_copy(update={"max_norm": 1e9}), CPU, policy_lr=1.0, critic_lr=1.0, seed=(0, 1),
    )  # fmt: skip
    return policy.seen, critic.seen, watched


def assert_same(one: list[list[Tensor]], two: list[list[Tensor]], tolerance: float) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        size = max(float(g.abs().max()) for g in left)
        assert size > 1e-4, "there is a gradient"
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b, atol=tolerance * size, rtol=0)


# --- one round ------------------------------------------------------------------------------------------------------


def test_replies_end_at_the_first_end_and_padding_follows() -> None:
    made = players()
    prompts = PROMPTS * 8
    rollout = ppo.roll_out(made, prompts, SETTINGS, CPU, ("ends",))
    replies = rollout.replies
    seen = set()
    for row, prompt in enumerate(prompts):
        ids = replies.ids[row].tolist()
        counted = [int(t) for t, m in zip(replies.targets[row], replies.mask[row], strict=True) if m]
        assert ids[: len(prompt)] == prompt and ids[len(prompt) : len(prompt) + len(counted)] == counted
        assert END not in counted[:-1], "nothing after the first end is the reply's"
        assert bool(rollout.ended[row]) == (counted[-1] == END)
        assert rollout.ended[row] or len(counted) == SETTINGS.max_new_tokens
        width = len(prompt) + len(counted)
        assert replies.segments[row].tolist() == [1] * width + [0] * (len(ids) - width)
        assert ids[width:] == [PAD] * (len(ids) - width)
        seen.add(bool(rollout.ended[row]))
    assert seen == {True, False}


def test_sampled_ids_are_kept_as_they_are() -> None:
    made = players()
    rollout = ppo.roll_out(made, PROMPTS, SETTINGS, CPU, ("kept",))
    sampled = generate(
        made.policy,
        PROMPTS,
        Sampling(max_new_tokens=8, temperature=0.7, stops=(END,)),
        seeds=seeds(len(PROMPTS), "kept"),
        device=CPU,
    )
    for row, (prompt, (reply,)) in enumerate(zip(PROMPTS, sampled, strict=True)):
        assert rollout.replies.ids[row, : len(prompt) + len(reply.ids)].tolist() == [*prompt, *reply.ids]


@pytest.mark.parametrize("std", [0.5, 4.0])
def test_a_reply_without_an_end_loses_standard_deviations_of_the_score(std: float) -> None:
    made = players(std=std, mean=0.25)
    rollout = ppo.roll_out(made, PROMPTS * 4, SETTINGS, CPU, ("penalty",))
    free = SETTINGS.model_copy(update={"missing_eos_penalty": 0.0})
    without = ppo.roll_out(made, PROMPTS * 4, free, CPU, ("penalty",))
    assert torch.equal(without.replies.ids, rollout.replies.ids)
    expected = (wanted_share(without.replies) - 0.25) / max(std, 1.0)
    torch.testing.assert_close(without.score, expected)
    torch.testing.assert_close(without.score - rollout.score, min(std, 1.0) * (~rollout.ended).float())
    assert 0 < float(rollout.ended.float().mean()) < 1


def test_without_kl_only_the_last_token_is_rewarded() -> None:
    """With lambda 1 a return is the sum of the discounted rewards ahead, whatever the critic says."""
    settings = SETTINGS.model_copy(update={"kl_weight": 0.0, "gamma": 0.5, "lam": 1.0})
    rollout = ppo.roll_out(players(), PROMPTS, settings, CPU, ("last",))
    for row in range(len(PROMPTS)):
        places = rollout.replies.mask[row].nonzero().flatten().tolist()
        expected = [0.0] * rollout.replies.mask.shape[1]
        for t in places:
            expected[t] = float(rollout.score[row]) * 0.5 ** (places[-1] - t)
        torch.testing.assert_close(rollout.returns[row], torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_value_is_that_of_the_state_before_its_token() -> None:
    made = players(std=2.0, mean=0.2)
    rollout = ppo.roll_out(made, PROMPTS, SETTINGS, CPU, ("value",))
    for row, prompt in enumerate(PROMPTS):
        places = rollout.replies.mask[row].nonzero().flatten().tolist()
        assert places[0] == len(prompt) - 1, "the first one is said after the prompt alone"
        for t in places:
            before = rollout.replies.ids[row, : t + 1].unsqueeze(0)  # all tokens before target t, which is id t + 1
            value = made.critic(before)[0, -1, 0]
            torch.testing.assert_close(rollout.values[row, t], value, atol=1e-5, rtol=0)
    assert (rollout.values[rollout.replies.mask == 0] == 0).all()


def test_advantages_of_a_rollout_are_white_over_reply_tokens() -> None:
    rollout = ppo.roll_out(players(), PROMPTS, SETTINGS, CPU, ("white",))
    inside = rollout.advantages[rollout.replies.mask.bool()]
    assert abs(float(inside.mean())) < 1e-6 and abs(float(inside.var(unbiased=False)) - 1) < 1e-4
    assert (rollout.advantages[rollout.replies.mask == 0] == 0).all()


def test_what_fills_the_padding_changes_nothing() -> None:
    one, two = (ppo.roll_out(players(pad=pad), PROMPTS, SETTINGS, CPU, ("pad",)) for pad in (PAD, END))
    assert not torch.equal(one.replies.ids, two.replies.ids), "there is padding"
    for name in ("logp", "ref_logp", "values", "advantages", "returns", "score"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    first, second = gradients(players(), one, SETTINGS), gradients(players(pad=END), two, SETTINGS)
    assert_same(first[0], second[0], 0.0)
    assert_same(first[1], second[1], 0.0)


def test_the_first_step_is_reinforce_written_as_a_loop() -> None:
    """At ratio 1 the gradient of the clipped surrogate is -mean_t A_t grad log pi(a_t) (Williams 1992), and that of the
    value loss mean_t (V_t - R_t) grad V_t. Here from one unpadded row at a time, with rewards, advantages and whitening
    written out as sums over tokens."""
    made = players(std=2.0, mean=0.1)
    settings = SETTINGS.model_copy(update={"epochs": 1, "gamma": 0.9, "lam": 0.8, "micro_rows": 3})
    rollout = ppo.roll_out(made, PROMPTS, settings, CPU, ("reinforce",))
    policy, critic, watched = gradients(made, rollout, settings)

    logps, values, advantages, returns = [], [], [], []
    for row, prompt in enumerate(PROMPTS):
        ids = rollout.replies.ids[row, : int(rollout.replies.segments[row].sum())].tolist()
        reply = ids[len(prompt) :]
        read = torch.tensor([ids[:-1]])
        each = [
            (model(read)[0, len(prompt) - 1 :] / 0.7).log_softmax(-1)[torch.arange(len(reply)), torch.tensor(reply)]
            for model in (made.policy, made.reference)
        ]
        value = made.critic(read)[0, len(prompt) - 1 :, 0]
        score = (reply.count(5) / 8 - 0.1) / 2.0 - (reply[-1] != END)  # std over scale is 1: the penalty is 1
        rewards = [-0.1 * ratio for ratio in (each[0] - each[1]).tolist()]
        rewards[-1] += score
        v = [*value.tolist(), 0.0]
        for t in range(len(reply)):
            deltas = [rewards[u] + 0.9 * v[u + 1] - v[u] for u in range(t, len(reply))]
            advantages.append(sum((0.9 * 0.8) ** i * delta for i, delta in enumerate(deltas)))
            returns.append(advantages[-1] + v[t])
            logps.append(each[0][t])
            values.append(value[t])
    n = len(logps)
    mean = sum(advantages) / n
    std = math.sqrt(sum((a - mean) ** 2 for a in advantages) / n)
    loss = -sum((a - mean) / std * logp for a, logp in zip(advantages, logps, strict=True)) / n
    assert_same(policy, [list(torch.autograd.grad(loss, list(made.policy.parameters())))], 1e-4)
    error = sum(0.5 * (value - target) ** 2 for value, target in zip(values, returns, strict=True)) / n
    assert_same(critic, [list(torch.autograd.grad(error, list(made.critic.parameters())))], 1e-4)
    assert watched["first_ratio_error"] < 1e-5 and watched["first_kl"] < 1e-6
    assert watched["value_loss"] == pytest.approx(error.item(), rel=1e-4)


@pytest.mark.parametrize("micro_rows", [2, 64])
def test_the_bases_text_adds_its_mean_loss(micro_rows: int, tmp_path: Path) -> None:
    """The gradient is that without text plus weight x grad of the mean next-token loss over the rows of each minibatch,
    which are never read twice."""
    asked: list[list[int]] = []

    def rows(numbers: Sequence[int]) -> Packed:
        asked.append(list(numbers))
        ids = torch.tensor([[3 + (n * 7 + i) % 9 for i in range(9)] for n in numbers])
        counted = torch.tensor([[float(i < 3 + n % 5) for i in range(8)] for n in numbers])
        return Packed(ids[:, :-1], ids[:, 1:], counted, torch.ones_like(ids[:, :-1]))

    settings = SETTINGS.model_copy(update={"minibatch_rows": 5, "epochs": 1, "micro_rows": micro_rows})
    made = players()
    rollout = ppo.roll_out(made, PROMPTS, settings, CPU, ("text",))
    without, critic, _ = gradients(made, rollout, settings)
    reminded = dataclasses.replace(made, text=rows)
    policy, same_critic, watched = gradients(reminded, rollout, settings.model_copy(update={"pretrain_weight": 0.5}))
    assert_same(same_critic, critic, 1e-6)
    assert len(asked) == len(policy) == 2 and len({n for numbers in asked for n in numbers}) == 2 * ppo.TEXT_ROWS
    losses = []
    for step, numbers in enumerate(list(asked)):
        read = rows(numbers)
        logp = made.policy(read.ids, read.segments).log_softmax(-1).gather(-1, read.targets[..., None]).squeeze(-1)
        loss = -(logp * read.weights).sum() / read.weights.sum()
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, list(made.policy.parameters()))
        expected = [a + 0.5 * b for a, b in zip(without[step], grads, strict=True)]
        assert_same([policy[step]], [expected], 1e-4)
    assert watched["pretrain_loss"] == pytest.approx(statistics.fmean(losses), rel=0.05)
    asked.clear()
    play(reminded, PROMPTS, settings.model_copy(update={"pretrain_weight": 0.5, "rounds": 3}), tmp_path, 0)
    assert sum(map(len, asked)) == len({n for numbers in asked for n in numbers}) == 3 * 2 * ppo.TEXT_ROWS


@pytest.mark.parametrize("micro_rows", [1, 3])
def test_micro_batches_change_nothing(micro_rows: int) -> None:
    made = players()
    rollout = ppo.roll_out(made, PROMPTS, SETTINGS, CPU, ("micro",))
    again = ppo.roll_out(made, PROMPTS, SETTINGS.model_copy(update={"micro_rows": micro_rows}), CPU, ("micro",))
    for name in ("logp", "values", "advantages", "returns"):
        torch.testing.assert_close(getattr(again, name), getattr(rollout, name), atol=1e-5, rtol=0)
    with torch.no_grad():  # ratios away from 1, some of them clipped
        made.policy.trunk.embed.weight += 0.05 * torch.randn(16, 16, generator=generator("off"))
        made.critic.score.weight += 0.3
    whole = gradients(made, rollout, SETTINGS)
    assert 0.1 < whole[2]["clip_fraction"] < 0.9
    pieces = gradients(made, rollout, SETTINGS.model_copy(update={"micro_rows": micro_rows}))
    assert_same(whole[0], pieces[0], 1e-5)
    assert_same(whole[1], pieces[1], 1e-5)
    assert pieces[2] == pytest.approx(whole[2], rel=1e-4, abs=1e-6)


def test_what_is_watched_is_the_last_minibatch_alone() -> None:
    made = players()
    rollout = ppo.roll_out(made, PROMPTS, SETTINGS, CPU, ("watched",))
    with torch.no_grad():
        made.policy.trunk.embed.weight += 0.05 * torch.randn(16, 16, generator=generator("off"))
    watched = gradients(made, rollout, SETTINGS.model_copy(update={"minibatch_rows": 3, "micro_rows": 2}))[2]
    last = torch.randperm(len(PROMPTS), generator=generator(0, 1, "minibatches", SETTINGS.epochs - 1))[6:]
    with torch.no_grad():
        now = reply_logp(made.policy, rollout.replies.rows(last), temperature=0.7)
    off = (now - rollout.logp[last])[rollout.replies.mask[last].bool()]
    assert watched["step_kl"] == pytest.approx(0.5 * float((off**2).mean()), rel=1e-4)
    assert watched["ratio"] == pytest.approx(float(off.exp().mean()), rel=1e-4)
    assert watched["clip_fraction"] == pytest.approx(float(((off.exp() - 1).abs() > 0.2).float().mean()))


# --- the loop -------------------------------------------------------------------------------------------------------


def test_every_round_starts_at_ratio_one(tmp_path: Path) -> None:
    """Minibatches and micro-batches that do not divide the rollout, a temperature, a policy that moves."""
    made = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
    settings = SETTINGS.model_copy(update={"minibatch_rows": 5, "micro_rows": 2, "rounds": 6})
    lines = play(made, PROMPTS, settings, tmp_path, 0)
    assert lines[0]["kl"] == 0.0, "the first rollout is the reference's own"
    for line in lines:
        assert line["first_ratio_error"] < 1e-4 and line["first_kl"] < 1e-6
    assert all(line["step_kl"] > 1e-5 for line in lines), "the last minibatch is not the first"
    assert lines[-1]["kl"] > 0.01, "the policy moved"


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path) -> None:
    files = []
    for place, seed in (("one", 1), ("two", 1), ("three", 2)):
        made = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
        play(made, PROMPTS, SETTINGS, tmp_path / place, seed)
        files.append((tmp_path / place / "ppo.jsonl").read_bytes())
    assert files[0] == files[1] != files[2]


def test_every_round_samples_anew() -> None:
    made = players()
    one, again, two = (ppo.roll_out(made, PROMPTS, SETTINGS, CPU, (0, "rollout", round_)) for round_ in (1, 1, 2))
    assert torch.equal(one.replies.ids, again.replies.ids) and not torch.equal(one.replies.ids, two.replies.ids)


def budget_run(rounds: int, budget: float | None, folder: Path) -> tuple[dict, list[dict], list[dict], ppo.Models]:
    """(how it ended, the log, the policy after 0, 1, ... rounds, the models)."""
    made = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
    settings = SETTINGS.model_copy(update={"rounds": rounds, "kl_budget": budget, "kl_weight": 0.0})
    states: list[dict] = []

    def keep(round_: int) -> dict[str, float]:
        states.append({name: value.clone() for name, value in made.policy.state_dict().items()})
        return {"kl": 0.0, "alarms": 0.0, "near": 0.0}

    keep(0)
    log = Metrics(folder / f"{rounds} {budget}.jsonl")
    policy = learner(made.policy)
    session = Session(0, log, Limit(policy, budget), watch=keep)
    ended = ppo.train(policy, learner(made.critic), made, PROMPTS, settings, CPU, session)
    return ended, metrics.read(log.path), states, made


def test_over_the_kl_budget_the_last_policy_within_it_comes_back(tmp_path: Path) -> None:
    _, lines, states, _ = budget_run(8, None, tmp_path)
    kls = [line["kl"] for line in lines]  # kls[i]: of the policy after i rounds
    assert max(kls[:5]) < 0.9 * kls[5], "it moves away, round after round"
    for rounds in (8, 5):  # once it is seen in the next rollout, once after the last round
        ended, stopped, _, made = budget_run(rounds, (kls[4] + kls[5]) / 2, tmp_path)
        assert ended["rounds"] == 4 and "over the budget" in ended["stopped"]
        assert [line["kl"] for line in stopped] == kls[:5]
        assert all(torch.equal(made.policy.state_dict()[name], value) for name, value in states[4].items())
    ended, _, _, made = budget_run(4, (kls[4] + kls[5]) / 2, tmp_path)
    assert ended == {"rounds": 4, "stopped": "all rounds done"}


def test_replies_of_another_distribution_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SETTINGS.model_copy(update={"rounds": 1, "rollout_prompts": 32})
    play(players(noise=0.1), PROMPTS * 4, settings, tmp_path, 0)
    assert "nats" not in capsys.readouterr().err
    made = players(noise=0.1)
    monkeypatch.setattr(
        rollouts, "generate", lambda model, *given, **options: generate(made.reference, *given, **options)
    )
    play(made, PROMPTS * 4, settings, tmp_path, 0)
    (line,) = (text for text in capsys.readouterr().err.splitlines() if "nats" in text)
    assert "round 1: the KL to the assistant is -" in line and "docs/ppo.md" in line


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_reward_that_is_no_number_stops_before_the_step(tmp_path: Path, warmup: int) -> None:
    made = dataclasses.replace(players(), reward=lambda replies: wanted_share(replies) / 0)
    before = {name: value.clone() for name, value in made.policy.state_dict().items()}
    with pytest.raises(NotFinite, match="ppo round 1"):
        play(made, PROMPTS, SETTINGS.model_copy(update={"critic_warmup_rounds": warmup}), tmp_path, 0)
    assert all(torch.equal(made.policy.state_dict()[name], value) for name, value in before.items())


def test_replies_are_scored_whole(tmp_path: Path) -> None:
    """The reward reads prompt and reply up to its end, and nothing of the padding."""
    seen: list[Replies] = []

    def reward(replies: Replies) -> Tensor:
        seen.append(replies)
        return wanted_share(replies)

    made = dataclasses.replace(players(), reward=reward)
    rollout = ppo.roll_out(made, PROMPTS, SETTINGS.model_copy(update={"micro_rows": 3}), CPU, ("whole",))
    read = [row[keep.bool()].tolist() for part in seen for row, keep in zip(part.ids, part.segments, strict=True)]
    ends = [len(prompt) + int(count) for prompt, count in zip(PROMPTS, rollout.replies.mask.sum(dim=1), strict=True)]
    assert sorted(read) == sorted(row[:end].tolist() for row, end in zip(rollout.replies.ids, ends, strict=True))
    assert max(part.ids.shape[1] for part in seen) > min(part.ids.shape[1] for part in seen), "cut to the longest"
