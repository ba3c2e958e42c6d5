import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palate import flow
from palate.align import rankings
from palate.batches.rankings import Group, batch, by_size, groups
from palate.errors import BadInput
from palate.feedback.reliability import EQUAL
from palate.measure import preference
from palate.objectives.preference import preference_loss
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, conversation, read_jsonl
from palate.stages import reward
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def ranked(workspace: Workspace) -> list[Group]:
    folder = workspace.read("rankings")
    found, _ = groups(
        read_jsonl(folder / "prompts.jsonl", Prompt),
        read_jsonl(folder / "responses.jsonl", Response),
        read_jsonl(folder / "judgements.jsonl", Judgement),
        tokenizers.load(workspace.read("sft")),
        room=160,
    )
    return found


def test_what_it_measures(small_run: Made) -> None:
    folder = small_run[1].read("reward")
    report = json.loads((folder / "report.json").read_text())
    for name in ("accuracy", "length_only", "bag_of_words", "best_of_k"):
        assert report[name]["low"] <= report[name]["mean"] <= report[name]["high"]
    model, extra = weights.load_scalar_model(folder)
    assert extra["mix"] == pytest.approx([0, 0, 0, 0, report["slope"]]) and 0 <= report["slope"] <= 1
    assert extra["std"] >= 0 and extra["labels"][-1] == "overall" == "overall"
    assert model.score.out_features == 5


def test_groups_average_judgements_and_merge_equal_answers(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    prompt = Prompt(id="p", messages=conversation("Suggest a dinner."), family="f")
    responses = [Response(id=i, prompt_id="p", text=t) for i, t in (("a", "Soup."), ("b", "Stew."), ("c", "Soup."))]
    judgements = [
        Judgement(
            id="1", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2, "c": 1}, criteria={"a": {"safety": 5.0}}
        ),
        Judgement(id="2", prompt_id="p", annotator="y", ranks={"a": 2, "b": 1}),
    ]
    (group,), too_long = groups([prompt], responses, judgements, tokenizer, room=160)
    assert too_long == 0 and [r.id for r in group.responses] == ["a", "b"]
    # a > b, c > b (c is a), b > a: two of three for "Soup."
    assert group.targets[0][1] == pytest.approx(2 / 3) and group.counted[0][1] == 3
    assert group.labels[0] == (None, None, 1.0, None)


def test_the_loss_of_one_pair_and_of_a_tie() -> None:
    targets = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    weights_ = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    scores = torch.tensor([[2.0, 0.5]])
    loss, count = preference_loss(scores, targets, weights_)
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(torch.tensor(1.5)))
    assert count == 1
    even, _ = preference_loss(scores, targets * 0.5, weights_)
    level, _ = preference_loss(torch.zeros(1, 2), targets * 0.5, weights_)
    assert even > level  # a tie asks for equal scores


def test_scores_do_not_depend_on_the_batch(small_run: Made) -> None:
    found = ranked(small_run[1])
    model, _ = weights.load_scalar_model(small_run[1].read("reward"))
    from palate.device import Device
    from palate.generate.replies import reply_scores

    device = Device("cpu", torch.float32)
    together = batch(found[:4], pad=0, device=device.torch)
    spread = together.spread(reply_scores(model, together.replies, pooling="mean"))
    for number, group in enumerate(found[:4]):
        alone = batch([group], pad=0, device=device.torch)
        scores = reply_scores(model, alone.replies, pooling="mean")
        torch.testing.assert_close(spread[number, : len(scores)], scores, atol=1e-5, rtol=0)


def test_accuracy_and_calibration_by_hand(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    prompt = Prompt(id="p", messages=conversation("?"), family="f")
    responses = [Response(id=i, prompt_id="p", text=i) for i in "abc"]
    judgement = Judgement(id="1", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2, "c": 3})
    found, _ = groups([prompt], responses, [judgement], tokenizer, room=160)
    assert preference.pair_accuracy(found, [[3.0, 2.0, 1.0]]).mean == 1.0
    assert preference.pair_accuracy(found, [[2.0, 3.0, 1.0]]).mean == pytest.approx(2 / 3)
    assert preference.best_of_k(found, [[1.0, 2.0, 3.0]]).mean == 0.0
    unjudged = [Response(id="d", prompt_id="p", text="d")]
    found_too, _ = groups([prompt], [*responses, *unjudged], [judgement], tokenizer, room=160)
    assert preference.best_of_k(found_too, [[3.0, 2.0, 1.0, 9.0]]).mean == 1.0, "nobody was asked about d"
    sure = preference.calibration(found, [[60.0, 30.0, 0.0]])
    assert sure["ece"] < 1e-4


