"""One program: its payload is imported, its `main` is called and awaited, its end is told to the kernel."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable
from types import ModuleType

from cadenza.arguments import Arguments
from cadenza.loop import Loop
from wit_world.imports import process

from . import output, standard, traces
from .sources import Sources, no_main


class Failure(Exception):
    """The program failed; the text is what its exit status says."""


def check() -> None:
    """Raises Failure, with file and line, when the payload cannot run."""
    faults = Sources(process.payload()).faults()
    if faults:
        raise Failure("\n".join(faults))


def run() -> None:
    """Runs the payload to its end. Raises Failure; does not return when the program exits."""
    try:
        sources = Sources(process.payload())
        standard.begin(sources.files)
        sources.install()
        answer = call_main(load(sources.entry()), Arguments(json.loads(process.arguments())))
        if answer is not None:
            print(answer if isinstance(answer, str) else json.dumps(answer))
    except SystemExit as leaving:
        exit_with(leaving.code)
    except BaseException as error:  # the program's boundary: whatever it raised becomes its exit status
        traces.excepthook(type(error), error, error.__traceback__)
        raise Failure(traces.in_one_line(error)) from None
    finally:
        output.flush()


def load(path: str) -> ModuleType:
    """The entry's module, imported."""
    return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def call_main(module: ModuleType, arguments: Arguments) -> object:
    """What `main` answers, awaited if it is a coroutine. It may do without its argument."""
    main: Callable[..., object] | None = getattr(module, "main", None)
    if main is None:
        raise AttributeError(no_main(str(module.__file__)))
    code = getattr(main, "__code__", None)
    without = code is not None and not code.co_argcount and not code.co_flags & inspect.CO_VARARGS
    answer = main() if without else main(arguments)
    return Loop().run(answer) if inspect.iscoroutine(answer) else answer


def exit_with(code: object) -> None:
    """What `sys.exit(code)` means: a number is the exit code, a text is printed and means 1."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    output.flush()
    process.exit((code or 0) & 0xFF)
