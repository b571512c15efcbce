"""Layers of Wan's causal video autoencoder, each able to go on where the last chunk of frames ended.

Shape legend: B clips, C channels, F frames of a chunk, H rows, W columns; x is [B, C, F, H, W] throughout, and lies
in memory with its channels innermost (channels_last_3d).  Then frames are a plain batch of pictures without a copy,
and norms and convolutions run along memory: on a CPU that is worth a factor of five to ten.

A chunk may hold any number of frames.  What a layer needs of the frames before the chunk it keeps in a
StreamState, so that one whole sequence, frame by frame and anything between give the same numbers.
Source: Wan 2.1 and 2.2 autoencoders (architecture, tensor names, and which frames a temporal layer sees).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .doubling import conv_doubled, doubling_kernel
from .norms import rms_norm
from .winograd import RowKernel, conv_rows, suits_rows

STACKED_ELEMENTS = 48_000_000  # stacking three frames triples the input; past 0.6 GB torch's own conv3d is no slower


class StreamState:
    """What the layers remember of a stream between chunks.

    first: whether the next chunk begins with the stream's very first frame, which temporal resampling skips.
    tiles: the memory of each tile, of layers that go tile by tile (vae_tiles.py), by its core's first row and column.
    """

    def __init__(self) -> None:
        self.first = True
        self.past: dict[nn.Module, Tensor] = {}
        self.tiles: dict[tuple[int, int], StreamState] = {}

    def copy(self) -> StreamState:
        """Another one that goes on from here; the tensors are shared, for no layer changes them in place."""
        other = StreamState()
        other.first, other.past = self.first, dict(self.past)
        other.tiles = {place: tile.copy() for place, tile in self.tiles.items()}
        return other


def conv_over_time(x: Tensor, layer: nn.Conv3d, taps: int) -> Tensor:
    """The layer's convolution with its newest `taps` temporal taps; x holds taps - 1 frames of history in front.

    On a CPU the taps are stacked as channels of one 2-D convolution: torch runs small 3-D ones without its fast
    kernels, nine times slower.
    """
    weight = layer.weight[:, :, -taps:] if taps < layer.kernel_size[0] else layer.weight
    step = layer.stride[0]
    if x.device.type != "cpu" or x.numel() > STACKED_ELEMENTS:
        return F.conv3d(x, weight, layer.bias, layer.stride, layer.padding)
    last = x.shape[2] - taps + 1
    rows = x.permute(0, 2, 3, 4, 1)  # [B, F, H, W, C]
    stacked = rows if taps == 1 else torch.cat([rows[:, k : k + last : step] for k in range(taps)], dim=4)
    pictures = stacked.permute(0, 1, 4, 2, 3).flatten(0, 1)  # [B * F, taps * C, H, W]
    kernel = weight.transpose(1, 2).flatten(1, 2)  # [O, taps * C, kh, kw]
    out = F.conv2d(pictures, kernel, layer.bias, layer.stride[1:], layer.padding[1:])
    return out.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def made_once(layer: nn.Module, make: Callable[[], Any]) -> Any:
    """What `make` makes of a layer's weight, kept with the layer until it has another weight or that one is changed.

    A summed kernel is about twice the size of the plain one: half a gigabyte for a whole decoder of the real width.
    """
    weight = layer.weight
    state = (weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version)
    of, _, made = layer.__dict__.get("_made_once", (None, None, None))
    if of != state:
        made = make()
        layer.__dict__["_made_once"] = (state, weight.detach(), made)  # held, so that no other comes to its address
    return made


class CausalConv3d(nn.Conv3d):
    """A convolution that looks back in time only; spatial padding keeps the size."""

    def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.look_back = kernel[0] - 1

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        if not self.look_back:
            return conv_over_time(x, self, 1)
        if suits_rows(x, self):
            return self.by_rows(x, state)
        past = state.past.get(self)
        if past is None:
            past = x.new_zeros(x.shape[0], x.shape[1], self.look_back, *x.shape[3:])
            past = past.contiguous(memory_format=torch.channels_last_3d)
            lone = x.shape[2] == 1  # zeros before a lone frame: only the newest tap sees anything
        else:
            lone = False
        joined = torch.cat((past, x), dim=2)
        state.past[self] = joined[:, :, -self.look_back :].clone(memory_format=torch.preserve_format)
        return conv_over_time(x, self, 1) if lone else conv_over_time(joined, self, self.look_back + 1)

    def by_rows(self, x: Tensor, state: StreamState) -> Tensor:
        """The same by conv_rows, which takes the frames before from where they are, without a copy."""
        x, past, back = x.contiguous(memory_format=torch.channels_last_3d), state.past.get(self), self.look_back
        taps = 1 if past is None and x.shape[2] == 1 else back + 1  # before a lone frame are zeros: the newest tap
        if past is None:
            past = torch.zeros_like(x[:, :, :1]).expand(-1, -1, back, -1, -1)
        kernel = made_once(self, lambda: RowKernel(self.weight, self.bias))
        clips, _, frames, height, width = x.shape
        out = x.new_empty(clips, frames, height, width, self.out_channels)
        for clip in range(clips):
            before, now = (part[clip].permute(1, 2, 3, 0).unbind() for part in (past, x))
            conv_rows([*before, *now][1 - taps - frames :], kernel, out[clip])
        newest = torch.cat((past, x[:, :, -back:]), dim=2)[:, :, -back:]
        state.past[self] = newest.clone(memory_format=torch.channels_last_3d)
        return out.permute(0, 4, 1, 2, 3)


class ChannelNorm(nn.Module):
    """L2 normalisation over the channels, times sqrt(C) and a learned gain.  axes: 2 for pictures, 3 for video."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        # The official floor is 1e-12 on the length; this one, on the mean square, only keeps zeros from dividing.
        return rms_norm(x.movedim(1, -1), self.gamma.flatten(), 1e-30).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv, twice, beside a shortcut; a 1x1x1 convolution where the width changes."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        # Positions 1, 4 and 5 hold activation and dropout officially: the numbers are part of the tensor names.
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(channels_in, 3),
                "2": CausalConv3d(channels_in, channels_out, (3, 3, 3)),
                "3": ChannelNorm(channels_out, 3),
                "6": CausalConv3d(channels_out, channels_out, (3, 3, 3)),
            }
        )
        if channels_in != channels_out:
            self.shortcut = CausalConv3d(channels_in, channels_out, (1, 1, 1))

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        shortcut = self.shortcut(x, state) if hasattr(self, "shortcut") else x
        for norm, conv in (("0", "2"), ("3", "6")):
            x = self.residual[conv](F.silu(self.residual[norm](x), inplace=not torch.is_grad_enabled()), state)
        return x + shortcut


