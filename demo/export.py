"""Put the trained weights into models/demo as the checkpoint: float16, official names.  `python demo/export.py`

The latents' own mean and spread are folded into the VAE's 1x1x1 convolutions, so that the official Wan 2.1
latents_mean and latents_std give unit-normalised latents: the demo needs no constants of its own.

`--plain --out FOLDER` puts the plain variant (train_dit.py --plain) there, with the demo's other parts.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from common import DECODER_WORK, MODEL, PLAIN_WORK, WORK, Z_DIM
from deforum_helpers.variants import VAES
from safetensors.torch import load_file, save_file
from torch import Tensor

TOKENIZER = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")


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
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder of another tokenizer than the one already there")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shipped", action="store_true", help="of a run that began with the weights in models/demo")
    parser.add_argument("--decoder", action="store_true", help="only the autoencoder, of train_vae.py --decoder")
    parser.add_argument("--plain", action="store_true", help="the plain variant, into --out")
    args = parser.parse_args()
    if args.plain and args.out is None:
        parser.error("--plain needs --out: models/demo is the demo's")
    work = args.work or (DECODER_WORK if args.decoder else PLAIN_WORK if args.plain else WORK)
    out = args.out or MODEL
    (out / "tokenizer").mkdir(parents=True, exist_ok=True)
    if args.decoder:
        write(load_file(work / "vae.safetensors"), out / "vae.safetensors")
        return
    if args.plain:
        write(load_file(work / "dit.safetensors"), out / "diffusion_pytorch_model.safetensors")
        for name in ("vae.safetensors", "text_encoder.safetensors", *TOKENIZER):
            shutil.copyfile(MODEL / name, out / name)
        return
    data = torch.load(work / "latents.pt", weights_only=True)
    if not args.shipped:
        vae = fold_normalisation(load_file(work / "vae.safetensors"), data["mean"], data["std"])
        write(vae, out / "vae.safetensors")
    write(load_file(work / "dit.safetensors"), out / "diffusion_pytorch_model.safetensors")
    write(load_file(work / "text.safetensors"), out / "text_encoder.safetensors")
    if args.tokenizer:
        for name in TOKENIZER:
            shutil.copyfile(args.tokenizer / Path(name).name, out / name)


if __name__ == "__main__":
    main()
