"""Weights that can't be used, met by the command line, by a render and by the tab.

One line that names the file, the tensor where it is one, and a next step; the contract's exit status; and before a
worker is started.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deforum_helpers import cli, cli_render
from deforum_helpers.web import host
from service_kit import SETTINGS, services
from sparse_models import manifest, official_t2v, write_sparse

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "demo"
BACKBONE, VAE, ENCODER = (
    "diffusion_pytorch_model.safetensors", "Wan2.1_VAE.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors",
)  # fmt: skip


def cut_short(folder: Path) -> None:
    os.truncate(folder / BACKBONE, (folder / BACKBONE).stat().st_size - 5)


def wrong_size(folder: Path) -> None:
    shapes = manifest("wan2.1_t2v_1.3B.official")
    write_sparse(folder / BACKBONE, {**shapes, "blocks.1.ffn.0.weight": (8960, 1530)})


def t5(folder: Path) -> None:
    umt5 = manifest("umt5_xxl_enc.transformers")
    write_sparse(folder / ENCODER, {n: s for n, s in umt5.items() if "relative" not in n or "block.0." in n})


def clip_l(folder: Path) -> None:
    write_sparse(folder / ENCODER, {"text_model.embeddings.token_embedding.weight": (49408, 768)})


def narrow_umt5(folder: Path) -> None:
    umt5 = manifest("umt5_xxl_enc.transformers")
    write_sparse(folder / ENCODER, {n: tuple(64 if k == 4096 else k for k in s) for n, s in umt5.items()})


def vae_22(folder: Path) -> None:
    write_sparse(folder / VAE, manifest("wan2.2_vae.official"))


def page(folder: Path) -> None:
    (folder / BACKBONE).write_text("<!DOCTYPE html><title>Sign in</title>")


def loop(folder: Path) -> None:
    (folder / BACKBONE).unlink()
    (folder / BACKBONE).symlink_to(folder / BACKBONE)


def folder_is_a_loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


def nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated": (cut_short, (BACKBONE, "is truncated: tensor '", "; download it again")),
    "wrong size": (wrong_size, (BACKBONE, "blocks.1.ffn.0.weight is [8960, 1530], must be [8960, 1536]", "; download")),
    "T5": (t5, (ENCODER, "is a T5 text encoder, Wan needs UMT5", "with: hf download Wan-AI/Wan2.1-T2V-1.3B models_t5")),
    "CLIP-L": (clip_l, (ENCODER, "is a CLIP text encoder", "with: hf download Wan-AI/Wan2.1-T2V-1.3B models_t5")),
    "narrow UMT5": (narrow_umt5, (ENCODER, "of width 64", "with: hf download Wan-AI/Wan2.1-T2V-1.3B models_t5")),
    "VAE 2.2": (vae_22, (VAE, "48 latent channels", "with: hf download Wan-AI/Wan2.1-T2V-1.3B Wan2.1_VAE.pth")),
    "a page": (page, (BACKBONE, "is a web page, not weights", "log in, then download it again")),
    "a link to itself": (loop, (BACKBONE, "symbolic links", "; ")),
    "a folder that is a loop": (folder_is_a_loop, ("can't be read (Too many levels", "; mend the link")),
    "an empty folder": (nothing, ("no Wan model is there", "with: hf download")),
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return official_t2v(tmp_path / "Wan2.1-T2V-1.3B")


@pytest.fixture
def render_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """render_line(model) -> (exit status, stderr) of a render; a worker that is started fails the test."""

    def started() -> None:
        raise AssertionError("the worker is started")

    monkeypatch.setattr(cli_render, "shared_worker", started)
    settings = tmp_path / "settings.txt"
    settings.write_text(json.dumps({**SETTINGS, "model": "", "W": 832, "H": 480}), encoding="utf-8")

    def run(folder: Path) -> tuple[int, str]:
        words = ["render", settings, "--model", folder, "--out", tmp_path / "out", "--quiet"]
        return cli.main([str(word) for word in words]), capsys.readouterr().err

    return run


def assert_one_line(text: str, says: tuple[str, ...]) -> None:
    assert text.startswith("error: ") and text.count("\n") == 1, text
    for words in says:
        assert words in text, text


@pytest.mark.parametrize("case", CASES)
def test_the_command_line(case: str, model: Path, render_line, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, says = CASES[case]
    spoil(model)
    assert cli.main(["check-model", str(model)]) == 3
    assert_one_line(capsys.readouterr().err, says)
    status, text = render_line(model)
    assert status == 3
    assert_one_line(text, says)


@pytest.mark.parametrize("case", CASES)
def test_the_tab(case: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan has the same line at the field; its list of models is there whatever lies in the folders."""
    spoil, says = CASES[case]
    spoil(model)
    monkeypatch.setattr(host, "model_folders", lambda: [tmp_path])
    with services(tmp_path, monkeypatch) as make:
        service = make()
        (error,) = service.plan({**SETTINGS, "model": str(model)})["errors"]
        assert error["field"] == "model"
        for words in says:
            assert words in error["message"], error
        assert "demo" in [found["variant"] for found in service.models(refresh=True)["models"]]


def test_the_tab_is_told_what_each_part_is_loaded_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "model_folders", lambda: [tmp_path])
    with services(tmp_path, monkeypatch) as make:
        found = {facts["path"]: facts for facts in make().models(refresh=True)["models"]}[str(model)]
    told = {part["title"]: (part["description"], part["files"]) for part in found["parts"]}
    assert told["backbone"] == ("official safetensors, F32", [BACKBONE])
    assert told["text encoder"] == ("official safetensors, BF16", [ENCODER])
    assert all(part["size"] > 0 for part in found["parts"])


def test_a_picture_model_for_text_alone(model: Path, render_line, capsys: pytest.CaptureFixture[str]) -> None:
    write_sparse(model / BACKBONE, manifest("wan2.1_i2v_14B.official"))
    write_sparse(model / "clip.safetensors", manifest("clip_vit_h_14.transformers"))
    assert cli.main(["check-model", str(model)]) == 0
    assert "text to video" not in capsys.readouterr().out
    status, text = render_line(model)
    assert status == 2
    assert_one_line(text, ("init_image: Wan 2.1 I2V-14B 480P needs a picture", "choose a text-to-video model"))


def test_a_folder_that_may_not_be_read(
    model: Path, render_line, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused by the system call itself, because tests may run as root, who reads everything."""
    listing = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder) == model:
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr("deforum_helpers.model_files.folders.os.scandir", refusing)
    says = (f"{model}: can't be read (Permission denied)", "; ")
    assert cli.main(["check-model", str(model)]) == 3
    assert_one_line(capsys.readouterr().err, says)
    status, text = render_line(model)
    assert status == 3
    assert_one_line(text, says)
