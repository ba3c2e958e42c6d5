"""What people say of fresh answers while a policy trains ([fresh]): the queue, its figures, the alarm."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests_games import BANDIT_PROMPTS, BANDIT_SHAPE, CPU, END, language_model, learner, models, wanted_share

from palate import flow, metrics
from palate.align import watch as watching
from palate.align.alarms import Alarm
from palate.align.fresh import LEAST, Fresh, agreement, preferred
from palate.align.limit import Limit
from palate.align.prompts import Asked
from palate.align.session import Session
from palate.align.watch import Best, Watch
from palate.commands.rank import rank_fresh
from palate.errors import BadInput
from palate.feedback import place
from palate.feedback.store import open_store
from palate.metrics import Metrics
from palate.recipe import Grpo, Recipe
from palate.records import Judgement, Prompt, Response, conversation
from palate.stages import grpo
from palate.workspace import Workspace


def best(name: str, score: float, *, now: str = "new", before: str = "old", old: float = 0.0) -> Best:
    return Prompt(id=name, messages=conversation(f"{name}?"), family="f"), now, score, before, old


@pytest.fixture
def queue(tmp_path: Path) -> Fresh:
    return Fresh(f"sqlite:///{tmp_path / 'people.sqlite'}", "run:fresh ppo", per_look=2)


def judge(queue: Fresh, *, likes: str, among: Sequence[str] | None = None, who: str = "guest") -> None:
    """Somebody puts the answers of one model first, wherever nobody has yet; "" is a tie everywhere."""
    with open_store(queue.url) as store:
        done = {judgement.prompt_id for judgement in store.judgements(queue.campaign)}
        answers: dict[str, list[Response]] = {}
        for response in store.responses(queue.campaign):
            answers.setdefault(response.prompt_id, []).append(response)
        given = [
            Judgement(
                id=f"{who} {prompt}",
                prompt_id=prompt,
                annotator=who,
                ranks={r.id: 1 if not likes or r.model == likes else 2 for r in both},
            )
            for prompt, both in answers.items()
            if prompt not in done and (among is None or prompt in among)
        ]
        store.add_judgements(given, queue.campaign)


def test_the_highest_scores_are_queued_once_each_beside_what_was_said_before(queue: Fresh) -> None:
    answers = [best("a", 1.0), best("b", 3.0), best("c", 2.0), best("same", 9.0, now="old"), best("d", -1.0)]
    assert queue.look(2, answers) == []
    with open_store(queue.url) as store:
        assert [prompt.id for prompt in store.prompts(queue.campaign)] == ["b", "c"], "whose answer changed, best first"
        told = {(r.prompt_id, r.model): (r.text, r.extra) for r in store.responses(queue.campaign)}
    assert told["b", "policy"] == ("new", {"score": 3.0, "round": 2})
    assert told["b", "sft"] == ("old", {"score": 0.0, "round": 2})
    queue.look(4, answers)
    queue.look(6, answers)
    with open_store(queue.url) as store:
        assert [prompt.id for prompt in store.prompts(queue.campaign)] == ["b", "c", "a", "d"]
        assert len(store.responses(queue.campaign)) == 8


def test_who_judges_sees_no_model_no_score_and_no_order(queue: Fresh, tmp_path: Path) -> None:
    queue = Fresh(queue.url, queue.campaign, per_look=40)
    queue.look(1, [best(f"p{number:02}", float(number)) for number in range(40)])
    said: list[str] = []
    typed = iter(["a>b"] * 39 + ["q"])
    given = rank_fresh(
        tmp_path, url=queue.url, campaigns=["run:fresh dpo", queue.campaign], annotator="me", count=None,
        read=lambda _: next(typed), write=said.append,
    )  # fmt: skip
    with open_store(queue.url) as store:
        model = {response.id: response.model for response in store.responses(queue.campaign)}
        assert store.judgements(queue.campaign) == given and len(given) == 39
    first = [model[judgement.presented_order[0]] for judgement in given]
    assert 6 < first.count("policy") < 33, "which of the two comes first is chance"
    shown = "\n".join(said[said.index("") :])
    assert not any(word in shown for word in ("sft", "score", "39.0", "round"))


def test_every_queue_is_asked_about_and_then_there_is_nothing_left(queue: Fresh, tmp_path: Path) -> None:
    other = Fresh(queue.url, "run:fresh grpo", per_look=1)
    both = [queue.campaign, other.campaign]

    def ranked() -> tuple[list[Judgement], str]:
        said: list[str] = []
        given = rank_fresh(
            tmp_path, url=queue.url, campaigns=both, annotator="me", count=None, read=lambda _: "a>b", write=said.append
        )
        return given, " ".join(" ".join(said).split())

    with pytest.raises(BadInput, match="no answer is queued yet"):
        ranked()
    queue.look(1, [best("a", 1.0)])
    other.look(1, [best("b", 1.0)])
    assert [judgement.prompt_id for judgement in ranked()[0]] == ["a"]
    assert [judgement.prompt_id for judgement in ranked()[0]] == ["b"]
    given, said = ranked()
    assert given == [] and "has ranked all fresh answers that are queued" in said


def name(prompt: str, model: str) -> str:
    """Ids are hashes, so either may come first."""
    return f"{prompt} {model}" if prompt == "p" else f"{prompt} {model[::-1]}"


def two(prompt: str, policy: float, sft: float) -> list[Response]:
    return [
        Response(id=name(prompt, model), prompt_id=prompt, text=model, model=model, extra={"score": score})
        for model, score in (("policy", policy), ("sft", sft))
    ]


def order(prompt: str, policy: int, sft: int, who: str = "x") -> Judgement:
    ranks = {name(prompt, "policy"): policy, name(prompt, "sft"): sft}
    return Judgement(id=f"{who} {prompt}", prompt_id=prompt, annotator=who, ranks=ranks)


def test_agreement_and_preference_are_means_over_prompts() -> None:
    responses = [*two("p", 2.0, 1.0), *two("q", 0.0, 3.0), *two("r", 1.0, 1.0)]
    assert agreement([], responses) is None and preferred([], responses) is None
    judgements = [
        order("p", 1, 2),  # the policy's, which scores higher
        order("p", 2, 1, "y"),  # another person sees it the other way: p counts half
        order("q", 1, 2),  # the policy's, which scores lower
        order("r", 1, 2),  # scores that are equal agree with nobody
    ]
    told = agreement(judgements, responses)
    assert told is not None and (told.mean, told.n) == (pytest.approx((0.5 + 0.0) / 2), 2)
    liked = preferred(judgements, responses)
    assert liked is not None and (liked.mean, liked.n) == (pytest.approx((0.5 + 1.0 + 1.0) / 3), 3)
    tied = [order("p", 1, 1), order("q", 1, 1)]
    for of in (agreement, preferred):
        told = of(tied, responses)
        assert told is not None and told.mean == told.low == told.high == 0.5
    backwards = [Judgement(id="z", prompt_id="p", annotator="z", ranks={"p sft": 2, "p policy": 1})]
    for of in (agreement, preferred):
        assert of(backwards, responses) == of([order("p", 1, 2)], responses), (
            "in which order they were noted is nothing"
        )


def test_the_alarm_needs_enough_prompts_and_an_interval_below_one_half(queue: Fresh) -> None:
    queue = Fresh(queue.url, queue.campaign, per_look=50)
    names = [f"p{number:02}" for number in range(30)]
    answers = [best(name, 5.0) for name in names]
    assert queue.look(1, answers) == []
    judge(queue, likes="sft", among=names[: LEAST - 1])
    assert queue.look(2, answers) == [], "one prompt less than it takes"
    judge(queue, likes="sft", among=names[LEAST - 1 : LEAST])
    (alarm,) = queue.look(3, answers)
    assert (alarm.name, alarm.ends) == ("people", True) and f"0.00 [0.00, 0.00] of {LEAST} cases" in alarm.text
    judge(queue, likes="policy", among=names[LEAST : LEAST + 5])  # 5 of 15: the interval reaches above one half
    assert queue.look(4, answers) == []


def test_people_who_agree_or_cannot_tell_give_no_alarm(queue: Fresh) -> None:
    answers = [best(f"p{number:02}", 5.0) for number in range(30)]
    for likes in ("policy", ""):
        asked = Fresh(queue.url, f"run:fresh {likes}", per_look=50)
        asked.look(1, answers)
        judge(asked, likes=likes)
        assert asked.look(2, answers) == []


class Letters:
    """A tokenizer as far as the watch needs one."""

    stops = (END,)
    pad = 0

    def decode(self, ids: tuple[int, ...]) -> str:
        return " ".join(map(str, ids))


def test_people_who_disagree_end_the_training(queue: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bandit as a policy that learns what its reward likes and people do not; nothing else may stop it."""
    monkeypatch.setattr(watching, "alarms", lambda *_, **__: [])
    queue = Fresh(queue.url, queue.campaign, per_look=16)
    prompts = [Prompt(id=f"p{i}", messages=conversation("?"), family="f") for i in range(16)]
    players = models(language_model(BANDIT_SHAPE, 0), wanted_share, stops=(END,))
    asked = Asked(prompts, BANDIT_PROMPTS[:16], prompts, BANDIT_PROMPTS[:16])
    settings = Grpo(
        rounds=30, rollout_prompts=8, answers=4, max_new_tokens=8, minibatch_rows=32, policy_lr=2e-2, warmup_steps=0,
        kl_weight=0.0, missing_eos_penalty=0.0, evaluate_every=1, schedule="constant",
    )  # fmt: skip
    looked: list[int] = []

    def people(round_: int, answers: Sequence[Best]) -> list[Alarm]:
        looked.append(round_)
        if round_ < 12:  # until then it says little that its reward likes
            return []
        found = queue.look(round_, answers)
        judge(queue, likes="sft")
        return found

    views, said = Metrics(tmp_path / "watched.jsonl"), Metrics(tmp_path / "alarms.jsonl")
    watch = Watch(players, asked, settings, Letters(), CPU, views, said, 0, people)  # type: ignore[arg-type]
    limit = Limit(learner(players.policy), None, halt=True)
    assert limit.looked(watch(0), 0) is None and looked == [], "at the assistant there is nothing to compare"
    session = Session(0, Metrics(tmp_path / "grpo.jsonl"), limit, watch=watch)
    told = grpo.train(limit.policy, players, BANDIT_PROMPTS, settings, CPU, session)
    assert looked == list(range(1, 14)) and told == {"rounds": 12, "stopped": "an alarm (alarms.jsonl)"}
    (line,) = metrics.read(tmp_path / "alarms.jsonl")
    assert (line["step"], line["name"], line["ends"]) == (13, "people", True)


