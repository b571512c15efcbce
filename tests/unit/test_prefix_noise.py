"""Of the noise over the former clip: which requests tell it, and that it decides what they make."""

from pathlib import Path

import pytest
from deforum_helpers.checkpoints import inspect_model
from deforum_helpers.clips import Job, clip_requests
from deforum_helpers.job_files import JobFiles
from deforum_helpers.settings import RenderSettings
from deforum_helpers.timeline import plan
from deforum_helpers.variants import DEMO, VARIANTS

MODEL = inspect_model(Path(__file__).resolve().parents[2] / "models" / "demo")
PLAIN, VACE = "wan2.1-t2v-1.3B", "wan2.1-vace-1.3B"


def requests(folder: Path, variant: str, **values):
    settings = RenderSettings(prompts={"0": "a"}, width=64, height=48, max_frames=200, **values)
    job = Job(settings, plan(settings, VARIANTS[variant], 1), MODEL, "weights", JobFiles(folder, "x"))
    return clip_requests(job)


@pytest.mark.parametrize(
    ("variant", "continuity", "told"),
    [
        (PLAIN, "latents", [None, 0.25, 0.25]), (PLAIN, "frames", [None, 0.25, 0.25]), (PLAIN, "joint", [0.25]),
        (PLAIN, "cut", [None] * 3), (VACE, "frames", [None] * 3), (DEMO, "latents", [None] * 17),
    ],
)  # fmt: skip
def test_models_of_one_timestep_are_told_where_something_is_given(tmp_path, variant, continuity, told):
    made = requests(tmp_path, variant, continuity=continuity, prefix_noise=0.25)
    assert [request.prefix_noise for request in made] == told


def test_it_decides_the_clips_that_go_on_and_those_after_them(tmp_path):
    one, other = (requests(tmp_path, PLAIN, prefix_noise=noise) for noise in (0.6, 0.3))
    same = [a.fingerprint() == b.fingerprint() for a, b in zip(one, other, strict=True)]
    assert same == [True, False, False]
    demo, again = (requests(tmp_path, DEMO, prefix_noise=noise) for noise in (0.6, 0.3))
    assert [a.fingerprint() for a in demo] == [b.fingerprint() for b in again]
