from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cadenza.kernel.device.batch import PROBE_LOGITS, Batch, DeviceFacts, StepResult
from cadenza.kernel.device.kinds import NullConfig, TorchConfig, from_json, to_json
from cadenza.kernel.device.null_device import HIDDEN_SIZE, NullDevice
from cadenza.kernel.device.shared_memory import SLOTS, Capacity
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.limits import LANES, RUN_AHEAD_STEPS
from cadenza.kvfs.errors import CadenzaError, DeviceLost, Invalid
from tests.kernel.model.tiny_adapters import save_tiny_adapter
from tests.kernel.model.tiny_models import save_tiny_model

from .rows import decodes

SHAPE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 32,
    "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 96,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}  # fmt: skip


class Kernel:
    """A link, what came back over it, and why the device was lost."""

    def __init__(self, link: WorkerLink) -> None:
        self.link = link
        self.results: list[StepResult] = []
        self.reasons: list[str] = []
        self.news = asyncio.Event()
        link.connect(self._deliver, self._lose)

    def _deliver(self, result: StepResult) -> None:
        self.results.append(result)
        self.news.set()

    def _lose(self, reason: str) -> None:
        self.reasons.append(reason)
        self.news.set()

    async def until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 30)

    async def answer(self, batch: Batch) -> StepResult:
        count = len(self.results) + 1
        self.link.submit(batch)
        await self.until(lambda: len(self.results) == count)
        return self.results[-1]


def with_worker(main: Callable[[Kernel], Awaitable[None]], config: NullConfig | TorchConfig | None = None) -> None:
    async def run() -> None:
        link = await WorkerLink.start(config or NullConfig())
        try:
            await main(Kernel(link))
        finally:
            link.close()

    asyncio.run(run())


def descriptors() -> list[str]:
    return sorted(str(Path(entry).resolve()) for entry in Path("/proc/self/fd").iterdir())


def test_the_facts_are_the_devices() -> None:
    async def main(kernel: Kernel) -> None:
        assert kernel.link.facts == DeviceFacts("null", 7, 4, 0, 33, 99, hidden_size=HIDDEN_SIZE)

    with_worker(main, NullConfig(pages=7, page_tokens=4, vocabulary_size=33, context_tokens=99))


def test_a_step_is_answered_as_in_process() -> None:
    async def main(kernel: Kernel) -> None:
        device = NullDevice()
        for step in range(3 * SLOTS):
            batch = decodes(step, [*range(20), -5], list(range(21)), position=step, seed=step)
            batch.probe_tokens = np.array([0], np.int32)
            batch.probe_kinds = np.array([PROBE_LOGITS], np.int32)
            batch.probe_counts = np.zeros(1, np.int32)
            batch.asked_starts = np.zeros(2, np.int32)
            got, expected = await kernel.answer(batch), device.step(batch)
            assert got.step == step
            for name, array in expected.arrays().items():
                assert np.array_equal(array, got.arrays()[name]), name

    with_worker(main)


def test_steps_run_ahead_and_come_back_in_order() -> None:
    """Each names the token of the one before it, which nobody has seen when it is submitted."""

    async def main(kernel: Kernel) -> None:
        assert SLOTS > RUN_AHEAD_STEPS
        for round_ in range(20):
            for step in range(SLOTS):
                first = round_ == step == 0
                kernel.link.submit(decodes(round_ * SLOTS + step, [5 if first else -1], [0]))
            with pytest.raises(AssertionError, match="no slot"):
                kernel.link.submit(decodes(0, [1], [0]))
            await kernel.until(lambda: len(kernel.results) == (round_ + 1) * SLOTS)  # noqa: B023
        assert [result.step for result in kernel.results] == list(range(20 * SLOTS))
        token, device = 5, NullDevice()
        for result in kernel.results:
            (token,) = device.step(decodes(0, [token], [1])).tokens.tolist()
            assert result.tokens.tolist() == [token]

    with_worker(main)


