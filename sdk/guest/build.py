"""Builds the interpreter image: CPython, the package `cadenza` and what runs a payload, as one component.

    python -m cadenza.sdk.guest.build WIT_DIRECTORY OUTPUT.wasm
    python -m cadenza.sdk.guest.build --bindings WIT_DIRECTORY FOLDER      # Python types of the ABI, for mypy

Needs componentize-py (`pip install cadenza[build]`) only when the image there is not of these sources.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TOOL = "componentize-py"
INSTALL = "pip install cadenza[build]"
WORLD = "interpreter"
PACKAGES = ("cadenza", "image")
HERE = Path(__file__).resolve().parent

Progress = Callable[[str], None]


class BuildError(Exception):
    """The image cannot be built; the text says why and what to do."""


def build(output: Path, wit: Path, progress: Progress = lambda text: None) -> Path:
    """Makes `output` the image of these sources and of the ABI in the folder `wit`; answers its path.

    Nothing is done when it already is. Takes 10 to 20 seconds else; `progress` is told. Raises BuildError.
    """
    stamp = output.with_suffix(".json")
    wanted = {"sources": digest(wit), TOOL: tool_version()}
    if output.exists() and same(read_stamp(stamp), wanted):
        return output
    if wanted[TOOL] is None:
        raise BuildError(f"the Python interpreter image is built with {TOOL}, which is absent: {INSTALL}")
    progress("building the Python interpreter image (once, about 15 seconds)")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix="image-") as folder:
        built = componentize(Path(folder), wit)
        os.replace(built, output)
    stamp.write_text(json.dumps(wanted))
    progress(f"built {output}, {output.stat().st_size / 1e6:.1f} MB")
    return output


def bindings(output: Path, wit: Path) -> Path:
    """Writes the Python types of the ABI into the folder `output`: what mypy reads in place of the image's own."""
    if tool_version() is None:
        raise BuildError(f"the ABI's Python types are written by {TOOL}, which is absent: {INSTALL}")
    shutil.rmtree(output, ignore_errors=True)
    run_tool(["-d", str(wit), "-w", WORLD, "bindings", str(output)], output.parent)
    return output


def componentize(folder: Path, wit: Path) -> Path:
    """Runs the tool on a copy of the packages in `folder`, so that nothing else gets into the image."""
    stage = folder / "stage"
    for package in PACKAGES:
        shutil.copytree(HERE / package, stage / package, ignore=shutil.ignore_patterns("__pycache__"))
    built = folder / "image.wasm"
    arguments = ["-d", str(wit), "-w", WORLD, "componentize", "--stub-wasi", "-p", str(stage), "-o", str(built)]
    run_tool([*arguments, "image.world"], folder)
    return built


def run_tool(arguments: Sequence[str], folder: Path) -> None:
    """The tool's command line in a process of its own; with no packages but those that it is given."""
    # An empty virtual environment: else the tool adds this one's packages to the image's path.
    environment = {**os.environ, "VIRTUAL_ENV": str(folder / "no-packages")}
    command = [sys.executable, "-c", "import sys, componentize_py; sys.exit(componentize_py.script())", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).partition("Stack backtrace:")[0].strip()[-4000:]
        raise BuildError(f"{TOOL} failed with exit status {done.returncode}:\n{said}")


def sources(wit: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((HERE / package).rglob("*.py"))
    yield from sorted(wit.rglob("*.wit"))


def digest(wit: Path) -> str:
    """Of everything that the image is made from, but for the tool."""
    if not any(wit.rglob("*.wit")):
        raise BuildError(f"there is no .wit file in {wit}: it should be the folder of the ABI")
    whole = hashlib.sha256()
    for path in sources(wit):
        text = path.read_bytes()
        whole.update(f"{path.parent.name}/{path.name} {len(text)}\n".encode() + text)
    return whole.hexdigest()


def tool_version() -> str | None:
    """The installed version of the tool; None when it is absent."""
    try:
        return importlib.metadata.version(TOOL)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_stamp(path: Path) -> dict[str, str | None]:
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def same(built: dict[str, str | None], wanted: dict[str, str | None]) -> bool:
    """Whether the image there is the wanted one. Without the tool, an image built by any version of it is."""
    return built.get("sources") == wanted["sources"] and wanted[TOOL] in (None, built.get(TOOL))


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds Cadenza's Python interpreter image.")
    parser.add_argument("--bindings", action="store_true", help="write the Python types of the ABI instead")
    parser.add_argument("wit", type=Path, help="the folder of the ABI's .wit files")
    parser.add_argument("output", type=Path, help="the image, or with --bindings the folder")
    chosen = parser.parse_args()
    try:
        if chosen.bindings:
            bindings(chosen.output, chosen.wit)
        else:
            build(chosen.output, chosen.wit, print)
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
