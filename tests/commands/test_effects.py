"""What a reward model makes of the judgements, on the small run: what is computed is what the words say."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from palate import flow
from palate.commands import taste
from palate.commands.effects import Effects
from palate.commands.studio import lay
from palate.feedback import items, place
from palate.feedback.campaigns import Settings
from palate.feedback.queue import RANDOM, UNSURE
from palate.feedback.store import Store, open_store
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, read_jsonl, stable_id
from palate.weights import folder as weights
from palate.workspace import Workspace

Answers = dict[str, list[Response]]


@pytest.fixture
def here(small_run: tuple[Recipe, Workspace], tmp_path: Path) -> Iterator[tuple[Effects, Store, list[Prompt], Answers]]:
    """The small run beside a store of its own, which knows nothing but its answers."""
    folder = tmp_path / "small"
    shutil.copytree(small_run[1].folder, folder)
    recipe, run = flow.reopen(folder)
    prompts = list(read_jsonl(run.read("samples") / "prompts.jsonl", Prompt))
    responses = list(read_jsonl(run.read("samples") / "responses.jsonl", Response))
    by: Answers = {}
    for response in responses:
        by.setdefault(response.prompt_id, []).append(response)
    with open_store(place.store_url(recipe, run)) as store:
        lay(store, place.campaign(run), prompts, responses, Settings())
        yield Effects(recipe, run, store, "small"), store, prompts, by


def judge(store: Store, effects: Effects, who: str, prompt: Prompt, ranks: dict[str, int], **values: object) -> None:
    made = Judgement(
        **{  # type: ignore[arg-type]
            "id": stable_id(who, prompt.id),
            "prompt_id": prompt.id,
            "annotator": who,
            "ranks": ranks,
            "created_at": "2026-11-10T09:00:00+00:00",
            **values,
        }
    )
    store.add_judgements([made], place.campaign(effects.workspace))


def longest_first(answers: list[Response]) -> dict[str, int]:
    by_length = sorted(answers, key=lambda r: (-len(r.text), r.id))
    return {response.id: rank for rank, response in enumerate(by_length, start=1)}


def test_how_unsure_the_model_is_is_the_entropy_of_what_it_predicts(
    here: tuple[Effects, Store, list[Prompt], Answers],
) -> None:
    """By the scores that the published folder itself gives."""
    effects, store, prompts, by = here
    assert effects.ready and effects.tell_the_queue() and not effects.tell_the_queue()
    run = effects.workspace
    opened = taste.read(effects.recipe, run, run)
    _, extra = weights.load_scalar_model(run.read("reward"))
    scores = (opened.table.features @ opened.trained.T).tolist()
    rows = {row.prompt.id: row for row in everything(store, effects)}
    told = 0
    for prompt in prompts:
        texts = {r.text: r.id for r in reversed(by[prompt.id])}
        given = [
            sum(m * s for m, s in zip(extra["mix"], scores[opened.table.rows[id_]], strict=True))
            for id_ in texts.values()
        ]
        entropies = []
        for a, b in itertools.combinations(given, 2):
            p = 1 / (1 + math.exp(b - a))
            entropies.append(-(p * math.log(p) + (1 - p) * math.log(1 - p)))
        if entropies:
            assert rows[prompt.id].unsure == pytest.approx(sum(entropies) / len(entropies), abs=1e-5)
            told += 1
    assert told > 20


def everything(store: Store, effects: Effects) -> list[items.Row]:
    campaign = place.campaign(effects.workspace)
    return items.rows(store, campaign, 1, show="all", find="", start=0, count=9999, now=0.0)[1]


def test_answers_that_were_not_ranked_are_read_by_the_model_and_the_others_as_they_were_kept(
    here: tuple[Effects, Store, list[Prompt], Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the network reads of an answer now is what it read at training, up to half precision."""
    effects, _, _, _ = here
    run = effects.workspace
    kept = taste.read(effects.recipe, run, run)
    some = dict(list(kept.table.rows.items())[:10])
    less = taste.heads.Table({k: v for k, v in kept.table.rows.items() if k not in some}, kept.table.features)
    monkeypatch.setattr(taste.heads, "read", lambda folder: less)
    again = taste.read(effects.recipe, run, run)
    for id_, row in some.items():
        assert again.table.rows[id_] >= len(kept.table.features)
        assert again.table.features[again.table.rows[id_]].tolist() == pytest.approx(
            kept.table.features[row].tolist(), abs=2e-2
        )


