"""Byte-level BPE (Sennrich et al. 2016 on bytes, as GPT-2): training, saving, loading, text and chats to ids and back.

The heavy lifting is Hugging Face's `tokenizers`; files are `tokenizer.json` and `tokenizer_config.json`, which
`transformers` reads as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from palate.errors import BadInput, Unsupported
from palate.records import Conversation
from palate.text import chat

FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids, with 1 where the assistant speaks (its end marker included) and 0 elsewhere."""

    ids: tuple[int, ...]
    weights: tuple[int, ...]


class Tokenizer:
    """Text <-> ids, and conversations -> ids."""

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        self._backend = backend
        # Text is text: a user who types "<|end|>" gets those seven characters, not the marker.
        self._backend.encode_special_tokens = True
        self.config = config
        self.vocab: int = 1 + max(self._backend.get_vocab().values())
        """One more than the largest id."""
        self.pad, self.bos, self.eos, self.end = (self._id(t) for t in (chat.PAD, chat.BOS, chat.EOS, chat.END))
        self._roles = {role: self._id(marker) for role, marker in chat.ROLES.items()}

    def _id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise Unsupported(
                f"this tokenizer has no {token} token. Palate reads tokenizers made by its own `tokenize` stage; "
                f"chat templates of other models come with the align recipe."
            )
        return int(found)

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids at which generation ends: the end of a document and the end of a turn."""
        return (self.eos, self.end)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of vocabulary and merges; two models with the same one can read each other's ids."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, no markers added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text as BOS, its ids, EOS."""
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[self.bos, *e.ids, self.eos] for e in encoded]

    def encode_chat(self, messages: Conversation) -> Encoded:
        """A whole conversation; weights are 1 on the assistant's words and end markers."""
        ids, weights = [self.bos], [0]
        for message in messages:
            words = [*self.encode(message.content), self.end]
            ids += [self._roles[message.role], *words]
            weights += [0] + [int(message.role == "assistant")] * len(words)
        return Encoded(tuple(ids), tuple(weights))

    def encode_prompt(self, messages: Conversation) -> list[int]:
        """A conversation that waits for the assistant: its ids end with the assistant marker."""
        return [*self.encode_chat(messages).ids, self._roles["assistant"]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, markers left out. Bytes that are not UTF-8 become U+FFFD."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def render(self, messages: Conversation, *, prompt: bool = False) -> str:
        """The conversation with its markup as text, for people to look at."""
        text = chat.BOS + "".join(f"{chat.ROLES[m.role]}{m.content}{chat.END}" for m in messages)
        return text + (chat.ROLES["assistant"] if prompt else "")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        # Not its save(), whose errors are bare Exceptions.
        (folder / FILES[0]).write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        (folder / FILES[1]).write_text(json.dumps(self.config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> Tokenizer:
    """The tokenizer saved in `folder`. Raises BadInput when a file is missing or damaged."""
    for name in FILES:
        if not (folder / name).is_file():
            raise BadInput("there is no such file.", folder / name, "Name a folder with a saved tokenizer.")
    mend = "Run `palate tokenize` again, or copy it again."
    try:
        backend = tokenizers.Tokenizer.from_file(str(folder / FILES[0]))
        config = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{FILES[1]} is no object")
        loaded = Tokenizer(backend, config)
        whole = loaded.decode(loaded.encode(PROBE)) == PROBE
    except Unsupported:
        raise
    except BaseException as error:
        # `tokenizers` raises bare Exception for damage, and a panic of its Rust, which is none, for surprises.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadInput(f"not a readable tokenizer ({str(error)[:80]}).", folder, mend) from None
    if not whole:  # byte-level BPE leaves out what has no id, without a word
        raise BadInput("this tokenizer gives back other text than it was given.", folder, mend)
    return loaded


PROBE = "".join(
    map(
        chr,
        [
            *range(0xC0),
            *(n << 6 for n in range(3, 32)),
            *(n << 12 for n in range(1, 16)),
            *(n << 18 for n in range(1, 5)),
            0x800,
            0x10000,
        ],
    )
)
"""Every byte that UTF-8 can hold: ASCII, continuations, and the first bytes of two, three and four."""


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A byte-level BPE of `vocab` ids (markers and all 256 bytes included) trained on `texts`."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(chat.SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": chat.PAD,
        "bos_token": chat.BOS,
        "eos_token": chat.EOS,
        "additional_special_tokens": [chat.END, *chat.ROLES.values()],
        "clean_up_tokenization_spaces": False,
        "chat_template": chat.TEMPLATE,
    }
    return Tokenizer(backend, config)
