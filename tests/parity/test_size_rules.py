"""The sizes that official image-to-video runs give a picture, as recorded."""

from __future__ import annotations

import json

import pytest
from golden_format import GOLDEN

pytest.importorskip("torch")

from deforum_helpers.wan.image_condition import size_for_area, size_for_area_5b

RULES = {"i2v": size_for_area, "ti2v_5B": size_for_area_5b}
CASES = json.loads((GOLDEN / "rules.json").read_text(encoding="utf-8"))["sizes"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['rule']}-{case['in_hw']}-{case['max_area']}")
def test_size(case: dict) -> None:
    assert list(RULES[case["rule"]](*case["in_hw"], case["max_area"])) == case["out_hw"]
