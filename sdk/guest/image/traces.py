"""Exceptions as their reader needs them: the frames of the program, not those of the image."""

from __future__ import annotations

import importlib
import os
import sys
from traceback import StackSummary, TracebackException, format_exception_only
from types import TracebackType

OWN_FOLDER = os.path.dirname(__file__)
LOOP_FILE = os.path.join(os.path.dirname(OWN_FOLDER), "cadenza", "loop.py")
OWN = (OWN_FOLDER, LOOP_FILE, importlib.__file__, "<frozen importlib")


def own(filename: str) -> bool:
    """Whether a frame of this file tells the program's author nothing."""
    return filename.startswith(OWN)


def trim(error: TracebackException, seen: set[int]) -> None:
    """Leaves the program's frames, in the causes too."""
    if id(error) in seen:
        return
    seen.add(id(error))
    error.stack = StackSummary.from_list([frame for frame in error.stack if not own(frame.filename)])
    for other in (error.__cause__, error.__context__, *(error.exceptions or ())):
        if other is not None:
            trim(other, seen)


def written(error: BaseException) -> str:
    """The traceback as Python prints it."""
    trace = TracebackException.from_exception(error, compact=True)
    trim(trace, set())
    return "".join(trace.format())


def in_one_line(error: BaseException) -> str:
    """`ValueError: what was wrong`."""
    return " ".join(format_exception_only(error)[-1].split())


def excepthook(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    """What `sys.excepthook` is in a program."""
    if sys.stdout is not None:
        sys.stdout.flush()
    sys.stderr.write(written(error))
