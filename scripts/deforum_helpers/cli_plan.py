"""The commands `plan` and `check-model`, which need neither torch nor the isolated environment."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from .checkpoints import check_report
from .cli_progress import ReadingShown
from .cli_render import read_settings
from .errors import ModelError
from .init_video import init_video, notes_on
from .lead import lead_of
from .model_files import ModelInfo, inspect_models
from .planning.seeds import resolve_seed
from .preflight import find_model, given_pictures, isolated_ffmpeg
from .settings import RenderSettings
from .timeline import Clip, Plan, plan, plan_to_dict
from .variants import VARIANTS, Variant
from .wan_integration import model_search_folders

_LONGEST_PROMPT = 60
_HEADINGS = ("clip", "frames", "count", "generated", "starts from", "seed", "steps", "guidance", "prompt")
_LEFT = {"frames", "starts from", "prompt"}


def show_plan(arguments: argparse.Namespace) -> int:
    """Print the clips of a settings file, as a table or as JSON."""
    settings, notes = read_settings(arguments.settings, arguments)
    decided = plan(settings, _variant(settings), resolve_seed(settings.seed), lead_of(settings))
    given_pictures(settings)
    source = init_video(settings, isolated_ffmpeg())
    for note in (*notes, *decided.notes, *(notes_on(settings, source) if source else ())):
        print(f"note: {note}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(plan_to_dict(decided), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print("\n".join(plan_lines(decided)))
    return 0


def _variant(settings: RenderSettings) -> Variant:
    """The row to plan for: of the model, or by its name alone where its weights aren't there."""
    wanted = settings.model.strip()
    try:
        return find_model(wanted, model_search_folders(), picture=settings.starts_from_picture).row
    except ModelError:
        if wanted in VARIANTS:
            return VARIANTS[wanted]
        raise


def plan_lines(decided: Plan) -> list[str]:
    """The plan as a table for people."""
    rows = [_HEADINGS, *(_row(clip) for clip in decided.clips)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if heading in _LEFT else cell.rjust(width)
            for cell, width, heading in zip(row, widths, _HEADINGS, strict=True)
        )  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    seconds = decided.max_frames / decided.fps
    clips, shots = len(decided.clips), decided.clips[-1].shot + 1
    lines.append(
        f"{decided.max_frames} frames, {seconds:.2f} s at {decided.fps:g} fps, {decided.width}x{decided.height}, "
        f"{clips} clip{'s' if clips > 1 else ''} in {shots} shot{'s' if shots > 1 else ''}, "
        f"motion at {decided.motion_fps:g} fps, seed {decided.seed}, {decided.variant}"
    )
    return lines


def _row(clip: Clip) -> tuple[str, ...]:
    said = [f"{span.start_frame}: {span.said}" if clip.spans else span.said for span in clip.heard]
    prompt = "; ".join(_cut(text) for text in said)
    start = {"noise": "nothing", "latents": f"{clip.prefix_latents} latents",
             "image": "init_video" if clip.video_picture else "a picture",
             "frames": f"{clip.dropped_frames} frames"}[clip.start]  # fmt: skip
    return (
        str(clip.index), f"{clip.start_frame}-{clip.end_frame - 1}", str(clip.end_frame - clip.start_frame),
        str(clip.num_frames), start, str(clip.seed), str(clip.num_inference_steps), f"{clip.guidance_scale:g}", prompt,
    )  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PROMPT else f"{text[: _LONGEST_PROMPT - 3]}..."


def check_model(arguments: argparse.Namespace) -> int:
    """Print what a folder holds.  Returns 0 if every model in it is whole, else 3."""
    models = inspect_models(arguments.folder)

    reading = ReadingShown(sys.stderr)
    reports = [check_report(model, arguments.hashes, reading) for model in models]
    reading.clear()
    if arguments.json:
        _print_objects([data for _, data in reports])
    else:
        print("\n\n".join(text for text, _ in reports))
    whole = all(data["complete"] for _, data in reports)
    if not whole:
        print(f"error: {_first_fault(models, [data for _, data in reports])}", file=sys.stderr)
    return 0 if whole else ModelError.exit_code


def _first_fault(models: Sequence[ModelInfo], reports: Sequence[dict[str, Any]]) -> str:
    """What a render would say, or which file isn't as it was published."""
    for model, data in zip(models, reports, strict=True):
        try:
            model.require()
        except ModelError as error:
            return error.one_line()
        if data["problems"]:
            return data["problems"][0]
    return "not complete"


def _print_objects(objects: Sequence[dict[str, object]]) -> None:
    """One model is one object; several are a list in one."""
    whole = objects[0] if len(objects) == 1 else {"models": list(objects)}
    print(json.dumps(whole, ensure_ascii=False, indent=2, allow_nan=False))
