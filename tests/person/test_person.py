"""One person, her own recipe, her own taste, and nothing but the terminal.

She writes demonstrations and prompts, starts `palate run`, ranks beside it with `palate rank` as people do (she asks
for help, mistypes, undoes, skips, quits, comes back; the power goes), ranks fresh answers while the policy trains,
takes the quick turn, reads the plan, goes on, and does another round. Nothing of Palate is imported: what she could not
see or type is not there. Her taste, which she tells nobody: the answer with fewer words.
"""

import json
import random
import re
import shutil
import sqlite3
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests_terminal import CTRL_D, Terminal

ASKS = r"best first \(\? for help\): "
UNTIL = 40

RECIPE = f"""
name = "inn"
seed = 1
[collect]
sources = ["texts"]
languages = []
[tokenize]
vocab = 400
held_out = 0.1
[model]
layers = 2
dim = 48
heads = 2
context = 128
[pretrain]
steps = 60
batch_rows = 8
peak_lr = 1e-2
warmup_steps = 4
evaluate_every = 30
[write]
demonstrations = ["demonstrations.jsonl"]
prompts = ["prompts.jsonl"]
dev_prompts = 24
test_prompts = 24
[sft]
steps = 90
batch_rows = 16
peak_lr = 1e-2
warmup_steps = 4
evaluate_every = 30
[sample]
prompts = 60
max_new_tokens = 40
[rank]
by = ["people"]
until = {UNTIL}
[reward]
peak_lr = 3e-3
epochs = 6
batch_prompts = 4
warmup_steps = 2
[ppo]
rounds = 10
rollout_prompts = 32
minibatch_rows = 16
max_new_tokens = 40
critic_warmup_rounds = 1
policy_lr = 2e-3
kl_weight = 0.02
evaluate_every = 2
gate = false
halt = false
[fresh]
per_look = 3
[evaluate]
temperatures = [1.0]
dev_prompts = 12
test_prompts = 24
max_new_tokens = 40
[hardware]
device = "cpu"
dtype = "float32"
threads = 1
compile = false
memory_gib = 4.0
"""

THINGS = (
    "key", "towel", "lamp", "window", "heater", "boiler", "shower", "bicycle", "umbrella", "pillow", "blanket", "bill",
    "kitchen", "terrace", "breakfast", "garden", "parking", "sauna", "library", "piano",
)  # fmt: skip
ASKED = ("Where is the {}?", "How do I use the {}?", "Who looks after the {}?", "May I have the {} today?",
         "What does the {} cost?", "When can I see the {}?")  # fmt: skip
SHORT = ("Please ask at the desk.", "Yes, please take the {}.", "The {} is free, please.", "Please wait a moment.")
LONG = (
    "I do not know why people ask me this every day, but the {0} is where it has always been, behind the old door, and "
    "nobody has moved it.",
    "Well, the {0} is a long story, and my cousin who built the house would tell it better than I can, because I only "
    "came here in spring.",
    "It depends on the weather, on the day and on who is at the desk, and even then the {0} may not be what you think "
    "it is, as you will see.",
)


def write_her_files(home: Path) -> None:
    """Texts of the inn, demonstrations (half of them short, half of them long), prompts, the recipe."""
    rng = random.Random(1)
    questions = [(ask.format(thing), thing) for thing in THINGS for ask in ASKED]
    (home / "texts").mkdir()
    for number in range(150):
        said = [f"{ask} {rng.choice(SHORT + LONG).format(thing)}" for ask, thing in rng.sample(questions, 5)]
        (home / "texts" / f"{number:03}.txt").write_text("\n".join(said) + "\n")
    shown = [
        {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer.format(thing)}]}
        for ask, thing in questions
        for answer in (rng.choice(SHORT), rng.choice(LONG))
    ]
    for name, lines in (("demonstrations", shown), ("prompts", [{"prompt": ask} for ask, _ in questions])):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "recipe.toml").write_text(RECIPE)


Given = tuple[str, str, tuple[tuple[str, int], ...]]
"""Who, the question, and the ranks of the answers by their text."""


@dataclass
class Screen:
    """One question with its answers as they are on the screen."""

    question: str
    answers: dict[str, str]

    @classmethod
    def read(cls, text: str) -> "Screen":
        """The last question in `text`; a line that goes on stands under the one before it."""
        lines = text[text.rindex("--- ") :].splitlines()[1:-1]
        question, answers, label = "", {}, ""
        for line in lines:
            if line.startswith("user: "):
                question = line.removeprefix("user: ")
            elif (found := re.match(r"  ([a-p])\)  (.*)", line)) is not None:
                label, answers[found[1]] = found[1], found[2]
            elif line.startswith("      ") and label:
                answers[label] += " " + line.strip()
        return cls(question, {label: " ".join(text.split()) for label, text in answers.items()})


