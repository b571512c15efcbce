"""Train the demo's VAE (base width 8) on rendered stories.  `python demo/train_vae.py --minutes 30`

Goes on from its last checkpoint when run again. Needs about 13 minutes on two CPU cores from earlier weights
(--init) and about twice that from nothing.

`--decoder` goes on with the decoder in models/demo alone, and with what changes from frame to frame above all: its four
frames a latent are drawn apart, and what stands still must not flicker at their pace.  The encoder stays, so that no
latents change and the DiT fits as before.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import world
from common import (
    DECODER_WORK,
    MODEL,
    WORK,
    Ema,
    Muon,
    channels_last,
    decode,
    encode,
    load_weights,
    make_vae,
    save_atomically,
    to_pixels,
)
from deforum_helpers.variants import VAES
from safetensors.torch import save_file
from torch import Tensor, nn

# (clips, frames, rows, columns) of a batch: pictures, crops, longer crops, whole clips
PICTURES, CROPS, LONG, WHOLE = (8, 1, 64, 64), (2, 9, 64, 64), (1, 25, 64, 64), (1, 17, 80, 128)


def quiet_start(vae: nn.Module) -> None:
    """Begin as a nearly noiseless frame-by-frame autoencoder.

    The library's own initialisation loses the signal among the biases, which costs hundreds of steps.
    """
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and not name.endswith("time_conv"):
                weight = layer.weight
                gain = 1.6 if name.endswith("residual.2") else 0.6 if name.endswith("residual.6") else 1.0
                gain = 0.2 if name.endswith("proj") else gain
                weight.normal_(0, gain * (weight.shape[-1] * weight.shape[-2] * weight.shape[1]) ** -0.5)
                layer.bias.zero_()
                if weight.ndim == 5 and weight.shape[2] == 3:
                    weight[:, :, :2] = 0
            elif name.endswith("time_conv"):
                same = torch.eye(layer.in_channels)
                layer.weight.mul_(0.1)
                layer.bias.zero_()
                if layer.out_channels == layer.in_channels:
                    layer.weight[:, :, 1:, 0, 0] += 0.5 * same[:, :, None]
                else:
                    layer.weight[:, :, 2, 0, 0] += torch.cat([same, same])
        vae.conv1.weight[16:] *= 0.05
        vae.conv1.bias[16:] = -5.0
        vae.decoder.head["2"].weight.mul_(0.4)


class Stories:
    """Rendered stories in memory, cut into weighted batches."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        stories = [world.sample_story(rng, clips=2, anywhere=bool(k % 2)) for k in range(count)]
        self.clips = torch.from_numpy(np.stack([world.render(story) for story in stories]))
        self.centres = torch.from_numpy(np.stack([world.centres(story) for story in stories]))
        self.rows, self.columns = torch.meshgrid(torch.arange(80.0), torch.arange(128.0), indexing="ij")

    def batch(self, rng: np.random.Generator, size: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, F, h, w] and weights [B, 1, F, h, w] that favour the object (it covers few pixels)."""
        count, frames, height, width = size
        pixels, weights = [], []
        for _ in range(count):
            k, t = int(rng.integers(len(self.clips))), int(rng.integers(0, self.clips.shape[1] - frames + 1))
            top, left = int(rng.integers(0, 81 - height)), int(rng.integers(0, 129 - width))
            if width < 128 and rng.uniform() < 0.75:  # look at the object
                x = self.centres[k, t + frames // 2, 0].item()
                left = int(np.clip(x - 32 + rng.integers(-20, 21), 0, 64))
            window = (slice(top, top + height), slice(left, left + width))
            at = self.centres[k, t : t + frames]
            near = (self.columns[window] - at[:, :1, None]) ** 2 + (self.rows[window] - at[:, 1:, None]) ** 2
            weight = 1 + 4 * torch.exp(-((near / 26**2) ** 2))
            clip = self.clips[k, t : t + frames, window[0], window[1]]
            flip = rng.uniform() < 0.5
            pixels.append(clip.flip(2) if flip else clip)
            weights.append(weight.flip(2) if flip else weight)
        weight = torch.stack(weights)[:, None]
        return to_pixels(torch.stack(pixels)), weight / weight.mean()


def differences(x: Tensor) -> list[Tensor]:
    out = [x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]
    return out + ([x[:, :, 1:] - x[:, :, :-1]] if x.shape[2] > 1 else [])


def loss_of(vae: nn.Module, x: Tensor, weight: Tensor, noise: float, spread: Tensor) -> Tensor:
    """Reconstruction, edges, and a little KL.

    noise: extra noise on the latents, in units of their spread: the decoder learns to draw clean shapes from the
    slightly wrong latents that a tiny diffusion model makes.
    """
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = encode(vae, x)
        if noise == 0 and x.shape[2] > 1:
            spread.lerp_(mean.detach().float().std((0, 2, 3, 4)), 0.02)
        deviation = torch.exp(0.5 * log_variance) + noise * spread.view(1, -1, 1, 1, 1)
        y = decode(vae, mean + deviation * torch.randn_like(mean))
    mean, log_variance = mean.float(), log_variance.float()
    kl = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    return distance(y.float(), x, weight) + 2e-4 * kl


def distance(y: Tensor, x: Tensor, weight: Tensor, motion: float = 0.2) -> Tensor:
    """Of what is drawn from what there was: pixels, 4x4 means, edges, and changes from frame to frame."""
    error = y - x
    shares = (0.2, 0.2, motion)
    pairs = zip(shares, differences(y), differences(x), strict=False)
    edges = sum(share * (a - b).abs().mean() for share, a, b in pairs)
    coarse = F.avg_pool3d(error, (1, 4, 4)).abs().mean()
    return (weight * error.abs()).mean() + coarse + 2 * (weight * error * error).mean() + edges


def decoder_loss(vae: nn.Module, x: Tensor, weight: Tensor, noise: float, spread: Tensor) -> Tensor:
    """The same with an encoder that stays as it is."""
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            latents = encode(vae, x)[0]
        y = decode(vae, latents + noise * spread.view(1, -1, 1, 1, 1) * torch.randn_like(latents))
    return distance(y.float(), x, weight, motion=1.0)


@torch.no_grad()
def reconstruction_db(vae: nn.Module, clips: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of each clip [N, F, H, W, 3], through encoder and decoder, no latent noise."""
    out = []
    for clip in clips:
        x = to_pixels(clip[None])
        error = (decode(vae, encode(vae, x)[0]).clamp(-1, 1) - x) / 2
        out.append(-10 * torch.log10(error.pow(2).mean()).item())
    return out


