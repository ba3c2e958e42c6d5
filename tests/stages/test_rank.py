import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from feedback.written import ROWS
from tests_small import small_recipe

from palate import flow
from palate import recipe as recipes
from palate.batches.rankings import groups
from palate.commands import rank as command
from palate.errors import BadInput, RecipeError, ScorerFailed
from palate.feedback.rewrites import taught
from palate.feedback.statistics import longer_wins
from palate.feedback.store import Store, open_store
from palate.recipe import Recipe
from palate.records import Judgement, Prompt, Response, conversation, read_jsonl, stable_id
from palate.stages import rank
from palate.text import tokenizer as tokenizers
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def test_the_panels_judgements_went_through_the_store(small_run: Made) -> None:
    recipe, workspace = small_run
    judgements = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    assert judgements and all(j.simulated for j in judgements)
    with open_store(rank.store_url(recipe, workspace)) as store:
        assert store.judgements(rank.campaign(workspace)) == judgements
    assert (workspace.folder.parent / "feedback.sqlite").is_file()


def test_the_placebo_keeps_the_ranks_and_loses_whose_they_were(small_run: Made) -> None:
    _, workspace = small_run
    control = Workspace(workspace.folder / "controls" / "placebo", parent=workspace)
    real = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    dealt = list(read_jsonl(control.read("rankings") / "judgements.jsonl", Judgement))
    assert [sorted(j.ranks.values()) for j in real] == [sorted(j.ranks.values()) for j in dealt]
    same = sum(a.ranks == b.ranks for a, b in zip(real, dealt, strict=True))
    assert same < len(real) / 2
    assert all(j.source == "placebo" for j in dealt)


def test_the_placebos_scores_do_not_even_know_which_prompts_have_good_answers(small_run: Made) -> None:
    folder = small_run[1].folder
    control = Workspace(folder / "controls" / "placebo", parent=small_run[1])

    def safety(workspace: Workspace) -> list[list[float]]:
        judgements = read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement)
        return [[given["safety"] for given in j.criteria.values()] for j in judgements]

    real, dealt = safety(small_run[1]), safety(control)
    assert sorted(v for row in real for v in row) == sorted(v for row in dealt for v in row)
    means = [[statistics.mean(row) for row in rows] for rows in (real, dealt)]
    assert len(real) > 80 and abs(statistics.correlation(*means)) < 0.3  # shuffled within the prompt it is 1


