"""Videos hold exactly the frames they were given, say what they are, and are whole or not there."""

import json
import os
import re
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from deforum_helpers import video_io
from deforum_helpers.errors import InputError, OutputError, SettingsError, SetupError
from deforum_helpers.video import ffmpeg as ffmpeg_module
from deforum_helpers.video.ffmpeg import (
    FrameInput,
    FrameOutput,
    check_soundtrack,
    count_frames,
    exact_rate,
    ffmpeg_is_usable,
    find_ffmpeg,
    read_video_metadata,
)
from deforum_helpers.video_io import CODECS, VideoOptions, encode_video, make_gif, open_video, usable_codecs
from PIL import Image

pytestmark = pytest.mark.skipif(not ffmpeg_is_usable(), reason="no ffmpeg here")


def grey_steps(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame k is grey 20 + 3k: which frame a decoded one was can be read off."""
    return np.stack([np.full((height, width, 3), 20 + 3 * k, np.uint8) for k in range(count)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ffmpeg_says(*arguments: str) -> str:
    done = subprocess.run([find_ffmpeg().path, "-hide_banner", *arguments], capture_output=True, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def decode(path: Path) -> tuple[np.ndarray, Fraction]:
    """Every frame of a video as [F, H, W, 3], and its exact rate, by ffmpeg's own account."""
    listing = ffmpeg_says("-v", "error", "-i", str(path), "-map", "0:v:0", "-f", "framecrc", "-")
    width, height = map(int, re.search(r"#dimensions 0: (\d+)x(\d+)", listing).groups())
    rate = 1 / Fraction(re.search(r"#tb 0: (\S+)", listing).group(1))
    to_rgb = ["-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    command = [find_ffmpeg().path, "-v", "error", "-i", str(path), *to_rgb]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3), rate


def sound(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = 8000 * np.sin(np.arange(int(8000 * seconds)) * 0.3)
        file.writeframes(tone.astype("<i2").tobytes())
    return path


def audio_seconds(path: Path) -> float:
    said = ffmpeg_says("-i", str(path), "-map", "0:a:0", "-f", "null", "-")
    hours, minutes, seconds = re.findall(r"time=(\d+):(\d+):([\d.]+)", said)[-1]
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@pytest.mark.parametrize("codec", list(CODECS))
def test_each_codec_keeps_every_frame_rate_and_tag(tmp_path, codec):
    if codec not in usable_codecs():
        pytest.skip(f"this ffmpeg has no {codec}")
    path = tmp_path / f"v{CODECS[codec].suffix}"
    comment = json.dumps({"prompt": 'say "船" \\ or\n=;#', "long": "=; " * 40_000})
    tags = {"title": "a; b = #1", "comment": comment, "seed": "7"}
    frames = grey_steps(19)
    assert encode_video(frames, path, VideoOptions(fps=23.976, codec=codec, preset="ultrafast", metadata=tags)) == 19
    assert count_frames(path) == 19
    decoded, rate = decode(path)
    assert rate == Fraction(24000, 1001) if CODECS[codec].suffix != ".webm" else abs(rate - 23.976) < 0.01
    assert np.abs(decoded.mean(axis=(1, 2, 3)) - frames.mean(axis=(1, 2, 3))).max() < 2.5  # in order, none twice
    read = read_video_metadata(path)
    assert {key: read[key] for key in tags} == tags
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("fps", "rate"),
    [(16, Fraction(16)), (60.0, Fraction(60)), (12.5, Fraction(25, 2)), (29.97, Fraction(30000, 1001)),
     (23.98, Fraction(24000, 1001)), (0.5, Fraction(1, 2)), (Fraction(7, 3), Fraction(7, 3)), (24, Fraction(24))],
)  # fmt: skip
def test_any_rate_is_exact_in_the_file(tmp_path, fps, rate):
    assert exact_rate(fps) == rate
    encode_video(grey_steps(7), tmp_path / "v.mp4", VideoOptions(fps=fps, preset="ultrafast"))
    decoded, read = decode(tmp_path / "v.mp4")
    assert len(decoded) == 7 and read == rate


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1001])
def test_a_rate_that_is_none_is_refused(tmp_path, fps):
    with pytest.raises(SettingsError, match="fps"):
        encode_video(grey_steps(1), tmp_path / "v.mp4", VideoOptions(fps=fps))
    assert names(tmp_path) == []


