"""Frames are written while the next are decoded: in order, bounded, and not at all where something breaks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.errors import OutputError
from deforum_helpers.wan.clip_files import leave_device, save_frames, to_pixels


def test_frames_are_written_in_order(tmp_path: Path) -> None:
    frames = torch.rand(1, 3, 9, 4, 6) * 2 - 1
    chunks = (leave_device(frames[:, :, start:end]) for start, end in ((0, 1), (1, 5), (5, 9)))
    save_frames(tmp_path / "clip.npy", chunks, (9, 4, 6, 3))
    assert np.array_equal(np.load(tmp_path / "clip.npy"), to_pixels(frames))


def test_decoding_goes_on_while_a_chunk_is_written_but_not_without_end(tmp_path: Path) -> None:
    arrived, decoded = threading.Event(), []

    def slow() -> np.ndarray:
        assert arrived.wait(10)
        return np.zeros((1, 2, 2, 3), np.uint8)

    def chunks():
        for index in range(6):
            decoded.append(index)
            if index == 2:
                arrived.set()  # the first is still being written: without a thread this would never be reached
            yield slow

    save_frames(tmp_path / "clip.npy", chunks(), (6, 2, 2, 3))
    assert decoded == list(range(6))


def test_a_chunk_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> np.ndarray:
        raise OSError("disk full")

    with pytest.raises(OutputError, match="disk full"):
        save_frames(tmp_path / "clip.npy", iter([broken] * 5), (5, 2, 2, 3))
    assert not list(tmp_path.iterdir())


def test_a_decode_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    def chunks():
        yield lambda: np.zeros((1, 2, 2, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_frames(tmp_path / "clip.npy", chunks(), (2, 2, 2, 3))
    assert not list(tmp_path.iterdir())
