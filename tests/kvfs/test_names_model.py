"""Names and rights against a plain dictionary of paths: every answer, every refusal, for three users at once."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cadenza.kvfs.directory import Entry, FileSystem
from cadenza.kvfs.errors import CadenzaError, Denied, Exists, Invalid, NotFound
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import PagePool

USERS = ["ada", "bob", "eve"]
PATHS = ["a", "d", "d/a", "d/b/c", "./d/../a", "../bob/a", "../../home/ada/d", "/home/ada/a", "/home/bob/d/a",
         "/home/bob/d", "/home/eve/d/b", "/shared/a", "/shared/d", "/shared/d/a", "/shared/a/b", "//shared/./d/b/c",
         "/", "/home", "/home/ada", ".", "/shared", "/etc/a", "../.."]  # fmt: skip
FLAGS = [{"read"}, {"append"}, {"read", "append", "create"}, {"append", "create", "exclusive"},
         {"read", "append", "create", "truncate"}]  # fmt: skip
Refusal = type[CadenzaError] | None

users = st.sampled_from(USERS)
paths = st.sampled_from(PATHS)
rights = st.sets(st.sampled_from(["read", "append"])).map(frozenset)


@dataclass(eq=False)
class Known:
    """What a file should be: whose, how often open, and who may do what."""

    owner: str
    opened: int = 1
    mode: list[frozenset[str]] = field(default_factory=lambda: [frozenset({"read", "append"}), frozenset()])
    grants: dict[str, frozenset[str]] = field(default_factory=dict)
    touched: bool = False

    def rights(self, user: str) -> frozenset[str]:
        mine, others = self.mode
        return mine if user == self.owner else others | self.grants.get(user, frozenset())

    def seen(self, user: str) -> bool:
        return user == self.owner or bool(self.rights(user))

    def listed(self, user: str) -> bool:
        return user == self.owner or "read" in self.rights(user)


def absolute(user: str, path: str) -> str:
    return "/" + posixpath.normpath(posixpath.join(f"/home/{user}", path)).lstrip("/")


def fixed(user: str, path: str) -> bool:
    return path in ("/", "/home", f"/home/{user}", "/shared")


class NamesBehaveAsADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.system = FileSystem(PagePool(4, 4))
        self.names: dict[str, Known] = {}
        self.files: dict[Known, File] = {}

    # --- what the dictionary says ---

    def below(self, path: str) -> list[str]:
        return [name for name in self.names if name.startswith(path.rstrip("/") + "/")]

    def kind(self, user: str, path: str) -> str:
        """What `user` sees at an absolute path: a file, a directory, or nothing."""
        if path in self.names:
            return "file" if self.names[path].seen(user) else ""
        listed = any(self.names[name].listed(user) for name in self.below(path))
        return "directory" if fixed(user, path) or listed else ""

    def refusal_of_naming(self, user: str, path: str) -> Refusal:
        """Why `user` cannot give a file the name `path`."""
        if fixed(user, path):
            return Invalid
        if not path.startswith((f"/home/{user}/", "/shared/")):
            return NotFound
        if path in self.names or self.below(path):
            return Exists
        return Invalid if any(path.startswith(name + "/") for name in self.names) else None

    def refused(self, refusal: Refusal, call: Callable[[], object]) -> bool:
        """Makes the call if it should be refused, and checks that it is."""
        if refusal is not None:
            before = [file.paths.copy() for file in self.files.values()]
            with pytest.raises(refusal) as fault:
                call()
            assert type(fault.value) is refusal
            assert [file.paths for file in self.files.values()] == before
        return refusal is not None

    def drop(self, known: Known) -> None:
        """A name or a descriptor is gone: the file too if it was the last."""
        if known.opened or known in self.names.values():
            assert not self.files[known].closed
        else:
            assert self.files.pop(known).closed

    # --- what is done ---

    @rule(user=users)
    def create(self, user: str) -> None:
        self.files[Known(user)] = self.system.create(user)

    @rule(user=users, path=paths, flags=st.sampled_from(FLAGS).map(frozenset))
    def open(self, user: str, path: str, flags: frozenset[str]) -> None:
        place = absolute(user, path)
        known = self.names.get(place)
        match self.kind(user, place):
            case "directory":
                refusal: Refusal = Invalid
            case "file":
                assert known is not None
                allowed = flags & {"read", "append"} <= known.rights(user)
                refusal = Exists if "exclusive" in flags else None if allowed else Denied
            case _:
                known = None
                refusal = self.refusal_of_naming(user, place) if "create" in flags else NotFound
        if self.refused(refusal, lambda: self.system.open(user, path, flags)):
            return
        file = self.system.open(user, path, flags)
        if known is None:
            known = self.names[place] = Known(user, opened=0)
            known.mode[1] = frozenset({"read"} if place.startswith("/shared") else ())
            self.files[known] = file
        known.opened += 1
        assert self.files[known] is file

    def pick(self, which: int, *, opened: bool = True) -> Known:
        some = [known for known in self.files if known.opened or not opened]
        return some[which % len(some)]

    def any_open(self) -> bool:
        return any(known.opened for known in self.files)

    @precondition(any_open)
    @rule(user=users, path=paths, which=st.integers(0, 99))
    def link(self, user: str, path: str, which: int) -> None:
        known = self.pick(which)
        file, place = self.files[known], absolute(user, path)
        refusal = self.refusal_of_naming(user, place) if user == known.owner else Denied
        if self.refused(refusal, lambda: self.system.link(user, file, path)):
            return
        self.system.link(user, file, path)
        if known not in self.names.values() and not known.touched and place.startswith("/shared"):
            known.mode[1] = frozenset({"read"})
        elif known not in self.names.values() and not known.touched:
            known.mode[1] = frozenset()
        self.names[place] = known

    @rule(user=users, path=paths)
    def unlink(self, user: str, path: str) -> None:
        place = absolute(user, path)
        kind = self.kind(user, place)
        refusal: Refusal = {"": NotFound, "directory": Invalid, "file": None}[kind]
        if kind == "file" and self.names[place].owner != user:
            refusal = Denied
        if self.refused(refusal, lambda: self.system.unlink(user, path)):
            return
        self.system.unlink(user, path)
        self.drop(self.names.pop(place))

    @rule(user=users, path=paths, to=paths)
    def rename(self, user: str, path: str, to: str) -> None:
        source, target = absolute(user, path), absolute(user, to)
        kind = self.kind(user, source)
        moved = [source] if kind == "file" else self.below(source)
        if self.refused(self.refusal_of_renaming(user, source, target), lambda: self.system.rename(user, path, to)):
            return
        self.system.rename(user, path, to)
        same = source == target or (kind == "file" and self.names.get(target) is self.names[source])
        if same:
            return
        replaced = self.names.pop(target, None)
        for name in moved:
            self.names[target + name[len(source):]] = self.names.pop(name)
        if replaced is not None:
            self.drop(replaced)

    def refusal_of_renaming(self, user: str, source: str, target: str) -> Refusal:
        kind = self.kind(user, source)
        if not kind:
            return NotFound
        if fixed(user, source):
            return Invalid
        moved = [source] if kind == "file" else self.below(source)
        if any(self.names[name].owner != user for name in moved):
            return Denied
        if source == target or (kind == "file" and self.names.get(target) is self.names[source]):
            return None
        if kind == "directory" and target.startswith(source + "/"):
            return Invalid
        if kind == "file" and self.kind(user, target) == "file":
            return None if self.names[target].owner == user else Denied
        return self.refusal_of_naming(user, target)

    @precondition(any_open)
    @rule(user=users, which=st.integers(0, 99), mine=rights, others=rights)
    def change_mode(self, user: str, which: int, mine: frozenset[str], others: frozenset[str]) -> None:
        known = self.pick(which)
        refusal = None if user == known.owner else Denied
        if self.refused(refusal, lambda: self.system.change_mode(user, self.files[known], mine, others)):
            return
        self.system.change_mode(user, self.files[known], mine, others)
        known.mode, known.touched = [mine, others], True

    @precondition(any_open)
    @rule(user=users, which=st.integers(0, 99), to=users, given=rights)
    def grant(self, user: str, which: int, to: str, given: frozenset[str]) -> None:
        known = self.pick(which)
        refusal: Refusal = Denied if user != known.owner else Invalid if to == user else None
        if self.refused(refusal, lambda: self.system.grant(user, self.files[known], to, given)):
            return
        self.system.grant(user, self.files[known], to, given)
        known.grants[to], known.touched = given, True

    @precondition(any_open)
    @rule(which=st.integers(0, 99))
    def close(self, which: int) -> None:
        known = self.pick(which)
        known.opened -= 1
        self.system.close(self.files[known])
        self.drop(known)

    # --- what must hold ---

    @invariant()
    def every_file_knows_its_names(self) -> None:
        for known, file in self.files.items():
            assert sorted(file.paths) == sorted(name for name, other in self.names.items() if other is known)
        self.system.recount()
        for user in USERS:
            assert self.system.living.entries(user) == sum(
                max(1, len(file.paths)) for known, file in self.files.items() if known.owner == user)

    @rule(user=users, path=paths)
    def entries(self, user: str, path: str) -> None:
        place = absolute(user, path)
        refusal: Refusal = {"": NotFound, "file": Invalid, "directory": None}[self.kind(user, place)]
        if self.refused(refusal, lambda: self.system.entries(user, path)):
            return
        inside = {name[len(place.rstrip("/")) + 1:].split("/")[0] for name in self.below(place)}
        inside = {"/": {"home", "shared"}, "/home": {user}}.get(place, inside)
        expected = []
        for name in sorted(inside):
            there = posixpath.join(place, name)
            kind = self.kind(user, there)
            if kind == "directory" or (kind == "file" and self.names[there].listed(user)):
                expected.append(Entry(name, kind == "directory", 0))
        assert self.system.entries(user, path) == expected


TestNames = NamesBehaveAsADictionary.TestCase
TestNames.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