def test_colours_are_those_of_the_pngs_and_the_file_says_how_to_read_them(tmp_path):
    frames = np.zeros((3, 48, 64, 3), np.uint8)
    frames[:, :, :32], frames[:, :, 32:] = (200, 30, 40), (20, 180, 220)
    encode_video(frames, tmp_path / "v.mp4", VideoOptions(fps=16, preset="ultrafast"))
    decoded, _ = decode(tmp_path / "v.mp4")
    assert np.abs(decoded[1, 24, [8, 56]].astype(int) - [(200, 30, 40), (20, 180, 220)]).max() <= 3
    assert "yuv420p(tv, bt709, " in ffmpeg_says("-i", str(tmp_path / "v.mp4"))


def test_the_index_lies_in_front(tmp_path):
    encode_video(grey_steps(5), tmp_path / "v.mp4", VideoOptions(fps=16, preset="ultrafast"))
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_odd_sizes_get_a_copy_of_their_last_row_and_column(tmp_path):
    encode_video(grey_steps(3, 33, 47), tmp_path / "v.mp4", VideoOptions(fps=16, preset="ultrafast"))
    decoded, _ = decode(tmp_path / "v.mp4")
    assert decoded.shape == (3, 34, 48, 3) and decoded[0].min() >= 18


@pytest.mark.parametrize("name", ["with space ü 船.mp4", "%03d.mp4", "-y.mp4", "a'b.mp4", "no_suffix"])
def test_any_file_name_will_do(tmp_path, name):
    encode_video(grey_steps(2), tmp_path / name, VideoOptions(fps=16, preset="ultrafast"))
    assert count_frames(tmp_path / name) == 2 and names(tmp_path) == [name]


@pytest.fixture
def processes(monkeypatch) -> list[subprocess.Popen]:
    """Every ffmpeg that takes frames during a test."""
    started = []

    class Watched(FrameInput):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self._process)

    monkeypatch.setattr(video_io, "FrameInput", Watched)
    return started


def test_a_render_that_fails_leaves_nothing_and_keeps_the_old_video(tmp_path, processes):
    (tmp_path / "v.mp4").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), open_video(tmp_path / "v.mp4", VideoOptions(fps=16)) as video:
        for frame in grey_steps(30):
            video.write(frame)
        raise FileNotFoundError("the next clip's frames")
    assert (tmp_path / "v.mp4").read_bytes() == b"old" and names(tmp_path) == ["v.mp4"]
    assert [process.returncode is not None for process in processes] == [True]


def test_an_ffmpeg_that_dies_is_reported_in_one_line(tmp_path, processes):
    (tmp_path / "v.mp4").write_bytes(b"old")
    failing = pytest.raises(OutputError, match=r"ffmpeg failed.*v\.mp4")
    with failing as caught, open_video(tmp_path / "v.mp4", VideoOptions(fps=16)) as video:
        video.write(grey_steps(1)[0])
        processes[0].kill()
        processes[0].wait()
        for _ in range(200):
            video.write(grey_steps(1)[0])
    assert "\n" not in str(caught.value)
    assert (tmp_path / "v.mp4").read_bytes() == b"old" and names(tmp_path) == ["v.mp4"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")  # noqa: PTH110
def test_a_full_disk_is_named():
    arguments = ["-f", "rawvideo", "-flush_packets", "1", "file:/dev/full"]
    taking = FrameInput(find_ffmpeg().path, (480, 640, 3), Fraction(16), arguments)
    try:
        with pytest.raises(OutputError, match=r"the disk is full.*resume"):
            for _ in range(20):
                taking.write(np.zeros((480, 640, 3), np.uint8))
            taking.finish()
    finally:
        taking.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="a program that hangs, as a shell script")
