"""A program that kills stores at work: `python -m tests.kvfs.crasher DIRECTORY KILLS`.

Each round forks a child that works on the store in two threads until SIGKILL: one commits, over and over; the other
changes names and flushes. Before each thing a thread tells it by a pipe, and again when it knows it to be durable.
Then this process opens the store and compares: each file is as it was told last, or as the one thing makes it that its
thread was in the midst of; its pages are whole. It goes on with the same directory.

It is a process of its own because it forks: it is small, and has no thread.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cadenza.kvfs.fsck import check
from cadenza.kvfs.records import Naming
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, NO_NAME, image, record_for, stage, state

SLOWEST = 0.12                               # seconds that a child works at most

Files = dict[int, tuple[str, list[int]]]     # path, seeds of the pages
Act = dict[int, Any]                         # what becomes of files: path and seeds, or None


class Worker:
    """What one thread does, to files that only it knows."""

    def __init__(self, store: Store, pipe: int, name: int, files: Files, seed: int) -> None:
        self._store = store
        self._pipe = pipe
        self._name = name
        self._files = files
        self._chosen = random.Random(seed)

    def work(self) -> None:
        acts = [self.commit, self.commit, self.fork, self.together] if self._name == 0 else [
            self.first, self.rename, self.rename, self.replace, self.drop, self.flush]
        while True:
            self._chosen.choice(acts)()

    def tell(self, begun: bool, act: Act) -> None:
        os.write(self._pipe, json.dumps([self._name, begun, list(act.items())]).encode() + b"\n")

    def does(self, act: Act) -> None:
        """`act` has been told; it is durable now, or safe from a kill at least."""
        for number, what in act.items():
            self._files.pop(number, None)
            if what is not None:
                self._files[number] = what
        self.tell(False, act)

    def any(self) -> int:
        return self._chosen.choice(list(self._files)) if self._files else self.new()

    def new(self) -> int:
        """Numbers are even for one thread, odd for the other."""
        while (number := self._store.new_number()) % 2 != self._name:
            pass
        return number

    def contents(self, number: int) -> tuple[str, list[int]]:
        seeds = [self._chosen.randrange(10_000) for _ in range(self._chosen.choice([0, 1, 3, 40]))]
        return f"/home/ada/{number}/{self._chosen.randrange(100)}", seeds

    def commit(self, count: int = 1) -> None:
        numbers = [self.any() if self._chosen.random() < 0.5 else self.new() for _ in range(count)]
        act: Act = {number: self.contents(number) for number in numbers}
        self.tell(True, act)
        for number, (path, seeds) in act.items():
            stage(self._store, number, path, seeds)
        assert self._store.commit(*act)
        self.does(act)

    def together(self) -> None:
        """Not atomic, and said to be durable as one: each is whole or absent."""
        self.commit(3)

    def first(self) -> None:
        if len(self._files) < 10:
            self.commit()

    def fork(self) -> None:
        source, number = self.any(), self.new()
        if source in self._files:
            path, seeds = f"/home/ada/fork/{number}", self._files[source][1]
            self.tell(True, {number: (path, seeds)})
            self._store.stage(record_for(number, path, self._store.files[source].pages, sum(seeds)))
            assert self._store.commit(number)
            self.does({number: (path, seeds)})

    def change(self, act: Act) -> None:
        self.tell(True, act)
        self._store.change({number: NO_NAME if what is None else Naming("ada", (what[0],))
                            for number, what in act.items()})
        self.does(act)

    def rename(self) -> None:
        if self._files:
            number = self.any()
            self.change({number: (f"/home/ada/moved/{number}/{self._chosen.random()}", self._files[number][1])})

    def replace(self) -> None:
        """Atomic: never do two files have the name, and never none."""
        if len(self._files) > 1:
            number, loser = self._chosen.sample(list(self._files), 2)
            self.change({number: (self._files[loser][0], self._files[number][1]), loser: None})

    def drop(self) -> None:
        if len(self._files) > 3:
            self.change({self.any(): None})

    def flush(self) -> None:
        if self._chosen.random() < 0.2:
            self._store.compact()
        else:
            self._store.flush()


def child(directory: Path, pipe: int, files: Files, seed: int) -> None:
    store = Store(directory, LAYOUT, LIMIT)
    os.write(pipe, b'[0,false,[]]\n')
    halves = [{number: what for number, what in files.items() if number % 2 == name} for name in (0, 1)]
    workers = [Worker(store, pipe, name, half, 2 * seed + name) for name, half in enumerate(halves)]
    threads = [threading.Thread(target=worker.work) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def told_until_killed(directory: Path, files: Files, seed: int, seconds: float) -> list[list[Any]]:
    pipe, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(directory, write, files, seed)
        finally:
            os._exit(3)
    os.close(write)
    data = os.read(pipe, 65536)                  # it is open
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            data += os.read(pipe, 65536)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, f"the child of round {seed} ended by itself"
    while piece := os.read(pipe, 65536):
        data += piece
    os.close(pipe)
    return [json.loads(line) for line in data.decode().splitlines(keepends=True) if line.endswith("\n")]


def agree(found: Files, files: Files, told: list[list[Any]]) -> None:
    """`files` become what was found, which must be what was told. Raises AssertionError."""
    begun: dict[int, Act] = {}
    for name, begins, pairs in told:
        act = {number: what and (what[0], what[1]) for number, what in pairs}
        if begins:
            begun[name] = act
        else:
            begun.pop(name, None)
            apply(files, act)
    for name, act in begun.items():
        half = {number: what for number, what in found.items() if number % 2 == name}
        before = {number: what for number, what in files.items() if number % 2 == name}
        drops = any(what is None for what in act.values())
        allowed = [before, applied(before, act)] if drops or len(act) == 1 else subsets(before, act)
        assert half in allowed, f"{half} is neither {before} nor that with {act}"
        files.update(half)
        for number in before.keys() - half.keys():
            del files[number]
    assert found == files


def apply(files: Files, act: Act) -> None:
    for number, what in act.items():
        files.pop(number, None)
        if what is not None:
            files[number] = what


def applied(files: Files, act: Act) -> Files:
    files = dict(files)
    apply(files, act)
    return files


def subsets(files: Files, act: Act) -> list[Files]:
    found = [files]
    for number, what in act.items():
        found += [applied(each, {number: what}) for each in found]
    return found


def main(directory: Path, kills: int) -> None:
    chosen = random.Random(11)
    images = {image(seed).tobytes(): seed for seed in range(10_000)}
    files: Files = {}
    done = amid = 0
    for kill in range(kills):
        told = told_until_killed(directory, dict(files), kill, chosen.uniform(0.0, SLOWEST))
        done += sum(not begins for _, begins, _ in told)
        amid += sum(begins for _, begins, _ in told) > sum(not begins for _, begins, _ in told) - 1
        assert check(directory).problems == [], f"after kill {kill}"
        store = Store(directory, LAYOUT, LIMIT)
        found = {number: (paths[0], [images[page] for page in pages])
                 for number, (paths, pages) in state(store).items()}
        agree(found, files, told)
        assert len({path for path, _ in files.values()}) == len(files), "two files have one name"
        store.recount([])
        for number in list(files)[30:]:          # so that rounds stay short
            store.change({number: NO_NAME})
            del files[number]
        store.close()
    print(json.dumps({"kills": kills, "done": done, "amid": amid, "files": len(files)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
