"""A model on disk -> a pipeline's parts, on the device and in the dtypes they work in."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from ..model_files import ModelInfo, PartInfo, inspect_model
from ..variants import VAES, Variant
from .attention import pick_attention
from .compiling import CompiledBlocks
from .dit import DitConfig, WanFlowMatchingModel, WanSelfAttention
from .eight_bit import check_multiply, is_eight_bit, narrowed, to_eight_bit
from .image_encoder import ImageEncoder, ImageEncoderConfig
from .lora import LoraMix
from .machine import Machine
from .memory import Heard, MemoryPlan, Needs, NoRoomToLoad, estimate_needs, plan_memory
from .offload import TakingTurns, stream_blocks
from .text_cache import EmbeddingCache
from .text_encoder import TextEncoder
from .vae import TEMPORAL_STRIDE, VaeConfig, WanVae
from .weights import load_into, load_module, load_state, read_weight

OnLoading = Callable[[str, float, str], None]

# Officially in float32 whatever the rest is in: small, and every later number hangs on them.
_FULL_PRECISION = ("time_embedding.", "time_projection.", "head.", ".modulation")


@dataclass
class Parts:
    """What a pipeline works with."""

    variant: Variant
    dits: tuple[WanFlowMatchingModel, ...]  # one, or the high-noise and the low-noise expert
    mixes: tuple[LoraMix, ...]  # the LoRAs in each of them
    vae: WanVae
    text_encoder: TextEncoder
    image_encoder: ImageEncoder | None
    machine: Machine
    memory: MemoryPlan


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    size: latent frames, height and width to plan memory for, None = the variant's own.  contexts, sides: see
        memory.Heard, for the same.
    level: of the memory ladder, None = what fits.  weights_dtype: of eight_bit.WEIGHTS.
    attention: see pick_attention.  compile: the backbone's blocks.
    prompts: embedded while the other parts load; later they come out of the cache.
    """

    size: tuple[int, int, int] | None = None
    contexts: int = 1
    sides: int = 2
    level: int | None = None
    weights_dtype: str = "auto"
    attention: str = "auto"
    compile: bool = False
    prompts: tuple[str, ...] = ()


def load_parts(model: str, machine: Machine, on_loading: OnLoading, options: LoadOptions = LoadOptions()) -> Parts:
    """Load a model for rendering.

    model: a folder, a backbone's file, or a ModelInfo.reference.  on_loading(part, seconds, note): seconds is 0
    when a part begins.  All of it is told on the caller's thread.
    The text encoder only loads with the first prompt it hasn't seen.  Raises ModelError, SettingsError.
    """
    info = inspect_model(model).require()
    if options.weights_dtype == "fp8-matmul":
        check_multiply(machine.device)
    memory = plan_memory(_needs(info, machine, options), machine.free_memory, options.level)
    on_loading("memory", 0.0, memory.reason)
    text_encoder = TextEncoder(
        info.parts["text_encoder"], info.parts["tokenizer"], info.row.text_len, machine.device, machine.dtype,
        EmbeddingCache(cache_folder() / "text"), memory.stream_text_encoder,
    )  # fmt: skip
    with _told_of_no_room(memory), _beside(text_encoder, options.prompts):
        dits, mixes = _load_dits(info, machine, on_loading, memory, options)
        vae = _timed(on_loading, "vae", info, lambda part: load_vae(part, info.row, machine))
        image_encoder = None
        if info.row.image_tokens:
            image_encoder = _timed(on_loading, "image_encoder", info, lambda part: load_image_encoder(part, machine))
    vae.tile, vae.latents_per_chunk = memory.rung.tile, memory.rung.latents_per_chunk
    vae.frames_per_chunk = TEMPORAL_STRIDE * vae.latents_per_chunk
    return Parts(info.row, dits, mixes, vae, text_encoder, image_encoder, machine, memory)


