"""The section [scoring]: what it takes, what it refuses and why, and the scorers that come of it."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests_small import SMALL

from palate import recipe as recipes
from palate import scorers
from palate.errors import BadInput, RecipeError
from palate.records import Prompt, conversation
from palate.scorers import function

ALL = """
[scoring]
learned = 0.5
[scoring.function]
name = "rewards.py:brief"
weight = -0.25
[scoring.verifier]
kind = "number"
[scoring.judge]
url = "http://127.0.0.1:8000/v1/"
model = "some/model"
key_variable = "JUDGE_KEY"
rubric = "Say \\"please\\", {always}."
"""


def parsed(text: str) -> recipes.Recipe:
    return recipes.parse(text, "r.toml")


def test_every_table_is_read_and_written_back() -> None:
    recipe = parsed(ALL)
    assert recipe.scoring is not None and recipe.scoring.judge is not None
    assert (recipe.scoring.learned, recipe.scoring.function) == (
        0.5,
        recipes.Function(name="rewards.py:brief", weight=-0.25),
    )
    assert recipe.scoring.judge.url == "http://127.0.0.1:8000/v1" and recipe.scoring.judge.timeout_seconds == 60.0
    assert parsed(recipes.dump(recipe)) == recipe
    assert "JUDGE_KEY" in recipes.dump(recipe)


def test_a_recipe_without_it_is_as_it_was() -> None:
    assert parsed("seed = 1").scoring is None and "scoring" not in recipes.dump(parsed("seed = 1"))


def test_parts_of_it_are_set_from_the_command_line() -> None:
    recipe = recipes.parse(
        ALL, "r.toml", ["scoring.verifier.weight=2.0", "scoring.learned=0", "scoring.judge.parallel=9"]
    )
    assert recipe.scoring and recipe.scoring.verifier and recipe.scoring.judge
    assert (recipe.scoring.learned, recipe.scoring.verifier.weight, recipe.scoring.judge.parallel) == (0.0, 2.0, 9)


def test_policies_without_reward_model_and_rankings() -> None:
    text = "[scoring]\nlearned = 0\n[scoring.verifier]\n[ppo]\nrounds = 2\n"
    recipe = parsed(text)
    assert recipe.scoring and recipe.ppo and recipe.rank is None and recipe.reward is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[scoring]\nlernd = 1.0", r"scoring\.lernd is not a recipe key. Did you mean scoring\.learned"),
        ("[scoring.judge]\nurl='http://a/v1'\nmodl='m'", r"scoring\.judge\.modl .*Did you mean scoring\.judge\.model"),
        ("[scoring.jugde]\nmodel = 'm'", r"scoring\.jugde .*Did you mean scoring\.judge"),
        ("[scoring]\nlearned = 0", r"learned = 0 leaves nothing to score with"),
        ("[scoring]\nlearned = -1.0", r"scoring\.learned = -1\.0: .*greater than or equal to 0"),
        ("[scoring.function]\nweight = 1.0", r"scoring\.function\.name is required"),
        ("[scoring.function]\nname = 'rewards.py'", r"rewards\.py:function"),
        ("[scoring.function]\nname = ':f'", r"package\.module:function"),
        ("[scoring.function]\nname = 'a.py:f g'", r"package\.module:function"),
        ("[scoring.function]\nname = 'a.py:f'\nweight = 0.0", r"it would run for nothing"),
        ("[scoring.verifier]\nkind = 'maths'", r"scoring\.verifier\.kind = 'maths'"),
        ("[scoring.verifier]\nweight = 0.0", r"scoring\.verifier\.weight"),
        ("[scoring.judge]\nurl='http://a/v1'\nmodel=''", r"scoring\.judge\.model"),
        ("[rank]\nby = ['scorers']", r'rank\.by names "scorers": the recipe needs \[scoring\]'),
        ("[rank]\nby = ['scorers']\n[scoring]\nlearned = 1.0", r'rank\.by names "scorers"'),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parsed(text)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000/v1", "ftp://a/v1", "http:///v1", "http://a b/v1", "http://user:s3cret@a/v1",
     "http://a/v1?key=s3cret", "http://a/v1#s3cret", "http://[s3cret/v1", "http://a:s3cret/v1",
     "http://a/v1/chat/completions", "http://a\tb/v1", ""],
)  # fmt: skip
def test_addresses_that_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(RecipeError, match=r"scoring\.judge\.url: ") as caught:
        parsed(f"[scoring.judge]\nmodel = 'm'\nurl = {url!r}".replace("'", '"'))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["sk-s3cret", "s3cret key", "", "1S3CRET", "S3CRET" * 20])
def test_a_key_in_the_place_of_its_variable_is_not_repeated(variable: str) -> None:
    with pytest.raises(RecipeError, match=r"scoring\.judge\.key_variable: .*the key itself does not belong") as caught:
        parsed(f"[scoring.judge]\nmodel = 'm'\nurl = 'http://a/v1'\nkey_variable = '{variable}'")
    assert "s3cret" not in str(caught.value).lower()


def test_a_placebo_of_rankings_that_nobody_reads() -> None:
    told = ["scoring.learned=0", "scoring.verifier.weight=1.0"]
    with pytest.raises(RecipeError, match=r"controls\.placebo shuffles rankings"):
        recipes.parse(SMALL, "small.toml", told)
    assert recipes.parse(SMALL, "small.toml", [*told, "controls.placebo=false"]).controls


def test_sft_continued_needs_no_rankings() -> None:
    text = (
        "[scoring]\nlearned = 0\n[scoring.verifier]\n[ppo]\nrounds = 2\n[sft]\nsteps = 30\npeak_lr = 1e-3\n[controls]\n"
    )
    with pytest.raises(RecipeError, match=r"controls\.placebo shuffles rankings"):
        parsed(text)
    assert parsed(text + "placebo = false").controls
    with pytest.raises(RecipeError, match=r"controls\.placebo shuffles rankings, so it needs \[rank\]"):
        parsed("[ppo]\nrounds = 2\n[sft]\nsteps = 30\npeak_lr = 1e-3\n[controls]\n")


def scoring(tmp_path: Path, **changed: Any) -> recipes.Scoring:
    path = tmp_path / "rewards.py"
    if not path.exists():
        path.write_text("def brief(prompts, texts):\n    return [len(t) for t in texts]\n")
    values: dict[str, Any] = {
        "function": recipes.Function(name=f"{path}:brief", weight=-0.5),
        "verifier": recipes.Verifier(weight=3.0),
        "judge": recipes.Judge(url="http://127.0.0.1:1/v1", model="m"),
    }
    return recipes.Scoring(**(values | changed))


def test_scorers_have_names_and_weights_and_nobody_is_asked_yet(tmp_path: Path) -> None:
    opened = scorers.open(scoring(tmp_path), memory=tmp_path / "judge.jsonl")
    assert [(one.name, one.weight) for one in opened] == [
        ("function rewards.py:brief", -0.5), ("verifier number", 3.0), ("judge m", 1.0)
    ]  # fmt: skip
    prompt = Prompt(id="p", messages=conversation("1 + 1?"), family="f", extra={"answer": "2"})
    two = opened[:2]
    assert scorers.combined(two, scorers.score_each(two, [prompt] * 2, ["2", "three"])) == [2.5, -2.5]
    assert scorers.open(recipes.Scoring(), memory=None) == []


def test_the_fingerprint_changes_with_what_changes_scores_and_with_nothing_else(tmp_path: Path) -> None:
    judge = recipes.Judge(url="http://127.0.0.1:1/v1", model="m")
    first = scorers.fingerprint(scoring(tmp_path))
    for same in (
        {
            "judge": judge.model_copy(
                update={"timeout_seconds": 9.0, "parallel": 2, "key_variable": "K", "max_new_tokens": 9}
            )
        },
        {"learned": 0.25},
    ):
        assert scorers.fingerprint(scoring(tmp_path, **same)) == first
    for other in (
        {"judge": judge.model_copy(update={"model": "n"})},
        {"judge": judge.model_copy(update={"url": "http://127.0.0.1:2/v1"})},
        {"judge": judge.model_copy(update={"rubric": "Be brief."})},
        {"judge": judge.model_copy(update={"weight": 2.0})},
        {"judge": None},
        {"verifier": recipes.Verifier(kind="text", weight=3.0)},
        {"verifier": recipes.Verifier(weight=2.0)},
        {"function": recipes.Function(name=f"{tmp_path / 'rewards.py'}:brief", weight=0.5)},
    ):
        assert scorers.fingerprint(scoring(tmp_path, **other)) != first
    (tmp_path / "rewards.py").write_text("def brief(prompts, texts):\n    return [-len(t) for t in texts]\n")
    assert scorers.fingerprint(scoring(tmp_path)) != first
    (tmp_path / "rewards.py").unlink()
    with pytest.raises(BadInput, match=r"rewards\.py: cannot be read"):
        scorers.fingerprint(recipes.Scoring(function=recipes.Function(name=f"{tmp_path / 'rewards.py'}:brief")))


PAGE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")


def test_the_recipe_and_the_functions_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    (tmp_path / "rewards.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", "x")
    section = parsed(recipe).scoring
    assert section is not None
    brief, right, judge = scorers.open(section, memory=None)
    prompts = [Prompt(id="p", messages=conversation("2?"), family="f", extra={"limit": 2, "answer": "2"})] * 2
    assert scorers.score_each([brief, right], prompts, ["2", "I think 3"]) == {
        "function rewards.py:brief": [0.0, -1.0], "verifier number": [1.0, 0.0]
    }  # fmt: skip
    assert judge.name == "judge Qwen/Qwen3-8B"
    assert function.load("rewards.py:polite")(prompts, ["Please!", "Now."]) == [1.0, 0.0]
