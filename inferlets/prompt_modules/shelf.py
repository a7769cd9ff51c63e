"""Pieces kept as KV files: each is computed once, whoever needs it first, and read by everyone from then on.

    folder/<digest>           the states of one piece; gets its name when it is whole
    folder/<digest>.lock      empty; there while somebody computes the piece, and locked by whoever does

The digest is of tokens, positions and model, so a name says what the file holds. In a folder below /shared a file may
be another user's, who may have put anything there. It is believed only if the kernel says that its states are exact and
of this model, and if its tokens and positions are those of the piece; what remains is then what we would have computed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import cadenza
from cadenza import File, kv

from .layout import Piece
from .plan import View


class Shelf:
    """Files of one folder, kept open. Not to be used after `close`."""

    def __init__(self, folder: str, durable: bool = False) -> None:
        """`durable`: what is computed outlives the daemon, too."""
        self.computed_tokens = 0                 # for files, since the beginning
        self._folder = folder.rstrip("/")
        self._durable = durable
        self._files: dict[Piece, asyncio.Task[File]] = {}

    async def file(self, piece: Piece) -> File:
        """The file of a piece, computed if there is none. It stays the shelf's: fork it, do not close it."""
        found = self._files.get(piece)
        if found is None or (found.done() and (found.cancelled() or found.exception())):
            found = self._files[piece] = asyncio.ensure_future(self._fetch(piece))
        return await asyncio.shield(found)

    async def view(self, view: View) -> File:
        """A file of just what the view says; close it. Copies nothing."""
        whole = await self.file(view.piece)
        part = whole.fork() if view.whole else whole.extract([(view.first, view.count)])
        part.relocate(view.shift)
        return part

    async def joined(self, views: Sequence[View]) -> File:
        """One file of all views, in order; close it. Copies nothing."""
        parts = await asyncio.gather(*map(self.view, views))
        if len(parts) == 1:
            return parts[0]
        try:
            return File.concat(parts) if parts else File.create()
        finally:
            for part in parts:
                part.close()

    def close(self) -> None:
        """Idempotent."""
        for task in self._files.values():
            if task.done() and not task.cancelled() and not task.exception():
                task.result().close()
            task.cancel()
        self._files.clear()

    # --- one piece ---

    async def _fetch(self, piece: Piece) -> File:
        path = f"{self._folder}/{piece.digest(cadenza.model.facts().fingerprint)}"
        return self._found(path, piece) or await self._made(path, piece)

    def _found(self, path: str, piece: Piece) -> File | None:
        try:
            file = File.open(path)
        except (cadenza.NotFound, cadenza.Denied, cadenza.errors.Damaged):
            return None
        if trustworthy(file, piece):
            return file
        file.close()
        return None

    async def _made(self, path: str, piece: Piece) -> File:
        """Computes the piece, unless somebody does so right now: then waits for that."""
        try:
            turnstile = File.open(f"{path}.lock", "read", "append", "create")
        except cadenza.Denied:
            return await self._computed(piece)      # another user is at it: nobody is waited for who may never end
        with turnstile:
            async with turnstile.lock():
                try:
                    return self._found(path, piece) or await self._published(path, piece)
                finally:
                    with contextlib.suppress(cadenza.NotFound):
                        kv.unlink(f"{path}.lock")

    async def _published(self, path: str, piece: Piece) -> File:
        """Computes the piece and names it; it stays without a name if that is another user's."""
        file = await self._computed(piece)
        with contextlib.suppress(cadenza.NotFound, cadenza.Denied):
            kv.unlink(path)                         # what is there is not to be trusted
        with contextlib.suppress(cadenza.Exists):
            file.link(path)
            if self._durable:
                await file.sync()
        return file

    async def _computed(self, piece: Piece) -> File:
        before = piece.parent
        file = (await self.file(before)).fork() if before else File.create()
        held = len(before.tokens) if before else 0
        await cadenza.forward(file, piece.tokens[held:], positions=piece.positions[held:])
        self.computed_tokens += len(piece.tokens) - held
        return file


def trustworthy(file: File, piece: Piece) -> bool:
    """Whether a file holds what the piece would be if it were computed now."""
    known = file.status()
    count = len(piece.tokens)
    return (
        known.tokens == count
        and known.exact
        and known.fingerprint == cadenza.model.facts().fingerprint
        and (not count or (tuple(file.tokens()), tuple(file.positions())) == (piece.tokens, piece.positions))
    )
