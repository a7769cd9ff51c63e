"""Adapters of users: checked, named, kept on disk, and in the slots of the device.

    <directory>/<owner>/<name>/adapter_config.json        as `peft` writes it
                               adapter_model.safetensors
                               adapter.json               what it is

A directory appears whole. An adapter is known to the rest of the kernel by its digest: equal ones, whoever has them,
share a slot, and what was computed under one is found again under the other by the same user.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cadenza.kernel.limits import (
    ADAPTER_BYTES,
    ADAPTER_CONFIG_BYTES,
    ADAPTERS,
    ADAPTERS_BYTES,
    ADAPTERS_PER_USER,
)
from cadenza.kernel.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter
from cadenza.kvfs.errors import Busy, CadenzaError, Exists, Invalid, LimitExceeded, NotFound, Unsupported

if TYPE_CHECKING:
    from cadenza.kernel.engine import Engine

log = logging.getLogger(__name__)

DESCRIPTION = "adapter.json"
DRAFT = ".draft-"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Adapter:
    """`digest`: of settings and weights; `targets`: the kinds of maps that it adds to; `created_at` unix seconds."""

    name: str
    owner: str
    digest: str
    rank: int
    targets: tuple[str, ...]
    size_bytes: int
    created_at: float
    fingerprint: str                         # of the model that it was loaded for


class Adapters:
    """Every user's. Another user's is answered like an absent one. Nothing can be added before `open`."""

    def __init__(self, engine: Engine, fingerprint: str) -> None:
        self._engine = engine
        self._slots = engine.pager.slots                     # by digest
        self._fingerprint = fingerprint
        self._directory: Path | None = None
        self._adapters: dict[tuple[str, str], Adapter] = {}
        self._adding: dict[tuple[str, str], int] = {}        # bytes, of those being added
        engine.recovery.reload = self.reload
        self._turn = asyncio.Lock()                          # one is loaded at a time: equal ones share a slot

    async def open(self, directory: Path) -> None:
        """Those in `directory` are loaded again; what cannot be is logged and left where it is."""
        self._directory = directory
        await asyncio.to_thread(_prepare, directory)
        for description in sorted(directory.glob(f"*/*/{DESCRIPTION}")):
            try:
                known = json.loads(description.read_text())
                adapter = Adapter(**{**known, "targets": tuple(known["targets"])})
                if adapter.fingerprint != self._fingerprint:
                    raise Invalid("it was added to another model")
                await self._load(adapter, description.parent)
            except (CadenzaError, OSError, ValueError, TypeError, KeyError) as error:
                log.warning("the adapter in %s is left out: %s", description.parent, error)

    async def add(self, owner: str, name: str, config: bytes, weights: bytes) -> Adapter:
        """Checks, keeps and loads what `peft` saved. Raises Invalid, Unsupported, Exists, LimitExceeded, DeviceLost;
        then nothing has changed."""
        self._ensure_room(owner, name, config, weights)
        directory = self._directory
        if directory is None:
            raise Unsupported("this kernel keeps no adapters")
        self._adding[owner, name] = len(weights)
        draft = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=DRAFT, dir=directory))
        try:
            adapter = await asyncio.to_thread(self._examine, draft, owner, name, config, weights)
            await self._load(adapter, draft)
            await asyncio.to_thread(_move, draft, self._path(adapter))
        except BaseException:
            if self._adapters.pop((owner, name), None) is not None:
                self._release(adapter.digest)
            raise
        finally:
            del self._adding[owner, name]
            shutil.rmtree(draft, ignore_errors=True)
        return adapter

    def get(self, owner: str, name: str) -> Adapter:
        """Raises NotFound."""
        found = self._adapters.get((owner, name))
        if found is None or (owner, name) in self._adding:
            raise NotFound(f"no adapter {name!r}: `cadenza adapters list` shows yours")
        return found

    def digest(self, owner: str, name: str | None) -> str:
        """As the rest of the kernel knows it; "" for none. Raises NotFound."""
        return "" if name is None else self.get(owner, name).digest

    def list(self, owner: str) -> list[Adapter]:
        """By name."""
        return [self._adapters[key] for key in sorted(self._adapters) if key[0] == owner and key not in self._adding]

    def drop(self, owner: str, name: str) -> None:
        """Raises NotFound, or Busy while something was or is computed under it that may have to be computed again."""
        adapter = self.get(owner, name)
        if not self._has_equal(adapter) and self._engine.uses(adapter.digest):
            raise Busy(f"adapter {name!r} is in use: passes under it are under way, or KV files that were computed "
                       "under it are open or have a name; end, close or remove them first")
        shutil.rmtree(self._path(adapter), ignore_errors=True)
        del self._adapters[owner, name]
        self._release(adapter.digest)

    def statistics(self) -> dict[str, int]:
        return {"named": len(self._adapters), "loaded": len(self._slots) - 1}

    async def _load(self, adapter: Adapter, directory: Path) -> None:
        async with self._turn:
            if adapter.digest not in self._slots:
                slot = min(set(range(ADAPTERS)) - set(self._slots.values()))
                await self._engine.link.load_adapter(slot, directory)
                self._slots[adapter.digest] = slot
            self._adapters[adapter.owner, adapter.name] = adapter

    async def reload(self) -> None:
        """Into a device that was started again and knows none. Raises what the device raised."""
        async with self._turn:
            named = {adapter.digest: adapter for adapter in self._adapters.values()}
            for digest, slot in self._slots.items():
                if digest:
                    await self._engine.link.load_adapter(slot, self._path(named[digest]))

    def _release(self, digest: str) -> None:
        """Its slot is free, unless an equal one needs it."""
        if not any(each.digest == digest for each in self._adapters.values()):
            self._engine.link.drop_adapter(self._slots.pop(digest))

    def _has_equal(self, adapter: Adapter) -> bool:
        return sum(each.digest == adapter.digest for each in self._adapters.values()) > 1

    def _ensure_room(self, owner: str, name: str, config: bytes, weights: bytes) -> None:
        if not NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of an adapter: 1 to 64 letters, digits and . _ -, a letter or digit "
                          "first", "name")
        keys = {*self._adapters, *self._adding}
        if (owner, name) in keys:
            raise Exists(f"you have an adapter {name!r}: drop it first, or choose another name")
        if sum(key[0] == owner for key in keys) >= ADAPTERS_PER_USER:
            raise LimitExceeded(f"{ADAPTERS_PER_USER} adapters are kept a user; drop one", "adapters_per_user")
        if len(config) > ADAPTER_CONFIG_BYTES or len(weights) > ADAPTER_BYTES:
            raise LimitExceeded(f"an adapter has at most {ADAPTER_BYTES} bytes of weights and {ADAPTER_CONFIG_BYTES} "
                                f"of settings; this one has {len(weights)} and {len(config)}", "adapter_bytes")
        taken = {each.digest: each.size_bytes for each in self._adapters.values()}
        if len(taken) + len(self._adding) >= ADAPTERS:
            raise LimitExceeded(f"{ADAPTERS} adapters are loaded, the most there may be; drop one", "adapters")
        if sum(taken.values()) + sum(self._adding.values()) + len(weights) > ADAPTERS_BYTES:
            raise LimitExceeded(f"all adapters together have at most {ADAPTERS_BYTES} bytes; drop some",
                                "adapters_bytes")

    def _examine(self, draft: Path, owner: str, name: str, config: bytes, weights: bytes) -> Adapter:
        """Writes the files into `draft`; blocks."""
        (draft / ADAPTER_CONFIG).write_bytes(config)
        (draft / ADAPTER_WEIGHTS).write_bytes(weights)
        try:
            stored = read_adapter(draft)
        except CadenzaError as error:
            error.message = error.message.replace(f"{draft}/", "")       # where they lie is nobody's business
            error.args = (error.message,)
            raise
        digest = hashlib.sha256(hashlib.sha256(config).digest() + hashlib.sha256(weights).digest()).hexdigest()
        adapter = Adapter(name, owner, digest, stored.rank, stored.targets, len(weights), time.time(),
                          self._fingerprint)
        (draft / DESCRIPTION).write_text(json.dumps(asdict(adapter)))
        return adapter

    def _path(self, adapter: Adapter) -> Path:
        assert self._directory is not None, "nothing is added before `open`"
        owner = hashlib.sha256(adapter.owner.encode()).hexdigest()[:32]  # a user's name need not be a file's name
        return self._directory / owner / adapter.name


def _prepare(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for draft in directory.glob(f"{DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, path: Path) -> None:
    """The draft stands at `path` from now on, in place of what was left out at boot."""
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(draft, path)
