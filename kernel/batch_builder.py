"""Rows in, one `Batch` out: first those of decodes that go on, in columns already, then all others, which are collected
in lists, most of them being one token long; arrays are made once at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cadenza.kernel.decodes import LENGTH, NOBODY, POSITION, SLOT, Going
from cadenza.kernel.device.batch import Batch, Int32, UInt8
from cadenza.kernel.device.penalties import OFF
from cadenza.kernel.guide import LateMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cadenza.kernel.passes import Probe
    from cadenza.kernel.sampler import Bias, Sampler
    from cadenza.kvfs.file import File
    from cadenza.kvfs.pool import PagePool


NOTHING = np.zeros(0, np.int32)


Late = list[tuple[int, LateMask]]        # masks that are not known yet, by their index


class BatchBuilder:
    """The batch of step `step`, row by row. A row is begun with `add_row`; samples and probes name tokens by the index
    that it answered. It speaks of pages; the batch that it builds names the frames of `pool` that they lie in."""

    def __init__(self, step: int, pool: PagePool, going: Going = NOBODY) -> None:
        self.step = step
        self._pool = pool
        self._going = going
        self._first = first = len(going.group.runs)      # rows, tokens, segments and samples before those in lists
        self.rows = first
        self.samples = first
        self.probes = 0
        self.copies: list[tuple[int, int]] = []
        self.late: Late = []
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._slots: list[int] = []
        self._row_starts: list[int] = []
        self._segment_starts: list[int] = []
        self._segment_tokens: list[int] = []
        self._segment_places: dict[int, tuple[int, int, int]] = {}      # first, skip, shift, where one of them is not 0
        self._pages: list[Int32] = []
        self._adapters: dict[int, int] = {}                             # slots, of rows that have one
        self._contiguous: list[bool] = []
        self._visible_starts: list[int] = []
        self._visible_count = 0
        self._visible: list[Int32] = []
        self._samples: list[tuple[int, int, int, int]] = []              # token, lane, draw, mask
        self._samplers: list[Sampler] = []
        self._masks: dict[int, tuple[int, UInt8]] = {}
        self._biases: dict[int, tuple[int, Bias]] = {}
        self._biased: dict[int, int] = {}                                # samples, and which of the biases
        self._told: dict[int, Int32] = {}                                # samples that are penalised, and their history
        self._probes: list[tuple[int, int, int]] = []
        self._asked: list[int] = []
        self._asked_starts = [0]
        self._scores: list[tuple[int, int]] = []                         # token, target

    @property
    def scores(self) -> int:
        return len(self._scores)

    @property
    def tokens(self) -> int:
        return self._first + len(self._tokens)

    def add_row(
        self,
        reads: Sequence[File],
        file: File,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        copies: Sequence[tuple[int, int]],
    ) -> int:
        """A row that appends `tokens` to `file`, which holds them already. Answers the index of its first token."""
        first = self.tokens
        self.copies.extend(copies)
        self._tokens.extend(tokens)
        self._positions.extend(positions)
        self._slots.extend(slots)
        self._row_starts.append(self.tokens)
        offset = 0
        for read in reads:
            self._add_segments(read, offset)
            offset += len(read)
        self._add_segments(file, offset)
        self._segment_starts.append(self._first + len(self._segment_tokens))
        self._contiguous.append(not reads and file.contiguous)
        self._visible_starts.append(self._visible_count)
        self.rows += 1
        return first

    def add_again(self, file: File, first: int, count: int) -> int:
        """A row that computes tokens of `file` anew, from offset `first` on, in the pages where they stand. Only for a
        file without parts."""
        row, end = self.tokens, first + count
        self._tokens.extend(file.tokens(first, count).tolist())
        self._positions.extend(file.positions(first, count).tolist())
        self._slots.extend(file.table.slots(first, count).tolist())
        self._row_starts.append(self.tokens)
        self._add_segment(file.table.pages()[: -(-end // file.page_tokens)], end)
        self._segment_starts.append(self._first + len(self._segment_tokens))
        self._contiguous.append(file.contiguous)
        self._visible_starts.append(self._visible_count)
        self.rows += 1
        return row

    def add_visible(self, ranges: Int32) -> None:
        """Ranges ([·, 3]: token of the row, first, count) of the row last added."""
        self._visible.append(ranges)
        self._visible_starts[-1] = self._visible_count = self._visible_count + len(ranges)

    def add_adapter(self, slot: int) -> None:
        """Of the row last added."""
        self._adapters[self.rows - 1] = slot

    def add_sample(self, token: int, lane: int, sampler: Sampler, draw: int, mask: UInt8 | LateMask | None,
                   told: Int32 | None = None) -> None:  # fmt: skip
        """`told`: the history of a sample that is penalised, if its lane has it not."""
        if sampler.bias is not None:
            self._biased[self.samples] = self._biases.setdefault(id(sampler.bias), (len(self._biases), sampler.bias))[0]
        if sampler.penalties is not None:
            self._told[self.samples] = NOTHING if told is None else told
        self.samples += 1
        masked = -1
        if isinstance(mask, LateMask):
            self.late.append((len(self._masks), mask))
            mask = mask.anything
        if mask is not None:
            masked = self._masks.setdefault(id(mask), (len(self._masks), mask))[0]
        self._samples.append((token, lane, draw, masked))
        self._samplers.append(sampler)

    def add_probe(self, token: int, probe: Probe) -> None:
        self.probes += 1
        self._probes.append((token, probe.kind, probe.top))
        self._asked.extend(probe.tokens)
        self._asked_starts.append(len(self._asked))

    def add_scores(self, token: int, targets: Sequence[int]) -> None:
        """How likely each of `targets` is after a token, from index `token` on."""
        self._scores.extend(enumerate(targets, token))

    def build(self) -> Batch:
        frames, size, (group, columns) = self._pool.frames, self._pool.page_tokens, self._going
        batch = Batch(
            step=self.step, tokens=group.tokens, positions=columns[POSITION], slots=columns[SLOT],
            row_starts=group.starts, segment_starts=group.starts, segment_tokens=columns[LENGTH],
            segment_firsts=group.nothing[1:], segment_skips=group.nothing[1:], segment_shifts=group.nothing[1:],
            page_starts=group.page_starts, pages=group.pages, contiguous=group.straight, visible_starts=group.nothing,
        )
        if self._tokens:
            slots = np.array(self._slots, np.int32)
            places = np.zeros((3, len(self._segment_tokens)), np.int32)
            for segment, place in self._segment_places.items():
                places[:, segment] = place
            page_starts = len(group.pages) + np.cumsum([len(pages) for pages in self._pages])
            _put_behind(batch, {
                "tokens": self._tokens, "positions": self._positions,
                "slots": frames[slots // size] * np.int32(size) + slots % size,
                "row_starts": self._row_starts, "segment_starts": self._segment_starts,
                "segment_tokens": self._segment_tokens, "segment_firsts": places[0], "segment_skips": places[1],
                "segment_shifts": places[2], "page_starts": page_starts, "pages": frames[np.concatenate(self._pages)],
                "contiguous": self._contiguous, "visible_starts": self._visible_starts,
            })
        if self._adapters or group.adapted:
            batch.adapters = np.full(self.rows, -1, np.int32)
            batch.adapters[: self._first] = group.adapters
            for row, slot in self._adapters.items():
                batch.adapters[row] = slot
        if self.copies:
            batch.copies = frames[np.array(self.copies, np.int32)]
        if self._visible:
            batch.visible_ranges = np.concatenate(self._visible)
        if self.samples:
            self._build_samples(batch)
        if self._probes:
            self._build_probes(batch)
        if self._scores:
            batch.score_tokens, batch.score_targets = np.array(self._scores, np.int32).T.copy()
        return batch

    def _add_segments(self, file: File, offset: int) -> None:
        """What a pass reads of `file`, whose tokens have offsets from `offset` on."""
        if not file.parts.count:                         # nearly all files: one segment, or none
            table = file.table
            if table.count:
                if offset:
                    self._segment_places[len(self._segment_tokens)] = offset, 0, 0
                self._add_segment(table.pages(), table.count)
            return
        for pages, first, skip, count, shift in file.segments():
            self._segment_places[len(self._segment_tokens)] = offset + first, skip, shift
            self._add_segment(pages, count)

    def _add_segment(self, pages: Int32, tokens: int) -> None:
        self._segment_tokens.append(tokens)
        self._pages.append(pages)

    def _build_samples(self, batch: Batch) -> None:
        group, columns = self._going
        batch.sample_tokens, batch.sample_lanes, batch.sample_masks = group.starts[:-1], group.lanes, group.masks
        batch.temperature, batch.top_k, batch.top_p = group.temperature, group.top_k, group.top_p
        batch.min_p, batch.seeds, batch.draws = group.min_p, group.seeds, (columns[LENGTH] - 1).astype(np.int64)
        if self._samples:
            tokens, lanes, draws, masks = zip(*self._samples, strict=True)
            temperature, top_k, top_p, min_p, seeds, _, _ = zip(*self._samplers, strict=True)
            _put_behind(batch, {
                "sample_tokens": tokens, "sample_lanes": lanes, "draws": draws, "sample_masks": masks,
                "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seeds": seeds,
            })
        if self._masks:
            batch.masks = np.stack([mask for _, mask in self._masks.values()])
            batch.late_masks = np.array([index for index, _ in self.late], np.int32)
        if self._biased:
            self._build_biases(batch)
        if self._told:
            penalties = [None] * self._first + [sampler.penalties for sampler in self._samplers]
            batch.penalties = np.array([each[:3] if each else OFF for each in penalties], np.float32)
            batch.windows = np.array([each.window if each else 0 for each in penalties], np.int32)
            told = [self._told.get(sample, NOTHING) for sample in range(self.samples)]
            batch.told = np.concatenate(told)
            batch.told_starts = np.cumsum([0, *map(len, told)], dtype=np.int32)

    def _build_biases(self, batch: Batch) -> None:
        biases = [bias for _, bias in self._biases.values()]
        batch.sample_biases = np.full(self.samples, -1, np.int32)
        batch.sample_biases[list(self._biased)] = list(self._biased.values())
        batch.bias_starts = np.cumsum([0, *(len(bias.tokens) for bias in biases)], dtype=np.int32)
        batch.bias_tokens = np.concatenate([bias.tokens for bias in biases])
        batch.bias_values = np.concatenate([bias.values for bias in biases])

    def _build_probes(self, batch: Batch) -> None:
        probes = np.array(self._probes, np.int32)
        batch.probe_tokens, batch.probe_kinds, batch.probe_counts = (np.ascontiguousarray(c) for c in probes.T)
        batch.asked = np.array(self._asked, np.int32)
        batch.asked_starts = np.array(self._asked_starts, np.int32)


def _put_behind(batch: Batch, arrays: dict[str, Any]) -> None:
    """Each behind what the batch has of that name."""
    for name, rest in arrays.items():
        first = getattr(batch, name)
        setattr(batch, name, np.concatenate((first, np.array(rest, first.dtype))))
