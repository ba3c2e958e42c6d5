from pathlib import Path

from palate.batches.shards import Shard
from palate.recipe import Recipe
from palate.records import conversation
from palate.text import tokenizer as tokenizers
from palate.workspace import Workspace

Made = tuple[Recipe, Workspace]
TEXTS = ["Try the lemon stew.", "  two  spaces\n\nand lines", "œufs, crème brûlée", "日本 🍜", "<|end|> is text", ""]


def test_transformers_reads_the_same_ids_and_renders_the_same_chat(small_run: Made) -> None:
    from transformers import AutoTokenizer

    folder = small_run[1].read("tokens")
    ours, theirs = tokenizers.load(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        if "<|" not in text:  # transformers reads a marker in text as the marker; ours never does
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ours.encode(text)) == text
    chat = conversation("Suggest a dinner.", "Try the stew.", "Another one?")
    messages = [{"role": m.role, "content": m.content} for m in chat]
    assert ours.render(chat, prompt=True) == theirs.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    rendered = theirs.apply_chat_template(messages, add_generation_prompt=True)
    assert ours.encode_prompt(chat) == (rendered if isinstance(rendered, list) else rendered["input_ids"])


def test_markers_are_separate_ids_and_typed_markers_are_text(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("tokens"))
    ids = [tokenizer.pad, tokenizer.bos, tokenizer.eos, tokenizer.end]
    assert len(set(ids)) == 4
    assert tokenizer.end not in tokenizer.encode("<|end|>")


def test_held_out_documents_are_not_trained_on(small_run: Made) -> None:
    folder = small_run[1].read("tokens")
    train, held_out = Shard(folder, "train"), Shard(folder, "val")

    def documents(shard: Shard) -> set[bytes]:
        return {shard.tokens[s : s + n].tobytes() for s, n in zip(shard.starts, shard.lengths, strict=True)}

    assert documents(held_out) and not documents(held_out) & documents(train)


def test_only_the_assistants_words_are_weighted(small_run: Made) -> None:
    tokenizer = tokenizers.load(small_run[1].read("tokens"))
    encoded = tokenizer.encode_chat(conversation("Suggest a dinner.", "Try it.", "More?", "No."))
    counted = tokenizer.decode([i for i, w in zip(encoded.ids, encoded.weights, strict=True) if w])
    assert counted == "Try it.No."


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    import pytest

    from palate.errors import BadInput

    for name in tokenizers.FILES:
        (tmp_path / name).write_text("{")
    with pytest.raises(BadInput, match="not a readable tokenizer"):
        tokenizers.load(tmp_path)
