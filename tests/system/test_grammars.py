"""Programs and their grammars, on the bundled model in its worker process, where masks come late."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path

from jsonschema import Draft202012Validator

from benchmarks.schemas import schemas
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

from .whole import end_of, output

PROGRAM = """
import asyncio, cadenza, json

async def say(schema, temperature):
    grammar = await cadenza.Grammar.json_schema(schema).compile()
    async with cadenza.Context() as context:
        context.user("Say something.")
        answer = context.generate(600, sampler=cadenza.Sampler(temperature=temperature, seed=5), grammar=grammar)
        text = await answer.text()
        assert (answer.finish, grammar.ended) == ("stop-token", True), (answer.finish, text)
        return text

async def main(args):
    try:
        await cadenza.Grammar.regex("a(").compile()
    except cadenza.Invalid as error:
        print(error)
    texts = await asyncio.gather(*(say(schema, at % 2) for at, schema in enumerate(args.schemas)))
    cadenza.send(json.dumps(texts))

    yes = await cadenza.Grammar.choices(["yes, of course", "yes, but no"]).compile()
    forced = yes.forced()
    print(cadenza.model.detokenize(forced))
    fork = yes.fork()
    async with cadenza.Context() as context:
        context.user("Do you?")
        decoding = context.decode(50, grammar=fork)
        for _ in range(3):
            await decoding.token()
        decoding.stop()
        assert fork.tokens == len(decoding.tokens) == 3
        said = decoding.tokens
        decoding = context.decode(50, grammar=fork)
        while await decoding.token() is not None:
            pass
        assert (decoding.finish, fork.may_end, fork.ended) == ("stop-token", True, False)
        assert fork.tokens == len(said) + len(decoding.tokens)
        print(cadenza.model.detokenize(said + decoding.tokens) in ("yes, of course", "yes, but no"))
    yes.advance(said)
    yes.roll_back(3)
    print(yes.tokens, yes.forced() == forced)
    done = await cadenza.forward(cadenza.File.create(), [5], samples=[(0, cadenza.Sampler())], grammar=yes)
    print(done.tokens[0] == forced[0])
"""

DRAFTS = """
import cadenza
from speculation.cacheback import Cacheback
from speculation.pace import Pace

class Always(Pace):
    def size(self):
        return 8

async def main(args):
    pair = {"type": "object", "required": ["name", "age"], "additionalProperties": False,
            "properties": {"name": {"enum": ["Vera", "Otto"]}, "age": {"enum": [7, 33, 58]}}}
    pairs = cadenza.Grammar.json_schema({"type": "array", "items": pair, "minItems": 12, "maxItems": 12})
    await pairs.compile()
    speculation, said = Cacheback(pace=Always()), []
    for options in ({}, {"speculation": speculation}, {"speculation": speculation}):
        async with cadenza.Context() as context:
            context.user("Who is there?")
            grammar = pairs.fork()
            answer = context.generate(400, sampler=cadenza.Sampler(0.5, seed=3), grammar=grammar, **options)
            said.append((await answer.text(), answer.finish, grammar.tokens, grammar.ended))
    print(said[0] == said[1] == said[2], said[0][1], speculation.accepted > 20)
"""


def drafting() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", DRAFTS)
        for path in sorted((Path(__file__).parents[2] / "inferlets" / "speculation").glob("*.py")):
            archive.writestr(f"speculation/{path.name}", path.read_text())
    return written.getvalue()


def test_programs_say_what_their_grammars_allow(tmp_path: Path) -> None:
    asked = schemas(8, seed=3)

    async def main() -> None:
        kernel = await boot(ServeOptions(state=tmp_path, threads=1, disk_gib=0))
        try:
            await kernel.images.add("ada", PROGRAM.encode(), name="grammars")
            process = kernel.spawn("ada", "grammars", json.dumps({"schemas": asked}))
            assert (await end_of(process)).ending == "finished", output(process, "error")
            reason, *rest = output(process).splitlines()
            assert "unclosed group" in reason
            assert rest[0].startswith("yes")
            assert rest[1:] == ["True", "0 True", "True"]
            for schema, text in zip(asked, json.loads(output(process, "message")), strict=True):
                Draft202012Validator(schema).validate(json.loads(text))
            await kernel.images.add("ada", drafting(), name="drafts")
            process = kernel.spawn("ada", "drafts", "{}")
            assert (await end_of(process)).ending == "finished", output(process, "error")
            assert output(process).split() == ["True", "stop-token", "True"], "drafts change nothing but the time"
            kernel.recount()
            assert kernel.statistics()["grammars_compiled"] >= 8
        finally:
            await kernel.close()
    asyncio.run(main())
