import pytest

from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Busy, CadenzaError, Denied, Exists, Invalid, NotFound
from cadenza.kvfs.pool import PagePool

READ = frozenset({"read"})
WRITE = frozenset({"read", "append"})
CREATE = WRITE | {"create"}


@pytest.fixture
def system() -> FileSystem:
    return FileSystem(PagePool(64, 4), path_bytes=64)


def answer(system: FileSystem, owner: str, path: str, flags: frozenset[str]) -> tuple[type[CadenzaError], str]:
    with pytest.raises(CadenzaError) as caught:
        system.open(owner, path, flags)
    return type(caught.value), caught.value.message


def test_relative_paths_are_under_the_home(system: FileSystem) -> None:
    file = system.open("ada", "notes/prefix", CREATE)
    assert file.path == "/home/ada/notes/prefix"
    assert system.open("ada", "/home/ada/notes/prefix", READ) is file
    assert system.open("ada", "//home//ada/notes/prefix", READ) is file
    assert file.open_count == 3


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
    assert (fork.owner, fork.path, fork.tokens().tolist()) == ("bob", "", [1, 2])
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


@pytest.mark.parametrize("path", ["", "a\0b", "../bob/a", "/home/ada/../bob/a", "./a", "x" * 65, "/home/ada"])
def test_paths_that_are_no_paths_are_refused(system: FileSystem, path: str) -> None:
    assert answer(system, "ada", path, CREATE)[0] is Invalid


def test_the_longest_path_is_allowed(system: FileSystem) -> None:
    assert system.open("ada", "x" * 64, CREATE).open_count == 1
    assert answer(system, "ada", "ü" * 33, CREATE)[0] is Invalid


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
    assert system.open("ada", "d", CREATE).path == "/home/ada/d"


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
