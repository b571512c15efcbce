"""Put the trained weights into models/demo as the checkpoint: float16, official names.  `python demo/export.py`

The latents' own mean and spread are folded into the VAE's 1x1x1 convolutions, so that the official Wan 2.1
latents_mean and latents_std give unit-normalised latents: the demo needs no constants of its own.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from common import MODEL, WORK, Z_DIM
from deforum_helpers.variants import VAES
from safetensors.torch import load_file, save_file
from torch import Tensor


def fold_normalisation(vae: dict[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Make (encoder output - official mean) / official std equal (old output - mean) / std, and undo it when decoding.

    conv1 gives mean and log-variance of the latents (its first and second Z_DIM rows), conv2 takes the latents.
    """
    row = VAES["wan2.1"]
    official_mean, official_std = torch.tensor(row.latents_mean), torch.tensor(row.latents_std)
    gain = official_std / std
    out = {name: tensor.clone() for name, tensor in vae.items()}
    out["conv1.weight"][:Z_DIM] *= gain.view(-1, 1, 1, 1, 1)
    out["conv1.bias"][:Z_DIM] = (vae["conv1.bias"][:Z_DIM] - mean) * gain + official_mean
    out["conv1.bias"][Z_DIM:] += 2 * gain.log()
    out["conv2.weight"] /= gain.view(1, -1, 1, 1, 1)
    out["conv2.bias"] += vae["conv2.weight"].flatten(1) @ (mean - official_mean / gain)
    return out


def write(tensors: dict[str, Tensor], file: Path) -> None:
    """float16, atomically; any tensor that float16 can't hold is an error."""
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    bad = [name for name, tensor in halves.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"not finite in float16: {bad}")
    part = file.with_name(file.name + ".part")
    save_file(halves, part, {"format": "pt"})
    part.chmod(0o644)
    part.replace(file)
    print(f"{file.name}: {sum(t.numel() for t in halves.values()):,} parameters, {file.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--tokenizer", type=Path, help="folder of another tokenizer than the one already there")
    parser.add_argument("--out", type=Path, default=MODEL)
    args = parser.parse_args()
    data = torch.load(args.work / "latents.pt", weights_only=True)
    (args.out / "tokenizer").mkdir(parents=True, exist_ok=True)
    write(
        fold_normalisation(load_file(args.work / "vae.safetensors"), data["mean"], data["std"]),
        args.out / "vae.safetensors",
    )
    write(load_file(args.work / "dit.safetensors"), args.out / "diffusion_pytorch_model.safetensors")
    write(load_file(args.work / "text.safetensors"), args.out / "text_encoder.safetensors")
    if args.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(args.tokenizer / name, args.out / "tokenizer" / name)


if __name__ == "__main__":
    main()
