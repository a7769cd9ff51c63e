"""What can be uploaded: bytes, a file, or a directory of modules, which becomes a zip that is always the same."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cadenza.sdk.client.errors import Invalid

Source = str | os.PathLike[str] | bytes

ZIP_TIME = (1980, 1, 1, 0, 0, 0)            # the first that a zip can hold
LEFT_OUT = {"__pycache__", ".git", ".venv", "node_modules"}
NAME_CHARACTERS = 128
MAIN = "main.py"


@dataclass(frozen=True, slots=True)
class Program:
    """What is sent. `name` may be ""."""

    data: bytes
    name: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def read_program(source: Source, name: str = "") -> Program:
    """Reads a .py file, a zip or directory of modules, a .wasm component, or takes bytes as they are. Blocks. The
    name, unless given, is the file's without its suffix. Raises Invalid if there is nothing to read."""
    if isinstance(source, bytes):
        return Program(source, name)
    path = Path(source)
    try:
        data = _zip(path) if path.is_dir() else path.read_bytes()
    except OSError as error:
        raise Invalid("invalid", f"cannot read {path}: {error.strerror}", field="source") from error
    return Program(data, name or name_of(path))


def name_of(path: Path) -> str:
    """A name that the server takes; "" if nothing of the file's name will do."""
    stem = path.resolve().stem
    name = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-")[:NAME_CHARACTERS]
    return "" if re.fullmatch(r"[0-9a-f]{8,}", name) else name


def _zip(directory: Path) -> bytes:
    """The .py files below, in order, without times and modes: the same files have the same digest. Links to folders
    are followed."""
    files = sorted(_modules(directory))
    if directory / MAIN not in files:
        raise Invalid("invalid", f"{directory} holds no {MAIN}, where a program begins", field="source")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(directory).as_posix(), ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            written.writestr(entry, path.read_bytes())
    return archive.getvalue()


def _modules(directory: Path) -> list[Path]:
    found: list[Path] = []
    for parent, directories, files in os.walk(directory, followlinks=True):
        above = {Path(parent).resolve(), *Path(parent).resolve().parents}
        directories[:] = [name for name in directories
                          if name not in LEFT_OUT and (Path(parent) / name).resolve() not in above]
        found += [Path(parent) / name for name in files if name.endswith(".py")]
    return found
