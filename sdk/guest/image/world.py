"""What the image is a snapshot of: the interpreter after this module has been imported.

What is imported, compiled and specialized here costs a process nothing, and the pages it does not write to are shared
by all. So what every process runs is imported last, into memory without holes, where it takes few pages.
"""

from . import library, memory

library.load()
memory.fill_holes()

from .exports import WitWorld, prepare  # noqa: E402

prepare()

__all__ = ["WitWorld"]
