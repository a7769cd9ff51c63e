"""Uploaded programs: checked, named by digest, kept on disk, and made ready to run.

    <directory>/<owner>/<digest>.json    what it is           written last: an image without it is not there
    <directory>/<owner>/<digest>.bin     the upload, as it came

What an image asks for (kernel/manifest.py) is read when it is uploaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import lzma
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cadenza.kernel.limits import IMAGE_BYTES, IMAGES_PER_USER, SOURCE_BYTES, SOURCE_FILES
from cadenza.kernel.manifest import Manifest, of_component, of_python
from cadenza.kvfs.errors import Invalid, LimitExceeded, NotFound

if TYPE_CHECKING:
    from cadenza.kernel.interpreter import Interpreter
    from cadenza.kernel.wasm.runtime import Program, WasmRuntime

Payload = list[tuple[str, str]]
PREFIX_LETTERS = 8      # of a digest: fewer do not name an image


@dataclass(frozen=True, slots=True)
class Image:
    """`kind` is "python" or "component"; `digest` is the sha256 of the upload, hex; `created_at` unix seconds."""

    digest: str
    name: str
    kind: str
    owner: str
    size_bytes: int
    created_at: float
    manifest: Manifest = field(default_factory=Manifest)


@dataclass(frozen=True, slots=True)
class Executable:
    """What a process is started from: a program, and what it interprets if it is an interpreter."""

    program: Program
    payload: Payload


class ImageStore:
    """Every user's images. Another user's is answered like an absent one."""

    def __init__(self, directory: Path, runtime: WasmRuntime, interpreter: Interpreter) -> None:
        self._directory = directory
        self._runtime = runtime
        self._interpreter = interpreter
        self._images: dict[str, dict[str, Image]] = {}
        self._executables: dict[str, Executable] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for description in sorted(directory.glob("*/*.json")):
            image = read_image(json.loads(description.read_text()))
            self._images.setdefault(image.owner, {})[image.digest] = image

    async def add(self, owner: str, data: bytes, *, name: str = "", kind: str = "") -> Image:
        """Checks and keeps an upload. The same bytes again get the name anew, as its newest. Raises Invalid,
        LimitExceeded."""
        image = Image(hashlib.sha256(data).hexdigest(), name, kind or detect_kind(data), owner, len(data), time.time())
        known = self._images.get(owner, {}).get(image.digest)
        if known is not None:
            image = replace(known, name=name or known.name, created_at=image.created_at)
        else:
            self._ensure_room(owner, data)
            executable = await self._check(image, data)
            python = image.kind == "python"
            image = replace(image, manifest=of_python(executable.payload) if python else of_component(data))
            self._executables[image.digest] = executable
        await asyncio.shield(self._keep(image, data))      # both or neither, even if the uploader leaves now
        return image

    def get(self, owner: str, reference: str) -> Image:
        """By digest, by a digest's first letters (8 or more, unique), or by name (the newest). Raises NotFound."""
        images = self._images.get(owner, {})
        if reference in images:
            return images[reference]
        named = [i for i in images.values() if i.name and i.name == reference]
        if named:
            return max(named, key=lambda i: i.created_at)
        begun = [i for d, i in images.items() if len(reference) >= PREFIX_LETTERS and d.startswith(reference)]
        if len(begun) == 1:
            return begun[0]
        raise NotFound(f"no image {reference!r}: `cadenza images` lists yours")

    def list(self, owner: str) -> list[Image]:
        """Newest first."""
        return sorted(self._images.get(owner, {}).values(), key=lambda i: i.created_at, reverse=True)

    def delete(self, owner: str, reference: str) -> None:
        """Running processes keep what they run."""
        image = self.get(owner, reference)
        description = self._path(image, ".json")
        description.unlink(missing_ok=True)
        self._path(image, ".bin").unlink(missing_ok=True)
        del self._images[owner][image.digest]
        if not any(image.digest in images for images in self._images.values()):
            self._executables.pop(image.digest, None)

    def ready(self, image: Image) -> Executable | None:
        """The executable, if it is in memory."""
        return self._executables.get(image.digest)

    async def executable(self, image: Image) -> Executable:
        """The executable, loaded if need be."""
        found = self._executables.get(image.digest)
        if found is None:
            data = await asyncio.to_thread(self._path(image, ".bin").read_bytes)
            found = self._executables[image.digest] = await self._load(image, data)
        return found

    async def _keep(self, image: Image, data: bytes) -> None:
        await asyncio.to_thread(self._write, image, data)
        self._images.setdefault(image.owner, {})[image.digest] = image

    async def _check(self, image: Image, data: bytes) -> Executable:
        executable = await self._load(image, data)
        if image.kind == "python":
            await self._interpreter.check(executable.payload)
        return executable

    async def _load(self, image: Image, data: bytes) -> Executable:
        if image.kind == "python":
            return Executable(await self._interpreter.program(), read_sources(data))
        return Executable(await self._runtime.load(data), [])

    def _ensure_room(self, owner: str, data: bytes) -> None:
        if len(data) > IMAGE_BYTES:
            raise LimitExceeded(f"an image has at most {IMAGE_BYTES} bytes; this one has {len(data)}", "image_bytes")
        if len(self._images.get(owner, {})) >= IMAGES_PER_USER:
            raise LimitExceeded(f"{IMAGES_PER_USER} images are kept a user; delete some", "images_per_user")

    def _path(self, image: Image, suffix: str) -> Path:
        owner = hashlib.sha256(image.owner.encode()).hexdigest()[:32]     # a user's name need not be a file's name
        return self._directory / owner / (image.digest + suffix)

    def _write(self, image: Image, data: bytes) -> None:
        self._path(image, "").parent.mkdir(parents=True, exist_ok=True)
        for suffix, content in ((".bin", data), (".json", json.dumps(asdict(image)).encode())):
            path = self._path(image, suffix)
            draft = path.with_suffix(f"{suffix}.draft")
            draft.write_bytes(content)
            os.replace(draft, path)


