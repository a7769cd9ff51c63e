"""When the image is built, and what is said when it cannot be. Nothing is built here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cadenza.sdk.guest import build


@pytest.fixture
def wit(tmp_path: Path) -> Path:
    folder = tmp_path / "wit"
    folder.mkdir()
    (folder / "kernel.wit").write_text("package cadenza:kernel@0.1.0;")
    return folder


def stamped(output: Path, wit: Path, tool: str | None) -> None:
    output.write_bytes(b"image")
    output.with_suffix(".json").write_text(json.dumps({"sources": build.digest(wit), build.TOOL: tool}))


def test_image_that_is_there_is_not_built_again(tmp_path: Path, wit: Path) -> None:
    output = tmp_path / "python.wasm"
    stamped(output, wit, build.tool_version())
    said: list[str] = []
    assert build.build(output, wit, said.append) == output
    assert (output.read_bytes(), said) == (b"image", [])


def test_without_the_tool_an_image_of_the_same_sources_will_do(wit: Path) -> None:
    wanted = {"sources": build.digest(wit), build.TOOL: None}
    assert build.same({"sources": build.digest(wit), build.TOOL: "0.1"}, wanted)
    assert not build.same({"sources": "other", build.TOOL: "0.1"}, wanted)
    assert not build.same({"sources": build.digest(wit), build.TOOL: "0.1"}, {**wanted, build.TOOL: "0.2"})


def test_digest_follows_the_abi(wit: Path) -> None:
    before = build.digest(wit)
    (wit / "kernel.wit").write_text("package cadenza:kernel@0.2.0;")
    assert build.digest(wit) != before


def test_folder_without_an_abi_is_refused(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"no \.wit file"):
        build.build(tmp_path / "python.wasm", tmp_path)


def test_what_the_tool_says_is_told(tmp_path: Path, wit: Path) -> None:
    if build.tool_version() is None:
        pytest.skip("needs componentize-py")
    with pytest.raises(build.BuildError, match="world"):
        build.bindings(tmp_path / "bindings", wit)
