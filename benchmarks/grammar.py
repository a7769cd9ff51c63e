"""What a grammar costs, whether what is said under one is valid, and what hostile ones do to a neighbour.

The bundled model in a process of its own, Python programs in Wasm. *Cost*: eight programs await every token of runs of
the same length, with a grammar that never ends and without one, in turns; then with masks that never come late, so that
a step under a grammar is not submitted before the one before it has come back. The fastest rounds of each are
compared, since neighbours on the machine only slow down; the medians are beside them. *Validity*: random schemas, each
compiled and sampled under at temperature 1, its text read by `json` and `jsonschema`. *Hostile*: grammars made to take
long are compiled, and sampled under if they could be, while a neighbour decodes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from benchmarks.harness import Figures, run
from benchmarks.schemas import HOSTILE, Schema, schemas
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

PROGRAMS = 8
MOST_TOKENS = 1500            # of a text under a schema
# Every item of it begins with much that is forced, and goes on with what the model likes.
ENDLESS: Schema = {"type": "array", "minItems": 2000, "items": {
    "type": "object", "additionalProperties": False, "required": ["name", "age", "tags", "kind"],
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0},
                   "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
                   "kind": {"enum": ["person", "city", "boat"]}}}}

DECODE = b"""
import cadenza
async def main(args):
    grammar = await cadenza.Grammar.json_schema(args.schema).compile() if args.schema else None
    context = cadenza.Context()
    context.user("Where does Vera live?")
    sampler = cadenza.Sampler(temperature=args.temperature, seed=args.seed)
    await context.prefill()
    cadenza.send("ready")
    await cadenza.receive()
    decoding = context.decode(args.tokens, stop_tokens=[], sampler=sampler, grammar=grammar)
    said = 0
    while await decoding.token() is not None:
        said += 1
    assert said == args.tokens, (said, decoding.finish)
"""

SAY = b"""
import json, cadenza
async def main(args):
    for number, schema in json.loads(await cadenza.receive()):
        try:
            grammar = await cadenza.Grammar.json_schema(schema).compile()
        except cadenza.Error as error:
            cadenza.send(json.dumps([number, "refused", str(error)]))
            continue
        async with cadenza.Context() as context:
            context.user("Say something.")
            sampler = cadenza.Sampler(temperature=1.0, seed=number)
            answer = context.generate(args.tokens, sampler=sampler, grammar=grammar)
            text = await answer.text()
            cadenza.send(json.dumps([number, answer.finish, text, len(answer.tokens)]))
        grammar.close()
"""

NEIGHBOUR = b"""
import cadenza
async def main(args):
    context, gaps = cadenza.Context(), []
    context.user("Where does Vera live?")
    decoding = context.decode(1900, stop_tokens=[])
    last = cadenza.events.now()
    await decoding.token()
    while await decoding.token() is not None:
        now = cadenza.events.now()
        gaps.append(now - last)
        last = now
        if len(gaps) % 50 == 0:
            cadenza.send(str(max(gaps[-50:])))
"""

HOSTILE_PROGRAM = b"""
import json, cadenza
async def main(args):
    for kind, text in json.loads(await cadenza.receive()):
        began = cadenza.events.now()
        outcome, said, wrong = "compiled", 0, ""
        try:
            grammar = getattr(cadenza.Grammar, kind.replace("-", "_"))(text)
            await grammar.compile()
        except cadenza.Error as error:
            outcome, wrong = "refused", str(error)
        took = cadenza.events.now() - began
        if outcome == "compiled":
            async with cadenza.Context() as context:
                context.user("Say something.")
                decoding = context.decode(100, sampler=cadenza.Sampler(temperature=1.0), grammar=grammar)
                try:
                    while await decoding.token() is not None:
                        said += 1
                except cadenza.Error as error:
                    outcome, wrong = "ended", str(error)
        cadenza.send(json.dumps([outcome, took, said, wrong]))
