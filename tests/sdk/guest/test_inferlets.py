"""The shipped inferlets and examples in the real runtime, beside a model that says what the test has written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from .rig import ended, rig

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
CALL, SUM = "<|call|>calculator(17*23)", "17 times 23 is 391."


def inferlet(name: str) -> str:
    return (ROOT / "inferlets" / f"{name}.py").read_text()


def example(name: str) -> str:
    return (ROOT / "examples" / name / "agent.py").read_text()


def test_completion_prints_what_follows(tmp_path: Path) -> None:
    done = ended(tmp_path, inferlet("completion"), {"prompt": "<|assistant|>", "max_tokens": 5})
    assert done.status.ending == "finished", done.error


def test_react_calls_its_tool_and_answers(tmp_path: Path) -> None:
    done = ended(tmp_path, inferlet("react"), {"question": "What is 17 times 23?"}, replies=[CALL, SUM])
    assert done.output == "calculator(17*23) = 391\n17 times 23 is 391.\n", done.error


def test_react_tells_the_model_of_a_tool_that_fails(tmp_path: Path) -> None:
    replies = ["<|call|>calculator(1/0)", "The tool failed: division by zero."]
    done = ended(tmp_path, inferlet("react"), {"question": "?"}, replies=replies)
    assert done.output.splitlines() == ["calculator(1/0) = error: division by zero", replies[1]]


def test_react_gives_up_after_its_steps(tmp_path: Path) -> None:
    done = ended(tmp_path, inferlet("react"), {"question": "?", "max_steps": 2}, replies=[CALL] * 3)
    assert done.status.message == "RuntimeError: the model still wants tools after 2 calls"


def test_chat_answers_each_message(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, ["Hello.", "Goodbye."]) as here:
            process = await here.spawn(inferlet("chat"), {"first": "Hi.", "system": "Be brief."})
            process.inbox.put("Bye.")
            process.inbox.put("")
            done = await here.end(process)
            assert (done.status.ending, done.output) == ("finished", "Hello.\nGoodbye.\n"), done.error

    asyncio.run(main())


def test_chat_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, ["Hello."]) as here:
            process = await here.spawn(inferlet("chat"), {"first": "Hi."})
            while not process.signals.opened:
                await process.output.changed(0)
                await asyncio.sleep(0.01)
            process.send_signal("terminate")
            assert (await here.end(process)).status.ending == "finished"

    asyncio.run(main())


def test_best_of_n_prints_every_candidate_and_answers_one(tmp_path: Path) -> None:
    done = ended(tmp_path, inferlet("best_of_n"), {"question": "Who?", "n": 3}, replies=["One.", "Two.", "Three."])
    lines = done.output.splitlines()
    assert sorted(line.split()[1] for line in lines[:3]) == ["One.", "Three.", "Two."], done.error
    assert lines[3] == lines[0].split()[1]


def test_beam_search_keeps_so_many_beams(tmp_path: Path) -> None:
    done = ended(tmp_path, inferlet("beam_search"), {"question": "Who?", "width": 3, "max_tokens": 4})
    assert done.status.ending == "finished", done.error
    assert len(done.output.splitlines()) == 3


def test_calculator_example(tmp_path: Path) -> None:
    done = ended(tmp_path, example("calculator"), replies=[CALL, SUM])
    assert done.output == "calculator(17*23) = 391\n17 times 23 is 391.\n", done.error


def test_document_example(tmp_path: Path) -> None:
    done = ended(tmp_path, example("document"), replies=["In Lisbon."] * 3)
    assert done.output.count("In Lisbon.") == 3, done.error


def test_conversation_example(tmp_path: Path) -> None:
    done = ended(tmp_path, example("conversation"), replies=["Ivo lives in Lima.", "Mara lives in Oslo."])
    first, second = done.output.splitlines()[1::2]
    assert first == "Ivo lives in Lima.  (0 tokens were there already)", done.error
    assert second.startswith("Mara lives in Oslo.")
    assert "(0 tokens" not in second


def test_vote_example(tmp_path: Path) -> None:
    done = ended(tmp_path, example("vote"), {"voters": 5}, replies=["Oslo.", "Lima.", "Oslo.", "Oslo.", "Lima."])
    assert done.output == "Oslo.  (3 of 5 agree)\n", done.error


def test_gather_example(tmp_path: Path) -> None:
    done = ended(tmp_path, example("gather"), replies=["You said."] * 4)
    assert done.status.ending == "finished", done.error
    assert len(done.output.splitlines()) == 4


def test_two_programs_example(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path, ["I am small.", "I answer.", "You are welcome."]) as here:
            done = await here.run(example("two_programs"), name="two_programs")
            assert done.output.splitlines() == [
                "Who are you? I am small.",
                "What can you do? I answer.",
                "Thank you. You are welcome.",
                "the other finished",
            ], done.error

    asyncio.run(main())
