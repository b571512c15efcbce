"""What can be known to go wrong, found before the long work begins.  It makes the output folder, and no file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .atomic_files import check_output_folder
from .checkpoints import ModelInfo, find_models, resolve_model, sample_into
from .errors import InputError, SettingsError
from .hashing import sha256_of
from .init_video import init_video, notes_on
from .job_files import job_files, new_timestring
from .lead import Lead, lead_of
from .lora_files import UsedLora, used_loras
from .planning.seeds import resolve_seed
from .settings import RenderSettings, settings_to_dict
from .settings_fields import named_files
from .timeline import Plan, plan
from .variants import DEMO, VAES
from .video.ffmpeg import check_soundtrack, find_ffmpeg
from .video.frames import read_png
from .video.source import Source
from .video_io import VideoOptions, check_options
from .wan_isolated_env import environment_root

_PNG_SHARE = 0.6  # of the raw picture's size, for filmed material
_SLACK = 1.1


@dataclass(frozen=True)
class Checked:
    """Settings that can be rendered.

    identity: of the weights.  pictures: path -> sha256.
    video: how it is written, None = not at all.  ffmpeg: what writes it.  source: settings.init_video.
    """

    settings: RenderSettings
    plan: Plan
    model: ModelInfo
    identity: str
    pictures: dict[str, str]
    video: VideoOptions | None
    ffmpeg: str
    lead: Lead | None = None
    loras: tuple[UsedLora, ...] = ()
    source: Source | None = None


def check_render(
    settings: RenderSettings,
    out_dir: Path,
    *,
    model: ModelInfo,
    seed: int | None = None,
    lora_places: Sequence[Path] = (),
) -> Checked:
    """Make sure that a render can be begun and ended.

    model: of `find_model`.  seed: of the job that is resumed; None = as the settings say.
    lora_places: folders that LoRAs are named in.
    Raises InputError, SetupError or ModelError.
    """
    ffmpeg = isolated_ffmpeg()
    resolved = resolve_seed(settings.seed) if seed is None else seed
    lead = lead_of(settings)
    decided = plan(settings, model.row, resolved, lead)
    loras = used_loras(settings, model, lora_places)
    decided.notes.extend(f"loras: {lora.note}" for lora in loras if lora.note)
    job_files(out_dir, settings.batch_name, new_timestring())
    source = init_video(settings, ffmpeg)
    decided.notes.extend(notes_on(settings, source) if source else ())
    pictures = checked_pictures(settings)
    if settings.soundtrack:
        check_soundtrack(settings.soundtrack, ffmpeg)
    video = None if settings.skip_video_creation else video_options(settings, resolved, model)
    if video:
        check_options(video, ffmpeg)
    elif settings.make_gif:
        find_ffmpeg(ffmpeg)
    check_output_folder(out_dir, bytes_needed(decided, model))
    return Checked(settings, decided, model, weights_identity(model), pictures, video, ffmpeg, lead, loras, source)


def find_model(wanted: str, folders: Sequence[Path], *, picture: bool = False) -> ModelInfo:
    """The model to render with, whole.

    wanted: a folder, a file or a name; "" = the first one that can start so, else the demo.
    picture: whether the first clip starts from a picture rather than from text.
    Raises ModelError.
    """
    if not wanted.strip():
        able = [model for model in find_models(folders) if model.complete and _can_start(model, picture)]
        if able:
            return min(able, key=lambda model: model.variant == DEMO)
    return resolve_model(wanted, folders).require()


def _can_start(model: ModelInfo, picture: bool) -> bool:
    return model.row.image_input if picture else model.row.text_input


def video_options(settings: RenderSettings, seed: int, model: ModelInfo) -> VideoOptions:
    first = next(iter(settings.prompts.values()), "")
    told = {**settings_to_dict(settings), "seed": seed, "model": settings.model or model.name}
    return VideoOptions(
        fps=settings.fps,
        codec=settings.codec,
        crf=settings.crf,
        preset=settings.ffmpeg_preset,
        soundtrack=settings.soundtrack,
        metadata={"title": first[:200], "comment": json.dumps(told, ensure_ascii=False)},
    )


def bytes_needed(decided: Plan, model: ModelInfo) -> int:
    """Room that a job takes at most: native frames and latents until it is done, PNGs, the video."""
    vae, pixels = VAES[model.row.vae], decided.width * decided.height * 3
    native = sum(clip.new_frames for clip in decided.clips)
    latents = sum(clip.latent_frames for clip in decided.clips)
    latent_bytes = 4 * vae.z_dim * (decided.width // vae.spatial_stride) * (decided.height // vae.spatial_stride)
    pictures = decided.max_frames * pixels * _PNG_SHARE
    return int(_SLACK * (native * pixels + latents * latent_bytes + pictures))


def beside(path: str, folder: Path) -> str:
    """A path of a settings file: as it is where it leads somewhere, else taken from the settings file's own folder."""
    if path and not Path(path).expanduser().exists() and (folder / path).exists():
        return str((folder / path).absolute())
    return path


def checked_pictures(settings: RenderSettings) -> dict[str, str]:
    """sha256 of every picture given, and of the init video, by path.  Raises SettingsError for what can't be read."""
    hashes = given_pictures(settings)
    if settings.init_video:
        hashes[settings.init_video] = _checked_video(settings.init_video)
    return hashes


def given_pictures(settings: RenderSettings) -> dict[str, str]:
    """sha256 of every picture given, by path.  Raises SettingsError for what can't be read."""
    named = dict.fromkeys(named_files(settings.init_images, "init_images").values(), "init_images")
    if settings.init_image:
        named[settings.init_image] = "init_image"
    return {path: checked_picture(path, where) for path, where in named.items()}


def checked_picture(path: str, where: str) -> str:
    """sha256 of a picture that can be read.  where: the field that names it."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise SettingsError(
            "there is no such picture", where=where, got=path, next_step="check the path, or leave it empty"
        )
    try:
        read_png(place)
    except InputError as error:
        raise SettingsError(error.what, where=where, got=path, next_step="choose another picture") from error
    return hashlib.sha256(place.read_bytes()).hexdigest()


def _checked_video(path: str) -> str:
    try:
        return sha256_of(Path(path).expanduser())
    except OSError as error:
        raise SettingsError("can't be read", where="init_video", got=f"{path}: {error.strerror}") from error


def weights_identity(model: ModelInfo) -> str:
    """A hash that changes with the weights, not with their folder: samples of every file, for they may be 60 GB."""
    digest = hashlib.sha256(model.variant.encode())
    files = sorted((name, str(file)) for name, part in model.parts.items() for file in part.files)
    for name, file in files:
        path = Path(file)
        digest.update(f"{name}/{path.name}".encode())
        if path.is_file():
            sample_into(digest, path)
    return digest.hexdigest()


def isolated_ffmpeg() -> str:
    """The ffmpeg that the isolated environment brings, the same one under any interpreter; "" if there is none."""
    venv = environment_root() / "venv"
    packages = [*venv.glob("lib/python3*/site-packages"), venv / "Lib" / "site-packages"]
    found = [file for folder in packages for file in sorted(folder.glob("imageio_ffmpeg/binaries/ffmpeg-*"))]
    return str(found[0]) if found else ""
