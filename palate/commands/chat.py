"""`palate chat RUN`: talk with the models of a run in the terminal, token by token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from palate.commands.speaker import LEAST, Speaker, models_of
from palate.errors import BadInput
from palate.generate.sampling import Sampling
from palate.records import Message

HELP = "/model NAME switches (ppo, sft, base...), /new forgets the conversation, /quit ends"

SAMPLING = Sampling(max_new_tokens=1, temperature=0.7)
"""How answers are drawn; how long they may get and what ends them is the model's."""


class Chat:
    """A conversation with one of several models. `say` streams an answer and remembers both turns."""

    def __init__(self, speaker: Speaker, sampling: Sampling = SAMPLING, *, seed: int = 0) -> None:
        self.speaker, self.sampling = speaker, sampling
        self.messages: list[Message] = []
        self._seeds = itertools.count(seed)
        self.name = speaker.names[0]
        self.switch(self.name)

    def switch(self, name: str) -> None:
        """Let another model go on with the conversation. Raises BadInput when this run does not have it."""
        self.speaker.open(name)
        self.name = name

    def say(self, text: str) -> Iterator[str]:
        """Pieces of the answer to `text` as they are sampled. Raises BadInput when the prompt is too long."""
        self.messages.append(Message(role="user", content=text))
        self._forget()
        told = ""
        for piece in self.speaker.say(
            self.name,
            self.messages,
            temperature=self.sampling.temperature,
            seed=next(self._seeds),
            sampling=self.sampling,
        ):
            told += piece
            yield piece
        self.messages.append(Message(role="assistant", content=told.strip()))

    def _forget(self) -> None:
        """The oldest turns, when the conversation no longer fits."""
        while True:
            tokens, context = self.speaker.room(self.name, self.messages)
            if context - tokens > LEAST:
                return
            if len(self.messages) == 1:
                self.messages.clear()
                raise BadInput(
                    f"your message is {tokens} tokens, the model reads {context}.", "chat", "Write a shorter one."
                )
            del self.messages[:2]


def talk(
    run: Path, *, model: str | None, sampling: Sampling, read: Callable[[str], str], show: Callable[[str], None]
) -> None:
    """Read lines and stream answers until /quit or the end of input."""
    chat = Chat(models_of(run), sampling)
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
