"""Chat templates: what they are given, what they cannot reach, how their faults are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cadenza.kernel.limits import TEXT_BYTES
from cadenza.kernel.model.chat import ChatTemplate, parse_messages
from cadenza.kvfs.errors import Invalid

HELLO = [{"role": "user", "content": "<Hello & 'good' day>"}]
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def render(source: str, messages: list[dict[str, Any]] = HELLO, **tokens: str) -> str:
    return ChatTemplate(source, tokens).render(messages, generate=True)


def test_a_template_as_models_have_it() -> None:
    template = ChatTemplate(CHATML)
    body = "<|im_start|>user\n<Hello & 'good' day><|im_end|>\n"
    assert template.render(HELLO, generate=False) == body
    assert template.render(HELLO, generate=True) == body + "<|im_start|>assistant\n"


def test_the_extras_that_templates_expect() -> None:
    assert render("{{ bos_token }}{{ messages[0].role }}", bos_token="<s>") == "<s>user"
    assert render("{{ {'ü': '<b>'} | tojson }}") == '{"ü": "<b>"}'
    assert render("{{ [1] | tojson(indent=1) }}") == "[\n 1\n]"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("a{% generation %}{{ messages[0].role }}{% endgeneration %}b") == "auserb"
    counting = "{% set n = namespace(x=1) %}{% for i in range(3) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}"
    assert render(counting) == "4"
    assert render("{% if tools is none %}no{% endif %}") == "no"
    assert ChatTemplate("{{ tools[0].name }}").render(HELLO, False, [{"name": "t"}]) == "t"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ messages[0]['role'].format.__self__.__class__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ (messages | attr('append')).__self__.__class__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ cycler.__init__ }}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{% include 'config.json' %}",
    ],
)
def test_the_sandbox_gives_nothing_away(source: str) -> None:
    """Either it is refused, or it is nothing; the messages are never changed."""
    messages = [dict(HELLO[0])]
    try:
        text = ChatTemplate(source).render(messages, generate=False)
    except Invalid:
        text = ""
    assert "class" not in text
    assert "0x" not in text
    assert messages == HELLO


def test_what_a_template_refuses_is_invalid_with_its_words() -> None:
    with pytest.raises(Invalid, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    ["{{ 1 / 0 }}", "{{ messages[5].content + 'x' }}", "{{ 'a' + 1 }}", "{{ range(10 ** 9) | list }}",
     "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
)
def test_faults_of_rendering_are_invalid(source: str) -> None:
    with pytest.raises(Invalid, match="chat template"):
        render(source)


def test_an_unknown_filter_is_told_before_any_message() -> None:
    with pytest.raises(Invalid, match="nope"):
        ChatTemplate("{{ 1 | nope }}")


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(Invalid, match="line 2"):
        ChatTemplate("fine\n{% if %}")


def test_the_text_is_bounded() -> None:
    source = "{% for i in range(9) %}{{ messages[0].content }}{% endfor %}"
    fits = [{"role": "user", "content": "x" * (TEXT_BYTES // 9)}]
    assert len(render(source, fits)) == TEXT_BYTES // 9 * 9
    with pytest.raises(Invalid, match=f"{TEXT_BYTES} bytes"):
        render(source, [{"role": "user", "content": "x" * (TEXT_BYTES // 9 + 1)}])


def rendered_from(directory: Path) -> str:
    template = ChatTemplate.from_directory(directory)
    assert template is not None
    return template.render(HELLO, generate=False)


def test_where_a_template_comes_from(tmp_path: Path) -> None:
    assert ChatTemplate.from_directory(tmp_path) is None
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "one {{ eos_token }}", "eos_token": {"content": "<e>"}}))
    assert rendered_from(tmp_path) == "one <e>"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "two {{ bos_token }}"}]
    settings.write_text(json.dumps({"chat_template": named}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>"}))
    assert rendered_from(tmp_path) == "two <s>"
    (tmp_path / "chat_template.jinja").write_text("three")
    assert rendered_from(tmp_path) == "three"


@pytest.mark.parametrize(
    ("text", "named"),
    [("{", "not JSON"), ("{}", "array"), ('[{"role": "user"}, 3]', "message 1"), ('[{"content": "x"}]', "message 0"),
     ('[{"role": 1}]', "message 0"), ("[" * 100_000, "not JSON")],
)
def test_messages_that_are_none(text: str, named: str) -> None:
    with pytest.raises(Invalid, match=named):
        parse_messages(text)


def test_messages() -> None:
    assert parse_messages(json.dumps(HELLO)) == HELLO
