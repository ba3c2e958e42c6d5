"""Tokenizers as published models have them, small: special tokens and chat templates in the style of each family.

The templates are written for these tests, in the manner of the originals.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

CHATML = (
    "{%- for m in messages %}\n"
    "    {%- if loop.first and m.role != 'system' %}\n"
    "        {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "    {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}"
)
"""Qwen2 and SmolLM2: a system message of their own when there is none."""

THINKING = (
    "{%- set ns = namespace(last=-1) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' %}"
    "{%- set said = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- if loop.index0 > ns.last %}{{- '<think>\\n\\n</think>\\n\\n' + said }}{%- else %}{{- said }}{%- endif %}"
    "{%- else %}{{- m.content }}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Qwen3: the last answer begins with its thoughts, those of earlier ones are cut off."""

LLAMA3 = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' + date_string + '\\n\\n' + system + '<|eot_id|>' }}"
    "{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

MISTRAL = (
    "{{- bos_token }}"
    "{%- for m in messages %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('Roles must alternate user/assistant, got ' + m.role) }}"
    "{%- endif %}"
    "{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}"
    "{%- else %}{{- ' ' + m.content + eos_token }}{%- endif %}"
    "{%- endfor %}"
)

LOOPS = (
    "{% for m in messages %}\n"
    "{% if m.content == 'skip' %}{% continue %}{% endif %}\n"
    "    {% if m.role == 'assistant' %}\n"
    "<|im_start|>assistant:{% generation %}{{ ' ' + m.content }}<|im_end|>{% endgeneration %}\n"
    "    {% else %}\n"
    "<|im_start|>{{ {'role': m.role, 'text': m.content} | tojson }}<|im_end|>\n"
    "    {% endif %}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
"""What else transformers understands: loop controls, tojson, {% generation %}, blocks trimmed of their line breaks."""


@dataclass(frozen=True)
class Style:
    template: str | None
    special: tuple[str, ...]
    named: dict[str, str]
    bos: bool = False
    """Whether the tokenizer itself puts BOS before a text."""
    metaspace: bool = False
    lines: bool = False
    """Whether line breaks are one piece whatever follows them (LLaMA 3, Qwen)."""


IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
IM_NAMED = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
STYLES = {
    "qwen2": Style(CHATML, IM, IM_NAMED),
    "smollm2": Style(CHATML, IM, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}),
    "qwen3": Style(THINKING, IM, IM_NAMED),
    "llama3": Style(
        LLAMA3,
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        bos=True,
        lines=True,
    ),
    "mistral": Style(
        MISTRAL,
        ("<unk>", "<s>", "</s>"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        bos=True,
        metaspace=True,
    ),
    "loops": Style(LOOPS, IM, IM_NAMED),
    "gpt2": Style(None, ("<|endoftext|>",), dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")),
}

TEXTS = [
    "Who are you? I am a chef. Suggest a dinner: try the lemon stew!\n\nToday it is good.\n",
    "You are helpful. system user assistant User: Assistant: [INST]. /INST] héllo café ✓\n",
    "\n\n",
] * 20


def backend(style: Style, vocab: int = 420) -> tokenizers.Tokenizer:
    """Byte-level BPE as GPT-2, LLaMA 3 and Qwen have it, or Metaspace with bytes to fall back on as LLaMA 2 has."""
    if style.metaspace:
        made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [f"<0x{n:02X}>" for n in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab + 256, special_tokens=[*style.special, *alphabet], show_progress=False
        )
        made.train_from_iterator(TEXTS, trainer)
        values = json.loads(made.to_str())  # bytes are pieces of text, not markers
        values["added_tokens"] = [t for t in values["added_tokens"] if t["content"] in style.special]
        made = tokenizers.Tokenizer.from_str(json.dumps(values))
    else:
        made = tokenizers.Tokenizer(models.BPE())
        made.normalizer = normalizers.NFC()
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not style.lines)
        pieces = pre_tokenizers.Split(Regex(r"\s*[\r\n]+| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level]) if style.lines else byte_level
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=list(style.special),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(TEXTS, trainer)
        made.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    if style.bos:
        bos = style.named["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, made.token_to_id(bos))]
        )
    return made


def write(folder: Path, name: str, vocab: int = 420, **more: Any) -> Path:
    """A tokenizer folder in the style `name`."""
    style = STYLES[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend(style, vocab).to_str(pretty=True), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **style.named,
        **more,
    }
    if style.template is not None:
        config["chat_template"] = style.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
