"""Pictures that the video shows at given frames, and how its clips come to them.

A clip starts from each picture.  Where the model takes a last frame as well, the clip before it ends in it, so that
the video flows into the picture; where it doesn't, there is a cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

from ..errors import SettingsError, first_few
from ..schedules import key_frame
from ..settings import RenderSettings
from ..settings_fields import named_files
from ..variants import Variant
from .camera import Camera
from .expressions import Place
from .stream import Start, Stretch

_FIELD = "init_images"
_MOST_NAMED = 5


def keyframe_images(settings: RenderSettings, seed: int, notes: list[str]) -> dict[int, str]:
    """Frame -> picture, init_image among them.  Raises ScheduleError for a key that can't be read."""
    images = {0: settings.init_image} if settings.init_image else {}
    for key, path in named_files(settings.init_images, _FIELD).items():
        frame = key_frame(key, Place(_FIELD, key), settings.max_frames, seed)
        if not 0 <= frame < settings.max_frames:
            notes.append(f"{_FIELD}: frame {frame} lies outside the video, so its picture is not shown")
        else:
            if frame in images:
                notes.append(f"{_FIELD}: more than one picture for frame {frame}; the last one counts")
            images[frame] = path
    return dict(sorted(images.items()))


def check_images(images: dict[int, str], settings: RenderSettings, variant: Variant) -> None:
    """Refuse pictures that the model can't start from.  Raises SettingsError."""
    field = _FIELD if named_files(settings.init_images, _FIELD) else "init_image"
    if images and not variant.image_input:
        raise SettingsError(
            f"{variant.title} takes no picture", where=field, got=next(iter(images.values())),
            next_step="leave it empty or choose an image-to-video model",
        )  # fmt: skip
    if 0 in images and settings.continue_from and variant.text_input:
        raise SettingsError(
            "a video starts from a picture or from a job, not from both", where="continue_from",
            got=settings.continue_from, next_step="leave one of them empty",
        )  # fmt: skip
    if 0 not in images and not (settings.continue_from or settings.init_video) and not variant.text_input:
        raise SettingsError(
            f"{variant.title} needs a picture to start from", where="init_image",
            next_step="give one or choose a text-to-video model",
        )  # fmt: skip


def with_images(
    stretches: list[Stretch], images: dict[int, str], variant: Variant, camera: Camera | None,
    follows_video: Callable[[int], bool], notes: list[str],
) -> list[Stretch]:  # fmt: skip
    """Let shots start from their pictures, and clips end in the next shot's where the model can.

    Every shot of a model that can't start from noise starts from the last picture before it, else from what the init
    video shows then.  follows_video: whether a clip that starts at a frame is drawn over one.
    Raises SettingsError where there is neither.
    """
    begun = _begun(stretches, images, variant, follows_video, notes)
    given, cut_to = list(begun), []
    for index, (former, following) in enumerate(pairwise(begun)):
        if not (following.picture and following.start in images):
            continue
        moves = camera is not None and camera.moves(former.start, former.end)
        if variant.last_image_input and not moves:
            given[index] = dataclasses.replace(former, end_picture=following.picture)
        else:
            cut_to.append(following.start)
    if cut_to:
        why = "where the camera moves" if variant.last_image_input else f"{variant.title} is given no last frame, so"
        notes.append(f"{_FIELD}: {why} the video cuts to the picture, at frame {first_few(cut_to, _MOST_NAMED)}")
    return given


def _begun(
    stretches: list[Stretch], images: dict[int, str], variant: Variant, follows_video: Callable[[int], bool],
    notes: list[str],
) -> list[Stretch]:  # fmt: skip
    """Every shot with what it starts from, see with_images."""
    given, again, of_video = [], 0, []
    for stretch in stretches:
        if stretch.kind == "noise":
            picture = images.get(stretch.start, "")
            if not picture and not variant.text_input:
                picture = next((path for frame, path in reversed(images.items()) if frame <= stretch.start), "")
                again += bool(picture)
                if not picture and follows_video(stretch.start):
                    of_video.append(stretch.start)
                elif not picture:
                    raise _nothing_to_start_from(stretch.start, variant)
            from_video = not variant.text_input and not picture
            kind: Start = "image" if picture or from_video else "noise"
            stretch = dataclasses.replace(stretch, kind=kind, picture=picture, video_picture=from_video)
        given.append(stretch)
    if again:
        notes.append(f"init_image: {variant.title} can't start from nothing, so {again} more shots start from it")
    if of_video:
        notes.append(
            f"init_video: {variant.title} starts from pictures and none is given, so what the video shows at frame"
            f" {first_few(of_video, _MOST_NAMED)} is one"
        )
    return given


def _nothing_to_start_from(frame: int, variant: Variant) -> SettingsError:
    if frame == 0:  # of an init video whose strength is 0 there
        return SettingsError(
            f"{variant.title} needs a picture to start from", where="init_image",
            next_step="give one, or a video_strength above 0 at frame 0",
        )  # fmt: skip
    return SettingsError(
        f"{variant.title} can't start a shot from nothing, as the hard cut at frame {frame} asks", where="init_image",
        next_step="give a picture for the hard cuts, or take them out",
    )  # fmt: skip
