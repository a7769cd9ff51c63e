"""The process service over a real connection: spawn, attach, wait, signals, and what a lost client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cadenza.kernel.limits import ARGUMENTS_BYTES, MESSAGE_BYTES, ProcessLimits
from cadenza.sdk.client import (
    Client,
    DeadlineExceeded,
    Event,
    ExitStatus,
    Invalid,
    LimitExceeded,
    Limits,
    Lost,
    NotFound,
    Output,
    Process,
)
from cadenza.sdk.client.errors import Closed
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceStub
from cadenza.server.auth import add_key

from .serving import LOOPBACK, PROGRAM, Served, run, served


async def spawned(server: Served, *, bound: bool = False, limits: Limits | None = None, **wishes: object) -> Process:
    image = await server.client.upload(PROGRAM, name="agent", reuse=True)
    return await server.client.spawn(image, wishes, bound=bound, limits=limits)


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Output)]


def test_spawn_wait_get_list() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["hello"], code=3)
            assert (process.pid, process.snapshot.image_name) == (1, "agent")
            assert await process.wait() == ExitStatus("exited", 3, "")
            await process.refresh()
            assert process.state == "ended"
            assert process.exit == ExitStatus("exited", 3, "")
            assert process.snapshot.ended_at is not None
            assert process.snapshot.usage == {"output_bytes": 5}
            second = await spawned(server, hang=True)
            assert [p.pid for p in await server.client.processes()] == [1, second.pid]
            assert second.exit is None
            assert second.snapshot.ended_at is None

    run(test())


def test_an_ended_process_is_forgotten_when_its_owner_says_so(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")

    async def test() -> None:
        async with served(replace(LOOPBACK, keys=keys), key=ann) as server:
            kept, gone = await spawned(server, say=["kept"]), await spawned(server)
            alive = await spawned(server, hang=True)
            async with Client(server.daemon.address, key=bob) as other, grpc.aio.insecure_channel(
                    server.daemon.address) as channel:
                metadata = (("authorization", f"Bearer {bob}"),)
                with pytest.raises(grpc.aio.AioRpcError, match="no process"):
                    await ProcessServiceStub(channel).Forget(pb.ForgetRequest(pid=gone.pid), metadata=metadata)
                assert await other.processes() == []
            with pytest.raises(Invalid, match="alive"):
                await alive.forget()
            await gone.forget()
            for again in (gone.forget(), gone.wait(), gone.refresh()):
                with pytest.raises(NotFound):
                    await again
            assert [process.pid for process in await server.client.processes()] == [kept.pid, alive.pid]
            assert texts([event async for event in kept.logs()]) == ["kept"]

    run(test())


def test_unknown_image_and_process() -> None:
    async def test() -> None:
        async with served() as server:
            with pytest.raises(NotFound, match="'nobody'"):
                await server.client.spawn("nobody")
            with pytest.raises(NotFound, match="no process 7"):
                await server.client.process(7)

    run(test())


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"x": NaN}', "[" * 60_000, '"text"'])
def test_arguments_must_be_a_json_object(arguments: str) -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            await server.client.upload(PROGRAM, name="agent")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ProcessServiceStub(channel).Spawn(pb.SpawnRequest(image="agent", arguments=arguments))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = rpc_status.from_call(caught.value)
            info = error_details_pb2.ErrorInfo()
            assert status.details[0].Unpack(info)
            assert (info.reason, dict(info.metadata)) == ("INVALID", {"field": "arguments"})
            assert server.kernel.table == {}

    run(test())


def test_arguments_at_their_limit_and_one_past_it() -> None:
    async def test() -> None:
        async with served() as server:
            room = ARGUMENTS_BYTES - len('{"x": ""}')
            assert (await spawned(server, x="a" * room)).pid == 1
            with pytest.raises(LimitExceeded) as caught:
                await spawned(server, x="a" * (room + 1))
            assert caught.value.limit == "arguments_bytes"

    run(test())


def test_limits_are_the_operators_or_less() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, limits=Limits(kv_pages=7, wall_seconds=1.5))
            given = server.kernel.table[process.pid].limits
            assert (given.kv_pages, given.wall_seconds) == (7, 1.5)
            assert given.memory_bytes == ProcessLimits().memory_bytes
            with pytest.raises(LimitExceeded) as over:
                await spawned(server, limits=Limits(kv_pages=ProcessLimits().kv_pages + 1))
            assert over.value.limit == "kv_pages"
            for wrong in (0.0, -1.0, float("nan"), float("inf")):
                with pytest.raises(Invalid) as caught:
                    await spawned(server, limits=Limits(wall_seconds=wrong))
                assert caught.value.field == "limits.wall_seconds"

    run(test())


def test_attach_streams_output_and_messages() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["one", "two"], hang=True)
            events: list[Event] = []
            async with process.attach() as attachment:
                await attachment.send("ping")
                await attachment.send("stop")
                events = [event async for event in attachment]
            assert texts(events) == ["one", "two", "echo ping", "echo stop"]
            assert [event.kind for event in events if isinstance(event, Output)][1:3] == ["output", "message"]
            assert events[-1] == ExitStatus("finished", 0, "")
            with pytest.raises(Closed):
                await attachment.send("too late")

    run(test())


def test_attach_again_after_a_sequence() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["one", "two", "three"], hang=True)
            async with process.attach() as attachment:
                async for event in attachment:
                    if isinstance(event, Output) and event.text == "two":
                        break
            server.kernel.table[process.pid].output.write("output", "four")
            again = process.attach(attachment.after)
            await again.send("stop")
            assert texts([event async for event in again]) == ["three", "four", "echo stop"]

    run(test())


def test_a_refused_message_says_why_and_the_stream_goes_on() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, hang=True)
            async with process.attach() as attachment:
                with pytest.raises(LimitExceeded) as full:
                    await attachment.send("full")
                assert full.value.errno == "full"
                with pytest.raises(LimitExceeded, match=str(MESSAGE_BYTES)):
                    await attachment.send("x" * (MESSAGE_BYTES + 1))
                await attachment.send("x" * MESSAGE_BYTES)
                await attachment.send("stop")
                events = [event async for event in attachment]
            assert isinstance(events[-1], ExitStatus)

    run(test())


def test_attach_tells_how_many_events_are_lost() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["x" * 1000] * 10)
            events = [event async for event in process.attach()]
            assert events[0] == Lost(6)
            assert [event.sequence for event in events if isinstance(event, Output)] == [7, 8, 9, 10]

    run(test())


def test_attach_to_nothing_and_without_start() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            process = await spawned(server, hang=True)
            requests = [pb.AttachRequest(message=pb.ClientMessage(number=1, text="hello"))]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ProcessServiceStub(channel).Attach(iter(requests)).read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            twice = [pb.AttachRequest(start=pb.AttachStart(pid=process.pid))] * 2
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ProcessServiceStub(channel).Attach(iter(twice)).read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            process.snapshot = (await spawned(server)).snapshot
            server.kernel.table.clear()
            with pytest.raises(NotFound):
                await anext(process.attach())

    run(test())


def test_logs_of_what_there_is_and_of_what_comes() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["one", "two"], hang=True)
            assert texts([event async for event in process.logs()]) == ["one", "two"]
            assert texts([event async for event in process.logs(after=1)]) == ["two"]
            following = process.logs(follow=True)
            assert texts([await anext(following), await anext(following)]) == ["one", "two"]
            server.kernel.table[process.pid].output.write("error", "three")
            late = await anext(following)
            assert isinstance(late, Output)
            assert (late.sequence, late.kind, late.text) == (3, "error", "three")
            await process.kill()
            assert [event async for event in following] == [ExitStatus("killed", 137, "signal kill")]

    run(test())


def test_signals() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, hang=True, stubborn=True)
            await process.signal("interrupt")
            with pytest.raises(Invalid) as caught:
                await process.signal("hangup")
            assert caught.value.field == "signal"
            await process.kill()
            assert server.kernel.table[process.pid].signals == ["interrupt", "kill"]

    run(test())


def test_deadline_of_a_wait_passes_and_the_process_goes_on() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, hang=True)
            with pytest.raises(DeadlineExceeded):
                await process.wait(timeout=0.1)
            while server.kernel.table[process.pid].waiting:
                await asyncio.sleep(0.01)
            assert (await process.refresh()).state == "running"

    run(test())


def test_a_bound_process_dies_with_its_client() -> None:
    async def test() -> None:
        async with served(bound_seconds=0.1) as server:
            process = await spawned(server, bound=True, hang=True)
            assert not server.kernel.table[process.pid].detached
            async with process.attach() as attachment:
                await attachment.send("hello")
                await asyncio.sleep(0.3)
                assert (await process.refresh()).state == "running"
            ended = await process.wait()
            assert (ended.ending, ended.code, "client has been gone" in ended.message) == ("killed", 137, True)

    run(test())


def test_a_bound_process_that_nobody_attached_to_dies() -> None:
    async def test() -> None:
        async with served(bound_seconds=0.1) as server:
            process = await spawned(server, bound=True, hang=True)
            assert (await process.wait()).ending == "killed"

    run(test())


def test_a_bound_process_survives_a_client_that_comes_back() -> None:
    async def test() -> None:
        async with served(bound_seconds=1.0) as server:
            process = await spawned(server, bound=True, hang=True)
            for _ in range(3):
                async with process.attach() as attachment:
                    await attachment.send("hello")
                    await asyncio.sleep(0.5)
            assert (await process.refresh()).state == "running"

    run(test())


def test_a_detached_process_keeps_output_and_exit_status() -> None:
    async def test() -> None:
        async with served(bound_seconds=0.05) as server:
            process = await spawned(server, say=["kept"], hang=True)
            async with process.attach() as attachment:
                await anext(attachment)
            await asyncio.sleep(0.2)
            assert (await process.refresh()).state == "running"
            await process.kill()
            events = [event async for event in process.attach()]
            assert texts(events) == ["kept"]
            assert events[-1] == ExitStatus("killed", 137, "signal kill")

    run(test())


def test_a_list_is_cut_by_bytes_too() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            for _ in range(20):
                await spawned(server, hang=True, x="a" * 60_000)
            page = await ProcessServiceStub(channel).List(pb.ListProcessesRequest(page_size=1000))
            assert 0 < len(page.processes) < 20
            assert len(await server.client.processes()) == 20

    run(test())


def test_a_flood_goes_in_batches_and_nothing_is_missing() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            process = await spawned(server, hang=True, say=["0"])
            call = ProcessServiceStub(channel).Logs(pb.LogsRequest(pid=process.pid, follow=True))
            batches = [await anext(_rest(call))]
            for number in range(1, 1000):
                server.kernel.table[process.pid].output.write("output", str(number))
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await process.kill()
            batches += [batch async for batch in _rest(call)]
            events = [event for batch in batches for event in batch.events]
            assert [event.output.text for event in events[:-1]] == [str(number) for number in range(1000)]
            assert events[-1].HasField("exit")
            assert len(batches) < 100

    async def _rest(call: grpc.aio.UnaryStreamCall[pb.LogsRequest, pb.Events]) -> AsyncIterator[pb.Events]:
        while isinstance(batch := await call.read(), pb.Events):
            yield batch

    run(test())


def test_as_much_text_at_once_as_a_process_may_say() -> None:
    async def test() -> None:
        async with served() as server:
            process = await spawned(server, say=["x"])
            server.kernel.table[process.pid].output.write("output", "x" * ProcessLimits().output_bytes)
            event = await anext(process.attach())
            assert event == Lost(1)
            attachment = process.attach(1)
            event = await anext(attachment)
            assert isinstance(event, Output)
            assert len(event.text) == ProcessLimits().output_bytes
            assert isinstance(await anext(attachment), ExitStatus)

    run(test())


def test_200_attached_clients() -> None:
    async def test() -> None:
        async with served() as server:
            processes = [await spawned(server, hang=True) for _ in range(200)]
            attachments = [process.attach() for process in processes]
            await asyncio.gather(*(attachment.send("stop") for attachment in attachments))
            endings = [[event async for event in attachment][-1] for attachment in attachments]
            assert endings == [ExitStatus("finished", 0, "")] * 200

    run(test())
