"""Interface `grammar`, and what passes and runs do with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cadenza.kernel.limits import GRAMMARS_PER_PROCESS
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Busy, Invalid, LimitExceeded, NotFound, NotReady, Unsupported

from .asking import decode, forward, sample
from .desk import Desk, a_draft, a_pass, a_run, a_sampler, in_loop
from .test_model_calls import END, desk_of_bytes


async def compiled(desk: Desk, process: Process, kind: str, value: Any) -> int:
    handle: int = desk.ask(process, "grammar.compile", (kind, value))
    await desk.wait(process, handle)
    desk.ask(process, "grammar.take-grammar", handle)
    return handle


def status(desk: Desk, process: Process, grammar: int) -> tuple[int, bool, bool]:
    known = desk.ask(process, "grammar.status", grammar)
    return known.tokens, known.may_end, known.ended


@in_loop
async def test_a_run_says_what_the_grammar_allows_and_the_grammar_stands_where_it_ended() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        grammar = await compiled(desk, process, "choices", ["red", "green"])
        file = desk.ask(process, "kv.create")
        assert desk.ask(process, "grammar.forced", grammar) == []
        said, finish = await decode(desk, process, a_run(file, [1], max_tokens=2, grammar=grammar))
        assert (bytes(said) in (b"re", b"gr"), finish) == (True, "length")
        assert status(desk, process, grammar) == (2, False, False)
        fork = desk.ask(process, "grammar.fork", grammar)
        more, finish = await decode(desk, process, a_run(file, said[-1:], max_tokens=9, grammar=grammar))
        assert (bytes([*said, *more[:-1]]) in (b"red", b"green"), more[-1], finish) == (True, END, "stop-token")
        assert status(desk, process, grammar) == (len(said + more), True, True)
        desk.ask(process, "grammar.roll-back", grammar, len(more))
        assert status(desk, process, grammar) == status(desk, process, fork)
        desk.ask(process, "grammar.advance", grammar, list(more))
        with pytest.raises(Invalid, match="1th"):
            desk.ask(process, "grammar.advance", fork, [0])
        desk.ask(process, "events.close", grammar)
        with pytest.raises(NotFound):
            status(desk, process, grammar)


@in_loop
async def test_samples_of_a_pass_are_masked_and_the_grammar_stays() -> None:
    async with desk_of_bytes() as desk:
        process, file = desk.spawn(), 0
        grammar = await compiled(desk, process, "regex", "[xyz]{2}")
        file = desk.ask(process, "kv.create")
        samples = [sample(row, temperature=1.0, seed=seed) for row in (0, 2) for seed in range(8)]
        done = await forward(desk, process, a_pass(file, [1, 2, 3], samples=samples, grammar=grammar))
        assert set(done.tokens) <= set(b"xyz")
        assert status(desk, process, grammar) == (0, False, False)
        only_x = {"tokens": list(b"x"), "allowed": True}
        done = await forward(desk, process, a_pass(file, [4], samples=samples[:8], mask=only_x, grammar=grammar))
        assert set(done.tokens) == set(b"x")
        for call, request in (("forward", a_pass(file, [4], samples=samples[:1])), ("decode", a_run(file, [4]))):
            with pytest.raises(Invalid, match="hide"):
                desk.ask(process, f"inference.{call}", {**request, "mask": {"tokens": [97], "allowed": True},
                                                        "grammar": grammar})


@in_loop
async def test_a_draft_is_verified_under_a_grammar_and_moves_it() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        grammar = await compiled(desk, process, "regex", "abc")
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.verify", a_draft(file, 1, list(b"axbd"), [0, 0, 1, 3], grammar=grammar))
        with pytest.raises(Busy):
            desk.ask(process, "grammar.fork", grammar)
        await desk.wait(process, handle)
        assert desk.ask(process, "inference.take-verified", handle) == (list(b"abc"), 2, 3, "running")
        assert status(desk, process, grammar) == (3, True, False)
        handle = desk.ask(process, "inference.verify", a_draft(file, ord("c"), [END], [0], grammar=grammar))
        await desk.wait(process, handle)
        assert desk.ask(process, "inference.take-verified", handle) == ([END], 0, 1, "stop-token")
        assert status(desk, process, grammar) == (4, True, True)
        with pytest.raises(Invalid, match="hide"):
            desk.ask(process, "inference.verify", a_draft(file, END, [], [], grammar=grammar))


@in_loop
async def test_states_and_grammar_must_both_allow() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        grammar = await compiled(desk, process, "regex", "[a-f]{4}")
        alternate = [{"mask": {"tokens": list(b"abc"), "allowed": True}, "moves": [], "otherwise": 1, "open": True},
                     {"mask": {"tokens": list(b"defx"), "allowed": True}, "moves": [], "otherwise": 0, "open": True}]
        file = desk.ask(process, "kv.create")
        said, finish = await decode(desk, process, a_run(file, [1], max_tokens=4, states=alternate, grammar=grammar,
                                                         sampler=a_sampler(temperature=1.0, seed=5)))
        assert finish == "length"
        assert all(token in (b"def" if at % 2 else b"abc") for at, token in enumerate(said))


@in_loop
async def test_a_stopped_run_takes_its_grammar_back() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        grammar = await compiled(desk, process, "regex", "[a-z]{400}")
        file = desk.ask(process, "kv.create")
        run = desk.ask(process, "inference.decode", a_run(file, [1], max_tokens=300, grammar=grammar))
        with pytest.raises(Busy):
            desk.ask(process, "grammar.fork", grammar)
        await desk.wait(process, run)
        taken = len(desk.ask(process, "inference.take-tokens", run).tokens)
        await desk.settle()
        desk.ask(process, "inference.stop", run)
        assert status(desk, process, grammar) == (taken, False, False)
        run = desk.ask(process, "inference.decode", a_run(file, [1], max_tokens=3, grammar=grammar))
        await desk.settle()
        desk.ask(process, "events.close", run)
        assert status(desk, process, grammar) == (taken, False, False), "nothing of it was taken"


@in_loop
async def test_a_grammar_is_a_process_s_own() -> None:
    async with desk_of_bytes() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        grammar = await compiled(desk, ada, "regex", "a+")
        for call in ("take-grammar", "fork", "status", "forced"):
            with pytest.raises(NotFound):
                desk.ask(bob, f"grammar.{call}", grammar)
        file = desk.ask(bob, "kv.create")
        with pytest.raises(NotFound):
            desk.ask(bob, "inference.decode", a_run(file, [1], grammar=grammar))


@in_loop
async def test_what_cannot_be_used_says_why() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        grammar = desk.ask(process, "grammar.compile", ("regex", "a("))
        for request in (a_pass(file, [1], grammar=grammar), a_run(file, [1], grammar=grammar)):
            with pytest.raises(NotReady):
                desk.ask(process, "inference.decode" if "max_tokens" in request else "inference.forward", request)
        await desk.wait(process, grammar)
        with pytest.raises(Invalid, match="unclosed"):
            desk.ask(process, "grammar.take-grammar", grammar)
        with pytest.raises(Invalid, match="unclosed"):
            desk.ask(process, "inference.decode", a_run(file, [1], grammar=grammar))
        assert desk.ask(process, "kv.stat", file).busy is False


@in_loop
async def test_a_process_has_so_many() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        grammar = await compiled(desk, process, "regex", "a+")
        for _ in range(GRAMMARS_PER_PROCESS - 1):
            desk.ask(process, "grammar.fork", grammar)
        for call in (("grammar.fork", grammar), ("grammar.compile", ("regex", "b"))):
            with pytest.raises(LimitExceeded, match="grammars"):
                desk.ask(process, *call)


@in_loop
async def test_the_tokens_that_grammars_have_had_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadenza.syscalls.grammar.GRAMMAR_HISTORY_TOKENS", 20)
    async with desk_of_bytes() as desk:
        process, stranger = desk.spawn(), desk.spawn("bob")
        grammar = await compiled(desk, process, "regex", "a+")
        desk.ask(process, "grammar.advance", grammar, np.full(10, 97, np.uint32))
        fork = desk.ask(process, "grammar.fork", grammar)
        for call in (("grammar.fork", grammar), ("grammar.advance", fork, np.full(1, 97, np.uint32))):
            with pytest.raises(LimitExceeded, match="at most 20: close some, or take tokens back"):
                desk.ask(process, *call)
        desk.ask(process, "grammar.roll-back", fork, 10)
        desk.ask(process, "grammar.advance", grammar, np.full(10, 97, np.uint32))
        assert (status(desk, process, grammar)[0], status(desk, process, fork)[0]) == (20, 0)
        desk.ask(stranger, "grammar.advance", await compiled(desk, stranger, "regex", "a+"), np.full(20, 97, np.uint32))


@in_loop
async def test_a_model_without_words_has_none() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(Unsupported):
            await compiled(desk, process, "regex", "a")
