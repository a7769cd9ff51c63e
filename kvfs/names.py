"""Names over files: paths, and the tree of directories that they lead through.

    /home/<user>/…    the user's          /shared/…    everybody's
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cadenza.kvfs.errors import Invalid
from cadenza.kvfs.file import File
from cadenza.kvfs.limits import FileLimits

Names = tuple[str, ...]
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def resolve(user: str, path: str, limits: FileLimits) -> Names:
    """The names from the root. A relative path begins at the user's home; `.` and `..` are taken as they are written,
    whether or not what they go through is there. Raises Invalid for what is no path."""
    if not 0 < len(path) <= limits.path_bytes or CONTROL.search(path):
        raise Invalid(f"a path has 1 to {limits.path_bytes} bytes and no control characters", "path")
    names: list[str] = [] if path.startswith("/") else ["home", user]
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    check_length(names, limits)
    return tuple(names)


def check_length(names: list[str] | Names, limits: FileLimits) -> None:
    """Raises Invalid for a path of more names or bytes than may be, both from the root."""
    size = len(written(names).encode(errors="replace"))
    if size > limits.path_bytes:
        raise Invalid(f"a path has at most {limits.path_bytes} bytes from the root; this one has {size}", "path")
    if len(names) > limits.path_names:
        raise Invalid(f"a path has at most {limits.path_names} names from the root; this one has {len(names)}", "path")


def written(names: list[str] | Names) -> str:
    return "/" + "/".join(names)


def may_name(user: str, names: Names) -> bool:
    """Whether that place is one where `user` may name files: below the user's home or /shared."""
    return (names[:1] == ("shared",) and len(names) > 1) or (names[:2] == ("home", user) and len(names) > 2)


def always_there(user: str, names: Names) -> bool:
    """Whether that is a directory even when nothing is in it."""
    return names in ((), ("home",), ("home", user), ("shared",))


@dataclass(slots=True, eq=False)
class Directory:
    """Names of files and directories. It appears with its first entry and goes with its last."""

    entries: dict[str, Directory | File] = field(default_factory=dict)

    def find(self, names: Names) -> Directory | File | None:
        node: Directory | File | None = self
        for name in names:
            node = node.entries.get(name) if isinstance(node, Directory) else None
        return node

    def check_way(self, names: Names) -> None:
        """Raises Invalid when a file stands where `put` needs a directory."""
        for depth in range(1, len(names)):
            if isinstance(self.find(names[:depth]), File):
                raise Invalid(f"{written(names[:depth])} is a file, not a directory: choose another path", "path")

    def put(self, names: Names, node: Directory | File) -> None:
        """In place of what was called so."""
        directory = self
        for name in names[:-1]:
            below = directory.entries.setdefault(name, Directory())
            assert isinstance(below, Directory), f"{written(names)} leads through a file"
            directory = below
        directory.entries[names[-1]] = node

    def take(self, names: Names) -> None:
        """That name goes, and the directories that held nothing else."""
        below = self.entries[names[0]]
        if len(names) > 1 and isinstance(below, Directory):
            below.take(names[1:])
            if below.entries:
                return
        del self.entries[names[0]]

    def files(self, names: Names = ()) -> Iterator[tuple[Names, File]]:
        """Every file below it, by its names from `names` on; one of several names comes several times."""
        for name, node in self.entries.items():
            if isinstance(node, File):
                yield (*names, name), node
            else:
                yield from node.files((*names, name))
