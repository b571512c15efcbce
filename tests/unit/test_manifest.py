"""What a job has done: written whole, read back, and never trusted beyond the files."""

import json

import numpy as np
import pytest
from deforum_helpers.errors import InputError
from deforum_helpers.hashing import sha256_of
from deforum_helpers.job_files import JobFiles, claim_job, earlier_jobs, job_files
from deforum_helpers.manifest import ClipRecord, Manifest, clip_is_whole, load_manifest, pictures_are_whole
from deforum_helpers.video.frames import write_png


@pytest.fixture
def files(tmp_path):
    return claim_job(tmp_path, "batch", "1")


def test_a_manifest_reads_back_equal(files):
    manifest = Manifest(files.manifest, {"seed": 5, "settings": {"W": 16}}, [ClipRecord(), ClipRecord()])
    manifest.set_clip(1, state="rendered", fingerprint="f", seconds={"sample": 1.5})
    manifest.save(state="cancelled", frames=3)
    again = load_manifest(files.manifest)
    assert (again.state, again.seed, again.facts) == ("cancelled", 5, manifest.facts)
    assert again.clips == manifest.clips
    assert not list(files.work.glob("*.part"))


FOREIGN = ("", "[]", "{", '{"version": 1}', '{"version": 1, "state": "done", "clips": [{"x": 1}], "seed": 1}')


@pytest.mark.parametrize("text", FOREIGN)
def test_what_is_no_manifest_is_refused_in_one_line(files, text):
    files.manifest.write_text(text)
    with pytest.raises(InputError, match="record can't be read") as caught:
        load_manifest(files.manifest)
    assert "\n" not in str(caught.value)


def test_another_versions_manifest_is_refused(files):
    files.manifest.write_text(json.dumps({"version": 99, "state": "done", "clips": [], "seed": 1}))
    with pytest.raises(InputError, match="another version; got 99"):
        load_manifest(files.manifest)


def test_a_clip_is_whole_only_if_its_files_hash_to_its_request(files):
    files.latents(0).write_bytes(b"latents")
    files.frames(0).write_bytes(b"frames")
    record = ClipRecord("rendered", "f", sha256_of(files.latents(0)), sha256_of(files.frames(0)))
    assert clip_is_whole(record, "f", files, 0)
    assert not clip_is_whole(record, "g", files, 0)
    assert not clip_is_whole(ClipRecord("started", "f", record.latents_sha256, record.frames_sha256), "f", files, 0)
    files.frames(0).write_bytes(b"framez")
    assert not clip_is_whole(record, "f", files, 0)
    files.frames(0).unlink()
    assert not clip_is_whole(record, "f", files, 0)


def test_pictures_are_whole_to_their_last_byte(files):
    for frame in range(3):
        write_png(files.picture(frame), np.zeros((4, 4, 3), np.uint8), {"parameters": "山"})
    assert pictures_are_whole(files, range(3))
    assert not pictures_are_whole(files, range(4))
    files.picture(1).write_bytes(files.picture(1).read_bytes()[:-3])
    assert not pictures_are_whole(files, range(3))
    files.picture(1).write_bytes(b"")
    assert not pictures_are_whole(files, range(3))


def test_names_of_a_job_stay_in_its_folder(tmp_path):
    for name in ("../x", "/etc", "a/../../x", "nul", "..", "C:x"):
        with pytest.raises(InputError):
            job_files(tmp_path, name, "1")
    assert job_files(tmp_path, "Deforum_{timestring}", "20250101").folder == tmp_path.resolve() / "Deforum_20250101"


def test_two_jobs_of_one_second_get_names_of_their_own(tmp_path):
    names = [claim_job(tmp_path, "batch", "1").timestring for _ in range(3)]
    assert names == ["1", "1-2", "1-3"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.mp4").touch()
    assert claim_job(tmp_path, "other", "1").timestring == "1-2"


def test_earlier_jobs_are_found_by_the_name_of_the_batch(tmp_path):
    for batch, timestring in (("a_{timestring}", "1"), ("a_{timestring}", "2"), ("b", "3"), ("c[1]*", "4")):
        batch = batch.replace("*", "x")
        Manifest(claim_job(tmp_path, batch, timestring).manifest, {"seed": 1}, []).save()
    assert [job.timestring for job in earlier_jobs(tmp_path, "a_{timestring}")] == ["2", "1"]
    assert [job.timestring for job in earlier_jobs(tmp_path, "c[1]x")] == ["4"]
    assert earlier_jobs(tmp_path, "nothing") == []


def test_pictures_of_a_job_whose_name_begins_another_ones(tmp_path):
    for timestring in ("1", "1-2"):
        files = JobFiles(tmp_path, timestring)
        write_png(files.picture(0), np.zeros((4, 4, 3), np.uint8))
    assert [path.name for path in JobFiles(tmp_path, "1").pictures()] == ["1_000000000.png"]
