"""What the standard library asks of an operating system: answered by the kernel, or refused with the reason.

The image has no WASI: a call that reached it would trap, and end the program without a word. So each function that
would is replaced, wherever in the library it is already known.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from types import BuiltinFunctionType, ModuleType
from typing import Any, NoReturn

from wit_world.imports import events, process

from cadenza import loop

HARMLESS = {
    "fspath",
    "strerror",
    "getpid",
    "getcwd",
    "getcwdb",
    "putenv",
    "unsetenv",
    "register_at_fork",
    "waitstatus_to_exitcode",
    "_path_normpath",
    "_path_splitroot",
    "_path_splitroot_ex",
    "_is_inputhook_installed",
    "_inputhook",
}
"""Functions of `posix` that ask nothing of an operating system."""

SOCKET_FUNCTIONS = (
    "getaddrinfo",
    "getnameinfo",
    "gethostbyname",
    "gethostbyaddr",
    "gethostname",
    "getfqdn",
    "create_connection",
)

_files: dict[str, str] = {}


def begin(files: Mapping[str, str], entropy: int) -> None:
    """What each process does first: its own randomness, its own files."""
    _files.clear()
    _files.update(files)
    random.seed(entropy)


# --- time ---


def wall_clock() -> float:
    return events.wall_clock() / 1e9


def monotonic() -> float:
    return events.now() / 1e9


def sleep(seconds: float, /) -> None:
    """Blocks the whole program; in `async` code, `await asyncio.sleep(seconds)` lets other tasks run."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    while seconds > 0:
        turn = min(seconds, loop.LONGEST_WAIT_SECONDS)
        events.wait([], events.Until.ANY, int(turn * 1e9), [])
        seconds -= turn


def with_now(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `time` that takes seconds, and the present when there are none."""
    return lambda seconds=None, /: function(wall_clock() if seconds is None else seconds)


# --- randomness ---


def urandom(count: int, /) -> bytes:
    words = [process.entropy().to_bytes(8, "little") for _ in range((count + 7) // 8)]
    return b"".join(words)[:count]


_seed = random.Random.seed


def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    """`random.Random.seed`, with the kernel's entropy where the operating system's would be taken."""
    _seed(self, process.entropy() if a is None else a, version)


# --- files ---


def open_source(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    """`open` for the files of the payload, to be read; there are no others."""
    name = str(file).removeprefix("./")
    if name in _files and mode in ("r", "rt"):
        return io.StringIO(_files[name])
    if name in _files and mode == "rb":
        return io.BytesIO(_files[name].encode())
    raise no_files(file)


def no_files(name: object = None) -> PermissionError:
    reason = "a program has no file system; it can read the files that were uploaded with it"
    return PermissionError(errno.EACCES, reason, None if name is None else str(name))


def refuse_file(*args: Any, **kwargs: Any) -> NoReturn:
    raise no_files(args[0] if args and isinstance(args[0], str | bytes) else None)


def refuse_open(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: for C code that opens files itself, as the parser does to quote a line that is wrong."""
    if event == "open":
        raise no_files(args[0] if args else None)


def refuse_socket(*args: Any, **kwargs: Any) -> NoReturn:
    raise PermissionError(errno.EACCES, "a program has no network; cadenza.http reaches the hosts of its manifest")


def leave(code: int) -> NoReturn:
    process.exit(code & 0xFF)
    raise SystemExit(code)


# --- all of it ---


class Policy(asyncio.AbstractEventLoopPolicy):
    """`asyncio.run` and its like get the kernel's loop too."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return loop.new()

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        raise RuntimeError("there is no event loop outside `async` code")

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Nothing: `asyncio.run` keeps its own."""


def replacements() -> dict[int, Callable[..., Any]]:
    """The function that takes the place of another, by the other's id."""
    instead: dict[Callable[..., Any], Callable[..., Any]] = {
        time.time: wall_clock,
        time.time_ns: events.wall_clock,
        time.sleep: sleep,
        time.asctime: lambda t=None, _was=time.asctime: _was(time.gmtime() if t is None else t),
        time.strftime: lambda f, t=None, _was=time.strftime: _was(f, time.gmtime() if t is None else t),
        os.urandom: urandom,
        os._exit: leave,
        open: open_source,
    }
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        if hasattr(time, name):
            instead[getattr(time, name)] = monotonic
            instead[getattr(time, name + "_ns")] = events.now
    for function in (time.gmtime, time.localtime, time.ctime):
        instead[function] = with_now(function)
    posix = sys.modules["posix"]
    for name, value in vars(posix).items():
        if isinstance(value, BuiltinFunctionType) and name not in HARMLESS:
            instead.setdefault(value, refuse_file)
    instead[os.isatty] = lambda fd: False
    for name in SOCKET_FUNCTIONS:
        if hasattr(socket, name):
            instead[getattr(socket, name)] = refuse_socket
    return {id(was): now for was, now in instead.items()}


def install() -> None:
    """Replaces them everywhere. Called once, when all that programs can import has been imported."""
    instead = replacements()
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module.__name__ != __name__:
            namespace = vars(module)
            for name in [name for name, value in namespace.items() if id(value) in instead]:
                namespace[name] = instead[id(namespace[name])]
    setattr(random.Random, "seed", seed)  # noqa: B010 - mypy forbids the plain assignment
    setattr(socket.socket, "__init__", refuse_socket)  # noqa: B010
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not PathFinder]
    sys.path_importer_cache.clear()
    sys.addaudithook(refuse_open)
    asyncio.set_event_loop_policy(Policy())
