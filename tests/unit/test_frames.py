"""Frames on disk: mapped clips, PNGs with their settings, threads that write them in order."""

import errno
import json
import threading
import time

import numpy as np
import pytest
from deforum_helpers.errors import InputError, OutputError, RenderError
from deforum_helpers.video import frames as frames_module
from deforum_helpers.video.frames import (
    FrameWriter,
    PngSequence,
    frame_path,
    open_frames,
    png_metadata,
    read_png,
    read_png_metadata,
    save_frames,
    write_png,
    write_thumbnail,
)
from PIL import Image


def picture(seed: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_clip_is_mapped_not_read(tmp_path):
    clip = np.stack([picture(k) for k in range(3)])
    save_frames(tmp_path / "clip.npy", clip)
    opened = open_frames(tmp_path / "clip.npy")
    assert isinstance(opened, np.memmap) and np.array_equal(opened, clip)
    assert names(tmp_path) == ["clip.npy"]


def test_damaged_or_foreign_clips_are_refused(tmp_path):
    whole = tmp_path / "whole.npy"
    save_frames(whole, np.stack([picture()] * 3))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:-10])
    (tmp_path / "text.npy").write_text("no")
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4, 3), np.float32))
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], object), allow_pickle=True)
    for name in ("cut", "text", "float", "code", "missing"):
        with pytest.raises(RenderError, match="resume the job"):
            open_frames(tmp_path / f"{name}.npy")


def test_a_png_gives_back_its_pixels_and_its_texts(tmp_path):
    settings = {"prompts": {"0": "ein Schiff – 船"}, "seed": 7, "long": "x" * 50_000}
    texts = png_metadata('a boat\nNegative prompt: "ugly" <b>\nSteps: 14', settings)
    write_png(tmp_path / "f.png", picture(), texts)
    assert np.array_equal(read_png(tmp_path / "f.png"), picture())
    read = read_png_metadata(tmp_path / "f.png")
    assert read == texts
    assert json.loads(read["deforum_wan"]) == settings
    assert read["parameters"].startswith("a boat\nNegative prompt")


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    for name in ("x.png", "missing.png"):
        with pytest.raises(InputError, match="can't be read"):
            read_png(tmp_path / name)
        with pytest.raises(InputError, match="can't be read"):
            read_png_metadata(tmp_path / name)


def test_frames_come_out_under_their_numbers(tmp_path):
    scratch = np.empty((32, 48, 3), np.uint8)  # one buffer for all frames: the writer must not keep it
    with FrameWriter(tmp_path, "20260101120000", lambda k: {"index": str(k)}, first_index=5) as writer:
        for k in range(20):
            scratch[...] = picture(k)
            path = writer.put(scratch)
    assert path == frame_path(tmp_path, "20260101120000", 24) and path.name == "20260101120000_000000024.png"
    assert len(names(tmp_path)) == 20
    for k in range(20):
        path = frame_path(tmp_path, "20260101120000", 5 + k)
        assert np.array_equal(read_png(path), picture(k)) and read_png_metadata(path) == {"index": str(5 + k)}


def test_the_first_error_reaches_the_one_who_writes(tmp_path, monkeypatch):
    real = frames_module.write_bytes

    def full_at_three(path, data, **options):
        if path.name.endswith("3.png"):
            raise OutputError("can't write this file: the disk is full", got=str(path)) from OSError(errno.ENOSPC, "")
        real(path, data, **options)

    monkeypatch.setattr(frames_module, "write_bytes", full_at_three)
    with pytest.raises(OutputError, match=r"disk is full.*_000000003\.png"), FrameWriter(tmp_path, "t") as writer:
        for k in range(200):
            writer.put(picture(k))
            time.sleep(0.001)
    assert writer.next_index < 200, "it went on after the error"
    assert not [name for name in names(tmp_path) if not name.endswith(".png")]
    assert np.array_equal(read_png(frame_path(tmp_path, "t", 2)), picture(2))


def test_an_error_of_the_last_frame_is_not_lost(tmp_path, monkeypatch):
    def full(path, data, **options):
        raise OutputError("can't write this file: the disk is full")

    monkeypatch.setattr(frames_module, "write_bytes", full)
    with pytest.raises(OutputError), FrameWriter(tmp_path, "t") as writer:
        writer.put(picture())


def test_the_error_that_ended_the_block_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(KeyboardInterrupt), FrameWriter(tmp_path, "t") as writer:
        writer.put(picture())
        raise KeyboardInterrupt
    assert all(name.endswith(".png") for name in names(tmp_path))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("png")]


def test_only_so_many_frames_wait(tmp_path, monkeypatch):
    gate = threading.Event()
    real = frames_module.write_png
    monkeypatch.setattr(frames_module, "write_png", lambda *arguments: (gate.wait(10), real(*arguments)))
    writer = FrameWriter(tmp_path, "t", threads=1, waiting=3)
    feeder = threading.Thread(target=lambda: [writer.put(picture(k)) for k in range(6)])
    feeder.start()
    time.sleep(0.2)
    assert writer.next_index == 3
    gate.set()
    feeder.join(10)
    writer.close()
    assert len(names(tmp_path)) == 6


def test_pngs_are_a_sequence(tmp_path):
    with FrameWriter(tmp_path, "t") as writer:
        for k in range(4):
            writer.put(picture(k))
    frames = PngSequence(tmp_path, "t", 4)
    assert len(frames) == 4 and len(frames[1:3]) == 2
    assert all(np.array_equal(frame, picture(k)) for k, frame in enumerate(frames))
    assert np.array_equal(frames[-1], picture(3))
    with pytest.raises(IndexError):
        frames[4]


@pytest.mark.parametrize(("name", "kind"), [("t.jpg", "JPEG"), ("t.png", "PNG")])
def test_thumbnails_keep_the_shape(tmp_path, name, kind):
    write_thumbnail(tmp_path / name, picture(0, 480, 832), 208)
    with Image.open(tmp_path / name) as small:
        assert small.size == (208, 120) and small.format == kind
    assert names(tmp_path) == [name]
