"""Ours, measured as peers are: through programs in the kernel, and as a bare loop on the same device."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.peers.model import prompt
from benchmarks.tax import PAGE_TOKENS, BareLoop
from cadenza.kernel.device.batch import Batch, StepResult
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import DeviceLost

SEQUENCES = 32
ROOM_TOKENS = 640                  # beyond the context, for what is decoded
QUIET_TOKENS = 16                  # of each, before the long prompt comes
SETTLE_TOKENS = 4                  # by then all programs of a round have begun

PROGRAM = b"""
import asyncio
import json
import cadenza
from cadenza.events import now

def prompt(seed, count):
    state, tokens = seed * 7919 + 1, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2147483648
        tokens.append((state >> 8) % 151000)
    return tokens

async def decode(file, count, until_told):
    \"\"\"When each token came.\"\"\"
    told = asyncio.ensure_future(cadenza.receive()) if until_told else asyncio.Future()
    run = cadenza.Run(file, [7], max_tokens=count)
    times = []
    while run.finish == "running" and not told.done():
        came = len(await run.take())
        times += [now()] * came
    run.stop()
    return times

async def first(file, tokens):
    \"\"\"When it was asked, and when the first token came.\"\"\"
    started = now()
    run = cadenza.Run(file, tokens, max_tokens=1)
    reused = 0
    while run.finish == "running":
        await run.take()
        reused += run.reused_tokens
    assert not reused, reused
    return started, now()

async def greedy(tokens, count):
    with cadenza.File.create() as file:
        run, said = cadenza.Run(file, tokens, max_tokens=count), []
        while run.finish == "running":
            said += await run.take()
        return said

async def main(args):
    file = cadenza.File.create()
    if args.context:
        await cadenza.forward(file, prompt(args.seed, args.context))
    cadenza.send("null")
    while True:
        asked = json.loads(await cadenza.receive())
        if asked["call"] == "decode":
            answer = await decode(file, asked["tokens"], asked["until_told"])
        elif asked["call"] == "prefill":
            with cadenza.File.create() as alone:
                answer = await first(alone, prompt(asked["seed"], asked["tokens"]))
        else:
            answer = [await greedy(tokens, asked["tokens"]) for tokens in asked["prompts"]]
        cadenza.send(json.dumps(answer))
