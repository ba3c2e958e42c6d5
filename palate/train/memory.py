"""How many tokens go through a network at once."""

from __future__ import annotations

from functools import partial

from palate.device import Device
from palate.nn import lora
from palate.nn.config import Shape
from palate.nn.transformer import Network
from palate.train.distributed import parts


def make_room(*models: Network, time: int, device: Device, at_most: int, beside: int = 0) -> int:
    """Tokens of one micro-batch of rows of `time` for `models`, which are of one shape and trained together: `at_most`,
    or as many as fit; at least one row. Where not one would, their layers are from here on computed again in the
    backward pass. `beside` more networks of the shape are only held; with adapters all share one that is."""
    shape, processes = models[0].shape, parts(models[0])
    trained, frozen = (0, 1) if lora.adapted(models[0]) else (len(models), beside)
    fits = partial(
        tokens_that_fit,
        shape,
        time,
        device.memory,
        device.dtype.itemsize,
        frozen=frozen,
        trained=trained,
        processes=processes,
    )
    recompute = fits() < time
    for model in models:
        model.trunk.recompute = recompute
    return max(time, min(at_most, fits(recompute=recompute)))


def tokens_that_fit(
    shape: Shape,
    time: int,
    memory: int,
    width: int,
    *,
    frozen: int = 0,
    trained: int = 1,
    processes: int = 1,
    recompute: bool = False,
) -> int:
    """Tokens in rows of `time` whose activations, `width` bytes a number, have room in half of the device's `memory`
    (bytes) beside `trained` networks of this shape with their optimizers, each shared by so many `processes`, and
    `frozen` ones without. Below one row, or below 0, where they have none.

    The other half is for what is short-lived: gradients of activations, scratch space of products, whole batches.
    A trained number takes 16 bytes (itself, gradient, two moments of Adam in float32) and in bfloat16 four more (the
    rounded copy and its gradient).
    """
    held = trained * (16 + (4 if width == 2 else 0)) / processes + frozen * width
    return int((memory / 2 - held * shape.parameters) // shape.activation_bytes(time, width, recompute=recompute))
