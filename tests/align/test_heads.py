"""The reward model's heads, fitted again on features that are kept."""

import dataclasses
import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from palate.align import heads
from palate.align.heads import RIDGE, Table
from palate.batches.rankings import Group
from palate.cli import main
from palate.errors import BadInput
from palate.feedback.reliability import EQUAL
from palate.measure import preference
from palate.objectives.preference import preference_loss
from palate.recipe import Recipe
from palate.records import CRITERIA, Judgement, Message, Prompt, Response, read_jsonl
from palate.weights import folder as weights
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
DIM, PROMPTS, ANSWERS = 6, 120, 4
TASTE = torch.tensor([2.0, -1.0, 0.5, 0.0, 0.0, 1.0])


def world(seed: int = 0) -> tuple[Table, Tensor]:
    """Random features of four answers to each of many prompts, (prompts, answers, dim) as well."""
    features = torch.randn(PROMPTS * ANSWERS, DIM, generator=torch.Generator().manual_seed(seed))
    rows = {f"r{p} {k}": p * ANSWERS + k for p in range(PROMPTS) for k in range(ANSWERS)}
    return Table(rows, features), features.view(PROMPTS, ANSWERS, DIM)


def ranked(features: Tensor, taste: Tensor, name: str, *, noise: float = 0.0, prompts: range = range(PROMPTS)):
    """One annotator's judgements: order by taste and Gumbel noise, which is Plackett and Luce's model."""
    rng = random.Random(name)
    found = []
    for p in prompts:
        felt = {f"r{p} {k}": float(features[p, k] @ taste) + noise * rng.gauss(0, 1) for k in range(ANSWERS)}
        order = sorted(felt, key=lambda r: -felt[r])
        found.append(
            Judgement(
                id=f"{name} {p}", prompt_id=f"p{p}", annotator=name, ranks={r: i + 1 for i, r in enumerate(order)},
                criteria={r: {c: 3 + max(-2.0, min(2.0, float(features[p, k] @ taste))) for c in CRITERIA[:2]}
                          for k, r in enumerate(felt)},
            )
        )  # fmt: skip
    return found


def test_the_fit_is_the_minimum_of_the_ranking_loss() -> None:
    """Of `preference_loss` itself, with the ridge: any other head nearby is worse."""
    table, features = world()
    judgements = ranked(features, TASTE, "a", noise=1.0) + ranked(features, TASTE, "b", noise=1.0)
    head = heads.fit(table, judgements)
    std = table.features.std(dim=0)

    def loss(head: Tensor) -> float:
        targets, counts = torch.zeros(PROMPTS, ANSWERS, ANSWERS), torch.zeros(PROMPTS, ANSWERS, ANSWERS)
        for judgement in judgements:
            p = int(judgement.prompt_id[1:])
            for a, b, target in judgement.pairs():
                i, j = sorted((int(a.split()[1]), int(b.split()[1])))
                targets[p, i, j] += target if a == f"r{p} {i}" else 1 - target
                counts[p, i, j] += 1
        mean = preference_loss(features @ head, targets / counts.clamp(min=1), counts)[0] / PROMPTS
        return float(mean + RIDGE * (head * std).square().sum())

    best = loss(head)
    for seed in range(20):
        step = 0.02 * torch.randn(DIM, generator=torch.Generator().manual_seed(seed)) / std
        assert loss(head + step) > best
    cosine = float(torch.cosine_similarity(head, TASTE, dim=0))
    assert cosine > 0.97, "it is the taste that ordered them"
    mixed_up = random.Random(1).sample(judgements, len(judgements))
    torch.testing.assert_close(heads.fit(table, mixed_up), head, atol=1e-3, rtol=0)


def test_who_counts_for_nothing_changes_nothing() -> None:
    table, features = world()
    good, bad = ranked(features, TASTE, "good", noise=0.5), ranked(features, -TASTE, "bad", noise=0.5)
    alone = heads.fit(table, good)
    without = heads.fit(table, good + bad, {"bad": dataclasses.replace(EQUAL, weight=0.0)})
    torch.testing.assert_close(without, alone, atol=1e-3, rtol=0)
    assert float(torch.cosine_similarity(heads.fit(table, good + bad), TASTE, dim=0)) < 0.9
    with pytest.raises(ValueError, match="no judgement compares"):
        heads.fit(table, [])