"""


class Programs:
    """Python programs in Wasm; each awaits every token of its run, one at a time."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._living: list[Program] = []

    async def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        said: list[list[int]] = await self._alone(call="greedy", prompts=prompts, tokens=tokens)
        return said

    async def prefill(self, tokens: int, seed: int) -> float:
        began, said = await self._alone(call="prefill", tokens=tokens, seed=seed)
        return float(said - began)

    async def grow(self, sequences: int, context: int) -> None:
        self._kernel.engine.connect()
        new = [Program(self._kernel, 100 + row, context) for row in range(len(self._living), sequences)]
        for program in new:
            await program.answer()
        self._living += new

    async def decode(self, steps: int) -> float:
        asked = {"call": "decode", "tokens": steps + SETTLE_TOKENS, "until_told": False}
        return step_seconds(await asyncio.gather(*(program.ask(**asked) for program in self._connected())))

    async def gap(self, tokens: int, seed: int) -> tuple[float, float]:
        """The longest that any of the living waited for a token while a prompt of `tokens` came in, and the median of
        their waits before; seconds."""
        living, newcomer = self._connected(), Program(self._kernel, 0, 0)
        await newcomer.answer()
        before = self._kernel.engine.samples_done
        for program in living:
            program.tell(call="decode", tokens=ROOM_TOKENS // 2, until_told=True)
        while self._kernel.engine.samples_done - before < len(living) * QUIET_TOKENS:
            await asyncio.sleep(0.01)
        began, said = await newcomer.ask(call="prefill", tokens=tokens, seed=seed)
        for program in living:
            program.tell()
        newcomer.end()
        return worst_and_usual([await program.answer() for program in living], began, said)

    def keep(self, sequences: int) -> None:
        """Ends the others."""
        for program in self._living[sequences:]:
            program.end()
        del self._living[sequences:]

    async def end(self) -> None:
        """All that live, so that their pages are free again."""
        ending = [program.ended() for program in self._living]
        self.keep(0)
        await asyncio.gather(*ending)

    def _connected(self) -> list[Program]:
        self._kernel.engine.connect()
        return self._living

    async def _alone(self, **asked: Any) -> Any:
        self._kernel.engine.connect()
        program = Program(self._kernel, 0, 0)
        await program.answer()
        answer = await program.ask(**asked)
        program.end()
        return answer


class Program:
    """One process, asked one thing at a time."""

    def __init__(self, kernel: Kernel, seed: int, context: int) -> None:
        self._process: Process = kernel.spawn("bench", "engine", json.dumps({"seed": seed, "context": context}))
        self._heard = 0

    def tell(self, **told: Any) -> None:
        self._process.deliver(json.dumps(told))

    async def ask(self, **asked: Any) -> Any:
        self.tell(**asked)
        return await self.answer()

    async def answer(self) -> Any:
        await self._process.output.changed(self._heard)
        events, _ = self._process.output.read(self._heard)
        assert events, self._process.exit
        self._heard += 1
        assert events[0].kind == "message", events[0].text
        return json.loads(events[0].text)

    def end(self) -> None:
        self._process.kill()

    async def ended(self) -> None:
        await self._process.ended()


class Bare:
    """The device alone: ready-made batches, two steps ahead, nothing done with the answers."""

    def __init__(self, link: DeviceLink, first_page: int, context: int) -> None:
        self._link, self._first_page, self._context = link, first_page, context
        self._loop: BareLoop | None = None

    async def prefill(self, tokens: int, seed: int) -> float:
        done: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        self._link.connect(done.set_result, lambda reason: done.set_exception(DeviceLost(reason)))
        started = time.perf_counter()
        self._link.submit(prompt_batch(prompt(seed, tokens), self._first_page))
        result = await done
        assert not result.error, result.error
        return time.perf_counter() - started

    async def grow(self, sequences: int, context: int) -> None:
        self._loop = BareLoop(self._link, sequences, self._first_page, context)

    async def decode(self, steps: int) -> float:
        assert self._loop is not None, "grow first"
        return await self._loop.run(steps) / steps


def pages_for(context: int, longest_prompt: int) -> int:
    """Of the programs; the bare loop has as many behind them."""
    return (SEQUENCES * (context + ROOM_TOKENS) + longest_prompt) // PAGE_TOKENS


def step_seconds(times: list[list[float]]) -> float:
    """Of decodes that went together: the median over programs of the mean between two tokens."""
    settled = [row[SETTLE_TOKENS - 1 :] for row in times]
    return statistics.median((row[-1] - row[0]) / (len(row) - 1) for row in settled)


def worst_and_usual(times: list[list[float]], began: float, said: float) -> tuple[float, float]:
    """Of waits between two tokens: the worst that had any part between `began` and `said`, and the median of those
    that were over before. Whoever had ended before `said` decoded too little."""
    assert all(row[-1] >= began for row in times), "nobody decoded any more when the prompt came"
    waits = np.concatenate([np.diff(row[SETTLE_TOKENS - 1 :]) for row in times])
    ends = np.concatenate([row[SETTLE_TOKENS:] for row in times])
    usual, disturbed = waits[ends < began], waits[(ends >= began) & (ends - waits <= said)]
    return float(disturbed.max()), float(np.median(usual))


def prompt_batch(tokens: list[int], first_page: int) -> Batch:
    """One row that samples behind its last token."""
    count = len(tokens)
    positions, pages = np.arange(count, dtype=np.int32), -(-count // PAGE_TOKENS)
    zero, ends = np.zeros(1, np.int32), np.array([0, count], np.int32)
    return Batch(
        1, tokens=np.array(tokens, np.int32), positions=positions, slots=positions + first_page * PAGE_TOKENS,
        row_starts=ends, segment_starts=np.array([0, 1], np.int32), segment_tokens=ends[1:], segment_firsts=zero,
        segment_skips=zero, segment_shifts=zero, page_starts=np.array([0, pages], np.int32),
        pages=first_page + np.arange(pages, dtype=np.int32), contiguous=np.ones(1, np.uint8),
        visible_starts=np.zeros(2, np.int32), sample_tokens=ends[1:] - 1, sample_lanes=zero - 1,
        temperature=np.zeros(1, np.float32), min_p=np.zeros(1, np.float32), top_k=zero,
        top_p=np.ones(1, np.float32), seeds=np.zeros(1, np.uint64), draws=np.zeros(1, np.int64),
        sample_masks=zero - 1,
    )  # fmt: skip
