"""Muon: momentum whose update is made orthonormal, for the matrices inside the layers.

Each update turns every direction of a matrix by the same amount, so that rare directions (one name, one number) are
learnt as fast as common ones (Jordan et al., "Muon", 2024). Scaled to the size of AdamW's updates, so that both take
the same rate (Liu et al., "Muon is Scalable for LLM Training", 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from train.workers import Team

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ADAM_SIZE = 0.2
"""The usual root mean square of AdamW's updates."""


def orthonormalised(matrix: Tensor) -> Tensor:
    """The nearest matrix to this with all singular values about 1, by Newton and Schulz's iteration; same shape."""
    flat = matrix.shape[0] <= matrix.shape[1]
    current: Tensor = matrix if flat else matrix.T
    current = current / (current.norm() + 1e-7)
    first, third, fifth = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = current @ current.T
        current = first * current + (third * square + fifth * square @ square) @ current
    return current if flat else current.T


class Muon(torch.optim.Optimizer):
    """Muon over matrices. The workers of a team share the orthonormalising between them."""

    def __init__(self, matrices: Iterable[torch.nn.Parameter], team: Team, rate: float, weight_decay: float) -> None:
        super().__init__(list(matrices), {"lr": rate, "weight_decay": weight_decay})
        self.team = team

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients, which must already be the same in all workers. Blocks for the others."""
        for group in self.param_groups:
            matrices: list[Tensor] = group["params"]
            updates = [self._direction(matrix) for matrix in matrices]
            by_size = sorted(range(len(matrices)), key=lambda index: matrices[index].numel())
            for turn, index in enumerate(by_size):
                own = turn % self.team.count == self.team.worker
                updates[index] = orthonormalised(updates[index]) if own else torch.zeros_like(updates[index])
            for matrix, update in zip(matrices, self.team.sum(updates), strict=True):
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * ADAM_SIZE * max(matrix.shape) ** 0.5)

    def _direction(self, matrix: Tensor) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert matrix.grad is not None
        momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        momentum.lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(momentum, MOMENTUM)
