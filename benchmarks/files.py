"""KV files: what a fork costs, whatever the length, and how fast a file is there again after a restart.

`fork_us`: the median over forks in a Python program, of a file of 4,096 tokens and of one of 65,536, on the NullDevice.
`open_share_of_disk`: a file of 8,192 tokens is synced (12 layers of 4 kv heads of 64, float32: 24 KiB a token), the
kernel ends, the pages that the system keeps of the files are dropped, and a new kernel opens it. The rate is the bytes
of the file over the time that its first pass takes longer than its second; the disk's own rate is measured by reading
the same segments right before, dropped as well.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.harness import Figures, null_link, run, wordless
from cadenza.kernel.device.kinds import TorchConfig
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import STAGING_PAGES
from cadenza.server.boot import Assembly, assemble

BUILD = Path(__file__).resolve().parents[1] / "build"      # on the disk that the repository is on
TOKENS = 8192
LENGTHS = (4096, 65_536)
BLOCK = 8 << 20
DISK_BYTES = 4 << 30
SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 12,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 64, "vocab_size": 1024,
    "max_position_embeddings": 16_384, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": True,
}
FORKER = '''
import cadenza
from cadenza.events import now

async def main(args):
    with cadenza.File.create() as file:
        await cadenza.forward(file, [i % 1000 for i in range(args.tokens)])
        for _ in range(args.forks):
            started = now()
            fork = file.fork()
            print((now() - started) * 1e6)
            fork.close()
'''
WRITER = '''
import cadenza

async def main(args):
    file = cadenza.File.open("long", "append", "create")
    await cadenza.forward(file, [i % 1000 for i in range(args.tokens)])
    await file.sync()
'''
READER = '''
import cadenza
from cadenza.events import now

async def main(args):
    for _ in range(2):
        started = now()
        with cadenza.File.open("long") as file, cadenza.File.create() as own:
            await cadenza.forward(own, [5], reads=[file], samples=[(0, cadenza.Sampler())])
        print(now() - started)
'''


@asynccontextmanager
async def kernel_at(link: DeviceLink, state: Path, disk_bytes: int = 0) -> AsyncIterator[Kernel]:
    kernel = await assemble(link, wordless(link), Assembly(state, disk_bytes=disk_bytes))
    try:
        yield kernel
        kernel.recount()
    finally:
        await kernel.close()


async def said(kernel: Kernel, source: str, **arguments: Any) -> list[float]:
    image = await kernel.images.add("bench", source.encode())
    process = kernel.spawn("bench", image.digest, json.dumps(arguments))
    status = await process.ended()
    text = "".join(event.text for event in process.output.read(0)[0])
    if status.ending != "finished":
        raise RuntimeError(f"{status}: {text}")
    return [float(line) for line in text.split()]


async def fork_us(tokens: int) -> float:
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        async with kernel_at(null_link(pages=8192), Path(state)) as kernel:
            return statistics.median(await said(kernel, FORKER, tokens=tokens, forks=500))


def drop(directory: Path) -> list[Path]:
    """The segments, of which the system keeps nothing in memory then."""
    segments = sorted(directory.glob("kv/segments/*/*"))
    for path in segments:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    return segments


def disk_rate(directory: Path) -> tuple[float, int]:
    """Bytes a second, and bytes in all: read from one end to the other."""
    buffer, total = bytearray(BLOCK), 0
    segments = drop(directory)
    started = time.perf_counter()
    for path in segments:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total / (time.perf_counter() - started), total


async def reopened(tokens: int, repeats: int) -> Figures:
    config = TorchConfig(pages=tokens // 16 + 64, shape=SHAPE, threads=2, host_pages=STAGING_PAGES + 64)
    shares, rates, disks = [], [], []
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-", dir=BUILD) as name:
        state = Path(name)
        async with kernel_at(await WorkerLink.start(config), state, DISK_BYTES) as kernel:
            await said(kernel, WRITER, tokens=tokens)
        for _ in range(repeats):
            disk, total = disk_rate(state)
            drop(state)
            async with kernel_at(await WorkerLink.start(config), state, DISK_BYTES) as kernel:
                first, second = await said(kernel, READER)
            rates.append(total / (first - second))
            disks.append(disk)
            shares.append(rates[-1] / disk)
            print(f"{total >> 20} MiB: disk {disk / 2**20:.0f} MiB/s, open {rates[-1] / 2**20:.0f} MiB/s", flush=True)
    return {"open_share_of_disk": statistics.median(shares), "open_mib_s": statistics.median(rates) / 2**20,
            "disk_mib_s": statistics.median(disks) / 2**20}


async def measure(quick: bool) -> Figures:
    figures: Figures = {}
    for tokens in LENGTHS:
        figures["fork_us" if tokens == LENGTHS[0] else f"fork_{tokens}_us"] = await fork_us(tokens)
        print(figures, flush=True)
    return figures | await reopened(TOKENS, 2 if quick else 5)


if __name__ == "__main__":
    run(__doc__ or "", measure)
