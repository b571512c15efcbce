"""Which function runs which fixture."""

from __future__ import annotations

from collections.abc import Callable

import golden_e2e
import golden_model
import golden_text
from golden_format import Difference, Fixture

CASES = {**golden_model.CASES, **golden_text.CASES, **golden_e2e.CASES}

_KINDS = {  # a fixture with a name of its own is run by what it says it is
    "WanModel": golden_model.run_dit,
    "VaceWanModel": golden_model.run_dit,
    "WanVAE_ (2.1)": golden_model.run_vae,
    "WanVAE_ (2.2)": golden_model.run_vae,
    "T5Encoder": golden_text.run_umt5,
    "VisionTransformer (use_31_block)": golden_e2e.run_image_encoder,
    "Wan2.1 t2v": golden_e2e.run_t2v,
    "Wan2.1 i2v": golden_e2e.run_images,
    "Wan2.1 flf2v": golden_e2e.run_images,
    "Wan2.1 vace": golden_e2e.run_vace,
    "Wan2.2 t2v A14B": golden_e2e.run_experts,
    "Wan2.2 i2v A14B": golden_e2e.run_experts,
    "Wan2.2 ti2v 5B": golden_e2e.run_ti2v,
}


def runner(fixture: Fixture) -> Callable[[Fixture], list[Difference]]:
    """The function for a fixture, by its case or else by its model class or pipeline.  Raises KeyError."""
    if fixture.case in CASES:
        return CASES[fixture.case]
    if "in.x_0" in fixture.tensors:
        return golden_model.run_dit_varlen
    return _KINDS[fixture.config.get("model_class") or fixture.config["pipeline"]]