def test_a_result_may_be_answered_with_the_next_step() -> None:
    async def main(kernel: Kernel) -> None:
        def deliver(result: StepResult) -> None:
            kernel.results.append(result)
            kernel.news.set()
            if result.step < 100:
                kernel.link.submit(decodes(result.step + 1, [-1], [0]))

        kernel.link.connect(deliver, kernel.reasons.append)
        kernel.link.submit(decodes(0, [1], [0]))
        await kernel.until(lambda: len(kernel.results) == 101)

    with_worker(main)


def test_a_step_that_fails_or_does_not_fit_is_answered_and_the_worker_goes_on() -> None:
    async def main(kernel: Kernel) -> None:
        assert "IndexError" in (await kernel.answer(decodes(1, [1], [LANES]))).error
        large = Batch(2, asked=np.zeros(Capacity.of(kernel.link.facts).batch_bytes // 4, np.int32))
        assert "ends at byte" in (await kernel.answer(large)).error
        after = await kernel.answer(decodes(3, [1], [0]))
        assert (after.step, after.error) == (3, "")
        assert after.tokens.tolist() == NullDevice().step(decodes(3, [1], [0])).tokens.tolist()
        assert kernel.reasons == []

    with_worker(main)


def test_adapters_are_loaded_beside_steps(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    adapter = save_tiny_adapter(model, tmp_path / "adapter")

    async def main(kernel: Kernel) -> None:
        loads = [asyncio.ensure_future(kernel.link.load_adapter(slot, directory))
                 for slot, directory in ((3, adapter.directory), (4, tmp_path / "absent"), (5, adapter.directory))]
        prompt = decodes(1, [7], [0])
        assert (await kernel.answer(prompt)).tokens.tolist() == model.greedy([7], 1)
        outcomes = await asyncio.gather(*loads, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "NotFound", "NoneType"]
        kernel.link.drop_adapter(3)
        for slot, error in ((5, ""), (3, "KeyError")):
            prompt = decodes(2, [7], [0])
            prompt.adapters = np.array([slot], np.int32)
            answer = await kernel.answer(prompt)
            assert error in answer.error
            assert error or answer.tokens.tolist() == adapter.greedy([7], 1)
        late = asyncio.ensure_future(kernel.link.load_adapter(6, adapter.directory))
        await asyncio.sleep(0)
        kernel.link.close()
        with pytest.raises(DeviceLost):
            await late

    with_worker(main, TorchConfig(pages=8, directory=str(model.directory), threads=1))


def test_nothing_is_pickled() -> None:
    class Unpicklable(Batch):
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise AssertionError("a batch was pickled")

    async def main(kernel: Kernel) -> None:
        whole = decodes(1, [1, 2], [0, 1])
        batch = Unpicklable(1, **whole.arrays())  # type: ignore[arg-type]
        assert (await kernel.answer(batch)).tokens.tolist() == NullDevice().step(whole).tokens.tolist()

    with_worker(main)


@pytest.mark.parametrize("steps", [0, 2])
def test_a_killed_worker_is_lost_exactly_once(steps: int) -> None:
    async def main(kernel: Kernel) -> None:
        for step in range(steps):
            kernel.link.submit(decodes(step, [1], [0]))
        os.kill(kernel.link.pid, signal.SIGKILL)
        await kernel.until(lambda: bool(kernel.reasons))
        with pytest.raises(DeviceLost, match="SIGKILL"):
            kernel.link.submit(decodes(9, [1], [0]))
        await asyncio.sleep(0.05)
        assert kernel.reasons == ["the device process was killed by SIGKILL"]
        assert kernel.results == []
        kernel.link.close()

    with_worker(main, NullConfig(fixed_ms=60_000, sleep=True))


def test_a_lost_worker_is_started_again_over_the_same_host_tier() -> None:
    async def main(kernel: Kernel) -> None:
        expected = (await kernel.answer(decodes(1, [1], [0]))).tokens.tolist()
        for step in (2, 3):
            first = kernel.link.pid
            kernel.link.host[3] = step
            kernel.link.submit(decodes(9, [1], [0]))
            os.kill(first, signal.SIGKILL)
            await kernel.until(lambda: bool(kernel.reasons))
            kernel.reasons.clear()
            await kernel.link.restart()
            assert kernel.link.pid != first
            assert (kernel.link.host[3] == step).all()
            kernel.results.clear()
            assert (await kernel.answer(decodes(step, [1], [0]))).tokens.tolist() == expected

    with_worker(main, TorchConfig(pages=4, shape=SHAPE, threads=1, host_pages=5))


def test_close_does_not_wait_for_a_long_step_and_leaves_nothing() -> None:
    async def main() -> None:
        gc.collect()        # what earlier tests have left would go in the midst of this one
        before = descriptors()
        link = await WorkerLink.start(NullConfig(fixed_ms=3_600_000, sleep=True))
        kernel = Kernel(link)
        link.submit(decodes(1, [1], [0]))
        link.close()
        link.close()
        with pytest.raises(ProcessLookupError):
            os.kill(link.pid, 0)
        assert descriptors() == before
        with pytest.raises(DeviceLost):
            link.submit(decodes(2, [1], [0]))
        assert (kernel.results, kernel.reasons) == ([], [])

    asyncio.run(main())


def test_a_lost_worker_leaves_no_descriptor() -> None:
    async def main() -> None:
        before = descriptors()
        link = await WorkerLink.start(NullConfig())
        kernel = Kernel(link)
        os.kill(link.pid, signal.SIGTERM)
        await kernel.until(lambda: bool(kernel.reasons))
        link.close()
        assert descriptors() == before

    asyncio.run(main())


def test_a_device_that_cannot_be_built_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        before = descriptors()
        with pytest.raises(CadenzaError) as caught:
            await WorkerLink.start(TorchConfig(pages=4, directory=str(tmp_path)))
        assert type(caught.value).__name__ == "NotFound"
        assert "config.json" in caught.value.message
        assert descriptors() == before

    asyncio.run(main())


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        before = descriptors()
        start = asyncio.create_task(WorkerLink.start(TorchConfig(pages=4, shape=SHAPE)))
        await asyncio.sleep(0.05)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert descriptors() == before

    asyncio.run(main())


def test_the_worker_ends_when_the_kernel_is_killed() -> None:
    """A kernel of its own starts a worker, says its pid, and waits to be killed."""
    program = (
        "import asyncio\n"
        "from cadenza.kernel.device.kinds import NullConfig\n"
        "from cadenza.kernel.device.worker_link import WorkerLink\n"
        "async def main():\n"
        "    link = await WorkerLink.start(NullConfig())\n"
        "    print(link.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as kernel:
        assert kernel.stdout is not None
        worker = int(kernel.stdout.readline())
        lifeline = os.pidfd_open(worker)
        kernel.kill()
    asyncio.run(_until_readable(lifeline))
    os.close(lifeline)


async def _until_readable(descriptor: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await asyncio.wait_for(ended.wait(), 30)
    asyncio.get_running_loop().remove_reader(descriptor)


def test_torch_of_a_random_shape_computes_in_the_worker() -> None:
    async def main(kernel: Kernel) -> None:
        assert (kernel.link.facts.vocabulary_size, kernel.link.facts.pages) == (96, 4)
        first = await kernel.answer(decodes(1, [5], [0]))
        second = await kernel.answer(decodes(2, [-1], [0]))
        assert first.error == second.error == ""
        assert 0 <= first.tokens[0] < 96
        assert second.seconds > 0

    with_worker(main, TorchConfig(pages=4, shape=SHAPE, threads=1))


@pytest.mark.parametrize("config", [NullConfig(pages=3, sleep=True), TorchConfig(pages=4, shape=SHAPE, seed=2)])
def test_settings_travel_as_json(config: NullConfig | TorchConfig) -> None:
    assert from_json(to_json(config)) == config


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="choose one of null, torch"):
        from_json('{"kind": "abacus"}')
