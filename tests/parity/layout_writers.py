"""The demo checkpoint written in every layout that a model can come in.

Names are changed by the published mapping beside the manifests, not by the project's own tables, so that a
mistake in those shows.  Each writer returns the path to hand to `inspect_model`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers_twin import MAPPING, renamed
from safetensors.torch import load_file, save_file
from torch import Tensor

BUNDLED = Path(__file__).resolve().parents[2] / "models" / "demo"
FILES = {"dit": "diffusion_pytorch_model", "vae": "vae", "text_encoder": "text_encoder"}
MAPS = {"dit": "dit", "vae": "vae_2.1", "text_encoder": "umt5"}

State = dict[str, Tensor]
Demo = dict[str, State]


def read_demo() -> Demo:
    return {part: load_file(BUNDLED / f"{file}.safetensors") for part, file in FILES.items()}


def foreign(demo: Demo, part: str) -> State:
    """A part under diffusers' or transformers' names."""
    return renamed(demo[part], MAPPING[MAPS[part]])


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def save(path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def save_shards(path: Path, state: State, *, index: bool) -> None:
    """Three files in place of one."""
    names, where = sorted(state), {}
    for i in range(3):
        shard = {name: state[name] for name in names[i * len(names) // 3 : (i + 1) * len(names) // 3]}
        file = path.with_name(f"{path.stem}-{i + 1:05d}-of-00003.safetensors")
        save(file, shard)
        where |= dict.fromkeys(shard, file.name)
    if index:
        path.with_name(f"{path.name}.index.json").write_text(json.dumps({"weight_map": where}), "utf-8")


def tokenizer(folder: Path) -> None:
    shutil.copytree(BUNDLED / "tokenizer", folder)


def spiece_tensor() -> Tensor:
    """A sentencepiece model as bytes; its contents don't matter to who only loads weights."""
    return torch.frombuffer(bytearray(b"\x0a\x05<pad>\x0a\x04</s>" * 9), dtype=torch.uint8)


def official(folder: Path, demo: Demo) -> Path:
    for part, file in FILES.items():
        save(folder / f"{file}.safetensors", demo[part])
    tokenizer(folder / "google" / "umt5-xxl")
    return folder


def official_pth(folder: Path, demo: Demo) -> Path:
    official(folder, demo)
    for part, file in (("vae", "Wan2.1_VAE.pth"), ("text_encoder", "models_t5_umt5-xxl-enc-bf16.pth")):
        torch.save(demo[part], folder / file)
        (folder / f"{FILES[part]}.safetensors").unlink()
    return folder


def _sharded(folder: Path, demo: Demo, *, index: bool) -> Path:
    official(folder, demo)
    path = folder / "diffusion_pytorch_model.safetensors"
    path.unlink()
    save_shards(path, demo["dit"], index=index)
    return folder


def official_shards(folder: Path, demo: Demo) -> Path:
    return _sharded(folder, demo, index=True)


def shards_without_index(folder: Path, demo: Demo) -> Path:
    return _sharded(folder, demo, index=False)


def diffusers_folder(folder: Path, demo: Demo) -> Path:
    """With the unused tensors that some of these folders carry."""
    dit = {**foreign(demo, "dit"), "blocks.0.attn2.norm_added_q.weight": torch.ones(160)}
    save_shards(folder / "transformer" / "diffusion_pytorch_model.safetensors", dit, index=True)
    save(folder / "vae" / "diffusion_pytorch_model.safetensors", foreign(demo, "vae"))
    encoder = foreign(demo, "text_encoder")
    encoder["encoder.embed_tokens.weight"] = encoder["shared.weight"].clone()
    save(folder / "text_encoder" / "model.safetensors", encoder)
    tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    return folder


def hugging_face_cache(folder: Path, demo: Demo) -> Path:
    """snapshots/<hash>/ with links to blobs/."""
    repository = folder / "models--someone--demo"
    snapshot = diffusers_folder(repository / "snapshots" / "0123abcd", demo)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.rglob("*.safetensors"))):
        blob = repository / "blobs" / f"{number:064x}"
        file.rename(blob)
        file.symlink_to(blob)
    return snapshot


