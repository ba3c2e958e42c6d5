"""Byte-level BPE (Sennrich et al. 2016 on bytes, as GPT-2): training, saving, loading, text and chats to ids and back.

The heavy lifting is Hugging Face's `tokenizers`; files are `tokenizer.json` and `tokenizer_config.json`, which
`transformers` reads as they are. `Tokenizer` is ours, with the markup of `chat`; `OpenTokenizer` is one that came with
somebody else's model, with that model's special tokens and chat template.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from palate.errors import BadInput, PalateError, Unsupported
from palate.records import Conversation, Message, conversation
from palate.text import chat, templates
from palate.text.templates import Template

FILES = ("tokenizer.json", "tokenizer_config.json")
TEMPLATE = "chat_template.jinja"
"""Newer folders hold the chat template in a file of its own, older ones in tokenizer_config.json."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids, with 1 where the assistant speaks (its end marker included) and 0 elsewhere."""

    ids: tuple[int, ...]
    weights: tuple[int, ...]


class Tokenizer:
    """Text <-> ids, and conversations -> ids, in the markup of `chat`."""

    bos: int | None
    """What a text begins with; some published models have none."""

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        self._backend = _as_text(backend)
        self.config = config
        self.vocab: int = 1 + max(self._backend.get_vocab().values())
        """One more than the largest id."""
        self.pad, self.bos, self.eos, self.end = (self._id(t) for t in (chat.PAD, chat.BOS, chat.EOS, chat.END))
        self._roles = {role: self._id(marker) for role, marker in chat.ROLES.items()}

    def _id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise Unsupported(f"this tokenizer has no {token} token, so it is none of ours.")
        return int(found)

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids at which generation ends: the end of a document and the end of a turn."""
        return (self.eos, self.end)

    @property
    def ids(self) -> dict[str, int | None]:
        """The ids that a model's config.json names."""
        return {"pad": self.pad, "bos": self.bos, "eos": self.eos}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of vocabulary and merges; two models with the same one can read each other's ids."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, no markers added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def begin(self, text: str) -> list[int]:
        """The ids of a text that a model goes on with: how the texts begin that it was trained on, then `text`."""
        return self._opening() + self.encode(text)

    def _opening(self) -> list[int]:
        return [] if self.bos is None else [self.bos]

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text as BOS, its ids, EOS."""
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [[*self._opening(), *e.ids, self.eos] for e in encoded]

    def encode_chat(self, messages: Conversation) -> Encoded:
        """A whole conversation; weights are 1 on the assistant's words and end markers."""
        ids = self._opening()
        weights = [0] * len(ids)
        for message in messages:
            words = [*self.encode(message.content), self.end]
            ids += [self._roles[message.role], *words]
            weights += [0] + [int(message.role == "assistant")] * len(words)
        return Encoded(tuple(ids), tuple(weights))

    def encode_prompt(self, messages: Conversation) -> list[int]:
        """A conversation that waits for the assistant: its ids end with the assistant marker."""
        return [*self.encode_chat(messages).ids, self._roles["assistant"]]

    def encode_reply(self, messages: Conversation, text: str) -> tuple[int, ...]:
        """The ids the assistant would have sampled after `encode_prompt(messages)` to say `text`, end included."""
        whole = self.encode_chat((*messages, Message(role="assistant", content=text)))
        first = len(self.encode_prompt(messages))
        return tuple(i for i, weight in zip(whole.ids[first:], whole.weights[first:], strict=True) if weight)

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


PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|PAD_TOKEN|>")
"""What published vocabularies call a PAD that their configuration does not name."""