def held_out(count: int = 16, clips: int = 1, seed: int = 90_000) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([world.render(world.sample_story(rng, clips)) for _ in range(count)]))


def batch_size(progress: float, rng: np.random.Generator, from_nothing: bool) -> tuple[int, int, int, int]:
    if (from_nothing and progress < 0.12) or rng.uniform() < 0.12:
        return PICTURES
    if progress > 0.6 and rng.uniform() < 0.5:
        return WHOLE
    return LONG if rng.uniform() < 0.15 else CROPS


class Trainer:
    """The autoencoder, its optimisers and its average."""

    def __init__(self, init: Path | None, lr: float, decoder_only: bool = False) -> None:
        """decoder_only: of weights with the official spread of latents."""
        self.vae = make_vae()
        if init:
            load_weights(self.vae, init)
        else:
            quiet_start(self.vae)
        channels_last(self.vae)
        trained = [p for name, p in self.vae.named_parameters() if not decoder_only or name.startswith("decoder.")]
        self.vae.requires_grad_(False)
        for p in trained:
            p.requires_grad_(True)
        matrices = [p for p in trained if p.ndim >= 4 and min(p.shape[0], p.flatten(1).shape[1]) >= 8]
        chosen = {id(p) for p in matrices}
        others = [p for p in trained if id(p) not in chosen]
        self.optimisers = [Muon(matrices, lr), torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0)]
        self.ema = Ema(trained, 0.998)
        self.spread, self.loss = torch.ones(16), loss_of
        if decoder_only:
            self.spread, self.loss = torch.tensor(VAES["wan2.1"].latents_std), decoder_loss
        self.minutes = 0.0

    def set_rate(self, rate: float) -> None:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (self.ema.steps + 1) / 40)

    def step(self, x: Tensor, weight: Tensor, noise: float) -> float:
        loss = self.loss(self.vae, x, weight, noise, self.spread)
        self.vae.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.vae.parameters(), 2.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.ema.update()
        return loss.item()

    def measure(self, clips: Tensor) -> float:
        """Mean decibels of the averaged weights."""
        self.ema.swap()
        mean = float(np.mean(reconstruction_db(self.vae, clips)))
        self.ema.swap()
        return mean

    def save(self, file: Path) -> None:
        state = {
            "vae": self.vae.state_dict(),
            "ema": self.ema.average,
            "steps": self.ema.steps,
            "minutes": self.minutes,
            "spread": self.spread,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        save_atomically(state, file)

    def restore(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.vae.load_state_dict(state["vae"])
        self.ema.average, self.ema.steps = state["ema"], state["steps"]
        self.minutes, self.spread = state["minutes"], state["spread"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def train(trainer: Trainer, stories: Stories, args: argparse.Namespace) -> None:
    rng, test = np.random.default_rng(1 + trainer.ema.steps), held_out(6)
    begin, losses, saved_at = time.monotonic() - trainer.minutes * 60, [], trainer.minutes
    while trainer.minutes < args.minutes:
        progress = trainer.minutes / args.minutes
        fall = 1.0 if progress < 0.2 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.2) / 0.8))
        trainer.set_rate(args.lr * fall)
        x, weight = stories.batch(rng, batch_size(progress, rng, args.init is None))
        noise = float(rng.uniform(0, 0.12)) if rng.uniform() < 0.3 else 0.0
        losses.append(trainer.step(x, weight, noise))
        trainer.minutes = (time.monotonic() - begin) / 60
        if trainer.ema.steps % 100 == 0:
            print(f"step {trainer.ema.steps} minute {trainer.minutes:.2f} loss {np.mean(losses):.4f}", flush=True)
            losses = []
        if trainer.minutes - saved_at > 2:
            saved_at = trainer.minutes
            print(f"  held-out dB {trainer.measure(test):.2f}", flush=True)
            trainer.save(args.work / "vae_state.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--init", type=Path, help="fp32 VAE weights to go on from")
    parser.add_argument("--decoder", action="store_true", help="only the decoder, from the weights in models/demo")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--stories", type=int, default=450)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.work = args.work or (DECODER_WORK if args.decoder else WORK)
    args.init = args.init or (MODEL / "vae.safetensors" if args.decoder else None)
    trainer = Trainer(args.init, args.lr, args.decoder)
    if (args.work / "vae_state.pt").exists():
        trainer.restore(args.work / "vae_state.pt")
    stories = Stories(args.stories, 1 + trainer.ema.steps)
    print(f"rendered {len(stories.clips)} stories, from step {trainer.ema.steps}", flush=True)
    train(trainer, stories, args)
    args.work.mkdir(parents=True, exist_ok=True)
    final = trainer.measure(held_out())
    trainer.ema.swap()
    tensors = {name: tensor.contiguous() for name, tensor in trainer.vae.state_dict().items()}
    save_file(tensors, args.work / "vae.safetensors")
    print(f"final: {trainer.ema.steps} steps, held-out dB {final:.2f}", flush=True)


if __name__ == "__main__":
    main()
