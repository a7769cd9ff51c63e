"""What the agents decide, line by line of the table in docs/async_calls.md, on a model that keeps to a script."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.calls.world import upload
from cadenza.inferlets.async_calls.cml import INTR
from cadenza.kernel.virtual_clock import simulate
from tests.inferlets.babbler import ENDS, INTERRUPT, babbling, prepare

END = ENDS[1]
MOST_TOLD_TOKENS = 512
PROGRAM = '''
import asyncio, json
import cadenza
from async_calls.asynchronous import Asynchronous
from async_calls.synchronous import Synchronous
from async_calls.toolbox import Toolbox

def tool(seconds, value):
    async def call(*values, **named):
        await asyncio.sleep(seconds)
        if value == "raise":
            raise ValueError("broken")
        return value
    return call

async def say_later(agent, seconds, identity, text):
    await asyncio.sleep(seconds)
    if text == "cancel":
        agent.cancel(identity)
    else:
        agent.interrupt(identity, text)

async def main(args):
    tools = Toolbox()
    for name, seconds, value in args.tools:
        tools.add(name=name, seconds=seconds)(tool(seconds, value))
    agent = (Asynchronous if args.agent == "asynchronous" else Synchronous)(tools, **args.options)
    context = cadenza.Context()
    context.fill("?")
    acting = asyncio.ensure_future(agent.act(context))
    later = [asyncio.ensure_future(say_later(agent, *each)) for each in args.later]
    outcome = await acting
    print(json.dumps({
        "text": cadenza.model.detokenize(context.tokens, special=True).partition("?")[2],
        "said": outcome.text, "finish": outcome.finish, "traps": outcome.traps, "interrupts": outcome.interrupts,
        "turns": outcome.turns, "jobs": [[job.id, job.code, job.value] for job in outcome.jobs],
        "seconds": round(outcome.seconds, 3),
    }))
'''

Segment = tuple[int, str]


def script_of(segments: Sequence[Segment]) -> Any:
    """Each segment is said once so many interrupts stand in the context; else the turn ends."""
    def follow(said: str) -> str:
        own, heard = INTERRUPT.sub("", said), said.count(INTR)
        for needed, text in segments:
            if not own.startswith(text):
                return text[len(own):] if heard >= needed and text.startswith(own) else END
            own = own[len(text):]
        return END
    return follow


def played(segments: Sequence[Segment], tools: Sequence[tuple[str, float, str]], *, reserved: bool = True,
           agent: str = "asynchronous", later: Sequence[tuple[float, str, str]] = (), **options: Any) -> dict[str, Any]:
    async def play() -> dict[str, Any]:
        async with babbling(reserved=reserved, script=script_of(segments)) as kernel:
            await kernel.images.add("ada", upload(PROGRAM), name="played")
            given = {"tools": tools, "agent": agent, "later": later, "options": options}
            process = kernel.spawn("ada", "played", json.dumps(given))
            status = await process.ended()
            said = "".join(event.text for event in process.output.read(0)[0])
            assert status.ending == "finished", f"{status.message}\n{said}"
            kernel.recount()
            report: dict[str, Any] = json.loads(said)
            return report
    prepare()
    return simulate(play())


CALL_A = "[CALL]a[HEAD]f(1)[END]"
CALL_B = "[CALL]b[HEAD]g(2)[END]"
TRAP = "[TRAP][END]"


@pytest.mark.parametrize("reserved", [True, False])
def test_a_result_interrupts_what_is_being_said(reserved: bool) -> None:
    found = played([(0, CALL_A + "well, it may take a while until somebody answers.")], [("f", 0.1, "7")],
                   reserved=reserved)
    assert found["text"].startswith(CALL_A)
    before, _, after = found["text"].partition("[INTR]a[HEAD]7[END]")
    assert before.removeprefix(CALL_A)
    assert after.endswith("answers.")
    assert found["said"] == "well, it may take a while until somebody answers."


@pytest.mark.parametrize("reserved", [True, False])
def test_nothing_goes_into_a_critical_section(reserved: bool) -> None:
    long = "[CALL]b[HEAD]g('" + 40 * "x" + "')[END]"
    found = played([(0, CALL_A + long + "so.")], [("f", 0.05, "7"), ("g", 0.01, "8")], reserved=reserved)
    assert found["text"].startswith(CALL_A + long + "[INTR]a[HEAD]7[END]")


@pytest.mark.parametrize(("resume", "text"), [
    ("any", CALL_A + CALL_B + TRAP + "[INTR]b[HEAD]8[END]" + TRAP + "[INTR]a[HEAD]7[END]so."),
    ("all", CALL_A + CALL_B + TRAP + "[INTR]b[HEAD]8[END][INTR]a[HEAD]7[END]so."),
])  # fmt: skip
def test_a_trap_ends_with_any_result_or_with_all(resume: str, text: str) -> None:
    second = [(1, TRAP)] if resume == "any" else []
    found = played([(0, CALL_A + CALL_B + TRAP), *second, (2, "so.")], [("f", 3.0, "7"), ("g", 2.0, "8")],
                   resume=resume)
    assert found["text"] == text
    assert found["traps"] == (2 if resume == "any" else 1)
    assert 3.0 < found["seconds"] < 4.0


def test_words_of_somebody_end_a_trap_that_waits_for_all_and_bring_what_has_come() -> None:
    found = played([(0, CALL_A + CALL_B + TRAP), (2, "well." + TRAP), (3, "so.")], [("f", 9.0, "7"), ("g", 2.0, "8")],
                   resume="all", later=[(5.0, "user", "hey")])
    assert "[INTR]b[HEAD]8[END][INTR]user[HEAD]hey[END]well." in found["text"]
    assert found["text"].endswith("[INTR]a[HEAD]7[END]so.")


def test_a_trap_with_nothing_pending_is_the_end() -> None:
    found = played([(0, "so." + TRAP)], [])
    assert (found["finish"], found["text"]) == ("stuck", "so." + TRAP)


def test_the_end_of_the_text_with_calls_pending_is_a_trap() -> None:
    found = played([(0, CALL_A + "I wait."), (1, " It is 7.")], [("f", 5.0, "7")])
    assert found["text"] == CALL_A + "I wait.[INTR]a[HEAD]7[END] It is 7."
    assert found["finish"] == "ended"


def test_a_call_without_an_id_tells_nobody() -> None:
    found = played([(0, "[CALL]f(1)[END]so.")], [("f", 0.01, "7")])
    assert (found["text"], found["jobs"]) == ("[CALL]f(1)[END]so.", [[None, "f(1)", "7"]])


@pytest.mark.parametrize("reserved", [True, False])
def test_a_call_that_does_not_end_is_ended_for_it_and_the_model_goes_on(reserved: bool) -> None:
    endless = "[CALL]a[HEAD]f('" + "x" * 4093
    found = played([(0, endless), (0, "[END]"), (1, "so.")], [("f", 0.1, "7")], reserved=reserved, max_tokens=5000)
    (identity, code, value), = found["jobs"]
    assert (identity, len(code)) == ("a", 4096)
    assert value.startswith("error: ")
    assert found["text"].startswith(endless + "[END][INTR]a[HEAD]error: ")
    assert (found["said"], found["finish"]) == ("so.", "ended")


def test_an_id_that_is_in_use_is_refused() -> None:
    found = played([(0, CALL_A + "[CALL]a[HEAD]g(2)[END]" + TRAP), (1, TRAP), (2, "so.")],
                   [("f", 3.0, "7"), ("g", 0.1, "8")])
    assert found["text"].count("[INTR]a[HEAD]error: this id is in use[END]") == 1
    assert [job[1] for job in found["jobs"]] == ["f(1)"]
    assert found["text"].endswith("[INTR]a[HEAD]7[END]so.")


@pytest.mark.parametrize(("code", "value"), [
    ("h(1)", "error: unknown function"), ("what is this", "error: 'what is this' is no call with literal arguments"),
    ("f(1)", "error: broken"), ("g(1)", "error: timed out"), ("j(1)", "x" * 4096 + " … (cut)"),
])  # fmt: skip
def test_what_is_wrong_with_a_call_is_its_value(code: str, value: str) -> None:
    tools = [("f", 0.1, "raise"), ("g", 100.0, "8"), ("j", 0.1, "x" * 9000)]
    found = played([(0, f"[CALL]a[HEAD]{code}[END]" + TRAP), (1, "so.")], tools, limit_seconds=2.0)
    assert f"[INTR]a[HEAD]{value}" in found["text"]
    assert found["seconds"] < 6.0
    assert found["finish"] == "ended"


def test_a_call_that_is_cancelled_says_so() -> None:
    found = played([(0, CALL_A + TRAP), (1, "so.")], [("f", 30.0, "7")], later=[(1.0, "a", "cancel")])
    assert found["text"] == CALL_A + TRAP + "[INTR]a[HEAD]error: cancelled[END]so."
    assert found["seconds"] < 2.0


def test_few_run_at_once_the_longest_first() -> None:
    calls = "".join(f"[CALL]{name}[HEAD]{name}()[END]" for name in "abc")
    tools = [("a", 1.0, "1"), ("b", 0.5, "2"), ("c", 2.0, "3")]
    found = played([(0, calls + TRAP), (1, TRAP), (2, TRAP), (3, "so.")], tools, slots=1)
    heard = [part[0] for part in found["text"].split(INTR)[1:]]
    assert heard == ["a", "c", "b"]


def test_a_storm_goes_in_piece_by_piece_and_whole() -> None:
    later = [(0.5 + number / 9999, "user", f"{number} " + "x" * 90) for number in range(40)]
    found = played([(0, 120 * "well "), (40, "so.")], [], later=later)
    assert [int(part.split("[HEAD]")[1].split()[0]) for part in found["text"].split(INTR)[1:]] == list(range(40))
    together = max(map(len, re.findall("\0+", INTERRUPT.sub("\0", found["text"]))))
    assert 1 < together <= MOST_TOLD_TOKENS // 90, "between two tokens of the model"


@pytest.mark.parametrize(("parallel", "turns", "seconds"), [(False, 3, 3.0), (True, 2, 2.0)])
def test_synchronous_agents_wait(parallel: bool, turns: int, seconds: float) -> None:
    calls = ["<|call|>f(1)", "<|call|>g(2)"]
    said = ["".join(calls)] if parallel else calls
    def follow(text: str) -> str:
        rest = text
        for each in said:
            if not rest.startswith(each):
                return each[len(rest):] if each.startswith(rest) else END
            rest = rest[len(each):]
            if not rest:
                return END
            rest = rest.removeprefix("7").removeprefix("8")
        return "so."[len(rest):] if len(rest) < 3 else END
    async def play() -> dict[str, Any]:
        async with babbling(reserved=True, script=follow) as kernel:
            await kernel.images.add("ada", upload(PROGRAM.replace('fill("?")', 'user("?")')), name="played")
            process = kernel.spawn("ada", "played", json.dumps({
                "tools": [("f", 1.0, "7"), ("g", 2.0, "8")], "agent": "synchronous", "later": [],
                "options": {"parallel": parallel}}))
            await process.ended()
            report: dict[str, Any] = json.loads("".join(event.text for event in process.output.read(0)[0]))
            return report
    prepare()
    found = simulate(play())
    assert [job[2] for job in found["jobs"]] == ["7", "8"]
    assert (found["turns"], found["said"]) == (turns, "so.")
    assert seconds < found["seconds"] < seconds + 1.0