def fewer_words(screen: Screen) -> str:
    """Her order: the fewer words the better, as many are a tie."""
    words = {label: len(text.split()) for label, text in screen.answers.items()}
    groups = [sorted(label for label in words if words[label] == count) for count in sorted(set(words.values()))]
    return ">".join("=".join(group) for group in groups)


def ranks(order: str) -> dict[str, int]:
    """Competition ranks of an order that was typed."""
    found: dict[str, int] = {}
    for group in order.split(">"):
        rank = len(found) + 1
        found |= dict.fromkeys(group.split("="), rank)
    return found


@dataclass
class Person:
    """Somebody at a terminal of her own. `given` is what she has said and not taken back."""

    name: str
    home: Path
    columns: int = 80
    given: dict[tuple[str, str], Given] = field(default_factory=dict)
    taken_back: int = 0
    order: Callable[[Screen], str] = fewer_words

    def sits_down(self, run: str, *words: str) -> Terminal:
        """Start ranking; nothing is read yet."""
        return Terminal("rank", run, "--annotator", self.name, *words, cwd=self.home, columns=self.columns)

    def looks(self, terminal: Terminal) -> Screen:
        """Read on until an order is asked for."""
        return Screen.read(terminal.until(ASKS))

    def says(self, terminal: Terminal, screen: Screen, kind: str = "") -> None:
        """Type an order and see that it is kept."""
        order = self.order(screen)
        terminal.type(order)
        terminal.until("kept: ")
        told = tuple(sorted((screen.answers[label], rank) for label, rank in ranks(order).items()))
        self.taken_back += (kind, screen.question) in self.given
        self.given[kind, screen.question] = (self.name, screen.question, told)

    def ranks(self, terminal: Terminal, count: int, kind: str = "") -> None:
        """So many prompts, one after the other."""
        for _ in range(count):
            self.says(terminal, self.looks(terminal), kind)


def palate(home: Path, *words: str, code: int = 0) -> str:
    """A command that asks nothing; what it said."""
    terminal = Terminal(*words, cwd=home)
    assert terminal.end() == code, terminal.seen
    assert "Traceback" not in terminal.seen
    return terminal.seen


def stored(home: Path, fresh: bool) -> tuple[list[Given], list[dict[str, Any]]]:
    """(what stands, every judgement) in her feedback store, of the fresh answers or of the run's own."""
    with sqlite3.connect(home / "runs" / "feedback.sqlite") as store:
        tables = {}
        for name in ("prompts", "responses", "judgements"):
            rows = store.execute(f"SELECT record, campaign FROM {name} ORDER BY number")
            tables[name] = [json.loads(record) for record, campaign in rows if (":fresh " in campaign) == fresh]
    text = {record["id"]: record["text"] for record in tables["responses"]}
    asked = {record["id"]: record["messages"][-1]["content"] for record in tables["prompts"]}
    gone = {record["supersedes"] for record in tables["judgements"]}
    told = [
        (
            record["annotator"],
            asked[record["prompt_id"]],
            tuple(sorted((" ".join(text[answer].split()), rank) for answer, rank in record["ranks"].items())),
        )
        for record in tables["judgements"]
        if record["id"] not in gone
    ]
    return told, tables["judgements"]


def everything(kind: str, *people: Person) -> list[Given]:
    """What these people have said and not taken back, in an order of no meaning."""
    return sorted(given for person in people for (of, _), given in person.given.items() if of == kind)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def snapshot(run: Path) -> list[dict[str, Any]]:
    return lines(run / "07-rankings" / "judgements.jsonl")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("her")
    write_her_files(place)
    return place


@pytest.mark.slow
@pytest.mark.soak  # several processes race with each other: beside other work it failed once of three times
@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal whose end is an error of reading")
def test_a_person_at_the_terminal(home: Path) -> None:
    run, ann, ben = home / "runs" / "inn", Person("ann", home, columns=60), Person("ben", home)
    saved: list[tuple[str, Terminal]] = []

    def sits(person: Person, *words: str) -> Terminal:
        terminal = person.sits_down("runs/inn", *words)
        saved.append((f"{person.name} {' '.join(words)}", terminal))
        return terminal

    try:
        _first_round(home, run, ann, ben, sits, saved)
    finally:  # whoever reads this as a stranger finds every screen
        for _, terminal in saved:
            terminal.process.kill()
        (home / "screens.txt").write_text("".join(f"===== {title}\n{t.seen}\n" for title, t in saved))


