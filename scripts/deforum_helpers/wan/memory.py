"""What is on the device when: decided from the free memory before anything is loaded, and said in one line.

A render goes through three parts that need not be there together: text encoder, backbone, autoencoder.  Each
step down the ladder needs less memory and takes longer; an out-of-memory moves one step down and goes on from the
latents that are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3
_BESIDE = 0.6 * GIB  # context, kernels' workspaces, fragmentation


@dataclass(frozen=True)
class Needs:
    """Bytes on the device.  block: the largest of the backbone's blocks; blocks: how many there are.

    activations: of one step of the backbone.  vae_chunk: of decoding one latent frame, with the decoder's memory.
    """

    text_encoder: int
    dit: int
    blocks: int
    block: int
    image_encoder: int
    vae: int
    activations: int
    vae_chunk: int


@dataclass(frozen=True)
class MemoryPlan:
    """level: step of the ladder, 0 needs most.

    keep_text_encoder: between clips, beside the backbone.  stream_text_encoder, stream_dit: their blocks come one at
    a time from host memory.  latents_per_chunk: decoded at once.  reason: for the log.
    """

    level: int
    keep_text_encoder: bool
    stream_text_encoder: bool
    stream_dit: bool
    latents_per_chunk: int
    reason: str


def estimate_needs(
    *, text_encoder: int, dit: int, blocks: int, image_encoder: int, vae: int, dim: int, ffn_dim: int,
    vae_dim: int, size: tuple[int, int, int], stride: int, itemsize: int,
) -> Needs:  # fmt: skip
    """Needs of a render, from the parts' bytes and the window's size.

    size: latent frames, height, width in pixels.  stride: pixels per latent.  itemsize: bytes of the compute dtype.
    What a step holds at its fullest: the residual stream and its modulated float32 copy, q, k and v, and the
    feed-forward's middle.  What a decoded latent holds: four frames at full size in a few copies, and two frames of
    history for each of the decoder's last convolutions.
    """
    frames, height, width = size
    tokens = frames * (height // stride // 2) * (width // stride // 2)
    activations = tokens * (dim * (4 * itemsize + 2 * 4) + ffn_dim * 2 * itemsize)
    picture = height * width * vae_dim * itemsize
    return Needs(
        text_encoder, dit, blocks, int(dit * 0.97 / max(blocks, 1)), image_encoder, vae, activations,
        picture * (4 * 5 + 2 * 8),
    )  # fmt: skip


_LADDER = (
    ("all parts stay", True, False, 4),
    ("the text encoder leaves after each new prompt", False, False, 4),
    ("the text encoder leaves, one latent is decoded at a time", False, False, 1),
    ("the backbone's blocks come from host memory one by one", False, True, 1),
)
LEVELS = len(_LADDER)


def plan_memory(needs: Needs, free: int, level: int | None = None) -> MemoryPlan:
    """The first step of the ladder that fits into `free` bytes, or the given one.

    free = 0 stands for a device whose memory is the host's own: everything stays.
    The last step is taken even where it may not fit: trying is better than refusing.
    """
    chosen = level
    if chosen is None:
        chosen = next((i for i in range(LEVELS) if not free or peak(needs, i) + _BESIDE <= free), LEVELS - 1)
    said, keep, stream_dit, chunk = _LADDER[chosen]
    stream_text = bool(free) and needs.text_encoder + _BESIDE > free
    room = f", {free / GIB:.1f} GiB free, about {peak(needs, chosen) / GIB:.1f} needed" if free else ""
    more = "; the text encoder's blocks come one by one" if stream_text else ""
    return MemoryPlan(chosen, keep, stream_text, stream_dit, chunk, f"memory: {said}{more}{room}")


def peak(needs: Needs, level: int) -> int:
    """Bytes at the busiest moment of a render on a step of the ladder."""
    _, keep, stream_dit, chunk = _LADDER[level]
    dit = needs.dit - needs.blocks * needs.block + 2 * needs.block if stream_dit else needs.dit
    resting = dit + needs.image_encoder + needs.vae + (needs.text_encoder if keep else 0)
    return max(resting + needs.activations, resting + chunk * needs.vae_chunk)
