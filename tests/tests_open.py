"""A published model in small: random weights, a tokenizer and a chat template in the style of a family."""

import dataclasses
import json
import random
from pathlib import Path

import torch
from text.open_models import STYLES, write

from palate.device import generator
from palate.nn.config import Shape
from palate.nn.transformer import LanguageModel, Trunk, initialise
from palate.text import tokenizer as tokenizers
from palate.weights import folder as weights

SHAPE = Shape(vocab=0x200, layers=2, dim=32, heads=4, kv_heads=2, hidden=48, context=192)
SHAPES = {
    "qwen2": dataclasses.replace(SHAPE, family="qwen2", qkv_bias=True),
    "gpt2": dataclasses.replace(SHAPE, kv_heads=4, family="gpt2", norm="layer", positions="learned",
                                feed_forward="gelu", qkv_bias=True, out_bias=True, feed_forward_bias=True),
}  # fmt: skip


def published(folder: Path, name: str, *, extra_rows: int = 0) -> Path:
    """A folder as others publish them; the model has `extra_rows` more ids than its tokenizer."""
    write(folder, name)
    tokenizer = tokenizers.load(folder)
    shape = dataclasses.replace(SHAPES.get(name, SHAPE), vocab=tokenizer.vocab + extra_rows)
    model = LanguageModel(Trunk(shape))
    initialise(model, shape, generator("published", name))
    with torch.no_grad():  # rows that no token has are as likely as the others, or a test of them would test nothing
        model.head.weight[tokenizer.vocab :] *= 3
    weights.save_language_model(folder, model, folder, stops=tokenizer.stops, ids=tokenizer.ids | {"pad": None})
    if STYLES[name].template is None:  # GPT-2's folder names its special tokens in config.json alone
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 192} | {
            k: v for k, v in config.items() if not k.endswith("_token")}))  # fmt: skip
    return folder


def people(folder: Path, *, count: int = 60) -> tuple[Path, Path]:
    """(demonstrations.jsonl, comparisons.jsonl): short questions, and people who like short answers."""
    rng = random.Random(0)
    dishes = ["stew", "soup", "dinner", "lemon", "chef"]
    folder.mkdir(parents=True, exist_ok=True)
    written, ranked = [], []
    for number in range(count):
        question = f"Suggest a {rng.choice(dishes)} {number}."
        good, bad = f"Try the {rng.choice(dishes)}!", f"It is good, it is good, it is the {rng.choice(dishes)}."
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": good}]
        if number % 3 == 0:
            turns += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Today."}]
        written.append({"messages": turns})
        ranked.append({"prompt": question, "chosen": good, "rejected": bad})
    files = folder / "demonstrations.jsonl", folder / "comparisons.jsonl"
    for path, lines in zip(files, (written, ranked), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return files


def small(base: Path, demonstrations: Path, comparisons: Path) -> list[str]:
    """Overrides that make recipes/align.toml a run of seconds."""
    return [
        f'base.folder="{base}"', f'write.demonstrations=["{demonstrations}"]', f'rank.by=["{comparisons}"]',
        "write.train_prompts=30", "write.dev_prompts=6", "write.test_prompts=6", "lora.rank=4", "lora.alpha=8.0",
        "sft.steps=12", "sft.batch_rows=8", "sft.peak_lr=1e-2", "sft.warmup_steps=2", "sft.save_every=5",
        "sample.prompts=6", "sample.max_new_tokens=12", "reward.peak_lr=3e-3", "reward.batch_prompts=8",
        "reward.warmup_steps=1", "reward.epochs=2", "reward.save_every=3", "ppo.rounds=3", "ppo.rollout_prompts=8",
        "ppo.minibatch_rows=4", "ppo.micro_rows=4", "ppo.max_new_tokens=12", "ppo.critic_warmup_rounds=1",
        "ppo.policy_lr=1e-3", "ppo.gate=false", "ppo.save_every=1", "evaluate.temperatures=[0.0, 1.0]",
        "evaluate.dev_prompts=4", "evaluate.test_prompts=5", "evaluate.max_new_tokens=12",
        'hardware.device="cpu"', 'hardware.dtype="float32"', "hardware.threads=1",
    ]  # fmt: skip
