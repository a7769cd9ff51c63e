"""The file system over files: names, rights, quotas. What each name means is in test_names_model.py."""

import pytest

from cadenza.kvfs.access import Access
from cadenza.kvfs.directory import Entry, FileSystem
from cadenza.kvfs.errors import Busy, CadenzaError, Denied, Exists, Invalid, LimitExceeded, NotFound
from cadenza.kvfs.file import File
from cadenza.kvfs.limits import FileLimits
from cadenza.kvfs.pool import PagePool

READ = frozenset({"read"})
WRITE = frozenset({"read", "append"})
CREATE = WRITE | {"create"}


@pytest.fixture
def system() -> FileSystem:
    return FileSystem(PagePool(64, 4), FileLimits(path_bytes=64, path_names=8))


def answer(system: FileSystem, owner: str, path: str, flags: frozenset[str]) -> tuple[type[CadenzaError], str]:
    with pytest.raises(CadenzaError) as caught:
        system.open(owner, path, flags)
    return type(caught.value), caught.value.message


def test_relative_paths_are_under_the_home(system: FileSystem) -> None:
    file = system.open("ada", "notes/prefix", CREATE)
    assert file.paths == ["/home/ada/notes/prefix"]
    assert system.open("ada", "/home/ada/notes/prefix", READ) is file
    assert system.open("ada", "//home//ada/notes/prefix", READ) is file
    assert system.open("ada", "./x/..//notes/../notes/prefix", READ) is file
    assert file.open_count == 4


def test_a_named_file_outlives_its_descriptors_and_goes_with_its_name(system: FileSystem) -> None:
    file = system.open("ada", "a", CREATE)
    file.extend([1, 2, 3], [0, 1, 2])
    system.close(file)
    assert system.open("ada", "a", WRITE).tokens().tolist() == [1, 2, 3]
    system.unlink("ada", "a")
    assert not file.closed
    assert answer(system, "ada", "a", READ)[0] is NotFound
    system.close(file)
    assert file.closed
    assert system.statistics()["used"] == 0
    system.recount()


def test_a_nameless_file_goes_with_its_last_descriptor(system: FileSystem) -> None:
    file = system.create("ada")
    file.extend([1], [0])
    system.close(file)
    assert file.closed
    with pytest.raises(AssertionError):
        system.close(file)


def test_an_unlinked_name_may_be_taken_again(system: FileSystem) -> None:
    old = system.open("ada", "d/a", CREATE)
    system.unlink("ada", "d/a")
    new = system.open("ada", "d/a", CREATE | {"exclusive"})
    assert new is not old


@pytest.mark.parametrize("flags", [READ, WRITE, CREATE, CREATE | {"exclusive"}, CREATE | {"truncate"}])
def test_another_users_file_answers_exactly_like_an_absent_one(system: FileSystem, flags: frozenset[str]) -> None:
    system.open("ada", "there", CREATE)
    there, absent = "/home/ada/there", "/home/ada/other"
    kind, message = answer(system, "bob", there, flags)
    assert kind is NotFound
    assert answer(system, "bob", absent, flags) == (kind, message.replace(there, absent))
    assert answer(system, "bob", "/home/nobody/other", flags)[0] is NotFound
    assert answer(system, "bob", "/home/ada", flags)[0] is NotFound
    with pytest.raises(NotFound):
        system.unlink("bob", there)
    assert system.open("ada", "there", READ).open_count == 2


def test_shared_files_are_read_by_all_and_changed_by_their_owner(system: FileSystem) -> None:
    file = system.open("ada", "/shared/prefix", CREATE)
    file.extend([1, 2], [0, 1])
    assert system.open("bob", "/shared/prefix", READ) is file
    assert answer(system, "bob", "/shared/prefix", WRITE)[0] is Denied
    assert answer(system, "bob", "/shared/prefix", CREATE | {"truncate"})[0] is Denied
    with pytest.raises(Denied):
        system.unlink("bob", "/shared/prefix")
    fork = file.fork("bob")
    assert (fork.owner, fork.paths, fork.tokens().tolist()) == ("bob", [], [1, 2])
    assert len(file) == 2


