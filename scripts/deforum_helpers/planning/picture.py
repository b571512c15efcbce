"""A plan as a picture: prompts, clips, shots and cuts, and the curves of what is scheduled.  SVG text, nothing else.

It takes its colours from the page around it (currentColor and a few custom properties), so that it suits light and
dark.  Every part carries a title, which browsers show on hover.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise

from ..timeline import Plan

WIDTH = 1000  # of a picture whose page hasn't told its own
_LEFT, _RIGHT = 92.0, 12.0
_PROMPTS, _CLIPS, _CURVE, _GAP, _AXIS = 30.0, 26.0, 34.0, 5.0, 28.0
_NAMES = {
    "guidance_scale": "guidance",
    "strength": "strength",
    "shift": "shift",
    "num_inference_steps": "steps",
}
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_TICK_ROOM = 58  # from one tick's numbers to the next
_MOST_POINTS = 800  # of a curve: more than the picture has pixels to show
_MOST_CLIPS = 400  # drawn one by one; beyond, neighbours of a shot are drawn as one
_SHOT_COLOURS = 6


@dataclass(frozen=True)
class Canvas:
    """A plan and the width that it is drawn for, in pixels: letters keep their size whatever it is."""

    plan: Plan
    width: float

    def x(self, frame: float) -> float:
        return _LEFT + (self.width - _LEFT - _RIGHT) * frame / self.plan.max_frames

    def time(self, frame: int) -> str:
        return f"{frame / self.plan.fps:.2f} s"


def timeline_svg(plan: Plan, *, playhead: int | None = None, failed: int | None = None, width: int = WIDTH) -> str:
    """Draw a plan.

    playhead: output frame that a running job is at.  failed: index of a clip to mark.  width: in pixels.
    Returns one <svg> element.
    """
    on = Canvas(plan, float(width))
    curves = [(name, values) for name, values in plan.schedules.items() if name in _NAMES and _varies(values)]
    rows = [_PROMPTS, _CLIPS, *[_CURVE] * len(curves)]
    height = sum(rows) + _GAP * len(rows) + _AXIS
    body, top = [_grid(on, height)], 0.0
    body.append(_labelled("prompts", top, _PROMPTS, _prompts(on, top)))
    top += _PROMPTS + _GAP
    body.append(_labelled("clips", top, _CLIPS, _clips(on, top, failed)))
    top += _CLIPS + _GAP
    for name, values in curves:
        body.append(_labelled(_NAMES[name], top, _CURVE, _curve(on, name, values, top)))
        top += _CURVE + _GAP
    body.append(_cuts(on, height - _AXIS))
    if playhead is not None:
        x = on.x(min(max(playhead, 0), plan.max_frames))
        body.append(f'<line class="dw-playhead" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _AXIS:.1f}"/>')
    seconds = plan.max_frames / plan.fps
    label = f"{plan.max_frames} frames, {seconds:.2f} s, {len(plan.clips)} clips"
    return (
        f'<svg class="dw-timeline" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}" '
        f'data-frames="{plan.max_frames}" data-fps="{plan.fps:g}" data-left="{_LEFT:g}" data-right="{_RIGHT:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def _varies(values: Sequence[float]) -> bool:
    return min(values) != max(values)


def _labelled(name: str, top: float, height: float, content: str) -> str:
    middle = top + height / 2
    return f'<g><text class="dw-label" x="0" y="{middle:.1f}">{name}</text>{content}</g>'


def _box(x: float, end: float, top: float, height: float, css: str, title: str, text: str = "") -> str:
    """A rounded box with a title, and as much of a text as has room (about 6 units a letter)."""
    width = max(1.0, end - x - 1.0)
    room = int((width - 10) / 6)
    shown = text if len(text) <= room else f"{text[: room - 1].rstrip()}…" if room > 3 else ""
    words = f'<text class="dw-text" x="{x + 6:.1f}" y="{top + height / 2:.1f}">{escape(shown)}</text>' if shown else ""
    return (
        f'<g class="{css}"><title>{escape(title)}</title>'
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:g}" rx="3"/>{words}</g>'
    )


def _prompts(on: Canvas, top: float) -> str:
    """One box for each run of frames under one prompt, or in which one gives way to the next."""
    out = []
    spans = (span for clip in on.plan.clips for span in clip.heard)
    for _, run in groupby(spans, key=lambda span: (span.said, span.negative_prompt, span.mode)):
        first, *others = run
        start, end = first.start_frame, (others or [first])[-1].end_frame
        title = f"frame {start} ({on.time(start)}) to {end - 1}\n{first.said}"
        title += f"\n{first.mode}" if first.mode else ""
        title += f"\nnot: {first.negative_prompt}" if first.negative_prompt else ""
        x, behind = on.x(start), on.x(end)
        if first.mode:
            bottom = top + _PROMPTS
            wedge = f"{x:.1f},{bottom:.1f} {behind - 1:.1f},{bottom:.1f} {behind - 1:.1f},{top:.1f}"
            box = _box(x, behind, top, _PROMPTS, "dw-prompt dw-travel", title)
            out.append(box.replace("</g>", f'<polygon points="{wedge}"/></g>'))
        else:
            out.append(_box(x, behind, top, _PROMPTS, "dw-prompt", title, first.prompt))
    return "".join(out)


def _clips(on: Canvas, top: float, failed: int | None) -> str:
    clips = on.plan.clips
    every = len(clips) > _MOST_CLIPS
    return "".join(_merged_clips(on, top) if every else (_clip(on, index, top, failed) for index in range(len(clips))))


def _clip(on: Canvas, index: int, top: float, failed: int | None) -> str:
    clip = on.plan.clips[index]
    former = " of the job before" if on.plan.lead_frames and index == 0 else ""
    start = {
        "noise": "from nothing",
        "latents": f"goes on from {clip.prefix_latents} latents{former}",
        "frames": f"goes on from {clip.dropped_frames} frames",
        "image": "from a frame of init_video" if clip.video_picture else f"from a picture{former}",
    }
    title = (
        f"clip {index + 1}: frames {clip.start_frame} to {clip.end_frame - 1}"
        f" ({on.time(clip.start_frame)} to {on.time(clip.end_frame)})\n"
        f"{clip.num_frames} generated, {start[clip.start]}\nseed {clip.seed}, {clip.num_inference_steps} steps,"
        f" guidance {clip.guidance_scale:g}, shift {clip.shift:g}, {clip.solver}"
    )
    css = f"dw-clip dw-shot-{clip.shot % _SHOT_COLOURS}" + (" dw-failed" if index == failed else "")
    return _box(on.x(clip.start_frame), on.x(clip.end_frame), top, _CLIPS, css, title, str(index + 1))


def _merged_clips(on: Canvas, top: float) -> Iterable[str]:
    """A box a shot, for plans with more clips than can be told apart."""
    for shot in sorted({clip.shot for clip in on.plan.clips}):
        clips = [clip for clip in on.plan.clips if clip.shot == shot]
        title = f"shot {shot + 1}: {len(clips)} clips, frames {clips[0].start_frame} to {clips[-1].end_frame - 1}"
        css = f"dw-clip dw-shot-{shot % _SHOT_COLOURS}"
        start, end = on.x(clips[0].start_frame), on.x(clips[-1].end_frame)
        yield _box(start, end, top, _CLIPS, css, title, f"{len(clips)} clips")


def _curve(on: Canvas, name: str, values: Sequence[float], top: float) -> str:
    """The values over the frames, between their least and greatest, both written beside it."""
    least, most = min(values), max(values)
    step = max(1, len(values) // _MOST_POINTS)
    inner = _CURVE - 8

    def point(frame: int) -> str:
        return f"{on.x(frame + 0.5):.1f},{top + 4 + inner * (1 - (values[frame] - least) / (most - least)):.1f}"

    points = " ".join(point(frame) for frame in [*range(0, len(values), step), len(values) - 1])
    title = f"{name}: {least:g} to {most:g}"
    return (
        f'<g class="dw-curve"><title>{escape(title)}</title>'
        f'<rect x="{_LEFT:g}" y="{top:.1f}" width="{on.width - _LEFT - _RIGHT:g}" height="{_CURVE:g}" rx="3"/>'
        f'<polyline points="{points}"/>'
        f'<text class="dw-range" x="{_LEFT - 6:g}" y="{top + 8:.1f}">{round(most, 2):g}</text>'
        f'<text class="dw-range" x="{_LEFT - 6:g}" y="{top + _CURVE - 7:.1f}">{round(least, 2):g}</text></g>'
    )


def _cuts(on: Canvas, bottom: float) -> str:
    """A mark where a shot ends and the next begins from nothing."""
    out = []
    for before, clip in pairwise(on.plan.clips):
        if clip.shot != before.shot:
            x = on.x(clip.start_frame)
            out.append(
                f'<g class="dw-cut"><title>cut at frame {clip.start_frame} ({on.time(clip.start_frame)})</title>'
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom:.1f}"/></g>'
            )
    return "".join(out)


def _grid(on: Canvas, height: float) -> str:
    """Frame numbers and seconds along the bottom."""
    plan, most = on.plan, max(2.0, (on.width - _LEFT - _RIGHT) / _TICK_ROOM)
    step = next((t for t in _TICKS if plan.max_frames / t <= most), _TICKS[-1] * 2)
    out, bottom = [], height - _AXIS
    for frame in range(0, plan.max_frames + 1, step):
        x = on.x(frame)
        out.append(f'<line class="dw-tick" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom + 3:.1f}"/>')
        out.append(f'<text class="dw-axis" x="{x:.1f}" y="{bottom + 10:.1f}">{frame}</text>')
        out.append(f'<text class="dw-axis dw-seconds" x="{x:.1f}" y="{bottom + 22:.1f}">{frame / plan.fps:.1f}s</text>')
    return "".join(out)
