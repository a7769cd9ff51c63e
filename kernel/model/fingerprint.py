"""What names a model: a digest of what it computes, whatever its files are called and however many there are."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.tensors import StoredTensor, checked_tensors

CHUNK_BYTES = 4 << 20


def fingerprint(directory: Path, config: ModelConfig) -> str:
    """SHA-256, in hex, of the configuration and of each needed tensor's name, type, shape and bytes.

    Reads every weight once; blocks. Raises as `checked_tensors` does.
    """
    digest = hashlib.sha256(config.canonical().encode())
    stored = checked_tensors(directory, config)
    with ExitStack() as stack:
        files = {file: stack.enter_context(file.open("rb")) for file in {t.file for t in stored.values()}}
        for name, tensor in sorted(stored.items()):
            digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            _digest_bytes(digest, files[tensor.file], tensor)
    return digest.hexdigest()


def _digest_bytes(digest: hashlib._Hash, file: BinaryIO, tensor: StoredTensor) -> None:
    file.seek(tensor.offset)
    left = tensor.size
    while left:
        read = file.read(min(left, CHUNK_BYTES))
        assert read, "checked_tensors saw these bytes"
        digest.update(read)
        left -= len(read)
