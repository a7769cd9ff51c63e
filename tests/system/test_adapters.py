"""A program names adapters of its user: what comes is what transformers with peft says."""

from __future__ import annotations

import json
from pathlib import Path

from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.kernel.model.tiny_adapters import save_tiny_adapter
from tests.kernel.model.tiny_models import save_tiny_model

from .whole import in_loop, output, whole

PROGRAM = """
import json
from cadenza import Context, File, NotFound, Run, Sampler, forward

PROMPT = [5, 9, 33, 120, 7, 64, 18]

async def run(adapter):
    said = []
    with Run(File.create(), PROMPT, max_tokens=12, adapter=adapter) as run:
        while run.finish == "running":
            said += await run.take()
    return said

async def main(args):
    said = {"runs": [await run("blue"), await run(None)]}
    done = await forward(File.create(), PROMPT, samples=[(6, Sampler())], adapter="blue")
    said["forward"] = done.tokens
    async with Context(adapter="blue") as context, Context() as plain:
        for each in (context, plain):
            each.fill(PROMPT)
        fork = context.fork()
        said["top"] = [(await each.top(1)).tokens[0] for each in (context, fork, plain)]
        decoding = plain.decode(12, stop_tokens=[], adapter="blue")
        while await decoding.token() is not None:
            pass
        said["decode"] = decoding.tokens
    try:
        await run("green")
    except NotFound as error:
        said["absent"] = str(error)
    print(json.dumps(said))
"""


def test_a_program_names_adapters(tmp_path: Path) -> None:
    model = save_tiny_model("llama", tmp_path / "model")
    blue = save_tiny_adapter(model, tmp_path / "blue")
    prompt = [5, 9, 33, 120, 7, 64, 18]

    async def main() -> None:
        device = TorchDevice(model.directory, pages=64, page_tokens=8, threads=1)
        async with whole(tmp_path / "state", model=device) as system:
            settings, weights = ((blue.directory / name).read_bytes() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
            await system.kernel.adapters.add("ada", "blue", settings, weights)
            process = await system.run(PROGRAM)
            assert output(process, "error") == ""
            said = json.loads(output(process))
            adapted, plain = blue.greedy(prompt, 12), model.greedy(prompt, 12)
            assert said["runs"] == [adapted, plain]
            assert said["forward"] == adapted[:1]
            assert said["top"] == [adapted[0], adapted[0], plain[0]]
            assert len(said["decode"]) == 12
            assert "green" in said["absent"]
            stranger = await system.run(PROGRAM, user="bob")
            assert "no adapter 'blue'" in output(stranger, "error")

    in_loop(main)
