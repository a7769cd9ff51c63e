"""Channels, processes, tools, arithmetic, arguments, and the bare calls."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from cadenza.sdk.guest.cadenza import (
    Arguments,
    Call,
    Entropy,
    ExitStatus,
    File,
    Full,
    LogProbabilities,
    NotFound,
    Run,
    Sampler,
    Tools,
    Top,
    TopTokens,
    arithmetic,
    channel,
    forward,
    loop,
    mark,
    process,
    trace,
)
from cadenza.sdk.guest.cadenza.inference import Verification

T = TypeVar("T")
pytestmark = pytest.mark.usefixtures("toy")


def run(main: Coroutine[Any, Any, T]) -> T:
    return loop.new().run(main)


def test_messages_come_in_order_and_losses_are_counted(toy: Any) -> None:
    toy.inbox += ["one", "two"]

    async def main() -> tuple[str, str]:
        return await channel.receive(), await channel.receive()

    assert run(main()) == ("one", "two")
    assert channel.messages().lost == 2
    assert channel.messages().receive_nowait() is None


def test_push_and_pull() -> None:
    async def main() -> list[str]:
        with channel.pull("work") as source:
            channel.push("work", "first")
            channel.push("work", "second")
            return [await source.receive(), await source.receive()]

    assert run(main()) == ["first", "second"]
    with pytest.raises(Full):
        channel.push("full", "x")


def test_child_is_waited_for() -> None:
    async def main() -> ExitStatus:
        return await process.spawn("child", {"x": 1}).wait()

    assert run(main()) == ExitStatus("exited", 3, "")
    with pytest.raises(NotFound, match="no image"):
        process.spawn("absent")


def test_signals_are_iterated() -> None:
    async def main() -> str:
        async for signal in process.signals():
            return signal
        return ""

    assert run(main()) == "terminate"


def test_forward_answers_each_sample_and_probe(toy: Any) -> None:
    async def main() -> None:
        with File.create() as file:
            done = await forward(
                file,
                [97, 98],
                samples=[(0, Sampler()), (1, Sampler())],
                probes=[(1, Top(1)), (0, LogProbabilities([98, 120])), (1, Entropy())],
            )
            assert done.tokens == [98, 99]
            assert done.probes == [TopTokens([99], [-0.1], 0.1), [-0.1, -3.0], 0.5]
            assert file.status().tokens == 2
        assert not toy.held

    run(main())


def test_run_delivers_and_stops(toy: Any) -> None:
    async def main() -> None:
        file = File.create()
        with Run(file, [97], max_tokens=10) as decode:
            assert await decode.take() == [98]
            assert await decode.take() == [99]
        assert decode.finish == "stopped"
        assert await decode.take() == []
        assert file.status().tokens == 2
        assert not toy.held

    run(main())


def test_a_verification_tells_what_of_a_draft_is_said(toy: Any) -> None:
    async def main() -> None:
        file = File.create()
        verdict = await Verification(file, 97, [120, 98, 99], [0, 0, 2]).take()
        assert (verdict.tokens, verdict.accepted, verdict.computed_tokens) == ([98, 99, 100], 2, 4)
        assert file.tokens() == [97, 98, 99]
        assert not toy.held

    run(main())


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("<|call|>calculator(17*(2+3))", Call("calculator", "17*(2+3)")),
        ('<tool_call>\n{"name": "sky", "arguments": {"at": "Oslo"}}\n</tool_call>', Call("sky", "", {"at": "Oslo"})),
        ('{"name": "clock", "parameters": {"at": "Rome"}}', Call("clock", "", {"at": "Rome"})),
        ("17 times 5 is 85.", None),
        ('{"answer": 3}', None),
        ("{not json}", None),
    ],
)
def test_calls_are_recognized(said: str, call: Call | None) -> None:
    assert Call.parse(said) == call


def test_tools_run_in_the_program_and_report_their_errors() -> None:
    tools = Tools()

    @tools.add
    def double(number: str) -> int:
        """Twice the number."""
        return 2 * int(number)

    @tools.add
    async def later(what: str, when: str = "now") -> str:
        """Something later."""
        return f"{what} {when}"

    assert tools.describe() == "double(number): Twice the number.\nlater(what, when): Something later."
    assert run(tools.run(Call("double", "21"))) == "42"
    assert run(tools.run(Call("later", named={"what": "tea", "when": "soon"}))) == "tea soon"
    assert run(tools.run(Call("double", "x"))).startswith("error: invalid literal")
    assert run(tools.run(Call("triple", "1"))) == "error: there is no tool triple"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("17*23", "391"), ("-7/2", "-3.50"), ("2**10 % 7", "2"), ("(1+2)*3-.5", "8.50"), ("7//2", "3"), ("1/3", "0.33")],
)
def test_arithmetic(expression: str, value: str) -> None:
    assert arithmetic.evaluate(expression) == value


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("1/0", "division by zero"),
        ("9**9**9**9", "a power of"),
        ("__import__('os')", "not an arithmetic expression"),
        ("True + 1", "not an arithmetic expression"),
        ("1 +", "not an arithmetic expression"),
        ("1" * 300, "at most 200"),
        ("2**0.5", "whole exponents"),
    ],
)
def test_arithmetic_refuses_the_rest(expression: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        arithmetic.evaluate(expression)


def test_arguments_are_an_object_and_a_mapping() -> None:
    args = Arguments({"question": "Why?", "n": 3})
    assert args.question == args["question"] == "Why?"
    assert args.get("absent", 5) == 5
    assert dict(args) == {"question": "Why?", "n": 3}
    with pytest.raises(AttributeError, match="without the argument `other`; given: question, n"):
        _ = args.other


def test_marks_and_spans(toy: Any) -> None:
    mark("begin", "7", "search")
    mark("end", "7")
    trace.instant("user", "hurry")
    with trace.span("8", "mail") as mailed:
        mailed.result = 42
    with pytest.raises(KeyError), trace.span("9", "lookup"):
        raise KeyError("absent")
    assert toy.log == [
        ("begin", "7: search"), ("end", "7: "), ("instant", "user: hurry"), ("begin", "8: mail"), ("end", "8: 42"),
        ("begin", "9: lookup"), ("end", "9: KeyError('absent')")]
