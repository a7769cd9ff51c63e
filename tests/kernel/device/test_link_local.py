import asyncio

import pytest

from cadenza.kernel.device.batch import StepResult
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.limits import LANES
from cadenza.kvfs.errors import DeviceLost

from .rows import decodes


class Kernel:
    """What came back, and why the device was lost."""

    def __init__(self, link: LocalLink) -> None:
        self.results: list[StepResult] = []
        self.reasons: list[str] = []
        link.connect(self.results.append, self.reasons.append)

    async def wait(self, count: int) -> None:
        while len(self.results) < count:
            await asyncio.sleep(0.001)


def test_results_come_later_and_in_order() -> None:
    async def main() -> None:
        link = LocalLink(NullDevice())
        kernel = Kernel(link)
        for step in range(50):
            link.submit(decodes(step, [step], [0]))
        assert kernel.results == []
        await asyncio.wait_for(kernel.wait(50), 10)
        assert [result.step for result in kernel.results] == list(range(50))

    asyncio.run(main())


def test_steps_take_their_time_one_after_the_other() -> None:
    async def main() -> float:
        link = LocalLink(NullDevice(cost=CostModel(per_token_ms=10)))
        kernel = Kernel(link)
        started = asyncio.get_running_loop().time()
        link.submit(decodes(1, [1, 2, 3], [0, 1, 2]))
        link.submit(decodes(2, [1], [0]))
        await asyncio.wait_for(kernel.wait(2), 10)
        assert [result.step for result in kernel.results] == [1, 2]
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(main()) > 0.039


def test_seconds_may_be_only_a_number() -> None:
    async def main() -> None:
        link = LocalLink(NullDevice(cost=CostModel(3_600_000)), virtual_seconds=False)
        kernel = Kernel(link)
        link.submit(decodes(1, [1], [0]))
        await asyncio.wait_for(kernel.wait(1), 10)
        assert kernel.results[0].seconds == 3600

    asyncio.run(main())


def test_a_lost_device_is_told_once_and_brings_nothing_more() -> None:
    async def main() -> None:
        link = LocalLink(NullDevice(cost=CostModel(1)))
        kernel = Kernel(link)
        link.submit(decodes(1, [1], [0]))
        link.fail("pulled out")
        link.fail("again")
        with pytest.raises(DeviceLost, match="pulled out"):
            link.submit(decodes(2, [1], [0]))
        await asyncio.sleep(0.05)
        assert (kernel.results, kernel.reasons) == ([], ["pulled out"])
        link.close()

    asyncio.run(main())


def test_a_step_that_fails_is_answered_and_the_device_goes_on() -> None:
    async def main() -> None:
        link = LocalLink(NullDevice())
        kernel = Kernel(link)
        link.submit(decodes(1, [1], [LANES]))
        link.submit(decodes(2, [1], [0]))
        await asyncio.wait_for(kernel.wait(2), 10)
        assert "IndexError" in kernel.results[0].error
        assert kernel.results[1].error == ""
        link.close()
        link.close()
        assert kernel.reasons == []

    asyncio.run(main())
