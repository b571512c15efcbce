"""The one table of models: every variant is a row, with the official defaults of its release.

Nothing here decides which row a checkpoint is (that is read off its tensors, see model_files/), and
no other file may branch on a variant's name: what differs between models is a field of this table.

Sources: the configurations published with Wan 2.1 and Wan 2.2; the demo's row is this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DEMO", "VAES", "VARIANTS", "Defaults", "VaeVariant", "Variant"]

DEMO = "demo"  # the bundled checkpoint's name, wherever a model is named


@dataclass(frozen=True)
class VaeVariant:
    """One autoencoder.  latents = (mean of the posterior - latents_mean) / latents_std, per channel.

    dim, decoder_dim: widths of the official weights; a checkpoint's own are read off its tensors.
    patch: pixels folded into channels before the first convolution (2.2 only).
    """

    name: str
    title: str
    z_dim: int
    dim: int
    decoder_dim: int
    spatial_stride: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    temporal_stride: int = 4
    patch: int = 1
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)


@dataclass(frozen=True)
class Defaults:
    """What a field left empty means for a variant.

    guidance_scale: of the one model, or of the high-noise expert; low_noise_guidance_scale: of the
    low-noise expert, None where there is only one model.  camera_strength: 1 for a model that has never seen a camera
    move.
    """

    num_inference_steps: int
    shift: float
    guidance_scale: float
    width: int
    height: int
    negative_prompt: str
    solver: str = "unipc"
    low_noise_guidance_scale: float | None = None
    camera_strength: float = 0.7


@dataclass(frozen=True)
class Variant:
    """One model.

    vae: the row of VAES; vae_dim: its narrowest width where that isn't the published one, 0 where it is.
    in_dim: channels into the patch embedding: latents, then 4 mask + z_dim image channels if it has them.
    window_frames, min_frames: pixel frames (4n+1) of the longest and the shortest window that look right.
    context_latents: latents of the clip before that a continuing window is pinned to.
    pin: "timestep0": pinned latents stay clean and their tokens get timestep 0; "noised": pinned latents
        are shown under most of the step's noise, see wan/sampling.py.
    text_input: a clip can start from text alone.  image_input: a picture can be its first frame.
    last_image_input: a picture can be its last frame as well.
    image_tokens: rows of the image encoder's output that enter cross-attention, 0 = no image encoder.
    image_pos_emb: those rows get a learned position embedding (two pictures).
    vace_layers: the backbone block after which each VACE block's hint is added; vace_in_dim: its input.
    experts: folders of the weights by noise level, high first; () = one model for all.
    boundary: sigma from which on the high-noise expert works.
    colour_reply: what a change of latents that stands for one of colours is multiplied by, where the decoder
        shows less of it than was put in (wan/colour.py).
    sizes: official (width, height) pairs; size_multiple: both must be multiples of it.
    repository: where the weights are published.
    """

    name: str
    title: str
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    vae: str
    defaults: Defaults
    sizes: tuple[tuple[int, int], ...]
    vae_dim: int = 0
    freq_dim: int = 256
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    text_len: int = 512
    native_fps: float = 16.0
    window_frames: int = 81
    min_frames: int = 17
    context_latents: int = 5
    pin: Literal["timestep0", "noised"] = "noised"
    text_input: bool = True
    image_input: bool = False
    last_image_input: bool = False
    image_tokens: int = 0
    image_dim: int = 1280
    image_pos_emb: bool = False
    vace_layers: tuple[int, ...] = ()
    vace_in_dim: int = 0
    experts: tuple[str, ...] = ()
    boundary: float = 0.0
    colour_reply: float = 1.0
    size_multiple: int = 16
    repository: str = ""

    def sees_noised(self, start: str) -> bool:
        """Whether a clip that starts from "latents", "frames", an "image" or nothing is shown them under noise."""
        return self.pin == "noised" and (start == "latents" or (start == "frames" and not self.vace_layers))

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def frames_input(self) -> bool:
        """Whether a window can begin with several given frames: pinned as latents, or as VACE's known frames."""
        return not self.condition_channels

    @property
    def condition_channels(self) -> int:
        """Mask and image channels joined to the noise: 0, or 4 + z_dim."""
        return self.in_dim - self.out_dim


# The negative prompt of every release; image-to-video puts "camera shake" in front, first-last-frame
# "camera cut, camera shake".
_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
_NEGATIVE_IMAGE = "镜头晃动，" + _NEGATIVE
_NEGATIVE_FIRST_LAST = "镜头切换，" + _NEGATIVE_IMAGE

_SIZES_480P = ((832, 480), (480, 832))
_SIZES_720P = ((1280, 720), (720, 1280))
_SIZES_BOTH = _SIZES_720P + _SIZES_480P


_Sizes = tuple[tuple[int, int], ...]


def _wan(
    name: str, title: str, layout: dict[str, object], defaults: Defaults, sizes: _Sizes, **fields: object
) -> Variant:
    row = {"vae": "wan2.1", **layout, **fields}
    return Variant(name=name, title=title, defaults=defaults, sizes=sizes, **row)  # type: ignore[arg-type]


