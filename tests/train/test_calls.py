"""The traces are what their functions' times make of them: no wait without need, nothing lost, nothing said twice."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from cadenza.inferlets.async_calls.cml import CALL, INTR, RESERVED, TRAP, Call, Code, Malformed, Parser
from train.agent import THEN, USER, Agent
from train.data import encode
from train.dialogue import Dialogue, Interruption, Role, Turn, assistant, user
from train.executor import Executor
from train.jobs import Job
from train.runtime import Runtime, asynchronous_turn
from train.tasks import ASYNCHRONOUS, KINDS, SYNCHRONOUS, draw_dialogue
from train.tasks.calls import INTERRUPTED, MULTI_STEP, PARALLEL, SINGLE
from train.tokenizer import load_tokenizer
from train.world import Split, World, split_of

BUNDLED = Path(__file__).parents[2] / "kernel" / "model" / "bundled"
PLANS = {"single": SINGLE, "parallel": PARALLEL, "multi_step": MULTI_STEP, "interrupts": INTERRUPTED}
INTERRUPT = re.compile(r"\[INTR\]([\w ]+)\[HEAD\]([^\[]*)\[END\]")


def jobs(kind: str, count: int = 150) -> list[Job]:
    return [PLANS[kind].job(World(random.Random(f"{kind} {seed}"), Split.TRAIN, reach=12)) for seed in range(count)]


def calls_of(turn: Turn) -> dict[str, str]:
    parser = Parser()
    events = [*parser.feed(turn.text), *parser.finish()]
    found = [event for event in events if isinstance(event, Call)]
    assert len({call.id for call in found}) == len(found)
    return {call.id: call.code for call in found if call.id}


def noun_of(identity: str) -> str:
    """What is called, without what its result is for."""
    return identity.partition(THEN)[0]


def test_the_longest_starts_first_and_never_more_run_than_slots() -> None:
    executor = Executor(slots=2)
    for name, seconds in {"a": 1.0, "b": 5.0, "c": 2.0, "d": 3.0, "e": 1.5}.items():
        executor.submit(name, seconds)
    order = []
    while not executor.idle:
        assert len(executor.running) <= 2
        executor.wait()
        order += [(name, executor.now) for name in executor.take()]
    assert order == [("a", 1.0), ("d", 4.0), ("b", 5.0), ("c", 6.0), ("e", 6.5)]


def test_a_wait_ends_at_its_time() -> None:
    executor = Executor(slots=1)
    executor.submit("a", 5.0)
    executor.wait(until=2.0)
    assert (executor.now, executor.take()) == (2.0, [])
    executor.advance(4.0)
    assert (executor.now, executor.take()) == (6.0, ["a"])


@pytest.mark.parametrize("kind", PLANS)
def test_every_call_returns_once_and_every_chain_is_told_once(kind: str) -> None:
    for job in jobs(kind):
        turn = asynchronous_turn(job)
        interrupts = INTERRUPT.findall("".join(found.text for found in turn.interruptions))
        returned = [name for name, _ in interrupts if name != USER]
        assert sorted(returned) == sorted(calls_of(turn))
        assert all(value == job.replies[noun_of(name)].value for name, value in interrupts if name != USER)
        left = {interrupt.left_out for interrupt in job.interrupts}
        for chain in job.chains:
            nouns = [request.function.noun for request in chain.requests]
            told = [len(re.findall(rf"The {noun} (?:is(?! left out)|failed)", turn.text)) for noun in nouns]
            assert sum(told) == 1 or nouns[-1] in left


@pytest.mark.parametrize("kind", PLANS)
def test_a_trap_only_when_calls_run_and_nothing_is_left_to_say(kind: str) -> None:
    for job in jobs(kind, 60):
        agent, runtime = Agent(job), Runtime(job)
        while utterance := agent.utterance():
            if utterance.startswith(TRAP):
                assert not agent.queue
                assert agent.outstanding
            for event in runtime.hear(utterance):
                agent.hear(event)
            assert not runtime.stuck
        assert not agent.outstanding
        assert runtime.calls == {name: called.code for name, called in agent.calls.items()}


@pytest.mark.parametrize("kind", PLANS)
def test_no_interrupt_stands_in_a_critical_section(kind: str) -> None:
    for job in jobs(kind):
        turn, parser, done = asynchronous_turn(job), Parser(), 0
        for interruption in turn.interruptions:
            parser.feed(turn.text[done : interruption.after])
            done = interruption.after
            assert not parser.critical
            assert interruption.text.startswith(INTR)


def test_a_later_step_uses_what_the_step_before_returned() -> None:
    used = 0
    for job in jobs("multi_step"):
        calls = {noun_of(name): code for name, code in calls_of(asynchronous_turn(job)).items()}
        for chain in job.chains:
            for before, request in zip(chain.requests, chain.requests[1:], strict=False):
                noun = request.function.noun
                if noun in calls:
                    value = job.replies[before.function.noun].value
                    assert value in [str(argument) for _, argument in Code.parse(calls[noun]).named]
                    used += 1
    assert used > 50


def test_an_id_says_what_the_result_is_for() -> None:
    """The interrupt that brings it says what follows, unless the call failed."""
    went_on = 0
    for job in jobs("multi_step"):
        turn = asynchronous_turn(job)
        after = {step.function.noun: later.function.noun for chain in job.chains
                 for step, later in zip(chain.requests, chain.requests[1:], strict=False)}
        calls = calls_of(turn)
        for name in calls:
            noun = noun_of(name)
            assert name == (noun + THEN + after[noun] if noun in after else noun)
        called = {noun_of(name) for name in calls}
        for name, value in INTERRUPT.findall(turn.written):
            noun, then, follows = name.partition(THEN)
            assert (f"The {noun} " in turn.text) is (not then or value.startswith("error: "))
            assert not then or (follows in called) is not value.startswith("error: ")
            went_on += bool(then)
    assert went_on > 50


def test_traces_interleave() -> None:
    """Interrupts come between calls, in sentences and after traps, several at once among them."""
    turns = [asynchronous_turn(job) for job in jobs("interrupts", 300)]
    places = [(turn.text[: found.after], found.text) for turn in turns for found in turn.interruptions]
    assert sum(before.endswith("[TRAP][END]") for before, _ in places) > 100
    assert sum(before.endswith(")[END]") for before, _ in places) > 100
    assert sum(not before.endswith(("[END]", ".")) for before, _ in places) > 100
    assert sum(text.count(INTR) > 1 for _, text in places) > 20
    assert sum("Leave out" in text for _, text in places) > 10


def test_all_manners_make_the_same_calls() -> None:
    tried = 0
    for seed in range(60):
        found = []
        for kind in ("multi_step", "one_by_one_steps", "all_at_once_steps"):
            dialogue = KINDS[kind].dialogue(World(random.Random(seed), Split.TRAIN, reach=12))
            said = "".join(turn.text + "\n" for turn in dialogue.turns if turn.role is Role.ASSISTANT)
            found.append(sorted(re.findall(r"\w+_\w+\([^)]*\)", said)))
        assert found[0] == found[1] == found[2]
        tried += len(found[0])
    assert tried > 120


def test_functions_of_the_held_out_side_are_unseen() -> None:
    for split in Split:
        for kind in (task.kind for task in (*ASYNCHRONOUS, *SYNCHRONOUS)):
            source = random.Random(f"{split} {kind}")
            for _ in range(20):
                dialogue = draw_dialogue(kind, source, split, reach=12)
                names = re.findall(r"(\w+)_(\w+)\(", dialogue.turns[0].text)
                assert names
                assert all(split_of("function", f"{verb} {noun}") is split for verb, noun in names)


def test_interruptions_are_not_learnt_and_stand_between_tokens() -> None:
    tokenizer = load_tokenizer(BUNDLED)
    inside = 0
    for seed in range(60):
        dialogue = draw_dialogue("interrupts", random.Random(seed), Split.TRAIN, reach=12)
        encoded = encode(tokenizer, dialogue)
        assert len(encoded.ids) == len(encoded.learnt)
        learnt = [token for token, flag in zip(encoded.ids, encoded.learnt, strict=True) if flag]
        assert tokenizer.decode(learnt, skip_special_tokens=False) == dialogue.turns[-1].text + "<|end|>"
        others = [token for token, flag in zip(encoded.ids, encoded.learnt, strict=True) if not flag]
        written = "".join(found.text for found in dialogue.turns[-1].interruptions)
        assert tokenizer.decode(others, skip_special_tokens=False).endswith("<|assistant|>" + written)
        inside += tokenizer.decode(encoded.ids, skip_special_tokens=False) == dialogue.render()
    assert inside > 10      # a place inside a token moves to its end, in the others


def test_written_turns() -> None:
    turn = Turn(Role.ASSISTANT, "Hello.", (Interruption(2, "[INTR]a[HEAD]1[END]"), Interruption(6, "!")))
    assert turn.written == "He[INTR]a[HEAD]1[END]llo.!"
    rendered = Dialogue("x", (user("Hi."), assistant("Yes."))).render()
    assert rendered == "<|begin|><|user|>Hi.<|end|><|assistant|>Yes.<|end|>"


def test_the_runtime_refuses_a_second_call_of_one_id_and_marks_an_endless_trap() -> None:
    [job] = jobs("single", 1)
    runtime = Runtime(job)
    runtime.hear("[TRAP][END]")
    assert runtime.stuck
    noun = job.chains[0].requests[0].function.noun
    runtime = Runtime(job)
    runtime.hear(f"{CALL}{noun}[HEAD]wrong_name(){RESERVED[3]}")
    assert "unknown function" in runtime.written(noun)
    with pytest.raises(Malformed):
        runtime.hear(f"{CALL}{noun}[HEAD]x_{noun}(){RESERVED[3]}")
