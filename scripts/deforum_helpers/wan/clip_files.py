"""The worker's files: latents, frames and previews, each written whole or not at all.

A latents file holds "latents" [z, new, h, w] and, where the window made more than was needed, "tail" [z, k, h, w],
both float32 and normalised; and "anchor" [3, r, c], the look that the next clip's colours are held to, where that
isn't this clip's own (wan/colour.py).  Its metadata names the request that made it.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, OutputError

Pixels = Callable[[], np.ndarray]  # waits for frames that are on their way from the device

_WAITING = 2


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes its place, durably, else it is gone.

    Raises OutputError where the disk refuses.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"can't write ({error})",
            where=str(path),
            next_step="free disk space or choose another folder, then --resume",
        ) from error
    finally:
        part.unlink(missing_ok=True)


def save_latents(path: Path, latents: Tensor, tail: Tensor, fingerprint: str, anchor: Tensor | None = None) -> None:
    """Write a clip's latents [1, z, new, h, w], tail [1, z, k, h, w] and anchor; on disk when this returns."""
    tensors = {"latents": latents[0].float().cpu().contiguous()}
    if tail.shape[2]:
        tensors["tail"] = tail[0].float().cpu().contiguous()
    if anchor is not None:
        tensors["anchor"] = anchor.contiguous()
    with replacing(path) as part:
        save_file(tensors, part, metadata={"fingerprint": fingerprint})


def load_latents(path: Path, name: str = "latents", fingerprint: str = "") -> Tensor | None:
    """Read latents [1, z, t, h, w] back.

    With a fingerprint: None unless the file is whole and was made by that very request.
    Without: raises InputError where it can't be read.
    """
    try:
        with safe_open(path, "pt") as file:
            if fingerprint and (file.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            return file.get_tensor(name)[None] if name in file.keys() else None  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        if fingerprint:
            return None
        raise InputError(
            f"can't read the latents of an earlier clip ({error})",
            where=str(path),
            next_step="re-render from that clip",
        ) from error


def to_pixels(frames: Tensor) -> np.ndarray:
    """[1, 3, F, H, W] in [-1, 1] -> uint8 [F, H, W, 3]."""
    return _rounded(frames).cpu().numpy()


def _rounded(frames: Tensor) -> Tensor:
    return frames[0].permute(1, 2, 3, 0).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def leave_device(frames: Tensor) -> Pixels:
    """Begin to bring frames [1, 3, F, H, W] in [-1, 1] to the host; the result waits for them, uint8 [F, H, W, 3].

    On a GPU the next chunk's work can be queued before these have arrived.
    """
    if frames.device.type != "cuda":
        pixels = to_pixels(frames)
        return lambda: pixels
    there = _rounded(frames)
    here = torch.empty(there.shape, dtype=torch.uint8, pin_memory=True)
    here.copy_(there, non_blocking=True)
    arrived = torch.cuda.current_stream(frames.device).record_event()

    def wait() -> np.ndarray:
        arrived.synchronize()
        return here.numpy()

    return wait


def save_frames(path: Path, chunks: Iterator[Pixels], shape: tuple[int, int, int, int]) -> None:
    """Write uint8 frames [F, H, W, 3] chunk by chunk into one .npy file, so that a long clip needs no memory.

    Chunks are written on a thread of their own while the next is decoded; at most _WAITING wait for the disk.
    """
    with replacing(path) as part:
        target = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        position = 0

        def write(target: np.ndarray, chunk: Pixels) -> None:
            nonlocal position  # only the one writing thread touches it until all is written
            pixels = chunk()
            target[position : position + len(pixels)] = pixels
            position += len(pixels)

        with ThreadPoolExecutor(1, thread_name_prefix="frames") as writer:
            waiting: deque[Future[None]] = deque()
            for chunk in chunks:
                waiting.append(writer.submit(write, target, chunk))
                if len(waiting) > _WAITING:
                    waiting.popleft().result()
            for future in waiting:
                future.result()
        assert position == shape[0], f"{position} frames decoded, {shape[0]} expected"
        target.flush()
        del target


def save_preview(path: Path, frame: np.ndarray) -> None:
    """Write one uint8 picture [H, W, 3] as a small JPEG."""
    with replacing(path) as part:
        Image.fromarray(frame).save(part, "JPEG", quality=85)