def _as_text(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Text is text: a user who types "<|end|>" gets those seven characters, not the marker."""
    backend.encode_special_tokens = True
    return backend


GUARD = "\ufdd0"
"""A code point that is no character (Unicode, section 23.7), so that no text holds it."""


class OpenTokenizer(Tokenizer):
    """The tokenizer of a published model: its own special tokens, and its own chat template.

    The assistant's part of a conversation is found by rendering: what the template writes for the turns before, with
    the opening of an answer, must be the beginning of what it writes for the whole; the answer goes from there to the
    first end marker. The ids before it are those of `encode_prompt`, so that training sees what sampling will see.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        *,
        tokens: Mapping[str, str],
        template: str,
        stops: Iterable[int],
        folder: Path,
    ) -> None:
        self._folder = folder
        self._marked = tokenizers.Tokenizer.from_str(backend.to_str())  # this one reads special tokens as such
        self._backend = _as_text(backend)
        self.config = config
        self.vocab = 1 + max(backend.get_vocab().values())
        self._tokens = dict(tokens)
        self._special = [t.content for t in backend.get_added_tokens_decoder().values() if t.special]
        self._markers = re.compile(
            "|".join(re.escape(t) for t in sorted(self._special, key=len, reverse=True)) or "(?!)"
        )
        named = {name: self._id(text) for name, text in tokens.items()}
        if "eos_token" not in named:
            raise BadInput("no file says which token ends a text (eos_token).", folder, "Copy the folder again.")
        self.bos, self.eos = named.get("bos_token"), named["eos_token"]
        # Whatever fills rows up here is masked by place, never by id; `palate adopt` gives a folder its own PAD.
        self.pad = named.get("pad_token", self.eos)
        today = config.get("palate_today")
        self.template = Template(
            template, tokens, folder, datetime.datetime.fromisoformat(today) if isinstance(today, str) else None
        )
        self._end = self._find_end()
        self.end = self._id(self._end)
        self._stops = tuple(sorted({self.eos, self.end, *stops}))

    def _id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise BadInput(f"its configuration names {token!r}, which is no token of it.", self._folder, MEND)
        return int(found)

    def _find_end(self) -> str:
        """The first special token after what an assistant said: it ends the turn."""
        asked = conversation("Who are you?", "NOBODY")
        try:
            written = self.template.render(asked)
        except BadInput as error:
            raise Unsupported(f"{error.where}: {error.what} Not even a question and its answer.") from None
        marker = self._markers.search(written, written.rfind("NOBODY")) if "NOBODY" in written else None
        if marker is None:
            raise Unsupported(
                f"{self._folder}: the chat template puts no special token behind what the assistant says, so a model "
                f"cannot learn to stop. Use one that does, in chat_template.jinja."
            )
        return marker[0]

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids at which generation ends: the end of a text, the end of a turn, and what else the model's makers name."""
        return self._stops

    def _opening(self) -> list[int]:
        """What the tokenizer itself puts before a text."""
        ids = list(self._marked.encode("a").ids)
        return ids[: ids.index(self.encode("a")[0])]

    def encode_chat(self, messages: Conversation) -> Encoded:
        """A whole conversation as the template writes it; weights are 1 on the assistant's words and end markers.

        Raises BadInput when the template does not take the conversation, and Unsupported when what it writes does not
        say which words are the assistant's.
        """
        said = self._guarded(messages)
        text = self.template.render(said)
        turns = [i for i, m in enumerate(said) if m.role == "assistant"]
        befores = [self.template.render(said[:i], prompt=True) for i in turns]
        ids, starts = self._cut(text, befores)
        weights = [0] * len(ids)
        for turn, before, start in zip(turns, befores, starts, strict=True):
            words, end, _ = text[len(before) :].partition(self._end)
            words, told = words.strip(), said[turn].content.strip()
            # A template may think before it speaks or cut thoughts off; it may not put others' words into this turn.
            if not end or not (words.endswith(told) or told.endswith(words)):
                raise Unsupported(
                    f"{self._folder}: the chat template gives the assistant's turn {turn + 1} no end of its own, so "
                    f"nobody can tell which words to learn. Put another template into {TEMPLATE}."
                )
            last = ids.index(self.end, start)
            weights[start : last + 1] = [1] * (last + 1 - start)
        return Encoded(tuple(ids), tuple(weights))

    def encode_prompt(self, messages: Conversation) -> list[int]:
        """A conversation that waits for the assistant, as the template writes it."""
        said = self._guarded(messages)
        turns = [i for i, m in enumerate(said) if m.role == "assistant"]
        text = self.template.render(said, prompt=True)
        return self._cut(text, [self.template.render(said[:i], prompt=True) for i in turns])[0]

    def _guarded(self, messages: Conversation) -> Conversation:
        """The messages with every special token that somebody typed taken apart by GUARD."""
        if not any(self._markers.search(m.content) for m in messages):
            return messages
        return tuple(
            Message(role=m.role, content=self._markers.sub(lambda found: found[0][0] + GUARD + found[0][1:], m.content))
            for m in messages
        )

    def _cut(self, text: str, befores: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids of `text`, and at which of them the answer behind each of `befores` starts."""
        for before in befores:
            if not text.startswith(before):
                raise Unsupported(
                    f"{self._folder}: the chat template writes a turn otherwise once others follow it, so what a "
                    f"prompt looks like depends on its answer. Use another template, in {TEMPLATE}."
                )
        if GUARD not in text:
            ids = self._marked.encode(text, add_special_tokens=False).ids
            opened = [self._marked.encode(before, add_special_tokens=False).ids for before in befores]
            if all(ids[: len(first)] == first for first in opened):
                return ids, [len(first) for first in opened]
        # A token would reach over the place where an answer starts, which a sampled one cannot; or somebody typed a
        # special token. Then piece by piece.
        places = [0, *map(len, befores), len(text)]
        ids, starts = [], []
        for first, last in pairwise(places):
            if first:
                starts.append(len(ids))
            ids += self._pieces(text[first:last])
        return ids, starts

    def _pieces(self, text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        for marker in self._markers.finditer(text):
            ids += [*self.encode(text[at : marker.start()].replace(GUARD, "")), self._id(marker[0])]
            at = marker.end()
        return ids + self.encode(text[at:].replace(GUARD, ""))

    def render(self, messages: Conversation, *, prompt: bool = False) -> str:
        """The conversation with its markup as text, for people to look at."""
        return self.template.render(messages, prompt=prompt)

    def own_pad(self) -> None:
        """Give it a PAD that ends nothing, if it has none: a token that waits unused, otherwise a new one. Whoever
        pads with the end marker teaches a model never to stop, because padding is what losses leave out."""
        if self.pad not in self.stops:
            return
        waiting = (token for token in (*PADS, self._tokens.get("unk_token", "")) if token)
        known = {token: self._backend.token_to_id(token) for token in waiting}
        found = next((t for t, number in known.items() if number is not None and number not in self.stops), chat.PAD)
        for backend in (self._backend, self._marked):
            backend.add_special_tokens([found])
        self._tokens["pad_token"] = found
        self.pad = self._id(found)
        self.vocab = max(self.vocab, self.pad + 1)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, and a `tokenizer_config.json` that names special tokens and holds the template."""
        asks = {"palate_today": datetime.date.today().isoformat()} if "strftime_now" in self.template.source else {}
        self.config = asks | self.config | self._tokens | {"chat_template": self.template.source}
        super().save(folder)


def load(folder: Path) -> Tokenizer:
    """The tokenizer saved in `folder`, ours or another model's. Raises BadInput when a file is missing or damaged, and
    Unsupported when its chat template does not say what a model should learn."""
    for name in FILES:
        if not (folder / name).is_file():
            raise BadInput("there is no such file.", folder / name, "Name a folder with a saved tokenizer.")
    try:
        backend = tokenizers.Tokenizer.from_file(str(folder / FILES[0]))
        config = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"{FILES[1]} is no object")
        if not _is_ours(backend, config):
            return _open(backend, config, folder)
        loaded = Tokenizer(backend, config)
        whole = loaded.decode(loaded.encode(PROBE)) == PROBE
    except PalateError:
        raise
    except BaseException as error:
        # `tokenizers` raises bare Exception for damage, and a panic of its Rust, which is none, for surprises.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BadInput(f"not a readable tokenizer ({str(error)[:80]}).", folder, MEND) from None
    if not whole:  # byte-level BPE leaves out what has no id, without a word
        raise BadInput("this tokenizer gives back other text than it was given.", folder, MEND)
    return loaded


