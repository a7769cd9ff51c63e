"""kill -9 at random moments: what was told to be durable is there, with its checksums; the rest is whole or absent."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import time
from pathlib import Path
from typing import Any

from cadenza.kvfs.store import Store
from tests.kvfs.crasher import work
from tests.kvfs.storing import LAYOUT, LIMIT, contents, image

KILLS = 120

State = dict[int, tuple[str, list[int]]]


def start(directory: Path, seed: int) -> tuple[int, int]:
    """A child that works on the store, and what it tells. It is a fork: starting an interpreter would take longer than
    most of its life."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 1)
        import sys

        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            work(directory, random.Random(seed))
        finally:
            os._exit(3)
    os.close(write)
    return pid, read


def told_until_killed(directory: Path, seed: int, seconds: float) -> list[list[Any]]:
    pid, pipe = start(directory, seed)
    data, until = b"", None
    while until is None or time.monotonic() < until:
        ready, _, _ = select.select([pipe], [], [], 5.0 if until is None else max(0.0, until - time.monotonic()))
        if ready:
            piece = os.read(pipe, 65536)
            assert piece, "the child ended by itself"
            data += piece
            if until is None:
                until = time.monotonic() + seconds
        else:
            assert until is not None, "the child never opened its store"
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    while piece := os.read(pipe, 65536):
        data += piece
    os.close(pipe)
    return [json.loads(line) for line in data.decode().splitlines(keepends=True) if line.endswith("\n")]


def play(state: State, told: list[list[Any]]) -> tuple[State, State]:
    """What must be there, and what may be there in place of it, if the last thing that was begun was done."""
    maybe = dict(state)
    for what, number, *more in told:
        if what in ("put", "begin"):
            maybe[number] = (more[0], more[1])
        elif what in ("rename", "begin-rename"):
            maybe[number] = (more[0], maybe[number][1])
        elif what in ("drop", "begin-drop"):
            maybe.pop(number, None)
        if not what.startswith("begin"):
            state = dict(maybe)
    return state, maybe


def test_what_was_durable_survives_kills(tmp_path: Path) -> None:
    chosen = random.Random(11)
    state: State = {}
    done = 0
    for kill in range(KILLS):
        told = told_until_killed(tmp_path, kill, chosen.uniform(0.0, 0.06))
        done += len(told)
        must, may = play(state, told)
        store = Store(tmp_path, LAYOUT, LIMIT)
        found = {n: (r.naming.paths[0], contents(store, r)) for n, r in store.files.items()}
        wanted = [{n: (path, [image(seed).tobytes() for seed in seeds]) for n, (path, seeds) in each.items()}
                  for each in (must, may)]
        assert found in wanted, f"after kill {kill}"
        store.recount([])
        state = must if found == wanted[0] else may
        store.close()
    assert done > 10 * KILLS, "the children hardly worked"
