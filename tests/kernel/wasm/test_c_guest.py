"""C programs: built from sdk/c with packages alone, and run."""

from __future__ import annotations

import asyncio
import re
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
from .guests import ABI, run, runtime

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


def test_the_header_has_every_system_call_and_its_types_are_those_of_the_wit(
    cache: Path, build: Any, tmp_path: Path
) -> None:
    header = (SDK / "cadenza.h").read_text()
    known = {(interface, name): function for interface, name, function in
             re.findall(r'CADENZA_IMPORT\("([^"]+)", "([^"]+)"\) \w+ (\w+)\(', header)}
    wanted = {(interface.removeprefix("cadenza:kernel/").partition("@")[0], name)
              for interface, functions in ABI.functions.items() for name in functions}
    assert known.keys() == wanted
    source = tmp_path / "program.c"
    taken = ", ".join(f"(void *){function}" for function in known.values())
    source.write_text(f'#include "cadenza.h"\nvoid *volatile all[] = {{{taken}}};\n'
                      "const char *cadenza_main(void) { return all[0] ? 0 : \"no\"; }\n")

    async def main() -> Outcome:
        with runtime(cache) as made:
            return await run(made, build([source]))
    assert asyncio.run(main()) == Outcome("finished")


VERIFYING = """
#include "cadenza.h"
const char *cadenza_main(void) {
  cadenza_result a;
  cadenza_token drafted[] = {5, 6}, parents[] = {0, 1};
  cadenza_draft draft = {.file = 3, .token = 4, .tokens = {drafted, 2}, .parents = {parents, 2},
                         .sampler = {.top_p = 1, .seed = 7}, .adapter = {true, {"a", 1}}, .grammar = {true, 11}};
  cadenza_verify(&draft, &a);
  cadenza_need(&a);
  cadenza_take_verified(a.number, &a);
  cadenza_need(&a);
  if (a.verdict.accepted != 2 || a.verdict.computed_tokens != 3 || a.verdict.tokens.at[2] != 9 ||
      a.verdict.finish != CADENZA_GRAMMAR_END) return "no verdict";
  cadenza_status_result now;
  cadenza_stat(3, &now);
  if (now.failed || now.status.created_ns != 1ull << 40 || now.status.others != CADENZA_READ || !now.status.durable ||
      now.status.grants.at[0].rights != (CADENZA_READ | CADENZA_APPEND)) return "no status";
  cadenza_print_text(now.status.paths.at[1]);
  cadenza_text choices[] = {{"yes", 3}, {"no", 2}};
  cadenza_compile(CADENZA_CHOICES, choices, 2, &a);
  cadenza_need(&a);
  cadenza_take_message(a.number, &a);
  if (a.failed || !a.received.present || a.received.message.lost != 8) return "no message";
  cadenza_print_text(a.received.message.text);
  return 0;
}
"""


def test_records_lie_where_the_header_says(cache: Path, build: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    said: list[str] = []
    status = SimpleNamespace(
        tokens=1, hidden=0, pages=1, next_position=1, shared_pages=0, paths=["/home/a", "/home/b"], busy=False,
        owner="ada", mine=frozenset({"read"}), others=frozenset({"read"}),
        grants=[SimpleNamespace(user="bob", rights=frozenset({"read", "append"}))], exactness="exact",
        fingerprint="f", durable=True, created_ns=1 << 40, modified_ns=2)
    handlers: dict[str, Any] = {
        "verify": lambda _, draft: asked.append(draft) or 7, "stat": lambda _, file: status,
        "take_verified": lambda _, pass_: SimpleNamespace(tokens=[5, 6, 9], accepted=2, computed_tokens=3,
                                                          finish="grammar-end"),
        "compile": lambda _, source: asked.append(source) or 8, "log": lambda _, to, text: said.append(text),
        "take_message": lambda _, source: SimpleNamespace(text="hello", lost=8),
    }
    source = tmp_path / "verifying.c"
    source.write_text(VERIFYING)

    async def main() -> Outcome:
        with runtime(cache, **handlers) as made:
            return await run(made, build([source]))

    assert asyncio.run(main()) == Outcome("finished")
    draft, grammar = asked
    assert (draft.file, draft.token, draft.tokens.tolist(), draft.parents.tolist()) == (3, 4, [5, 6], [0, 1])
    assert (draft.sampler.seed, draft.sampler.penalties, draft.mask, draft.adapter) == (7, None, None, "a")
    assert draft.grammar == 11
    assert (grammar.name, grammar.value) == ("choices", ["yes", "no"])
    assert said == ["/home/b", "hello"]


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