def test_flags(system: FileSystem) -> None:
    assert answer(system, "ada", "a", WRITE)[0] is NotFound
    file = system.open("ada", "a", CREATE | {"exclusive"})
    file.extend([1], [0])
    assert answer(system, "ada", "a", CREATE | {"exclusive"})[0] is Exists
    assert len(system.open("ada", "a", WRITE)) == 1
    file.begin_append()
    assert answer(system, "ada", "a", WRITE | {"truncate"})[0] is Busy
    file.end_append()
    assert len(system.open("ada", "a", WRITE | {"truncate"})) == 0


@pytest.mark.parametrize(
    "flags", [set(), {"create"}, {"read", "write"}, {"append", "exclusive"}, {"read", "truncate"}, {"read", "create"}]
)
def test_flags_that_mean_nothing_are_refused(system: FileSystem, flags: set[str]) -> None:
    assert answer(system, "ada", "a", frozenset(flags))[0] is Invalid


@pytest.mark.parametrize("path", ["", "a\0b", "a\x1b[31mb", "/home/ada/" + "x" * 55, "a/" * 7, "/home/ada", ".", ".."])
def test_paths_that_are_no_paths_are_refused(system: FileSystem, path: str) -> None:
    assert answer(system, "ada", path, CREATE)[0] is Invalid


def test_the_longest_path_is_allowed(system: FileSystem) -> None:
    file = system.open("ada", "x" * 54, CREATE)
    assert system.open("ada", file.paths[0], READ) is file
    assert system.open("ada", "./a/b/c/d/../../" * 2 + "e", CREATE).paths == ["/home/ada/a/b/a/b/e"]
    assert answer(system, "ada", "ü" * 28, CREATE) == (
        Invalid, "a path has at most 64 bytes from the root; this one has 66")
    assert answer(system, "ada", "./" * 32 + "a", CREATE)[0] is Invalid
    assert answer(system, "ada", "a/b/c/d/e/f/g", CREATE) == (
        Invalid, "a path has at most 8 names from the root; this one has 9")


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "/home"])
def test_there_is_nothing_elsewhere(system: FileSystem, path: str) -> None:
    assert answer(system, "ada", path, CREATE)[0] in (NotFound, Invalid)


def test_files_and_directories_do_not_mix(system: FileSystem) -> None:
    system.open("ada", "d/a", CREATE)
    assert answer(system, "ada", "d", READ) == (Invalid, "d is a directory: open a file in it")
    with pytest.raises(Invalid):
        system.unlink("ada", "d")
    assert answer(system, "ada", "d/a/b", CREATE)[0] is Invalid
    assert answer(system, "ada", "d/a/b", READ)[0] is NotFound
    assert system.statistics()["files"] == 1
    system.unlink("ada", "d/a")
    assert system.open("ada", "d", CREATE).paths == ["/home/ada/d"]


def test_the_recount_notices_a_lost_page_and_a_lost_holder(system: FileSystem) -> None:
    file = system.create("ada")
    file.extend([1] * 9, range(9))
    system.recount()
    (page,) = system.pool.allocate(1)
    with pytest.raises(AssertionError, match=rf"\({page}, 1, 0\)"):
        system.recount()
    system.pool.release(page)
    file.table.hold()
    with pytest.raises(AssertionError, match="2 holders, 1 are found"):
        system.recount()


def test_a_file_has_several_names(system: FileSystem) -> None:
    file = system.create("ada")
    file.extend([1, 2], [0, 1])
    system.link("ada", file, "a")
    system.link("ada", file, "/shared/notes/a")
    system.close(file)
    assert file.paths == ["/home/ada/a", "/shared/notes/a"]
    assert system.find("ada", "a") is system.find("ada", "/shared/notes/a") is file
    system.unlink("ada", "a")
    assert not file.closed
    system.unlink("ada", "/shared/notes/a")
    assert file.closed
    assert system.pool.used == 0
    assert system.entries("ada", "/shared") == []


def test_rename_replaces_and_what_was_replaced_stays_open(system: FileSystem) -> None:
    old, new = system.open("ada", "current", CREATE), system.open("ada", "draft", CREATE)
    old.extend([1], [0])
    system.rename("ada", "draft", "current")
    assert system.find("ada", "current") is new
    assert (new.paths, old.paths, old.closed) == (["/home/ada/current"], [], False)
    assert answer(system, "ada", "draft", READ)[0] is NotFound
    system.close(old)
    assert old.closed


