"""What stands on PAD, and how much of it there is, counts nowhere."""

import dataclasses
import random

import pytest
import torch

from palate.batches.packed import few_sizes, pack
from palate.batches.replies import Replies, lay_out
from palate.device import Device, generator
from palate.generate.replies import reply_logp, reply_logp_and_entropy, reply_scores
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, ScalarModel, Trunk, pooled
from palate.objectives.next_token import next_token_loss

CPU = Device("cpu", torch.float32)
SHAPE = Shape(vocab=50, layers=2, dim=16, heads=2, kv_heads=1, hidden=32, context=32)


@pytest.fixture(scope="module")
def rows() -> Replies:
    rng = random.Random(0)
    prompts, replies = ([[rng.randrange(9, 50) for _ in range(n)] for n in ns] for ns in ((2, 7, 1, 4), (9, 1, 3, 6)))
    return lay_out(prompts, replies, pad=0)


def networks() -> tuple[LanguageModel, ScalarModel]:
    torch.manual_seed(0)
    return LanguageModel(Trunk(SHAPE)), ScalarModel(Trunk(SHAPE), 5)


def test_the_mask_is_the_replies(rows: Replies) -> None:
    """Position t predicts token t + 1, so the mask begins on the prompt's last token and ends before the row's last."""
    assert rows.mask.sum(dim=1).tolist() == [9, 1, 3, 6]
    for row, (prompt, reply) in enumerate(zip((2, 7, 1, 4), (9, 1, 3, 6))):
        counted = rows.targets[row][rows.mask[row] == 1]
        assert torch.equal(counted, rows.ids[row, prompt : prompt + reply])


@pytest.mark.parametrize("wider", [0, 5])
def test_padding_changes_no_log_prob_entropy_or_score(rows: Replies, wider: int) -> None:
    """Other ids on PAD, and more of it."""
    model, scorer = networks()
    padding = torch.nn.functional.pad
    ids, segments = padding(rows.ids, (0, wider)), padding(rows.segments, (0, wider))
    other = torch.where(segments == 0, torch.randint(1, 50, ids.shape, generator=generator("rubbish")), ids)
    changed = Replies(other, segments, padding(rows.mask, (0, wider)))
    assert (changed.ids[:, : rows.ids.shape[1]] != rows.ids).any()
    logp, again = (reply_logp(model, r, temperature=0.7) for r in (rows, changed))
    torch.testing.assert_close(again[:, : logp.shape[1]], logp, rtol=1e-5, atol=1e-6)
    assert (again[changed.mask == 0] == 0).all() and (logp[rows.mask == 1] < 0).all()
    _, spread = reply_logp_and_entropy(model, rows, temperature=0.7)
    _, spread_too = reply_logp_and_entropy(model, changed, temperature=0.7)
    torch.testing.assert_close(spread_too.sum(dim=1), spread.sum(dim=1), rtol=0, atol=1e-5)
    for pooling in ("mean", "last"):
        scores, scores_too = (reply_scores(scorer, r, pooling=pooling) for r in (rows, changed))
        torch.testing.assert_close(scores_too, scores, rtol=1e-5, atol=1e-6)


