"""The chat markup: the only place that knows how a conversation becomes tokens.

    <|bos|><|user|>Suggest a dinner.<|end|><|assistant|>Try the lemon stew.<|end|>

PAD, BOS, EOS and the turn markers are separate ids. A turn ends with <|end|>, a document with <|eos|>; PAD is its own
id, because a model whose PAD is its EOS never learns to stop (peers: PPO checklist row 1).
"""

from __future__ import annotations

PAD, BOS, EOS, END = "<|pad|>", "<|bos|>", "<|eos|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = (PAD, BOS, EOS, END, *ROLES.values())
"""Every marker, in the order of their ids 0, 1, 2, ..."""

TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""The same markup as a Jinja template, which travels with the tokenizer so that other tools render it alike."""
