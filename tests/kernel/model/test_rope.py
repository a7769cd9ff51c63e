"""Angles that are looked up are those that would have been computed."""

from __future__ import annotations

import pytest
import torch

from cadenza.kernel.model.rope import KEPT_POSITIONS, Angles, rotation

FREQUENCIES = 1.0 / 10_000.0 ** (torch.arange(0, 16, dtype=torch.float32) / 16)


@pytest.mark.parametrize("scale", [1.0, 1.25])
@pytest.mark.parametrize("positions", [[0], [3, 3, 1], [1023], [5000, 2], [KEPT_POSITIONS - 1], [7, KEPT_POSITIONS],
                                       [1 << 20, -4]])  # fmt: skip
def test_angles_are_those_of_their_positions(positions: list[int], scale: float) -> None:
    angles = Angles(FREQUENCIES, torch.float32, scale)
    for asked in ([0], positions, positions[::-1], [2, 1, 0]):                       # what is kept grows in between
        found, expected = angles(torch.tensor(asked)), rotation(FREQUENCIES, torch.tensor(asked), torch.float32, scale)
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=0, rtol=0)
            assert mine.shape == (len(asked), 1, 16)
