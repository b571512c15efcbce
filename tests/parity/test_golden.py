"""Every fixture of the official code that is kept here, through the same functions as run_golden.py."""

from __future__ import annotations

import pytest
from golden_format import GOLDEN, load_fixture
from golden_registry import CASES


@pytest.mark.parametrize("case", CASES)
def test_equals_the_official_code(case: str) -> None:
    import torch

    with torch.inference_mode():
        differences = CASES[case](load_fixture(GOLDEN / f"{case}.safetensors"))
    assert differences
    failed = [d for d in differences if not d.passed]
    assert not failed, failed
