"""A model's chat template, rendered in a sandbox: the template comes from the model's files, so it is not trusted.

It sees what templates of Hugging Face models expect (`messages`, `add_generation_prompt`, `bos_token`, `tools`, …;
the extras `raise_exception`, `strftime_now`, `tojson`, `{% break %}`, `{% generation %}`) and reaches nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cadenza.kernel.limits import TEXT_BYTES
from cadenza.kernel.model.settings import read_json_or_empty
from cadenza.kvfs.errors import Invalid, Unsupported

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
UNSAFE_GLOBALS = ("lipsum", "cycler", "joiner")


class GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}` marks an answer for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class SafeNamespace(jinja2.utils.Namespace):
    """A namespace whose attributes never begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **layout: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **layout)


def _environment() -> ImmutableSandboxedEnvironment:
    extensions = [GenerationBlock, jinja2.ext.loopcontrols]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    for name in UNSAFE_GLOBALS:
        del environment.globals[name]
    environment.globals |= {
        "raise_exception": _raise_exception, "strftime_now": _strftime_now, "namespace": SafeNamespace,
    }
    environment.filters["tojson"] = _tojson
    return environment


class ChatTemplate:
    """Turns messages into the text that the model was trained on."""

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None, name: str = "chat template") -> None:
        """`tokens`: texts of special tokens by NAMED_TOKENS. Raises Invalid for a syntax error, with its line."""
        self._name = name
        self._tokens = dict(tokens or {})
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as fault:
            raise Invalid(f"{name}, line {fault.lineno}: {fault.message}", field="chat_template") from None

    @classmethod
    def from_directory(cls, directory: Path) -> ChatTemplate | None:
        """From `chat_template.jinja` or `tokenizer_config.json`; None when the model has none."""
        settings = read_json_or_empty(directory / "tokenizer_config.json")
        special = read_json_or_empty(directory / "special_tokens_map.json")
        file = directory / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.exists() else _default(settings.get("chat_template"))
        if source is None:
            return None
        return cls(source, _named_tokens(special | settings), f"{directory}: chat template")

    def render(
        self, messages: Sequence[Mapping[str, Any]], generate: bool, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> str:
        """`messages`: objects with "role", "content", …; `generate`: whether the answer's opening follows.

        Raises Invalid when the messages do not suit the template, or the text passes TEXT_BYTES.
        """
        given = self._tokens | {
            "messages": messages, "add_generation_prompt": generate, "tools": tools, "documents": None,
        }
        try:
            return self._bounded(given)
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as fault:
            raise Invalid(f"{self._name}: {fault}; see that each message has the role and content it wants",
                          field="messages") from None
        except (RecursionError, MemoryError):
            raise Invalid(f"{self._name}: the messages are nested too deeply or too long", field="messages") from None

    def _bounded(self, given: Mapping[str, Any]) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(given):
            size += len(piece.encode())
            if size > TEXT_BYTES:
                raise Invalid(f"{self._name}: the text passes {TEXT_BYTES} bytes; send less", field="messages")
            pieces.append(piece)
        return "".join(pieces)


def parse_messages(text: str) -> list[dict[str, Any]]:
    """`text`: a JSON array of objects with a "role". Raises Invalid, naming the message that is not."""
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Invalid(f"messages is not JSON: {fault}", field="messages") from None
    if not isinstance(messages, list):
        raise Invalid("messages must be a JSON array", field="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(f'message {number} must be an object with a "role" string', field="messages")
    return messages


def no_template(directory: Path) -> Unsupported:
    """What to raise for a model without a template."""
    return Unsupported(f"the model in {directory} has no chat template; write its prompt as text and tokenize it")


def _default(templates: Any) -> str | None:
    """One template, or the one called "default" of a list of named ones."""
    if isinstance(templates, list):
        named = {entry.get("name"): entry.get("template") for entry in templates if isinstance(entry, dict)}
        templates = named.get("default")
    return templates if isinstance(templates, str) else None


def _named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """A token is written as its text, or as an object with `content`."""
    found = {}
    for name in NAMED_TOKENS:
        value = settings.get(name)
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str):
            found[name] = text
    return found
