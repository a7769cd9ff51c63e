"""Penalties of what was said before: changes of the logits of tokens that stand in a sample's history.

    repetition    a logit above 0 is divided by it, another is multiplied     (Keskar et al. 2019, section 4.1)
    frequency     is subtracted as often as the token is there,
    presence      once if it is there at all                                     (OpenAI API reference)

The history of a sample is told with it, or is that of its lane: what was told last, and all that was sampled on the
lane since. So steps can be asked ahead of results, whose tokens only the device knows.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.device.batch import Batch, Float32, Int32

Int64 = NDArray[np.int64]

OFF = (1.0, 0.0, 0.0)


class History:
    """Tokens, counted: the last `window`, or all if that is 0. One more costs the same, however many there are."""

    __slots__ = ("_counts", "_ids", "_places", "_recent", "_window")

    def __init__(self, tokens: Int32, window: int) -> None:
        tokens = tokens[-window:] if window else tokens
        ids, counts = np.unique(tokens, return_counts=True)
        self._ids, self._counts = ids.astype(np.int64), counts.astype(np.float32)    # as many or more than places
        self._places = {token: place for place, token in enumerate(ids.tolist())}
        self._window = window
        self._recent = deque(tokens.tolist() if window else ())

    def append(self, token: int) -> None:
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids, self._counts = (np.concatenate([each, np.zeros(max(64, place), each.dtype)])
                                       for each in (self._ids, self._counts))
        self._ids[place] = token
        self._counts[place] += 1
        if self._window:
            self._recent.append(token)
            if len(self._recent) > self._window:
                self._counts[self._places[self._recent.popleft()]] -= 1

    def counts(self) -> tuple[Int64, Float32]:
        """Tokens, each once, and how often each is there: some of them no more."""
        held = len(self._places)
        return self._ids[:held], self._counts[:held]

    def penalise(self, logits: Float32, repetition: float, frequency: float, presence: float) -> None:
        """Changes `logits` [V] in place."""
        ids, counts = self.counts()
        values, there = logits[ids], counts > 0
        if repetition != 1:
            penalised = np.where(values > 0, values / np.float32(repetition), values * np.float32(repetition))
            values = np.where(there, penalised, values)
        logits[ids] = values - np.float32(frequency) * counts - np.float32(presence) * there


class Histories:
    """Those of lanes."""

    def __init__(self) -> None:
        self._lanes: dict[int, History] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, batch: Batch, sample: int) -> History | None:
        """That of a sample, if it is penalised."""
        if not len(batch.penalties) or tuple(batch.penalties[sample].tolist()) == OFF:
            return None
        first, end = batch.told_starts[sample : sample + 2].tolist()
        lane, told = int(batch.sample_lanes[sample]), batch.told[first:end]
        if not len(told):
            return self._lanes[lane]
        history = History(told, int(batch.windows[sample]))
        if lane >= 0:
            self._lanes[lane] = history
        return history

    def forget(self, lanes: Int32) -> None:
        """They were given back. Idempotent."""
        for lane in lanes.tolist():
            self._lanes.pop(lane, None)