@pytest.mark.parametrize("way", ["write", "finish", "read"])
def test_an_ffmpeg_that_hangs_is_ended_and_reported(tmp_path, monkeypatch, way):
    """As when the share that a file lies on is gone."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg_module, "LONGEST_CALL", 0.3)
    frame = np.zeros((480, 640, 3), np.uint8)  # more than a pipe holds
    if way == "read":
        running = FrameOutput(str(program), frame.shape, [])
    else:
        running = FrameInput(str(program), frame.shape, Fraction(16), [])
    act = {"write": lambda: running.write(frame), "finish": lambda: running.finish(), "read": lambda: running.read()}
    try:
        with pytest.raises(OutputError, match=r"did nothing for 0\.3 seconds.*then resume"):
            act[way]()
        assert running._process.returncode is not None
    finally:
        running.stop()


def test_a_lost_frame_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(video_io, "count_frames", lambda path, program: count_frames(path, program) - 1)
    with pytest.raises(OutputError, match="holds 4 frames instead of 5"):
        encode_video(grey_steps(5), tmp_path / "v.mp4", VideoOptions(fps=16, preset="ultrafast"))
    assert names(tmp_path) == []


def test_frames_of_another_size_and_no_frames(tmp_path):
    with pytest.raises(ValueError, match="among frames"):
        encode_video([grey_steps(1)[0], grey_steps(1, 32)[0]], tmp_path / "v.mp4", VideoOptions(fps=16))
    with pytest.raises(OutputError, match="no frame"):
        encode_video([], tmp_path / "v.mp4", VideoOptions(fps=16))
    assert names(tmp_path) == []


def test_a_folder_that_vanished(tmp_path):
    with pytest.raises(OutputError):
        encode_video(grey_steps(2), tmp_path / "gone" / "v.mp4", VideoOptions(fps=16))


@pytest.mark.parametrize(
    ("change", "field"),
    [({"codec": "h264"}, "codec"), ({"crf": 52}, "crf"), ({"crf": -1}, "crf"), ({"preset": "turbo"}, "ffmpeg_preset")],
)
def test_options_are_checked_before_the_render(tmp_path, change, field):
    refused = pytest.raises(SettingsError, match=f"^{field}: .*allowed")
    with refused as caught, open_video(tmp_path / "v.mp4", VideoOptions(fps=16, **change)):
        pytest.fail("the block must not be entered")
    assert caught.value.exit_code == 2 and names(tmp_path) == []


def test_a_codec_this_ffmpeg_lacks_is_a_setup_error(monkeypatch):
    program = find_ffmpeg()
    bare = ffmpeg_module.Ffmpeg(program.path, program.version, frozenset({"libx264"}))
    monkeypatch.setattr(video_io, "find_ffmpeg", lambda explicit="": bare)
    assert usable_codecs() == ["libx264"]
    with pytest.raises(SetupError, match=r"has no libx265.*allowed: libx264"):
        video_io.check_options(VideoOptions(fps=16, codec="libx265"))


def test_sound_is_cut_at_the_videos_end_and_a_short_one_leaves_the_video_whole(tmp_path):
    for name, seconds, heard in (("long.wav", 9.0, 1.5), ("short.wav", 0.5, 0.5)):
        track = check_soundtrack(sound(tmp_path / name, seconds))
        tags = {"comment": "kept"}
        options = VideoOptions(fps=16, preset="ultrafast", soundtrack=track, metadata=tags)
        encode_video(grey_steps(24), tmp_path / "v.mp4", options)
        assert count_frames(tmp_path / "v.mp4") == 24 and decode(tmp_path / "v.mp4")[1] == 16
        assert abs(audio_seconds(tmp_path / "v.mp4") - heard) < 0.15
        assert read_video_metadata(tmp_path / "v.mp4")["comment"] == "kept"
    assert names(tmp_path) == ["long.wav", "short.wav", "v.mp4"]


def test_a_soundtrack_that_vanished_leaves_nothing(tmp_path):
    track = sound(tmp_path / "s.wav", 1)
    options = VideoOptions(fps=16, soundtrack=track)
    with pytest.raises(OutputError), open_video(tmp_path / "v.mp4", options) as video:
        video.write(grey_steps(1)[0])
        track.unlink()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/a.mp3", "https://x/a.mp3", "file:///a.wav", "concat:a.wav", "pipe:0", "tcp://x",
             "subfile,,start,0,end,9,,:a.wav", "missing.wav", ".", "", "x\0y", "x" * 5000],
)  # fmt: skip
def test_a_soundtrack_that_is_no_local_file_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    sound(tmp_path / "a.wav", 0.2)
    with pytest.raises(InputError, match=r"^soundtrack: ") as caught:
        check_soundtrack(name)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert ("never fetched" in str(caught.value)) == (":" in name)


def test_a_soundtrack_without_sound_is_refused(tmp_path):
    sound(tmp_path / "a.wav", 0.5)
    (tmp_path / "text.mp3").write_text("not music\n" * 50)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.wav\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.wav\n")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:20])
    Image.new("RGB", (32, 32)).save(tmp_path / "p.png")
    encode_video(grey_steps(3), tmp_path / "silent.mp4", VideoOptions(fps=16, preset="ultrafast"))
    for name in ("text.mp3", "empty.wav", "list.m3u8", "list.ffconcat", "cut.wav", "p.png", "silent.mp4"):
        with pytest.raises(InputError, match=r"^soundtrack: no audio.*choose another file") as caught:
            check_soundtrack(tmp_path / name)
        assert "\n" not in str(caught.value), name
    assert check_soundtrack(tmp_path / "a.wav").is_absolute()


@pytest.mark.parametrize(
    ("fps", "count", "kept"), [(16, 23, 23), (60, 61, 21), (24, 24, 24), (29.97, 40, 20), (100, 9, 3)]
)
def test_a_gif_lasts_as_long_as_the_video(tmp_path, fps, count, kept):
    assert make_gif(grey_steps(count), tmp_path / "g.gif", fps) == kept
    with Image.open(tmp_path / "g.gif") as gif:
        durations = []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
        assert gif.n_frames == kept and gif.info["loop"] == 0
    assert abs(sum(durations) - 1000 * count / exact_rate(fps)) <= 10
    assert max(durations[:-1]) - min(durations[:-1]) <= 10  # evenly spaced
    assert names(tmp_path) == ["g.gif"]


def test_a_gif_is_made_smaller_and_keeps_its_colours(tmp_path):
    frames = np.zeros((4, 120, 208, 3), np.uint8)
    frames[:, :, :104], frames[:, :, 104:] = (200, 30, 40), (20, 180, 220)
    make_gif(frames, tmp_path / "g.gif", 16, longest_side=104)
    with Image.open(tmp_path / "g.gif") as gif:
        assert gif.size == (104, 60)
        pixels = np.asarray(gif.convert("RGB")).astype(int)
    assert np.abs(pixels[30, [20, 80]] - [(200, 30, 40), (20, 180, 220)]).max() < 12


def test_a_gif_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "g.gif").write_bytes(b"old")
    frames = [grey_steps(1)[0]] * 200
    frames[100] = grey_steps(1, 20)[0]  # not among those that the palette is made of: the writing itself fails
    with pytest.raises(ValueError):
        make_gif(frames, tmp_path / "g.gif", 16)
    with pytest.raises(OutputError, match="no frame"):
        make_gif([], tmp_path / "g.gif", 16)
    assert (tmp_path / "g.gif").read_bytes() == b"old" and names(tmp_path) == ["g.gif"]


def test_ffmpeg_is_tried_before_it_is_trusted(tmp_path):
    program = find_ffmpeg()
    assert program.version and "libx264" in program.encoders and find_ffmpeg(program.path) == program
    for wrong in (tmp_path / "nothing", sys.executable):
        with pytest.raises(SetupError, match=r"run: python install\.py") as caught:
            find_ffmpeg(wrong)
        assert caught.value.exit_code == 3 and not ffmpeg_is_usable(wrong)


def test_without_imageio_ffmpeg_the_path_is_searched(monkeypatch, tmp_path):
    real = find_ffmpeg().path
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="no ffmpeg here"):
        find_ffmpeg()
    link = tmp_path / ("ffmpeg.exe" if os.name == "nt" else "ffmpeg")
    os.link(real, link) if os.stat(real).st_dev == os.stat(tmp_path).st_dev else link.symlink_to(real)  # noqa: PTH116
    assert Path(find_ffmpeg().path) == link


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    with pytest.raises(OutputError):
        count_frames(tmp_path / "v.mp4")
    with pytest.raises(OutputError):
        read_video_metadata(tmp_path / "v.mp4")
