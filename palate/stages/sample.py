"""Assistant + prompts -> K answers per prompt, for people to rank."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from palate import ranks
from palate.batches import prompts as prompt_batches
from palate.device import open_device, seeds
from palate.errors import BadInput
from palate.generate.engine import Reply, generate
from palate.generate.sampling import Sampling
from palate.metrics import Progress
from palate.recipe import Recipe
from palate.records import Prompt, Response, read_jsonl, stable_id, write_jsonl
from palate.text import tokenizer as tokenizers
from palate.train.distributed import in_parts
from palate.weights import folder as weights
from palate.workspace import Workspace

LEAST, MOST = 64, 512
"""Prompts of a process between two advances of the progress bar. Few leave no work for places that end (docs/log.md);
with many, a large model's bar would stand for an hour."""
SMALL = 2_000_000
"""Parameters up to which it is `MOST`."""


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `samples`: prompts.jsonl (some of train, all of dev), responses.jsonl with the sampled ids."""
    settings = recipe.sample
    assert settings is not None
    device = open_device(recipe.hardware)
    source = workspace.read("sft")
    tokenizer = tokenizers.load(source)
    model = device.put(weights.load_language_model(source))
    checkpoint = str(workspace.manifest("sft")["digest"])[:16]
    every = list(read_jsonl(workspace.read("demonstrations") / "prompts.jsonl", Prompt))
    train = [p for p in every if p.split == "train"]
    random.Random(f"{recipe.seed} sample").shuffle(train)
    if (before := workspace.before("rankings")) is not None:  # new questions first: they teach more than old ones
        ranked = {p.id for p in read_jsonl(before.read("rankings") / "prompts.jsonl", Prompt)}
        train.sort(key=lambda p: p.id in ranked)
    chosen = train[: settings.prompts] + [p for p in every if p.split == "dev"]
    kept, ids, too_long = prompt_batches.encode(chosen, tokenizer, room=model.shape.context - settings.max_new_tokens)
    if not kept:
        raise BadInput(
            f"none of {len(chosen)} prompts fits into model.context minus sample.max_new_tokens.",
            workspace.read("demonstrations") / "prompts.jsonl",
            "Set sample.max_new_tokens lower or use shorter prompts.",
        )
    sampling = {"temperature": settings.temperature, "max_new_tokens": settings.max_new_tokens, "seed": recipe.seed}
    drawn = Sampling(max_new_tokens=settings.max_new_tokens, temperature=settings.temperature, stops=tokenizer.stops)
    requests = list(zip(ids, seeds(len(kept), recipe.seed, "sample"), strict=True))

    def answer(part: Sequence[tuple[Sequence[int], int]]) -> list[list[Reply]]:
        asked, own = [prompt for prompt, _ in part], [seed for _, seed in part]
        return generate(model, asked, drawn, seeds=own, device=device, answers=settings.answers)

    with workspace.publish() as folder:
        responses: list[Response] = []
        with Progress("sample", len(kept), unit="prompts") as progress:
            at_once = max(LEAST, min(MOST, MOST * SMALL // model.shape.parameters)) * ranks.world()
            for start in range(0, len(kept), at_once):
                part = slice(start, start + at_once)
                replies = in_parts(requests[part], answer)
                for prompt, answers in zip(kept[part], replies, strict=True):
                    responses += [
                        Response(
                            id=stable_id("response", checkpoint, prompt.id, str(recipe.seed), str(number)),
                            prompt_id=prompt.id,
                            text=tokenizer.decode(answer.ids).strip(),
                            token_ids=answer.ids,
                            ended=answer.ended,
                            model="sft",
                            checkpoint=checkpoint,
                            sampling=sampling,
                        )
                        for number, answer in enumerate(answers)
                    ]
                progress.advance(len(kept[part]))
        if not ranks.leads():
            return
        write_jsonl(folder / "prompts.jsonl", kept)
        write_jsonl(folder / "responses.jsonl", responses)
        report = {
            "prompts": len(kept),
            "too_long": len(too_long),
            "responses": len(responses),
            "ended": sum(r.ended for r in responses) / len(responses),
            "mean_tokens": sum(len(r.token_ids) for r in responses) / len(responses),
        }
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
