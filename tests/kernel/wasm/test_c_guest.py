"""C programs: built from sdk/c with packages alone, and run."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cadenza.kernel.http_request import Header
from cadenza.kernel.manifest import Manifest, of_component
from cadenza.kernel.tools import ToolResult
from cadenza.kernel.wasm.seams import Outcome

from .component_text import kernel_imports
from .guests import run, runtime

SDK = Path(__file__).parents[3] / "sdk" / "c"


@pytest.fixture(scope="module")
def build() -> Any:
    pytest.importorskip("ziglang")
    return runpy.run_path(str(SDK / "build.py"))["build"]


class Decoding:
    """A model that says 100, 101, …, as many at a time as the run asks to be delivered."""

    def __init__(self) -> None:
        self.run: Any = None
        self.said: list[tuple[str, str]] = []
        self.taken = self.waits = 0

    def handlers(self) -> dict[str, Any]:
        return {
            "arguments": lambda _: self.arguments, "log": lambda _, to, text: self.said.append((to, text)),
            "create": lambda _: 3, "tokenize": lambda _, text, special: list(text.encode()),
            "detokenize": lambda _, tokens, special: " ".join(map(str, tokens.tolist())),
            "decode": self.decode, "wait": self.wait, "take_tokens": self.take,
        }

    def decode(self, _: Any, asked: Any) -> int:
        self.run = asked
        return 9

    def wait(self, _: Any, handles: Any, *rest: Any) -> Any:
        assert handles.tolist() == [9]
        self.waits += 1
        return handles

    def take(self, _: Any, handle: int) -> Any:
        first = self.taken
        self.taken = min(first + self.run.deliver_every, self.run.max_tokens)
        tokens = range(100 + first, 100 + self.taken)
        return SimpleNamespace(tokens=tokens, finish="length" if self.taken == self.run.max_tokens else "running",
                               computed_tokens=len(self.run.tokens), reused_tokens=0, interjected=[])

    def outcome(self, cache: Path, wasm: bytes, arguments: str) -> Outcome:
        self.arguments = arguments

        async def main() -> Outcome:
            with runtime(cache, **self.handlers()) as made:
                return await run(made, wasm)
        return asyncio.run(main())


def test_kernel_wat_is_what_the_wit_says() -> None:
    assert (SDK / "kernel.wat").read_text() == kernel_imports(), \
        "run: PYTHONPATH=src python -m tests.kernel.wasm.component_text > sdk/c/kernel.wat"


def test_the_example_completes_its_prompt(cache: Path, build: Any) -> None:
    model = Decoding()
    ended = model.outcome(cache, build([SDK / "example.c"]), '{"prompt": "hi!", "max_tokens": 100}')
    assert ended == Outcome("finished")
    assert model.run.tokens.tolist() == list(b"hi!")
    assert (model.run.max_tokens, model.run.mask, model.run.sampler.temperature) == (100, None, 0.0)
    assert model.said == [("output", " ".join(str(100 + n) for n in range(100)))]
    assert model.waits == 2


def test_the_example_says_what_it_needs(cache: Path, build: Any) -> None:
    ended = Decoding().outcome(cache, build([SDK / "example.c"]), "{}")
    assert ended == Outcome("failed", 1, 'give a "prompt" in the arguments')


def test_what_is_not_a_system_call_cannot_be_imported(build: Any, tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text('#include "cadenza.h"\n'
                      '__attribute__((import_module("env"), import_name("puts"))) int puts(char*);\n'
                      'const char *cadenza_main(void) { puts(""); return 0; }\n')
    with pytest.raises(SystemExit, match=r"env\.puts"):
        build([source])


def test_a_mark_arrives(cache: Path, build: Any, tmp_path: Path) -> None:
    source = tmp_path / "program.c"
    source.write_text('#include "cadenza.h"\n'
                      'const char *cadenza_main(void) { cadenza_trace(CADENZA_END, "7", 1, "done", 4); return 0; }\n')
    marks: list[tuple[str, str, str]] = []

    async def main() -> Outcome:
        with runtime(cache, mark=lambda _, kind, track, text: marks.append((kind, track, text))) as made:
            return await run(made, build([source]))
    assert asyncio.run(main()) == Outcome("finished")
    assert marks == [("end", "7", "done")]


CALLING = """
#include "cadenza.h"
const char *cadenza_main(void) {
  cadenza_result a;
  cadenza_header header = {{"x", 1}, {"one", 3}};
  cadenza_request("GET", 3, "http://a.org/", 13, &header, 1, "body", 4, 1, 5000000000, &a);
  cadenza_need(&a);
  cadenza_handle call = a.number;
  cadenza_await(call);
  cadenza_take_response(call, &a);
  cadenza_need(&a);
  if (a.response.status != 201 || a.response.size != 5 || !a.response.cut || a.response.headers.count != 1) return "no";
  cadenza_print_text(a.response.headers.at[0].value);
  cadenza_print_text(a.response.text);
  cadenza_call_tool("s.t", 3, "{}", 2, 0, 0, &a);
  cadenza_need(&a);
  cadenza_take_result(a.number, &a);
  cadenza_need(&a);
  if (!a.result.failed || a.result.cut) return "no";
  cadenza_print_text(a.result.text);
  return 0;
}
"""


def test_a_c_program_asks_in_a_section_and_calls_hosts_and_tools(cache: Path, build: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    said: list[str] = []
    response = SimpleNamespace(status=201, headers=[Header("y", "two")], text="hello", size=5, cut=True)
    handlers: dict[str, Any] = {
        "request": lambda _, request: asked.append(request) or 9, "wait": lambda _, handles, *rest: handles,
        "take_response": lambda _, call: response, "call": lambda _, *given: asked.append(given) or 8,
        "take_result": lambda _, call: ToolResult("bye", True, False), "log": lambda _, to, text: said.append(text),
    }
    source = tmp_path / "calling.c"
    source.write_text(CALLING)
    wasm = build([source], manifest='hosts = ["a.org"]\ntools = ["s.*"]\n')
    assert of_component(wasm) == Manifest(("a.org",), ("s.*",))

    async def main() -> Outcome:
        with runtime(cache, **handlers) as made:
            return await run(made, wasm)

    assert asyncio.run(main()) == Outcome("finished")
    sent = asked[0]
    assert (sent.method, sent.url, sent.body, sent.timeout_ns) == ("GET", "http://a.org/", "body", 5_000_000_000)
    assert [tuple(header) for header in sent.headers] == [("x", "one")]
    assert asked[1] == ("s.t", "{}", None)
    assert said == ["two", "hello", "bye"]


def test_a_c_program_that_needs_more_memory_says_so_by_where_it_ends(
    cache: Path, build: Any, tmp_path: Path
) -> None:
    source = tmp_path / "hungry.c"
    source.write_text('#include "cadenza.h"\nconst char *cadenza_main(void) {\n'
                      '  for (;;) *(volatile char *)cabi_realloc(0, 0, 1, 1 << 20) = 1;\n}\n')
    ended = Decoding().outcome(cache, build([source]), "{}")
    assert ended.ending == "memory-limit"
    assert "memory_bytes" in ended.message
