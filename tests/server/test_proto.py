"""The generated code is that of the .proto files."""

from __future__ import annotations

from pathlib import Path

import pytest

from cadenza.sdk.proto.generate import HERE, generate


def test_generated_code_is_current(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    pytest.importorskip("mypy_protobuf")
    fresh = generate(tmp_path)
    assert len(fresh) == 20
    committed = sorted((HERE / "cadenza" / "v1").glob("*_pb2*.py*"))
    assert [path.name for path in committed] == [path.name for path in fresh]
    for old, new in zip(committed, fresh, strict=True):
        assert old.read_text() == new.read_text(), f"{old.name}: run python -m cadenza.sdk.proto.generate"
