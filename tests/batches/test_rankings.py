"""A batch of rankings means the same in any order and in any pieces."""

import math
import random
from dataclasses import replace

import pytest
import torch
from objectives.test_preference import Letters

from palate.batches.rankings import Group, batch, by_size, groups
from palate.device import Device
from palate.feedback.reliability import EQUAL, Annotator
from palate.generate.replies import reply_scores
from palate.nn.config import Shape
from palate.nn.transformer import ScalarModel, Trunk
from palate.objectives.preference import criteria_loss, preference_loss
from palate.records import Judgement, Prompt, Response, conversation
from palate.train.update import Learner, Update, update

CPU = Device("cpu", torch.float32)


def judged(order: random.Random | None = None) -> list[Group]:
    """Six prompts with 2 to 7 answers, three of them in ties; `order` deals ids and lines out anew."""
    rng = random.Random(0)
    prompts, responses, judgements = [], [], []
    for p in range(6):
        prompts.append(Prompt(id=str(p), messages=conversation("q"), family="f"))
        answers = [(*(rng.randrange(9, 50) for _ in range(rng.randint(1, 12))), 1) for _ in range(p + 2)]
        names = [f"{p} {i}" for i in (order.sample(range(p + 2), p + 2) if order else range(p + 2))]
        responses += [Response(id=n, prompt_id=str(p), text="", token_ids=ids) for n, ids in zip(names, answers)]
        for annotator in "xyz":
            ranks = {i: rng.randint(1, 3) for i in rng.sample(range(p + 2), rng.randint(2, p + 2))}
            marks = {i: {"safety": float(rng.randint(1, 5))} for i in ranks if rng.random() < 0.5}
            judgements.append(
                Judgement(
                    id=f"{p}{annotator}",
                    prompt_id=str(p),
                    annotator=annotator,
                    ranks={names[i]: rank for i, rank in ranks.items()},
                    criteria={names[i]: given for i, given in marks.items()},
                )
            )
    if order:
        for lines in (prompts, responses, judgements):
            order.shuffle(lines)
    return groups(prompts, responses, judgements, Letters(), room=60)[0]  # type: ignore[arg-type]


def model() -> ScalarModel:
    torch.manual_seed(0)
    return ScalarModel(Trunk(Shape(vocab=50, layers=1, dim=16, heads=2, kv_heads=2, hidden=32, context=32)), 5)


def stepped(pieces: list[list[Group]]) -> tuple[Update, list[torch.Tensor]]:
    """What one step at rate 1 of the reward model's loss over these micro-batches told, and the weights after it."""
    scorer = model()

    def objective(piece: list[Group]) -> tuple[torch.Tensor, torch.Tensor]:
        ranked = batch(piece, pad=0, device=CPU.torch)
        scores = ranked.spread(reply_scores(scorer, ranked.replies, pooling="mean"))
        loss, prompts = preference_loss(scores[..., -1], ranked.targets, ranked.weights)
        return loss + 0.25 * criteria_loss(scores[..., :-1], ranked.labels, ranked.present), prompts

    learner = Learner(scorer, torch.optim.SGD(scorer.parameters(), lr=0.0))
    told = update(learner, pieces, objective, lr=1.0, max_norm=1e9, name="x")
    return told, [p.detach() for p in scorer.parameters()]


def same(one: tuple[Update, list[torch.Tensor]], other: tuple[Update, list[torch.Tensor]]) -> None:
    assert one[0].weight == other[0].weight == 6
    assert one[0].loss == pytest.approx(other[0].loss, rel=1e-6)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-6)
    assert not torch.equal(one[1][0], next(model().parameters())), "the step moved something"


@pytest.mark.parametrize("most_tokens", [1, 100, 300, 10_000])
def test_micro_batches_change_nothing(most_tokens: int) -> None:
    members = judged()
    pieces = by_size(members, most_tokens)
    assert len(pieces) == {1: 6, 100: 5, 300: 2, 10_000: 1}[most_tokens]
    same(stepped(pieces), stepped([members]))


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_files_and_ids_changes_nothing(seed: int) -> None:
    """Ids decide which of two answers a judgement names first, lines decide which is candidate i."""
    shuffled = judged(random.Random(seed))
    assert [g.responses[0].id for g in shuffled] != [g.responses[0].id for g in judged()]
    same(stepped([shuffled]), stepped([judged()]))


