"""The models of a run as they talk: one at a time, few in memory, torch with the first word."""

from __future__ import annotations

import dataclasses
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests_chat import CHAT, begin, duel, turn

from palate.api import Assistant
from palate.commands.speaker import Speaker, models_of
from palate.errors import BadInput, MissingArtifact
from palate.feedback.people import Person
from palate.feedback.store import open_store
from palate.recipe import Recipe
from palate.records import Message
from palate.studio.app import build
from palate.studio.here import Studio
from palate.workspace import FOLDERS, Workspace

Made = tuple[Recipe, Workspace]
HELLO = [Message(role="user", content="Suggest a dinner.")]


@pytest.fixture(scope="module")
def speaker(small_run: Made) -> Speaker:
    return Speaker(small_run[1].folder)


def test_it_says_what_the_model_says(small_run: Made, speaker: Speaker) -> None:
    assert speaker.names == ("ppo", "sft", "base")
    for name in ("ppo", "sft"):
        speaker.open(name)
        network, tokenizer = speaker._open[name, speaker.checkpoint(name)]
        assert speaker._device is not None
        chef = Assistant(network, tokenizer, speaker._device)  # what the machine computes with is measured every time
        for temperature, seed in ((0.0, 0), (1.0, 3)):
            said = list(speaker.say(name, HELLO, temperature=temperature, seed=seed))
            expected = chef.chat("Suggest a dinner.", temperature=temperature, seed=seed, max_new_tokens=150)
            assert "".join(said).strip() == expected and len(said) > 1
        assert speaker.checkpoint(name) == small_run[1].manifest(name)["digest"][:16]


def test_whether_it_came_to_its_end_is_told(speaker: Speaker) -> None:
    def ended(seed: int) -> tuple[int, bool]:
        said = speaker.say("base", HELLO, temperature=1.0, seed=seed)
        pieces = 0
        while True:
            try:
                next(said)
                pieces += 1
            except StopIteration as stop:
                return pieces, stop.value

    found = [ended(seed) for seed in range(12)]
    tokens, context = speaker.room("base", HELLO)
    assert {told for _, told in found} == {True, False}, "some end, some fill the context"
    assert all(pieces < context - tokens for pieces, told in found if told)


def test_what_cannot_be_said(tmp_path: Path, speaker: Speaker) -> None:
    with pytest.raises(BadInput, match="This run has ppo, sft, base"):
        list(speaker.say("nobody", HELLO, temperature=0, seed=0))
    with pytest.raises(BadInput, match="the model reads 160"):
        list(speaker.say("sft", [Message(role="user", content="x " * 400)], temperature=0, seed=0))
    with pytest.raises(MissingArtifact):
        models_of(tmp_path)
    assert Speaker(tmp_path).names == ()


def test_few_are_in_memory_and_a_model_trained_again_is_read_again(small_run: Made, tmp_path: Path) -> None:
    run = shutil.copytree(small_run[1].folder, tmp_path / "run")
    speaker = Speaker(run, most=2)
    for name in ("ppo", "sft", "ppo", "base"):
        next(speaker.say(name, HELLO, temperature=0, seed=0), None)
    assert [name for name, _ in speaker._open] == ["ppo", "base"], "the one that was silent longest is gone"
    shutil.rmtree(run / FOLDERS["ppo"])
    shutil.copytree(run / FOLDERS["sft"], run / FOLDERS["ppo"])  # another digest under the same name
    now = "".join(speaker.say("ppo", HELLO, temperature=0, seed=0))
    assert now == "".join(speaker.say("sft", HELLO, temperature=0, seed=0))
    assert len(speaker._open) == 2


def test_many_threads_hear_what_each_would_alone(speaker: Speaker) -> None:
    alone = ["".join(speaker.say("sft", HELLO, temperature=1.0, seed=seed)) for seed in range(6)]
    heard: dict[int, str] = {}

    def talk(seed: int) -> None:
        heard[seed] = "".join(speaker.say("sft", HELLO, temperature=1.0, seed=seed))

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [heard[seed] for seed in range(6)] == alone and len(set(alone)) > 1


def test_torch_comes_with_the_first_word(small_run: Made) -> None:
    code = f"""
import sys
import palate.commands.studio
from palate.commands.speaker import Speaker
from palate.records import Message
speaker = Speaker(__import__("pathlib").Path({str(small_run[1].folder)!r}))
assert speaker.names and speaker.checkpoint("sft")
assert "torch" not in sys.modules, "before"
next(speaker.say("sft", [Message(role="user", content="Hello")], temperature=0, seed=0), None)
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.fixture
def client(small_run: Made, speaker: Speaker, tmp_path: Path) -> Iterator[tuple[TestClient, Studio]]:
    with open_store(f"sqlite:///{tmp_path / 'feedback.sqlite'}") as store:
        ann = Person("ann", frozenset({"lead"}))
        studio = Studio(
            store, "small", lambda: "small:1", title="Small", speaker=speaker, single=ann, rng=random.Random(4)
        )
        with TestClient(
            build(studio), base_url="http://127.0.0.1:8484", headers={"sec-fetch-site": "same-origin"}
        ) as found:
            yield found, studio


def test_two_models_of_a_run_meet_blind_in_the_studio(client: tuple[TestClient, Studio], speaker: Speaker) -> None:
    browser, studio = client
    id_ = begin(browser)
    told = duel(browser, id_, "Suggest a dinner.", models=["ppo", "base"], temperature=1.0)
    if told["a"]["text"] == told["b"]["text"]:
        pytest.fail("two models said the same, so nothing is shown by this")
    answer = browser.post(f"{CHAT}/vote", json={"conversation": id_, "turn": told["id"], "verdict": "a"}).json()
    (judgement,) = studio.store.judgements(studio.chats)
    first, second = judgement.presented_order
    by_id = {r.id: r for r in studio.store.responses(studio.chats)}
    assert answer["names"] == {"a": by_id[first].model, "b": by_id[second].model}
    for response in by_id.values():
        again = speaker.say(response.model, HELLO, **dataclasses.asdict(Drawn(**response.sampling)))
        assert "".join(again).strip() == response.text, "what is stored is enough to say it again"
        assert response.checkpoint == speaker.checkpoint(response.model)
    assert turn(browser, id_, "Thank you.", models=["sft"])["model"] == "sft"


@dataclasses.dataclass
class Drawn:
    """Everything an answer depends on beside its model and the conversation."""

    temperature: float
    seed: int
