"""What the operating system costs: tokens per second through Python programs over those of a bare loop.

The shape is Qwen2.5-0.5B's with 4 of its 24 layers (`--quick`: 2, and half of the vocabulary, so a step is half as long
and the tax counts twice), random weights, in the worker process, with the threads and the type that the daemon would
choose: one core is left to the programs, and bfloat16 is used where the CPU multiplies it.
The bare loop hands that same worker ready-made decode batches, two steps ahead, and does nothing with the answers; the
programs each await every token of a run, one at a time. Rounds of both alternate in one run, both warm, both continuing
from a context of CONTEXT tokens.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.harness import Figures, kernel_over, run
from cadenza.kernel.device.batch import Batch, StepResult
from cadenza.kernel.device.kinds import TorchConfig
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import RUN_AHEAD_STEPS
from cadenza.kernel.native.cpu import has_bfloat16
from cadenza.kvfs.errors import DeviceLost
from cadenza.server.devices import choose_threads

SHAPE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 4,
    "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "hidden_act": "silu",
}
QUICK_SHAPE = SHAPE | {"num_hidden_layers": 2, "vocab_size": 75_968}
CONTEXT = 32
WARM_TOKENS = 8                               # by then all have begun: inputs are fed a few a step beside decodes
QUICK_TOKENS = {1: 24, 8: 12, 32: 6}          # by programs: about a second of float32 steps on two cores
PAGE_TOKENS = 16

PROGRAM = b"""
import cadenza

async def main(args):
    file = cadenza.File.create()
    await cadenza.forward(file, [7] * args.context)
    cadenza.send("ready")
    await cadenza.receive()
    run = cadenza.Run(file, [7], max_tokens=args.tokens)
    said = len(await run.take())
    cadenza.send("going")
    while run.finish == "running":
        said += len(await run.take())
    assert said == args.tokens, said
"""


class BareLoop:
    """Decode batches of `rows` rows, straight to the link."""

    def __init__(self, link: DeviceLink, rows: int, first_page: int, context: int = CONTEXT) -> None:
        self._link = link
        self._rows = rows
        self._context = context
        pages = -(-(context + 512) // PAGE_TOKENS)
        self._pages = first_page + np.arange(rows * pages, dtype=np.int32).reshape(rows, pages)
        self._step = 1_000_000
        self._left = 0
        self._under_way = 0
        self._length = 0

    async def run(self, tokens: int) -> float:
        """Seconds for `tokens` steps."""
        self._left, self._length = tokens, self._context
        self._done = asyncio.get_running_loop().create_future()
        self._link.connect(self._answered, lambda reason: self._done.set_exception(DeviceLost(reason)))
        started = time.perf_counter()
        for _ in range(RUN_AHEAD_STEPS):
            self._submit()
        await self._done
        return time.perf_counter() - started

    def _answered(self, result: StepResult) -> None:
        assert not result.error, result.error
        self._under_way -= 1
        if self._left:
            self._submit()
        elif not self._under_way:
            self._done.set_result(None)

    def _submit(self) -> None:
        self._left -= 1
        self._under_way += 1
        self._step += 1
        self._length += 1
        self._link.submit(self._batch())

    def _batch(self) -> Batch:
        rows, length = self._rows, self._length
        count = np.arange(rows + 1, dtype=np.int32)
        used = -(-length // PAGE_TOKENS)
        zeros, none = np.zeros(rows, np.float32), np.zeros(rows, np.int32)
        return Batch(
            step=self._step,
            tokens=np.full(rows, 7, np.int32), positions=np.full(rows, length - 1, np.int32), row_starts=count,
            slots=self._pages[:, (length - 1) // PAGE_TOKENS] * PAGE_TOKENS + (length - 1) % PAGE_TOKENS,
            segment_starts=count, segment_tokens=np.full(rows, length, np.int32),
            segment_firsts=none, segment_skips=none, segment_shifts=none,
            page_starts=count * np.int32(used), pages=np.ascontiguousarray(self._pages[:, :used]).reshape(-1),
            contiguous=np.ones(rows, np.uint8), visible_starts=np.zeros(rows + 1, np.int32),
            sample_tokens=count[:-1], sample_lanes=np.full(rows, -1, np.int32), temperature=zeros, min_p=zeros,
            top_k=none, top_p=zeros + 1, seeds=np.zeros(rows, np.uint64),
            draws=np.zeros(rows, np.int64), sample_masks=np.full(rows, -1, np.int32),
        )


async def through_programs(kernel: Kernel, programs: int, tokens: int) -> float:
    """Seconds for `tokens` steps of all programs, from when the last has begun until the first has ended."""
    kernel.engine.connect()
    arguments = json.dumps({"context": CONTEXT, "tokens": tokens + WARM_TOKENS})
    processes = [kernel.spawn("bench", "decoder", arguments) for _ in range(programs)]
    for process in processes:
        await process.output.changed(0)
        assert process.exit is None, process.exit
    for process in processes:
        process.deliver("go")
    for process in processes:
        await process.output.changed(1)
    started, before = time.perf_counter(), kernel.engine.samples_done
    ends = [asyncio.ensure_future(process.ended()) for process in processes]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    elapsed, done = time.perf_counter() - started, kernel.engine.samples_done - before
    assert all(end.ending == "finished" for end in await asyncio.gather(*ends))
    return elapsed / done * programs * tokens


async def measure(quick: bool) -> Figures:
    dtype = "bfloat16" if has_bfloat16() else "float32"
    shape = QUICK_SHAPE if quick else SHAPE
    config = TorchConfig(pages=2 * 32 * 48, shape=shape, dtype=dtype, threads=choose_threads(None))
    link = await WorkerLink.start(config)
    figures: Figures = {}
    async with kernel_over(link) as kernel:
        await kernel.images.add("bench", PROGRAM, name="decoder")
        for programs in (1, 8, 32):
            tokens, rounds = (QUICK_TOKENS[programs], 2) if quick else (64, 5)
            bare = BareLoop(link, programs, first_page=32 * 48)
            await bare.run(WARM_TOKENS)
            await through_programs(kernel, programs, WARM_TOKENS)
            ratios, steps = [], []
            before = await bare.run(tokens)
            for _ in range(rounds):
                through = await through_programs(kernel, programs, tokens)
                after = await bare.run(tokens)
                ratios.append((before + after) / 2 / through)
                steps.append((before + after) / 2 / tokens * 1e3)
                before = after
            step = statistics.median(steps)
            print(f"{programs} programs: {statistics.median(ratios):.3f} of the bare loop's speed "
                  f"({[round(r, 3) for r in ratios]}), whose step takes {step:.1f} ms", flush=True)
            figures |= {f"ratio_{programs}": statistics.median(ratios), f"bare_step_ms_{programs}": step}
    return figures


if __name__ == "__main__":
    run(__doc__, measure)
