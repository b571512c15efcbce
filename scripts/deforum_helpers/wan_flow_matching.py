"""One clip, from a prompt to frames: `WanFlowMatchingPipeline.render` is the whole job.

The model itself is in wan/dit.py, the sampling in wan/sampling.py and wan/solvers.py, the autoencoder in
wan/vae.py.

Shape legend: z latent channels, T latent frames of the window, h, w latent rows and columns; B is 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from .errors import InputError, ModelError, OutOfDeviceMemory
from .protocol import ClipRequest, LoraUse, StreamPart
from .wan.clip_files import Pixels, leave_device, load_latents, save_frames, save_latents
from .wan.colour import NO_ANCHOR, anchor_of, decoded, keeps_anchor, shift_latents, shifts_of_parts
from .wan.dit import WanCrossAttention, WanFlowMatchingModel, WanTimeEmbedding, WanTransformerBlock
from .wan.guide import begin_later, guide_latents, load_frames
from .wan.image_condition import image_channels, vace_context
from .wan.loading import Parts
from .wan.pictures import cover, load_picture
from .wan.pinning import GuidedModel, Pin
from .wan.sampling import Prompts, blend_in, guided_model, sample, switch_experts
from .wan.solvers import noise_schedule
from .wan.step_cache import steps_after
from .wan.vae import TEMPORAL_STRIDE, StreamState
from .wan.windows import Joint, closed

__all__ = [
    "RenderedClip",
    "WanCrossAttention",
    "WanFlowMatchingModel",
    "WanFlowMatchingPipeline",
    "WanTimeEmbedding",
    "WanTransformerBlock",
]

OnStep = Callable[[int, float, Tensor], None]
OnDecode = Callable[[int], None]


@dataclass
class RenderedClip:
    """frames: how many were written.  seconds: part of the job -> time it took."""

    frames: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What a window starts from.  Which field is used depends on how the weights were trained.

    pin: latents held at the start.  channels: mask and image latents beside the noise, [1, c, T, h, w].
    image_tokens: of the image encoder, [1 or 2, 257, c].  vace: VACE's context, [1, 96, T, h, w].
    """

    pin: Pin | None = None
    channels: Tensor | None = None
    image_tokens: Tensor | None = None
    vace: Tensor | None = None


