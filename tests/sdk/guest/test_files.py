"""Files as a program sees them, through the real runtime: every call of interface `kv`, two users."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .rig import Ended, ended, rig

pytestmark = pytest.mark.slow

ARRANGING = """
import cadenza
from cadenza import File, Run, kv

async def main():
    file = File.create()
    await cadenza.forward(file, [5, 6, 7, 8])
    file.link('notes/a')
    file.link('/shared/a')
    kv.rename('notes/a', 'b')
    print([(e.name, e.directory, e.tokens) for e in kv.list_directory()], kv.list_directory('/'))
    with File.open('b', 'read', 'append') as again:
        again.change_mode(others=['read', 'append'])
        again.grant('bob', 'append')
        again.grant('eve', 'read')
        again.grant('eve')
        known = again.status()
    print(known.paths, known.owner, sorted(known.mine), sorted(known.others), known.grants, known.exact, known.durable)
    print(0 < known.created <= known.modified < known.created + 60, known.fingerprint)
    kv.unlink('/shared/a')
    try:
        File.open('/shared/a')
    except cadenza.NotFound as error:
        print(error)
    return len(file)
"""

CUTTING = """
import cadenza
from cadenza import File, kv

async def main():
    file = File.create()
    await cadenza.forward(file, [5, 6, 7, 8])
    piece = file.extract([(3, 1), (0, 2)])
    whole = File.concat([piece, file])
    print(whole.tokens(), whole.positions(), whole.status().exact)
    piece.relocate(10)
    piece.relocate(-3)
    print(piece.positions(), piece.tokens(1), piece.positions(1, 1))
    piece.hide(0, 2)
    print(piece.status().hidden, end=' ')
    piece.show(0, 1)
    print(piece.status().hidden, len(piece))
    for wrong in (lambda: piece.relocate(-8), lambda: piece.hide(2, 2), lambda: File.concat([])):
        try:
            wrong()
        except cadenza.Invalid as error:
            print('refused:', str(error).split(':')[0])
    try:
        await file.sync()
    except cadenza.Unsupported as error:
        print(error)
"""

LOCKING = """
import asyncio
import cadenza
from cadenza import File

said = []
gates = {name: asyncio.Event() for name in 'xst'}

async def work(name, exclusive):
    with File.open('book', 'read', 'append', 'create') as file:
        async with file.lock(exclusive=exclusive):
            said.append(f'{name} begins')
            if name in gates:
                await gates[name].wait()
            if name == 't':
                gates['s'].set()
            said.append(f'{name} ends')

async def main():
    tasks = [asyncio.create_task(work(*each)) for each in (('x', True), ('s', False), ('t', False), ('y', True))]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(0.01):
            await work('late', True)
    except TimeoutError:
        said.append('late gives up')
    gates['t'].set()
    gates['x'].set()
    await asyncio.gather(*tasks)
    print(said)
"""

REUSING = """
from cadenza import File, Run

async def main():
    for _ in range(2):
        with File.create() as file:
            run = Run(file, list(range(3, 43)), max_tokens=1)
            await run.take()
            print(run.computed_tokens, run.reused_tokens)
"""


def lines(done: Ended) -> list[str]:
    assert done.status.ending == "finished", (done.status, done.error)
    return done.output.splitlines()


def test_names_and_rights(tmp_path: Path) -> None:
    listed, known, times, absent, length = lines(ended(tmp_path, ARRANGING))
    assert listed == ("[('b', False, 4)] [Entry(name='home', directory=True, tokens=0), "
                      "Entry(name='shared', directory=True, tokens=0)]")
    assert known == ("['/home/ada/b', '/shared/a'] ada ['append', 'read'] ['append', 'read'] "
                     "{'bob': frozenset({'append'})} True False")
    assert times == "True 0"
    assert absent == "there is no file /shared/a: create it, or look at the path"
    assert length == "4"


def test_cutting_and_joining(tmp_path: Path) -> None:
    assert lines(ended(tmp_path, CUTTING)) == [
        "[8, 5, 6, 5, 6, 7, 8] [3, 0, 1, 0, 1, 2, 3] False",
        "[10, 7, 8] [5, 6] [7]",
        "2 1 3",
        "refused: <File without a name of ada, 3 tokens> has positions 7 to 10; they cannot move by -8",
        "refused: tokens 2 to 4 of <File without a name of ada, 3 tokens>",
        "refused: nothing to concatenate",
        "this daemon keeps no files on disk: start it with --disk-gib above 0",
    ]


def test_locks(tmp_path: Path) -> None:
    assert lines(ended(tmp_path, LOCKING)) == [str([
        "x begins", "late gives up", "x ends", "s begins", "t begins", "t ends", "s ends", "y begins", "y ends",
    ])]  # fmt: skip


def test_a_run_tells_what_it_found_computed(tmp_path: Path) -> None:
    assert lines(ended(tmp_path, REUSING)) == ["40 0", "8 32"]


def test_what_one_user_gives_another_takes(tmp_path: Path) -> None:
    """Ada's program gives bob a file; his appends to it, until she takes that back."""
    giving = """
import cadenza
async def main():
    file = cadenza.File.open('gift', 'read', 'append', 'create')
    await cadenza.forward(file, [5, 6])
    file.grant('bob', 'read', 'append')
    while len(file) < 3:
        await cadenza.timer(0.001)
    file.grant('bob', 'read')
    await cadenza.timer(0.05)
    return len(file)
"""
    taking = """
import cadenza
async def main():
    while True:
        try:
            file = cadenza.File.open('/home/ada/gift', 'read', 'append')
            break
        except (cadenza.NotFound, cadenza.Denied):
            await cadenza.timer(0.001)
    await cadenza.forward(file, [7])
    while True:
        try:
            file.truncate(3)
            await cadenza.timer(0.001)
        except cadenza.Denied as error:
            return [str(error), file.tokens()]
"""

    async def main() -> tuple[Ended, Ended]:
        async with rig(tmp_path) as here:
            image = await here.kernel.images.add("bob", taking.encode())
            bobs = here.kernel.spawn("bob", image.digest, "{}")
            adas = await here.run(giving)
            return adas, await here.end(bobs)

    adas, bobs = asyncio.run(main())
    assert lines(adas) == ["3"]
    (said,) = lines(bobs)
    assert said == ('["descriptor 1 is of a file that bob may not append any more: ada, its owner, has changed that", '
                    "[5, 6, 7]]")