ASKED = """
[grpo]
rounds = 2
rollout_prompts = 8
answers = 3
minibatch_rows = 12
micro_rows = 4
max_new_tokens = 24
policy_lr = 1e-3
evaluate_every = 1
gate = false
[fresh]
per_look = 3
"""


def test_a_run_queues_its_controls_do_not_and_the_report_tells(
    small_run: tuple[Recipe, Workspace], tmp_path: Path
) -> None:
    shutil.copytree(small_run[1].folder, tmp_path / "small")
    shutil.rmtree(tmp_path / "small" / "10-report")
    own = tmp_path / "small" / "recipe.toml"
    own.write_text(own.read_text() + ASKED)
    recipe = flow.recipes.load(
        own,
        ["evaluate.temperatures=[1.0]", "evaluate.dev_prompts=4", "evaluate.test_prompts=4"],
    )
    workspace = Workspace(tmp_path / "small")
    control = Workspace(workspace.folder / "controls" / "placebo", parent=workspace)
    url, mine = place.store_url(recipe, workspace), place.fresh_campaign(workspace, "grpo")
    with open_store(url) as store:
        flow.run_stage("grpo", recipe, control)
        assert control.own("grpo") and store.revision() == 0, "nobody is asked about a control"
        flow.run_stage("grpo", recipe, workspace)
        queued = store.prompts(mine)
        assert 3 <= len(queued) <= 6 and {prompt.split for prompt in queued} == {"dev"}
        assert {r.extra["round"] for r in store.responses(mine)} <= {1, 2}
    flow.run_stage("evaluate", recipe, workspace)
    report = json.loads((workspace.read("report") / "report.json").read_text())
    nobody = {"judgements": 0, "as_the_reward_model": None, "policy_preferred": None}
    assert report["grpo"]["fresh"] == {"queued": len(queued)} | nobody
    assert report["ppo"]["fresh"] == {"queued": 0} | nobody, "it was trained without [fresh]"
    assert "judgements of" not in (workspace.read("report") / "report.html").read_text()
    typed = iter(["a>b"] * 3)
    rank_fresh(
        workspace.folder, url=url, campaigns=[mine], annotator="me", count=3, write=lambda _: None,
        read=lambda _: next(typed, ""),
    )  # fmt: skip
    (step,) = (step for step in flow.plan(recipe, workspace) if step.stage.name == "evaluate")
    assert (step.state, step.why) == ("stale", "people have ranked fresh answers since it was made")
    assert flow.run_stage("evaluate", recipe, workspace)
    told = json.loads((workspace.read("report") / "report.json").read_text())["grpo"]["fresh"]
    assert told["judgements"] == 3 and told["policy_preferred"]["n"] == 3
    assert f"3 judgements of {len(queued)} queued prompts" in (workspace.read("report") / "report.html").read_text()
