"""Which peers there are, where they are installed, and how they are started."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.process import ROOT

VENV = ROOT / "build" / "peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INSTALL = "scripts/bench engine --install"
# llama.cpp's programs and its images are not needed.
LLAMA_OPTIONS = "-DLLAVA_BUILD=OFF"


@dataclass(frozen=True)
class PeerKind:
    """`module` is run by a Python that has `package`; `settings` go beside the directory and the threads."""

    name: str
    package: str
    module: str
    settings: dict[str, Any] = field(default_factory=dict)


PEERS = (
    PeerKind("transformers", "transformers", "benchmarks.peers.with_transformers"),
    PeerKind("llama_bf16", "llama_cpp", "benchmarks.peers.with_llama", {"kind": "bf16"}),
    PeerKind("llama_q8", "llama_cpp", "benchmarks.peers.with_llama", {"kind": "q8_0"}),
    PeerKind("openvino", "openvino_genai", "benchmarks.peers.with_openvino"),
    PeerKind("vllm", "vllm", "benchmarks.peers.with_vllm"),
)


def python_of(peer: PeerKind, environment: Path) -> Path | None:
    """The Python that has its package; `transformers` is among what our own tests need. None: not installed."""
    candidates = (Path(sys.executable), environment / "bin" / "python")
    return next((python for python in candidates if python.exists() and has(python, peer.package)), None)


def has(python: Path, package: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", look], check=False, cwd="/").returncode == 0


def install(environment: Path) -> bool:
    """Makes the environment and installs into it what requirements.txt names, one by one: what has no wheel here, or
    does not build, does not keep the others out. Whether all are there."""
    if not (environment / "bin" / "python").exists():
        venv.create(environment, with_pip=True)
    failed = [line for line in wanted() if not installed(environment, line)]
    for line in failed:
        print(f"{line} could not be installed", flush=True)
    return not failed


def wanted() -> Iterator[str]:
    for line in REQUIREMENTS.read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            yield requirement


def installed(environment: Path, requirement: str) -> bool:
    print(f"installing {requirement}", flush=True)
    options = os.environ.get("CMAKE_ARGS", LLAMA_OPTIONS)
    return subprocess.run([environment / "bin" / "pip", "install", "--disable-pip-version-check", requirement],
                          check=False, env={**os.environ, "CMAKE_ARGS": options}).returncode == 0