def _comfyui(folder: Path, demo: Demo, dit: State) -> Path:
    file = folder / "diffusion_models" / "demo.safetensors"
    save(file, dit)
    save(folder / "vae" / "vae.safetensors", prefixed(demo["vae"], "model."))
    save(folder / "text_encoders" / "umt5.safetensors", foreign(demo, "text_encoder"))
    tokenizer(folder / "text_encoders" / "tokenizer")
    return file


def comfyui_folders(folder: Path, demo: Demo) -> Path:
    return _comfyui(folder, demo, demo["dit"])


def prefixed_single_file(folder: Path, demo: Demo) -> Path:
    return _comfyui(folder, demo, prefixed(demo["dit"], "model.diffusion_model."))


def doubled_block_level(folder: Path, demo: Demo) -> Path:
    dit = {name.replace("blocks.2.", "blocks.2.block."): value for name, value in demo["dit"].items()}
    return _comfyui(folder, demo, prefixed(dit, "net."))


def combined_checkpoint(folder: Path, demo: Demo) -> Path:
    everything = {
        **prefixed(demo["dit"], "model.diffusion_model."),
        **prefixed(demo["vae"], "vae."),
        **prefixed(foreign(demo, "text_encoder"), "text_encoders.umt5.transformer."),
    }
    save(folder / "all.safetensors", everything)
    tokenizer(folder / "tokenizer")
    return folder


def _is_layer(name: str, value: Tensor) -> bool:
    return value.ndim == 2 and name.endswith(".weight") and "blocks." in name and value.numel() > 1024


def _quantise(demo: Demo, quantise: Callable[[str, Tensor], tuple[State, Tensor]]) -> State:
    """Store the block layers another way; demo["dit"] then holds what they are worth."""
    stored: State = {}
    for name, value in demo["dit"].items():
        if _is_layer(name, value):
            extra, demo["dit"][name] = quantise(name, value.float())
            stored |= extra
        else:
            stored[name] = value
    return stored


def fp8_plain(folder: Path, demo: Demo) -> Path:
    def quantise(name: str, value: Tensor) -> tuple[State, Tensor]:
        low = value.to(torch.float8_e4m3fn)
        return {name: low}, low.float()

    return _comfyui(folder, demo, _quantise(demo, quantise))


def fp8_scaled(folder: Path, demo: Demo) -> Path:
    """scaled_fp8 and scale_weight, one scale a tensor, for the text encoder as well."""

    def quantise(name: str, value: Tensor) -> tuple[State, Tensor]:
        scale = value.abs().max() / 448
        low = (value / scale).to(torch.float8_e4m3fn)
        base = name.removesuffix(".weight")
        extra = {name: low, f"{base}.scale_weight": scale, f"{base}.scale_input": torch.ones(())}
        return extra, low.float() * scale

    dit = {**_quantise(demo, quantise), "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    file = _comfyui(folder, demo, prefixed(dit, "model.diffusion_model."))
    encoder = foreign(demo, "text_encoder")
    stored: State = {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn), "spiece_model": spiece_tensor()}
    for official_name, name in zip(demo["text_encoder"], encoder, strict=True):
        stored[name] = encoder[name]
        if "SelfAttention.q" in name:
            extra, demo["text_encoder"][official_name] = quantise(name, encoder[name].float())
            stored |= extra
    save(folder / "text_encoders" / "umt5.safetensors", stored)
    return file


