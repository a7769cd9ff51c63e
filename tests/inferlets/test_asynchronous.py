"""Asynchronous calls on random programs: no interrupt is lost, none is told twice, whatever the tools do and whoever is
killed."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from benchmarks.calls.world import upload
from cadenza.inferlets.async_calls.cml import Code
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.virtual_clock import simulate
from tests.inferlets.babbler import babbling, prepare

PROGRAMS, AT_ONCE = {True: 800, False: 200}, 50      # with reserved tokens, and as text

RANDOM_PROGRAM = '''
import asyncio, json, random
import cadenza
from async_calls.asynchronous import Asynchronous, IN_USE
from async_calls.cml import written_interrupt
from async_calls.executor import CANCELLED, TIMED_OUT, first_come, longest_first
from async_calls.toolbox import Toolbox

class Erratic(Toolbox):
    """Any code is a call, of random length; some fail."""

    def __init__(self, source):
        super().__init__()
        self.source, self.ran = source, 0

    async def run(self, code):
        self.ran += 1
        number, fate = self.ran, self.source.random()
        await asyncio.sleep(self.source.choice([0, 0.001, 0.02, 0.1, 0.4]) * self.source.random())
        if fate < 0.1:
            await asyncio.sleep(100)
        if fate < 0.2:
            return "error: \\u201cno\\u201d [END] [INTR]"
        return f"value {number}" + "x" * self.source.choice([0, 0, 0, 30])

async def meddle(agent, source, said):
    """The user speaks, calls are cancelled."""
    while True:
        await asyncio.sleep(0.3 * source.random())
        if source.random() < 0.5:
            said.append(["somebody", f"word {len(said)}"])
            agent.interrupt(*said[-1])
        elif agent._executor.pending:
            agent.cancel(source.choice(agent._executor.pending).id)

async def main(args):
    seed, tokens = args.seed, args.tokens
    source = random.Random(seed)
    said, used = [], []
    agent = Asynchronous(
        Erratic(source), resume=source.choice(["any", "all"]), slots=source.choice([1, 2, 8]), limit_seconds=0.5,
        order=source.choice([first_come, longest_first]), max_tokens=tokens,
        sampler=cadenza.Sampler(source.choice([0.0, 1.0]), seed=seed))
    told, tell = [], agent._tell
    agent._tell = lambda identity, value: (told.append([identity, value]), tell(identity, value))
    context = cadenza.Context()
    context.fill(f"{seed}?")
    acting = asyncio.ensure_future(agent.act(context))
    await asyncio.sleep(0)
    meddling = asyncio.ensure_future(meddle(agent, source, said))
    outcome = await acting
    meddling.cancel()
    speech = agent._speech
    context_text = cadenza.model.detokenize(context.tokens, special=True)
    print(json.dumps({
        "finish": outcome.finish, "text": context_text, "interrupts": outcome.interrupts, "untold": speech.untold,
        "told": [written_interrupt(*each) for each in told], "traps": outcome.traps,
        "jobs": [[job.id, job.value] for job in outcome.jobs], "codes": [job.code for job in outcome.jobs],
        "told_results": [each for each in told if each[0] != "somebody"],
        "reserved": speech.notation.reserved,
    }))
    context.close()
'''


async def reports(kernel: Kernel, first: int, count: int) -> list[dict[str, Any]]:
    """Of all programs that came to their end; every tenth is killed at some time."""
    source = random.Random(first)
    processes = [kernel.spawn("ada", "random", json.dumps({"seed": 100 * (first + number), "tokens": 120}))
                 for number in range(count)]
    for process in processes[::10]:
        asyncio.get_running_loop().call_later(source.uniform(0.05, 2.0), process.kill)
    found = []
    for number, process in enumerate(processes):
        status = await process.ended()
        said = "".join(event.text for event in process.output.read(0)[0])
        found += [json.loads(line) for line in said.splitlines()]
        if status.ending != "finished":
            assert (status.ending, number % 10) == ("killed", 0), f"{status.message}\n{said}"
    kernel.recount()
    assert not kernel.engine.busy
    return found


def check(report: dict[str, Any]) -> None:
    """What stands in the context is what was told, each once, but for what came too late: that is counted."""
    text, told = report["text"], report["told"]
    stands = {each: text.count(each) for each in set(told)}
    for each, count in stands.items():
        assert count <= told.count(each), each
    assert sum(stands.values()) == report["interrupts"] == text.count("[INTR]")
    assert report["interrupts"] + report["untold"] == len(told)
    values = [[identity, value] for identity, value in report["jobs"] if identity is not None and value is not None]
    for identity, value in report["told_results"]:
        assert [identity, value] in values or value == "error: this id is in use"
    if report["finish"] != "length":
        assert report["untold"] == 0
        results = [each for each in report["told_results"] if each[1] != "error: this id is in use"]
        assert sorted(values) == sorted(results)


@pytest.mark.parametrize("reserved", [True, False])
def test_no_interrupt_is_lost_or_told_twice(reserved: bool) -> None:
    async def test() -> list[dict[str, Any]]:
        async with babbling(reserved=reserved) as kernel:
            await kernel.images.add("ada", upload(RANDOM_PROGRAM), name="random")
            return [report for first in range(0, PROGRAMS[reserved], AT_ONCE)
                    for report in await reports(kernel, first, AT_ONCE)]
    prepare()
    found = simulate(test())
    assert 0.9 * PROGRAMS[reserved] <= len(found) < PROGRAMS[reserved]
    calls = 0
    for report in found:
        assert report["reserved"] is reserved
        check(report)
        if not reserved:
            calls += len([Code.parse(code) for code in report["codes"]])
    assert reserved or calls > len(found), "as text they are not only well-formed: they can be made"
    assert sum(report["interrupts"] for report in found) > 2 * len(found)
    assert sum(report["traps"] for report in found) > len(found) / 2
    assert {report["finish"] for report in found} >= {"ended", "length"}
