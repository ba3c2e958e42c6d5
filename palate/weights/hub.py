"""A model folder by its id on Hugging Face's hub, from the local cache or, when it is not there, by download.

Nothing is asked of anybody unless a recipe names a hub id.
"""

from __future__ import annotations

import os
from pathlib import Path

from palate.errors import BadInput, Unsupported

FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt")
"""What a model needs. Pickles are left where they are."""


def fetch(name: str, revision: str) -> tuple[Path, str]:
    """(folder, commit) of the model `name` at `revision` (a branch, tag or commit). What the cache holds for it is
    taken as it is. Raises Unsupported without huggingface_hub, BadInput when it cannot be had."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Unsupported(
            f"base.hub = {name!r} needs huggingface_hub: pip install 'palate[hub]'. Or download the folder yourself "
            f"and name it in base.folder."
        ) from None
    failed = ""
    for only_here in (True, False):
        try:
            folder = Path(
                snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=only_here)
            )
        except Exception as error:  # its own, those of its network library, and OSError
            failed = str(error) or type(error).__name__
            continue
        # The cache may hold a part: what somebody else asked for.
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder, folder.name
        failed = "there is no config.json or no .safetensors"
    raise BadInput(
        f"cannot be had ({failed}).",
        f"{name} at {revision} on the hub",
        "Check name, revision and network, or download the folder yourself and name it in base.folder.",
    )
