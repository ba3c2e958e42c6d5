import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from palate import flow, metrics
from palate.batches.shards import Shard
from palate.device import Device
from palate.measure.bits import ByteNgram, bits_per_byte
from palate.recipe import Recipe
from palate.stages import pretrain
from palate.train import resume
from palate.weights import folder as weights
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]


def test_the_model_learned_and_the_log_says_so(small_run: Made) -> None:
    lines = metrics.read(small_run[1].logs / "pretrain.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 48
    assert losses[0] > 0.9 * math.log(600) and losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "ppo"])
@pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
def test_a_killed_run_ends_as_the_uninterrupted_one(
    stage: str, after: bool, small_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill after the first save, or just before it; every file and the metrics must be equal bit for bit. (All the
    other moments: tests/soak/kills.py.)"""
    recipe, workspace = small_run
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.folder, copy.folder)
    artifact = {"pretrain": "base", "sft": "sft", "reward": "reward", "ppo": "ppo"}[stage]
    shutil.rmtree(copy.path(artifact))
    saved = resume.save

    def save_and_die(*args: object, **kwargs: object) -> None:
        if after:
            saved(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        flow.run_stage(stage, recipe, copy)
    assert not copy.own(artifact), "nothing half-written may be seen"
    monkeypatch.setattr(resume, "save", saved)
    assert flow.run_stage(stage, recipe, copy)
    assert workspace.manifest(artifact)["files"] == copy.manifest(artifact)["files"]
    log = f"{stage}.jsonl"
    assert (workspace.logs / log).read_text() == (copy.logs / log).read_text()


def test_the_seed_decides_every_first_weight(small_run: Made) -> None:
    recipe, _ = small_run
    assert recipe.model
    one, again, other = (pretrain.build(recipe.model, 300, seed).state_dict() for seed in (1, 1, 2))
    matrices = [name for name, weight in one.items() if weight.dim() > 1]
    assert len(matrices) > 8 and all(torch.equal(one[name], again[name]) for name in one)
    assert not any((one[name] == other[name]).any() for name in matrices)


@pytest.mark.slow
def test_the_same_seed_writes_the_same_metrics(small_run: Made, tmp_path: Path) -> None:
    """pretrain, sft and reward once more from the same inputs; another seed writes others."""
    recipe, workspace = small_run
    for seed in (recipe.seed, recipe.seed + 1):
        copy = Workspace(tmp_path / str(seed))
        shutil.copytree(workspace.folder, copy.folder, ignore=shutil.ignore_patterns("controls"))
        for stage, artifact in (("pretrain", "base"), ("sft", "sft"), ("reward", "reward")):
            shutil.rmtree(copy.path(artifact))
            (copy.logs / f"{stage}.jsonl").unlink()
            assert flow.run_stage(stage, recipe.model_copy(update={"seed": seed}), copy)
            logs = [(w.logs / f"{stage}.jsonl").read_bytes() for w in (workspace, copy)]
            assert (logs[0] == logs[1]) == (seed == recipe.seed), stage


def test_bits_per_byte_of_a_uniform_model(small_run: Made) -> None:
    """Equal logits cost log2(vocab) per token."""
    folder = small_run[1].read("tokens")
    model = weights.load_language_model(small_run[1].read("base"))
    for parameter in model.parameters():
        parameter.data.zero_()
    shard = Shard(folder, "val")
    told = bits_per_byte(model, shard, Device("cpu", torch.float32), width=160)
    index = json.loads((folder / "index.json").read_text())
    tokens = len(shard.tokens) - len(shard.lengths)
    assert told == pytest.approx(math.log2(model.shape.vocab) * tokens / index["val"]["text_bytes"], rel=0.02)


def test_the_ngram_baseline_by_hand() -> None:
    model = ByteNgram(2, ["ab"])
    # p(a) = (1 + 2/256) / 4; p(b | a) = (1 + p(b)) / 2 with p(b) = p(a): Witten-Bell with two kinds after two bytes
    single = (1 + 2 / 256) / 4
    assert model.bits_per_byte(["ab"]) == pytest.approx(-(math.log2(single) + math.log2((1 + single) / 2)) / 2)


def test_the_ngram_baseline_against_counting() -> None:
    """The same model with dictionaries, byte by byte."""
    rng = random.Random(0)
    texts = ["".join(rng.choice("abcd é") for _ in range(rng.randrange(1, 60))) for _ in range(40)]
    seen, new = texts[:30], texts[30:]
    follows: dict[bytes, Counter[int]] = {}
    for data in (text.encode() for text in seen):
        for i, byte in enumerate(data):
            for n in range(min(4, i) + 1):
                follows.setdefault(data[i - n : i], Counter())[byte] += 1
    bits, size = 0.0, 0
    for data in (text.encode() for text in new):
        size += len(data)
        for i, byte in enumerate(data):
            probability = 1 / 256
            for n in range(min(4, i) + 1):
                if (after := follows.get(data[i - n : i])) is None:
                    break
                probability = (after[byte] + len(after) * probability) / (after.total() + len(after))
            bits -= math.log2(probability)
    assert ByteNgram(5, seen).bits_per_byte(new) == pytest.approx(bits / size)
