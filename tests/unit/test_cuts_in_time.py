"""Retiming and cuts: between two native frames there may be others, but never between two shots."""

import pytest
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.video.frames import read_png
from fake_worker import FakeRenderer
from test_render_wan import MODEL, SETTINGS, _own_state_folder, with_changes  # noqa: F401 - a fixture

CUT = 21  # no multiple of what 16 native frames are at any of the rates below
SEEDS = f"0: (10), {CUT - 1}: (10), {CUT}: (200)"


def greens(tmp_path, **changes) -> list[int]:
    """The green of each output frame, which the fake worker makes of the clip's seed alone."""
    settings = with_changes(
        prompts={"0": "a red ball", str(CUT): "a boat"}, max_frames=40, seed_behavior="schedule",
        seed_schedule=SEEDS, skip_video_creation=True,
        **{"continuity": "cut", **changes},
    )  # fmt: skip
    result = render_wan(settings, tmp_path, worker=FakeRenderer(), model=MODEL)
    pictures = [read_png(path) for path in JobFiles(result.folder, result.timestring).pictures()]
    assert all((picture[..., 1] == picture[0, 0, 1]).all() for picture in pictures)
    return [int(picture[0, 0, 1]) for picture in pictures]


@pytest.mark.parametrize("fps", [60, 25, 23.976, 7])
@pytest.mark.parametrize("way", [{}, {"continuity": "auto", "strength": f"0: (1), {CUT}: (0), {CUT + 1}: (1)"}])
def test_frames_beside_a_cut_are_of_one_side_alone(tmp_path, fps, way):
    seen = greens(tmp_path, fps=fps, **way)
    assert seen == [10] * CUT + [200] * (40 - CUT)


def test_where_there_is_no_cut_frames_lie_between_the_clips(tmp_path):
    """What the test above would see, did retiming go on over a cut."""
    seen = greens(tmp_path, fps=60, continuity="auto")
    assert any(10 < green < 200 for green in seen)
