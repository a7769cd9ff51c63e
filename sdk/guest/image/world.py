"""The world `interpreter` of the ABI: the exports of the image, and what is done once, when it is built.

The image is a snapshot of the interpreter taken after this module has been imported. What is imported, compiled and
specialized here costs a process nothing, and pages it does not write to are shared by all.
"""

from __future__ import annotations

import gc
import sys

import wit_world
from componentize_py_types import Err

from . import library, output, program, standard, traces, warm


class WitWorld(wit_world.WitWorld):
    def check(self) -> None:
        self._call(program.check)

    def run(self) -> None:
        self._call(program.run)

    def _call(self, function: program.Callable[[], None]) -> None:
        try:
            function()
        except program.Failure as failure:
            raise Err(str(failure)) from None


library.load()
warm.up()
output.install()
standard.install()
sys.excepthook = traces.excepthook
gc.collect()
gc.freeze()