def test_candidates_that_are_not_there_have_no_score() -> None:
    members = judged()
    ranked = batch(members, pad=0, device=CPU.torch)
    rows = torch.arange(1.0, len(ranked.replies) + 1).unsqueeze(1)
    spread = ranked.spread(rows)[..., 0]
    assert spread.shape == (6, 7)
    at = 0
    for group, row in zip(members, spread):
        count = len(group.reply_ids)
        assert row.tolist() == [*range(at + 1, at + count + 1)] + [0] * (7 - count)
        at += count


def weighed(judgements: list[Judgement], annotators: dict[str, Annotator] | None) -> list[Group]:
    """Two prompts with two answers each, i and j."""
    prompts = [Prompt(id=p, messages=conversation("q"), family="f") for p in "pq"]
    responses = [
        Response(id=f"{p}{name}", prompt_id=p, text="", token_ids=(ids, 1))
        for p in "pq"
        for name, ids in (("i", 9), ("j", 8))
    ]
    return groups(prompts, responses, judgements, Letters(), room=60, annotators=annotators)[0]  # type: ignore[arg-type]


def says(who: str, prompt: str, first: str, second: str) -> Judgement:
    ranks = {f"{prompt}{first}": 1, f"{prompt}{second}": 2}
    shown = (f"{prompt}i", f"{prompt}j")
    return Judgement(id=f"{who}{prompt}", prompt_id=prompt, annotator=who, ranks=ranks, presented_order=shown)


KNOWN = {name: replace(EQUAL, weight=weight) for name, weight in (("careful", 1.5), ("careless", 0.5))}


def test_a_careful_judgement_counts_more_within_a_prompt() -> None:
    given = [says("careful", "p", "i", "j"), says("careless", "p", "j", "i")]
    (plain,), (group,) = weighed(given, None), weighed(given, KNOWN)
    assert (plain.targets[0][1], plain.counted[0][1], plain.worth) == (0.5, 2, 1)
    assert (group.targets[0][1], group.counted[0][1], group.worth) == (0.75, 2, 1)
    (stranger,) = weighed([says("stranger", "p", "i", "j")], KNOWN)
    assert (stranger.targets[0][1], stranger.worth) == (1, 1), "of whom nothing is known counts as everybody"


def test_a_prompt_that_only_the_careless_judged_counts_less() -> None:
    """The loss takes the mean within a prompt, where a weight that is everybody's would cancel."""
    members = weighed([says("careful", "p", "i", "j"), says("careless", "q", "i", "j")], KNOWN)
    assert [group.worth for group in members] == [1.5, 0.5]
    ranked = batch(members, pad=0, device=CPU.torch)
    scores = torch.zeros(2, 2, requires_grad=True)
    loss, prompts = preference_loss(scores, ranked.targets, ranked.weights, ranked.worth)
    loss.backward()  # type: ignore[no-untyped-call]
    assert prompts == 2 and scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([[-0.75, 0.75], [-0.25, 0.25]]))


def test_a_choice_that_order_explains_tells_little() -> None:
    hasty = {"hasty": replace(EQUAL, order_bias=2.0)}
    (follows,) = weighed([says("hasty", "p", "i", "j")], hasty)
    (against,) = weighed([says("hasty", "p", "j", "i")], hasty)
    expected = 1 / (1 + math.exp(-2.0))
    assert follows.worth == against.worth == pytest.approx(4 * expected * (1 - expected))
    assert follows.targets[0][1] == pytest.approx(0.5 + 1 / (4 * expected)) and against.targets[0][1] == 0


def test_who_says_the_opposite_of_everybody_is_not_asked() -> None:
    assert weighed([says("x", "p", "i", "j")], {"x": replace(EQUAL, weight=0.0)}) == []