def test_people_are_waited_for(
    tmp_path: Path, small_run: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f'feedback.store="sqlite:///{tmp_path / "people.sqlite"}"'
    recipe = recipes.parse(recipes.dump(small_run[0]), "small", ['rank.by=["people"]', "rank.until=4", store])
    workspace = Workspace(tmp_path / "run", parent=small_run[1])

    def a_guest_ranks(seconds: float) -> None:
        assert seconds == rank.POLL_SECONDS
        url, name = rank.store_url(recipe, workspace), rank.campaign(workspace)
        command.rank(small_run[1].folder, url=url, campaign=name, annotator="guest", count=2,
                     read=lambda _: "b>a", write=lambda _: None)  # fmt: skip

    monkeypatch.setattr(rank.time, "sleep", a_guest_ranks)
    assert flow.run_stage("rank", recipe, workspace)
    judgements = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    assert len(judgements) == 4 and not any(j.simulated for j in judgements)
    told = capsys.readouterr().err
    assert "0 of 4 judgements; rank with `palate rank" in told and "2 of 4 judgements" in told
    assert not flow.run_stage("rank", recipe, workspace), "what was waited for has come: nothing is stale"
    a_guest_ranks(rank.POLL_SECONDS)
    (step,) = (step for step in flow.plan(recipe, workspace) if step.stage.name == "rank")
    assert (step.state, step.why) == ("stale", "people have ranked since it was made")
    assert flow.run_stage("rank", recipe, workspace), "more judgements make the snapshot stale"
    with open_store(rank.store_url(recipe, workspace)) as people:
        last = people.judgements(rank.campaign(workspace))[-1]
        mended = dataclasses.replace(last, id="mended", supersedes=last.id, ranks=dict.fromkeys(last.ranks, 1))
        people.add_judgements([mended], rank.campaign(workspace))
    assert flow.run_stage("rank", recipe, workspace), "as many judgements, and one of them is another"
    (tmp_path / "people.sqlite").unlink()
    assert not flow.run_stage("rank", recipe, workspace), "who lost the store keeps the snapshot, and is not asked anew"


def test_what_one_person_can_never_finish_is_told(
    tmp_path: Path, small_run: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small_recipe(
        'rank.by=["people"]', "rank.until=500", f'feedback.store="sqlite:///{tmp_path / "people.sqlite"}"'
    )

    def stopped(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rank.time, "sleep", stopped)
    with pytest.raises(KeyboardInterrupt):
        flow.run_stage("rank", recipe, Workspace(tmp_path / "run", parent=small_run[1]))
    assert "so 500 judgements take 7 people at least" in capsys.readouterr().err


def test_people_without_a_number() -> None:
    with pytest.raises(RecipeError, match="needs until = N"):
        small_recipe('rank.by=["people"]')


def ranked_from(tmp_path: Path, small_run: Made, *files: list[object] | str) -> Workspace:
    """Run the stage on files of rows, and of text that is a CSV."""
    paths = []
    for n, told in enumerate(files):
        csv = isinstance(told, str)
        paths.append(tmp_path / f"theirs{n or ''}.{'csv' if csv else 'jsonl'}")
        paths[-1].write_text(told if csv else "".join(json.dumps(x) + "\n" for x in told))
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("rank", small_recipe(f"rank.by={json.dumps(list(map(str, paths)))}"), workspace)
    return workspace


def rankings_of(workspace: Workspace) -> tuple[dict[str, Prompt], dict[str, Response], list[Judgement]]:
    folder = workspace.read("rankings")
    return (
        {p.id: p for p in read_jsonl(folder / "prompts.jsonl", Prompt)},
        {r.id: r for r in read_jsonl(folder / "responses.jsonl", Response)},
        list(read_jsonl(folder / "judgements.jsonl", Judgement)),
    )


def test_files_of_other_formats(tmp_path: Path, small_run: Made) -> None:
    files: list[list[object]] = [
        [{"prompt": "p1", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]}],
        [{"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: go away"}],
        [{"prompt": "p2", "chosen": "good", "rejected": "bad"}],
        [{"prompt": {"role": "prompter", "text": "q", "replies": [
            {"role": "assistant", "text": "x", "rank": 1, "replies": []},
            {"role": "assistant", "text": "y", "rank": 0, "replies": []}]}}],
    ]  # fmt: skip
    judgements = rankings_of(ranked_from(tmp_path, small_run, *files))[2]
    assert [sorted(j.ranks.values()) for j in judgements] == [[1, 2, 2], [1, 2], [1, 2], [1, 2]]
    assert not any(j.simulated for j in judgements)


def test_sheets_of_two_people_are_about_the_same_answers(tmp_path: Path, small_run: Made) -> None:
    head = "prompt,answer_1,answer_2,answer_3,rank_1,rank_2,rank_3,annotator\n"
    ann, bo = "A dinner?,soup,bread,air,1,2,3,ann\nNow?,x,y,,2,1,,ann\n", "A dinner?,bread,soup,,1,2,,bo\n"
    nobody = "Later?,x,y,,,,,ann\n"
    workspace = ranked_from(tmp_path, small_run, head + ann + nobody, head + bo)
    prompts, responses, judgements = rankings_of(workspace)
    assert [p.messages for p in prompts.values()] == [conversation("A dinner?"), conversation("Now?")]
    assert [(j.annotator, {responses[id_].text: rank for id_, rank in j.ranks.items()}) for j in judgements] == [
        ("ann", {"soup": 1, "bread": 2, "air": 3}), ("ann", {"x": 2, "y": 1}), ("bo", {"bread": 1, "soup": 2}),
    ]  # fmt: skip
    assert len(responses) == 5
    report = json.loads((workspace.read("rankings") / "report.json").read_text())
    assert [told["left_out"] for told in report["files"].values()] == [{"a row without ranks": 1}, {}]
    with pytest.raises(BadInput, match=r"theirs\.csv:1: which columns hold answers"):
        ranked_from(tmp_path, small_run, "prompt,left,right,rank_left,rank_right\na,b,c,1,2\n")


def test_what_other_programs_asked_people_and_models(tmp_path: Path, small_run: Made) -> None:
    """Argilla's rankings of several people, and UltraFeedback's of a model, which are no person's."""
    workspace = ranked_from(tmp_path, small_run, list(ROWS["argilla"]), list(ROWS["ultrafeedback"]))
    _, responses, judgements = rankings_of(workspace)
    told = [(j.annotator, j.simulated, {responses[id_].text: r for id_, r in j.ranks.items()}) for j in judgements]
    model = "file:theirs1.jsonl"
    assert told == [
        ("u1", False, {"Air.": 1, "Soup.": 2}), ("u2", False, {"Soup.": 1, "Air.": 1}),
        ("u1", False, {"Air.": 1, "Soup.": 2}),
        (model, True, {"soup": 1, "air": 3, "bread": 2}), (model, True, {"b": 1, "c": 1}),
    ]  # fmt: skip
    assert judgements[3].criteria[next(iter(judgements[3].ranks))] == {"helpfulness": 4.0, "accuracy": 5.0}
    files = list(json.loads((workspace.read("rankings") / "report.json").read_text())["files"].values())
    assert [(told["format"], told["rows"]) for told in files] == [("argilla", 3), ("ultrafeedback", 2)]
    assert files[0]["left_out"] == {"a judgement that orders nothing": 1, "a prompt that nobody ranked": 1}


def test_an_unknown_answer_is_named(tmp_path: Path, small_run: Made) -> None:
    judgement = {"id": "j", "prompt_id": "p", "annotator": "x", "ranks": {"nobody": 1, "r": 2}}
    line = {
        "prompt": {"id": "p", "messages": [{"role": "user", "content": "?"}], "family": "f"},
        "responses": [{"id": "r", "prompt_id": "p", "text": "t"}],
        "judgements": [judgement],
    }
    with pytest.raises(BadInput, match=r"theirs.jsonl:1.*names the answer nobody"):
        ranked_from(tmp_path, small_run, [line])


LENGTH = "def short(prompts, texts):\n    return [{sign}len(t.split()) for t in texts]\n"


def scored(tmp_path: Path, small_run: Made, code: str, *more: str) -> tuple[Recipe, Workspace, list[Judgement]]:
    (tmp_path / "mine.py").write_text(code)
    recipe = small_recipe(
        'rank.by=["scorers"]', f'scoring.function.name="{tmp_path / "mine.py"}:short"', "scoring.function.weight=0.5",
        f'feedback.store="sqlite:///{tmp_path / "store.sqlite"}"', *more,
    )  # fmt: skip
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    flow.run_stage("rank", recipe, workspace)
    return recipe, workspace, list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))


