"""The recipe of the small run, for tests that change it."""

import hashlib
import json
from pathlib import Path

from palate import recipe as recipes
from palate.recipe import Recipe
from palate.workspace import hashed

SMALL = """
name = "small"
seed = 5
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
steps = 48
batch_rows = 8
peak_lr = 1e-2
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
steps = 30
batch_rows = 16
peak_lr = 1e-2
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

METHODS = """
[dpo]
batch_prompts = 8
micro_rows = 8
max_new_tokens = 24
policy_lr = 1e-3
evaluate_every = 2
save_every = 2
[grpo]
rounds = 3
rollout_prompts = 8
answers = 3
minibatch_rows = 12
micro_rows = 4
max_new_tokens = 24
evaluate_every = 2
save_every = 2
gate = false
[rejection]
rounds = 3
rollout_prompts = 8
answers = 3
epochs = 2
minibatch_rows = 4
micro_rows = 4
max_new_tokens = 24
evaluate_every = 2
save_every = 2
gate = false
"""
"""What makes of the small recipe one of every method."""


def sealed_again(folder: Path) -> None:
    """Let the manifest agree with an artifact that a test changed on purpose."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, told in manifest["files"].items():
        content = (folder / name).read_bytes()
        told |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["digest"] = hashed(manifest["files"])
    path.write_text(json.dumps(manifest))


def small_recipe(*overrides: str) -> Recipe:
    return recipes.parse(SMALL, "small.toml", overrides)
