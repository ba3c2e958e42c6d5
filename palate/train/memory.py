"""How many tokens go through a network at once."""

from __future__ import annotations

from palate.device import Device
from palate.nn.config import Shape


def tokens_at_once(
    shape: Shape, time: int, device: Device, *, at_most: int, frozen: int = 0, trained: int = 1, processes: int = 1
) -> int:
    """Tokens of one micro-batch of rows of `time`: `at_most`, or as many as fit into half of the device's memory beside
    `trained` networks of this shape with their optimizers, each shared by so many `processes`, and `frozen` ones
    without; at least one row.

    The other half is for what is short-lived: gradients of activations, scratch space of products, whole batches.
    A trained number takes 16 bytes (itself, gradient, two moments of Adam in float32) and in bfloat16 four more (the
    rounded copy and its gradient).
    """
    width = device.dtype.itemsize
    held = trained * (16 + (4 if width == 2 else 0)) / processes + frozen * width
    room = device.memory / 2 - held * shape.parameters
    return max(time, min(at_most, int(room // shape.activation_bytes(time, width))))
