"""Errors of the ABI."""

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from componentize_py_types import Err

NAMES = "INVALID NOT_FOUND EXISTS DENIED BUSY LIMIT NO_PAGES TOO_LONG NOT_READY CANCELLED CLOSED FULL DEVICE_LOST"
Errno = Enum("Errno", NAMES + " UNSUPPORTED INTERNAL", start=0)


@dataclass
class Error:
    errno: Errno
    message: str


def refuse(errno: str, message: str) -> NoReturn:
    raise Err(Error(Errno[errno], message))