def _first_round(
    home: Path, run: Path, ann: Person, ben: Person, sits: Callable[..., Terminal], saved: list[tuple[str, Terminal]]
) -> None:
    assert "is not a run folder" in palate(home, "rank", "runs/inn", code=2)
    waiting = Terminal("run", "recipe.toml", cwd=home)
    saved.append(("run", waiting))
    waiting.until(f"0 of {UNTIL} judgements; rank with `palate rank runs/inn` in another terminal")

    # Her first sitting: help, a mistake, an order taken back, one skipped, Ctrl-C.
    terminal = sits(ann)
    screen = ann.looks(terminal)
    terminal.type("?")
    assert "b is best, a and c are equally good" in terminal.until(ASKS)
    terminal.type("z>a")
    assert "'z' is not one of" in terminal.until(ASKS)
    ann.says(terminal, screen)
    ann.says(terminal, ann.looks(terminal))
    second = list(ann.given)[-1][1]
    ann.looks(terminal)
    terminal.type("u")
    text = terminal.until(ASKS)
    assert "You said " in text and Screen.read(text).question == second
    ann.says(terminal, Screen.read(text))
    assert ann.taken_back == 1
    skipped = ann.looks(terminal).question
    terminal.type("s")
    ann.ranks(terminal, 3)
    ann.looks(terminal)
    assert terminal.interrupt() == 130 and "5 judgements of ann kept" in terminal.seen
    assert "Traceback" not in terminal.seen
    answers = terminal.seen[: terminal.seen.rindex("5 judgements")]
    assert all(len(line) <= 60 for line in answers.splitlines())
    waiting.until(f"5 of {UNTIL} judgements")

    # She comes back: what she skipped is asked again, what she ranked is not. Ctrl-D.
    terminal = sits(ann)
    screen = ann.looks(terminal)
    assert screen.question == skipped
    ann.says(terminal, screen)
    ann.looks(terminal)
    terminal.press(CTRL_D)
    assert terminal.end() == 0 and "1 judgement of ann kept" in terminal.seen

    # The power goes, for her and for the run that waits.
    terminal = sits(ann)
    ann.ranks(terminal, 4)
    terminal.kill()
    waiting.kill()
    assert sorted(stored(home, fresh=False)[0]) == everything("", ann)
    waiting = Terminal("run", "runs/inn", cwd=home)
    saved.append(("run again", waiting))
    waiting.until(f"10 of {UNTIL} judgements")

    # Two at once.
    terminal, other = sits(ann), sits(ben)
    with ThreadPoolExecutor() as both:
        for sitting in [both.submit(who.ranks, at, (UNTIL - 10) // 2) for who, at in ((ann, terminal), (ben, other))]:
            sitting.result()
    for at, typed in ((terminal, "quit"), (other, "q")):
        at.until(ASKS)
        at.type(typed)
    assert terminal.end() == other.end() == 0
    assert "That is what the run waits for; where it runs, it goes on by itself." in " ".join(
        (terminal.seen + other.seen).split()
    )
    assert sorted(stored(home, fresh=False)[0]) == everything("", ann, ben)

    # The run goes on by itself, and she looks at fresh answers while the policy trains.
    waiting.until("round 2: ")
    terminal = sits(ann, "--fresh")
    ann.ranks(terminal, 2, "fresh")
    ann.looks(terminal)
    terminal.type("q")
    assert terminal.end() == 0
    assert waiting.end() == 0, waiting.seen
    assert "The report: runs/inn/10-report/report.html" in waiting.seen

    told, every = stored(home, fresh=False)
    assert sorted(told) == everything("", ann, ben) and len(told) == UNTIL
    assert len(every) == UNTIL + ann.taken_back
    kept = snapshot(run)
    gone = {judgement["supersedes"] for judgement in every} - {None}
    assert {judgement["id"] for judgement in kept} == {judgement["id"] for judgement in every} - gone
    assert {judgement["annotator"] for judgement in kept} == {"ann", "ben"}
    assert not any(judgement["simulated"] for judgement in (*every, *stored(home, fresh=True)[1]))
    report = json.loads((run / "10-report" / "report.json").read_text())
    page = (run / "10-report" / "report.html").read_text()
    assert report["simulated_people"] is False and "simulated" not in page.lower()
    assert report["judgements"] == UNTIL

    # Her taste, which she told nobody. The answers watched are to held-out questions.
    watched = lines(run / "09-policy" / "ppo" / "watched.jsonl")
    first = [line for line in watched if line["step"] == 0]
    length = [len(line["text"].split()) for line in first]
    assert statistics.correlation(length, [line["score"] for line in first]) < -0.5
    last = [line for line in watched if line["step"] == max(line["step"] for line in watched)]
    assert statistics.mean(len(line["text"].split()) for line in last) < statistics.mean(length)
    accuracy = json.loads((run / "08-reward" / "report.json").read_text())["accuracy"]
    assert accuracy["mean"] > 0.6

    # More fresh answers: the report is stale, and the plan says why.
    terminal = sits(ann, "--fresh", "--count", "1")
    ann.ranks(terminal, 1, "fresh")
    terminal.until("Enter ends, u goes back to it: ")
    terminal.type("")
    assert terminal.end() == 0
    assert sorted(stored(home, fresh=True)[0]) == everything("fresh", ann)
    plan = palate(home, "plan", "runs/inn")
    assert re.search(r"stale +evaluate +10-report +people have ranked fresh answers since", plan), plan
    again = palate(home, "run", "runs/inn")
    assert again.count("up to date") == 9 and "The report: " in again
    told = json.loads((run / "10-report" / "report.json").read_text())["ppo"]["fresh"]
    assert told["judgements"] == 3 and told["as_the_reward_model"]["n"] <= 3
    assert "everything is up to date" in palate(home, "plan", "runs/inn")

    # A guest takes the quick turn.
    cat = Person("cat", home)
    terminal = sits(cat, "--quick", "--count", "4")
    cat.ranks(terminal, 4)
    terminal.until("Enter ends")
    terminal.type("")
    assert terminal.end() == 0 and "The reward model agreed with" in terminal.seen
    plan = palate(home, "plan", "runs/inn")
    assert re.search(r"stale +rank +07-rankings +people have ranked since it was made", plan), plan
    assert len(everything("", ann, ben, cat)) == UNTIL + 4
    palate(home, "run", "runs/inn")
    assert len(snapshot(run)) == UNTIL + 4

    # Another round, with people again.
    waiting = Terminal("round", "runs/inn", "--set", "rank.until=8", "--set", "ppo.rounds=2", cwd=home)
    saved.append(("round", waiting))
    waiting.until("0 of 8 judgements; rank with `palate rank runs/inn-2` in another terminal")
    assert waiting.interrupt() == 130 and "the same command goes on from here" in waiting.seen
    # As far as her orders: eight of them need not tell a reward model anything, which it then says and stops.
    waiting = Terminal("run", "runs/inn-2", "--until", "rank", cwd=home)
    saved.append(("round 2, again", waiting))
    waiting.until("0 of 8 judgements")
    terminal = ann.sits_down("runs/inn-2")
    saved.append(("ann, round 2", terminal))
    ann.ranks(terminal, 8, "again")
    ann.looks(terminal)
    terminal.press(CTRL_D)
    assert terminal.end() == 0 and waiting.end() == 0, waiting.seen
    second = home / "runs" / "inn-2"
    now = snapshot(second)
    trained = {line["id"] for line in lines(run / "07-rankings" / "prompts.jsonl") if line["split"] == "train"}
    earlier = [judgement for judgement in snapshot(run) if judgement["prompt_id"] in trained]
    assert len(now) == 8 + len(earlier) and not any(judgement["simulated"] for judgement in now)


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal whose end is an error of reading")
def test_a_first_sitting(small_run: tuple[Any, Any], tmp_path: Path) -> None:
    """What takes seconds of it: a small window, help, mistakes, Ctrl-C, Ctrl-D, and what is not there to rank."""
    shutil.copytree(small_run[1].folder, tmp_path / "runs" / "small")
    ann = Person("ann", tmp_path, columns=60)
    terminal = ann.sits_down("runs/small")
    screen = ann.looks(terminal)
    assert len(screen.answers) > 1 and screen.question
    for typed, told in (("?", "b is best, a and c"), ("z>a", "'z' is not one of"), ("a>a", "a comes twice"),
                        ("", "name at least two"), ("u", "there is none before it")):  # fmt: skip
        terminal.type(typed)
        text = terminal.until(ASKS)
        assert told in text
    assert Screen.read(text) == screen
    ann.says(terminal, screen)
    ann.looks(terminal)
    assert (
        terminal.interrupt() == 130 and "1 judgement of ann kept" in terminal.seen and "Traceback" not in terminal.seen
    )
    assert all(len(line) <= 60 for line in terminal.seen[: terminal.seen.rindex("1 judgement")].splitlines())
    terminal = ann.sits_down("runs/small")
    assert ann.looks(terminal).question != screen.question
    terminal.press(CTRL_D)
    assert terminal.end() == 0 and "0 judgements of ann kept" in terminal.seen
    assert stored(tmp_path, fresh=False)[0] == everything("", ann)
    terminal = ann.sits_down("runs/small", "--count", "1")
    ann.ranks(terminal, 1)
    terminal.type("")
    assert terminal.end() == 0 and "The recipe asks no people" in terminal.seen
    assert "has no [fresh] section" in palate(tmp_path, "rank", "runs/small", "--fresh", code=2)


if __name__ == "__main__":  # a stranger reads the screens: python tests/person/test_person.py FOLDER
    place = Path(sys.argv[1])
    write_her_files(place)
    test_a_person_at_the_terminal(place)
