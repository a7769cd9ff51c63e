"""The child process that compiles what users upload: `python -m cadenza.kernel.wasm.compile_child WASM ARTIFACT`.

On stdin, one JSON object: `abi` (WIT text), `provided` (interface -> functions), `cpu_seconds`, `address_bytes`.
Exit status 0: ARTIFACT is written. INVALID: the reason is on stdout. Anything else, or a signal: a limit, or a crash.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path
from typing import Final

INVALID: Final = 3
MEMORY: Final = 4
REASON_CHARACTERS: Final = 2000
ARTIFACT_BYTES: Final = 2 << 30


def limit(cpu_seconds: int, address_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (ARTIFACT_BYTES, ARTIFACT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    wasm, artifact = Path(sys.argv[1]), Path(sys.argv[2])
    order = json.load(sys.stdin)
    limit(order["cpu_seconds"], order["address_bytes"])

    # After the limits: they hold for everything that the library does.
    from wasmtime import WasmtimeError
    from wasmtime import component as components

    from cadenza.kernel.wasm import wit
    from cadenza.kernel.wasm.engine import new_engine
    from cadenza.kernel.wasm.imports import refusal

    engine = new_engine()
    try:
        component = components.Component(engine, wasm.read_bytes())
    except WasmtimeError as error:
        print(re.sub(r"\s*\n\s*(Caused by:\s*)?(\d+:\s+)?", ": ", str(error).strip())[:REASON_CHARACTERS])
        return MEMORY if "os error 12" in str(error) else INVALID
    reason = refusal(component, engine, wit.Abi.parse(order["abi"]), order["provided"])
    if reason is not None:
        print(reason[:REASON_CHARACTERS])
        return INVALID
    artifact.write_bytes(component.serialize())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MemoryError:
        sys.exit(MEMORY)
