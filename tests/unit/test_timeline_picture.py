"""The timeline picture: well-formed, true to the plan, and safe against what prompts may hold."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from deforum_helpers.planning.picture import timeline_svg
from deforum_helpers.settings import settings_from_dict
from deforum_helpers.timeline import plan
from deforum_helpers.variants import DEMO, VARIANTS

SVG = "{http://www.w3.org/2000/svg}"


def picture(**raw) -> tuple[ElementTree.Element, object]:
    settings, _ = settings_from_dict(
        {"W": 128, "H": 80, "max_frames": 60, "fps": 16, "prompts": {"0": "a", "30": "b"}, **raw}
    )
    decided = plan(settings, VARIANTS[DEMO], 1)
    return ElementTree.fromstring(timeline_svg(decided, playhead=20)), decided


def test_one_box_a_clip_at_its_own_place() -> None:
    root, decided = picture()
    boxes = [g for g in root.iter(f"{SVG}g") if "dw-clip" in g.get("class", "")]
    assert len(boxes) == len(decided.clips)
    for box, clip in zip(boxes, decided.clips, strict=True):
        x = float(box.find(f"{SVG}rect").get("x"))
        assert x == pytest.approx(92 + (1000 - 92 - 12) * clip.start_frame / 60, abs=0.1)
        assert f"frames {clip.start_frame} to {clip.end_frame - 1}" in box.find(f"{SVG}title").text


def test_what_varies_is_drawn_and_nothing_else() -> None:
    root, _ = picture(cfg_scale_schedule="0: (2), 59: (8)")
    titles = [t.text for t in root.iter(f"{SVG}title")]
    assert "guidance_scale: 2 to 8" in titles
    assert not [t for t in titles if t.startswith("shift")]


def test_a_cut_is_marked() -> None:
    root, _ = picture(strength_schedule="0: (1), 29: (1), 30: (0), 31: (1)")
    assert "cut at frame 30 (1.88 s)" in [t.text for t in root.iter(f"{SVG}title")]


def test_prompts_can_not_break_out() -> None:
    root, _ = picture(prompts={"0": '</text><script>alert("x")</script> & <b>'})
    assert not list(root.iter(f"{SVG}script"))
    assert '</text><script>alert("x")</script> & <b>' in next(root.iter(f"{SVG}title")).text


def test_a_very_long_plan_stays_small() -> None:
    settings, _ = settings_from_dict(
        {
            "W": 128,
            "H": 80,
            "max_frames": 20_000,
            "fps": 16,
            "prompts": {"0": "a"},
            "cfg_scale_schedule": "0:(2+sin(t))",
        }
    )
    svg = timeline_svg(plan(settings, VARIANTS[DEMO], 1))
    assert len(svg) < 200_000
    assert len(re.findall("dw-clip", svg)) == 1