class FrameAttention(nn.Module):
    """One-head attention over the pixels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        frames, back = frames_as_batch(x)
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2).unsqueeze(1)  # [B * F, 1, H * W, 3 C]
        out = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1)).squeeze(1).transpose(1, 2)
        return x + back(self.proj(out.unflatten(2, frames.shape[2:])))


class Downsample(nn.Module):
    """Halve rows and columns, and frames too where temporal; the stream's first frame keeps its own place."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        if temporal:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        frames, back = frames_as_batch(x)
        x = back(self.resample["1"](F.pad(frames, (0, 1, 0, 1))))
        if not hasattr(self, "time_conv"):
            return x
        past, state.past[self] = state.past.get(self), x[:, :, -1:]
        if past is not None:
            return conv_over_time(torch.cat((past, x), dim=2), self.time_conv, 3)
        return torch.cat((x[:, :, :1], conv_over_time(x, self.time_conv, 3)), dim=2) if x.shape[2] > 1 else x


class Upsample(nn.Module):
    """Double rows and columns, and frames too where temporal; the stream's first frame stays one frame."""

    def __init__(self, channels_in: int, channels_out: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels_in, channels_out, 3, padding=1)})
        if temporal:
            self.time_conv = CausalConv3d(channels_in, channels_in * 2, (3, 1, 1))

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        if hasattr(self, "time_conv"):
            # The first frame never enters time_conv: the second chunk sees zeros before it, not the first frame.
            skip = 1 if state.first else 0
            if x.shape[2] > skip:
                pairs = self.time_conv(x[:, :, skip:], state).unflatten(1, (2, -1))  # [B, 2, C, F, H, W]
                doubled = torch.stack(pairs.unbind(1), dim=3).flatten(2, 3)
                x = torch.cat((x[:, :, :skip], doubled), dim=2) if skip else doubled
        frames, back = frames_as_batch(x)
        conv = self.resample["1"]
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return back(conv(F.interpolate(frames, scale_factor=2.0, mode="nearest-exact")))
        return back(conv_doubled(frames, made_once(conv, lambda: doubling_kernel(conv.weight)), conv.bias))


class GroupMean(nn.Module):
    """Parameter-free shortcut on the way down (2.2): space and time folded into channels, then averaged."""

    def __init__(self, channels_out: int, factor_t: int, factor_s: int) -> None:
        super().__init__()
        self.channels_out, self.factor_t, self.factor_s = channels_out, factor_t, factor_s

    def forward(self, x: Tensor) -> Tensor:
        ft, fs = self.factor_t, self.factor_s
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % ft, 0))  # the stream's first frame is paired with zeros before it
        x = x.unflatten(2, (-1, ft)).unflatten(4, (-1, fs)).unflatten(6, (-1, fs))  # b c t ft h fs w fs
        x = x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
        return x.unflatten(1, (self.channels_out, -1)).mean(dim=2)


class Repeat(nn.Module):
    """Parameter-free shortcut on the way up (2.2): channels repeated and unfolded into space and time."""

    def __init__(self, channels_in: int, channels_out: int, factor_t: int, factor_s: int) -> None:
        super().__init__()
        self.factor_t, self.factor_s = factor_t, factor_s
        self.repeats = channels_out * factor_t * factor_s * factor_s // channels_in

    def forward(self, x: Tensor, first: bool) -> Tensor:
        ft, fs = self.factor_t, self.factor_s
        x = x.repeat_interleave(self.repeats, dim=1).unflatten(1, (-1, ft, fs, fs))  # b c ft fs fs t h w
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(2, 3).flatten(3, 4).flatten(4, 5)
        return x[:, :, ft - 1 :] if first else x


def frames_as_batch(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """[B, C, F, H, W] -> [B * F, C, H, W], and the function that brings such a batch back.  No copies."""
    clips = x.shape[0]
    frames = x.transpose(1, 2).flatten(0, 1)
    return frames, lambda y: y.unflatten(0, (clips, -1)).transpose(1, 2)
