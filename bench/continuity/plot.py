"""Line charts and contact sheets, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#7f7f7f", "#bcbd22")
_SCALE = 2  # drawn this much larger and shrunk: smooth lines
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 24, 30


@dataclass(frozen=True)
class Chart:
    """Lines over one x axis.  lines: name -> y values (the x values are their numbers).  marks: x of dashed lines."""

    title: str
    lines: Mapping[str, Sequence[float]]
    across: str
    marks: Sequence[float] = field(default_factory=tuple)
    limit: float | None = None


def draw_charts(charts: Sequence[Chart], path: Path, width: int = 720, height: int = 190) -> None:
    """Write the charts under each other as one PNG, with one legend at the bottom."""
    names = list(dict.fromkeys(name for chart in charts for name in chart.lines))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    page = Image.new("RGB", (width * _SCALE, (height * len(charts) + 18 * -(-len(names) // 4) + 8) * _SCALE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=11 * _SCALE)
    for row, chart in enumerate(charts):
        _draw(draw, font, chart, colours, (0, row * height * _SCALE, width * _SCALE, (row + 1) * height * _SCALE))
    for k, name in enumerate(names):
        x, y = (14 + k % 4 * (width // 4)) * _SCALE, (height * len(charts) + 6 + k // 4 * 18) * _SCALE
        draw.line((x, y + 6 * _SCALE, x + 16 * _SCALE, y + 6 * _SCALE), fill=colours[name], width=2 * _SCALE)
        draw.text((x + 22 * _SCALE, y - _SCALE), name, fill="black", font=font)
    page.resize((page.width // _SCALE, page.height // _SCALE), Image.Resampling.LANCZOS).save(path, optimize=True)


def _draw(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, chart: Chart, colours: Mapping[str, str],
    box: tuple[int, int, int, int],
) -> None:  # fmt: skip
    left, top = box[0] + _LEFT * _SCALE, box[1] + _TOP * _SCALE
    right, bottom = box[2] - _RIGHT * _SCALE, box[3] - _BOTTOM * _SCALE
    most = max((max(line, default=0.0) for line in chart.lines.values()), default=1.0)
    most = _rounded_up(max(most, chart.limit or 0.0) or 1.0)
    last = max(1, *(len(line) - 1 for line in chart.lines.values()))
    place = lambda x, y: (left + (right - left) * x / last, bottom - (bottom - top) * y / most)  # noqa: E731
    draw.text((left, box[1] + 4 * _SCALE), chart.title, fill="black", font=font)
    for step in range(5):
        y = most * step / 4
        draw.line((*place(0, y), *place(last, y)), fill="#dddddd", width=_SCALE)
        draw.text((place(0, y)[0] - 6 * _SCALE, place(0, y)[1]), f"{y:.3g}", fill="#555555", font=font, anchor="rm")
    for step in range(0, last + 1, max(1, round(last / 12))):
        draw.text((place(step, 0)[0], bottom + 4 * _SCALE), str(step), fill="#555555", font=font, anchor="mt")
    draw.text((right, bottom + 16 * _SCALE), chart.across, fill="#555555", font=font, anchor="rt")
    for mark in chart.marks:
        draw.line((*place(mark, 0), *place(mark, most)), fill="#eeeeee", width=_SCALE)
    if chart.limit is not None:
        draw.line((*place(0, chart.limit), *place(last, chart.limit)), fill="#000000", width=_SCALE)
    for name, line in chart.lines.items():
        points = [place(x, y) for x, y in enumerate(line)]
        draw.line(points, fill=colours[name], width=2 * _SCALE, joint="curve")


def _rounded_up(most: float) -> float:
    """The least axis end above a value whose four equal parts are round numbers."""
    unit = 10.0 ** np.floor(np.log10(most / 4))
    return float(next(4 * unit * part for part in (1, 2, 2.5, 5, 10) if 4 * unit * part >= most))


def contact_sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path) -> None:
    """One row of frames a line, its caption above it.  Frames: uint8 [H, W, 3], all of one size."""
    height, width = rows[0][1][0].shape[:2]
    most, head = max(len(frames) for _, frames in rows), 14
    page = Image.new("RGB", (most * (width + 2), len(rows) * (height + head + 2)), "white")
    draw = ImageDraw.Draw(page)
    for row, (caption, frames) in enumerate(rows):
        top = row * (height + head + 2)
        draw.text((3, top + 1), caption, fill="black")
        for column, frame in enumerate(frames):
            page.paste(Image.fromarray(frame), (column * (width + 2), top + head))
    page.save(path, optimize=True)