@contextlib.contextmanager
def _told_of_no_room(memory: MemoryPlan) -> Iterator[None]:
    """An out-of-memory as an error that knows the next step down.  Raises NoRoomToLoad."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        ran_out = NoRoomToLoad(
            "the device ran out of memory while the model was loaded",
            next_step="close other programs on the GPU, or choose weights_dtype fp8, memory offload; then --resume",
        )
        ran_out.lower = memory.lower
        raise ran_out from error


@contextlib.contextmanager
def _beside(text_encoder: TextEncoder, prompts: tuple[str, ...]) -> Iterator[None]:
    """Embed prompts on a thread of its own while the block loads the other parts.

    The memory plan has room for both: where it hadn't, the encoder's blocks are streamed.  Raises what either raises,
    the block's error first.
    """
    if not prompts:
        yield
        return
    with ThreadPoolExecutor(1, thread_name_prefix="text") as thread:
        embedding = thread.submit(text_encoder.encode, prompts)
        yield
        embedding.result()


def _load_dits(
    info: ModelInfo, machine: Machine, on_loading: OnLoading, memory: MemoryPlan, options: LoadOptions
) -> tuple[tuple[WanFlowMatchingModel, ...], tuple[LoraMix, ...]]:
    """The backbone, or the two experts, where the plan wants them, and what mixes LoRAs into them."""
    rung = memory.rung
    home = torch.device("cpu") if rung.stream_dit or rung.experts_take_turns else machine.device

    def load(part: PartInfo) -> tuple[WanFlowMatchingModel, LoraMix]:
        dit = load_dit(
            part, info.row, machine, home, weights_dtype=options.weights_dtype, attention=options.attention
        )
        stream = stream_blocks(dit, [*dit.blocks], machine.device) if rung.stream_dit else None
        return dit, LoraMix(dit, stream, functools.partial(read_weight, part))

    names = ("dit_high", "dit_low") if info.row.experts else ("dit",)
    dits, mixes = zip(*(_timed(on_loading, name, info, load) for name in names), strict=True)
    if rung.experts_take_turns:
        TakingTurns(dits, machine.device)
    if options.compile:
        CompiledBlocks(cache_folder() / "compiled", on_loading).install(dits)
    return dits, mixes


def _needs(info: ModelInfo, machine: Machine, options: LoadOptions) -> Needs:
    row, vae = info.row, VAES[info.row.vae]
    itemsize = machine.dtype.itemsize
    counts = {name: sum(math.prod(s.shape) for s in part.sources.values()) for name, part in info.parts.items()}
    narrow = 0
    if options.weights_dtype != "auto":
        narrow = sum(
            math.prod(source.shape)
            for part_name, part in info.parts.items()
            if part_name.startswith("dit")
            for name, source in part.sources.items()
            if is_eight_bit(name, tuple(source.shape))
        )
    defaults = ((row.window_frames - 1) // vae.temporal_stride + 1, row.defaults.height, row.defaults.width)
    return estimate_needs(
        text_encoder=counts["text_encoder"] * itemsize,
        dit=sum(count for name, count in counts.items() if name.startswith("dit")) * itemsize - narrow * (itemsize - 1),
        blocks=row.num_layers * max(1, len(row.experts)),
        image_encoder=counts.get("image_encoder", 0) * itemsize,
        vae=counts["vae"] * itemsize,
        dim=row.dim,
        ffn_dim=row.ffn_dim,
        vae_dim=info.parts["vae"].sizes["decoder_dim"],
        size=options.size or defaults,
        stride=vae.spatial_stride,
        itemsize=itemsize,
        heard=Heard(options.contexts, options.sides, row.text_len, row.image_tokens),
        vace_blocks=len(row.vace_layers),
        experts=max(1, len(row.experts)),
        encodes_video=row.condition_channels > 0 or bool(row.vace_layers),
    )


def load_dit(
    part: PartInfo,
    variant: Variant,
    machine: Machine,
    home: torch.device | None = None,
    *,
    weights_dtype: str = "auto",
    attention: str = "auto",
) -> WanFlowMatchingModel:
    """The backbone of a variant, with the fastest attention this machine has.

    home: where its weights are put, None = the machine's device.  weights_dtype, attention: see LoadOptions.
    """
    home, dtype = home or machine.device, dit_dtype(machine.dtype)

    def build() -> WanFlowMatchingModel:
        return WanFlowMatchingModel(dit_config(variant))

    if weights_dtype == "auto":
        dit = load_module(build, part, home, dtype)
    else:
        with torch.device("meta"):
            dit = to_eight_bit(build(), multiply=weights_dtype == "fp8-matmul")
        state = narrowed(load_state(part, home, dtype, keep_eight_bit=True))
        dit = load_into(dit, state, where=part.files[0]).eval().requires_grad_(False)
    kernel = pick_attention(machine.device, machine.dtype, variant.head_dim, attention)
    for module in dit.modules():
        if isinstance(module, WanSelfAttention):
            module.attend = kernel.run
    return dit


def dit_config(variant: Variant) -> DitConfig:
    """What a variant's backbone is built from."""
    return DitConfig(
        dim=variant.dim,
        ffn_dim=variant.ffn_dim,
        num_heads=variant.num_heads,
        num_layers=variant.num_layers,
        in_dim=variant.in_dim,
        out_dim=variant.out_dim,
        freq_dim=variant.freq_dim,
        text_dim=variant.text_dim,
        text_len=variant.text_len,
        image_dim=variant.image_dim if variant.image_tokens else 0,
        first_last=variant.image_pos_emb,
        vace_layers=variant.vace_layers,
        vace_in_dim=variant.vace_in_dim,
    )


