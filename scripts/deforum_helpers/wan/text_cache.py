"""Embedded prompts on disk, so that a prompt seen before doesn't even load the 11 GB encoder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..model_files import PartInfo

__all__ = ["EmbeddingCache", "encoder_fingerprint"]

_READ_WHOLE = 32 * 1024 * 1024
_SAMPLES = 64
_SAMPLE_BYTES = 4096


def encoder_fingerprint(*parts: PartInfo) -> str:
    """What a text encoder (and its tokenizer) is, told in milliseconds: small files whole, of large ones the size,
    the header and samples.  The same whatever the files are called and wherever they lie.
    """
    digest = hashlib.sha256()
    for part in parts:
        files = [Path(name) for name in part.files]
        files = [inner for file in files for inner in (sorted(file.iterdir()) if file.is_dir() else [file])]
        for file in (file for file in files if file.is_file()):
            size = file.stat().st_size
            digest.update(size.to_bytes(8, "little"))
            with file.open("rb") as stream:
                digest.update(stream.read(size if size <= _READ_WHOLE else 1 << 18))
                for n in range(_SAMPLES if size > _READ_WHOLE else 0):
                    stream.seek((size - _SAMPLE_BYTES) * (n + 1) // _SAMPLES)
                    digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


class EmbeddingCache:
    """Files named by a hash, the longest unused go first once the folder is past its size."""

    def __init__(self, folder: Path, most_bytes: int = 512 * 1024 * 1024) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def get(self, *key: str) -> Tensor | None:
        """The rows stored under a key, [n, text_dim], or None."""
        path = self._path(key)
        try:
            rows = load_file(path)["context"]
            os.utime(path)
            return rows
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError):  # a broken entry is a missing one
            path.unlink(missing_ok=True)
            return None

    def put(self, rows: Tensor, *key: str) -> None:
        """Store rows.  A full or read-only disk only means that nothing is remembered."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            os.close(handle)
            try:
                save_file({"context": rows.contiguous().cpu()}, name)
                Path(name).replace(self._path(key))
            finally:
                Path(name).unlink(missing_ok=True)
            self._trim()
        except (OSError, SafetensorError):
            return

    def _path(self, key: tuple[str, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()}.safetensors"

    def _trim(self) -> None:
        stats = [(path.stat(), path) for path in self.folder.glob("*.safetensors")]
        over = sum(stat.st_size for stat, _ in stats) - self.most_bytes
        for stat, path in sorted(stats, key=lambda item: item[0].st_mtime_ns):
            if over <= 0:
                break
            path.unlink(missing_ok=True)
            over -= stat.st_size
