"""Ranking and criteria losses against loops over the judgements they come from."""

import random

import pytest
import torch
from objectives import reference
from objectives.ragged import close

from palate.batches.rankings import RankedBatch, batch, groups
from palate.objectives.preference import criteria_loss, preference_loss
from palate.records import CRITERIA, Judgement, Prompt, Response, conversation


class Letters:
    """All that `groups` asks of a tokenizer."""

    end = 1

    def encode_prompt(self, messages: object) -> list[int]:
        return [2, 3]


def judged(rng: random.Random, candidates: list[int]) -> tuple[RankedBatch, list[list[dict[int, int]]], list]:
    """Random judgements of prompts with these numbers of candidates: as a batch in float64, as the ranks of each
    annotator, and as mean criterion labels. Ties, answers left out, several annotators, prompts of one candidate."""
    prompts, responses, judgements = [], [], []
    rankings: list[list[dict[int, int]]] = []
    labels: list[list[dict[int, float]]] = []
    for p, count in enumerate(candidates):
        prompts.append(Prompt(id=str(p), messages=conversation("q"), family="f"))
        names = [f"{p}.{i}" for i in rng.sample(range(count), count)]  # ids say nothing about the order
        responses += [
            Response(id=name, prompt_id=str(p), text="", token_ids=(*rng.choices(range(9, 99), k=i + 1), 1))
            for i, name in enumerate(names)
        ]
        rankings.append([])
        given: list[dict[int, list[float]]] = [{} for _ in names]
        for annotator in range(rng.randint(1, 3)):
            seen = rng.sample(range(count), rng.randint(2, count))
            ranks = {i: rng.randint(1, 3) for i in seen}
            criteria = {}
            for i in seen:
                marks = {c: float(rng.randint(1, 5)) for c in range(len(CRITERIA)) if rng.random() < 0.4}
                criteria[names[i]] = {CRITERIA[c]: mark for c, mark in marks.items()}
                for c, mark in marks.items():
                    given[i].setdefault(c, []).append((mark - 3) / 2)
            rankings[-1].append(ranks)
            judgements.append(
                Judgement(
                    id=f"{p} {annotator}",
                    prompt_id=str(p),
                    annotator=str(annotator),
                    ranks={names[i]: rank for i, rank in ranks.items()},
                    criteria=criteria,
                )
            )
        labels.append([{c: sum(marks) / len(marks) for c, marks in row.items()} for row in given])
    found, too_long = groups(prompts, responses, judgements, Letters(), room=50)  # type: ignore[arg-type]
    assert too_long == 0 and len(found) == len(prompts)
    made = batch(found, pad=0, device=torch.device("cpu"))
    # the tables are float32; a mean of thirds needs float64 to be compared
    targets, weights = torch.zeros_like(made.targets).double(), made.weights.double()
    for n, group in enumerate(found):
        k = len(group.targets)
        targets[n, :k, :k] = torch.tensor(group.targets, dtype=torch.float64)
    torch.testing.assert_close(targets.float(), made.targets)
    return (
        RankedBatch(made.replies, made.place, targets, weights, made.labels, made.present, made.worth),
        rankings,
        labels,
    )


def table(rng: random.Random, candidates: list[int], *more: int) -> torch.Tensor:
    shape = (len(candidates), max(candidates), *more)
    numbers = [rng.uniform(-3, 3) for _ in range(torch.Size(shape).numel())]
    return torch.tensor(numbers, dtype=torch.float64).view(shape).requires_grad_()


@pytest.mark.parametrize("seed", range(12))
def test_the_ranking_loss_equals_the_papers(seed: int) -> None:
    rng = random.Random(seed)
    candidates = [rng.randint(2, 9) for _ in range(rng.randint(1, 4))]
    ranked, rankings, _ = judged(rng, candidates)
    scores = table(rng, candidates)
    loss, prompts = preference_loss(scores, ranked.targets, ranked.weights)
    rows = [row[:k].tolist() for row, k in zip(scores, candidates)]
    close([loss, prompts], list(reference.preference(rows, rankings)), 1e-12)
    (slopes,) = torch.autograd.grad(loss, scores)
    wanted = reference.gradient(lambda at: reference.preference(at, rankings)[0], rows)
    close([row[:k].tolist() for row, k in zip(slopes, candidates)], wanted, 1e-8)
    assert all((row[k:] == 0).all() for row, k in zip(slopes, candidates)), "a candidate that is not there has no score"


