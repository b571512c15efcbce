"""LoRAs through the whole way: settings, plan, worker, frames."""

import numpy as np
import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.job_files import JobFiles
from deforum_helpers.render_wan import render_wan
from deforum_helpers.settings import load_settings
from deforum_helpers.video.frames import read_png

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file


@pytest.fixture
def lora(tmp_path):
    """A LoRA that turns the demo's third block's answers around, in a model folder of its own."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer in ("self_attn.o", "cross_attn.o"):
        state[f"diffusion_model.blocks.2.{layer}.lora_A.weight"] = torch.randn(8, 160, generator=generator) / 8
        state[f"diffusion_model.blocks.2.{layer}.lora_B.weight"] = torch.randn(160, 8, generator=generator) / 8
    path = tmp_path / "webui" / "models" / "lora" / "turn.safetensors"
    path.parent.mkdir(parents=True)
    save_file(state, path)
    return path


def frames_of(result):
    return np.stack([read_png(path) for path in JobFiles(result.folder, result.timestring).pictures()])


def test_it_acts_where_its_strength_says_and_leaves_no_trace(worker, settings_file, lora, tmp_path):
    def render(name, loras):
        settings, _ = load_settings(settings_file(f"{name}.txt", loras=loras, strength_schedule="0:(0)"))
        result = render_wan(settings, tmp_path / name, worker=worker, model_folders=[lora.parents[1]])
        return frames_of(result).astype(int)

    before = render("before", "")
    scheduled = render("scheduled", "turn = 0:(0), 8:(0), 9:(1)")
    after = render("after", "")
    assert np.array_equal(before, after)
    assert np.array_equal(scheduled[:9], before[:9]), "its strength is 0 in the first clip"
    assert all((scheduled[k] != before[k]).any() for k in range(9, 24))
    assert np.array_equal(render("weak", "turn = 0"), before)


def test_a_render_is_refused_before_it_begins(worker, settings_file, lora, tmp_path):
    settings, _ = load_settings(settings_file(loras="trun = 1"))
    with pytest.raises(SettingsError, match=r"no such LoRA.*turn"):
        render_wan(settings, tmp_path / "out", worker=worker, model_folders=[lora.parents[1]])
    assert not list((tmp_path / "out").rglob("*_work"))


def test_another_file_under_the_same_name_is_read_anew(worker, settings_file, lora, tmp_path):
    settings, _ = load_settings(settings_file(loras="turn = 1", max_frames=6))
    first = render_wan(settings, tmp_path / "out", worker=worker, model_folders=[lora.parents[1]], timestring="1")
    state = load_file(lora)
    save_file({name: -value if "lora_A" in name else value.clone() for name, value in state.items()}, lora)
    second = render_wan(settings, tmp_path / "new", worker=worker, model_folders=[lora.parents[1]], timestring="1")
    assert not np.array_equal(frames_of(first), frames_of(second))
