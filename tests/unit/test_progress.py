"""How far a render is, and how long the rest takes."""

import pytest
from deforum_helpers.progress import (
    ClipWork,
    Meter,
    UnitTimes,
    estimate_seconds,
    load_times,
    save_times,
    times_key,
    words_for_seconds,
)
from deforum_helpers.protocol import ClipDone, Decoding, Loading, Step

WORK = [ClipWork(steps=4, latents=5, new=5), ClipWork(steps=4, latents=5, new=3)]


def test_the_fraction_rises_with_the_work_done_and_the_estimate_falls():
    seen = []
    meter = Meter(WORK, seen.append)
    meter.begin(0)
    assert seen[-1].eta_seconds is None
    meter.on_event(Loading("1", "dit"))
    assert (seen[-1].phase, seen[-1].note) == ("loading", "dit")
    for step in (1, 2, 3, 4):
        meter.on_event(Step("1", step, 4, 0.5, seconds=10.0, preview="a.jpg" if step == 2 else ""))
    assert seen[-1].preview == "a.jpg"
    # Left: a step takes 2 s a latent and a decode is taken for two steps: 5 x 4 + (4 x 5 x 2 + 3 x 4)
    assert seen[-1].eta_seconds == pytest.approx(72)
    meter.on_event(Decoding("1", 5, 5))
    meter.on_event(ClipDone("1", 17, "", "", {"decode": 5.0}))
    meter.begin(1)
    assert seen[-1].preview == ""
    meter.on_event(Step("2", 4, 4, 0.0, seconds=10.0))
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    meter.say("done")
    assert seen[-1].fraction == 1


def test_clips_done_before_count_as_done():
    seen = []
    meter = Meter(WORK, seen.append)
    meter.skip(0)
    meter.begin(1)
    assert seen[-1].fraction > 0.5


def test_measured_times_are_kept_for_the_next_estimate(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "state"))
    key = times_key("demo", 128, 80, "cpu")
    assert load_times(key) is None
    save_times(key, UnitTimes(0.5, 1.0))
    save_times("another", UnitTimes(9.0, 9.0))
    assert estimate_seconds(WORK, load_times(key)) == 40 * 0.5 + 8 * 1.0
    assert estimate_seconds(WORK, None) is None
    (tmp_path / "state" / "times.json").write_text("broken")
    assert load_times(key) is None
    save_times(key, UnitTimes(0.5, 1.0))
    assert load_times(key) == UnitTimes(0.5, 1.0)


def test_a_state_folder_that_cannot_be_made_ends_no_render(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEFORUM_WAN_STATE", str(tmp_path / "file" / "state"))
    save_times("key", UnitTimes(1.0, 1.0))
    assert load_times("key") is None


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (250, "4 min 10 s"), (11100, "3 h 05 min")])
def test_times_in_words(seconds, words):
    assert words_for_seconds(seconds) == words
