"""Drives a device as the kernel does, as plainly as can be: files over pages, rows, batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cadenza.kernel.device.batch import Batch, Device, StepResult


@dataclass
class Sampler:
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    draw: int = 0
    lane: int = -1
    allowed: list[int] | None = None


@dataclass
class Probe:
    kind: int
    count: int = 0
    asked: list[int] = field(default_factory=list)


@dataclass
class File:
    """Tokens over pages."""

    pages: list[int] = field(default_factory=list)
    tokens: int = 0


@dataclass
class Row:
    """Tokens for `file`, after `reads`, those shifted by `shifts` or not at all. Samplers and probes: (row-local token,
    which)."""

    file: File
    tokens: list[int]
    reads: list[File] = field(default_factory=list)
    positions: list[int] | None = None
    contiguous: bool = True
    visible: list[tuple[int, int, int]] = field(default_factory=list)
    samples: list[tuple[int, Sampler]] = field(default_factory=list)
    probes: list[tuple[int, Probe]] = field(default_factory=list)
    adapter: int = -1
    shifts: list[int] = field(default_factory=list)

    @property
    def before(self) -> int:
        return sum(file.tokens for file in (*self.reads, self.file))


@dataclass
class Answer:
    """Of one row, in the order of its samples and probes: values and ids."""

    tokens: list[int]
    probes: list[tuple[np.ndarray, np.ndarray]]


class Driver:
    """A device and who holds its pages. Pages are handed out in a scattered order."""

    def __init__(self, device: Device) -> None:
        self.device = device
        order = np.random.default_rng(7).permutation(device.facts.pages)
        self._free = [int(page) for page in order]
        self._steps = 0

    def fork(self, file: File, copies: list[tuple[int, int]]) -> File:
        """A file with the same tokens; its last page, when it is not full, is its own by a copy."""
        twin = File(list(file.pages), file.tokens)
        if file.tokens % self.device.facts.page_tokens:
            twin.pages[-1] = self._free.pop()
            copies.append((file.pages[-1], twin.pages[-1]))
        return twin

    def step(self, rows: list[Row], copies: list[tuple[int, int]] | None = None) -> list[Answer]:
        batch = self.batch(rows, copies or [])
        return self.answers(rows, self.device.step(batch))

    def batch(self, rows: list[Row], copies: list[tuple[int, int]]) -> Batch:
        """Appends the rows' tokens to their files and describes the step."""
        self._steps += 1
        page_tokens = self.device.facts.page_tokens
        flat: dict[str, list[Any]] = {name: [] for name in Batch(0).arrays()}
        for name in ("row_starts", "segment_starts", "page_starts", "visible_starts", "asked_starts"):
            flat[name] = [0]
        for row in rows:
            first, before = len(flat["tokens"]), row.before
            flat["tokens"] += row.tokens
            flat["positions"] += row.positions or range(before, before + len(row.tokens))
            for offset in range(row.file.tokens, row.file.tokens + len(row.tokens)):
                if offset // page_tokens == len(row.file.pages):
                    row.file.pages.append(self._free.pop())
                flat["slots"].append(row.file.pages[offset // page_tokens] * page_tokens + offset % page_tokens)
            row.file.tokens += len(row.tokens)
            offset = 0
            for number, file in enumerate((*row.reads, row.file)):
                flat["segment_tokens"].append(file.tokens)
                flat["segment_firsts"].append(offset)
                flat["segment_skips"].append(0)
                flat["segment_shifts"].append(row.shifts[number] if number < len(row.shifts) else 0)
                offset += file.tokens
                flat["pages"] += file.pages
                flat["page_starts"].append(len(flat["pages"]))
            flat["row_starts"].append(len(flat["tokens"]))
            flat["segment_starts"].append(len(flat["segment_tokens"]))
            flat["contiguous"].append(row.contiguous)
            flat["adapters"].append(row.adapter)
            flat["visible_ranges"] += row.visible
            flat["visible_starts"].append(len(flat["visible_ranges"]))
            for token, sampler in row.samples:
                self._add_sampler(flat, first + token, sampler)
            for token, probe in row.probes:
                self._add_probe(flat, first + token, probe)
        flat["copies"] = copies
        if max(flat["adapters"], default=-1) < 0:
            flat["adapters"] = []
        return _batch(self._steps, flat)

    def answers(self, rows: list[Row], result: StepResult) -> list[Answer]:
        tokens, probe, answers = list(result.tokens), 0, []
        for row in rows:
            made = [int(tokens.pop(0)) for _ in row.samples]
            probes = []
            for _ in row.probes:
                values = result.probe_values[result.probe_starts[probe] : result.probe_starts[probe + 1]]
                ids = result.probe_ids[result.id_starts[probe] : result.id_starts[probe + 1]]
                probes.append((values, ids))
                probe += 1
            answers.append(Answer(made, probes))
        return answers

    def _add_sampler(self, flat: dict[str, list[Any]], token: int, sampler: Sampler) -> None:
        flat["sample_tokens"].append(token)
        flat["sample_lanes"].append(sampler.lane)
        for name in ("temperature", "top_k", "top_p", "min_p"):
            flat[name].append(getattr(sampler, name))
        flat["seeds"].append(sampler.seed)
        flat["draws"].append(sampler.draw)
        flat["sample_masks"].append(-1 if sampler.allowed is None else len(flat["masks"]))
        if sampler.allowed is not None:
            allowed = np.zeros(self.device.facts.vocabulary_size, np.uint8)
            allowed[sampler.allowed] = 1
            flat["masks"].append(np.packbits(allowed, bitorder="little"))

    @staticmethod
    def _add_probe(flat: dict[str, list[Any]], token: int, probe: Probe) -> None:
        flat["probe_tokens"].append(token)
        flat["probe_kinds"].append(probe.kind)
        flat["probe_counts"].append(probe.count)
        flat["asked"] += probe.asked
        flat["asked_starts"].append(len(flat["asked"]))


def _batch(step: int, flat: dict[str, list[Any]]) -> Batch:
    arrays: dict[str, Any] = {}
    for name, empty in Batch(0).arrays().items():
        if name == "masks":
            arrays[name] = np.stack(flat[name]) if flat[name] else empty
        else:
            arrays[name] = np.array(flat[name], empty.dtype).reshape(-1, *empty.shape[1:])
    return Batch(step, **arrays)
