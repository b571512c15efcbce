"""Weights files with real headers and no data: a 14B model takes a few hundred kilobytes of disk."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

MANIFESTS = Path(__file__).resolve().parents[1] / "parity" / "manifests"
ITEM = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1}

Shapes = Mapping[str, tuple[int, ...]]


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """All tensors of one published checkpoint."""
    content = json.loads((MANIFESTS / f"{name}.json").read_text("utf-8"))
    result = {}
    for pattern, shape in content["tensors"].items():
        prefix = next((p for p in content.get("repeat", {}) if pattern.startswith(p + ".")), None)
        for i in range(content["repeat"][prefix] if prefix else 1):
            result[pattern.replace("{i}", str(i)) if prefix else pattern] = tuple(shape)
    assert len(result) == content["n_tensors"]
    return result


def write_sparse(path: Path, tensors: Shapes, dtype: str = "BF16", dtypes: Mapping[str, str] | None = None) -> Path:
    """A safetensors file of these tensors, all zero, sparse on disk."""
    header, at = {}, 0
    for name, shape in tensors.items():
        kind = (dtypes or {}).get(name, dtype)
        size = ITEM[kind] * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return write_raw(path, json.dumps(header).encode(), at)


def write_raw(path: Path, header: bytes, room: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + room)
    return path


def write_shards(
    folder: Path, base: str, tensors: Shapes, count: int, *, index: bool, dtype: str = "F32"
) -> list[Path]:
    items, files, where = list(tensors.items()), [], {}
    for i in range(count):
        name = f"{base}-{i + 1:05d}-of-{count:05d}.safetensors"
        shard = dict(items[i * len(items) // count : (i + 1) * len(items) // count])
        files.append(write_sparse(folder / name, shard, dtype))
        where |= dict.fromkeys(shard, name)
    if index:
        (folder / f"{base}.safetensors.index.json").write_text(json.dumps({"weight_map": where}), "utf-8")
    return files


def write_tokenizer(
    folder: Path, size: int = 16_000_000, special: tuple[str, ...] = ("<pad>", "</s>", "<unk>")
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [{"id": at, "content": text} for at, text in enumerate(special)]
    with (folder / "tokenizer.json").open("wb") as file:
        file.write(json.dumps({"added_tokens": tokens}).encode())
        file.truncate(size)
    return folder


def official_t2v(folder: Path, size: str = "1.3B", shards: int = 1, index: bool = True) -> Path:
    """A text-to-video folder as downloaded, but with safetensors in place of .pth."""
    dit = manifest(f"wan2.1_t2v_{size}.official")
    if shards > 1:
        write_shards(folder, "diffusion_pytorch_model", dit, shards, index=index)
    else:
        write_sparse(folder / "diffusion_pytorch_model.safetensors", dit, "F32")
    write_sparse(folder / "Wan2.1_VAE.safetensors", manifest("wan2.1_vae.official"), "F32")
    write_sparse(folder / "models_t5_umt5-xxl-enc-bf16.safetensors", manifest("umt5_xxl_enc.official"))
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def comfyui(folder: Path) -> Path:
    """A models folder with three models in it, as ComfyUI keeps them."""
    experts = manifest("wan2.2_t2v_A14B.official")
    for level in ("high", "low"):
        write_sparse(folder / f"diffusion_models/wan2.2_t2v_{level}_noise_14B_fp8.safetensors", experts, "F8_E4M3")
    i2v = {f"model.diffusion_model.{n}": s for n, s in manifest("wan2.1_i2v_14B.official").items()}
    write_sparse(folder / "diffusion_models/Wan2_1-I2V-14B-720P_fp8.safetensors", i2v, "F8_E4M3")
    write_sparse(folder / "diffusion_models/sub/5b.safetensors", manifest("wan2.2_ti2v_5B.official"), "F16")
    write_sparse(folder / "vae/one.safetensors", {f"model.{n}": s for n, s in manifest("wan2.1_vae.official").items()})
    write_sparse(folder / "vae/two.safetensors", manifest("wan2.2_vae.official"), "F16")
    encoder = {**manifest("umt5_xxl_enc.transformers"), "scaled_fp8": (0,), "spiece_model": (4_500_000,)}
    write_sparse(folder / "text_encoders/umt5.safetensors", encoder, "F8_E4M3", {"spiece_model": "U8"})
    write_sparse(folder / "clip_vision/h.safetensors", manifest("clip_vit_h_14.transformers"), "F16")
    write_sparse(folder / "loras/x.safetensors", {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (8, 1536)})
    return folder
