"""A device on which a model runs that says what a script wants: it knows what a real one would know, and no more. A
mask that forbids what it wants to say has its way, as it would with any model.

It keeps the token of every slot, as a real device keeps its keys and values; what a row sees is what lies in the pages
that the row reads. Reused prompts, forks, and rows that were computed ahead in vain need no thought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cadenza.kernel.device.batch import Batch, DeviceFacts, Int32, StepResult, UInt8
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.limits import LANES

Says = Callable[[Int32], Sequence[int]]
"""What follows a context, as far as it is certain: at least one token. A pure function."""

PAGES, PAGE_TOKENS = 4096, 16


class Speaker:
    """Steps cost `step_ms`, whatever is in them. It has no host tier."""

    def __init__(self, says: Says, vocabulary_size: int, step_ms: float) -> None:
        self._null = NullDevice(pages=PAGES, page_tokens=PAGE_TOKENS, vocabulary_size=vocabulary_size,
                                cost=CostModel(fixed_ms=step_ms))  # fmt: skip
        self._says = says
        self._lanes = np.zeros(LANES, np.int32)
        self._slots = np.zeros((PAGES, PAGE_TOKENS), np.int32)
        self._before = np.zeros(0, np.int32)                 # what the script was asked last, and what it answered
        self._planned = np.zeros(0, np.int32)

    @property
    def facts(self) -> DeviceFacts:
        return self._null.facts

    def attach(self, host: UInt8) -> None:
        self._null.attach(host)

    def step(self, batch: Batch) -> StepResult:
        for source, target in batch.copies.tolist():
            self._slots[target] = self._slots[source]
        tokens = np.where(batch.tokens < 0, self._lanes[np.maximum(-1 - batch.tokens, 0)], batch.tokens)
        self._slots.reshape(-1)[batch.slots] = tokens
        result = self._null.step(batch)
        result.tokens = np.array([self._next(self._seen(batch, at)) for at in batch.sample_tokens.tolist()], np.int32)
        for sample in np.flatnonzero(batch.sample_masks >= 0).tolist():
            allowed = np.unpackbits(batch.masks[batch.sample_masks[sample]], bitorder="little")
            if not allowed[result.tokens[sample]]:
                result.tokens[sample] = allowed.argmax()
        kept = batch.sample_lanes >= 0
        self._lanes[batch.sample_lanes[kept]] = result.tokens[kept]
        return result

    def close(self) -> None:
        self._null.close()

    def _seen(self, batch: Batch, at: int) -> Int32:
        """All tokens up to the one at index `at` of the step's."""
        row = int(np.searchsorted(batch.row_starts, at, "right")) - 1
        pieces = []
        for segment in range(batch.segment_starts[row], batch.segment_starts[row + 1]):
            pages = batch.pages[batch.page_starts[segment] : batch.page_starts[segment + 1]]
            skip = batch.segment_skips[segment]
            pieces.append(self._slots[pages].reshape(-1)[skip : skip + batch.segment_tokens[segment]])
        seen = np.concatenate(pieces)
        return seen[: len(seen) - (int(batch.row_starts[row + 1]) - 1 - at)]

    def _next(self, context: Int32) -> int:
        """The script is only asked when it has said all that was certain, or something else came in between."""
        said = context[len(self._before) :]
        known = (len(self._before) <= len(context) and len(said) < len(self._planned)
                 and np.array_equal(context[: len(self._before)], self._before)
                 and np.array_equal(said, self._planned[: len(said)]))
        if not known:
            self._before, said = context, context[len(context) :]
            self._planned = np.array(self._says(context), np.int32)
        return int(self._planned[len(said)])

