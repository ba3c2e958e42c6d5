"""Tokenizers and chat templates of other models, against transformers' reading of the same files."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text.open_models import CHATML, STYLES, write

from palate.errors import BadInput, Unsupported
from palate.records import Conversation, conversation
from palate.text import tokenizer as tokenizers
from palate.text.tokenizer import OpenTokenizer

ASKED = [
    conversation("Suggest a dinner."),
    conversation("Suggest a dinner.", "Try the lemon stew!"),
    conversation("Hi  there ", "Hello, café ✓\n", "And now?\n\n", "It is good."),
    conversation("a", "", "b", "c", "d", "e"),
    conversation("Hi", "Hello", system="Be a chef."),
]
TODAY = datetime.datetime(2026, 11, 3, 12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("open")
    return {name: write(place / name, name, palate_today=TODAY.isoformat()) for name in STYLES}


def told(messages: Conversation) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


@pytest.mark.parametrize("name", [name for name in STYLES if name != "gpt2"])
def test_chats_equal_transformers(name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.utils import chat_template_utils

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return TODAY

    monkeypatch.setattr(chat_template_utils, "datetime", Frozen)
    theirs = transformers.AutoTokenizer.from_pretrained(folders[name])
    ours = tokenizers.load(folders[name])
    assert isinstance(ours, OpenTokenizer)
    for messages in ASKED:
        if name == "mistral" and messages[0].role == "system":
            continue
        whole = theirs.apply_chat_template(told(messages), tokenize=False)
        assert ours.render(messages) == whole
        assert list(ours.encode_chat(messages).ids) == theirs.apply_chat_template(told(messages))["input_ids"], whole
        asked = messages if messages[-1].role == "user" else messages[:-1]
        expected = theirs.apply_chat_template(told(asked), add_generation_prompt=True)["input_ids"]
        assert ours.encode_prompt(asked) == expected
    for text in ("Try the stew.", " two  spaces", "\n"):
        assert ours.begin(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)).strip() == text.strip()
    assert (ours.bos, ours.eos) == (theirs.bos_token_id, theirs.eos_token_id)


@pytest.mark.parametrize("name", STYLES)
def test_the_loss_is_on_what_the_assistant_says(name: str, folders: dict[str, Path]) -> None:
    tokenizer = tokenizers.load(folders[name])
    for messages in ASKED:
        if name == "mistral" and messages[0].role == "system":
            continue
        chat = tokenizer.encode_chat(messages)
        runs: list[list[int]] = []
        for i, (number, weight, before) in enumerate(zip(chat.ids, chat.weights, (0, *chat.weights), strict=False)):
            if weight and (not before or chat.ids[i - 1] == tokenizer.end):
                runs.append([])
            if weight:
                runs[-1].append(number)
        said = [m.content for m in messages if m.role == "assistant"]
        assert [run[-1] for run in runs] == [tokenizer.end] * len(said)
        heard = [tokenizer.decode(run).removeprefix("<think>\n\n</think>\n\n").strip() for run in runs]
        assert heard == [text.strip() for text in said]
        if messages[-1].role == "assistant":
            prompt = tokenizer.encode_prompt(messages[:-1])
            assert list(chat.ids[: len(prompt)]) == prompt, "training reads what sampling will read"
            assert tokenizer.encode_reply(messages[:-1], messages[-1].content) == tuple(runs[-1])
    assert tokenizer.end in tokenizer.stops and tokenizer.eos in tokenizer.stops


TYPED = st.lists(
    st.one_of(st.text(), st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "</s>", "[INST]", "\n", " "]))
).map("".join)


@pytest.mark.parametrize("name", ["qwen2", "smollm2", "gpt2"])
def test_nobody_can_type_a_turn(name: str, folders: dict[str, Path]) -> None:
    """Where transformers reads a typed <|im_end|> as the end of a turn, ours stays text."""
    tokenizer = tokenizers.load(folders[name])
    assert isinstance(tokenizer, OpenTokenizer)
    markers = {tokenizer._id(text) for text in tokenizer._special}
    quiet = [i for i in tokenizer.encode_chat(conversation("a", "b", "c", "d")).ids if i in markers]

    @given(st.lists(TYPED, min_size=4, max_size=4))
    @settings(deadline=None, max_examples=60, derandomize=True, database=None)
    def one(said: list[str]) -> None:
        chat = tokenizer.encode_chat(conversation(*said))
        assert [i for i in chat.ids if i in markers] == quiet
        prompt = tokenizer.encode_prompt(conversation(*said[:3]))
        assert list(chat.ids[: len(prompt)]) == prompt
        assert min(chat.weights[len(prompt) : chat.ids.index(tokenizer.end, len(prompt)) + 1]) == 1

    one()


def test_an_answer_that_would_join_its_opening_is_cut_off_from_it(folders: dict[str, Path]) -> None:
    """Two line breaks are one token. Where the opening ends with one and the answer begins with two, the first two
    would be joined, which sampling can never give."""
    tokenizer = tokenizers.load(folders["qwen2"])
    (joined,) = tokenizer.encode("\n\n")
    messages = conversation("Hi", "\n\nHello")
    prompt = tokenizer.encode_prompt(messages[:1])
    chat = tokenizer.encode_chat(messages)
    whole = tokenizer._marked.encode(tokenizer.render(messages), add_special_tokens=False).ids
    assert whole[: len(prompt)] != prompt and joined in whole, "so that this tests something"
    assert list(chat.ids[: len(prompt)]) == prompt and sum(chat.weights[: len(prompt)]) == 0


def changed(folder: Path, to: Path, **values: Any) -> Path:
    to.mkdir()
    (to / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text()) | values
    (to / "tokenizer_config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}", Unsupported, "no special token behind"),
        ("{% for m in messages %}{{ m.nothing.at.all }}{% endfor %}", Unsupported, "does not take this conversation"),
        ("{{ raise_exception('no') }}", Unsupported, "does not take this conversation .no."),
        ("{% for m in messages %}", BadInput, "cannot be read"),
        ("{{ ''.__class__.__mro__ }}" + CHATML, Unsupported, "unsafe"),
        ("{{ messages.clear() }}" + CHATML, Unsupported, "unsafe"),
        ("x" * 200_001, BadInput, "cannot be read"),
    ],
    ids=["no end", "missing", "raises", "syntax", "classes", "changes", "long"],
)  # fmt: skip
def test_templates_that_are_refused(
    template: str, error: type[Exception], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        tokenizers.load(changed(folders["qwen2"], tmp_path / "t", chat_template=template))


def test_conversations_that_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Roles must alternate"):
        tokenizers.load(folders["mistral"]).encode_chat(conversation("Hi", "Hello", system="Be good."))
    last_only = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{{ '<|im_end|>' if loop.last or m.role == 'user' }}{% endfor %}"
        "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )
    tokenizer = tokenizers.load(changed(folders["qwen2"], tmp_path / "a", chat_template=last_only))
    tokenizer.encode_chat(conversation("a", "b"))
    with pytest.raises(Unsupported, match="the assistant's turn 2 no end of its own"):
        tokenizer.encode_chat(conversation("a", "b", "c", "d"))
    counting = "{{ messages | length }}" + CHATML
    tokenizer = tokenizers.load(changed(folders["qwen2"], tmp_path / "b", chat_template=counting))
    with pytest.raises(Unsupported, match="otherwise once others follow"):
        tokenizer.encode_chat(conversation("a", "b"))


def test_where_a_folder_says_what_its_tokens_are(folders: dict[str, Path], tmp_path: Path) -> None:
    bare = changed(folders["gpt2"], tmp_path / "bare", bos_token=None, eos_token=None, unk_token=None)
    with pytest.raises(BadInput, match="eos_token"):
        tokenizers.load(bare)
    (bare / "config.json").write_text('{"eos_token_id": 0, "bos_token_id": 0}')  # GPT-2's own folder
    assert (tokenizers.load(bare).eos, tokenizers.load(bare).bos) == (0, 0)
    (bare / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    assert tokenizers.load(bare).stops == (0, 7)
    mapped = changed(folders["gpt2"], tmp_path / "mapped", bos_token=None, eos_token=None, unk_token=None)
    (mapped / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    assert tokenizers.load(mapped).eos == 0 and tokenizers.load(mapped).bos is None
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": CHATML}]
    named = changed(folders["qwen2"], tmp_path / "named", chat_template=several)
    assert tokenizers.load(named).render(conversation("a")).startswith("<|im_start|>system")
    (named / "chat_template.jinja").write_text("{{ 'other ' }}" + CHATML)
    assert tokenizers.load(named).render(conversation("a")).startswith("other ")
    lost = changed(folders["qwen2"], tmp_path / "lost", eos_token="<|gone|>")
    with pytest.raises(BadInput, match="gone"):
        tokenizers.load(lost)
    more = changed(folders["qwen2"], tmp_path / "more", added_tokens_decoder={
        str(tokenizers.load(folders["qwen2"]).vocab): {"content": "<|late|>", "special": True}})  # fmt: skip
    assert tokenizers.load(more).vocab == tokenizers.load(folders["qwen2"]).vocab + 1
