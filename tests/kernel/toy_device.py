"""A device small enough to be believed: it stores tokens where K and V would be, and "samples" a hash of what a row
sees. Any mistake in pages, slots, copies, lanes or order changes the tokens."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np

from cadenza.kernel.device.batch import Batch, DeviceFacts, StepResult
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kvfs.errors import Internal, Unsupported

VOCABULARY = 997


def next_token(seen: Sequence[int], draw: int = 0) -> int:
    """What the toy model says after the tokens `seen`."""
    digest = hashlib.blake2b(np.asarray([*seen, draw], np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % VOCABULARY


def allowed_from(token: int, allowed: np.ndarray) -> int:
    """The token itself, or the next after it that the mask allows."""
    while not allowed[token]:
        token = (token + 1) % VOCABULARY
    return token


class ToyDevice:
    """The image of a page is its tokens, 8 bytes each. A hidden token is not seen; a shift is. What is penalised is
    never said."""

    def __init__(self, pages: int = 64, page_tokens: int = 4, context_tokens: int = 512, host_pages: int = 0) -> None:
        self.facts = DeviceFacts("toy", pages, page_tokens, 8 * page_tokens, VOCABULARY, context_tokens, host_pages)
        self.host = np.zeros((host_pages, 8 * page_tokens), np.uint8)
        self.held = np.full((pages, page_tokens), -1, np.int64)
        self.lanes: dict[int, int] = {}
        self.said: dict[int, list[int]] = {}
        self.batches: list[Batch] = []

    def attach(self, host: np.ndarray) -> None:
        pass

    def step(self, batch: Batch) -> StepResult:
        self.batches.append(batch)
        flat = self.held.reshape(-1)
        flat[batch.moves[:, 1]] = flat[batch.moves[:, 0]]
        for page, host in batch.swap_outs.tolist():
            self.host[host] = self.held[page].view(np.uint8)
        for host, page in batch.swap_ins.tolist():
            self.held[page] = self.host[host].view(np.int64)
        for source, target in batch.copies.tolist():
            self.held[target] = self.held[source]
        tokens = [t if t >= 0 else self.lanes[-1 - t] for t in batch.tokens.tolist()]
        self.held.reshape(-1)[batch.slots] = tokens
        sampled = []
        for n, token in enumerate(batch.sample_tokens.tolist()):
            seen = self.seen(batch, token)
            drawn = next_token(seen, int(batch.draws[n]) if batch.temperature[n] > 0 else 0)
            allowed = np.ones(VOCABULARY, np.uint8)
            if batch.sample_masks[n] >= 0:
                allowed = np.unpackbits(batch.masks[batch.sample_masks[n]], count=VOCABULARY, bitorder="little")
            if len(batch.penalties) and batch.penalties[n].tolist() != [1, 0, 0]:
                allowed[self.history(batch, n, seen)] = 0
            sampled.append(allowed_from(drawn, allowed))
        for lane in batch.forgotten.tolist():
            self.said.pop(lane, None)
        for lane, token in zip(batch.sample_lanes.tolist(), sampled, strict=True):
            if lane >= 0:
                self.lanes[lane] = token
                self.said.setdefault(lane, []).append(token)
        return StepResult(batch.step, np.array(sampled, np.int32))

    def die(self, unanswered: int) -> None:
        """It forgets all that it held; so many steps may not have written to the host what they were to."""
        for batch in self.batches[len(self.batches) - unanswered :]:
            self.host[batch.swap_outs[:, 1]] = 0xAA
        self.held[:] = -1
        self.lanes.clear()
        self.said.clear()

    def history(self, batch: Batch, sample: int, seen: list[int]) -> list[int]:
        """What a penalised sample was told, or its lane has; it is what the row sees."""
        lane, told = int(batch.sample_lanes[sample]), batch.told[slice(*batch.told_starts[sample : sample + 2])]
        if len(told):
            self.said[lane] = told.tolist()
        history = self.said[lane][-int(batch.windows[sample]):]
        assert history == [token % VOCABULARY for token in seen][-int(batch.windows[sample]):]
        return history

    def seen(self, batch: Batch, token: int) -> list[int]:
        """What the row of input `token` has before it and sees, and the token itself."""
        row = int(np.searchsorted(batch.row_starts, token, side="right")) - 1
        seen: list[int] = []
        offsets: list[int] = []
        for segment in range(batch.segment_starts[row], batch.segment_starts[row + 1]):
            pages = batch.pages[batch.page_starts[segment]:batch.page_starts[segment + 1]]
            first, shift = int(batch.segment_skips[segment]), int(batch.segment_shifts[segment])
            part = self.held[pages].reshape(-1)[first : first + batch.segment_tokens[segment]]
            seen += (part + shift * VOCABULARY).tolist()
            offsets += range(batch.segment_firsts[segment], batch.segment_firsts[segment] + len(part))
        after = int(batch.row_starts[row + 1]) - 1 - token
        ranges = batch.visible_ranges[batch.visible_starts[row] : batch.visible_starts[row + 1]]
        mine = ranges[ranges[:, 0] == token - batch.row_starts[row], 1:].tolist()
        return [each for each, at in list(zip(seen, offsets, strict=True))[: len(seen) - after]
                if not mine or any(first <= at < first + count for first, count in mine)]

    def close(self) -> None:
        pass


class HeldLink:
    """A link whose results come when the test says so: `answer` brings back the oldest step."""

    def __init__(self, device: ToyDevice) -> None:
        self.device = device
        self.facts = device.facts
        self.host = device.host
        self.waiting: list[StepResult] = []
        self.comes_back = False

    def connect(self, deliver, lost) -> None:  # type: ignore[no-untyped-def]
        self._deliver, self.lose = deliver, lost

    def submit(self, batch: Batch) -> None:
        self.waiting.append(self.device.step(batch))

    def answer(self, error: str = "") -> None:
        result = self.waiting.pop(0)
        self._deliver(StepResult(result.step, error=error) if error else result)

    def die(self) -> None:
        self.device.die(len(self.waiting))
        self.waiting.clear()
        self.lose("killed by signal 9")

    async def restart(self) -> None:
        if not self.comes_back:
            raise Unsupported("it is beyond repair")

    def close(self) -> None:
        pass


class MortalLink(LocalLink):
    """Its device dies when the test says so, and is there again after a while; `fails` starts are in vain first."""

    def __init__(self, device: ToyDevice, *, fails: int = 0, seconds: float = 0.5) -> None:
        super().__init__(device)
        self._toy, self._seconds, self.fails, self.starts = device, seconds, fails, 0

    def die(self) -> None:
        self._toy.die(len(self._waiting))
        self.fail("struck by lightning")

    async def restart(self) -> None:
        self.starts += 1
        await asyncio.sleep(self._seconds)
        if self.fails:
            self.fails -= 1
            raise Internal("no room")
        self._gone, self._idle_at = "", 0.0
