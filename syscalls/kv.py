"""Interface `kv`: KV files by descriptor and by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cadenza.kernel.device.batch import Int32
from cadenza.kernel.handles import Outcome
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.kvfs.access import Rights
from cadenza.kvfs.directory import Entry
from cadenza.kvfs.errors import Busy
from cadenza.syscalls.arguments import fetch_range, fetch_ranges, fetch_user


@dataclass(frozen=True, slots=True)
class Grant:
    """WIT's `grant`."""

    user: str
    rights: Rights


@dataclass(frozen=True, slots=True)
class FileStatus:
    """WIT's `file-status`."""

    tokens: int
    hidden: int
    pages: int
    next_position: int
    shared_pages: int
    paths: list[str]
    busy: bool
    owner: str
    mine: Rights
    others: Rights
    grants: list[Grant]
    exactness: str
    fingerprint: str
    durable: bool
    created_ns: int
    modified_ns: int


class KvCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._files = kernel.files

    # --- names ---

    def create(self, process: Process) -> int:
        process.files.ensure_room()
        return process.files.add(self._files.create(process.owner))

    def open(self, process: Process, path: str, how: frozenset[str]) -> int:
        process.files.ensure_room()
        return process.files.add(self._files.open(process.owner, path, how), how & {"read", "append"})

    def link(self, process: Process, file: int, path: str) -> None:
        self._files.link(process.owner, process.files.named(file), path)

    def rename(self, process: Process, path: str, to: str) -> None:
        self._files.rename(process.owner, path, to)

    def unlink(self, process: Process, path: str) -> None:
        self._files.unlink(process.owner, path)

    def entries(self, process: Process, path: str) -> Sequence[Entry]:
        return self._files.entries(process.owner, path)

    # --- rights ---

    def change_mode(self, process: Process, file: int, mine: Rights, others: Rights) -> None:
        self._files.change_mode(process.owner, process.files.named(file), mine, others)

    def change_grant(self, process: Process, file: int, user: str, rights: Rights) -> None:
        self._files.grant(process.owner, process.files.named(file), fetch_user(user), rights)

    # --- contents ---

    def fork(self, process: Process, file: int) -> int:
        process.files.ensure_room()
        return process.files.add(self._files.fork(process.owner, process.files.get(file, "read")))

    def extract(self, process: Process, file: int, ranges: Sequence[Any]) -> int:
        process.files.ensure_room()
        found = process.files.get(file, "read")
        return process.files.add(self._files.extract(process.owner, found, fetch_ranges(ranges)))

    def concat(self, process: Process, files: Any) -> int:
        process.files.ensure_room()
        found = [process.files.get(file, "read") for file in files.tolist()]
        return process.files.add(self._files.concat(process.owner, found))

    def relocate(self, process: Process, file: int, by: int) -> None:
        process.files.get(file, "append").relocate(by)

    def hide(self, process: Process, file: int, range: Any) -> None:
        self._files.hide(process.files.get(file, "append"), range.first, range.count)

    def show(self, process: Process, file: int, range: Any) -> None:
        self._files.show(process.files.get(file, "append"), range.first, range.count)

    def truncate(self, process: Process, file: int, tokens: int) -> None:
        found = process.files.get(file, "append")
        if found.busy:
            raise Busy(f"descriptor {file} is being appended to: stop or wait for what does so, then truncate")
        found.truncate(tokens)

    # --- asking ---

    def stat(self, process: Process, file: int) -> FileStatus:
        found = process.files.get(file, "read")
        access = found.access
        return FileStatus(
            len(found), found.hidden_tokens, found.page_count, found.next_position, found.shared_pages(),
            [*found.paths], found.busy, found.owner, access.mine, access.others,
            [Grant(user, rights) for user, rights in access.grants.items() if process.owner in (found.owner, user)],
            "exact" if found.exact else "approximate", self._kernel.facts.fingerprint,
            found.durable and bool(found.paths), found.created_ns, found.modified_ns,
        )  # fmt: skip

    def tokens(self, process: Process, file: int, range: Any) -> Int32:
        found = process.files.get(file, "read")
        tokens = found.tokens(*fetch_range(found, range))
        if len(tokens) and int(tokens.min()) < 0:
            raise Busy(f"descriptor {file} is being appended to: its last tokens are not known yet")
        return tokens

    def positions(self, process: Process, file: int, range: Any) -> Int32:
        found = process.files.get(file, "read")
        return found.positions(*fetch_range(found, range))

    # --- waiting ---

    def sync(self, process: Process, file: int) -> int:
        process.handles.ensure_room()
        return process.handles.add(self._kernel.sync(process.files.get(file, "append")))

    def take_sync(self, process: Process, sync: int) -> None:
        process.handles.get(sync, Outcome).take()

    def lock(self, process: Process, file: int, exclusive: bool) -> int:
        process.handles.ensure_room()
        found = process.files.get(file, "append" if exclusive else "read")
        return process.handles.add(self._kernel.locks.ask(found, exclusive=exclusive))

    def close(self, process: Process, file: int) -> None:
        process.files.close(file)
