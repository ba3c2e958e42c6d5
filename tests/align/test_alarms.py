"""What looks wrong while a policy trains, and what comes back when it does."""

from pathlib import Path

import pytest
import torch
from tests_games import BANDIT_PROMPTS, BANDIT_SHAPE, CPU, END, WANTED, language_model, learner, models, wanted_share

from palate import metrics
from palate.align.alarms import NEAR, REACH, REPEATED, alarms, repetition
from palate.align.limit import Limit
from palate.align.prompts import Asked
from palate.align.session import Session
from palate.align.watch import Watch, figures
from palate.metrics import Metrics
from palate.recipe import Grpo
from palate.records import Message, Prompt
from palate.stages import grpo

CALM = {
    "reply_tokens": 20.0,
    "eos_rate": 0.98,
    "repetition": 0.01,
    "entropy": 0.4,
    "beyond": 0.005,
    "reach": 0.1,
    "kl": 0.0,
}


def test_repetition_counts_what_was_said_before() -> None:
    assert repetition([]) == repetition([1, 2, 3]) == repetition(range(100)) == 0.0
    assert repetition([7] * 13) == pytest.approx(9 / 10), "one new 4-gram of ten"
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


@pytest.mark.parametrize(
    ("name", "value", "near", "ends"),
    [
        ("length", {"reply_tokens": 31.0}, {"reply_tokens": 29.0}, False),
        ("length", {"reply_tokens": 9.0}, {"reply_tokens": 11.0}, False),
        ("endings", {"eos_rate": 0.87}, {"eos_rate": 0.89}, True),
        ("repetition", {"repetition": 0.011 + REPEATED}, {"repetition": 0.009 + REPEATED}, True),
        ("entropy", {"entropy": 0.09}, {"entropy": 0.11}, True),
        ("range", {"beyond": 0.11}, {"beyond": 0.09}, False),
        ("reach", {"reach": 0.11 + REACH}, {"reach": 0.09 + REACH}, True),
    ],
)
def test_each_alarm(name: str, value: dict[str, float], near: dict[str, float], ends: bool) -> None:
    assert alarms(CALM, CALM) == [] == alarms(CALM | near, CALM)
    (found,) = alarms(CALM | value, CALM)
    assert (found.name, found.ends) == (name, ends)


@pytest.mark.parametrize(
    ("far", "nearly"),
    [
        ({"eos_rate": 0.98 - 0.09}, {"eos_rate": 0.98 - 0.08}),
        ({"repetition": 0.01 + 0.9 * REPEATED}, {"repetition": 0.01 + 0.8 * REPEATED}),
        ({"entropy": 0.4 * (1 - 0.75 * 0.9)}, {"entropy": 0.4 * (1 - 0.75 * 0.8)}),
        ({"reach": 0.1 + 0.9 * REACH}, {"reach": 0.1 + 0.8 * REACH}),
    ],
)
def test_near_is_most_of_the_way_to_an_alarm(far: dict[str, float], nearly: dict[str, float]) -> None:
    assert alarms(CALM | far, CALM) == [] == alarms(CALM | nearly, CALM, share=NEAR)
    (found,) = alarms(CALM | far, CALM, share=NEAR)
    assert found.ends


def test_what_comes_back_was_not_near_an_alarm() -> None:
    policy = learner(language_model(BANDIT_SHAPE, 0))
    limit = Limit(policy, None, halt=True)
    for done, (near, ends) in enumerate([(0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]):
        policy.model.head.weight.data.fill_(float(done))
        stopped = limit.looked({"kl": 0.0, "near": near, "alarms": ends}, done)
        assert (stopped is None) == (done < 3)
    assert limit.done == 1 and policy.model.head.weight.mean().item() == 1.0


class Letters:
    """A tokenizer as far as the watch needs one."""

    stops = (END,)
    pad = 0

    def decode(self, ids: tuple[int, ...]) -> str:
        return " ".join(map(str, ids))


def watched(folder: Path, seed: int = 0) -> tuple[Watch, Limit, Grpo]:
    prompts = [Prompt(id=f"p{i}", messages=(Message(role="user", content="?"),), family="f") for i in range(16)]
    players = models(language_model(BANDIT_SHAPE, seed), wanted_share, stops=(END,))
    asked = Asked(prompts, BANDIT_PROMPTS[:16], prompts, BANDIT_PROMPTS[:16])
    settings = Grpo(
        rounds=30, rollout_prompts=8, answers=4, max_new_tokens=8, minibatch_rows=32, policy_lr=2e-2, warmup_steps=0,
        kl_weight=0.0, missing_eos_penalty=0.0, evaluate_every=1, schedule="constant",
    )  # fmt: skip
    views, said = Metrics(folder / "watched.jsonl"), Metrics(folder / "alarms.jsonl")
    watch = Watch(players, asked, settings, Letters(), CPU, views, said, seed)  # type: ignore[arg-type]
    return watch, Limit(learner(players.policy), None, halt=True), settings


def test_who_only_repeats_itself_is_stopped_and_the_last_good_policy_comes_back(tmp_path: Path) -> None:
    """The bandit pays for one token over and over, which is what a bad reward model does."""
    watch, limit, settings = watched(tmp_path)
    states = {}

    def look(round_: int) -> dict[str, float]:
        policy = watch.players.policy.state_dict()
        states[round_] = {name: value.clone() for name, value in policy.items()}
        return watch(round_)

    assert limit.looked(look(0), 0) is None
    session = Session(0, Metrics(tmp_path / "grpo.jsonl"), limit, watch=look)
    told = grpo.train(limit.policy, watch.players, BANDIT_PROMPTS, settings, CPU, session)
    assert "alarm" in told["stopped"] and 0 < told["rounds"] < max(states) < settings.rounds
    assert told["rounds"] == max(states) - 1
    kept = watch.players.policy.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in states[told["rounds"]].items())
    said = metrics.read(tmp_path / "alarms.jsonl")
    assert {line["step"] for line in said if line["name"] in ("repetition", "endings", "entropy")} == {max(states)}


def test_who_goes_on_remembers_the_first_look(tmp_path: Path) -> None:
    watch, _, _ = watched(tmp_path)
    watch(0)
    first = dict(watch.first)
    watch.players.policy.head.weight.data[WANTED] += 4.0  # says nothing else now
    again, _, _ = watched(tmp_path / "other")
    later = Watch(
        watch.players, watch.asked, watch.settings, watch.tokenizer, CPU,
        Metrics(tmp_path / "watched.jsonl", resume_after=5, gaps=True), Metrics(tmp_path / "alarms.jsonl"), 0,
    )  # fmt: skip
    seen = later(6)
    assert later.first == pytest.approx(first) and seen["alarms"] > 0 and not again.first
    lines = [line for line in metrics.read(tmp_path / "watched.jsonl") if line["step"] == 6]
    assert figures(lines) == pytest.approx(
        {name: value for name, value in seen.items() if name not in ("alarms", "near")}
    )