def test_rename_of_a_directory_takes_along_what_is_in_it(system: FileSystem) -> None:
    one, two = system.open("ada", "d/a", CREATE), system.open("ada", "d/b/c", CREATE)
    system.rename("ada", "d", "/shared/e")
    assert (one.paths, two.paths) == (["/shared/e/a"], ["/shared/e/b/c"])
    assert system.entries("ada", ".") == []
    assert system.entries("ada", "/shared/e") == [Entry("a", False, 0), Entry("b", True, 0)]
    system.rename("ada", "/shared/e", "x" * 48)
    with pytest.raises(Invalid, match="at most 64 bytes"):
        system.rename("ada", "x" * 48, "x" * 52)
    assert system.find("ada", "x" * 48 + "/a") is one


def test_journals_hear_of_names_and_rights_together(system: FileSystem) -> None:
    heard: list[set[File]] = []
    system.names_changed = lambda files: heard.append(set(files))
    one, two = system.open("ada", "d/a", CREATE), system.open("ada", "b", CREATE)
    system.link("ada", one, "d/again")
    system.rename("ada", "d/a", "b")
    system.rename("ada", "d", "e")
    system.change_mode("ada", two, READ, READ)
    system.grant("ada", two, "bob", READ)
    system.unlink("ada", "b")
    assert heard == [{one}, {one, two}, {one}, {two}, {two}, {one}]


def test_without_a_journal_what_is_on_disk_is_out_of_date(system: FileSystem) -> None:
    file = system.open("ada", "a", CREATE)
    file.synced = file.changes
    assert file.durable
    system.rename("ada", "a", "b")
    assert not file.durable


# --- rights ---

def test_a_grant_lets_one_in_and_taken_back_shuts_one_out(system: FileSystem) -> None:
    file = system.open("ada", "a", CREATE)
    absent = answer(system, "bob", "/home/ada/a", READ)
    system.grant("ada", file, "bob", READ)
    assert system.open("bob", "/home/ada/a", READ) is file
    assert answer(system, "bob", "/home/ada/a", WRITE)[0] is Denied
    assert system.entries("bob", "/home/ada") == [Entry("a", False, 0)]
    assert answer(system, "eve", "/home/ada/a", READ) == absent
    system.grant("ada", file, "bob", frozenset())
    assert file.access.grants == {}
    assert answer(system, "bob", "/home/ada/a", READ) == absent
    with pytest.raises(NotFound, match="there is no file /home/ada"):
        system.entries("bob", "/home/ada")


def test_only_the_owner_changes_names_and_rights(system: FileSystem) -> None:
    file = system.open("ada", "/shared/a", CREATE)
    system.change_mode("ada", file, WRITE, WRITE)
    assert system.open("bob", "/shared/a", WRITE | {"truncate"}) is file
    for attempt in (
        lambda: system.rename("bob", "/shared/a", "/shared/b"),
        lambda: system.unlink("bob", "/shared/a"),
        lambda: system.link("bob", file, "mine"),
        lambda: system.change_mode("bob", file, WRITE, WRITE),
        lambda: system.grant("bob", file, "eve", READ),
    ):
        with pytest.raises(Denied, match="only ada, its owner"):
            attempt()
    assert file.paths == ["/shared/a"]


def test_what_one_may_not_see_in_shared_takes_its_name_nevertheless(system: FileSystem) -> None:
    file = system.open("ada", "/shared/a", CREATE)
    system.change_mode("ada", file, WRITE, frozenset())
    mine = system.open("bob", "b", CREATE)
    assert answer(system, "bob", "/shared/a", READ) == (
        NotFound, "there is no file /shared/a: create it, or look at the path")
    assert answer(system, "bob", "/shared/a", CREATE)[0] is Exists
    for attempt in (lambda: system.rename("bob", "b", "/shared/a"), lambda: system.link("bob", mine, "/shared/a")):
        with pytest.raises(Exists, match="/shared/a is taken"):
            attempt()


def test_an_owner_may_shut_himself_out_and_in_again(system: FileSystem) -> None:
    file = system.open("ada", "a", CREATE)
    system.change_mode("ada", file, frozenset(), frozenset())
    assert answer(system, "ada", "a", READ)[0] is Denied
    system.change_mode("ada", system.find("ada", "a"), READ, frozenset())
    assert system.open("ada", "a", READ) is file


