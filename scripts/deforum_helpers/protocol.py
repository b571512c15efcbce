"""What the host and the worker say to each other.

One JSON object a line, each way, on two pipes that nothing else writes to (a library's print can't
corrupt them).  Tensors and pictures travel as files; a line only names them.

    host -> worker   ClipRequest, CancelRequest, InspectRequest, QuitRequest
    worker -> host   Hello (once, first), Loading, Step, Decoding, ClipDone, Inspected, Failed

A worker does one request at a time; only a CancelRequest is read while another is in work, and takes
effect within one sampling step.  Every event but Hello carries the id of the request it answers, and
a request ends with exactly one ClipDone, Inspected or Failed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

PROTOCOL_VERSION = 1
LONGEST_LINE = 4 * 1024 * 1024  # a clip's schedules are a few kB; anything near this is not ours


class ProtocolError(Exception):
    """A line that is not a message of this protocol: a bug or a foreign process, never the user's input."""


@dataclass(frozen=True)
class StreamPart:
    """A run of latents of the shot so far: rows [first, first + count) of one clip's latents file."""

    file: str
    first: int
    count: int


@dataclass(frozen=True)
class LoraUse:
    """One LoRA file and how strongly it acts in a clip.  expert: "high" or "low" noise only, "" = every backbone."""

    file: str
    strength: float
    expert: str = ""


@dataclass(frozen=True)
class PromptPair:
    """One of several prompts that a clip hears."""

    prompt: str
    negative_prompt: str


@dataclass(frozen=True)
class TextMix:
    """What one latent frame hears: some of the clip's prompts, by index, with weights that add up to 1.

    relay: each prompt speaks for itself, with its weight as a bias on attention; otherwise they are blended into one.
    """

    prompts: tuple[int, ...]
    weights: tuple[float, ...]
    relay: bool = False