class WanFlowMatchingPipeline:
    """A loaded model.  It keeps the decoder's memory of the stream it last decoded, so that chained clips go on
    without a seam and without decoding anything twice."""

    def __init__(self, parts: Parts) -> None:
        self.variant, self.machine, self.memory = parts.variant, parts.machine, parts.memory
        self.dits, self.mixes, self.vae = parts.dits, parts.mixes, parts.vae
        self.text_encoder, self.image_encoder = parts.text_encoder, parts.image_encoder
        self._decoded: tuple[tuple[object, ...], StreamState] = ((), StreamState())

    @torch.inference_mode()
    def render(self, request: ClipRequest, on_step: OnStep, on_decode: OnDecode) -> RenderedClip:
        """Sample a clip's latents, put them on disk, decode them on from the clips before, write its frames.

        on_step(step, sigma, clean latents [1, z, T, h, w]) after each step; on_decode(latents done) before the first
        chunk and after each.
        Latents that this very request has put on disk before (a render broken off in its decode, or before its colours
        were seen to) are used as they are.
        """
        clip, file = RenderedClip(self.frames_of(request)), Path(request.latents_file)
        latents = load_latents(file, fingerprint=request.fingerprint())
        if latents is None and load_latents(file, fingerprint=request.as_sampled) is None:
            with timed(clip, "text"):
                contexts = self.encode_prompts(request)
            with timed(clip, "start"):
                self.use_loras(request.loras)
                noise, given, guide = self.noise(request), self.given(request), self.guide(request)
            schedule = noise_schedule(request.solver, request.num_inference_steps, request.shift)
            schedule, skipped = begin_later(schedule, request.guide_strength if guide is not None else 0.0)
            with timed(clip, "sample"):
                prompts = self.prompts(request, contexts, given)
                joint = self.joint(request, prompts, noise, given)
                window = sample(
                    None if joint else self.guided(request, prompts, noise, given),
                    noise,
                    request.solver,
                    schedule,
                    pin=given.pin,
                    channels=given.channels,
                    step_cache=request.step_cache,
                    fresh=steps_after(schedule, self.variant.boundary) if len(self.dits) > 1 else (),
                    guide=guide,
                    joint=joint,
                    callback=lambda step, _, clean: on_step(step + skipped, schedule.sigmas[step + 1], clean),
                )
            del prompts, joint  # with the keys and values that were kept: the decoder may need the room
            with timed(clip, "write"):
                save_latents(file, *self.split_window(request, window), request.as_sampled)
        if latents is None:
            with timed(clip, "colour"):
                latents = self.keep_colours(request)
        with timed(clip, "decode"):
            frames = self.decode(request, latents.to(self.machine.device), on_decode)
            save_frames(Path(request.frames_file), frames, (clip.frames, request.height, request.width, 3))
        return clip

    def encode_prompts(self, request: ClipRequest) -> Tensor:
        """Contexts [n, text_len, text_dim] of the request's texts."""
        contexts = self.text_encoder.encode(request.texts).to(self.machine.device)
        if not self.memory.rung.keep_text_encoder:
            self.text_encoder.unload()
        return contexts

    def use_loras(self, loras: tuple[LoraUse, ...]) -> None:
        """Have exactly these in the backbones' weights.  Raises ModelError."""
        levels = ("high", "low") if len(self.mixes) == 2 else ("",)
        for mix, level in zip(self.mixes, levels, strict=True):
            mix.set([(lora.file, lora.strength) for lora in loras if lora.expert in ("", level)])

    def prompts(self, request: ClipRequest, contexts: Tensor, given: Given) -> list[Prompts]:
        """What guides each backbone: the prompt, or the prompts by latent frame.  contexts: of encode_prompts."""
        texts = contexts.split(len(request.prompts) or 1)  # positive ones, then negative ones if they are needed
        found = []
        for dit in self.dits:
            conditionings = [dit.condition(side, given.image_tokens, request.mixes) for side in texts]
            found.append(Prompts(conditionings[0], conditionings[1] if len(conditionings) == 2 else None))
        return found

    def guided(self, request: ClipRequest, prompts: list[Prompts], noise: Tensor, given: Given) -> GuidedModel:
        """The model, or the two experts, with everything a step needs but latents and timestep."""
        guidances = (request.guidance, request.low_noise_guidance or request.guidance)
        models = []
        for dit, guide, guidance in zip(self.dits, prompts, guidances, strict=False):
            backbone = dit if given.vace is None else partial(dit, vace_context=given.vace)
            models.append(guided_model(backbone, guide, guidance, noise, request.guidance_mode))
        return models[0] if len(models) == 1 else switch_experts(*models, self.variant.boundary)

    def joint(self, request: ClipRequest, prompts: list[Prompts], noise: Tensor, given: Given) -> Joint | None:
        """How a clip that is longer than the window, or a ring, is made in windows; None where it is made at once."""
        size = request.window_latents
        if not size or not (request.ring_latents or request.latent_frames > size):
            return None

        @lru_cache
        def guided(guidance: tuple[float, ...], low_noise: tuple[float, ...], heard: tuple[int, ...]) -> GuidedModel:
            part = replace(request, guidance=guidance, low_noise_guidance=low_noise)
            return self.guided(part, [each.at(heard) for each in prompts], noise[:, :, :size], given)

        def model_at(latents: Sequence[int]) -> GuidedModel:
            scales = (request.guidance, request.low_noise_guidance)
            picked = (tuple(values[k] for k in latents) if values else () for values in scales)
            return guided(*picked, tuple(latents) if request.mixes else ())

        return Joint(size, request.window_overlap, bool(request.ring_latents), request.prefix_noise, model_at)

    def noise(self, request: ClipRequest) -> Tensor:
        """The window's noise [1, z, T, h, w], drawn on the compute device from the clip's seed, as officially."""
        generator = torch.Generator(self.machine.device).manual_seed(request.seed)
        stride = self.vae.config.spatial_stride
        shape = (self.vae.config.z_dim, request.latent_frames, request.height // stride, request.width // stride)
        return torch.randn(shape, generator=generator, device=self.machine.device, dtype=torch.float32)[None]

    def given(self, request: ClipRequest) -> Given:
        """What the window starts from (and ends in), in the form that these weights take it."""
        row, release = self.variant, max(0.0, 1.0 - request.strength)
        pictures = [self.picture(path, request) for path in (request.init_image, request.end_image)]
        if row.vace_layers:
            return Given(vace=self.vace_context(request, *pictures), pin=self.prefix(request, release))
        if row.condition_channels:
            first, last = pictures
            if first is None:
                raise InputError(
                    f"{row.title} starts from a picture and none was given", where="init_image",
                    next_step="give init_image, or choose a text-to-video model",
                )  # fmt: skip
            frames = TEMPORAL_STRIDE * (request.latent_frames - 1) + 1
            channels = image_channels(self.vae, frames, first, last)
            tokens = None
            if self.image_encoder is not None:
                shown = torch.stack([first, first if last is None else last][: row.image_tokens // 257])
                tokens = self.image_encoder(shown)
            return Given(channels=channels, image_tokens=tokens)
        if pictures[0] is not None:
            return Given(pin=Pin(self.vae.encode(pictures[0][None, :, None]), request.prefix_noise, release))
        if request.context_file:
            frames = self.frames(request.context_file, request)
            return Given(pin=Pin(self.vae.encode(frames[None]), request.prefix_noise, release))
        return Given(pin=self.prefix(request, release))

    def prefix(self, request: ClipRequest, release: float) -> Pin | None:
        """The end of the shot's latents, held at the window's start."""
        if not request.prefix_latents:
            return None
        clean = self.stream_latents(request.stream)[:, :, -request.prefix_latents :]
        return Pin(clean, request.prefix_noise, release)

    def frames(self, path: str, request: ClipRequest) -> Tensor:
        """Frames of a file [3, F, H, W] in [-1, 1], on the device."""
        return load_frames(Path(path), request.width, request.height).to(self.machine.device)

    def guide(self, request: ClipRequest) -> Tensor | None:
        """The latents [1, z, T, h, w] that sampling starts from instead of from noise alone."""
        if not request.guide_file:
            return None
        frames = self.frames(request.guide_file, request)
        return guide_latents(self.vae, frames, request.prefix_latents, request.latent_frames)

    def picture(self, path: str, request: ClipRequest) -> Tensor | None:
        """A picture [3, H, W] in [-1, 1] on the device, or None for ""."""
        if not path:
            return None
        return cover(load_picture(Path(path)), request.width, request.height)[0, :, 0].to(self.machine.device)

    def vace_context(self, request: ClipRequest, first: Tensor | None, last: Tensor | None) -> Tensor:
        """VACE's channels [1, 96, T, h, w]: given pictures and frames are kept, all else (mid grey) is made anew.

        A guide is the video that what is made anew is to follow.
        """
        frames = TEMPORAL_STRIDE * (request.latent_frames - 1) + 1
        video = torch.zeros(3, frames, request.height, request.width, device=self.machine.device)
        mask = torch.ones(1, frames, request.height, request.width, device=self.machine.device)
        if request.guide_file:
            guide = self.frames(request.guide_file, request)
            video[:, -guide.shape[1] :] = guide
        if request.context_file:
            known = self.frames(request.context_file, request)
            video[:, : known.shape[1]], mask[:, : known.shape[1]] = known, 0
        for index, picture in ((0, first), (frames - 1, last)):
            if picture is not None:
                video[:, index], mask[:, index] = picture, 0
        return vace_context(self.vae, video, mask)

    def split_window(self, request: ClipRequest, window: Tensor) -> tuple[Tensor, Tensor]:
        """Cut the sampled window into the clip's new latents and the surplus behind them."""
        if request.ring_latents:
            window = closed(window, request.ring_latents)
        start, end = request.prefix_latents, request.prefix_latents + request.new_latents
        fresh, tail = window[:, :, start:end], window[:, :, end:]
        if request.overlap_latents:
            before = load_latents(Path(request.overlap_file), "tail")
            if before is not None:
                fresh = blend_in(fresh, before[:, :, : request.overlap_latents].to(fresh.device))
        if not torch.isfinite(fresh).all():
            raise ModelError(
                "the model made numbers that aren't finite", where=request.model,
                next_step="try dtype float32, or check the weights with check-model --hashes",
            )  # fmt: skip
        return fresh, tail

    def keep_colours(self, request: ClipRequest) -> Tensor:
        """The sampled latents, brought back to the colours of their shot's first clip where that is asked for; on disk
        when this returns."""
        file = Path(request.latents_file)
        latents = load_latents(file)
        if not request.keeps_colours:
            return latents
        anchor = anchor_of(self.vae, Path(request.colour_from), self.machine.device) if request.colour_from else None
        stream, latents, tail = request.stream, latents.to(self.machine.device), load_latents(file, "tail")
        state = self.decoder_state(stream)
        self._decoded = (_identity(stream), state)
        frames = decoded(self.vae, latents, state)
        may_change = request.colour == "follow" or bool(request.prompts)
        if anchor is not None and may_change and not keeps_anchor(frames, anchor):
            anchor = NO_ANCHOR
        else:
            shifts, anchor = shifts_of_parts(frames[:, request.drop_frames :], anchor, request.colour_parts)
            if any(shift.acts for shift in shifts):
                change = shift_latents(
                    self.vae, frames, shifts, request.drop_frames, bool(stream), self.variant.colour_reply
                )
                latents = latents + change
                tail = None if tail is None else tail.to(change.device) + change[:, :, -1:]
        save_latents(file, latents, latents[:, :, :0] if tail is None else tail, request.fingerprint(), anchor)
        return latents

    def decode(self, request: ClipRequest, latents: Tensor, on_decode: OnDecode) -> Iterator[Pixels]:
        """Decode a clip's latents [1, z, new, h, w] on from its stream; yields its frames on their way to the host.

        The decoder remembers the stream's last frames.  If it last decoded something else (another shot, or this is
        a new process), it goes through the stream again first, in the same chunks, so the result is the same.
        """
        on_decode(0)
        state = self.decoder_state(request.stream)
        drop, done = request.drop_frames, 0
        for frames in self.vae.decode(latents, state):
            pixels = leave_device(frames[:, :, drop:])
            drop = max(0, drop - frames.shape[2])
            done += 1 if frames.shape[2] == 1 else frames.shape[2] // TEMPORAL_STRIDE
            on_decode(done)
            yield pixels
        whole = (*request.stream, StreamPart(request.latents_file, 0, request.new_latents))
        self._decoded = (_identity(whole), state)

    def decoder_state(self, stream: tuple[StreamPart, ...]) -> StreamState:
        """The decoder's memory at the end of a stream."""
        known, state = self._decoded
        self._decoded = ((), StreamState())  # whatever happens next, a half-used state is never taken up again
        if known == _identity(stream):
            return state
        state = StreamState()
        for part in stream:
            for _ in self.vae.decode(self.stream_latents((part,)), state):
                pass
        return state

    def stream_latents(self, stream: tuple[StreamPart, ...]) -> Tensor:
        """Latents of the stream [1, z, t, h, w], on the device."""
        parts = []
        for part in stream:
            latents = load_latents(Path(part.file))
            if latents is None or latents.shape[2] < part.first + part.count:
                raise InputError("latents of an earlier clip are missing", where=part.file, next_step="re-render it")
            parts.append(latents[:, :, part.first : part.first + part.count])
        return torch.cat(parts, dim=2).to(self.machine.device)

    @staticmethod
    def frames_of(request: ClipRequest) -> int:
        """How many frames the new latents add: 4 each, but the first of a stream is one frame."""
        first_of_stream = 0 if request.stream else 1
        return TEMPORAL_STRIDE * (request.new_latents - first_of_stream) + first_of_stream - request.drop_frames


class timed:
    """Add the time spent inside to clip.seconds[part], and name an out-of-memory by the part it struck."""

    def __init__(self, clip: RenderedClip, part: str) -> None:
        self.clip, self.part = clip, part

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        seconds = time.perf_counter() - self.started
        self.clip.seconds[self.part] = self.clip.seconds.get(self.part, 0.0) + seconds
        if isinstance(error, torch.OutOfMemoryError):
            raise OutOfDeviceMemory(
                f"the device ran out of memory while it was at: {self.part}",
                next_step="close other programs on the GPU, or choose a smaller size or window; then --resume",
            ) from error


def _identity(stream: tuple[StreamPart, ...]) -> tuple[object, ...]:
    """What a stream is made of, by the files' state on disk: a re-rendered clip has another one."""
    parts: list[object] = []
    for part in stream:
        stat = Path(part.file).stat()
        parts.append((part.file, part.first, part.count, stat.st_mtime_ns, stat.st_size))
    return tuple(parts)
