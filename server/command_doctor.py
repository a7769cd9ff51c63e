"""`cadenza doctor`: what a daemon needs, looked at before it is started."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cadenza.kernel.limits import PROCESSES
from cadenza.kvfs.errors import CadenzaError
from cadenza.server.invocation import FAILURE, Json, invocation
from cadenza.server.options import ServeOptions, default_cache

if TYPE_CHECKING:
    from cadenza.kernel.model.facts import ModelReport

LEAST_PYTHON = (3, 11)
MAPS_PER_PROCESS = 4                        # memory maps of one living guest
MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
DEVICE_SECONDS = 10.0                       # for nvidia-smi to answer


@dataclass(frozen=True, slots=True)
class Finding:
    """`verdict`: "ok", "warning" (it will run) or "fault" (it will not); `remedy` is "" for ok."""

    check: str
    verdict: str
    detail: str
    remedy: str = ""


def doctor(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A model directory; else the bundled model.")] = None,
    dtype: Annotated[str, typer.Option(help="As it would be served.")] = "auto",
    kv_gib: Annotated[float | None, typer.Option(help="As it would be served.")] = None,
    host_gib: Annotated[float, typer.Option(help="As it would be served.")] = 0.25,
    json: Json = False,
) -> None:
    """Check this machine and a model; ends with 1 if something would keep the daemon from starting."""
    screen = invocation(context, json=json).screen
    findings = list(examine(model, ServeOptions(dtype=dtype, kv_gib=kv_gib, host_gib=host_gib)))
    rows = [(f.verdict, f.check, f.detail, f.remedy) for f in findings]
    screen.rows(("", "CHECK", "FOUND", "REMEDY"), rows, [asdict(f) for f in findings])
    if any(finding.verdict == "fault" for finding in findings):
        raise typer.Exit(FAILURE)


def examine(model: str | None, options: ServeOptions) -> Iterator[Finding]:
    """Every finding. Reads files and asks nvidia-smi; downloads nothing."""
    yield _python()
    yield _system()
    for name in ("wasmtime", "torch", "grpcio"):
        yield _distribution(name)
    yield _interpreter(default_cache() / "python.wasm")
    yield _calls(default_cache())
    yield _device()
    yield _maps(MAX_MAP_COUNT)
    yield from _model(model, options)


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] < LEAST_PYTHON or sys.version_info[:3] == (3, 14, 0):
        return Finding("python", "fault", found, "use Python 3.11 or later, but not 3.14.0")
    return Finding("python", "ok", found)


def _system() -> Finding:
    found = f"{platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding("system", "fault", found, "the daemon runs on Linux")
    return Finding("system", "ok", found)


def _distribution(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "fault", "not installed", f"pip install {name}")


def _interpreter(path: Path) -> Finding:
    if path.exists():
        return Finding("python image", "ok", str(path))
    try:
        found = f"not built yet; componentize-py {metadata.version('componentize-py')} will build it"
    except metadata.PackageNotFoundError:
        remedy = "pip install 'cadenza[build]', or copy a built image there"
        return Finding("python image", "fault", f"not at {path}, and componentize-py is not installed", remedy)
    return Finding("python image", "warning", found, "the first 'cadenza serve' takes a minute longer")


def _calls(cache: Path) -> Finding:
    from cadenza.kernel.wasm.runtime import native_calls

    if native_calls(cache) is not None:
        return Finding("system calls", "ok", "those that block are recorded by compiled C")
    return Finding("system calls", "warning", "those that block are recorded in Python, which takes a little longer",
                   "install a C compiler, or set CC")


def _device() -> Finding:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return Finding("device", "ok", f"no NVIDIA device; CPU, {_cpus()} cores")
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=DEVICE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("device", "warning", f"nvidia-smi fails: {error}", "mend the driver, or serve with --device cpu")
    return Finding("device", "ok", "; ".join(answer.stdout.split("\n")).strip("; "))


def _cpus() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _maps(path: Path) -> Finding:
    """Each guest takes a few memory maps; the kernel bounds them a process."""
    needed = PROCESSES * MAPS_PER_PROCESS
    try:
        found = int(path.read_text())
    except (OSError, ValueError):
        return Finding("vm.max_map_count", "warning", f"cannot read {path}", "look at it yourself")
    if found < needed:
        remedy = f"for more: sysctl -w vm.max_map_count={2 * needed}"
        return Finding("vm.max_map_count", "warning", f"{found}: about {found // MAPS_PER_PROCESS} processes", remedy)
    return Finding("vm.max_map_count", "ok", str(found))


def _model(model: str | None, options: ServeOptions) -> Iterator[Finding]:
    """Whether it can be served, and if so what that costs."""
    from cadenza.kernel.model.directory import resolve_directory
    from cadenza.kernel.model.facts import describe
    from cadenza.kernel.model.tensors import NAMED_FAULTS
    from cadenza.server.model_memory import available_bytes

    try:
        report = describe(resolve_directory(model, _refuse_download))
    except CadenzaError as error:
        yield Finding("model", "fault", error.message, "name a directory with config.json and safetensors")
        return
    if report.problems:
        remedy = "mend what is named, download it again, or choose a model that is supported"
        rest = len(report.problems) - NAMED_FAULTS
        named = [*report.problems[:NAMED_FAULTS], *([f"and {rest} more"] if rest > 0 else [])]
        yield Finding("model", "fault", f"{report.directory}: {'; '.join(named)}", remedy)
        return
    detail = f"{report.directory}: {report.family}, {report.parameters / 1e6:.1f} M parameters"
    yield Finding("model", "ok", f"{detail}, context {report.context_tokens} tokens")
    yield _memory(report, options, available_bytes())


def _memory(report: ModelReport, options: ServeOptions, available: int | None) -> Finding:
    """`available`: bytes, or None if unknown."""
    from cadenza.server.model_memory import model_memory

    try:
        memory = model_memory(report, options)
    except CadenzaError as error:
        return Finding("model memory", "fault", error.message, "choose other sizes: --kv-gib, --page-tokens")
    if available is None or memory.total_bytes <= available:
        return Finding("model memory", "ok", str(memory))
    fits = memory.weight_bytes + memory.page_bytes <= available
    remedy = "serve with less --kv-gib and --host-gib" if fits else "choose a smaller model, or a larger machine"
    found = f"{memory}, and {available >> 20} MiB are available"
    return Finding("model memory", "warning" if fits else "fault", found, remedy)


def _refuse_download(hub_id: str) -> str:
    raise OSError(f"{hub_id} is a hub id; doctor downloads nothing")