def test_the_last_token_of_a_reply_is_not_the_last_column() -> None:
    scores = torch.arange(24.0).view(2, 6, 2)
    mask = torch.tensor([[0.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    assert pooled(scores, mask, "last").tolist() == [scores[0, 2].tolist(), scores[1, 5].tolist()]
    assert pooled(scores, mask, "mean").tolist() == [[3.0, 4.0], [20.0, 21.0]]


def test_rows_side_by_side_are_what_they_are_alone() -> None:
    """Nine texts of 2 to 12 tokens go into five rows, every token at its place, and see only themselves: log-probs
    equal those of each text read alone by the plain network."""
    lengths = [(1, 1), (2, 3), (5, 7), (4, 2), (1, 6), (3, 3), (2, 9), (1, 2), (6, 1)]
    rng = generator("side by side")
    words = [torch.randint(1, 50, (a + b,), generator=rng).tolist() for a, b in lengths]
    replies = lay_out(
        [text[:a] for text, (a, _) in zip(words, lengths)], [text[a:] for text, (a, _) in zip(words, lengths)], pad=0
    )
    ids, segments, place = replies.side_by_side()
    assert ids.shape == segments.shape == (5, 12)  # 54 tokens
    assert int((segments > 0).sum()) == sum(map(len, words))
    for row, text in enumerate(words):
        assert ids.flatten()[place[row, : len(text)]].tolist() == text
    model, _ = networks()
    together = reply_logp(model, replies, temperature=1.0)
    for row, text in enumerate(words):
        said = model(torch.tensor([text]))[0, :-1].log_softmax(dim=-1)
        expected = said[torch.arange(len(text) - 1), torch.tensor(text[1:])][lengths[row][0] - 1 :]
        torch.testing.assert_close(together[row][replies.mask[row] == 1], expected, rtol=1e-5, atol=1e-6)


def test_padding_may_be_longer_than_a_text() -> None:
    """Of a network that reads 17 tokens rows are 20 wide, because shapes are few, and in the 18th nothing stands."""
    model = LanguageModel(Trunk(dataclasses.replace(SHAPE, context=17)))
    texts = [list(range(1, 18)) for _ in range(17)]
    replies = lay_out([text[:4] for text in texts], [text[4:] for text in texts], pad=0)
    assert replies.side_by_side()[0].shape == (18, 20)
    said = model(torch.tensor(texts[:1]))[0, :-1].log_softmax(dim=-1)
    expected = said[torch.arange(3, 16), torch.tensor(texts[0][4:])]
    for found in reply_logp(model, replies, temperature=1.0):
        torch.testing.assert_close(found[3:], expected, rtol=1e-5, atol=1e-6)


def test_batches_have_few_shapes() -> None:
    """Libraries make code for each new shape, so that a hundred batches of any lengths have only a few."""
    rng = random.Random(0)
    shapes = set()
    for _ in range(100):
        lengths = [(rng.randint(5, 40), rng.randint(1, 80)) for _ in range(rng.randint(60, 64))]
        replies = lay_out([[1] * a for a, _ in lengths], [[2] * b for _, b in lengths], pad=0)
        ids, segments, _ = replies.side_by_side()
        shapes.add(ids.shape)
        assert ids.numel() < 1.35 * int((segments > 0).sum())
    assert len(shapes) <= 12
    assert [few_sizes(n) for n in (0, 1, 15, 16, 17, 31, 33, 127, 129)] == [0, 1, 15, 16, 18, 32, 36, 128, 144]
    assert all(n <= few_sizes(n) <= n * 9 / 8 and n <= few_sizes(n, 3) <= n * 5 / 4 for n in range(1, 5000))


def test_a_score_is_read_on_the_replys_own_tokens(rows: Replies) -> None:
    """The position that has *read* a token scores it, so the end marker's is the last; its log-prob is one earlier."""
    model, scorer = networks()
    every, logits = scorer(rows.ids, rows.segments), model(rows.ids, rows.segments)
    logp = reply_logp(model, rows, temperature=1.0)
    for pooling in ("mean", "last"):
        scores = reply_scores(scorer, rows, pooling=pooling)
        for row, (prompt, reply) in enumerate(zip((2, 7, 1, 4), (9, 1, 3, 6))):
            said = every[row, prompt : prompt + reply]
            torch.testing.assert_close(scores[row], said.mean(dim=0) if pooling == "mean" else said[-1])
            for t in range(prompt, prompt + reply):
                wanted = logits[row, t - 1].log_softmax(dim=-1)[rows.ids[row, t]]
                torch.testing.assert_close(logp[row, t - 1], wanted)


def test_a_row_does_not_see_its_neighbours(rows: Replies) -> None:
    model, scorer = networks()
    logp = reply_logp(model, rows, temperature=1.0)
    scores = reply_scores(scorer, rows, pooling="mean")
    for number in range(len(rows)):
        one = rows.rows([number])
        alone = reply_logp(model, one.cut(one.longest), temperature=1.0)
        torch.testing.assert_close(alone[0], logp[number, : one.longest - 1], rtol=1e-5, atol=1e-6)
        score = reply_scores(scorer, one.cut(one.longest), pooling="mean")
        torch.testing.assert_close(score[0], scores[number], rtol=1e-5, atol=1e-6)


def test_padding_of_packed_rows_changes_no_loss() -> None:
    """The network reads rubbish on PAD and is asked for rubbish there; loss and gradient stay as they were."""
    model, _ = networks()
    rng = random.Random(1)
    texts = [[rng.randrange(9, 50) for _ in range(n)] for n in (12, 7, 20, 3)]
    packed = pack([(text, [1] * len(text)) for text in texts], width=24, pad=0)
    empty = packed.segments == 0
    assert empty.any() and packed.weights.sum() == sum(len(text) - 1 for text in texts)
    rubbish = torch.randint(1, 50, empty.shape, generator=generator("rubbish"))
    changed = dataclasses.replace(
        packed, ids=torch.where(empty, rubbish, packed.ids), targets=torch.where(empty, rubbish, packed.targets)
    )
    results = []
    for given in (packed, changed):
        loss, _ = next_token_loss(model(given.ids, given.segments), given.targets, given.weights)
        results.append((loss.detach(), torch.autograd.grad(loss, list(model.parameters()))))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-5)
    split = [next_token_loss(model(p.ids, p.segments), p.targets, p.weights)[0] for p in packed.split(1)]
    torch.testing.assert_close(sum(split).detach(), results[0][0])  # type: ignore[union-attr]