def read_image(description: dict[str, Any]) -> Image:
    """As `asdict` and JSON left it."""
    asked = description.pop("manifest", {})
    return Image(**description, manifest=Manifest(*(tuple(asked.get(key, ())) for key in ("hosts", "tools"))))


def detect_kind(data: bytes) -> str:
    """ "component" for Wasm, "python" for text and zip archives. Raises Invalid for anything else."""
    if data[:4] == b"\0asm":
        return "component"
    if data[:4] == b"PK\3\4":
        return "python"
    if not data.strip():
        raise Invalid("the upload is empty: give a .py file, a zip of Python modules, or a Wasm component", "data")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Invalid("the upload is neither Wasm, nor a zip archive, nor UTF-8 text", "data") from error
    if "\0" in text:
        raise Invalid("the upload is neither Wasm, nor a zip archive, nor Python text: it holds NUL bytes", "data")
    return "python"


def read_sources(data: bytes) -> Payload:
    """(path, text) of each source file of a .py file (then its path is main.py) or a zip. Raises Invalid."""
    if data[:4] != b"PK\3\4":
        return [("main.py", _text("main.py", data))]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, struct.error,
            zlib.error, lzma.LZMAError) as error:
        raise Invalid(f"the zip archive cannot be read: {error}", "data") from error


def _read_archive(archive: zipfile.ZipFile) -> Payload:
    members = [m for m in archive.infolist() if not m.is_dir()]
    if len(members) > SOURCE_FILES:
        raise LimitExceeded(f"a program has at most {SOURCE_FILES} files; this one has {len(members)}", "source_files")
    if sum(m.file_size for m in members) > SOURCE_BYTES:
        raise LimitExceeded(f"the files of a program have at most {SOURCE_BYTES} bytes in all", "source_bytes")
    sources: Mapping[str, str] = {m.filename: _text(m.filename, _read_member(archive, m)) for m in members}
    for path in sources:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise Invalid(f"the archive holds {path!r}: paths are relative and stay inside", "data")
    return sorted(sources.items())


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Not more than was declared: an archive may lie about sizes."""
    with archive.open(member) as stream:
        return stream.read(member.file_size)


def _text(path: str, data: bytes) -> str:
    if len(data) > SOURCE_BYTES:
        raise LimitExceeded(f"the files of a program have at most {SOURCE_BYTES} bytes in all", "source_bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}", "data") from error