def _is_ours(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> bool:
    named = all(backend.token_to_id(marker) is not None for marker in chat.SPECIAL)
    return named or config.get("chat_template") == chat.TEMPLATE


def _open(backend: tokenizers.Tokenizer, config: dict[str, Any], folder: Path) -> OpenTokenizer:
    """Another model's tokenizer: what its files say about special tokens, and where generation stops."""
    for number, told in sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])):
        if backend.token_to_id(told["content"]) is None:
            backend.add_tokens([tokenizers.AddedToken(**told)])
        if backend.token_to_id(told["content"]) != int(number):
            raise BadInput(f"{FILES[0]} and {FILES[1]} disagree about {told['content']!r}.", folder, MEND)
    model, generation = (_optional(folder / name) for name in ("config.json", "generation_config.json"))
    texts = _optional(folder / "special_tokens_map.json") | {k: v for k, v in config.items() if v is not None}
    tokens: dict[str, str] = {}
    for name in NAMED:
        value = texts.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if value is None and isinstance(number := model.get(f"{name}_id"), int):  # GPT-2's folder says it only there
            value = backend.id_to_token(number)
        if value is not None:
            tokens[name] = str(value)
    ends = generation.get("eos_token_id", [])
    stops = [int(end) for end in (ends if isinstance(ends, list) else [ends])]
    return OpenTokenizer(backend, config, tokens=tokens, template=_template(config, folder), stops=stops, folder=folder)


NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _template(config: Mapping[str, Any], folder: Path) -> str:
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    told = config.get("chat_template")
    if isinstance(told, list):  # several, by name
        told = {one["name"]: one["template"] for one in told}.get("default")
    return str(told) if told else templates.PLAIN


def _optional(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


MEND = "Make it or copy it again."
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