def test_prompts_without_a_compared_pair_do_not_count() -> None:
    scores = torch.tensor([[1.0, 2.0], [5.0, 9.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]] * 2, dtype=torch.float64)
    weights = torch.zeros(2, 2, 2, dtype=torch.float64)
    loss, prompts = preference_loss(scores, targets, weights)
    assert loss.item() == 0 and float(prompts) == 0
    weights[0, 0, 1] = 1.0
    loss, prompts = preference_loss(scores, targets, weights)
    close(loss, -reference.log_sigmoid(-1.0), 1e-12)
    assert float(prompts) == 1
    (slopes,) = torch.autograd.grad(loss, scores)
    assert (slopes[1] == 0).all() and (slopes[0] != 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_constant_on_all_scores_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    candidates = [rng.randint(2, 9) for _ in range(3)]
    ranked, _, _ = judged(rng, candidates)
    scores = table(rng, candidates)
    shifted = (scores.detach() + torch.tensor([[-40.0], [0.3], [7.0]])).requires_grad_()  # each prompt its own
    results = []
    for given in (scores, shifted):
        loss, _ = preference_loss(given, ranked.targets, ranked.weights)
        results.append((loss.detach(), torch.autograd.grad(loss, given)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    assert results[0][1].sum(dim=1).abs().max() < 1e-12, "so nothing pulls the mean of a prompt's scores"


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_the_candidates_does_not_matter(seed: int) -> None:
    """A permuted pair may land below the diagonal: its target turns over with it."""
    rng = random.Random(seed)
    candidates = [rng.randint(2, 9)] * 3
    ranked, _, _ = judged(rng, candidates)
    scores = table(rng, candidates)
    order = rng.sample(range(candidates[0]), candidates[0])
    weights = ranked.weights[:, order][:, :, order]
    targets = ranked.targets[:, order][:, :, order]
    upper, lower = torch.triu(weights), torch.tril(weights).transpose(1, 2)
    turned = torch.where(lower > 0, 1 - torch.tril(targets).transpose(1, 2), torch.triu(targets))
    loss, prompts = preference_loss(scores, ranked.targets, ranked.weights)
    again, as_many = preference_loss(scores[:, order], turned, upper + lower)
    torch.testing.assert_close(again, loss, rtol=1e-12, atol=0)
    assert prompts == as_many
    torch.testing.assert_close(torch.autograd.grad(again, scores), torch.autograd.grad(loss, scores))


@pytest.mark.parametrize("seed", range(8))
def test_the_criteria_loss_equals_its_definition(seed: int) -> None:
    rng = random.Random(seed)
    candidates = [rng.randint(2, 9) for _ in range(rng.randint(1, 4))]
    ranked, _, labels = judged(rng, candidates)
    scores = table(rng, candidates, len(CRITERIA))
    loss = criteria_loss(scores, ranked.labels.double(), ranked.present.double())
    rows = [row[:k].tolist() for row, k in zip(scores, candidates)]
    close(loss, reference.criteria(rows, labels), 1e-6)  # labels are float32 in a batch
    (slopes,) = torch.autograd.grad(loss, scores)
    wanted = reference.gradient(lambda at: reference.criteria(at, labels), rows)
    close([row[:k].tolist() for row, k in zip(slopes, candidates)], wanted, 1e-6)


def test_nobody_scored_a_criterion() -> None:
    scores = torch.ones(2, 3, 4, requires_grad=True)
    loss = criteria_loss(scores, torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, scores)[0] == 0).all()
