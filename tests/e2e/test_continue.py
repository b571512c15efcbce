"""A job that goes on from a finished one gives, pixel for pixel, what the first would have given had it been longer."""

from dataclasses import replace

from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.retake import retake
from deforum_helpers.settings import load_settings
from deforum_helpers.video.frames import read_png


def pictures(result) -> list[bytes]:
    return [read_png(path).tobytes() for path in JobFiles(result.folder, result.timestring).pictures()]


def test_two_jobs_are_one_long_one(worker, settings_file, tmp_path):
    settings = replace(
        load_settings(settings_file())[0], max_frames=29, fps=16.0, num_inference_steps="3", seed=5,
        prompts={"0": "a red balloon over the sea", "17": "a yellow boat on the sea"},
    )  # fmt: skip
    whole = render_wan(settings, tmp_path, worker=worker)
    first = render_wan(replace(settings, max_frames=17), tmp_path, worker=worker)
    second = render_wan(
        replace(
            settings, max_frames=12, prompts={"0": "a yellow boat on the sea"}, seed=6,
            continue_from=str(first.settings),
        ),
        tmp_path, worker=worker,
    )  # fmt: skip
    assert pictures(first) + pictures(second) == pictures(whole)
    alone = render_wan(replace(settings, max_frames=12, seed=6, prompts={"0": "a yellow boat on the sea"}), tmp_path,
                       worker=worker)  # fmt: skip
    assert pictures(alone)[0] != pictures(second)[0]


def test_a_retake_samples_only_what_is_made_anew(worker, settings_file, tmp_path):
    settings = load_settings(settings_file())[0]
    first = render_wan(settings, tmp_path, worker=worker)
    changed, files = retake(settings, JobFiles(first.folder, first.timestring), 3, tmp_path)
    sampled = set()

    def note(progress):
        if progress.phase == "sampling" and progress.step:
            sampled.add(progress.clip)

    again = render_wan(changed, tmp_path, worker=worker, timestring=files.timestring, resume=True, on_progress=note)
    assert sampled == {3}
    same = [a == b for a, b in zip(pictures(first), pictures(again), strict=True)]
    assert all(same[:18]) and not any(same[21:])  # frames 18 to 20 are still drawn from what clip 2 made


def test_colours_are_kept_over_jobs(worker, settings_file, tmp_path):
    settings = replace(
        load_settings(settings_file())[0], max_frames=41, fps=16.0, num_inference_steps="3", seed=5, colour="keep",
        prompts={"0": "a red balloon over the sea"},
    )  # fmt: skip
    whole = render_wan(settings, tmp_path, worker=worker)
    first = render_wan(replace(settings, max_frames=17), tmp_path, worker=worker)
    second = render_wan(
        replace(settings, max_frames=24, seed=6, continue_from=str(first.settings)), tmp_path, worker=worker
    )
    assert pictures(first) + pictures(second) == pictures(whole)
    free = render_wan(replace(settings, colour="free"), tmp_path, worker=worker)
    assert pictures(free)[:17] == pictures(whole)[:17]
    assert pictures(free)[-1] != pictures(whole)[-1]