def test_names_and_rights_come_back_from_disk(system: FileSystem) -> None:
    file = File(system.pool, "ada", system.living)
    file.open_count = 0
    system.place(file, ["/home/ada/a", "/shared/b"], Access(READ, READ, {"bob": WRITE}))
    assert system.open("bob", "/home/ada/a", WRITE) is system.find("eve", "/shared/b", "read") is file
    assert system.living.entries("ada") == 2
    system.recount()
    with pytest.raises(Exists, match="two files on disk"):
        system.place(File(system.pool, "ada", system.living), ["/shared/b"], Access())


# --- quotas ---

def limited(**limits: int) -> FileSystem:
    return FileSystem(PagePool(64, 4), FileLimits(**limits))


def test_files_of_a_user_are_limited_and_snapshots_do_not_count() -> None:
    system = limited(files_per_user=3)
    file = system.open("ada", "a", CREATE)
    snapshots = [file.fork() for _ in range(5)]
    fork = system.fork("ada", file)
    system.link("ada", fork, "b")
    system.link("ada", fork, "c")
    for attempt in (
        lambda: system.create("ada"),
        lambda: system.open("ada", "d", CREATE),
        lambda: system.fork("ada", file),
        lambda: system.extract("ada", file, []),
        lambda: system.concat("ada", [file]),
        lambda: system.link("ada", fork, "d"),
    ):
        with pytest.raises(LimitExceeded, match="user ada has 3 KV files and names, the limit") as refused:
            attempt()
        assert refused.value.limit == "files_per_user"
    assert system.entries("ada", ".") == [Entry(name, False, 0) for name in "abc"]
    assert system.fork("bob", file).owner == "bob"
    system.unlink("ada", "b")
    system.create("ada")
    for snapshot in snapshots:
        snapshot.close()
    assert system.living.entries("ada") == 3


def test_pages_of_a_user_are_limited_whoever_appends() -> None:
    system = limited(pages_per_user=2)
    file, other = system.create("ada"), system.create("ada")
    file.extend([1] * 5, range(5))
    with pytest.raises(LimitExceeded, match=r"user ada has 2 KV pages and needs 1 more.*--quota-gib") as refused:
        other.extend([1], [0])
    assert refused.value.limit == "kv_bytes_per_user"
    assert (len(other), system.pool.used) == (0, 2)
    theirs = system.fork("bob", file)
    theirs.extend([1] * 3, [5, 6, 7])
    assert (system.pool.charged("ada"), system.pool.charged("bob")) == (2, 1)
    file.truncate(4)
    theirs.close()
    other.extend([1], [0])
    system.recount()


def test_grants_of_a_file_are_limited() -> None:
    system = limited(grants=2)
    file = system.create("ada")
    for user in ("bob", "eve", "bob"):
        system.grant("ada", file, user, READ)
    with pytest.raises(LimitExceeded, match="grants for 2 users"):
        system.grant("ada", file, "fay", READ)


def test_what_is_put_together_is_limited() -> None:
    system = limited(parts=8, tokens=20)
    file = system.create("ada")
    file.extend(range(10), range(10))
    with pytest.raises(LimitExceeded, match="21 tokens"):
        system.extract("ada", file, [(0, 10), (0, 10), (0, 1)])
    with pytest.raises(LimitExceeded, match="9 parts"):
        system.extract("ada", file, [(2 * at, 1) for at in range(4)] * 2 + [(0, 1)])
    with pytest.raises(LimitExceeded, match="30 tokens"):
        system.concat("ada", [file] * 3)
    pieces = system.extract("ada", file, [(8, 1), (6, 1), (4, 1), (2, 1)])
    with pytest.raises(LimitExceeded, match="10 parts"):
        system.concat("ada", [pieces] * 2)
    assert system.statistics()["files"] == 2
    for first in (0, 2, 4):
        system.hide(file, first, 1)
    with pytest.raises(LimitExceeded, match="9 parts"):
        system.hide(file, 6, 1)
    assert file.hidden_tokens == 3
    with pytest.raises(LimitExceeded):
        system.show(file, 0, 1)
