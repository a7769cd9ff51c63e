"""Several processes train one model, each on its own batch, with one thread each.

One process with several threads waits for its slowest thread at every matrix product, hundreds of times a step:
when other programs share the cores it falls to a quarter of its pace. Processes wait for each other once a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor

WORKER, MEETING = "TRAIN_WORKER", "TRAIN_MEETING"


@dataclass(frozen=True)
class Team:
    """This process's place among `count` workers; worker 0 reports and writes files."""

    worker: int
    count: int

    @property
    def leads(self) -> bool:
        return self.worker == 0

    def average(self, parameters: Iterable[torch.nn.Parameter], *numbers: float) -> list[float]:
        """Replaces each gradient by its mean over all workers; returns the means of `numbers`. Blocks for the others.

        All workers get the same bits, so their weights stay equal.
        """
        gradients: list[Tensor] = [weight.grad for weight in parameters if weight.grad is not None]
        *sums, summed = self.sum([*gradients, torch.tensor(numbers)])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total / self.count)
        return [float(number) / self.count for number in summed]

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor summed over all workers, the same bits everywhere. Blocks for the others."""
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def own_place() -> int:
    """This process's number among the workers; 0 in the process that the user started."""
    return int(os.environ.get(WORKER, "0"))


@contextmanager
def open_team(count: int) -> Iterator[Team]:
    """Starts the other workers as copies of this very command, and joins them; valid inside the `with` block."""
    torch.set_num_threads(1)
    worker = own_place()
    with tempfile.TemporaryDirectory() as folder:
        meeting = os.environ.get(MEETING, os.path.join(folder, "meeting"))
        others: list[subprocess.Popen[bytes]] = []
        if worker == 0:
            for number in range(1, count):
                place = {WORKER: str(number), MEETING: meeting}
                others.append(subprocess.Popen([sys.executable, "-m", "train", *sys.argv[1:]], env=os.environ | place))
        if count > 1:
            distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=worker, world_size=count)
        try:
            yield Team(worker, count)
        finally:
            if count > 1:
                distributed.destroy_process_group()
            for other in others:
                other.terminate() if sys.exc_info()[0] else other.wait()
