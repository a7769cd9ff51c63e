"""What a grammar costs, whether what is said under one is valid, and what hostile ones do to a neighbour.

The bundled model in a process of its own, Python programs in Wasm. *Cost*: eight programs await every token, and eight
others do so under a grammar that never ends, in short turns of the same number of tokens; who goes first changes from
turn to turn, and the median over pairs of turns counts. *Validity*: random schemas, each compiled and sampled under at
temperature 1, its text read by `json` and `jsonschema`; what was said often is penalised, since this model knows of no
schema, and would go on with the digits of a number for ever. *Hostile*: grammars made to take long are compiled, and
sampled under if they could be, while a neighbour decodes.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

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
    for turn in range(args.turns + 1):
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
            sampler = cadenza.Sampler(temperature=1.0, seed=number, penalties=cadenza.Penalties(frequency=0.3))
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
    decoding = context.decode(args.tokens, stop_tokens=[])
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
    """`device_ms`: of the worker, for a step; `kernel_us`: of CPU, by the kernel and its programs, for a token."""

    seconds: float
    device_ms: float
    kernel_us: float


class Eight:
    """Programs that say so many tokens each a turn, all under `schema`, or free."""

    def __init__(self, kernel: Kernel, schema: Schema | None, tokens: int, turns: int, temperature: float) -> None:
        self._engine, self._tokens, self._turn = kernel.engine, tokens, 0
        self._processes = [kernel.spawn("bench", "decode", json.dumps({
            "schema": schema, "tokens": tokens, "turns": turns, "temperature": temperature, "seed": seed}))
            for seed in range(PROGRAMS)]

    async def ready(self) -> None:
        for process in self._processes:
            await told(process, self._turn + 1)

    async def turn(self, *, last: bool = False) -> Spent:
        began, used, engine = time.perf_counter(), time.process_time(), self._engine
        steps, device = engine.steps_done, engine.device_seconds
        for process in self._processes:
            process.deliver("go")
        self._turn += 1
        if last:
            for process in self._processes:
                end = await process.ended()
                assert end.ending == "finished", (end, process.output.read(0)[0][-3:])
        else:
            await self.ready()
        return Spent(time.perf_counter() - began,
                     (engine.device_seconds - device) / (engine.steps_done - steps) * 1e3,
                     (time.process_time() - used) / PROGRAMS / self._tokens * 1e6)


async def cost(kernel: Kernel, quick: bool) -> Figures:
    tokens, turns = (16, 24) if quick else (16, 80)
    figures: Figures = {}
    for temperature in (0.0, 1.0):
        free, bound = (Eight(kernel, schema, tokens, turns, temperature) for schema in (None, ENDLESS))
        pairs: list[tuple[Spent, Spent]] = []
        for eight in (free, bound):
            await eight.ready()
            await eight.turn()
        for number in range(turns):
            both: dict[Eight, Spent] = {}
            for eight in (free, bound) if number % 2 else (bound, free):
                both[eight] = await eight.turn(last=number == turns - 1)
            pairs.append((both[free], both[bound]))
        quarters = statistics.quantiles((100 * (under.seconds / alone.seconds - 1) for alone, under in pairs), n=4)
        plain, grammar = (Spent(*map(statistics.median, zip(*each, strict=True))) for each in zip(*pairs, strict=True))
        print(f"temperature {temperature:.0f}: a quarter of the pairs below {quarters[0]:.1f} %, a quarter above "
              f"{quarters[2]:.1f}; {plain}, {grammar}", flush=True)
        figures |= {f"{name}_{temperature:.0f}": value for name, value in (
            ("overhead_percent", quarters[1]), ("plain_tokens_per_s", PROGRAMS * tokens / plain.seconds),
            ("device_overhead_percent", 100 * (grammar.device_ms / plain.device_ms - 1)),
            ("plain_kernel_us", plain.kernel_us), ("grammar_kernel_us", grammar.kernel_us))}
    return figures


async def validity(kernel: Kernel, count: int, first: int = 0) -> Figures:
    """Of the schemas from `first` to `count`."""
    asked = list(enumerate(schemas(count, seed=6)))[first:]
    processes = [kernel.spawn("bench", "say", json.dumps({"tokens": MOST_TOKENS})) for _ in range(PROGRAMS)]
    for number, process in enumerate(processes):
        process.deliver(json.dumps(asked[number::PROGRAMS]))
    valid = unfinished = tokens = longest = 0
    for process in processes:
        end = await process.ended()
        assert end.ending == "finished", (end, process.output.read(0)[0][-3:])
        for number, finish, text, *said in map(json.loads, messages(process)):
            tokens, longest = tokens + sum(said), max(longest, *said, 0)
            if finish == "length":
                unfinished += 1
                continue
            schema = asked[number - first][1]
            fault = finish if finish != "stop-token" else _fault(schema, text)
            valid += not fault
            if fault:
                print(f"schema {number}: {fault}: {json.dumps(schema)[:300]}: {text[:300]!r}", flush=True)
    print(f"{valid} of {len(asked)} valid, {unfinished} not at their end after {MOST_TOKENS} tokens; {tokens} in all, "
          f"of one at most {longest}", flush=True)
    return {"schemas": len(asked), "valid": valid, "unfinished": unfinished}


def _fault(schema: Schema, text: str) -> str:
    try:
        said = json.loads(text)
    except ValueError as fault:
        return str(fault)
    faults = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(said)
    return "; ".join(fault.message for fault in faults)


async def hostile(kernel: Kernel, tokens: int) -> Figures:
    async def worst_gap_ms() -> float:
        neighbour = kernel.spawn("bench", "neighbour", json.dumps({"tokens": tokens}))
        end = await neighbour.ended()
        assert end.ending == "finished", end
        return max(map(float, messages(neighbour))) * 1e3

    alone = await worst_gap_ms()
    neighbours, slowest, refused, compiled = [], 0.0, 0, 0
    attacker = kernel.spawn("hostile", "attack", "{}")
    attacker.deliver(json.dumps(list(HOSTILE.values())))
    while attacker.exit is None:
        neighbours.append(await worst_gap_ms())
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
            schemas_count, neighbour_tokens = (100, 600) if quick else (1000, 1900)
            return (await cost(kernel, quick) | await validity(kernel, schemas_count)
                    | await hostile(kernel, neighbour_tokens))
        finally:
            await kernel.close()


if __name__ == "__main__":
    run(__doc__, measure)
