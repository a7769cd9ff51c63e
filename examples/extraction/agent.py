"""A record out of a text. Each field is asked for, and answered in a sentence whose form a grammar fixes, so that its
value can be cut out; what comes of it is checked by the schema, as a grammar too."""

import asyncio
import json
import re

import cadenza

TEXT = "Tom works as a pilot. Tom lives in Oslo. Vera lives in Rome."
FIELDS = {"city": ("Where does {} live?", "{} lives in ([A-Z][a-z]+)\\."),
          "job": ("What does {} do?", "{} works as an? ([a-z]+)\\.")}
SCHEMA = {"type": "object", "required": ["name", "city", "job"], "additionalProperties": False,
          "properties": {name: {"type": "string", "maxLength": 20} for name in ("name", "city", "job")}}


async def main(args: cadenza.Arguments) -> str:
    text, name = args.get("text", TEXT), args.get("name", "Tom")
    values = await asyncio.gather(*(answer(text, name, *field) for field in FIELDS.values()))
    record = json.dumps({"name": name, **dict(zip(FIELDS, values, strict=True))})
    schema = await cadenza.Grammar.json_schema(SCHEMA).compile()
    schema.advance(cadenza.model.tokenize(record))
    if not schema.may_end:
        raise ValueError(f"{record} is not of the schema")
    return record


async def answer(text: str, name: str, question: str, form: str) -> str:
    sentence = form.format(re.escape(name))
    async with cadenza.Context() as context:
        context.user(f"{text} {question.format(name)}")
        grammar = await cadenza.Grammar.regex(sentence).compile()
        said = await context.generate(30, grammar=grammar).text()
    found = re.fullmatch(sentence, said)
    if found is None:
        raise ValueError(f"no answer to {question!r}: {said}")
    return found[1]