_1_3B = {"dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30}
_5B = {"dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30}
_14B = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
_IMAGE = {"in_dim": 36, "image_input": True, "text_input": False, "image_tokens": 257}
_EXPERTS = {"experts": ("high_noise_model", "low_noise_model")}

_ROWS = (
    _wan(
        "wan2.1-t2v-1.3B", "Wan 2.1 T2V-1.3B", _1_3B, Defaults(50, 5.0, 5.0, 832, 480, _NEGATIVE), _SIZES_480P,
        repository="Wan-AI/Wan2.1-T2V-1.3B",
    ),
    _wan(
        "wan2.1-t2v-14B", "Wan 2.1 T2V-14B", _14B, Defaults(50, 5.0, 5.0, 1280, 720, _NEGATIVE), _SIZES_BOTH,
        repository="Wan-AI/Wan2.1-T2V-14B",
    ),
    _wan(
        "wan2.1-i2v-14B-480P", "Wan 2.1 I2V-14B 480P", _14B, Defaults(40, 3.0, 5.0, 832, 480, _NEGATIVE_IMAGE),
        _SIZES_480P, repository="Wan-AI/Wan2.1-I2V-14B-480P", **_IMAGE,
    ),
    _wan(
        "wan2.1-i2v-14B-720P", "Wan 2.1 I2V-14B 720P", _14B, Defaults(40, 5.0, 5.0, 1280, 720, _NEGATIVE_IMAGE),
        _SIZES_BOTH, repository="Wan-AI/Wan2.1-I2V-14B-720P", **_IMAGE,
    ),
    _wan(
        "wan2.1-flf2v-14B", "Wan 2.1 FLF2V-14B", _14B, Defaults(50, 16.0, 5.0, 1280, 720, _NEGATIVE_FIRST_LAST),
        _SIZES_BOTH, repository="Wan-AI/Wan2.1-FLF2V-14B-720P", last_image_input=True, image_pos_emb=True,
        **{**_IMAGE, "image_tokens": 514},
    ),
    _wan(
        "wan2.1-vace-1.3B", "Wan 2.1 VACE-1.3B", _1_3B, Defaults(50, 16.0, 5.0, 832, 480, _NEGATIVE), _SIZES_480P,
        repository="Wan-AI/Wan2.1-VACE-1.3B", image_input=True, last_image_input=True,
        vace_layers=tuple(range(0, 30, 2)), vace_in_dim=96,
    ),
    _wan(
        "wan2.1-vace-14B", "Wan 2.1 VACE-14B", _14B, Defaults(50, 16.0, 5.0, 1280, 720, _NEGATIVE), _SIZES_BOTH,
        repository="Wan-AI/Wan2.1-VACE-14B", image_input=True, last_image_input=True,
        vace_layers=tuple(range(0, 40, 5)), vace_in_dim=96,
    ),
    _wan(  # a community model of the official class; its authors render it with Euler
        "wan2.1-fun-inp-1.3B", "Wan 2.1 Fun InP 1.3B", _1_3B,
        Defaults(50, 5.0, 6.0, 832, 480, _NEGATIVE, solver="euler"), _SIZES_480P,
        repository="alibaba-pai/Wan2.1-Fun-1.3B-InP", **_IMAGE,
    ),
    _wan(
        "wan2.2-ti2v-5B", "Wan 2.2 TI2V-5B", _5B, Defaults(50, 5.0, 5.0, 1280, 704, _NEGATIVE),
        ((1280, 704), (704, 1280)), repository="Wan-AI/Wan2.2-TI2V-5B", vae="wan2.2", in_dim=48, out_dim=48,
        native_fps=24.0, window_frames=121, pin="timestep0", image_input=True, size_multiple=32,
    ),
    _wan(
        "wan2.2-t2v-A14B", "Wan 2.2 T2V-A14B", _14B,
        Defaults(40, 12.0, 4.0, 1280, 720, _NEGATIVE, low_noise_guidance_scale=3.0), _SIZES_BOTH,
        repository="Wan-AI/Wan2.2-T2V-A14B", boundary=0.875, **_EXPERTS,
    ),
    _wan(
        "wan2.2-i2v-A14B", "Wan 2.2 I2V-A14B", _14B,
        Defaults(40, 5.0, 3.5, 1280, 720, _NEGATIVE, low_noise_guidance_scale=3.5), _SIZES_BOTH,
        repository="Wan-AI/Wan2.2-I2V-A14B", boundary=0.9, in_dim=36, image_input=True, text_input=False, **_EXPERTS,
    ),
    Variant(
        name=DEMO, title="Demo (tiny, bundled)", dim=160, ffn_dim=480, num_heads=5, num_layers=5, vae="wan2.1",
        defaults=Defaults(14, 3.0, 4.0, 128, 80, "", solver="euler", camera_strength=1.0), sizes=((128, 80),),
        vae_dim=8, colour_reply=1.25, text_dim=96, text_len=64, window_frames=17, context_latents=2, pin="timestep0",
        image_input=True,
    ),
)  # fmt: skip

VARIANTS: dict[str, Variant] = {row.name: row for row in _ROWS}


_VAE_ROWS = (
    VaeVariant(
        name="wan2.1",
        title="Wan 2.1 VAE",
        z_dim=16,
        dim=96,
        decoder_dim=96,
        spatial_stride=8,
        latents_mean=(
            -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
        ),
        latents_std=(
            2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
            3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
        ),
    ),
    VaeVariant(
        name="wan2.2",
        title="Wan 2.2 VAE",
        z_dim=48,
        dim=160,
        decoder_dim=256,
        spatial_stride=16,
        patch=2,
        latents_mean=(
            -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
            0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
            -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
            -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
        ),
        latents_std=(
            0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
            0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
            0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
            0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
        ),
    ),
)  # fmt: skip

VAES: dict[str, VaeVariant] = {row.name: row for row in _VAE_ROWS}
