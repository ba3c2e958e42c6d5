"""The small model that `palate bench preferences` puts its reward models on: novels, an encyclopedia and dialogues,
then people's demonstrations, by `palate run` of a recipe. Made once in a folder and found there again.

None of the preference data is in it: a demonstration that asks what one of their prompts asks is left out.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from palate.errors import BadInput, Unsupported
from palate.feedback.exchange import runs

NOVELS = 9
"""One in this many novels is read: nine million characters of them."""
ENCYCLOPEDIA = 14_000_000
"""Characters of the encyclopedia."""

RECIPE = """
name = "backbone"
[collect]
sources = ["{texts}"]
[tokenize]
vocab = 4096
max_train_bytes = 10000000
[model]
layers = 4
dim = 192
heads = 3
context = 512
[pretrain]
steps = {steps}
batch_rows = 16
optimizer = "muon"
peak_lr = 8e-3
schedule = "linear"
[write]
demonstrations = ["{demonstrations}"]
max_characters = 1500
dev_prompts = 50
test_prompts = 50
[sft]
steps = {sft_steps}
batch_rows = 32
optimizer = "muon"
peak_lr = 2e-3
schedule = "linear"
[hardware]
threads = 1
"""
STEPS, SFT_STEPS = 600, 250


def make(data: Path, folder: Path, families: Collection[str], *, steps: int, sft_steps: int) -> Path:
    """The run folder with `base` and `sft` finished. `families`: of the prompts that it must not have seen.

    Raises BadInput when a file of `data` is missing or damaged, Unsupported when its training failed.
    """
    texts, demonstrations = folder / "texts", folder / "demonstrations.jsonl"
    if not demonstrations.is_file():
        texts.mkdir(parents=True, exist_ok=True)
        write_texts(data, texts)
        write_demonstrations(data, demonstrations, families)
    recipe, run = folder / "recipe.toml", folder / "run"
    recipe.write_text(
        RECIPE.format(texts=texts, demonstrations=demonstrations, steps=steps, sft_steps=sft_steps), encoding="utf-8"
    )
    if subprocess.run([sys.executable, "-m", "palate", "run", str(recipe), "--run", str(run)], check=False).returncode:
        raise Unsupported(f"the backbone was not made: `palate run {recipe} --run {run}` failed.")
    return run


def write_texts(data: Path, folder: Path) -> None:
    """Novels as text files, the encyclopedia in its own format, dialogues as JSON lines of texts."""
    novels = data / "english-novels" / "novels.tar.xz"
    pages = data / "wikipedia-en-2015" / "AA.txt.xz"
    dialogues = data / "schema-guided-dialogue" / "train.jsonl.gz"
    try:
        with tarfile.open(novels) as archive:
            members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
            for member in members[::NOVELS]:
                file = archive.extractfile(member)
                assert file is not None
                (folder / Path(member.name).name).write_bytes(file.read())
        with lzma.open(pages, "rt", encoding="utf-8") as text, (folder / "pages.txt").open("w", encoding="utf-8") as to:
            left = ENCYCLOPEDIA
            for line in text:
                to.write(line)
                left -= len(line)
                if left < 0 and line.startswith("</doc>"):
                    break
        with gzip.open(dialogues, "rt", encoding="utf-8") as text, (folder / "dialogues.jsonl").open("w") as to:
            to.writelines(json.dumps({"text": said}) + "\n" for said in _dialogues(text))
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, ValueError, KeyError) as error:
        raise BadInput(f"the corpus cannot be read ({error}).", data, "Name the folder of the data.") from None


def _dialogues(lines: Iterator[str] | io.TextIOBase) -> Iterator[str]:
    for line in lines:
        yield "\n\n".join(f"{who.capitalize()}: {said}" for who, said in json.loads(line)["turns"])


def write_demonstrations(data: Path, target: Path, families: Collection[str]) -> None:
    """What people wrote as examples to follow, without those whose question is in `families`."""
    source = data / "dolly-15k" / "databricks-dolly-15k.jsonl.gz"
    with target.open("w", encoding="utf-8") as file:
        for one in runs.demonstrations(source).demonstrations:
            if one.family not in families:
                messages = [{"role": m.role, "content": m.content} for m in one.messages]
                file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
