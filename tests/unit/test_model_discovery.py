"""Where models are looked for, what a typed name means, and what check-model says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from deforum_helpers.checkpoints import (
    check_report,
    expected_sha256,
    find_models,
    inspect_model,
    model_folders,
    resolve_model,
)
from deforum_helpers.errors import ModelError
from deforum_helpers.variants import DEMO
from sparse_models import comfyui, official_t2v, write_sparse

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture
def t2v(tmp_path: Path) -> Path:
    return official_t2v(tmp_path / "Wan2.1-T2V-1.3B")


def test_find_models_is_quick_the_second_time(tmp_path: Path) -> None:
    comfyui(tmp_path / "ComfyUI")
    official_t2v(tmp_path / "wan" / "A")
    for n in range(300):
        write_sparse(tmp_path / "loras" / f"{n}.safetensors", {f"x.{k}.lora_A.weight": (4, 4) for k in range(40)})
    folders = [tmp_path / "wan", tmp_path / "ComfyUI", tmp_path / "loras", tmp_path / "missing"]
    first = find_models(folders)
    started = time.process_time()
    assert find_models(folders) == first
    assert time.process_time() - started < 1
    assert {model.variant for model in first if model.complete} == {
        "wan2.1-t2v-1.3B", "wan2.2-t2v-A14B", "wan2.1-i2v-14B-720P", "wan2.2-ti2v-5B",
    }  # fmt: skip


def test_a_part_may_come_from_another_folder(tmp_path: Path) -> None:
    folder = official_t2v(tmp_path / "one" / "m")
    (tmp_path / "two").mkdir()
    (folder / "Wan2.1_VAE.safetensors").rename(tmp_path / "two" / "vae.safetensors")
    (model,) = find_models([tmp_path / "one", tmp_path / "two"])
    assert model.complete
    assert model.reference.startswith("{")
    assert inspect_model(model.reference).parts == model.parts


def test_a_model_is_not_blamed_for_its_neighbours(tmp_path: Path) -> None:
    folder = official_t2v(tmp_path / "mine")
    (folder / "Wan2.1_VAE.safetensors").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pytorch_model.bin").write_bytes(b"<html>")
    (model,) = find_models([tmp_path])
    assert model.problems == ()
    assert [gap.part for gap in model.missing] == ["vae"]


def test_a_hugging_face_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hf" / "hub"
    repository = hub / "models--Wan-AI--Wan2.1-T2V-1.3B"
    snapshot = official_t2v(repository / "snapshots" / "0123abc")
    (repository / "blobs").mkdir()
    blob = repository / "blobs" / ("0" * 64)
    (snapshot / "Wan2.1_VAE.safetensors").rename(blob)
    (snapshot / "Wan2.1_VAE.safetensors").symlink_to(blob)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    folders = model_folders(tmp_path / "extension")
    assert hub in folders
    (model,) = find_models([hub])
    assert model.complete, model
    assert (model.name, model.path) == ("Wan-AI/Wan2.1-T2V-1.3B", str(snapshot))
    assert expected_sha256(snapshot / "Wan2.1_VAE.safetensors") == "0" * 64
    assert resolve_model("wan-ai/wan2.1-t2v-1.3b", [hub]) == model


def test_model_folders_lists_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    root = tmp_path / "webui" / "extensions" / "deforum-wan"
    for folder in (root / "models", tmp_path / "webui" / "models" / "wan", tmp_path / "ComfyUI" / "models"):
        folder.mkdir(parents=True)
    extra = tmp_path / "webui" / "models" / "wan"
    assert model_folders(root, [extra, tmp_path / "nowhere"]) == [
        extra,
        root / "models",
        tmp_path / "ComfyUI" / "models",
    ]


def test_resolve_by_path_name_variant_or_nothing(tmp_path: Path) -> None:
    folder = official_t2v(tmp_path / "models" / "mine")
    folders = [tmp_path / "models", BUNDLED.parent]
    for text in (str(folder), "mine", "MINE", "wan2.1-t2v-1.3B", "", "  "):
        assert resolve_model(text, folders).path == str(folder), text
    assert resolve_model("demo", folders).variant == DEMO
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert resolve_model("", folders).variant == DEMO
    with pytest.raises(ModelError, match=r"no such model; got 'wan9'; allowed: .*demo"):
        resolve_model("wan9", folders)
    with pytest.raises(ModelError, match=r"no whole model is there.*hf download"):
        resolve_model("", [tmp_path])


# The report


def test_report_of_a_whole_model(t2v: Path) -> None:
    text, data = check_report(inspect_model(t2v))
    assert text.splitlines()[0] == "Wan 2.1 T2V-1.3B: complete, 17.55 GB"
    assert "diffusion_pytorch_model.safetensors" in text and "official safetensors, F32" in text
    assert json.loads(json.dumps(data))["parts"]["vae"]["dtype"] == "F32"
    assert data["complete"] and data["variant"] == "wan2.1-t2v-1.3B"


def test_report_of_a_broken_one(t2v: Path) -> None:
    (t2v / "Wan2.1_VAE.safetensors").write_bytes(b"<html>")
    text, data = check_report(inspect_model(t2v))
    assert "NOT complete" in text and "PROBLEM: " in text and "MISSING: " in text and "hf download" in text
    assert not data["complete"]
    assert data["missing"][0]["part"] == "vae"


def test_report_with_hashes(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    for file in BUNDLED.rglob("*"):
        if file.is_file():
            (folder / file.relative_to(BUNDLED)).parent.mkdir(exist_ok=True)
            (folder / file.relative_to(BUNDLED)).write_bytes(file.read_bytes())
    seen: dict[str, tuple[int, int]] = {}

    def on_bytes(file: str, done: int, *, size: int) -> None:
        seen[file] = done, size

    _, data = check_report(inspect_model(folder), hashes=True, on_bytes=on_bytes)
    assert data["complete"] and len(seen) == 3
    assert all(done == size == Path(file).stat().st_size for file, (done, size) in seen.items())
    right = {Path(entry["file"]).name: entry["sha256"] for entry in data["hashes"]}
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(f"{value}  {name}\n" for name, value in right.items()))
    assert check_report(inspect_model(folder), hashes=True)[1]["complete"]
    sums.write_text("".join(f"{'0' * 64} *{name}\n" for name in right))
    text, data = check_report(inspect_model(folder), hashes=True)
    assert not data["complete"]
    assert "differs from the published" in text
