"""Wan's diffusion transformer, with the official tensor names, so that no mapping stands between file and module.

Shape legend:
    B clips in the batch      C channels of the latents     T, h, w  latent frames, rows, columns
    L tokens = T * h/2 * w/2  d width                       H heads, D = d / H
    S rows of the text context (512)                        n timesteps per clip: 1, T or L

Source: Wan 2.1 and Wan 2.2 (architecture and tensor names); one class serves text-to-video, image-to-video,
first/last-frame, VACE and the per-frame timesteps of TI2V-5B, chosen by the configuration alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..protocol import TextMix
from .attention import AttentionFn, sdpa
from .norms import RMSNorm
from .prompt_timeline import Run, attend_in_runs, mixed_contexts, runs_at
from .rope import normed_and_rotated, rotary_tables

PATCH = (1, 2, 2)
MOST_KEPT = 4  # contexts whose keys and values are kept: 0.4 GB each in a 14B model; more are made anew at each step


@dataclass(frozen=True)
class DitConfig:
    """What the official `config.json` holds.

    image_dim: width of the image encoder's tokens, 0 for models without an image branch.
    first_last: whether two images are given (FLF2V), each with its own position embedding.
    vace_layers: the main blocks that take a VACE hint; vace_in_dim: channels of the VACE context.
    """

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int = 16
    out_dim: int = 16
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6
    image_dim: int = 0
    first_last: bool = False
    vace_layers: tuple[int, ...] = ()
    vace_in_dim: int = 96

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class BlockConditioning:
    """What a block attends to, and its own projections of it.

    keys_values: of the text, then of the image if there is one, [B, S, H, D]; made when the block first runs, because
    only then are its weights sure to be on the device.  runs: as in Conditioning.
    """

    context: Tensor
    image: Tensor | None
    keys_values: list[Tensor]
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Conditioning:
    """What a prompt (and an image) contributes, computed once and used by every step.

    context: [B, S, d] embedded text; of several texts one behind the other, [B, R * S, d].
    image: [B, S', d] embedded image tokens or None.
    runs: which latent frames attend to which of several contexts; () = all to the one there is.
    kept: each block's keys and values.
    """

    context: Tensor
    image: Tensor | None = None
    runs: tuple[Run, ...] = ()
    kept: dict[int, list[Tensor]] = field(default_factory=dict)

    def of_block(self, index: int) -> BlockConditioning:
        """The part of one block; VACE's blocks count -1, -2 ..."""
        return BlockConditioning(self.context, self.image, self.kept.setdefault(index, []), self.runs)

    def at(self, latents: Sequence[int]) -> Conditioning:
        """The same for a window of these latent frames; what is kept is kept for all windows."""
        return replace(self, runs=runs_at(self.runs, latents)) if self.runs else self


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of timesteps (0..1000) of any shape -> [..., width] float32.

    Cosines first, then sines; float64 inside, as officially (float32 costs about 1e-5 at the output).
    """
    half = width // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.float64, device=timesteps.device) / half)
    angles = timesteps.double()[..., None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


def norm_and_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm of x [B, L, d] * (1 + scale) + shift, both [B, n, d] and shared by runs of L / n tokens.

    Returns float32.  One timestep for all is what the norm's own weight and bias can do, in the same pass.
    """
    if shift.shape[:2] == (1, 1):
        return F.layer_norm(x.float(), x.shape[-1:], 1 + scale.flatten(), shift.flatten(), eps)
    runs = F.layer_norm(x.float(), x.shape[-1:], eps=eps).unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], runs, 1 + scale[:, :, None]).flatten(1, 2)


def add_gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """Residual x + y * gate with gate [B, n, d] in float32; returns x's dtype."""
    runs = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, runs), y.unflatten(1, runs), gate[:, :, None]).flatten(1, 2).to(x.dtype)


