"""The exports of the image: what the kernel calls."""

from __future__ import annotations

import sys

import wit_world
from componentize_py_types import Err
from wit_world.imports import process
from wit_world.imports.process import OutputStream

from . import memory, output, program, standard, traces, warm


class WitWorld(wit_world.WitWorld):
    """The world `interpreter` of the ABI."""

    def check(self) -> None:
        try:
            program.check(process.payload())
        except program.Failure as failure:
            raise Err(str(failure)) from None

    def run(self) -> None:
        try:
            code = program.run(process.payload(), process.arguments(), process.entropy())
        except program.Failure as failure:
            raise Err(str(failure)) from None
        if code is not None:
            process.exit(code)


def log_output(text: str) -> None:
    process.log(OutputStream.OUTPUT, text)


def log_error(text: str) -> None:
    process.log(OutputStream.ERROR, text)


def prepare() -> None:
    """Leaves the interpreter as each process shall find it."""
    standard.install()
    sys.excepthook = traces.excepthook
    run_by_all = warm.up()
    memory.fill_holes()
    memory.gather(run_by_all)
    run_by_all.clear()
    warm.up()
    memory.fill_holes()
    memory.freeze()
    output.install(log_output, log_error)
