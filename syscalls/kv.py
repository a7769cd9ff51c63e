"""Interface `kv`: KV files by descriptor."""

from __future__ import annotations

from dataclasses import dataclass

from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Busy


@dataclass(frozen=True, slots=True)
class FileStatus:
    """WIT's `file-status`."""

    tokens: int
    pages: int
    next_position: int
    shared_pages: int
    path: str
    busy: bool


class KvCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._files = kernel.files

    def create(self, process: Process) -> int:
        process.files.ensure_room()
        return process.files.add(self._files.create(process.owner))

    def open(self, process: Process, path: str, how: frozenset[str]) -> int:
        process.files.ensure_room()
        return process.files.add(self._files.open(process.owner, path, how), how & {"read", "append"})

    def fork(self, process: Process, file: int) -> int:
        process.files.ensure_room()
        return process.files.add(process.files.get(file, "read").fork(process.owner))

    def truncate(self, process: Process, file: int, tokens: int) -> None:
        found = process.files.get(file, "append")
        if found.busy:
            raise Busy(f"descriptor {file} is being appended to: stop or wait for what does so, then truncate")
        found.truncate(tokens)

    def stat(self, process: Process, file: int) -> FileStatus:
        found = process.files.get(file, "read")
        return FileStatus(len(found), found.page_count, found.next_position, found.shared_pages(), found.path,
                          found.busy)

    def unlink(self, process: Process, path: str) -> None:
        self._files.unlink(process.owner, path)

    def close(self, process: Process, file: int) -> None:
        process.files.close(file)