@dataclass(frozen=True)
class ClipRequest:
    """Render one clip.

    prompts, mixes: the prompts of a clip that hears several, and which of them each latent frame of the window hears,
        length latent_frames; () = `prompt` throughout.

    guidance: one guidance_scale per latent frame of the window, length latent_frames.
    low_noise_guidance: the same for the low-noise expert of models that have two; () = as guidance.
    stream: the latents of this shot that come before the clip's new ones, in order; the decoder goes on
        from their end, and the last prefix_latents of them are the pinned start of the window.
    prefix_noise: of the step's noise, how much the pinned start is shown under to models that know one noise level
        for the whole window; None for all others, and for a clip made at once of which nothing is pinned.
    strength: how long the pinned start is held, 1 = through the last step, 0.4 = while sigma > 0.6.
    init_image, end_image: RGB pictures that are the first and the last frame of the window ("" = none).
    context_file: npy uint8 [4n+1, height, width, 3], frames of the clip before that the window begins with, in
        place of prefix_latents and stream ("" = none).
    drop_frames: how many of the window's first frames are left out of frames_file, because the clip before already
        ends with them.
    guide_file: npy uint8 [4n+1, height, width, 3], frames that the window follows, see wan/guide.py ("" = none).
    guide_strength: how closely: the share of the steps left out at the start, 0 = not at all.
    history: what the window starts from, as a hash of weights, clips before and pictures given ("" = nothing).
    tail: latents beyond prefix and new ones (latent_frames - prefix_latents - new_latents) are trimmed from the
        video, and kept as "tail" in latents_file: the next clip cross-fades out of them.
    overlap_latents: how many of the first new latents cross-fade out of the "tail" in overlap_file.
    window_latents, window_overlap: a clip longer than this window is made in windows that overlap, see
        wan/windows.py; 0 = all at once.
    ring_latents: the clip is a ring of latent_frames latents; as many of its last ones as this, and once more its first
        one, are put around it before it is decoded, and new_latents counts them; 0 = no ring.
    colour: "keep": the clip's colours are held to its anchor's, see wan/colour.py; "follow": so long as it ends near
        them, for they may go where a new prompt asks; "" = off.
    colour_from: the latents_file of the clip before in the shot, which says what the anchor is ("" = this clip is it).
    latents_file: safetensors with "latents" [z, new, h, w] float32, normalised; on disk before the decode.
    memory: the step of the memory ladder to begin at; as it only moves rounding errors, it doesn't decide the frames.
    weights_dtype: "auto", "fp8" or "fp8-matmul", of the backbone.
    step_cache: relative drift up to which a step's velocity is guessed from those before; 0 = every step is computed.
    guidance_mode: "cfg" or "cfg-zero".
    attention: "auto" or "sage".  compile: the backbone's blocks; like memory, it only moves rounding errors.
    frames_file: npy uint8 [frames, height, width, 3], the frames that the new latents add.
    """

    request: ClassVar[str] = "clip"
    id: str
    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    latent_frames: int
    new_latents: int
    prefix_latents: int
    num_inference_steps: int
    solver: str
    shift: float
    guidance: tuple[float, ...]
    seed: int
    strength: float
    latents_file: str
    frames_file: str
    stream: tuple[StreamPart, ...] = ()
    overlap_latents: int = 0
    overlap_file: str = ""
    init_image: str = ""
    end_image: str = ""
    low_noise_guidance: tuple[float, ...] = ()
    drop_frames: int = 0
    context_file: str = ""
    guide_file: str = ""
    guide_strength: float = 0.0
    history: str = ""
    loras: tuple[LoraUse, ...] = ()
    preview_file: str = ""
    preview_seconds: float = 2.0
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    weights_dtype: str = "auto"
    step_cache: float = 0.0
    guidance_mode: str = "cfg"
    attention: str = "auto"
    compile: bool = False
    window_latents: int = 0
    window_overlap: int = 0
    ring_latents: int = 0
    prompts: tuple[PromptPair, ...] = ()
    mixes: tuple[TextMix, ...] = ()
    colour: str = ""
    colour_from: str = ""
    prefix_noise: float | None = None

    @property
    def colour_parts(self) -> int:
        """In how many parts the colours are looked at: one for each window that a clip is made in."""
        if not self.window_latents or self.latent_frames <= self.window_latents or self.ring_latents:
            return 1
        return -(-self.new_latents // self.window_latents)

    @property
    def keeps_colours(self) -> bool:
        """Whether `colour` can change this clip's frames."""
        return bool(self.colour and not self.ring_latents and (self.colour_from or self.colour_parts > 1))

    @property
    def as_sampled(self) -> str:
        """The fingerprint of the latents as they are before `colour` acts."""
        return dataclasses.replace(self, colour="").fingerprint()

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be embedded: the prompts, then as many negative ones where guidance differs from 1."""
        pairs = self.prompts or (PromptPair(self.prompt, self.negative_prompt),)
        return (*(pair.prompt for pair in pairs), *(pair.negative_prompt for pair in pairs if self.guided))

    @property
    def guided(self) -> bool:
        """Whether the negative prompts are heard."""
        return any(scale != 1 for scale in (*self.guidance, *self.low_noise_guidance))

    def fingerprint(self) -> str:
        """sha256 over everything that decides the frames; file names and preview settings do not.

        Files it starts from enter through `history`, so that a changed clip or picture makes every later clip
        of its shot stale, while a moved job folder makes none.
        """
        decisive = dataclasses.asdict(self)
        for name in ("id", "latents_file", "frames_file", "overlap_file", "preview_file", "preview_seconds"):
            del decisive[name]
        del decisive["memory"], decisive["compile"]
        decisive["stream"] = [(part.first, part.count) for part in self.stream]
        for name, alone in (("guide_file", "guide_strength"), ("context_file", "drop_frames")):
            decisive[name] = bool(decisive[name])
            if not decisive[name]:  # as before there was such a file
                del decisive[name]
                decisive.pop(alone)
        for name in ("window_latents", "window_overlap", "ring_latents", "prompts", "mixes"):
            if not decisive[name]:  # as before there were windows, or several prompts in one
                del decisive[name]
        if self.prefix_noise is None:
            del decisive["prefix_noise"]
        if self.keeps_colours:
            decisive["colour_from"] = bool(self.colour_from)
        else:
            del decisive["colour"], decisive["colour_from"]
        decisive["drop_first"] = bool(self.drop_frames)
        decisive["loras"] = [(lora.strength, lora.expert) for lora in self.loras]
        decisive["init_image"], decisive["end_image"] = bool(self.init_image), bool(self.end_image)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CancelRequest:
    request: ClassVar[str] = "cancel"
    id: str


@dataclass(frozen=True)
class InspectRequest:
    """Load a model's parts far enough to know that they are whole; used by self-tests and warm-up."""

    request: ClassVar[str] = "inspect"
    id: str
    model: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True)
