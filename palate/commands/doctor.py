"""`palate doctor`: what this machine is, what Palate does on it and why; with a recipe, what training will take."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

import torch

from palate import device, dial
from palate.recipe import Hardware, Recipe

NO_COMPILER = "none: blocks are never compiled, which costs a sixth of the speed; chat is three times slower"


def report(recipe: Recipe | None) -> Iterator[str]:
    """The lines to show."""
    if recipe:
        recipe = dial.resolve(recipe, None)
    wanted = recipe.hardware if recipe else Hardware()
    found = dial.machine(recipe) if recipe else device.measure(wanted)
    assert found.device and found.dtype
    torch.set_num_threads(found.threads or 1)
    yield f"machine    {device.describe(found.device)}, {platform.system()} {platform.machine()}"
    yield f"threads    {found.threads} of {os.cpu_count()} cores"
    yield f"torch      {torch.__version__}, Python {platform.python_version()}"
    speeds = {dtype: device.products_per_second(found.device, dtype, seconds=1.0) for dtype in device.DTYPES}
    yield "products   " + ", ".join(f"{speed / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, speed in speeds.items())
    ratio = speeds["bfloat16"] / speeds["float32"]
    why = "the recipe says so" if wanted.dtype else f"products in bfloat16 are {ratio:.1f} times as fast as in float32"
    yield f"dtype      {found.dtype}: {why}; what is trained has float32 masters"
    program = device.compiler(found.device)
    yield f"compiler   {program or NO_COMPILER}"
    if not recipe or dial.fresh_network(recipe) is None:
        return
    pace = dial.pace_of(recipe, found)
    for name, tokens in (("pretrain", dial.pretraining_tokens(recipe)), ("with sft", dial.training_tokens(recipe))):
        yield f"{name}   {tokens / 1e6:,.1f} M tokens: about {pace.seconds(tokens):,.0f} s before compiling"
    answer = "yes" if found.compile else "no"
    yield f"compile    {answer}: it pays from {device.COMPILING:.0f} s of pretraining and SFT"
