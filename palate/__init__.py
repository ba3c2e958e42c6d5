"""Palate takes a person from raw text to a model that people prefer.

    >>> import palate                                                           # doctest: +SKIP
    >>> palate.run("recipes/kitchen.toml", "runs/kitchen")                      # doctest: +SKIP
    >>> chef = palate.load("runs/kitchen")                                      # doctest: +SKIP
    >>> chef.chat("Suggest a non-vegetarian dinner.")                           # doctest: +SKIP

Names are imported when they are first used, so `import palate` is instant and needs no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# Read when torch is loaded: what Apple's GPUs cannot do runs on the processor, and torch says so once for each.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from palate.api import Assistant, load, open_feedback, run, score

__all__ = ["Assistant", "load", "open_feedback", "run", "score"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from palate import api

        return getattr(api, name)
    raise AttributeError(f"module 'palate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
