"""One program: its payload is imported, its `main` is called and awaited, its end is told to the kernel."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from types import CoroutineType, ModuleType

from cadenza import loop
from cadenza.arguments import Arguments

from . import output, standard, traces
from .sources import Sources, no_main

Payload = Sequence[tuple[str, str]]


class Failure(Exception):
    """The program failed; the text is what its exit status says."""


def check(payload: Payload) -> None:
    """Raises Failure, with file and line, when the payload cannot run."""
    faults = Sources(payload).faults()
    if faults:
        raise Failure("\n".join(faults))


def run(payload: Payload, arguments: str, entropy: int) -> int | None:
    """Runs the payload to its end. Answers the exit code if it asked for one. Raises Failure."""
    try:
        sources = Sources(payload)
        standard.begin(sources.files, entropy)
        sources.install()
        answer = call_main(sources.load(sources.entry()), Arguments(json.loads(arguments)))
        if answer is not None:
            print(answer if isinstance(answer, str) else json.dumps(answer))
    except SystemExit as leaving:
        return exit_code(leaving.code)
    except BaseException as error:  # noqa: BLE001 - the program's boundary: whatever it raised becomes its exit status
        traces.excepthook(type(error), error, error.__traceback__)
        raise Failure(traces.in_one_line(error)) from None
    finally:
        output.flush()
    return None


def call_main(module: ModuleType, arguments: Arguments) -> object:
    """What `main` answers, awaited if it is a coroutine. It may do without its argument."""
    main: Callable[..., object] | None = getattr(module, "main", None)
    if main is None:
        raise AttributeError(no_main(str(module.__file__)))
    code = getattr(main, "__code__", None)
    without = code is not None and not code.co_argcount and not code.co_flags & inspect.CO_VARARGS
    answer = main() if without else main(arguments)
    return loop.new().run(answer) if isinstance(answer, CoroutineType) else answer


def exit_code(code: object) -> int:
    """What `sys.exit(code)` means: a number is the exit code, a text is printed and means 1."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        return 1
    return (code or 0) & 0xFF