def test_length_bias_by_hand(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("sft"))
    prompts = [Prompt(id=name, messages=conversation(name), family="f") for name in "pq"]
    texts = {"p": ("one two three", "one two", "one"), "q": ("one two", "one", "uno")}
    responses = [Response(id=f"{n}{i}", prompt_id=n, text=t) for n, each in texts.items() for i, t in enumerate(each)]
    judgements = [
        Judgement(id="1", prompt_id="p", annotator="x", ranks={"p0": 1, "p1": 2, "p2": 1}),
        Judgement(id="2", prompt_id="q", annotator="x", ranks={"q0": 2, "q1": 1, "q2": 3}),
    ]
    found, _ = groups(prompts, responses, judgements, tokenizer, room=160)
    people = preference.longer_preferred(found)
    # p: of three against two, two against one the first and not the second, a tie left out; q: of two against one, one
    # of two; two of one word are equally long.
    assert people is not None and (people.mean, people.n) == (0.5, 2)
    model = preference.longer_preferred(found, [[3.0, 2.0, 1.0], [1.0, 0.5, 2.0]])
    assert model is not None and model.mean == 0.75
    alike = [replace(g, responses=tuple(replace(r, text="one") for r in g.responses)) for g in found]
    assert preference.longer_preferred(alike) is None


def test_replies_without_a_word_are_equally_long(small_run: Made) -> None:
    """A weak assistant may say nothing but its end: there is no longest reply to measure the others by."""
    silent = [replace(g, responses=tuple(replace(r, text="") for r in g.responses)) for g in ranked(small_run[1])]
    assert preference.length_only(silent, silent).mean == 0.5


def test_ties_alone_are_told_before_training(small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tied = [replace(g, targets=tuple(tuple(0.5 for _ in row) for row in g.targets)) for g in ranked(small_run[1])]
    monkeypatch.setattr(rankings, "groups", lambda *_, **__: (tied, 0))
    recipe = small_run[0].model_copy(update={"seed": 99})
    with pytest.raises(BadInput, match=r"every comparison of answers to the \d+ judged train prompts is a tie"):
        flow.run_stage("reward", recipe, Workspace(tmp_path / "run", parent=small_run[1]))


def test_pieces_hold_every_group_once_and_stay_within_the_tokens(small_run: Made) -> None:
    members = ranked(small_run[1])
    pieces = by_size(members, 700)
    assert sorted(g.prompt.id for piece in pieces for g in piece) == sorted(g.prompt.id for g in members)
    assert 1 < len(pieces) < len(members)
    for piece in pieces:
        rows = batch(piece, pad=0, device=torch.device("cpu")).replies.ids
        assert rows.numel() <= 700 or len(piece) == 1


@pytest.mark.parametrize(("truth", "told"), [(0.5, 0.5), (0.1, 0.1), (0.0, 0.0), (-0.5, 0.0), (2.0, 1.0)])
def test_the_slope_is_what_a_score_is_worth(truth: float, told: float) -> None:
    rng = random.Random(0)
    members, scores = [], []
    for number in range(4000):
        a, b = rng.gauss(0, 2), rng.gauss(0, 2)
        preferred = float(rng.random() < 1 / (1 + math.exp(-truth * (a - b))))
        prompt = Prompt(id=str(number), messages=conversation("q"), family="f")
        members.append(
            Group(prompt=prompt, responses=(), prompt_ids=(1,), reply_ids=((2,), (3,)),
                  targets=((0.0, preferred), (0.0, 0.0)), counted=((0.0, 1.0), (0.0, 0.0)), labels=())
        )  # fmt: skip
        scores.append([a, b])
    assert preference.slope(members, scores) == pytest.approx(told, abs=0.04)


def test_who_judged_is_told_and_held_out_prompts_weigh_everybody_alike(small_run: Made, tmp_path: Path) -> None:
    """Of guests that agree as the panel does; only judgements of train prompts say who can be relied on."""
    workspace = small_run[1]
    report = json.loads((workspace.read("reward") / "report.json").read_text())
    train = rankings.judged_train(workspace)
    told = report["annotators"]
    assert sum(line["judgements"] for line in told.values()) == len(train) < len(ranked(workspace)) * 4
    assert sum(line["weight"] * line["judgements"] for line in told.values()) == pytest.approx(len(train), rel=1e-3)
    assert all(line["simulated"] for line in told.values())
    tokenizer = tokenizers.load(workspace.read("sft"))
    deaf = {name: replace(EQUAL, weight=0.5) for name in told}
    plain, weighed = (rankings.read(workspace, tokenizer, room=160, annotators=who) for who in (None, deaf))
    assert weighed[1:] == plain[1:] and {group.worth for group in plain[1]} == {1.0}
    assert weighed[0] != plain[0] and {group.worth for group in weighed[0]} == {0.5}


def test_other_weights_of_the_heads_train_nothing(
    small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Criteria are weighed anew without new labels and without training, to the bytes of a training with them."""
    recipe, run = small_run
    assert recipe.reward is not None
    other = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"weights": {"safety": 2.0}})})
    again, fresh = Workspace(tmp_path / "again", parent=run), Workspace(tmp_path / "fresh", parent=run)
    flow.run_stage("reward", recipe, again)
    log = (again.logs / "reward.jsonl").read_bytes()
    flow.run_stage("reward", other, fresh)
    monkeypatch.setattr(reward, "train", None)
    assert flow.run_stage("reward", other, again)
    assert again.manifest("reward")["digest"] == fresh.manifest("reward")["digest"]
    assert (again.logs / "reward.jsonl").read_bytes() == log
    longer = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"criteria_weight": 0.3})})
    with pytest.raises(TypeError):  # this does need training
        flow.run_stage("reward", longer, again)
