"""Convolutions of pictures and videos with half the multiplications, for a CPU: Winograd's F(4, 3) along the rows.

Four rows of a result need six rows of the input.  Six sums of those rows (ANALYSIS) meet six sums of the kernel's
three rows (KERNEL), and four sums of the six products (SYNTHESIS) are the result: 6 products where the plain way takes
12.  What is left of the kernel, time and columns, is an ordinary 2-D convolution of each product, which torch has a
fast kernel for; so three temporal taps need no copies of their frames either.

The points of evaluation 0, +-sqrt(1/2), +-sqrt(2) keep the rounding error at 1.4 (96 channels) to 2.5 times (384)
that of the plain convolution, which is 4e-7 of the result; the usual 0, +-1, +-2 have 2 to 3.6 times.

Shape legend: F frames, H rows, W columns, C channels in, O out; R row tiles of four rows; 6 the points.
Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015); Barabasz et al., "Error analysis and
improving the accuracy of Winograd convolution for deep neural networks" (2018), for the choice of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 4  # of the result in a tile
POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2.0**0.5, -(2.0**0.5))  # and infinity
GROUP_ELEMENTS = 6_000_000  # of a group of tiles between the steps: about what a processor's cache holds
LEAST_CHANNELS = 48  # below, the sums cost what the products save


@lru_cache(maxsize=1)
def transforms() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ANALYSIS [6, 6], KERNEL [6, 3], SYNTHESIS [4, 6] and, for a bias, the six numbers that SYNTHESIS turns into ones.

    SYNTHESIS and KERNEL evaluate polynomials at the points; ANALYSIS is what makes the products add up to the
    convolution.  Its rows are scaled to about length 1 by powers of two, which cost no accuracy.  All float64.
    """
    with torch.inference_mode(False):
        points = torch.tensor(POINTS, dtype=torch.float64)
        synthesis, kernel = (_evaluate(points, powers) for powers in (ROWS, 3))
        products = torch.einsum("ip,kp->ikp", synthesis, kernel).flatten(0, 1)  # [4 * 3, 6]
        wanted = torch.stack([torch.eye(6, dtype=torch.float64)[i + k] for i in range(ROWS) for k in range(3)])
        analysis = torch.linalg.lstsq(products, wanted).solution
        scale = torch.exp2(analysis.norm(dim=1).log2().round())[:, None]
        ones = torch.linalg.pinv(synthesis).sum(1)
        return analysis / scale, kernel.T * scale, synthesis, ones


def _evaluate(points: Tensor, powers: int) -> Tensor:
    """[powers, 6]: the points' powers, and infinity, which sees only the highest."""
    at_infinity = torch.zeros(powers, 1, dtype=torch.float64)
    at_infinity[-1] = 1
    return torch.cat((points[None] ** torch.arange(powers)[:, None], at_infinity), dim=1)


def suits_rows(x: Tensor, layer: nn.Conv3d) -> bool:
    """Whether conv_rows is right for a layer and faster: [taps, 3, 3], wide enough, float32, on a CPU, no training."""
    fits = layer.kernel_size[1:] == (3, 3) and layer.in_channels >= LEAST_CHANNELS
    return fits and x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


class RowKernel:
    """A layer's kernel and bias, ready for conv_rows.

    weight: [O, C, taps over time, 3, 3] float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        out, channels, taps = weight.shape[:3]
        flat = weight.permute(3, 0, 2, 4, 1).reshape(3, -1)
        points = torch.mm(transforms()[1].float(), flat).view(6, out, taps, 3, channels)
        self.points = points.permute(0, 1, 4, 2, 3)  # [6, O, C, taps, 3], channels innermost
        self.biases = transforms()[3].float()[:, None] * bias  # [6, O]

    def convolve(self, tiles: Tensor, taps: int) -> Tensor:
        """Analysed tiles [6, R, F + taps - 1, W, C] -> products [6, R, F, W, O] by the newest taps over time."""
        pictures, weights = tiles.permute(0, 1, 4, 2, 3), self.points[:, :, :, -taps:]
        done = [
            F.conv2d(point, weight, bias, padding=(0, 1))
            for point, weight, bias in zip(pictures, weights, self.biases, strict=True)
        ]
        return torch.stack(done).permute(0, 1, 3, 4, 2)


def conv_rows(frames: Sequence[Tensor], kernel: RowKernel, out: Tensor) -> None:
    """Convolve a run of frames, each [H, W, C] and contiguous, into out [F, H, W, O]; rows and columns are padded
    with zeros.  frames: F of them and, before them, as many as there are further taps over time; the newest taps are
    used."""
    height, width, channels = frames[0].shape
    taps = 1 + len(frames) - out.shape[0]
    rows = [frame.flatten(1) for frame in frames]  # [H, W * C]
    results = [frame.flatten(1) for frame in out]  # [H, W * O]
    tiles = -(-height // ROWS)
    group = max(1, GROUP_ELEMENTS // (6 * len(frames) * width * channels))
    for start in range(0, tiles, group):
        mine = range(start, min(tiles, start + group))
        analysed = frames[0].new_empty(6, len(mine), len(frames), width * channels)
        for place, tile in enumerate(mine):
            for frame, values in enumerate(rows):
                _analyse(values, tile, analysed[:, place, frame])
        products = kernel.convolve(analysed.unflatten(-1, (width, channels)), taps).flatten(-2)
        for place, tile in enumerate(mine):
            for frame, values in enumerate(results):
                _synthesise(products[:, place, frame], tile, values)


def _analyse(rows: Tensor, tile: int, out: Tensor) -> None:
    """Sums of the six rows around a tile -> out [6, W * C]; rows outside of the picture are zeros."""
    first = tile * ROWS - 1
    inside = range(max(first, 0), min(first + 6, rows.shape[0]))
    columns = slice(inside.start - first, inside.stop - first)
    torch.mm(_float(0)[:, columns], rows[inside.start : inside.stop], out=out)


def _synthesise(products: Tensor, tile: int, rows: Tensor) -> None:
    """Sums of the six products [6, W * O] -> the tile's rows, of which the last tile may have fewer than four."""
    mine = rows[tile * ROWS : (tile + 1) * ROWS]
    torch.mm(_float(2)[: mine.shape[0]], products, out=mine)


@lru_cache(maxsize=3)
def _float(which: int) -> Tensor:
    with torch.inference_mode(False):
        return transforms()[which].float()
