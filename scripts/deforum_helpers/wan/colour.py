"""Colours that stay: each clip of a shot is brought back to the colours of the shot's first one, its anchor.

Whatever chain of clips drifts, because each one starts from what the last one made.  What is corrected here is the
latents, before they are decoded and before the next clip starts from them, so that a drift never adds up:

    look     a picture of a clip in which nothing moves: the median of its frames, at an eighth of the size
    fit      one affine map of colours per clip, from its look to the anchor's, over the places where both show the
             same; what moves, comes in or is uncovered is an outlier and counts for nothing
    ramp     the map sets in from the join on and is whole in the clip's middle: no seam, and nothing that flickers
    back     the latents change by what the encoder makes of it, encode(mapped frames) - encode(frames), and somewhat
             more, since the decoder shows less of it than was put in

A map is believed in so far as the whole picture shares it: where two looks have little in common (a camera that has
moved on), chance differences are as large as a drift, and little or nothing is done.  What is larger than any drift is
another scene: it is left alone, and becomes the anchor.

Shape legend: F frames, T latent frames, H, W pixels, r, c rows and columns of a look; pixels are in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip_files import load_latents
from .vae import TEMPORAL_STRIDE, StreamState, WanVae

LEVEL = 2 / 255  # one grey value
ANOTHER_SCENE = 24 * LEVEL  # a clip that is further off than that is no drift
ASKED_FOR = 6 * LEVEL  # the same for a clip whose prompt is a new one
INDEPENDENT = 16  # places of a picture that differ independently, about: what chance differences average out over
GAINS = (0.8, 1.25)
OUTLIER = 3.0  # times the usual deviation
NO_ANCHOR = torch.empty(3, 0, 0)  # the next clip is it
_POOL = 8
# Brightness and two differences of colour: a drift of contrast or of saturation is a gain there.
_OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


@dataclass(frozen=True)
class Shift:
    """A map of colours as what it adds: x + matrix x + offset.  matrix: [3, 3]; offset: [3].

    size: root mean square of what it would add if it were believed in wholly.
    """

    matrix: Tensor
    offset: Tensor
    size: float

    @property
    def acts(self) -> bool:
        return bool(self.matrix.any() or self.offset.any())

    @classmethod
    def none(cls) -> Shift:
        return cls(torch.zeros(3, 3), torch.zeros(3), 0.0)


def look_of(frames: Tensor) -> Tensor:
    """[3, F, H, W] -> [3, r, c] float32 on the CPU."""
    small = F.avg_pool2d(frames.transpose(0, 1).float(), _POOL)
    return small.median(dim=0).values.cpu()


def fit_shift(look: Tensor, anchor: Tensor) -> Shift:
    """The map that brings a look to the anchor's colours, as far as it can be believed in.  Both [3, r, c].

    Gains are ratios of spreads, as Reinhard et al. transfer colours (2001), not slopes: where nothing lies in the same
    place any more, a slope would take the contrast away.
    """
    own, wanted = (_OPPONENT @ x.flatten(1).float() for x in (look, anchor))
    same = _same_places(wanted - own)
    own, wanted = own[:, same], wanted[:, same]
    spreads = own.std(dim=1), wanted.std(dim=1)
    gain = torch.where(torch.minimum(*spreads) > 2 * LEVEL, spreads[1] / spreads[0].clamp_min(1e-6), 1.0).clamp(*GAINS)
    offset = wanted.mean(dim=1) - gain * own.mean(dim=1)
    mapped = gain[:, None] * own + offset[:, None]
    added, left = (mapped - own).square().mean(), (wanted - mapped).square().mean()
    trust = float((1 - left / (INDEPENDENT * added.clamp_min(1e-12))).clamp(0, 1))
    back = torch.linalg.inv(_OPPONENT)
    matrix = back @ torch.diag(gain - 1) @ _OPPONENT
    return Shift(trust * matrix, trust * (back @ offset), float(added.sqrt()))


def _same_places(difference: Tensor) -> Tensor:
    """Where two looks show the same thing, up to a change of colour.  difference: [3, places] -> bool [places]."""
    same = torch.ones(difference.shape[1], dtype=torch.bool)
    for _ in range(3):
        kept = difference[:, same]
        centre = kept.median(dim=1, keepdim=True).values
        usual = (1.4826 * (kept - centre).abs().median(dim=1, keepdim=True).values).clamp_min(LEVEL / 2)
        same = ((difference - centre).abs() <= OUTLIER * usual).all(dim=0)
    return same


def shifted(frames: Tensor, shifts: Sequence[Shift], held: int) -> Tensor:
    """Frames [3, F, H, W] with the maps set in bit by bit.

    shifts: one for each of as many equal parts of the clip, reached in the middle of it.  held: frames that stay.
    """
    count = frames.shape[1] - held
    at = torch.cat((torch.zeros(held), torch.arange(1, count + 1) / count * len(shifts)))
    at = at.floor() + (2 * at.frac()).clamp_max(1)
    knots = [Shift.none(), *shifts]
    weights = torch.stack([(1 - (at - k).abs()).clamp_min(0) for k in range(len(knots))], dim=1)  # [F, knots]
    matrix = torch.einsum("fk,kab->fab", weights, torch.stack([knot.matrix for knot in knots])).to(frames)
    offset = torch.einsum("fk,ka->af", weights, torch.stack([knot.offset for knot in knots])).to(frames)
    return (frames + torch.einsum("fab,bfhw->afhw", matrix, frames) + offset[..., None, None]).clamp(-1, 1)


def shifts_of_parts(frames: Tensor, anchor: Tensor | None, parts: int) -> tuple[list[Shift], Tensor]:
    """One map for each part of a clip's new frames, and the anchor from here on.

    anchor: None = the first part is it.
    """
    ends = [round(frames.shape[1] * k / parts) for k in range(parts + 1)]
    shifts: list[Shift] = []
    for start, end in pairwise(ends):
        look = look_of(frames[:, start:end])
        shift = Shift.none() if anchor is None else fit_shift(look, anchor)
        if anchor is None or shift.size > ANOTHER_SCENE:
            anchor, shift = look, Shift.none()
        shifts.append(shift)
    assert anchor is not None
    return shifts, anchor


def shift_latents(
    vae: WanVae, frames: Tensor, shifts: Sequence[Shift], held: int, goes_on: bool, reply: float = 1.0
) -> Tensor:
    """What latents [1, z, T, h, w] have to change by so that their frames [3, F, H, W] have the maps set in.

    It is read at half the size, a quarter of the work: a change of colours is as smooth there.
    goes_on: they go on a stream, so that the first latent is four frames and not one; a frame is put in front for the
    encoder to begin with.  reply: times what is read, see Variant.colour_reply.
    """
    stride = vae.config.spatial_stride
    rows, columns = (side // stride for side in frames.shape[2:])
    small = F.interpolate(
        frames.transpose(0, 1).float(), (max(1, rows // 2) * stride, max(1, columns // 2) * stride), mode="area"
    ).transpose(0, 1)
    if goes_on:
        small, held = torch.cat((small[:, :1], small), dim=1), held + 1
    before, after = vae.encode(torch.stack((small, shifted(small, shifts, held))))
    change = reply * (after - before)[:, int(goes_on) :]
    return F.interpolate(change.transpose(0, 1), (rows, columns), mode="bilinear").transpose(0, 1)[None]


def decoded(vae: WanVae, latents: Tensor, state: StreamState) -> Tensor:
    """Frames [3, F, H, W] in host memory, half precision.  The state isn't touched."""
    return torch.cat([chunk[0].half().cpu() for chunk in vae.decode(latents, state.copy())], dim=1)


def keeps_anchor(frames: Tensor, anchor: Tensor) -> bool:
    """Whether a clip whose prompt is a new one still ends in the anchor's colours.  frames: [3, F, H, W]."""
    end = max(TEMPORAL_STRIDE, frames.shape[1] // 4)
    return fit_shift(look_of(frames[:, -end:]), anchor).size <= ASKED_FOR


def anchor_of(vae: WanVae, file: Path, device: torch.device) -> Tensor | None:
    """The look that the clip after the one in this file is held to; None if that clip is to be the anchor itself.

    A file that names none is its own: the first clip of a shot, or one of a job that let colours go.
    """
    look = load_latents(file, "anchor")
    if look is not None:
        return look[0] if look.numel() else None
    return look_of(decoded(vae, load_latents(file).to(device), StreamState()))
