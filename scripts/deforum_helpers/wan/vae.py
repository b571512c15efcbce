"""Wan's causal video autoencoder (2.1 and 2.2): pixels to latents and back, as a stream of chunks.

Shape legend: B clips, z latent channels, T latent frames, F = 4 (T - 1) + 1 frames; rows and columns shrink
by 8 (2.1) or 16 (2.2).  Pixels are in [-1, 1].
Source: Wan 2.1 and 2.2 (architecture, tensor names, normalisation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .vae_layers import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    FrameAttention,
    GroupMean,
    Repeat,
    ResidualBlock,
    StreamState,
    Upsample,
)
from .vae_tiles import decode_tiles, encode_tiles

TEMPORAL_STRIDE = 4


@dataclass(frozen=True)
class VaeConfig:
    """dec_dim, shortcuts and pixel_patch are what 2.2 changed: a wider decoder, parameter-free shortcuts around
    each stage, and pixels folded 2x2 into channels first."""

    dim: int = 96
    dec_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    shortcuts: bool = False
    pixel_patch: int = 1

    @property
    def spatial_stride(self) -> int:
        return self.pixel_patch * 2 ** (len(self.dim_mult) - 1)

    @property
    def pixel_channels(self) -> int:
        return 3 * self.pixel_patch**2


class Stage(nn.Module):
    """A 2.2 stage: blocks and a resampling, with a parameter-free shortcut around them all.

    kind names the list ("downsamples" or "upsamples"), because the tensors are called after it.
    """

    def __init__(self, kind: str, layers: list[nn.Module], shortcut: nn.Module | None) -> None:
        super().__init__()
        self.kind = kind
        self.add_module(kind, nn.ModuleList(layers))
        self.avg_shortcut = shortcut

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        shortcut = self.avg_shortcut
        beside = shortcut(x, state.first) if isinstance(shortcut, Repeat) else shortcut(x) if shortcut else None
        for layer in getattr(self, self.kind):
            x = layer(x, state)
        return x if beside is None else x + beside


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        [ResidualBlock(channels, channels), FrameAttention(channels), ResidualBlock(channels, channels)]
    )


def _head(channels_in: int, channels_out: int) -> nn.ModuleDict:
    return nn.ModuleDict({"0": ChannelNorm(channels_in, 3), "2": CausalConv3d(channels_in, channels_out, (3, 3, 3))})


class Encoder(nn.Module):
    """Pixels (patched for 2.2) -> mean and log-variance of the latents."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in (1, *config.dim_mult)]
        temporal = (*config.temporal_downsample, None)  # None: the last stage does not resample
        self.halvings = len(config.temporal_downsample)
        self.conv1 = CausalConv3d(config.pixel_channels, widths[0], (3, 3, 3))
        self.downsamples = nn.ModuleList()
        for wide_in, wide_out, in_time in zip(widths[:-1], widths[1:], temporal, strict=True):
            layers: list[nn.Module] = [
                ResidualBlock(wide_in if i == 0 else wide_out, wide_out) for i in range(config.num_res_blocks)
            ]
            if in_time is not None:
                layers.append(Downsample(wide_out, in_time))
            if config.shortcuts:
                mean = GroupMean(wide_out, 2 if in_time else 1, 1 if in_time is None else 2)
                layers = [Stage("downsamples", layers, mean)]
            self.downsamples.extend(layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], config.z_dim * 2)

    def forward(self, x: Tensor, state: StreamState, tile: int = 0) -> Tensor:
        """tile: rows and columns of latents to go through the outer layers at once, 0 = all."""
        x = encode_tiles(self.outer, x, state, tile, 2**self.halvings) if tile else self.outer(x, state)
        for layer in self.middle:
            x = layer(x, state)
        return self.head["2"](F.silu(self.head["0"](x)), state)

    def outer(self, x: Tensor, state: StreamState) -> Tensor:
        """From pixels to the latents' size."""
        x = self.conv1(x.contiguous(memory_format=torch.channels_last_3d), state)
        for layer in self.downsamples:
            x = layer(x, state)
        return x


class Decoder(nn.Module):
    """Latents -> pixels (patched for 2.2)."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.dec_dim * mult for mult in (config.dim_mult[-1], *config.dim_mult[::-1])]
        temporal = (*config.temporal_downsample[::-1], None)
        self.doublings = len(config.temporal_downsample)
        self.conv1 = CausalConv3d(config.z_dim, widths[0], (3, 3, 3))
        self.middle = _middle(widths[0])
        self.upsamples = nn.ModuleList()
        wide = widths[0]
        for wide_in, wide_out, in_time in zip(widths[:-1], widths[1:], temporal, strict=True):
            layers: list[nn.Module] = [
                ResidualBlock(wide if i == 0 else wide_out, wide_out) for i in range(config.num_res_blocks + 1)
            ]
            wide = wide_out
            if in_time is not None:
                wide = wide_out if config.shortcuts else wide_out // 2  # 2.1 halves the width on the way up
                layers.append(Upsample(wide_out, wide, in_time))
            if config.shortcuts:
                repeat = None if in_time is None else Repeat(wide_in, wide_out, 2 if in_time else 1, 2)
                layers = [Stage("upsamples", layers, repeat)]
            self.upsamples.extend(layers)
        self.head = _head(wide, config.pixel_channels)

    def forward(self, z: Tensor, state: StreamState, tile: int = 0) -> Tensor:
        """tile: rows and columns of latents to go through the outer layers at once, 0 = all."""
        x = self.conv1(z.contiguous(memory_format=torch.channels_last_3d), state)
        for layer in self.middle:
            x = layer(x, state)
        return decode_tiles(self.outer, x, state, tile, 2**self.doublings) if tile else self.outer(x, state)

    def outer(self, x: Tensor, state: StreamState) -> Tensor:
        """From the latents' size to pixels."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for layer in self.upsamples:
            x = layer(x, state)
        return self.head["2"](F.silu(self.head["0"](x)), state)


