"""Files are lists of tokens."""

from dataclasses import dataclass
from enum import Enum, Flag, auto

from wit_world.imports.types import refuse
from wit_world.toy import toy


class OpenFlags(Flag):
    READ = auto()
    APPEND = auto()
    CREATE = auto()
    EXCLUSIVE = auto()
    TRUNCATE = auto()


class Rights(Flag):
    READ = auto()
    APPEND = auto()


class Exactness(Enum):
    EXACT = 0
    APPROXIMATE = 1


ALL, NONE = Rights(3), Rights(0)


@dataclass
class Range:
    first: int
    count: int


@dataclass
class FileStatus:
    tokens: int
    pages: int
    next_position: int
    shared_pages: int
    paths: list[str]
    busy: bool
    hidden: int = 0
    owner: str = "local"
    mine: Rights = ALL
    others: Rights = NONE
    grants: tuple[()] = ()
    exactness: Exactness = Exactness.EXACT
    fingerprint: str = "toy"
    durable: bool = False
    created_ns: int = 0
    modified_ns: int = 0


def create() -> int:
    toy.number += 1
    toy.files[toy.number] = []
    return toy.number


def open(path: str, how: OpenFlags) -> int:
    refuse("NOT_FOUND", f"no file {path}")


def fork(file: int) -> int:
    content = list(toy.get(toy.files, file))
    copy = create()
    toy.files[copy] = content
    return copy


def truncate(file: int, tokens: int) -> None:
    content = toy.get(toy.files, file)
    if file in toy.busy:
        refuse("BUSY", f"file {file} is being written")
    if tokens > len(content):
        refuse("INVALID", f"file {file} holds {len(content)} tokens, fewer than {tokens}")
    del content[tokens:]


def stat(file: int) -> FileStatus:
    size = len(toy.get(toy.files, file))
    return FileStatus(size, -(-size // 16), size, 0, [], file in toy.busy)


def unlink(path: str) -> None:
    refuse("NOT_FOUND", f"no file {path}")


def close(file: int) -> None:
    toy.get(toy.files, file)
    del toy.files[file]


def tokens(file: int, range: Range) -> list[int]:
    return toy.get(toy.files, file)[range.first : range.first + range.count]


def _unsupported(*arguments: object) -> None:
    refuse("UNSUPPORTED", "the toy has no such files")


link = rename = entries = change_mode = change_grant = extract = concat = relocate = hide = show = _unsupported
positions = sync = take_sync = lock = _unsupported
