"""Subtitle times are exact and the text can't break the format."""

from fractions import Fraction
from itertools import pairwise

from deforum_helpers.video.subtitles import Segment, format_srt, write_srt


def test_the_whole_file():
    text = format_srt([Segment(0, 60, "a red ball"), Segment(60, 90, "a boat", "ugly")], 60)
    assert text == (
        "1\n00:00:00,000 --> 00:00:01,000\na red ball\n\n"
        "2\n00:00:01,000 --> 00:00:01,500\na boat\n"
    )  # fmt: skip


def test_negative_prompts_only_when_asked_for():
    segment = Segment(0, 16, "a boat", "ugly,\n blurry")
    assert "ugly" not in format_srt([segment], 16)
    assert format_srt([segment], 16, negative=True).endswith("a boat\nnot: ugly, blurry\n")


def test_times_at_a_rate_that_is_no_whole_number_do_not_drift():
    rate = Fraction(24000, 1001)
    text = format_srt([Segment(0, 24, "x"), Segment(24, 24 * 3600, "y")], rate)
    assert "00:00:00,000 --> 00:00:01,001" in text  # 24 frames last 1.001 s
    assert "00:00:01,001 --> 01:00:03,600" in text  # an hour of them 3.6 s more
    assert "00:00:00,063" in format_srt([Segment(0, 1, "x")], 16)  # 62.5 ms, half up


def test_neighbours_share_their_time():
    spans = [Segment(k, k + 1, "x") for k in range(50)]
    stamps = [line.split(" --> ") for line in format_srt(spans, 23.976).splitlines() if "-->" in line]
    assert all(before[1] == after[0] for before, after in pairwise(stamps))


def test_text_can_not_end_an_entry_or_pose_as_a_time():
    text = format_srt([Segment(0, 16, "one\n\n2\n00:00:09,000 --> 00:00:10,000\r\nhack\t ")], 16)
    assert text == "1\n00:00:00,000 --> 00:00:01,000\none 2 00:00:09,000 → 00:00:10,000 hack\n"


def test_segments_without_frames_or_text_are_left_out_and_numbers_run_on():
    text = format_srt([Segment(0, 0, "a"), Segment(0, 5, " \n"), Segment(5, 9, "b")], 16)
    assert text.startswith("1\n00:00:00,313") and text.count("-->") == 1
    assert format_srt([], 16) == ""


def test_a_video_of_more_than_a_day():
    assert "100:00:00,000 --> 100:00:01,000" in format_srt([Segment(360000, 360001, "x")], 1)


def test_written_as_utf8_without_windows_line_ends(tmp_path):
    write_srt([Segment(0, 16, "ein Schiff – 船")], 16, tmp_path / "x.srt")
    assert (tmp_path / "x.srt").read_bytes() == "1\n00:00:00,000 --> 00:00:01,000\nein Schiff – 船\n".encode()