class WanVae(nn.Module):
    """The autoencoder with its official names: encoder, conv1 (to mean and log-variance), conv2, decoder.

    tile: rows and columns of latents that go through the large layers at once, 0 = all: see vae_tiles.py.
    frames_per_chunk, latents_per_chunk: encoded and decoded at once; more is faster and takes more memory.
    """

    def __init__(self, config: VaeConfig, latents_mean: tuple[float, ...], latents_std: tuple[float, ...]) -> None:
        super().__init__()
        self.config = config
        self.latents_mean, self.latents_std = latents_mean, latents_std
        self.tile, self.frames_per_chunk, self.latents_per_chunk = 0, 16, 4
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(config.z_dim * 2, config.z_dim * 2, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)

    def moments(self, video: Tensor, state: StreamState) -> tuple[Tensor, Tensor]:
        """One chunk [B, 3, F, H, W] -> raw mean and log-variance, each [B, z, T, h, w]."""
        moments = self.conv1(self.encoder(fold_pixels(video, self.config.pixel_patch), state, self.tile), state)
        state.first = False
        return tuple(moments.chunk(2, dim=1))

    def encode(self, video: Tensor, frames_per_chunk: int | None = None) -> Tensor:
        """Pixels -> normalised latents.

        video: [B, 3, F, H, W] in [-1, 1], on whatever device; frames beyond the last complete group of 4 are
            dropped, as officially.
        frames_per_chunk: a multiple of 4, None = the autoencoder's own.
        Returns [B, z, (F - 1) // 4 + 1, h, w] float32.
        """
        frames = 1 + (video.shape[2] - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE
        state, means, frames_per_chunk = StreamState(), [], frames_per_chunk or self.frames_per_chunk
        ends = [1, *range(1 + frames_per_chunk, frames, frames_per_chunk), frames]
        for start, end in zip([0, *ends], ends, strict=False):
            if end > start:
                means.append(self.moments(video[:, :, start:end].to(self.conv1.weight), state)[0].float())
        latents = torch.cat(means, dim=2)
        mean, std = self.statistics(latents.device)
        return (latents - mean) / std

    def decode_chunk(self, latents: Tensor, state: StreamState) -> Tensor:
        """The next latents of a stream [B, z, T, h, w], normalised -> their frames, float32, not clamped."""
        mean, std = self.statistics(latents.device)
        z = self.conv2((latents.float() * std + mean).to(self.conv2.weight.dtype), state)
        frames = unfold_pixels(self.decoder(z, state, self.tile), self.config.pixel_patch)
        state.first = False
        return frames.float()

    def decode(
        self, latents: Tensor, state: StreamState | None = None, latents_per_chunk: int | None = None
    ) -> Iterator[Tensor]:
        """Decode a stream chunk by chunk; pass the same state again to go on with it.

        latents: [B, z, T, h, w], normalised.  Yields [B, 3, f, H, W] in [-1, 1] float32; f is 4 per latent, but 1
        for the very first latent of a stream.
        """
        state = state or StreamState()
        if state.first:  # alone, so that every later chunk is of one size and the work buffers are reused
            yield self.decode_chunk(latents[:, :, :1], state).clamp_(-1, 1)
            latents = latents[:, :, 1:]
        latents_per_chunk = latents_per_chunk or self.latents_per_chunk
        for start in range(0, latents.shape[2], latents_per_chunk):
            yield self.decode_chunk(latents[:, :, start : start + latents_per_chunk], state).clamp_(-1, 1)

    def statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The fixed mean and standard deviation of the latents, [1, z, 1, 1, 1]."""
        return tuple(
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1, 1)
            for values in (self.latents_mean, self.latents_std)
        )


def fold_pixels(video: Tensor, patch: int) -> Tensor:
    """Fold patch x patch pixels into channels, in the official order (channel, column, row)."""
    if patch == 1:
        return video
    return rearrange(video, "b c f (h q) (w r) -> b (c r q) f h w", q=patch, r=patch)


def unfold_pixels(video: Tensor, patch: int) -> Tensor:
    if patch == 1:
        return video
    return rearrange(video, "b (c r q) f h w -> b c f (h q) (w r)", q=patch, r=patch)
