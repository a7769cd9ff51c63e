"""Interface `channel`: messages to and from the client, and between the programs of one user."""

from __future__ import annotations

from cadenza.kernel.channels import Message, Source
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.kernel.wasm.seams import quick
from cadenza.syscalls.arguments import fetch_message, fetch_name


class ChannelCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._exchange = kernel.exchange

    def send(self, process: Process, text: str) -> None:
        process.write("message", fetch_message(text))

    def receive(self, process: Process) -> int:
        return process.handles.add(process.inbox)

    def publish(self, process: Process, topic: str, text: str) -> int:
        return self._exchange.publish(process.owner, fetch_name(topic), fetch_message(text))

    def subscribe(self, process: Process, topic: str) -> int:
        process.handles.ensure_room()
        return process.handles.add(self._exchange.subscribe(process.owner, fetch_name(topic)))

    def push(self, process: Process, queue: str, text: str) -> None:
        self._exchange.queue(process.owner, fetch_name(queue)).put(fetch_message(text))

    def pull(self, process: Process, queue: str) -> int:
        process.handles.ensure_room()
        return process.handles.add(self._exchange.queue(process.owner, fetch_name(queue)).join())

    @quick
    def take_message(self, process: Process, source: int) -> Message | None:
        return process.handles.get(source, Source).take()
