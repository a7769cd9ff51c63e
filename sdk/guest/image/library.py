"""The part of Python's standard library that programs can import: what needs neither files nor sockets nor threads.

It is imported when the image is built; nothing can be imported from a file afterwards, there are none.
"""

from __future__ import annotations

import importlib
import sys

MODULES = """
    __future__ abc argparse array ast asyncio base64 binascii bisect calendar cmath codecs collections
    collections.abc colorsys concurrent.futures contextlib contextvars copy copyreg csv dataclasses datetime
    decimal difflib dis enum errno fnmatch fractions functools gc graphlib hashlib heapq hmac html html.parser
    importlib importlib.resources importlib.util inspect io itertools json keyword linecache locale logging math
    numbers opcode operator optparse os os.path pathlib pickle pprint queue random re reprlib sched secrets
    shlex signal statistics string stringprep struct sys textwrap threading time timeit token tokenize tomllib
    traceback types typing unicodedata unittest unittest.mock urllib.parse uuid warnings weakref
    xml.etree.ElementTree xml.parsers.expat zlib
"""


def load() -> None:
    """Imports them all. `datetime` in pure Python: the other asks the clock of an operating system, past us."""
    sys.modules["_datetime"] = None  # type: ignore[assignment]
    for name in MODULES.split():
        importlib.import_module(name)