class QuitRequest:
    request: ClassVar[str] = "quit"
    id: str = ""


@dataclass(frozen=True)
class Hello:
    """The handshake.  choices: why this device, dtype and attention backend, one line each."""

    event: ClassVar[str] = "hello"
    protocol: int
    pid: int
    python: str
    torch: str
    device: str
    device_name: str
    total_memory: int
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loading:
    """part: "text_encoder", "dit", "vae" ...; seconds: how long it took, 0 while it is loading."""

    event: ClassVar[str] = "loading"
    id: str
    part: str
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Step:
    """Sampling step `step` of `steps` is done; preview names a fresh picture file or is empty."""

    event: ClassVar[str] = "step"
    id: str
    step: int
    steps: int
    sigma: float
    seconds: float
    preview: str = ""


@dataclass(frozen=True)
class Decoding:
    event: ClassVar[str] = "decoding"
    id: str
    latent: int
    latents: int


@dataclass(frozen=True)
class ClipDone:
    """seconds: part -> time, e.g. {"text": .., "sample": .., "decode": .., "write": ..}."""

    event: ClassVar[str] = "clip_done"
    id: str
    frames: int
    latents_sha256: str
    frames_sha256: str
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0


@dataclass(frozen=True)
class Inspected:
    event: ClassVar[str] = "inspected"
    id: str
    variant: str
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """kind: the `kind` of an error in errors.py; message: its one line; detail: a traceback for the log."""

    event: ClassVar[str] = "failed"
    id: str
    kind: str
    message: str
    detail: str = ""


Request = ClipRequest | CancelRequest | InspectRequest | QuitRequest
Event = Hello | Loading | Step | Decoding | ClipDone | Inspected | Failed

_REQUESTS = {cls.request: cls for cls in (ClipRequest, CancelRequest, InspectRequest, QuitRequest)}
_EVENTS = {cls.event: cls for cls in (Hello, Loading, Step, Decoding, ClipDone, Inspected, Failed)}


def encode_line(message: Request | Event) -> bytes:
    """One message as a line of UTF-8 JSON, newline included.  NaN and infinity are refused."""
    tag = {"request": message.request} if hasattr(message, "request") else {"event": message.event}
    return (json.dumps({**tag, **dataclasses.asdict(message)}, allow_nan=False) + "\n").encode()


def decode_request(line: bytes) -> Request:
    """Parse a line from the host.  Raises ProtocolError."""
    return _decode(line, "request", _REQUESTS)


def decode_event(line: bytes) -> Event:
    """Parse a line from the worker.  Raises ProtocolError."""
    return _decode(line, "event", _EVENTS)


def _decode(line: bytes, tag: str, known: dict[str, type]) -> Any:
    if len(line) > LONGEST_LINE:
        raise ProtocolError(f"a line of {len(line)} bytes is longer than {LONGEST_LINE}")
    try:
        raw = json.loads(line)
        cls = known[raw.pop(tag)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ProtocolError(f"not a message: {line[:200]!r}") from error
    names = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(raw) - names)
    if unknown:
        raise ProtocolError(f"{cls.__name__} has no field {', '.join(unknown)}")
    for name, build in (("stream", StreamPart), ("loras", LoraUse), ("prompts", PromptPair), ("mixes", _text_mix)):
        if name in raw:
            raw[name] = tuple(build(**part) for part in raw[name])
    for name in ("guidance", "low_noise_guidance", "choices"):
        if name in raw:
            raw[name] = tuple(raw[name])
    try:
        return cls(**raw)
    except TypeError as error:
        raise ProtocolError(f"{cls.__name__}: {error}") from error


def _text_mix(prompts: list[int], weights: list[float], relay: bool) -> TextMix:
    return TextMix(tuple(prompts), tuple(weights), relay)
