"""What `cadenza doctor MODEL` says of a model, and what it would cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.directory import BUNDLED
from cadenza.kernel.model.facts import describe
from cadenza.server.command_doctor import _memory, _model
from cadenza.server.model_memory import ModelMemory, available_bytes, model_memory
from cadenza.server.options import ServeOptions


@pytest.fixture
def memory() -> ModelMemory:
    return model_memory(describe(BUNDLED), ServeOptions(pages=100, page_tokens=32))


def test_what_a_model_costs(memory: ModelMemory) -> None:
    config, report = ModelConfig.from_directory(BUNDLED), describe(BUNDLED)
    assert config.tied_embeddings
    embeddings = config.vocabulary_size * config.hidden
    assert memory.weight_bytes == 2 * report.parameters + 4 * embeddings, "maps as bfloat16, which loses nothing here"
    assert memory.token_bytes == 2 * config.layers * config.kv_heads * config.head_dim * 4
    assert memory.page_bytes == 32 * memory.token_bytes
    assert memory.total_bytes == memory.weight_bytes + (100 + memory.host_pages) * memory.page_bytes
    assert "100 pages (3200 tokens)" in str(memory)
    assert "8.0 KiB a token, 256.0 KiB a page of 32 tokens" in str(replace(memory, token_bytes=8192))


@pytest.mark.parametrize(("dtype", "compiled", "instructions", "map_bytes", "embedding_bytes"), [
    ("float32", True, False, 2, 4), ("float32", False, True, 4, 4), ("bfloat16", True, False, 2, 2),
    ("bfloat16", False, True, 2, 2), ("bfloat16", False, False, 4, 2), ("int8", False, False, 1, 2),
])  # fmt: skip
def test_weights_cost_what_they_are_held_as(
    monkeypatch: pytest.MonkeyPatch, dtype: str, compiled: bool, instructions: bool, map_bytes: int,
    embedding_bytes: int,
) -> None:
    monkeypatch.setattr("cadenza.server.model_memory.compiled_kernels", lambda cache: object() if compiled else None)
    monkeypatch.setattr("cadenza.server.model_memory.has_bfloat16", lambda: instructions)
    config, report = ModelConfig.from_directory(BUNDLED), describe(BUNDLED)
    memory = model_memory(report, ServeOptions(dtype=dtype))
    embeddings = config.vocabulary_size * config.hidden
    assert memory.weight_bytes == map_bytes * report.parameters + embedding_bytes * embeddings


def test_the_bundled_model_is_sound_and_its_memory_told() -> None:
    model, cost = _model(str(BUNDLED), ServeOptions())
    assert (model.check, model.verdict, cost.check) == ("model", "ok", "model memory")
    assert "KV" in cost.detail


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "ok"), (0.9, "warning"), (0.0001, "fault")])
def test_memory_that_there_is_not(share: float, verdict: str) -> None:
    report = describe(BUNDLED)
    found = _memory(report, ServeOptions(), int(share * model_memory(report, ServeOptions()).total_bytes))
    assert (found.verdict, found.remedy == "") == (verdict, verdict == "ok")
    assert _memory(report, ServeOptions(), None).verdict == "ok"


def test_a_model_that_cannot_be_served_is_told_why(tmp_path: Path) -> None:
    raw = json.loads((BUNDLED / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "logit_scale": 2.0}))
    (found,) = _model(str(tmp_path), ServeOptions())
    assert found.verdict == "fault"
    assert "logit_scale (2.0)" in found.detail
    (tmp_path / "config.json").write_text(json.dumps({**raw, "hidden_size": 128}))
    (tmp_path / "model.safetensors").symlink_to(BUNDLED / "model.safetensors")
    (found,) = _model(str(tmp_path), ServeOptions())
    assert ", 128] by config.json" in found.detail
    assert found.detail.endswith(" more")
    assert len(found.detail) < 2000


def test_available_memory(tmp_path: Path) -> None:
    assert (available_bytes() or 0) > 1 << 20
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable:       7 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 7168
    assert available_bytes(tmp_path / "none") is None