def fp8_scaled_by_row(folder: Path, demo: Demo) -> Path:
    """weight_scale and comfy_quant, the newer spelling."""

    def quantise(name: str, value: Tensor) -> tuple[State, Tensor]:
        scale = value.abs().amax(dim=1) / 448
        low = (value / scale[:, None]).to(torch.float8_e4m3fn)
        base = name.removesuffix(".weight")
        note = torch.frombuffer(bytearray(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        extra = {name: low, f"{base}.weight_scale": scale, f"{base}.comfy_quant": note}
        return extra, low.float() * scale[:, None]

    return _comfyui(folder, demo, _quantise(demo, quantise))


def int8_quanto(folder: Path, demo: Demo) -> Path:
    def quantise(name: str, value: Tensor) -> tuple[State, Tensor]:
        scale = value.abs().amax(dim=1, keepdim=True) / 127
        whole = (value / scale).round().to(torch.int8)
        base = name.removesuffix(".weight")
        extra = {f"{name}._data": whole, f"{name}._scale": scale, f"{base}.input_scale": torch.ones(())}
        return {**extra, f"{base}.output_scale": torch.ones(())}, whole.float() * scale

    return _comfyui(folder, demo, _quantise(demo, quantise))


def gguf_file(folder: Path, demo: Demo) -> Path:
    """Backbone and text encoder, as the converters write them: Q8_0, small tensors in float32."""
    file = folder / "demo-Q8_0.gguf"
    folder.mkdir(parents=True)
    _write_gguf(file, "wan", demo["dit"], lambda name: name)
    reverse = {theirs: ours for ours, theirs in LLAMA_CPP.items()}
    _write_gguf(folder / "umt5-Q8_0.gguf", "t5encoder", demo["text_encoder"], lambda name: _llama(name, reverse))
    save(folder / "vae.safetensors", demo["vae"])
    tokenizer(folder / "tokenizer")
    return file


LLAMA_CPP = {
    "token_embd": "token_embedding", "enc.output_norm": "norm", "enc.blk.{}.attn_norm": "blocks.{}.norm1",
    "enc.blk.{}.attn_q": "blocks.{}.attn.q", "enc.blk.{}.attn_k": "blocks.{}.attn.k",
    "enc.blk.{}.attn_v": "blocks.{}.attn.v", "enc.blk.{}.attn_o": "blocks.{}.attn.o",
    "enc.blk.{}.attn_rel_b": "blocks.{}.pos_embedding.embedding", "enc.blk.{}.ffn_norm": "blocks.{}.norm2",
    "enc.blk.{}.ffn_gate": "blocks.{}.ffn.gate.0", "enc.blk.{}.ffn_up": "blocks.{}.ffn.fc1",
    "enc.blk.{}.ffn_down": "blocks.{}.ffn.fc2",
}  # fmt: skip


def _llama(name: str, table: dict[str, str]) -> str:
    base = name.removesuffix(".weight")
    head, _, rest = base.partition(".")
    number, _, tail = rest.partition(".")
    if head == "blocks":
        return table[f"blocks.{{}}.{tail}"].replace("{}", number) + ".weight"
    return table[base] + ".weight"


def _write_gguf(path: Path, architecture: str, state: State, rename: Callable[[str], str]) -> None:
    """Writes the file and puts what it is worth into `state`."""
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in state.items():
        array = value.float().numpy()
        if array.ndim == 2 and array.size > 1024 and array.shape[1] % 32 == 0:
            raw = gguf.quantize(array, kind)
            writer.add_tensor(rename(name), raw, raw_dtype=kind)
            state[name] = torch.from_numpy(np.array(gguf.dequantize(raw, kind)))
        elif array.ndim > 4:  # one dimension too many for the format: folded, the true shape kept beside
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(array.shape))
            writer.add_tensor(rename(name), array.reshape(array.shape[0], -1))
        else:
            writer.add_tensor(rename(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


WRITERS: dict[str, Callable[[Path, Demo], Path]] = {
    "official": official,
    "official, .pth": official_pth,
    "official, shards": official_shards,
    "shards without index": shards_without_index,
    "diffusers": diffusers_folder,
    "Hugging Face cache": hugging_face_cache,
    "ComfyUI": comfyui_folders,
    "prefixed": prefixed_single_file,
    "doubled level": doubled_block_level,
    "combined": combined_checkpoint,
    "fp8": fp8_plain,
    "fp8 scaled": fp8_scaled,
    "fp8 by row": fp8_scaled_by_row,
    "int8 (quanto)": int8_quanto,
    "GGUF": gguf_file,
}