def test_criteria_are_regressed() -> None:
    table, features = world()
    found = heads.fit_criteria(table, ranked(features, 0.4 * TASTE, "a"))
    assert set(found) == set(CRITERIA[:2]), "nobody scored the others"
    for head in found.values():
        torch.testing.assert_close(head, 0.2 * TASTE, atol=0.03, rtol=0)


def test_what_one_person_changed() -> None:
    """Three guests share a taste, one has another. Without that one the head orders the others' pairs better."""
    table, features = world()
    judgements = [j for name in "abc" for j in ranked(features, TASTE, name, noise=0.3)]
    other = torch.tensor([-2.0, 1.0, 3.0, 2.0, 0.0, -1.0])
    judgements += ranked(features, other, "z", noise=0.3)
    unseen_table, unseen = world(seed=1)
    rows = {f"u{i}": len(table.rows) + i for i in range(PROMPTS * ANSWERS)}
    both = Table(table.rows | rows, torch.cat([table.features, unseen_table.features]))
    truth = unseen @ TASTE
    groups = []
    for p in range(PROMPTS):
        upper = [[1.0 if j > i else 0.0 for j in range(ANSWERS)] for i in range(ANSWERS)]
        groups.append(
            Group(
                prompt=Prompt(id=f"q{p}", messages=(Message(role="user", content="?"),), family="f"),
                responses=tuple(Response(id=f"u{p * ANSWERS + k}", prompt_id=f"q{p}", text="") for k in range(ANSWERS)),
                prompt_ids=(1,), reply_ids=tuple((k,) for k in range(ANSWERS)),
                targets=tuple(tuple(float(truth[p, i] > truth[p, j]) for j in range(ANSWERS)) for i in range(ANSWERS)),
                counted=tuple(map(tuple, upper)), labels=((None,) * 4,) * ANSWERS,
            )
        )  # fmt: skip
    told = heads.influence(both, judgements, groups, preference.pair_accuracy)
    assert set(told) == set("abcz")
    assert told["z"]["accuracy_without"] > 0.01 > max(told[name]["accuracy_without"] for name in "abc")
    assert told["z"]["another_first"]["low"] > told["z"]["by_chance"]["high"]
    assert told["a"]["another_first"]["mean"] < told["z"]["another_first"]["mean"]


def test_kept_features_give_the_trained_scores(small_run: Made, tmp_path: Path) -> None:
    workspace = small_run[1]
    source = workspace.read("reward")
    table = heads.read(source)
    model, extra = weights.load_scalar_model(source)
    report = json.loads((source / "report.json").read_text())
    scores = table.features @ model.score.weight.detach().T
    values = scores @ torch.tensor(extra["mix"])
    folder = workspace.read("rankings")
    train = {p.id for p in read_jsonl(folder / "prompts.jsonl", Prompt) if p.split == "train"}
    answers = [r.id for r in read_jsonl(folder / "responses.jsonl", Response) if r.prompt_id in train]
    rows = sorted({table.rows[name] for name in answers if name in table.rows})
    assert float(values[rows].std()) == pytest.approx(extra["std"], rel=0.02, abs=1e-6)
    assert set(report["influence"]) == set(report["annotators"])
    assert all(0 <= line["another_first"]["mean"] <= 1 for line in report["influence"].values())
    (tmp_path / heads.FILE).write_bytes((source / heads.FILE).read_bytes()[:-100])
    with pytest.raises(BadInput, match="Train the reward model again"):
        heads.read(tmp_path)


def test_palate_refit(small_run: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, workspace = small_run
    out = tmp_path / "reward"
    main(["refit", str(workspace.folder), "--out", str(out)])
    told = capsys.readouterr().out
    assert "(0 that the reward model was not trained on)" in told and "fitted again (n = " in told
    before, _ = weights.load_scalar_model(workspace.read("reward"))
    after, extra = weights.load_scalar_model(out)
    assert not torch.equal(before.score.weight, after.score.weight) and extra["labels"] == list(heads.OUTPUTS)
    assert all(
        torch.equal(p, dict(after.named_parameters())[n]) for n, p in before.named_parameters() if "score" not in n
    )
    with pytest.raises(SystemExit):
        main(["refit", str(workspace.folder), "--out", str(out)])
    assert "is not empty" in capsys.readouterr().err
