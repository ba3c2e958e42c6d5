"""A whole run of the kitchen, small enough for seconds, made once and shared by the tests of the stages."""

import pytest

from palate import flow
from palate import recipe as recipes
from palate.recipe import Recipe
from palate.workspace import Workspace

SMALL = """
name = "small"
seed = 1
[kitchen]
dishes = 30
corpus_documents = 300
[collect]
sources = ["kitchen"]
languages = ["en", "fr"]
[tokenize]
vocab = 600
held_out = 0.05
[model]
layers = 2
dim = 32
heads = 2
context = 160
[pretrain]
steps = 24
batch_rows = 8
peak_lr = 5e-3
warmup_steps = 4
evaluate_every = 8
save_every = 8
[write]
demonstrations = ["kitchen"]
prompts = ["kitchen"]
max_demonstrations = 300
train_prompts = 120
dev_prompts = 40
test_prompts = 40
[sft]
steps = 16
batch_rows = 16
peak_lr = 5e-3
warmup_steps = 2
evaluate_every = 8
save_every = 6
[sample]
prompts = 40
max_new_tokens = 24
[rank]
by = ["kitchen"]
overlap = 2
[reward]
peak_lr = 1e-3
batch_prompts = 8
warmup_steps = 1
save_every = 3
[ppo]
rounds = 4
rollout_prompts = 16
minibatch_rows = 8
micro_rows = 4
critic_warmup_rounds = 1
max_new_tokens = 24
evaluate_every = 2
save_every = 2
gate = false
[controls]
[evaluate]
temperatures = [0.0, 1.0]
dev_prompts = 12
test_prompts = 20
max_new_tokens = 24
[hardware]
device = "cpu"
dtype = "float32"
threads = 1
"""


def small_recipe(*overrides: str) -> Recipe:
    return recipes.parse(SMALL, "small.toml", overrides)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Workspace]:
    recipe, workspace = flow.open_run(small_recipe(), tmp_path_factory.mktemp("runs") / "small")
    flow.run(recipe, workspace)
    return recipe, workspace
