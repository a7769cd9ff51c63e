"""Where a model is, and what is needed to know it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cadenza.kernel.model.directory import BUNDLED, HUB_FILES, resolve_directory
from cadenza.kvfs.errors import Invalid, NotFound

WITHOUT_TORCH = """
import sys
from cadenza.kernel.model import chat, config, directory, facts, fingerprint, tensors, tokenizer
assert "torch" not in sys.modules, "torch was imported"
"""


class Hub:
    """Answers with a directory, or fails; remembers what it was asked."""

    def __init__(self, answer: Path | OSError | ValueError) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def __call__(self, hub_id: str) -> str:
        self.asked.append(hub_id)
        if isinstance(self._answer, Path):
            return str(self._answer)
        raise self._answer


def test_an_existing_directory_is_itself(tmp_path: Path) -> None:
    hub = Hub(OSError("not asked"))
    assert resolve_directory(tmp_path, hub) == tmp_path
    assert resolve_directory(str(tmp_path), hub) == tmp_path
    assert hub.asked == []


def test_a_hub_id_is_fetched(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    assert resolve_directory("Qwen/Qwen2.5-0.5B-Instruct", hub) == tmp_path
    assert hub.asked == ["Qwen/Qwen2.5-0.5B-Instruct"]


@pytest.mark.parametrize("fault", [OSError("no route to host"), ValueError("no such repository")])
def test_a_fetch_that_fails_says_why_and_what_to_do(fault: OSError | ValueError) -> None:
    with pytest.raises(NotFound, match=r"owner/name.*(no route|no such repository).*network"):
        resolve_directory("owner/name", Hub(fault))


@pytest.mark.parametrize("name", ["/no/such/place", "./nowhere", "plain", "a/b/c", "../x/y", "-o/name"])
def test_what_is_neither_is_not_asked_of_the_hub(name: str) -> None:
    hub = Hub(OSError("not asked"))
    with pytest.raises(NotFound, match="owner/name"):
        resolve_directory(name, hub)
    assert hub.asked == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(Invalid, match=r"model\.gguf is a file"):
        resolve_directory(file)


def test_none_is_the_bundled_model() -> None:
    assert BUNDLED.parent.name == "model"
    if (BUNDLED / "config.json").exists():
        assert resolve_directory() == BUNDLED
    else:
        with pytest.raises(NotFound, match="bundled"):
            resolve_directory()


def test_only_data_is_fetched() -> None:
    assert all(name.endswith((".json", ".safetensors", ".jinja")) for name in HUB_FILES)


def test_what_the_kernel_reads_of_a_model_needs_no_torch() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
