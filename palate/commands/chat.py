"""`palate chat RUN`: talk with the models of a run in the terminal, token by token."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from palate.device import Device, open_device
from palate.errors import BadInput, MissingArtifact
from palate.generate.engine import stream
from palate.generate.sampling import Sampling
from palate.generate.text import pieces
from palate.nn.transformer import LanguageModel
from palate.recipe import Hardware
from palate.records import Message
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import Tokenizer
from palate.weights import folder as weights
from palate.workspace import POLICIES, Workspace

MODELS = (*POLICIES, "sft", "base")
"""Which of a run's artifacts talk; the first one that exists talks first."""
HELP = "/model NAME switches (ppo, sft, base...), /new forgets the conversation, /quit ends"

SAMPLING = Sampling(max_new_tokens=1, temperature=0.7)
"""How answers are drawn; how long they may get and what ends them is the model's."""


class Chat:
    """A conversation with one of several models. `say` streams an answer and remembers both turns."""

    def __init__(self, folders: dict[str, Path], sampling: Sampling = SAMPLING, *, seed: int = 0) -> None:
        self.folders, self.sampling = folders, sampling
        self.device: Device = open_device(Hardware())
        self.messages: list[Message] = []
        self._seeds = itertools.count(seed)
        self._open: dict[str, tuple[LanguageModel, Tokenizer]] = {}
        self.name = next(iter(folders))
        self.switch(self.name)

    def switch(self, name: str) -> None:
        """Let another model go on with the conversation. Raises BadInput when this run does not have it."""
        if name not in self.folders:
            raise BadInput(f"there is no model {name!r}.", "/model", f"This run has {', '.join(self.folders)}.")
        if name not in self._open:
            folder = self.folders[name]
            model = self.device.put(weights.load_language_model(folder))
            tokenizer = tokenizers.load(folder)
            weights.fit_vocabulary(model, tokenizer.vocab, folder)
            self._open[name] = (model, tokenizer)
        self.name = name

    def say(self, text: str) -> Iterator[str]:
        """Pieces of the answer to `text` as they are sampled. Raises BadInput when the prompt is too long."""
        model, tokenizer = self._open[self.name]
        self.messages.append(Message(role="user", content=text))
        ids = self._fitting(tokenizer, model.shape.context)
        sampling = dataclasses.replace(
            self.sampling, max_new_tokens=model.shape.context - len(ids), stops=tokenizer.stops
        )
        tokens = stream(model, ids, sampling, seed=next(self._seeds), device=self.device)
        told = ""
        for piece in pieces(tokens, tokenizer.decode):
            told += piece
            yield piece
        self.messages.append(Message(role="assistant", content=told.strip()))

    def _fitting(self, tokenizer: Tokenizer, context: int) -> list[int]:
        """The conversation's ids; the oldest turns are forgotten when they no longer fit."""
        while True:
            ids = tokenizer.encode_prompt(tuple(self.messages))
            if len(ids) < context - 8:
                return ids
            if len(self.messages) == 1:
                self.messages.clear()
                raise BadInput(
                    f"your message is {len(ids)} tokens, the model reads {context}.", "chat", "Write a shorter one."
                )
            del self.messages[:2]


def models_in(run: Path) -> dict[str, Path]:
    """The language models of a run folder, or the one in a model folder."""
    if (run / "config.json").is_file():
        return {"model": run}
    workspace = Workspace(run)
    found = {name: workspace.read(name) for name in MODELS if workspace.has(name)}
    if not found:
        raise MissingArtifact("03-base", "pretrain", run)
    return found


def talk(
    run: Path, *, model: str | None, sampling: Sampling, read: Callable[[str], str], show: Callable[[str], None]
) -> None:
    """Read lines and stream answers until /quit or the end of input."""
    chat = Chat(models_in(run), sampling)
    if model is not None:
        chat.switch(model)
    show(f"You are talking with {chat.name} of {run}. {HELP}\n")
    while True:
        try:
            line = read("\nyou: ").strip()
        except EOFError:
            return
        if line == "/quit":
            return
        try:
            if line == "/new":
                chat.messages.clear()
            elif line.startswith("/model"):
                chat.switch(line.removeprefix("/model").strip())
                show(f"now {chat.name}\n")
            elif line.startswith("/"):
                show(HELP + "\n")
            elif line:
                show(f"{chat.name}: ")
                for piece in chat.say(line):
                    show(piece)
                show("\n")
        except BadInput as error:
            show(f"{error}\n")
