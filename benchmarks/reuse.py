"""Time to the first token: a full prefill of n + m tokens over m tokens that read n cached ones, through programs.

A 75M-parameter shape with random weights, float32, in its worker process, one thread, as a daemon on two cores has it.
The cached tokens are one file,
or eight pieces of it, as modules are; nothing of them is copied. The full run adds 8,192 tokens and goes through
n ∈ 256 … 8192 and m ∈ 16, 70, 256, prints a table and draws reuse.svg. `operations` is the ratio of multiplications of
the two: what the ratio of times would be if both went equally fast, the full prefill computing nothing that is hidden.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from typing import Any, NamedTuple

from benchmarks.harness import Figures, kernel_over, run
from benchmarks.picture import Line, draw
from cadenza.kernel.device.kinds import TorchConfig
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process

SHAPE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 2048,
    "vocab_size": 8192, "max_position_embeddings": 16_384, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}
PAGES, PAGE_TOKENS, THREADS = 1600, 16, 1
MODULES = 8
PROGRAMS = 8
TARGETS = ((1024, 70), (5000, 70), (8192, 70))
CACHED, NEW = (256, 512, 1024, 2048, 4096, 8192), (16, 70, 256)
PROGRAM = '''
import cadenza
from cadenza.events import now

async def first_token(file, tokens, reads=()):
    started = now()
    await cadenza.forward(file, tokens, reads=reads, samples=[(len(tokens) - 1, cadenza.Sampler())])
    return now() - started

def script(seed, count):
    return [(seed * 7919 + i * 31) % 8000 for i in range(count)]

async def main(args):
    if args.what == "full":
        with cadenza.File.open(args.path, "read", "append", "create") as file:
            print(await first_token(file, script(args.seed, args.tokens)))
        return
    source = cadenza.File.open(args.path)
    each = args.cached // args.modules
    modules = [source.extract([(i * each, each)]) for i in range(args.modules)]
    for i, module in enumerate(modules):
        module.relocate(args.relocate * i)
    for repeat in range(args.repeats):
        with cadenza.File.create() as file:
            print(await first_token(file, script(repeat, args.tokens), modules))
            if args.hold:
                print("held", flush=True)
                await cadenza.receive()
'''


def operations(cached: int, new: int) -> float:
    """Multiplications of a full prefill over those of the reuse, in linear maps and in causal attention."""
    hidden, kv = SHAPE["hidden_size"], SHAPE["num_key_value_heads"] * SHAPE["head_dim"]
    linear = hidden * (2 * hidden + 2 * kv + 3 * SHAPE["intermediate_size"])       # a token, a layer
    attention = 2 * hidden                                                         # a token that reads another
    total = cached + new
    full = total * linear + total * total / 2 * attention
    return float(full / (new * linear + new * (cached + new / 2) * attention))


class Reuse(NamedTuple):
    """Medians of seconds to the first token."""

    cached: int
    new: int
    full: float
    one: float
    eight: float
    relocated: float


class Bench:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.copied_bytes = 0

    async def start(self, **arguments: Any) -> Process:
        return self.kernel.spawn("bench", "reuse", json.dumps({"hold": False, "relocate": 0, **arguments}))

    async def seconds(self, **arguments: Any) -> list[float]:
        """What a program measured."""
        process = await self.start(**arguments)
        status = await process.ended()
        said = "".join(event.text for event in process.output.read(0)[0])
        if status.ending != "finished":
            raise RuntimeError(f"{status}: {said}")
        return [float(line) for line in said.split()]

    async def measure(self, cached: int, new: int, *, repeats: int) -> Reuse:
        path = f"cached/{cached}-{new}"
        (full,) = await self.seconds(what="full", path=path, tokens=cached + new, seed=cached + new)
        before = self.kernel.engine.pages_copied
        one, eight, relocated = [
            statistics.median(await self.seconds(what="reuse", path=path, cached=cached, tokens=new, modules=modules,
                                                 relocate=shift, repeats=repeats))
            for modules, shift in ((1, 0), (MODULES, 0), (MODULES, 3))
        ]
        self.copied_bytes += (self.kernel.engine.pages_copied - before) * self.kernel.engine.link.facts.page_bytes
        self.kernel.files.unlink("bench", path)
        found = Reuse(cached, new, full, one, eight, relocated)
        print(f"{cached:6} cached {new:4} new: full {full:7.3f} s, one file {one:.4f} s ({full / one:5.1f}x), eight "
              f"modules {eight:.4f} s ({full / eight:5.1f}x), relocated {relocated:.4f} s ({full / relocated:5.1f}x)",
              flush=True)
        return found

    async def share(self, cached: int, new: int) -> int:
        """How many pages eight programs hold together while each reads the same cached tokens, beyond one's own."""
        await self.seconds(what="full", path="shared", tokens=cached, seed=5)
        held = self.kernel.files.pool.used
        programs = [await self.start(what="reuse", path="shared", cached=cached, tokens=new, modules=1, repeats=1,
                                     hold=True) for _ in range(PROGRAMS)]
        while not all("held" in "".join(e.text for e in p.output.read(0)[0]) for p in programs):
            await asyncio.sleep(0.02)
        more = self.kernel.files.pool.used - held
        for program in programs:
            program.kill()
        return more


async def measure(quick: bool) -> Figures:
    link = await WorkerLink.start(TorchConfig(pages=PAGES, page_tokens=PAGE_TOKENS, shape=SHAPE, threads=THREADS))
    async with kernel_over(link) as kernel:
        bench = Bench(kernel)
        await kernel.images.add("bench", PROGRAM.encode(), name="reuse")
        await bench.seconds(what="full", path="warm", tokens=300, seed=1)
        points = TARGETS[:2] if quick else sorted({*TARGETS, *((n, m) for n in CACHED for m in NEW)})
        found = [await bench.measure(n, m, repeats=3 if quick else 5) for n, m in points]
        own = -(-70 // PAGE_TOKENS)
        more = await bench.share(1024 if quick else 5000, 70)
    if not quick:
        picture(found)
    figures: Figures = {}
    for point in found:
        if (point.cached, point.new) in TARGETS:
            name = f"ttft_ratio_{point.cached}_{point.new}"
            figures |= {name: point.full / point.one, f"{name}_{MODULES}_modules": point.full / point.eight,
                        f"{name}_relocated": point.full / point.relocated,
                        f"{name}_operations": operations(point.cached, point.new)}
    return figures | {"bytes_copied": bench.copied_bytes, "pages_a_program": more / PROGRAMS, "own_pages": own}


def picture(found: list[Reuse]) -> None:
    swept = [point for point in found if point.cached in CACHED]
    lines = [Line(f"{new} new tokens", [(p.cached, p.full / p.one) for p in swept if p.new == new]) for new in NEW]
    path = draw("reuse.svg", "Full prefill over reuse: time to the first token", "cached tokens", "ratio", lines)
    print(f"drawn: {path}", file=sys.stderr)


if __name__ == "__main__":
    run(__doc__ or "", measure)