def test_people_who_want_the_same_are_learned_and_the_curve_rises_above_a_coin(
    here: tuple[Effects, Store, list[Prompt], Answers],
) -> None:
    effects, store, prompts, by = here
    for prompt in prompts:
        for who in ("ann", "ben"):
            judge(store, effects, who, prompt, longest_first(by[prompt.id]))
    before = effects.key()
    people, simulated = effects.curve()
    assert not people.simulated and simulated.simulated
    train = sum(p.split == "train" for p in prompts) * 2
    assert people.points[-1].labels <= train and people.points[-1].subsets == 1
    assert [p.labels for p in people.points] == sorted({people.points[-1].labels // part for part in (16, 8, 4, 2, 1)})
    assert people.agreement is not None and people.agreement.mean == 1.0
    assert people.points[-1].accuracy.mean > 0.75 and people.points[-1].accuracy.low > 0.6
    judge(store, effects, "cem", prompts[0], longest_first(by[prompts[0].id]))
    assert effects.key() != before


def test_what_one_person_changed_is_held_against_chance(here: tuple[Effects, Store, list[Prompt], Answers]) -> None:
    """Ann wants what is long, and judged little; Dora wants what is short, and judged all."""
    effects, store, prompts, by = here
    train = [p for p in prompts if p.split == "train"]
    for prompt in train:
        longest = longest_first(by[prompt.id])
        judge(store, effects, "dora", prompt, {id_: len(longest) + 1 - rank for id_, rank in longest.items()})
    for prompt in train[:10]:
        judge(store, effects, "ann", prompt, longest_first(by[prompt.id]))
    told = effects.changed("dora")
    assert told is not None and effects.changed("nobody") is None
    assert (told.judgements, told.others, told.others_simulated, told.weight) == (len(train), 10, 0, 1.0)
    dev = {p.id for p in prompts if p.split == "dev"}
    several = sum(len({r.text for r in by[id_]}) > 1 for id_ in dev)
    assert told.another_first.n == told.by_chance.n == several
    assert told.another_first.mean > 0.3
    assert told.agreed is not None and 0 <= told.agreed.mean <= 1
    assert len(told.examples) == 3 and set(told.prompts) <= dev
    grown = 0
    for example in told.examples:
        assert example.was_first.before >= example.is_first.before and example.was_first.after <= example.is_first.after
        grown += len(example.is_first.text) - len(example.was_first.text)
    assert grown < 0, "shorter answers are first because of her"


def test_alone_among_simulated_annotators_each_judgement_counts_as_ten(
    here: tuple[Effects, Store, list[Prompt], Answers],
) -> None:
    effects, store, prompts, by = here
    for prompt in [p for p in prompts if p.split == "train"][:10]:
        judge(store, effects, "ann", prompt, longest_first(by[prompt.id]))
    told = effects.changed("ann")
    assert told is not None
    assert (told.judgements, told.others, told.weight) == (10, 0, 10.0) and told.others_simulated > 0


def test_both_arms_learn_from_as_many_judgements(
    here: tuple[Effects, Store, list[Prompt], Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    effects, store, prompts, by = here
    for prompt in prompts:
        for who in ("ann", "ben"):
            judge(store, effects, who, prompt, longest_first(by[prompt.id]))
    arm = {row.prompt.id: row.arm for row in everything(store, effects)}
    counts, fitted = [], taste.Taste.fitted

    def counting(self: taste.Taste, judgements: list[Judgement], known: object) -> object:
        counts.append(len(judgements))
        return fitted(self, judgements, known)  # type: ignore[arg-type]

    monkeypatch.setattr(taste.Taste, "fitted", counting)
    told = effects.arms()
    assert set(counts) == {told.labels} and len(counts) == 2 * taste.SUBSETS
    assert [one.name for one in told.arms] == [UNSURE, RANDOM]
    train = {p.id for p in prompts if p.split == "train"}
    each = {one.name: one for one in told.arms}
    for name in (UNSURE, RANDOM):
        mine = [id_ for id_, which in arm.items() if which == name]
        assert each[name].prompts == len(mine) and each[name].judgements == 2 * len(mine)
        assert each[name].right is not None and each[name].held_out is not None
    assert told.labels <= 2 * min(sum(id_ in train for id_ in arm if arm[id_] == name) for name in (UNSURE, RANDOM))
    assert told.difference is not None
    gap = each[UNSURE].held_out.mean - each[RANDOM].held_out.mean  # type: ignore[union-attr]
    assert told.difference.mean == pytest.approx(gap)


def test_the_least_expected_judgements_come_first(here: tuple[Effects, Store, list[Prompt], Answers]) -> None:
    effects, store, prompts, by = here
    run = effects.workspace
    opened = taste.read(effects.recipe, run, run)
    values = (opened.table.features @ opened.head).tolist()

    def score(response: Response) -> float:
        return values[opened.table.rows[response.id]]

    one, two, three = [p for p in prompts if len({score(r) for r in by[p.id]}) == len(by[p.id]) > 2][:3]
    best, worst = ({p.id: f(by[p.id], key=score) for p in (one, two, three)} for f in (max, min))
    as_the_model = {r.id: n for n, r in enumerate(sorted(by[one.id], key=score, reverse=True), start=1)}
    judge(store, effects, "ann", one, as_the_model)
    judge(store, effects, "sim", two, {best[two.id].id: 2, worst[two.id].id: 1}, simulated=True)
    judge(store, effects, "tie", two, {best[two.id].id: 1, worst[two.id].id: 1})
    for who, prompt in (("ben", two), ("cy", three), ("dan", three)):
        judge(store, effects, who, prompt, {best[prompt.id].id: 2, worst[prompt.id].id: 1}, rationale=f"{who} says so")
    told = effects.surprises()
    assert told.pairs == len(by[one.id]) * (len(by[one.id]) - 1) // 2 + 3 and told.against == 3
    assert [one.chance for one in told.found] == sorted(one.chance for one in told.found)
    assert sorted(told.prompts) == sorted([two.id, three.id])
    numbers = {row.prompt.id: row.number for row in everything(store, effects)}
    for found in told.found:
        prompt = two if found.by[0].annotator == "ben" else three
        assert [(j.annotator, j.rationale) for j in found.by] == [
            (name, f"{name} says so") for name in (["ben"] if prompt is two else ["cy", "dan"])
        ]
        assert (found.better, found.worse) == (worst[prompt.id].text, best[prompt.id].text)
        margin = score(worst[prompt.id]) - score(best[prompt.id])
        assert found.chance == pytest.approx(1 / (1 + math.exp(-margin))) and found.chance < 0.5
        assert found.number == numbers[prompt.id] and found.prompt == prompt.messages[-1].content
        assert not any(j.learned for j in found.by)
    upside_down = {r.id: n for n, r in enumerate(sorted(by[two.id], key=score), start=1)}
    judge(store, effects, "eve", two, upside_down)
    told = effects.surprises()
    assert [one.worse for one in told.found if one.by[0].annotator == "ben"] == [best[two.id].text]
    assert len(told.found) == 2, "one pair a prompt, the least expected"


def test_without_a_reward_model_nothing_is_ready(here: tuple[Effects, Store, list[Prompt], Answers]) -> None:
    effects, store, _, _ = here
    shutil.rmtree(effects.workspace.folder / "08-reward")
    assert not effects.ready and not effects.tell_the_queue()
    assert all(row.unsure is None for row in everything(store, effects))