class WanTimeEmbedding(nn.Sequential):
    """timesteps [B, n] (0..1000) -> [B, n, d]: sinusoid, freq_dim -> d, SiLU, d -> d."""

    def __init__(self, freq_dim: int, dim: int) -> None:
        super().__init__(nn.Linear(freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.freq_dim = freq_dim

    def forward(self, timesteps: Tensor) -> Tensor:
        return super().forward(sinusoid(timesteps, self.freq_dim).to(self[0].weight.dtype)).float()


class WanSelfAttention(nn.Module):
    """Full attention over all tokens of a clip, with rotary positions."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, config.eps), RMSNorm(dim, config.eps)
        self.attend: AttentionFn = sdpa

    def forward(self, x: Tensor, tables: Tensor) -> Tensor:
        """x [B, L, d], tables of rotary_tables -> [B, L, d]."""
        q = normed_and_rotated(self.q(x), self.norm_q, tables, self.num_heads)
        k = normed_and_rotated(self.k(x), self.norm_k, tables, self.num_heads)
        return self.o(self.attend(q, k, self.v(x).unflatten(2, (self.num_heads, -1))).flatten(2))


class WanCrossAttention(nn.Module):
    """Attention from the clip's tokens to the text, and to the image tokens where the model has them.

    Image and text attention share q; their outputs are added before `o`.  Padded text rows take part: the
    model was trained with them.
    """

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads, self.text_len = config.num_heads, config.text_len
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, config.eps), RMSNorm(dim, config.eps)
        if config.image_dim:
            self.k_img, self.v_img = nn.Linear(dim, dim), nn.Linear(dim, dim)
            self.norm_k_img = RMSNorm(dim, config.eps)
        self.attend: AttentionFn = sdpa

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the text, each [B, S, H, D]."""
        heads = (self.num_heads, -1)
        return self.norm_k(self.k(context)).unflatten(2, heads), self.v(context).unflatten(2, heads)

    def project_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The same of image tokens."""
        heads = (self.num_heads, -1)
        return self.norm_k_img(self.k_img(image)).unflatten(2, heads), self.v_img(image).unflatten(2, heads)

    def forward(self, x: Tensor, conditioning: BlockConditioning) -> Tensor:
        """x [B, L, d] -> [B, L, d]."""
        image, kept = conditioning.image, conditioning.keys_values
        if not kept and conditioning.context.shape[1] <= MOST_KEPT * self.text_len:
            kept += self.project(conditioning.context)
            kept += () if image is None else self.project_image(image)
        q = self.norm_q(self.q(x)).unflatten(2, (self.num_heads, -1))
        if conditioning.runs:
            out = attend_in_runs(q, partial(self.of_contexts, conditioning), conditioning.runs, self.attend)
        else:
            out = self.attend(q, kept[0], kept[1])
        if image is not None:
            out = out + self.attend(q, *(kept[2:] or self.project_image(image)))
        return self.o(out.flatten(2))

    def of_contexts(self, conditioning: BlockConditioning, contexts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of some of several contexts, one behind the other."""
        rows = [slice(n * self.text_len, (n + 1) * self.text_len) for n in contexts]
        if conditioning.keys_values:
            k, v = (torch.cat([side[:, part] for part in rows], dim=1) for side in conditioning.keys_values[:2])
            return k, v
        return self.project(torch.cat([conditioning.context[:, part] for part in rows], dim=1))


class TanhGelu(nn.Module):
    """GELU by its tanh form.  In inference in place: its input is the widest tensor of a block, and nobody else's."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.gelu(x, approximate="tanh")
        return torch.ops.aten.gelu_(x, approximate="tanh")


class WanTransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; the shared time embedding plus this block's learned bias."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.self_attn = WanSelfAttention(config)
        self.norm3 = nn.LayerNorm(dim, config.eps)
        self.cross_attn = WanCrossAttention(config)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), TanhGelu(), nn.Linear(config.ffn_dim, dim))
        # In place: out of place, on the meta device, torch would import its compiler, which takes seconds.
        self.modulation = nn.Parameter(torch.randn(1, 6, dim).div_(dim**0.5))

    def forward(self, x: Tensor, time: Tensor, conditioning: BlockConditioning, tables: Tensor) -> Tensor:
        """x [B, L, d], time [B, n, 6, d] float32 -> [B, L, d]."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (self.modulation.float() + time).unbind(2)
        y = norm_and_modulate(x, shift_a, scale_a, self.eps).to(x.dtype)
        x = add_gated(x, self.self_attn(y, tables), gate_a)
        x = x + self.cross_attn(self.norm3(x), conditioning)
        y = norm_and_modulate(x, shift_f, scale_f, self.eps).to(x.dtype)
        return add_gated(x, self.ffn(y), gate_f)


class VaceBlock(WanTransformerBlock):
    """A block of the VACE branch: runs beside the main blocks and hands each its hint."""

    def __init__(self, config: DitConfig, first: bool) -> None:
        super().__init__(config)
        if first:
            self.before_proj = nn.Linear(config.dim, config.dim)
        self.after_proj = nn.Linear(config.dim, config.dim)


class ImageProjection(nn.Module):
    """Image encoder tokens [B, S', image_dim] -> [B, S', d]; exact GELU, LayerNorm eps 1e-5 (the library's)."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        wide = config.image_dim
        self.proj = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, wide), nn.GELU(), nn.Linear(wide, config.dim), nn.LayerNorm(config.dim)
        )
        if config.first_last:
            self.emb_pos = nn.Parameter(torch.zeros(1, 2 * 257, wide))

    def forward(self, tokens: Tensor) -> Tensor:
        if hasattr(self, "emb_pos"):  # [B * 2, 257, c] -> the two images of a clip in one row of tokens
            tokens = tokens.reshape(-1, 2 * tokens.shape[1], tokens.shape[2]) + self.emb_pos
        return self.proj(tokens)


class Head(nn.Module):
    """Final modulation and projection to the pixels of a patch."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, config.out_dim * PATCH[0] * PATCH[1] * PATCH[2])
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim).div_(config.dim**0.5))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, L, d], time [B, n, d] (the embedding itself, not its projection) -> [B, L, out_dim * 4]."""
        shift, scale = (self.modulation.float() + time[:, :, None]).unbind(2)
        y = norm_and_modulate(x, shift, scale, self.eps)
        return self.head(y.to(self.head.weight.dtype))  # in float32, as officially, whatever the blocks are in


class WanFlowMatchingModel(nn.Module):
    """Latents at noise level sigma and a prompt -> velocity (noise minus clean latents)."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, PATCH, PATCH)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = WanTimeEmbedding(config.freq_dim, dim)
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 6))
        self.blocks = nn.ModuleList(WanTransformerBlock(config) for _ in range(config.num_layers))
        self.head = Head(config)
        if config.image_dim:
            self.img_emb = ImageProjection(config)
        if config.vace_layers:
            self.vace_patch_embedding = nn.Conv3d(config.vace_in_dim, dim, PATCH, PATCH)
            self.vace_blocks = nn.ModuleList(VaceBlock(config, i == 0) for i in range(len(config.vace_layers)))

    def condition(
        self, context: Tensor, image_tokens: Tensor | None = None, mixes: Sequence[TextMix] = ()
    ) -> Conditioning:
        """Embed a prompt once, or the prompts of a clip.

        context: [B, rows, text_dim], rows <= text_len; missing rows are zeros before the embedding.
        image_tokens: [B, 257, image_dim], or [2 B, 257, image_dim] (first, last, first, last ...) for FLF2V.
        mixes: what each latent frame hears of several texts; context is then theirs, of one clip, [K, rows, text_dim].
        """
        context = F.pad(context, (0, 0, 0, self.config.text_len - context.shape[1]))
        weight = self.text_embedding[0].weight
        image = None if image_tokens is None else self.img_emb(image_tokens.to(weight.dtype))
        if not mixes:
            return Conditioning(self.text_embedding(context.to(weight.dtype)), image)
        contexts, runs = mixed_contexts(context, mixes)
        return Conditioning(self.text_embedding(contexts.to(weight.dtype)).flatten(0, 1)[None], image, runs)

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        *,
        vace_context: Tensor | None = None,
        vace_scale: float = 1.0,
    ) -> Tensor:
        """Velocity of the latents.

        latents: [B, in_dim, T, h, w]; image-to-video models get mask and image latents as further channels.
        timesteps: [B] or [B, n], 0..1000; n is T (one per latent frame) or L (one per token); [1] or [1, n]
            is shared by all clips.
        vace_context: [B, vace_in_dim, T, h, w].
        Returns [B, out_dim, T, h, w] float32.
        """
        grid = tuple(size // patch for size, patch in zip(latents.shape[2:], PATCH, strict=True))
        x = self.embed_patches(self.patch_embedding, latents)
        time = self.time_embedding(timesteps if timesteps.ndim == 2 else timesteps[:, None])  # [B, n, d]
        weight = self.time_projection[1].weight
        rows = self.time_projection(time.to(weight.dtype)).float().unflatten(2, (6, -1))  # [B, n, 6, d]
        tables = rotary_tables(grid, self.config.head_dim, x.device)
        hints = self.vace_hints(x, vace_context, rows, conditioning, tables) if vace_context is not None else {}
        for index, block in enumerate(self.blocks):
            x = block(x, rows, conditioning.of_block(index), tables)
            if index in hints:
                x = x + hints[index] * vace_scale
        return unpatchify(self.head(x, time).float(), grid)

    def vace_hints(
        self,
        x: Tensor,
        vace_context: Tensor,
        rows: Tensor,
        conditioning: Conditioning,
        tables: Tensor,
    ) -> dict[int, Tensor]:
        """Run the VACE branch on the noisy tokens; returns main block index -> [B, L, d] to add after it."""
        hints, control = {}, self.embed_patches(self.vace_patch_embedding, vace_context)
        for index, (target, block) in enumerate(zip(self.config.vace_layers, self.vace_blocks, strict=True)):
            if index == 0:
                control = block.before_proj(control) + x
            control = block(control, rows, conditioning.of_block(-1 - index), tables)
            hints[target] = block.after_proj(control)
        return hints

    @staticmethod
    def embed_patches(layer: nn.Conv3d, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] -> [B, L, d].  Kernel equals stride, so the convolution is one matrix product."""
        pt, ph, pw = PATCH
        patches = rearrange(latents, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
        return F.linear(patches.to(layer.weight.dtype), layer.weight.flatten(1), layer.bias)


def unpatchify(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[B, L, pt * ph * pw * C] -> [B, C, T, h, w]."""
    t, h, w = grid
    pt, ph, pw = PATCH
    return rearrange(tokens, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)