def dit_dtype(dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """The dtype of each of the backbone's tensors, where the big ones are in `dtype`."""
    return lambda name: torch.float32 if any(mark in name for mark in _FULL_PRECISION) else dtype


def vae_dtype(dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """The same of the autoencoder: its encoder stays in float32, since what it makes starts long chains."""
    return lambda name: torch.float32 if name.startswith(("encoder.", "conv1.")) else dtype


def load_vae(part: PartInfo, variant: Variant, machine: Machine) -> WanVae:
    """The autoencoder, sizes as in the file."""
    row = VAES[variant.vae]
    config = VaeConfig(
        dim=part.sizes["dim"],
        dec_dim=part.sizes["decoder_dim"],
        z_dim=row.z_dim,
        dim_mult=row.dim_mult,
        num_res_blocks=row.num_res_blocks,
        temporal_downsample=row.temporal_downsample,
        shortcuts=row.patch > 1,
        pixel_patch=row.patch,
    )

    def build() -> WanVae:
        return WanVae(config, row.latents_mean, row.latents_std)

    return load_module(build, part, machine.device, vae_dtype(machine.dtype))


def load_image_encoder(part: PartInfo, machine: Machine) -> ImageEncoder:
    """CLIP's visual tower, sizes as in the file."""
    sizes = part.sizes
    config = ImageEncoderConfig(
        image_size=sizes["patch"] * math.isqrt(sizes["tokens"] - 1),
        patch_size=sizes["patch"],
        dim=sizes["dim"],
        mlp_ratio=sizes["dim_ffn"] // sizes["dim"],
        num_heads=sizes["dim"] // 80,  # ViT-H/14's head width; no tensor shows it
        num_layers=sizes["num_layers"],
    )
    return load_module(
        lambda: ImageEncoder(config), part, machine.device, machine.dtype, lambda name: name.removeprefix("visual.")
    )


def cache_folder() -> Path:
    """Where embedded prompts are kept: DEFORUM_WAN_CACHE, else the platform's place for caches."""
    if chosen := os.environ.get("DEFORUM_WAN_CACHE"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    return base / "deforum-wan"


def _timed(on_loading: OnLoading, name: str, info: ModelInfo, load: Callable[[PartInfo], object]):
    part = info.parts[name]
    on_loading(name, 0.0, part.describe())
    started = time.perf_counter()
    module = load(part)
    on_loading(name, time.perf_counter() - started, part.describe())
    return module
