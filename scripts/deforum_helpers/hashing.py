"""sha256 of a whole file, the one way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["hash_file", "sha256_of"]

_BLOCK = 1 << 22


def sha256_of(file: str | os.PathLike[str], on_bytes: Callable[[int], None] | None = None) -> str:
    """In hexadecimal.  on_bytes: told now and then how many bytes have been read.  Raises OSError."""
    return hash_file(file, on_bytes).hexdigest()


def hash_file(file: str | os.PathLike[str], on_bytes: Callable[[int], None] | None = None) -> hashlib._Hash:
    """The same before it is spelled out."""
    digest, done = hashlib.sha256(), 0
    with Path(file).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            if on_bytes:
                on_bytes(done)
    return digest
