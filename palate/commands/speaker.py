"""The models of a run that can be talked with, for the terminal and the studio. torch comes with the first word."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from palate.errors import BadInput, MissingArtifact
from palate.records import Message
from palate.workspace import POLICIES, Workspace

if TYPE_CHECKING:
    from palate.device import Device
    from palate.generate.sampling import Sampling
    from palate.nn.transformer import LanguageModel
    from palate.text.tokenizer import Tokenizer

MODELS = (*POLICIES, "sft", "base")
"""Which of a run's artifacts talk; the first one that exists talks first."""
OPEN = 3
"""Models in memory at most: two that are compared, and the one that somebody else talks with."""
LONGEST = 1024
"""Tokens of an answer in the studio: somebody waits for every one of them."""
LEAST = 8
"""Tokens that a conversation must leave for the answer."""
T = TypeVar("T")


class Speaker:
    """What a run folder has of `MODELS`, looked up anew every time, or the one model of a model folder."""

    def __init__(self, place: Path, *, most: int = OPEN) -> None:
        self.place, self._most = place, most
        self._alone = (place / "config.json").is_file()
        self._workspace = Workspace(place)
        self._lock = threading.Lock()  # two threads that compute at once take longer than one after the other
        self._open: OrderedDict[tuple[str, str], tuple[LanguageModel, Tokenizer]] = OrderedDict()
        self._device: Device | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The models there are now."""
        return ("model",) if self._alone else tuple(name for name in MODELS if self._workspace.has(name))

    def checkpoint(self, model: str) -> str:
        """What tells one training of a model from another, as it is kept with sampled answers; empty outside runs."""
        return "" if self._alone else str(self._workspace.manifest(model)["digest"])[:16]

    def open(self, model: str) -> None:
        """Read a model from the disk now and not with the first question. Raises BadInput when there is no such one."""
        with self._lock:
            self._opened(model)

    def room(self, model: str, messages: Sequence[Message]) -> tuple[int, int]:
        """(tokens of the conversation, tokens that the model reads). Raises BadInput when there is no such model."""
        with self._lock:
            network, tokenizer = self._opened(model)
            return len(tokenizer.encode_prompt(tuple(messages))), network.shape.context

    def say(
        self,
        model: str,
        messages: Sequence[Message],
        *,
        temperature: float,
        seed: int,
        sampling: Sampling | None = None,
    ) -> Generator[str, None, bool]:
        """Pieces of the answer as they are sampled; its value is whether the model came to an end by itself.

        sampling: how else it is drawn; how long it may get and what ends it is decided here. Raises BadInput when there
        is no such model, or when the conversation leaves no room for an answer.
        """
        from palate.generate.engine import stream
        from palate.generate.sampling import Sampling
        from palate.generate.text import pieces

        with self._lock:
            network, tokenizer = self._opened(model)
            ids = tokenizer.encode_prompt(tuple(messages))
        room = network.shape.context - len(ids)
        if room < LEAST:
            raise BadInput(
                f"the conversation is {len(ids)} tokens, the model reads {network.shape.context}.",
                "chat",
                "Write less, or begin a new conversation.",
            )
        drawn = dataclasses.replace(
            sampling or Sampling(max_new_tokens=LONGEST),
            temperature=temperature,
            max_new_tokens=room if sampling is not None else min(room, LONGEST),
            stops=tokenizer.stops,
        )
        device, counted = self._device, 0
        assert device is not None

        def tokens() -> Iterator[int]:
            nonlocal counted
            for token in _one_at_a_time(stream(network, ids, drawn, seed=seed, device=device), self._lock):
                counted += 1
                yield token

        yield from pieces(tokens(), tokenizer.decode)
        return counted < drawn.max_new_tokens

    def _opened(self, name: str) -> tuple[LanguageModel, Tokenizer]:
        """The model, from the disk where it is not in memory; the one that was silent longest makes place for it."""
        if name not in self.names:
            have = ", ".join(self.names)
            if not have:
                raise MissingArtifact("03-base", "pretrain", self.place)
            raise BadInput(f"there is no model {name!r}.", "chat", f"This run has {have}.")
        key = (name, self.checkpoint(name))
        if key not in self._open:
            from palate.device import open_device
            from palate.recipe import Hardware
            from palate.text import tokenizer as tokenizers
            from palate.weights import folder as weights

            self._device = self._device or open_device(Hardware())
            for gone in [one for one in self._open if one[0] == name]:  # it was trained again
                del self._open[gone]
            while len(self._open) >= self._most:
                self._open.popitem(last=False)
            folder = self.place if self._alone else self._workspace.read(name)
            network = self._device.put(weights.load_language_model(folder))
            tokenizer = tokenizers.load(folder)
            weights.fit_vocabulary(network, tokenizer.vocab, folder)
            self._open[key] = (network, tokenizer)
        self._open.move_to_end(key)
        return self._open[key]


def _one_at_a_time(made: Iterator[T], lock: threading.Lock) -> Iterator[T]:
    """The same, each made while the lock is held."""
    while True:
        with lock:
            try:
                value = next(made)
            except StopIteration:
                return
        yield value


def models_of(place: Path) -> Speaker:
    """The speaker of a run folder or a model folder. Raises MissingArtifact when there is nobody to talk with."""
    speaker = Speaker(place)
    if not speaker.names:
        raise MissingArtifact("03-base", "pretrain", place)
    return speaker
