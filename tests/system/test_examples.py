"""Every example, as its README says to run it, on the bundled model in its worker process: it says what it should.

`python -m tests.system.test_examples` writes the expected.txt of each anew: read the difference before you keep it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest

from cadenza.kernel.kernel import Kernel
from cadenza.sdk.client.sources import read_program
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

from .whole import end_of, output

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(path.parent.name for pattern in ("*/agent.py", "*/main.py") for path in EXAMPLES.glob(pattern))


async def run_example(kernel: Kernel, name: str) -> str:
    file = EXAMPLES / name / "agent.py"
    await kernel.images.add("ada", read_program(file if file.exists() else file.parent).data, name=name)
    process = kernel.spawn("ada", name, json.dumps({}))
    status = await end_of(process)
    assert status.ending == "finished", (status, output(process, "error"))
    return output(process)


async def run_examples(state: Path) -> dict[str, str]:
    kernel = await boot(ServeOptions(state=state, threads=1))
    try:
        said = {name: await run_example(kernel, name) for name in NAMES}
        kernel.recount()
        return said
    finally:
        await kernel.close()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return asyncio.run(run_examples(tmp_path_factory.mktemp("state")))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_should(said: dict[str, str], name: str) -> None:
    assert said[name] == (EXAMPLES / name / "expected.txt").read_text()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for example, text in asyncio.run(run_examples(Path(folder))).items():
            (EXAMPLES / example / "expected.txt").write_text(text)
            print(f"── {example}\n{text}")
