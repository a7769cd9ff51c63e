"""Our engine beside others on the same random weights: decode, prefill, share of the roof, and a long prompt's shadow.

The shape is Qwen2.5-0.5B's, or 4 of its 24 layers with --quick. Every engine has a process of its own and as many
threads as there are cores; the others are stopped meanwhile. Rounds alternate; a ratio is the median over rounds.
Ours is Python programs in the kernel, each awaiting every token, and beside it the bare device. What runs is what the
daemon would choose (`--dtype`, `--threads`). Peers that are not installed are skipped: --install gets them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from benchmarks.harness import Figures, kernel_over
from benchmarks.peers import model, roof
from benchmarks.peers.figures import BARE, OURS, OURS_INT8, Rounds, ratios, same_tokens, table
from benchmarks.peers.ours import PROGRAM, Bare, Programs, pages_for
from benchmarks.peers.peers import INSTALL, PEERS, VENV, PeerKind, install, python_of
from benchmarks.peers.process import ROOT, PeerFault, PeerProcess, running
from cadenza.kernel.device.kinds import TorchConfig
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.model.config import ModelConfig
from cadenza.kvfs.errors import Unsupported
from cadenza.server.devices import device_config
from cadenza.server.options import ServeOptions, default_cache

GAP_PROGRAMS = 16


@dataclass(frozen=True)
class Plan:
    """`steps`: of a round, by the number of sequences. `long_prompt`: 0 for none."""

    layers: int = model.LAYERS
    context: int = model.CONTEXT
    prefills: tuple[int, ...] = (512, 2048)
    prefill_rounds: int = 3
    steps: dict[int, int] = field(default_factory=lambda: {1: 16, 8: 12, 32: 8})
    rounds: int = 5
    long_prompt: int = 4096
    peers: tuple[str, ...] = tuple(peer.name for peer in PEERS)
    dtype: str = "auto"
    threads: int = field(default_factory=roof.cores)
    environment: Path = VENV


QUICK: dict[str, Any] = {"layers": model.CUT_LAYERS, "context": 64, "prefills": (512,), "prefill_rounds": 2,
                         "steps": {1: 8, 8: 4, 32: 3}, "rounds": 2, "long_prompt": 1024, "peers": ("transformers",)}


def parts_of(plan: Plan, parts: Sequence[str]) -> Plan:
    """Those alone: `decode_8`, `prefill_512` and so on, `gap`. Raises ValueError for what is no part."""
    asked = {(kind, int(count)) for kind, _, count in (part.partition("_") for part in parts if part != "gap")}
    if not all(kind in ("decode", "prefill") for kind, _ in asked):
        raise ValueError(f"parts are decode_N, prefill_N and gap, not {', '.join(parts)}")
    return replace(plan, steps={count: plan.steps.get(count, 8) for kind, count in sorted(asked) if kind == "decode"},
                   prefills=tuple(count for kind, count in sorted(asked) if kind == "prefill"),
                   peers=plan.peers if asked else (), long_prompt=plan.long_prompt if "gap" in parts else 0)


class Engine(Protocol):
    async def prefill(self, tokens: int, seed: int) -> float: ...
    async def grow(self, sequences: int, context: int) -> None: ...
    async def decode(self, steps: int) -> float: ...


class Comparison:
    """Engines that are up, those that are not and why, and what was measured. Ends with its stack."""

    def __init__(self, plan: Plan, stack: AsyncExitStack) -> None:
        self._plan, self._stack = plan, stack
        self._directory = model.directory(default_cache(), plan.layers)
        self._seed = 0
        self.engines: dict[str, Engine] = {}
        self.told: dict[str, str] = {}                 # what each computes with
        self.skipped: dict[str, str] = {}
        self.same: dict[str, float] = {}
        self.rounds = Rounds()
        self.figures: Figures = {}

    async def start(self) -> None:
        if not self._directory.exists():
            say(f"writing random weights to {self._directory}")
            subprocess.run([sys.executable, "-m", "benchmarks.peers.weights", str(self._directory),
                            str(self._plan.layers)], check=True, cwd=ROOT)
        await self._start_ours(OURS, self._plan.dtype, BARE)
        if "llama_q8" in self._plan.peers:
            await self._start_ours(OURS_INT8, "int8")
        for peer in PEERS:
            if peer.name in self._plan.peers:
                await self._start_peer(peer)

    async def _start_ours(self, name: str, dtype: str, bare: str = "") -> None:
        """As the daemon would; two kernels do not disturb each other while one of them idles."""
        pages = pages_for(self._plan.context, max(self._plan.long_prompt, *self._plan.prefills, 0))
        options = ServeOptions(model=str(self._directory), dtype=dtype, threads=self._plan.threads,
                               pages=2 * pages, host_gib=0.0)
        config = device_config(options, self._directory)
        try:
            link = await WorkerLink.start(config)
        except Unsupported as fault:
            self.skipped[name] = fault.message
            return
        self._stack.callback(link.close)
        kernel = await self._stack.enter_async_context(kernel_over(link))
        await kernel.images.add("bench", PROGRAM, name="engine")
        self.engines[name] = programs = Programs(kernel)
        self._stack.push_async_callback(programs.end)
        self.told[name] = link.facts.name
        if bare:
            self.engines[bare] = Bare(link, pages, self._plan.context)
            self.told[bare] = "the same device, no programs"
        assert isinstance(config, TorchConfig)
        self.figures[f"{name}_dtype"] = config.dtype

    async def _start_peer(self, peer: PeerKind) -> None:
        python = python_of(peer, self._plan.environment)
        if python is None:
            self.skipped[peer.name] = f"not installed: {INSTALL}"
            return
        say(f"starting {peer.name}")
        settings = {"directory": str(self._directory), "threads": self._plan.threads, **peer.settings}
        log = default_cache() / "bench-engine" / f"{peer.name}.log"
        try:
            process = await self._stack.enter_async_context(running(python, peer.module, settings, log))
            self.same[peer.name] = await self._agreement(process)
        except PeerFault as fault:
            self.skipped[peer.name] = str(fault)
            return
        self.engines[peer.name] = process
        self.told[peer.name] = f"{process.facts['version']}, {process.facts['dtype']}"

    async def _agreement(self, peer: PeerProcess) -> float:
        """How much of what it says ours says too: that the two compute with the same model."""
        prompts = model.agreed_prompts()
        ours = self.engines[OURS]
        assert isinstance(ours, Programs)
        return same_tokens(await ours.greedy(prompts, model.AGREED_TOKENS),
                           await peer.greedy(prompts, model.AGREED_TOKENS))

    async def prefill(self, tokens: int) -> None:
        for place in range(self._plan.prefill_rounds + 1):             # the first warms up
            self._seed += 1
            await self._each("prefill", tokens, place, lambda engine: engine.prefill(tokens, self._seed))
        self.say("prefill", tokens)

    async def decode(self, sequences: int) -> None:
        for name in list(self.engines):
            await self._guarded(name, lambda engine: engine.grow(sequences, self._plan.context))
        steps = self._plan.steps[sequences]
        for place in range(1, self._plan.rounds + 1):                  # `grow` has warmed up
            await self._each("decode", sequences, place, lambda engine: engine.decode(steps))
        self.say("decode", sequences)

    async def _each(self, kind: str, count: int, place: int, measure: Callable[[Engine], Awaitable[float]]) -> None:
        """One round; every other one goes the other way round."""
        for name in list(self.engines)[:: 1 if place % 2 else -1]:
            seconds = await self._guarded(name, measure)
            if place and seconds is not None:
                self.rounds.add(name, (kind, count), seconds)

    async def _guarded(self, name: str, act: Callable[[Engine], Awaitable[Any]]) -> Any:
        """None when the peer died of it: it is left out from now on."""
        try:
            return await act(self.engines[name])
        except PeerFault as fault:
            self.skipped[name] = str(fault)
            del self.engines[name]
            return None

    async def gap(self) -> None:
        ours = self.engines[OURS]
        assert isinstance(ours, Programs)
        await ours.grow(GAP_PROGRAMS, self._plan.context)
        ours.keep(GAP_PROGRAMS)
        worst, usual = await ours.gap(self._plan.long_prompt, 7000)
        self.figures |= {"gap_steps": worst / usual, "gap_step_ms": usual * 1e3}
        say(f"a prompt of {self._plan.long_prompt} among {GAP_PROGRAMS} that decode: {worst / usual:.1f} steps")

    def roof(self) -> None:
        """Between rounds of the others, on an idle machine."""
        read = roof.bandwidth(self._plan.threads)
        self.figures["bandwidth_gb_s"] = read / 1e9
        config = ModelConfig.from_directory(self._directory)
        for name, key in ((OURS, "roof_share_1"), (OURS_INT8, "int8_roof_share_1"), (BARE, "bare_roof_share_1")):
            seconds = self.rounds.median(name, ("decode", 1))
            if seconds is not None:
                dtype = self.figures[f"{OURS if name == BARE else name}_dtype"]
                self.figures[key] = roof.step_bytes(config, dtype, 1, self._plan.context) / read / seconds

    def say(self, kind: str, count: int) -> None:
        medians = {name: self.rounds.median(name, (kind, count)) for name in self.engines}
        say(f"{kind} {count}: " + ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in medians.items()
                                            if seconds is not None))


def say(line: str) -> None:
    print(line, flush=True)


async def measure(plan: Plan) -> Figures:
    async with AsyncExitStack() as stack:
        comparison = Comparison(plan, stack)
        await comparison.start()
        for tokens in plan.prefills:
            await comparison.prefill(tokens)
        for sequences in plan.steps:
            await comparison.decode(sequences)
            if sequences == 1:
                comparison.roof()
        if plan.long_prompt:
            await comparison.gap()
    same = comparison.same
    Console().print(table(comparison.rounds, comparison.told, same, comparison.skipped))
    return (ratios(comparison.rounds, plan.peers) | comparison.figures
            | {f"same_tokens_{name}": share for name, share in same.items()}
            | {f"{kind}_{count}_ms": 1e3 * (comparison.rounds.median(OURS, (kind, count)) or 0.0)
               for kind, count in comparison.rounds.measured()}
            | {"skipped": comparison.skipped})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 layers, transformers alone: under 50 seconds")
    parser.add_argument("--install", action="store_true", help=f"installs the peers into --venv ({VENV}), and ends")
    parser.add_argument("--peers", help=f"some of them: {','.join(peer.name for peer in PEERS)}")
    parser.add_argument("--parts", help="some of them: decode_1,prefill_512,gap and so on: the whole takes long")
    parser.add_argument("--layers", type=int, help="of the shape")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--dtype", default="auto", help="of ours, as `cadenza serve` takes it")
    parser.add_argument("--threads", type=int, default=roof.cores(), help="of every engine")
    parser.add_argument("--venv", type=Path, default=VENV)
    options = parser.parse_args()
    if options.install:
        sys.exit(not install(options.venv))
    chosen: dict[str, Any] = {"layers": options.layers, "rounds": options.rounds,
                              "peers": tuple(options.peers.split(",")) if options.peers else None}
    plan = Plan(**{**(QUICK if options.quick else {}), **{key: value for key, value in chosen.items() if value},
                   "dtype": options.dtype, "threads": options.threads, "environment": options.venv})
    figures = asyncio.run(measure(parts_of(plan, options.parts.split(",")) if options.parts else plan))
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))


if __name__ == "__main__":
    main()
