"""Writes the Python code of the .proto files: `python -m cadenza.sdk.proto.generate [DIRECTORY]`.

Needs `grpcio-tools` and `mypy-protobuf`, of the versions in the constraints file. The generated code lies beside the
.proto files and is committed; a test asserts that it is current.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path

HERE = Path(__file__).parent
# protoc's Python imports follow the proto package; ours lies deeper.
GENERATED_IMPORTS = ("from cadenza.v1 import", "from cadenza.sdk.proto.cadenza.v1 import")
GENERATED_NAMES = ("import cadenza.v1.", "import cadenza.sdk.proto.cadenza.v1.")


def generate(destination: Path) -> list[Path]:
    """Writes `cadenza/v1/*_pb2*.py[i]` under `destination`; answers their paths, sorted. Raises RuntimeError with
    protoc's exit status."""
    from grpc_tools import protoc

    sources = sorted(str(path) for path in HERE.glob("cadenza/v1/*.proto"))
    includes = [f"-I{HERE}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    plugin = Path(sys.executable).parent
    status = protoc.main([
        "protoc", *includes,
        f"--plugin=protoc-gen-mypy={plugin / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugin / 'protoc-gen-mypy_grpc'}",
        f"--python_out={destination}", f"--grpc_python_out={destination}",
        f"--mypy_out=quiet:{destination}", f"--mypy_grpc_out=quiet:{destination}", *sources,
    ])  # fmt: skip
    if status != 0:
        raise RuntimeError(f"protoc ended with {status}")
    written = sorted(destination.glob("cadenza/v1/*_pb2*.py*"))
    for path in written:
        path.write_text(_relocated(path.read_text()))
    return written


def _relocated(text: str) -> str:
    text = text.replace(*GENERATED_IMPORTS)
    return text.replace(*GENERATED_NAMES)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
