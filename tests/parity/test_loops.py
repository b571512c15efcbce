"""Loops by models that take a last frame, from settings to frames: what the last clip is told, and a resumed render."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deforum_helpers.errors import WorkerDied
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import RenderSettings
from deforum_helpers.video.frames import read_png, write_png
from tiny_models import TinyRenderer, tiny_model, tiny_parts

FLF2V, VACE = "wan2.1-flf2v-14B", "wan2.1-vace-1.3B"
WAYS = {
    "flf2v": (FLF2V, True, {}),
    "vace": (VACE, True, {"context_frames": 5}),
    "vace, from text": (VACE, False, {"context_frames": 5, "prompts": {"0": "a red ball", "9": "a boat"}}),
}


class Rendered:
    """One way to loop, rendered undisturbed.  ends: last frames that were given; given: what each window was told."""

    def __init__(self, folder: Path, name: str, settings: RenderSettings) -> None:
        self.parts, self.model, self.settings = tiny_parts(name), tiny_model(name), settings
        worker, self.ends, self.given = TinyRenderer(self.parts), [], []
        given = worker.pipeline.given

        def watched(request):
            if request.end_image:
                self.ends.append((request.id, read_png(request.end_image)))
            self.given.append(given(request))
            return self.given[-1]

        worker.pipeline.given = watched
        self.pictures = self.render(folder, worker)
        self.requests = worker.requests

    def render(self, folder: Path, worker: TinyRenderer, **options) -> list[bytes]:
        result = render_wan(self.settings, folder, worker=worker, model=self.model, **options)
        return [read_png(path).tobytes() for path in JobFiles(result.folder, result.timestring).pictures()]


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small only wait for each other
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("loop")
        patch.setenv("DEFORUM_WAN_CACHE", str(folder / "cache"))
        patch.setenv("DEFORUM_WAN_STATE", str(folder / "state"))
        name, picture, values = WAYS[request.param]
        if picture:
            write_png(folder / "a.png", np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8))
            values = {**values, "init_image": str(folder / "a.png")}
        settings = RenderSettings(**{
            "prompts": {"0": "a red ball"}, "width": 32, "height": 32, "fps": 16, "seed": 4, "loop": True,
            "max_frames": 24, "window_frames": 17, "num_inference_steps": "2", "batch_name": "batch",
            "skip_video_creation": True, **values,
        })  # fmt: skip
        yield Rendered(folder, name, settings)
    torch.set_num_threads(threads)


def test_the_last_window_ends_in_the_first_frame_and_shows_it_once(way):
    assert len(way.pictures) == len(set(way.pictures)) == way.settings.max_frames
    assert [name for name, _ in way.ends] == [way.requests[-1].id], "the last clip alone"
    picture = way.settings.init_image
    wanted = read_png(picture).tobytes() if picture else way.pictures[0]
    assert way.ends[0][1].tobytes() == wanted


def test_what_the_last_window_is_told_of_its_last_frame(way):
    """By the model's own conditioning: the last latent is known, and holds the picture."""
    first, last, z = way.given[0], way.given[-1], way.parts.vae.config.z_dim
    if last.vace is not None:
        assert last.vace[0, 2 * z :, -2].amax() == 1, "the frames before are made anew"
        assert not torch.allclose(last.vace[0, :z, -1], first.vace[0, :z, -1], atol=0.05), "mid grey elsewhere"
    else:
        mask = last.channels[0, :4, :, 0, 0]
        assert mask[:, -1].tolist() == [0, 0, 0, 1] and mask[:, 1:-1].sum() == 0
        assert len(last.image_tokens) == 2


@pytest.mark.parametrize("phase", ["sampling", "decoding"])
def test_a_loop_broken_off_in_its_last_clip_ends_as_if_it_never_was(way, tmp_path, phase):
    def die(request, now):
        if request.end_image and now == phase:
            raise WorkerDied("killed")

    with pytest.raises(WorkerDied):
        way.render(tmp_path, TinyRenderer(way.parts, die), timestring="1")
    again = TinyRenderer(way.parts)
    assert way.render(tmp_path, again, timestring="1", resume=True) == way.pictures
    assert len(again.requests) == 1 and Path(again.requests[0].end_image).exists()
