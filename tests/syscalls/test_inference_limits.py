"""Every limit of interface `inference`: exactly so much, and one past it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from cadenza.kernel.limits import (
    BIAS_MOST,
    PASS_PROBE_VALUES,
    PASS_PROBES,
    PASS_READS,
    PASS_SAMPLES,
    PASS_TOKENS,
    PASS_TOLD_TOKENS,
    PENALTY_MOST,
    PROBE_TOKENS,
    RUN_MOVES,
    RUN_STATES,
    SAMPLER_BIASES,
    STOP_SEQUENCE_TOKENS,
    STOP_SEQUENCES,
    STOP_TOKENS,
    VISIBLE_RANGES,
    ProcessLimits,
)
from cadenza.kernel.process import Process
from cadenza.kernel.wasm.seams import Suspension
from cadenza.kvfs.errors import Invalid, LimitExceeded, NoPages

from .asking import CREATE, forward, probe, sample
from .desk import Desk, a_pass, a_run, a_sampler, in_loop

LARGE = 8192                       # a vocabulary with room for PROBE_TOKENS
LOGITS = PASS_PROBE_VALUES // LARGE


def refused(desk: Desk, process: Process, call: str, request: dict[str, Any], fault: str) -> LimitExceeded:
    with pytest.raises(LimitExceeded, match=fault) as error:
        desk.ask(process, call, request)
    assert error.value.errno == "limit"
    assert not desk.ask(process, "kv.stat", request["file"]).busy
    return error.value


@in_loop
async def test_samples_of_a_pass() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        done = await forward(desk, process, a_pass(file, [1], samples=[sample(0)] * PASS_SAMPLES))
        assert len(done.tokens) == PASS_SAMPLES
        error = refused(desk, process, "inference.forward",
                        a_pass(file, [1], samples=[sample(0)] * (PASS_SAMPLES + 1)), str(PASS_SAMPLES))
        assert error.limit == "pass_samples"


@in_loop
async def test_probes_of_a_pass() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        done = await forward(desk, process, a_pass(file, [1], probes=[probe(0, "entropy")] * PASS_PROBES))
        assert len(done.probes) == PASS_PROBES
        error = refused(desk, process, "inference.forward",
                        a_pass(file, [1], probes=[probe(0, "entropy")] * (PASS_PROBES + 1)), str(PASS_PROBES))
        assert error.limit == "pass_probes"


@in_loop
async def test_numbers_that_probes_answer() -> None:
    async with Desk(vocabulary_size=LARGE) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        done = await forward(desk, process, a_pass(file, [1], probes=[probe(0, "logits")] * LOGITS))
        assert sum(len(p.value) for p in done.probes) == PASS_PROBE_VALUES
        one_more = [*[probe(0, "logits")] * LOGITS, probe(0, "entropy")]
        error = refused(desk, process, "inference.forward", a_pass(file, [1], probes=one_more), str(PASS_PROBE_VALUES))
        assert error.limit == "pass_probe_values"


@in_loop
async def test_tokens_of_a_probe() -> None:
    async with Desk(vocabulary_size=LARGE) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        most = list(range(PROBE_TOKENS))
        done = await forward(desk, process, a_pass(
            file, [1], probes=[probe(0, "top", PROBE_TOKENS), probe(0, "log-probabilities", most)]))
        assert len(done.probes[0].value.tokens) == len(done.probes[1].value) == PROBE_TOKENS
        for past in (probe(0, "top", PROBE_TOKENS + 1), probe(0, "log-probabilities", [*most, 0])):
            with pytest.raises(Invalid, match=str(PROBE_TOKENS)):
                desk.ask(process, "inference.forward", a_pass(file, [1], probes=[past]))


def biases(count: int, value: float = 1.0) -> list[dict[str, Any]]:
    return [{"token": token, "value": value} for token in range(count)]


def penalties(**more: float) -> dict[str, Any]:
    return {"repetition": 1.0, "frequency": 0.0, "presence": 0.0, "window": 0, **more}


@in_loop
async def test_biases_of_a_sampler() -> None:
    async with Desk(vocabulary_size=LARGE) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, [1], samples=[sample(0, bias=biases(SAMPLER_BIASES, -BIAS_MOST))]))
        too_many = biases(SAMPLER_BIASES + 1)
        error = refused(desk, process, "inference.forward", a_pass(file, [1], samples=[sample(0, bias=too_many)]),
                        str(SAMPLER_BIASES))
        assert error.limit == "sampler_biases"
        refused(desk, process, "inference.decode", a_run(file, [1], sampler=a_sampler(bias=too_many)), "a mask takes")
        twice, outside = [*biases(1), *biases(1)], [{"token": LARGE, "value": 1.0}]
        for wrong, why in ((biases(1, BIAS_MOST + 1), "-1000 to 1000"), (biases(1, float("-inf")), "a mask rules"),
                           (biases(1, float("nan")), "1000"), (twice, "twice"), (outside, "vocabulary")):
            with pytest.raises(Invalid, match=why):
                desk.ask(process, "inference.forward", a_pass(file, [1], samples=[sample(0, bias=wrong)]))


@in_loop
async def test_penalties_of_a_sampler() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        most = penalties(repetition=PENALTY_MOST, frequency=-PENALTY_MOST, presence=PENALTY_MOST, window=2**32 - 1)
        await forward(desk, process, a_pass(file, [1], samples=[sample(0, penalties=most)]))
        for wrong, field in ((penalties(repetition=0.0), "repetition"), (penalties(repetition=101.0), "repetition"),
                             (penalties(frequency=101.0), "frequency"), (penalties(presence=-101.0), "presence"),
                             (penalties(presence=float("nan")), "presence")):
            with pytest.raises(Invalid, match=f"penalties.{field} is .* it must be a number from"):
                desk.ask(process, "inference.decode", a_run(file, [1], sampler=a_sampler(penalties=wrong)))


@in_loop
async def test_tokens_that_samples_of_a_pass_concern() -> None:
    count = PASS_TOLD_TOKENS // PASS_SAMPLES
    async with Desk(context_tokens=2 * PASS_TOLD_TOKENS) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        asked = [sample(count - 1, penalties=penalties(presence=1.0))] * PASS_SAMPLES
        done = await forward(desk, process, a_pass(file, [1] * count, samples=asked))
        assert len(done.tokens) == PASS_SAMPLES
        one_more = [sample(0, penalties=penalties(presence=1.0))] * PASS_SAMPLES
        error = refused(desk, process, "inference.forward", a_pass(file, [1], samples=one_more), "fewer samples")
        assert error.limit == "pass_told_tokens"
        windowed = [sample(0, penalties=penalties(presence=1.0, window=count))] * PASS_SAMPLES
        await forward(desk, process, a_pass(file, [1], samples=windowed))
        everything = a_run(file, [1], sampler=a_sampler(penalties=penalties(presence=1.0)))
        refused(desk, process, "inference.decode", everything, "a window")


@in_loop
async def test_reads_of_a_pass() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file, page = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(page, [1]))
        await forward(desk, process, a_pass(file, [1], reads=[page] * PASS_READS))
        for call, ask in (("forward", a_pass), ("decode", a_run)):
            error = refused(desk, process, f"inference.{call}", ask(file, [1], reads=[page] * (PASS_READS + 1)),
                            str(PASS_READS))
            assert error.limit == "pass_reads"


@in_loop
async def test_a_file_of_many_parts_counts_as_many_reads() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        page, file = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(page, [1, 2, 3, 4]))
        pieces = [{"first": first, "count": 1} for first in (0, 2)] * (PASS_READS // 2 - 1)
        many = desk.ask(process, "kv.extract", page, pieces)
        await forward(desk, process, a_pass(file, [1], reads=[many, page, page]))
        own = desk.ask(process, "kv.concat", [many])
        for asked in (a_pass(file, [1], reads=[many, page, page, page]), a_pass(own, [1], reads=[page] * 3)):
            assert refused(desk, process, "inference.forward", asked, "1025").limit == "pass_reads"


@in_loop
async def test_visible_ranges_of_a_pass() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        ranges = [{"row": 0, "first": 0, "count": 1}] * VISIBLE_RANGES
        await forward(desk, process, a_pass(file, [1], visible=ranges))
        desk.ask(process, "kv.truncate", file, 0)
        error = refused(desk, process, "inference.forward", a_pass(file, [1], visible=[*ranges, ranges[0]]),
                        str(VISIBLE_RANGES))
        assert error.limit == "visible_ranges"


@in_loop
async def test_stop_tokens_of_a_run() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        most = list(range(10_000, 10_000 + STOP_TOKENS))
        run = desk.ask(process, "inference.decode", a_run(file, [1], stop_tokens=most))
        desk.ask(process, "events.close", run)
        error = refused(desk, process, "inference.decode", a_run(file, [1], stop_tokens=[*most, 1]), str(STOP_TOKENS))
        assert error.limit == "stop_tokens"


@in_loop
async def test_states_and_moves_of_a_run() -> None:
    def states(count: int, moves: int) -> list[dict[str, Any]]:
        whole = {"mask": None, "moves": [], "otherwise": None, "open": True}
        return [whole | {"moves": [{"token": n, "state": 0} for n in range(moves)]}, *[whole] * (count - 1)]

    async with Desk(vocabulary_size=LARGE) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        run = desk.ask(process, "inference.decode", a_run(file, [1], states=states(RUN_STATES, RUN_MOVES)))
        desk.ask(process, "events.close", run)
        for asked in (states(RUN_STATES + 1, 0), states(1, RUN_MOVES + 1)):
            error = refused(desk, process, "inference.decode", a_run(file, [1], states=asked), str(RUN_STATES))
            assert error.limit == "states"


@in_loop
async def test_stop_sequences_of_a_run() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        most = [[1023] * STOP_SEQUENCE_TOKENS] * STOP_SEQUENCES
        run = desk.ask(process, "inference.decode", a_run(file, [1], stop_sequences=most))
        desk.ask(process, "events.close", run)
        for past in ([*most, [1]], [[1] * (STOP_SEQUENCE_TOKENS + 1)]):
            error = refused(desk, process, "inference.decode", a_run(file, [1], stop_sequences=past),
                            str(STOP_SEQUENCES))
            assert error.limit == "stop_sequences"


@in_loop
async def test_tokens_of_a_pass() -> None:
    async with Desk(pages=PASS_TOKENS // 64 + 1, page_tokens=64, context_tokens=PASS_TOKENS + 64) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, [1] * PASS_TOKENS))
        assert desk.ask(process, "kv.stat", file).tokens == PASS_TOKENS
        desk.ask(process, "kv.truncate", file, 0)
        with pytest.raises(Invalid, match=str(PASS_TOKENS)):
            desk.ask(process, "inference.forward", a_pass(file, [1] * (PASS_TOKENS + 1)))


# --- pages ---

@in_loop
async def test_pages_of_a_process() -> None:
    async with Desk(limits=ProcessLimits(kv_pages=2)) as desk:
        process = desk.spawn()
        file, other = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, [1] * 32))
        error = refused(desk, process, "inference.forward", a_pass(file, [1]), "its limit is 2")
        assert error.limit == "kv_pages"
        refused(desk, process, "inference.decode", a_run(other, [1]), "its limit is 2")
        desk.ask(process, "kv.truncate", file, 16)
        await forward(desk, process, a_pass(other, [1] * 16))


@in_loop
async def test_a_fork_takes_its_own_last_page_without_one_more() -> None:
    # Bug: the copy of a shared page is counted as a page more, though the file holds as many as before.
    async with Desk(limits=ProcessLimits(kv_pages=2)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, [1] * 8))
        fork = desk.ask(process, "kv.fork", file)
        await forward(desk, process, a_pass(fork, [1]))
        assert process.files.pages() == 2


@in_loop
async def test_a_run_ends_where_the_pages_of_its_process_end() -> None:
    async with Desk(limits=ProcessLimits(kv_pages=2)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        run = desk.ask(process, "inference.decode", a_run(file, [1] * 20, max_tokens=50, deliver_every=50))
        await desk.wait(process, run)
        progress = desk.ask(process, "inference.take-tokens", run)
        assert (len(progress.tokens), progress.finish) == (13, "context-full")
        assert desk.ask(process, "kv.stat", file).tokens == 32


@pytest.mark.parametrize("call", ["forward", "decode"])
@in_loop
async def test_work_under_way_counts_with_the_pages_it_will_take(call: str) -> None:
    async with Desk(limits=ProcessLimits(kv_pages=4)) as desk:
        process = desk.spawn()
        requests = []
        for _ in range(3):
            file = desk.ask(process, "kv.create")
            request = a_pass(file, [1] * 32) if call == "forward" else a_run(file, [1], max_tokens=32, deliver_every=99)
            requests.append(request)
        handles = []
        for request in requests:
            with suppress(LimitExceeded):
                handles.append(desk.ask(process, f"inference.{call}", request))
        assert handles
        await desk.wait(process, *handles)
        assert process.files.pages() <= 4


@in_loop
async def test_a_full_pool_fails_the_pass_that_found_no_room() -> None:
    async with Desk(pages=4) as desk:
        process, neighbour = desk.spawn(), desk.spawn("bob")
        mine, theirs = desk.ask(process, "kv.create"), desk.ask(neighbour, "kv.create")
        await forward(desk, neighbour, a_pass(theirs, [1] * 48))
        one = desk.ask(process, "inference.forward", a_pass(mine, [1] * 80))
        assert await desk.wait(process, one) == [one]
        with pytest.raises(NoPages, match="needs 5 KV pages, and 4 of 4 are free"):
            desk.ask(process, "inference.take-pass", one)
        assert desk.ask(process, "kv.stat", mine).tokens == 0
        assert desk.ask(neighbour, "kv.stat", theirs).tokens == 48
        await forward(desk, process, a_pass(mine, [1] * 16))


async def preempted(desk: Desk, process: Process) -> tuple[list[int], list[int], dict[int, int]]:
    """Three files, runs on them of which the last is preempted, and how many tokens of each were taken."""
    files = [desk.ask(process, "kv.open", f"book {n}", CREATE) for n in range(3)]
    runs = [desk.ask(process, "inference.decode", a_run(file, [1, 2], max_tokens=19)) for file in files]
    taken = dict.fromkeys(runs, 0)
    while not desk.engine.preemptions:
        await desk.wait(process, *runs, until="any")
        for run in runs:
            taken[run] += len(desk.ask(process, "inference.take-tokens", run).tokens)
    return files, runs, taken


@pytest.mark.parametrize("how", ["inference.stop", "events.close"])
@in_loop
async def test_a_run_that_was_preempted_stops_like_any_other(how: str) -> None:
    async with Desk(pages=6, page_tokens=4, patience_seconds=5.0) as desk:
        process = desk.spawn()
        files, runs, taken = await preempted(desk, process)
        for run in runs[:2]:
            await desk.ask_and_wait(process, how, run)
        last = desk.ask(process, how, runs[2])
        assert isinstance(last, Suspension), "it must be fed again before its file is what it would have been"
        desk.ask(process, "kv.truncate", files[0], 0)        # the pool holds two of them as they stood, not three
        awake = asyncio.Event()
        last.subscribe(awake.set)
        await asyncio.wait_for(awake.wait(), 20)
        assert last.answer() is None
        if how == "inference.stop":
            assert desk.ask(process, "inference.take-tokens", runs[2])[:2] == ([], "stopped")
        left = [desk.ask(process, "kv.stat", file) for file in files[1:]]
        assert [status.tokens for status in left] == [2 + taken[run] - 1 for run in runs[1:]]
        assert not any(status.busy for status in left)


@in_loop
async def test_a_process_killed_while_a_preempted_run_stops_leaves_nothing() -> None:
    async with Desk(pages=6, page_tokens=4, patience_seconds=5.0) as desk:
        process, later = desk.spawn(), desk.spawn()
        _, runs, _ = await preempted(desk, process)
        stopping = desk.ask(process, "events.close", runs[2])
        wakes: list[bool] = []
        stopping.subscribe(lambda: wakes.append(True))
        process.kill()
        stopping.abandon()
        desk.check_all_returned()
        await desk.settle()
        assert not wakes
        desk.ask(later, "kv.unlink", "book 0")
        again = desk.ask(later, "kv.open", "book 2", CREATE)
        assert desk.ask(later, "kv.stat", again).busy is False
        await forward(desk, later, a_pass(again, [1]))
