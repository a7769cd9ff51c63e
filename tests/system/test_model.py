"""The bundled model through the whole system says what the same weights say in `transformers`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from cadenza.kernel.model.directory import BUNDLED
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

from .whole import end_of, output

QUESTIONS = ["What is 48 times 37?", "Hello.", "Mara lives in Oslo. Where does Mara live?", "What can you do?"]

PROGRAM = """
import cadenza, json, asyncio
async def ask(question):
    async with cadenza.Context() as context:
        context.user(question)
        generation = context.generate(max_tokens=40)
        await generation.text()
        return generation.tokens
async def main(args):
    print(json.dumps(await asyncio.gather(*(ask(q) for q in args.questions))))
"""


def of_transformers() -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    model = LlamaForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    said = []
    for question in QUESTIONS:
        text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False,
                                             add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        said.append(model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1]:].tolist())
    return said


def test_programs_hear_what_transformers_would_say(tmp_path: Path) -> None:
    async def main() -> str:
        kernel = await boot(ServeOptions(state=tmp_path, threads=1))
        try:
            await kernel.images.add("ada", PROGRAM.encode(), name="asker")
            process = kernel.spawn("ada", "asker", json.dumps({"questions": QUESTIONS}))
            assert (await end_of(process)).ending == "finished", output(process, "error")
            return output(process)
        finally:
            await kernel.close()

    assert json.loads(asyncio.run(main())) == of_transformers()