"""


def messages(process: Process) -> list[str]:
    return [event.text for event in process.output.read(0)[0] if event.kind == "message"]


async def told(process: Process, count: int) -> list[str]:
    """Its first messages, at least so many."""
    while len(said := messages(process)) < count:
        assert process.exit is None, (process.exit, process.output.read(0)[0][-3:])
        await process.output.changed(process.output.read(0)[0][-1].sequence if process.output.read(0)[0] else 0)
    return said


class Spent(NamedTuple):
    """`kernel_us`: of CPU, by the kernel and the programs in it, for a token."""

    seconds: float
    kernel_us: float


async def spent(kernel: Kernel, schema: Schema | None, tokens: int, temperature: float) -> Spent:
    """By all programs, to say so many tokens each."""
    processes = [kernel.spawn("bench", "decode", json.dumps({
        "schema": schema, "tokens": tokens, "temperature": temperature, "seed": seed})) for seed in range(PROGRAMS)]
    for process in processes:
        await told(process, 1)
    began, used = time.perf_counter(), time.process_time()
    for process in processes:
        process.deliver("go")
    for process in processes:
        end = await process.ended()
        assert end.ending == "finished", (end, process.output.read(0)[0][-3:])
    return Spent(time.perf_counter() - began, (time.process_time() - used) / PROGRAMS / tokens * 1e6)


async def cost(kernel: Kernel, quick: bool) -> Figures:
    link: Any = kernel.engine.link
    facts = link.facts
    tokens, rounds = (60, 8) if quick else (200, 12)
    figures: Figures = {}
    for temperature in (0.0, 1.0):
        plain, masked, waiting = [], [], []
        for _ in range(rounds):
            plain.append(await spent(kernel, None, tokens, temperature))
            masked.append(await spent(kernel, ENDLESS, tokens, temperature))
            link.facts = replace(facts, late_masks=False)
            waiting.append(await spent(kernel, ENDLESS, tokens, temperature))
            link.facts = facts
            print(f"temperature {temperature:.0f}: plain {plain[-1].seconds:.2f} s, grammar {masked[-1].seconds:.2f}, "
                  f"waiting {waiting[-1].seconds:.2f}", flush=True)
        for name, found in (("overhead", masked), ("waiting_overhead", waiting)):
            figures[f"{name}_percent_{temperature:.0f}"] = 100 * (min(found).seconds / min(plain).seconds - 1)
            median = statistics.median(each.seconds for each in found)
            figures[f"median_{name}_percent_{temperature:.0f}"] = 100 * (
                median / statistics.median(each.seconds for each in plain) - 1)
        figures[f"plain_tokens_per_s_{temperature:.0f}"] = PROGRAMS * tokens / min(plain).seconds
        for name, found in (("plain", plain), ("grammar", masked)):
            figures[f"{name}_kernel_us_{temperature:.0f}"] = min(each.kernel_us for each in found)
    return figures


async def validity(kernel: Kernel, count: int) -> Figures:
    asked = list(enumerate(schemas(count, seed=6)))
    processes = [kernel.spawn("bench", "say", json.dumps({"tokens": MOST_TOKENS})) for _ in range(PROGRAMS)]
    for number, process in enumerate(processes):
        process.deliver(json.dumps(asked[number::PROGRAMS]))
    valid = unfinished = tokens = 0
    for process in processes:
        end = await process.ended()
        assert end.ending == "finished", (end, process.output.read(0)[0][-3:])
        for number, finish, text, *said in map(json.loads, messages(process)):
            tokens += sum(said)
            if finish == "length":                   # of a number, say, whose digits the model likes
                unfinished += 1
                continue
            fault = finish if finish != "stop-token" else _fault(asked[number][1], text)
            valid += not fault
            if fault:
                print(f"schema {number}: {fault}: {json.dumps(asked[number][1])[:300]}: {text[:300]!r}", flush=True)
    print(f"{valid} of {count} valid, {unfinished} not at their end after {MOST_TOKENS}; {tokens} tokens", flush=True)
    return {"schemas": count, "valid": valid, "unfinished": unfinished}


def _fault(schema: Schema, text: str) -> str:
    try:
        said = json.loads(text)
    except ValueError as fault:
        return str(fault)
    faults = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(said)
    return "; ".join(fault.message for fault in faults)


async def hostile(kernel: Kernel) -> Figures:
    async def worst_gap_ms(neighbour: Process) -> float:
        end = await neighbour.ended()
        assert end.ending == "finished", end
        return max(map(float, messages(neighbour))) * 1e3

    alone = await worst_gap_ms(kernel.spawn("bench", "neighbour", "{}"))
    neighbours, slowest, refused, compiled = [], 0.0, 0, 0
    attacker = kernel.spawn("hostile", "attack", "{}")
    attacker.deliver(json.dumps(list(HOSTILE.values())))
    while attacker.exit is None:
        neighbours.append(await worst_gap_ms(kernel.spawn("bench", "neighbour", "{}")))
    assert attacker.exit.ending == "finished", (attacker.exit, attacker.output.read(0)[0][-3:])
    for name, (outcome, took, said, wrong) in zip(HOSTILE, map(json.loads, messages(attacker)), strict=True):
        print(f"{name}: {outcome} after {took:.2f} s, {said} tokens. {wrong[:120]}", flush=True)
        slowest, refused, compiled = max(slowest, took), refused + (outcome == "refused"), compiled + (said > 0)
    return {"hostile": len(HOSTILE), "hostile_refused": refused, "hostile_slowest_s": slowest,
            "neighbour_worst_gap_ms": max(neighbours), "neighbour_worst_gap_alone_ms": alone}


async def measure(quick: bool) -> Figures:
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await boot(ServeOptions(state=Path(state), disk_gib=0))
        try:
            for user, name, source in (("bench", "decode", DECODE), ("bench", "say", SAY),
                                       ("bench", "neighbour", NEIGHBOUR), ("hostile", "attack", HOSTILE_PROGRAM)):
                await kernel.images.add(user, source, name=name)
            return await cost(kernel, quick) | await validity(kernel, 100 if quick else 1000) | await hostile(kernel)
        finally:
            await kernel.close()


if __name__ == "__main__":
    run(__doc__, measure)
