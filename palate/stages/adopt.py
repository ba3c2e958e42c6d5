"""A published model's folder -> base model, in the place of pretraining one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from palate import metrics
from palate.errors import BadInput
from palate.recipe import Base, Recipe
from palate.text import templates
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import OpenTokenizer
from palate.weights import folder as weights
from palate.weights import hub
from palate.weights.adapter import ORIGIN, OWN
from palate.workspace import Workspace, fingerprint

BESIDE = ("tokenizer.model", "vocab.json", "merges.txt")
"""Read by nothing here; some tools that convert models ask for them."""


def outside(recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """The files of the folder; what lies on the hub does not change under its commit."""
    settings = recipe.base
    assert settings is not None
    if settings.folder is None:
        return {}
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise BadInput("there is no such folder.", folder, "Name a model folder in base.folder.")
    return {path.name: fingerprint(path) for path in sorted(folder.iterdir()) if path.is_file()}


def run(recipe: Recipe, workspace: Workspace) -> None:
    """Publish `base`: the folder's weights as they are, its tokenizer with a PAD of its own and a chat template, and
    origin.json."""
    settings = recipe.base
    assert settings is not None
    with workspace.publish() as folder:
        source, revision = _find(settings)
        tokenizer = tokenizers.load(source)
        model = weights.load_language_model(source)  # all of it, so that what is wrong is told now
        weights.fit_vocabulary(model, tokenizer.vocab, source)
        if isinstance(tokenizer, OpenTokenizer):
            tokenizer.own_pad()
        tokenizer.save(folder)
        if tokenizer.vocab > model.shape.vocab:
            model = weights.with_one_more_id(model)
            weights.save_language_model(folder, model, folder, stops=tokenizer.stops, ids=tokenizer.ids)
        else:
            weights.copy_weights(source, folder, known=tokenizer.vocab, stops=tokenizer.stops, ids=tokenizer.ids)
        for name in BESIDE:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        own = not isinstance(tokenizer, OpenTokenizer) or tokenizer.template.source != templates.PLAIN
        origin = {
            "source": settings.hub or settings.folder,
            "revision": revision,
            "family": model.shape.family,
            "parameters": model.shape.parameters,
            "chat_template": OWN if own else "plain",
        }
        (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    metrics.say(
        f"      {model.shape.parameters / 1e6:.1f} M parameters, {model.shape.family}, reads {model.shape.context} "
        f"tokens, chat template: {origin['chat_template']}"
    )


def _find(settings: Base) -> tuple[Path, str | None]:
    """(folder, commit if it came from the hub)."""
    if settings.hub is not None:
        return hub.fetch(settings.hub, settings.revision)
    assert settings.folder is not None
    return Path(settings.folder), None
