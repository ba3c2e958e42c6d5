"""Chat templates of other models: Jinja, rendered with what transformers gives them, in Jinja's immutable sandbox.

A template is a program by a stranger. The sandbox lets it read the messages and the special tokens' text, and write
text; it reaches no file, no attribute that begins with an underscore, and changes nothing that it was given.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from palate.errors import BadInput
from palate.records import Conversation

PLAIN = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For a model that comes without a template: the words its pretraining knows, and its own end of text after each
answer. No token is added, so nothing has to be learned from nothing, and adapters need to train no embedding."""

LONGEST = 200_000
"""Characters of a template; the longest in use have 20,000."""


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}` marks what the assistant says in some templates: its body is written
    like any other."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, **how: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **how})  # Jinja's own writes < and > for HTML


class Template:
    """A chat template. `tokens` are the special tokens by name (bos_token, eos_token, ...), `folder` stands in errors.

    `today` is what the template is told when it asks for the date. A template that asks would otherwise give other ids
    after midnight, and a run that goes on the next day would not be the one that was begun.
    """

    def __init__(
        self, source: str, tokens: Mapping[str, str], folder: Path, today: datetime.datetime | None = None
    ) -> None:
        self.source, self._tokens, self._folder = source, dict(tokens), folder
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda how: (today or datetime.datetime.now()).strftime(how)
        try:
            if len(source) > LONGEST:
                raise ValueError(f"{len(source)} characters")
            self._compiled = environment.from_string(source)
        except (jinja2.TemplateError, ValueError, RecursionError) as error:
            raise BadInput(f"the chat template cannot be read ({error}).", folder, "Copy the folder again.") from None

    def render(self, messages: Conversation, *, prompt: bool = False) -> str:
        """The conversation as text; with `prompt` it ends where the assistant begins to speak.

        Raises BadInput when the template refuses the conversation, which many do with system messages or turns that
        do not alternate.
        """
        told = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self._compiled.render(
                messages=told, tools=None, documents=None, add_generation_prompt=prompt, **self._tokens
            )
        except Exception as error:  # whatever a stranger's program stumbles over
            raise BadInput(
                f"the chat template does not take this conversation ({error}).",
                self._folder,
                f"Its roles are {', '.join(m.role for m in messages)}; leave it out or change them.",
            ) from None
