"""Masks that a step is given while it is computed: the worker waits for its own, and loses nothing meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from cadenza.kernel.device.batch import Batch, DeviceFacts
from cadenza.kernel.device.shared_memory import Capacity, Ring
from cadenza.kernel.device.worker import Packets

FACTS = DeviceFacts("none", 64, 16, 0, 64, 256)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    kernel, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, worker:
        yield kernel, worker


def test_a_step_waits_for_its_masks_and_what_else_comes_waits_for_the_step(
    ends: tuple[socket.socket, socket.socket]
) -> None:
    kernel, worker = ends
    for packet in (b"\0", b"\1", b'{"drop": 3}', b"\0\0"):
        kernel.send(packet)
    packets = Packets(worker)
    assert packets.next() == b"\0"
    packets.wait_for_masks()
    assert [packets.next(), packets.next()] == [b"\1", b'{"drop": 3}']
    kernel.send(b"\1\0")
    packets.wait_for_masks()
    kernel.close()
    assert packets.next() == b""


def test_masks_of_a_step_that_failed_before_it_wanted_them_are_nobodys(
    ends: tuple[socket.socket, socket.socket]
) -> None:
    kernel, worker = ends
    for packet in (b"\0", b"\1", b"\0\0", b"\1\0", b"\2"):
        kernel.send(packet)
    packets = Packets(worker)
    assert [packets.next(), packets.next()] == [b"\0", b"\1"]
    packets.wait_for_masks()
    assert packets.next() == b"\2"


def test_a_kernel_that_is_gone_gives_no_masks(ends: tuple[socket.socket, socket.socket]) -> None:
    kernel, worker = ends
    kernel.send(b"\0")
    kernel.close()
    packets = Packets(worker)
    packets.next()
    with pytest.raises(BrokenPipeError):
        packets.wait_for_masks()


def test_masks_are_written_into_the_batch_that_the_worker_reads() -> None:
    file = os.memfd_create("test")
    os.ftruncate(file, Capacity.of(FACTS).ring_bytes)
    kernel, worker = Ring(file, FACTS), Ring(file, FACTS)
    os.close(file)
    masks = np.arange(24, dtype=np.uint8).reshape(3, 8)
    kernel.write_batch(2, Batch(5, masks=masks, late_masks=np.array([1], np.int32)))
    seen = worker.read_batch(2)
    kernel.write_masks(2, [(1, np.full(8, 99, np.uint8))])
    assert seen.masks[1].tolist() == [99] * 8, "a view: it may be read before its masks are there"
    assert np.array_equal(seen.masks[[0, 2]], masks[[0, 2]])
    del seen
    kernel.close()
    worker.close()
