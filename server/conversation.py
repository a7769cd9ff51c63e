"""A person, or a script, and a program: its output to the terminal, lines and Ctrl-C to it."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cadenza.server.screen import Screen

if TYPE_CHECKING:
    from cadenza.sdk.client import Attachment, Event, ExitStatus, Process

READ_BYTES = 64 << 10
FULL_PAUSE_SECONDS = 0.05                   # before a line that found the program's queue full is sent again


async def converse(process: Process, screen: Screen, *, after: int = 0) -> ExitStatus:
    """Until the process ends. Raises the ClientError that the connection ended with."""
    from cadenza.sdk.client import ExitStatus

    async with process.attach(after) as attachment:
        typing = asyncio.ensure_future(_send_lines(attachment, screen))
        restore = _on_interrupt(process, screen)
        try:
            async for event in attachment:
                show(screen, event)
                if isinstance(event, ExitStatus):
                    return event
        finally:
            restore()
            typing.cancel()
            with suppress(asyncio.CancelledError):
                await typing
    raise AssertionError("an attachment ends with an exit status or an error")


def show(screen: Screen, event: Event) -> None:
    """One event. As text, output goes out as it is, a message on a line of its own."""
    from cadenza.sdk.client import ExitStatus, Lost

    if screen.json:
        screen.value(_value(event))
    elif isinstance(event, ExitStatus):
        if event.ending not in ("finished", "exited"):
            screen.remark(f"cadenza: {event.ending}{': ' if event.message else ''}{event.message}")
    elif isinstance(event, Lost):
        screen.remark(f"cadenza: {event.events} earlier events are no longer kept")
    elif event.kind == "message":
        screen.text(event.text if event.text.endswith("\n") else event.text + "\n")
    else:
        screen.text(event.text, error=event.kind == "error")


def exit_code(status: ExitStatus) -> int:
    """What the command ends with: the program's code, and never 0 for an ending that is no success."""
    if status.code == 0 and status.ending not in ("finished", "exited"):
        return 1
    return status.code


def _value(event: Event) -> dict[str, object]:
    from cadenza.sdk.client import ExitStatus, Lost

    if isinstance(event, ExitStatus):
        return {"exit": {"ending": event.ending, "code": event.code, "message": event.message}}
    if isinstance(event, Lost):
        return {"lost": event.events}
    time = event.time.timestamp()
    return {"sequence": event.sequence, "time": time, "kind": event.kind, "text": event.text}


def _on_interrupt(process: Process, screen: Screen) -> Callable[[], None]:
    """Ctrl-C: interrupts the process, then kills it. Answers what undoes this."""
    loop = asyncio.get_running_loop()
    sent: list[asyncio.Task[None]] = []

    async def send(name: str) -> None:
        from cadenza.sdk.client import ClientError

        try:
            await process.signal(name)
        except ClientError as error:  # it has ended, and its exit is on its way
            screen.remark(f"cadenza: {error.message}")

    def interrupted() -> None:
        name = "kill" if sent else "interrupt"
        screen.remark(f"cadenza: {name}" + ("; once more to kill it" if name == "interrupt" else ""))
        sent.append(loop.create_task(send(name)))

    loop.add_signal_handler(signal.SIGINT, interrupted)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        for task in sent:
            task.cancel()

    return restore


async def _send_lines(attachment: Attachment, screen: Screen) -> None:
    """Each line of standard input is a message. One that is refused is reported; a full queue is waited for."""
    from cadenza.sdk.client import ClientError

    lines: asyncio.Queue[str] = asyncio.Queue()
    if not _read_lines(asyncio.get_running_loop(), lines):
        return
    while True:
        line = await lines.get()
        try:
            while not await _fits(attachment, line):
                await asyncio.sleep(FULL_PAUSE_SECONDS)
        except ClientError as error:
            if error.errno != "closed":
                screen.error(error.errno, error.message, limit=error.limit)


async def _fits(attachment: Attachment, line: str) -> bool:
    from cadenza.sdk.client import LimitExceeded

    try:
        await attachment.send(line)
    except LimitExceeded as error:
        if error.errno != "full":
            raise
        return False
    return True


def _in_background(descriptor: int) -> bool:
    """Whether reading it would stop us: it is our terminal, and another job's turn."""
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except OSError:  # no terminal, or not ours
        return False


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str]) -> bool:
    """Reads standard input on a thread that nobody waits for. Not that of a terminal we are in the background of."""
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or no file
        return False
    if _in_background(descriptor):
        return False

    def read() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        # os.read, not sys.stdin: its lock would keep the interpreter from ending
        with suppress(OSError, RuntimeError):  # RuntimeError: the loop is closed, nobody reads any more
            while data := os.read(descriptor, READ_BYTES):
                *whole, rest = (rest + decoder.decode(data)).split("\n")
                for line in whole:
                    loop.call_soon_threadsafe(lines.put_nowait, line)
            if rest:
                loop.call_soon_threadsafe(lines.put_nowait, rest)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return True
