"""What is on the device when: decided from the free memory before anything is loaded, and said in one line.

A render goes through three parts that need not be there together: text encoder, backbone, autoencoder.  Each
step down the ladder needs less memory and takes longer; an out-of-memory moves one step down and goes on from the
latents that are on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OutOfDeviceMemory
from .dit import MOST_KEPT
from .vae_tiles import CORE, HALO, spans

GIB = 1024**3
_BESIDE = 0.6 * GIB  # context, kernels' workspaces, fragmentation


@dataclass(frozen=True)
class Needs:
    """Bytes on the device.  block: the largest of the backbone's blocks; blocks: how many there are, of all experts.

    activations: of one step of the backbone.  kept: of the keys and values that cross-attention keeps over all steps.
    vae_chunk: of decoding one latent frame, with the decoder's memory.
    vae_encode: of encoding four frames, 0 where no more than single pictures are encoded.
    tile_share: the part of the picture that is in work where the autoencoder goes by tiles.
    """

    text_encoder: int
    dit: int
    blocks: int
    block: int
    image_encoder: int
    vae: int
    activations: int
    vae_chunk: int
    vae_encode: int = 0
    kept: int = 0
    tile_share: float = 0.3
    experts: int = 1


@dataclass(frozen=True)
class Rung:
    """A step of the ladder; each keeps what the ones before it gave up.

    latents_per_chunk: encoded and decoded at once.  tile: of the autoencoder, in latents, 0 = none.
    experts_take_turns: of two backbones only the one at work is there.  stream_dit: not even that, only two blocks.
    """

    name: str
    said: str
    keep_text_encoder: bool = False
    latents_per_chunk: int = 1
    tile: int = 0
    experts_take_turns: bool = False
    stream_dit: bool = False


LADDER = (
    Rung("resident", "all parts stay", keep_text_encoder=True, latents_per_chunk=4),
    Rung("text", "the text encoder leaves after each new prompt", latents_per_chunk=4),
    Rung("chunks", "the text encoder leaves, one latent is decoded at a time"),
    Rung("tiled", "the autoencoder goes tile by tile", tile=CORE),
    Rung("turns", "the expert that isn't at work waits in host memory", tile=CORE, experts_take_turns=True),
    Rung("offload", "the backbone's blocks come from host memory one by one", tile=CORE, stream_dit=True),
)
LEVELS = len(LADDER)
# What the setting `memory` may say: nothing, or a step to begin at.
BEGIN_AT = {"auto": None, **{rung.name: level for level, rung in enumerate(LADDER)}}


@dataclass(frozen=True)
class MemoryPlan:
    """rung: what stays on the device.  level: its place on the ladder, 0 needs most.  lower: the next that needs less.

    stream_text_encoder: its blocks come one at a time from host memory.  reason: for the log.
    """

    rung: Rung
    level: int
    lower: int | None
    stream_text_encoder: bool
    reason: str


class NoRoomToLoad(OutOfDeviceMemory):
    """A model that didn't fit as planned.  lower: the next step of the ladder, None at its end."""

    lower: int | None = None


@dataclass(frozen=True)
class Heard:
    """What a clip's latents attend to.  contexts: distinct texts of a window, blends of several among them.

    sides: 2 where negative prompts are heard, else 1.  rows: of a context.  image_rows: of a given picture's tokens.
    """

    contexts: int
    sides: int
    rows: int
    image_rows: int = 0

    def kept(self, *, dim: int, blocks: int, itemsize: int) -> int:
        """Bytes of the keys and values that `blocks` cross-attentions keep, see dit.WanCrossAttention."""
        if self.contexts > MOST_KEPT:
            return 0
        return 2 * self.sides * (self.contexts * self.rows + self.image_rows) * dim * itemsize * blocks


def estimate_needs(
    *, text_encoder: int, dit: int, blocks: int, image_encoder: int, vae: int, dim: int, ffn_dim: int,
    vae_dim: int, size: tuple[int, int, int], stride: int, itemsize: int, heard: Heard, vace_blocks: int = 0,
    experts: int = 1, encodes_video: bool = False,
) -> Needs:  # fmt: skip
    """Needs of a render, from the parts' bytes and the window's size.

    size: latent frames, height, width in pixels.  stride: pixels per latent.  itemsize: bytes of the compute dtype.
    What a step holds at its fullest: the residual stream and its modulated float32 copy, q, k and v, and the
    feed-forward's middle.  What a decoded latent holds: four frames at full size in a few copies, and two frames of
    history for each of the decoder's last convolutions; the encoder, always in float32, holds as much.
    """
    frames, height, width = size
    rows, columns = height // stride, width // stride
    tokens = frames * (rows // 2) * (columns // 2)
    activations = tokens * (dim * (4 * itemsize + 2 * 4) + ffn_dim * 2 * itemsize)
    picture = height * width * vae_dim
    tallest, widest = (max(span.end - span.start for span in spans(n, CORE, HALO)) for n in (rows, columns))
    return Needs(
        text_encoder, dit, blocks, int(dit * 0.97 / max(blocks, 1)), image_encoder, vae, activations,
        vae_chunk=picture * itemsize * (4 * 5 + 2 * 8),
        vae_encode=picture * 4 * (4 * 5 + 2 * 6) if encodes_video else 0,
        kept=heard.kept(dim=dim, blocks=blocks + vace_blocks, itemsize=itemsize),
        tile_share=tallest * widest / (rows * columns),
        experts=experts,
    )  # fmt: skip


def plan_memory(needs: Needs, free: int, level: int | None = None) -> MemoryPlan:
    """The first step of the ladder that fits into `free` bytes, or the given one.

    free = 0 stands for a device whose memory is the host's own: everything stays.
    The last step is taken even where it may not fit: trying is better than refusing.
    """
    worth = worthwhile(needs)
    chosen = level
    if chosen is None:
        chosen = next((i for i in worth if not free or peak(needs, i) + _BESIDE <= free), worth[-1])
    beside = 0 if LADDER[chosen].keep_text_encoder else needs.text_encoder
    stream_text = bool(free) and resting(needs, chosen) + beside + _BESIDE > free
    room = f", {free / GIB:.1f} GiB free, about {peak(needs, chosen) / GIB:.1f} needed" if free else ""
    more = "; the text encoder's blocks come one by one" if stream_text else ""
    lower = next((i for i in worth if i > chosen), None)
    return MemoryPlan(LADDER[chosen], chosen, lower, stream_text, f"{LADDER[chosen].said}{more}{room}")


def worthwhile(needs: Needs) -> list[int]:
    """The steps of the ladder that need less than every step before them."""
    found, least = [], float("inf")
    for level in range(LEVELS):
        if peak(needs, level) < least:
            least = peak(needs, level)
            found.append(level)
    return found


def resting(needs: Needs, level: int) -> int:
    """Bytes of what stays on the device between a render's phases, on a step of the ladder."""
    rung = LADDER[level]
    blocks = needs.blocks * needs.block
    there = 2 * needs.block if rung.stream_dit else blocks // needs.experts if rung.experts_take_turns else blocks
    return (
        needs.dit - blocks + there + needs.image_encoder + needs.vae
        + (needs.text_encoder if rung.keep_text_encoder else 0)
    )  # fmt: skip


def peak(needs: Needs, level: int) -> int:
    """Bytes at the busiest moment of a render on a step of the ladder, but for embedding a prompt."""
    rung = LADDER[level]
    share = needs.tile_share if rung.tile else 1.0
    coding = rung.latents_per_chunk * max(needs.vae_chunk, needs.vae_encode) * share
    return int(resting(needs, level) + max(needs.activations + needs.kept, coding))