def test_scorers_rank_by_their_sum_through_the_same_store(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace, judgements = scored(tmp_path, small_run, LENGTH.format(sign="-"))
    folder = workspace.read("rankings")
    texts = {r.id: r.text for r in read_jsonl(folder / "responses.jsonl", Response)}
    assert len(judgements) == len({j.prompt_id for j in judgements}) > 60
    tied = 0
    for judgement in judgements:
        assert judgement.simulated and judgement.source == "scorers"
        assert judgement.annotator == "function mine.py:short" and not judgement.criteria
        words = {name: len(texts[name].split()) for name in judgement.ranks}
        assert judgement.ranks == {a: 1 + sum(words[b] < words[a] for b in words) for a in words}
        assert judgement.extra["scores"] == {a: {"function mine.py:short": -float(words[a])} for a in words}
        tied += len(set(words.values())) < len(words)
    assert tied > 3, "answers of equal length are there, and are ties"
    with open_store(rank.store_url(recipe, workspace)) as store:
        assert store.judgements(rank.campaign(workspace)) == judgements
    report = json.loads((folder / "report.json").read_text())
    assert report["simulated"] == len(judgements) and list(report["scorers"]) == [f"{tmp_path / 'mine.py'}:short"]


def test_a_changed_scorer_changes_its_mind_and_nothing_is_lost(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace, first = scored(tmp_path, small_run, LENGTH.format(sign="-"))
    assert not flow.run_stage("rank", recipe, workspace), "nothing changed"
    _, _, second = scored(tmp_path, small_run, LENGTH.format(sign="+"))
    assert {j.supersedes for j in second} == {j.id for j in first}
    assert [j.prompt_id for j in first] == [j.prompt_id for j in second]
    assert sum(a.ranks != b.ranks for a, b in zip(first, second, strict=True)) > len(first) / 2
    _, _, third = scored(tmp_path, small_run, LENGTH.format(sign="-"))
    assert [j.ranks for j in third] == [j.ranks for j in first] and not {j.id for j in third} & {j.id for j in first}
    (tmp_path / "mine.py").write_text("# the same\n" + LENGTH.format(sign="-"))
    assert flow.run_stage("rank", recipe, workspace)
    again = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    assert again == third, "who says the same again has not judged again"


def test_what_scorers_said_is_not_taken_for_peoples(
    tmp_path: Path, small_run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tmp_path, small_run, LENGTH.format(sign="-"))
    recipe = small_recipe(
        'rank.by=["people"]', "rank.until=2", f'feedback.store="sqlite:///{tmp_path / "store.sqlite"}"'
    )
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    monkeypatch.setattr(rank.time, "sleep", lambda _: command.rank(
        small_run[1].folder, url=rank.store_url(recipe, workspace), campaign=rank.campaign(workspace),
        annotator="guest", count=2, read=lambda _: "b>a", write=lambda _: None,
    ))  # fmt: skip
    assert flow.run_stage("rank", recipe, workspace)
    judgements = list(read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement))
    assert [j.annotator for j in judgements] == ["guest"] * 2, "the scorers' eighty did not count"


def test_scorers_of_several_kinds_are_weighed(tmp_path: Path, small_run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "palate.scorers.Judge.__call__", lambda self, prompts, texts: [(0, 2, 0, 0)[i % 4] for i in range(len(texts))]
    )
    given = "def short(prompts, texts):\n    return [(0, 0.2, 0.6, 1)[i % 4] for i in range(len(texts))]\n"
    _, _, judgements = scored(
        tmp_path, small_run, given,
        'scoring.judge.url="http://127.0.0.1:1/v1"', 'scoring.judge.model="m"', "scoring.judge.weight=0.1",
    )  # fmt: skip
    assert {j.annotator for j in judgements} == {"function mine.py:short + judge m"}
    # 0.5 x (0, .2, .6, 1) + 0.1 x (0, 2, 0, 0) = 0, .1 + .2, .3, .5: the two in the middle differ by rounding alone
    assert all(list(j.ranks.values()) == [4, 2, 2, 1] for j in judgements)


def test_a_failing_scorer_publishes_nothing(tmp_path: Path, small_run: Made) -> None:
    with pytest.raises(ScorerFailed, match=r"mine\.py:2"):
        scored(tmp_path, small_run, "def short(prompts, texts):\n    raise ValueError\n")
    assert not Workspace(tmp_path / "run").own("rankings")
    with pytest.raises(ScorerFailed, match="no right answer"):
        scored(tmp_path, small_run, LENGTH.format(sign=""), "scoring.verifier.weight=1.0")


def by_people(tmp_path: Path, small_run: Made) -> tuple[Recipe, Workspace, Store]:
    """A run that waits for two judgements of people, which are there, and an open store to add others to."""
    url = f"sqlite:///{tmp_path / 'people.sqlite'}"
    override = ['rank.by=["people"]', "rank.until=2", f'feedback.store="{url}"']
    recipe = recipes.parse(recipes.dump(small_run[0]), "small", override)
    workspace = Workspace(tmp_path / "run", parent=small_run[1])
    command.rank(small_run[1].folder, url=url, campaign=rank.campaign(workspace), annotator="guest", count=2,
                 read=lambda _: "b>a", write=lambda _: None)  # fmt: skip
    return recipe, workspace, open_store(url)


def chatted(id_: str, question: str, texts: dict[str, int], **more: Any) -> tuple[Prompt, list[Response], Judgement]:
    """What a chat leaves in the store: a question, answers without token ids, and their ranks."""
    prompt = Prompt(id=id_, messages=conversation(question), family=id_, source="studio chat")
    answers = [Response(id=f"{id_} {n}", prompt_id=id_, text=text, model="ppo") for n, text in enumerate(texts)]
    ranks = dict(zip([a.id for a in answers], texts.values(), strict=True))
    return prompt, answers, Judgement(id=f"j {id_}", prompt_id=id_, annotator="ann", ranks=ranks, **more)


def add(store: Store, campaign: str, *told: tuple[Prompt, list[Response], Judgement]) -> None:
    for prompt, answers, judgement in told:
        store.add_prompts([prompt], campaign)
        store.add_responses(answers, campaign)
        store.add_judgements([judgement], campaign)


def learned(workspace: Workspace, split: str = "train") -> dict[str, set[tuple[str, str, float]]]:
    """What the reward model is given: question -> (better answer, worse answer, P) of every pair it trains on."""
    tokenizer = tokenizers.load(workspace.read("sft"))
    folder = workspace.read("rankings")
    members, _ = groups(
        (p for p in read_jsonl(folder / "prompts.jsonl", Prompt) if p.split == split),
        read_jsonl(folder / "responses.jsonl", Response),
        read_jsonl(folder / "judgements.jsonl", Judgement),
        tokenizer,
        room=160,
    )
    found: dict[str, set[tuple[str, str, float]]] = {}
    for group in members:
        said = [tokenizer.decode(ids).strip() for ids in group.reply_ids]
        for i, row in enumerate(group.counted):
            for j, weight in enumerate(row):
                if weight:
                    target = group.targets[i][j]
                    pair = (said[i], said[j], target) if target >= 0.5 else (said[j], said[i], 1 - target)
                    found.setdefault(group.prompt.messages[-1].content, set()).add(pair)
    return found


def test_judgements_of_chats_are_learned_from_too_and_do_not_end_the_wait(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace, store = by_people(tmp_path, small_run)
    with store:
        chats = rank.chats(small_run[1].folder.name)
        assert flow.run_stage("rank", recipe, workspace)
        before = learned(workspace)
        add(store, chats, chatted("c1", "Is it warm?", {"It is.": 1, "No idea.": 2}),
            chatted("c2", "Two or three?", {"Two.": 1, "Three.": 1}, extra={"both_bad": True}),
            chatted("c3", "Which one?", {"One.": 2, "Two.": 1, "Four.": 2}, extra={"only_best": True}))  # fmt: skip
        (step,) = (step for step in flow.plan(recipe, workspace) if step.stage.name == "rank")
        assert (step.state, step.why) == ("stale", "people have ranked since it was made")
        assert flow.run_stage("rank", recipe, workspace)
        now = learned(workspace)
        assert {question: pairs for question, pairs in now.items() if question not in before} == {
            "Is it warm?": {("It is.", "No idea.", 1.0)},
            "Two or three?": {("Two.", "Three.", 0.5)},
            "Which one?": {("Two.", "One.", 1.0), ("Two.", "Four.", 1.0)},  # nothing about one and four
        }
        assert {question: now[question] for question in before} == before
        report = json.loads((workspace.read("rankings") / "report.json").read_text())
        assert report["from_chats"] == 3 and report["judgements"] == 2, "figures about ranking are of what was ranked"
        assert not flow.run_stage("rank", recipe, workspace)
        assert store.count_judgements(rank.campaign(workspace)) == 2, "what the wait counts"


def test_what_was_asked_in_a_chat_and_is_held_out_is_not_learned_from(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace, store = by_people(tmp_path, small_run)
    prompts = list(read_jsonl(small_run[1].read("demonstrations") / "prompts.jsonl", Prompt))
    test = next(p for p in prompts if p.split == "test")
    train = next(p for p in prompts if p.split == "train")
    with store:
        told = chatted("mine", "", {"Yes.": 1, "No.": 2})
        on = (*test.messages, *conversation("Why?", "So.")[1:], *conversation("And then?"))
        for id_, messages in (("held", test.messages), ("on", on), ("free", train.messages)):
            prompt = dataclasses.replace(told[0], id=id_, messages=messages)
            answers = [dataclasses.replace(a, id=f"{id_} {a.id}", prompt_id=id_) for a in told[1]]
            ranks = {answers[0].id: 1, answers[1].id: 2}
            add(
                store,
                rank.chats("small"),
                (prompt, answers, Judgement(id=id_, prompt_id=id_, annotator="x", ranks=ranks)),
            )
        flow.run_stage("rank", recipe, workspace)
    kept = {j.id for j in read_jsonl(workspace.read("rankings") / "judgements.jsonl", Judgement)}
    assert "free" in kept and not {"held", "on"} & kept


LONG = "so " * 400


def test_a_rewrite_is_above_what_it_corrects_and_that_above_the_others(tmp_path: Path, small_run: Made) -> None:
    recipe, workspace, store = by_people(tmp_path, small_run)
    with store:
        (judgement, other) = store.judgements(rank.campaign(workspace))
        texts = {r.id: r.text for r in store.responses(rank.campaign(workspace))}
        best, *_ = sorted(judgement.ranks, key=lambda id_: judgement.ranks[id_])
        mended = [
            dataclasses.replace(judgement, id="m", supersedes=judgement.id, rewrite_of=best, rewrite="Try the soup."),
            dataclasses.replace(other, id="n", supersedes=other.id, rewrite_of=next(iter(other.ranks)), rewrite=LONG),
        ]
        store.add_judgements(mended, rank.campaign(workspace))
        question = next(p for p in store.prompts(rank.campaign(workspace)) if p.id == judgement.prompt_id)
    flow.run_stage("rank", recipe, workspace)
    folder = workspace.read("rankings")
    written = [r for r in read_jsonl(folder / "responses.jsonl", Response) if r.origin == "human"]
    assert [r.text for r in written] == ["Try the soup.", LONG]
    assert written[0].id == stable_id("response", question.id, "Try the soup.")
    order = ["Try the soup.", *(texts[id_] for id_ in sorted(judgement.ranks, key=lambda id_: judgement.ranks[id_]))]
    pairs = {(a, b, 1.0) for n, a in enumerate(order) for b in order[n + 1 :]}
    assert len(pairs) == 3 and learned(workspace, question.split)[question.messages[-1].content] == pairs
    every = learned(workspace) | learned(workspace, "dev")
    assert len(every) == 2, "a rewrite that does not fit the model takes the order it stands on with it no more"
    report = json.loads((folder / "report.json").read_text())
    assert report["rewrites"] == 2 and report["longer_wins"] == statistics_of(judgement, other, texts)


def statistics_of(one: Judgement, other: Judgement, texts: dict[str, str]) -> float | None:
    """Length bias of two judgements as they were given, which a rewrite is no part of."""
    return longer_wins([one, other], {id_: len(text.split()) for id_, text in texts.items()})


def test_taught_twice_is_taught_once() -> None:
    answers = [Response(id=id_, prompt_id="p", text=id_) for id_ in "abc"]
    given = [
        Judgement(id="1", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2, "c": 2}, rewrite_of="a", rewrite="A"),
        Judgement(id="2", prompt_id="p", annotator="x", ranks={"a": 2, "b": 1, "c": 2}, extra={"only_best": True}),
        Judgement(id="3", prompt_id="p", annotator="x", ranks={"a": 1, "b": 2}, rewrite_of="a", rewrite="a"),
    ]
    judgements, responses = taught(given, answers)
    written = stable_id("response", "p", "A")
    assert judgements[0].ranks == {written: 1, "a": 2, "b": 3, "c": 3}
    assert [j.ranks for j in judgements[1:3]] == [{"b": 1, "a": 2}, {"b": 1, "c": 2}]
    assert judgements[3] == given[2], "words that nobody changed are no better than themselves"
    assert [r.id for r in responses] == ["a", "b", "c", written] and responses[-1].origin == "human"
    assert taught(judgements, responses) == (judgements, responses)
