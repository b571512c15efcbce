"""Which tensors each part of a Wan model must have: official name -> shape.

The one place that knows them all, so that a checkpoint is judged whole from its header, before anything
is loaded.  Each function takes the few sizes that everything else follows from, and has a twin that
reads those sizes off a checkpoint's shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from ..variants import VAES, VaeVariant, Variant

__all__ = [
    "clip_sizes", "clip_tensors", "dit_sizes", "dit_sizes_of_variant", "dit_tensors", "umt5_sizes", "umt5_tensors",
    "vae_of_sizes", "vae_sizes", "vae_tensors",
]  # fmt: skip

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Sizes = dict[str, int]


def _affine(name: str, rows: int, *columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)}


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered modules stand behind `prefix`, e.g. "blocks."."""
    texts = {name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)}
    numbers = {int(text) for text in texts if text.isdecimal() and len(text) < 6}
    return min(1 + max(numbers, default=-1), 2 * len(numbers))  # one name alone can't ask for 99999 blocks


# The backbone


def dit_sizes_of_variant(variant: Variant) -> Sizes:
    """The sizes that tell a row's backbone from another's."""
    return {
        "dim": variant.dim,
        "ffn_dim": variant.ffn_dim,
        "num_layers": variant.num_layers,
        "in_dim": variant.in_dim,
        "out_dim": variant.out_dim,
        "freq_dim": variant.freq_dim,
        "text_dim": variant.text_dim,
        "image_dim": variant.image_dim if variant.image_tokens else 0,
        "image_pos_rows": variant.image_tokens if variant.image_pos_emb else 0,
        "vace_blocks": len(variant.vace_layers),
        "vace_in_dim": variant.vace_in_dim,
    }


def dit_sizes(shapes: Shapes) -> Sizes:
    """The same, read off a checkpoint.  Raises KeyError or IndexError where a decisive tensor is missing."""
    patch = shapes["patch_embedding.weight"]
    return {
        "dim": patch[0],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": _count(shapes, "blocks."),
        "in_dim": patch[1],
        "out_dim": shapes["head.head.weight"][0] // 4,
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "text_dim": shapes["text_embedding.0.weight"][1],
        "image_dim": shapes.get("img_emb.proj.0.weight", (0,))[0],
        "image_pos_rows": shapes.get("img_emb.emb_pos", (0, 0))[-2],
        "vace_blocks": _count(shapes, "vace_blocks."),
        "vace_in_dim": shapes.get("vace_patch_embedding.weight", (0, 0))[1],
    }


def dit_tensors(sizes: Mapping[str, int]) -> dict[str, Shape]:
    dim, image_dim = sizes["dim"], sizes["image_dim"]
    result = {
        **_affine("patch_embedding", dim, sizes["in_dim"], 1, 2, 2),
        **_affine("text_embedding.0", dim, sizes["text_dim"]),
        **_affine("text_embedding.2", dim, dim),
        **_affine("time_embedding.0", dim, sizes["freq_dim"]),
        **_affine("time_embedding.2", dim, dim),
        **_affine("time_projection.1", 6 * dim, dim),
        "head.modulation": (1, 2, dim),
        **_affine("head.head", 4 * sizes["out_dim"], dim),
    }
    if image_dim:
        result |= {
            **_affine("img_emb.proj.0", image_dim),
            **_affine("img_emb.proj.1", image_dim, image_dim),
            **_affine("img_emb.proj.3", dim, image_dim),
            **_affine("img_emb.proj.4", dim),
        }
    if sizes["image_pos_rows"]:
        result["img_emb.emb_pos"] = (1, sizes["image_pos_rows"], image_dim)
    for i in range(sizes["num_layers"]):
        result |= _dit_block(f"blocks.{i}", dim, sizes["ffn_dim"], bool(image_dim))
    if sizes["vace_blocks"]:
        result |= _affine("vace_patch_embedding", dim, sizes["vace_in_dim"], 1, 2, 2)
        result |= _affine("vace_blocks.0.before_proj", dim, dim)
    for i in range(sizes["vace_blocks"]):
        result |= _dit_block(f"vace_blocks.{i}", dim, sizes["ffn_dim"], False)
        result |= _affine(f"vace_blocks.{i}.after_proj", dim, dim)
    return result


def _dit_block(name: str, dim: int, ffn_dim: int, image: bool) -> dict[str, Shape]:
    result: dict[str, Shape] = {f"{name}.modulation": (1, 6, dim), **_affine(f"{name}.norm3", dim)}
    for attention in (f"{name}.self_attn", f"{name}.cross_attn"):
        for projection in "qkvo":
            result |= _affine(f"{attention}.{projection}", dim, dim)
        result |= {f"{attention}.norm_q.weight": (dim,), f"{attention}.norm_k.weight": (dim,)}
    if image:
        result |= _affine(f"{name}.cross_attn.k_img", dim, dim) | _affine(f"{name}.cross_attn.v_img", dim, dim)
        result[f"{name}.cross_attn.norm_k_img.weight"] = (dim,)
    return result | _affine(f"{name}.ffn.0", ffn_dim, dim) | _affine(f"{name}.ffn.2", dim, ffn_dim)


# The autoencoder


def vae_sizes(shapes: Shapes) -> Sizes:
    """z_dim decides between the two VAEs; dim and decoder_dim are the narrowest widths."""
    return {
        "z_dim": shapes["conv2.weight"][0],
        "dim": shapes["encoder.conv1.weight"][0],
        "decoder_dim": shapes["decoder.head.0.gamma"][0],
    }


def vae_of_sizes(sizes: Mapping[str, int]) -> VaeVariant | None:
    return next((row for row in VAES.values() if row.z_dim == sizes["z_dim"]), None)


def vae_tensors(row: VaeVariant, dim: int, decoder_dim: int) -> dict[str, Shape]:
    """Both VAEs; 2.2 nests the layers of each stage one level deeper and keeps the width on the way up."""
    nested, pixels, z = row.patch > 1, 3 * row.patch**2, row.z_dim
    widths = [dim * m for m in (1, *row.dim_mult)]
    result = _affine("encoder.conv1", widths[0], pixels, 3, 3, 3)
    last, at = len(row.dim_mult) - 1, 0
    for stage, (wide_in, wide_out) in enumerate(pairwise(widths)):
        prefix = f"encoder.downsamples.{stage}.downsamples." if nested else "encoder.downsamples."
        at = 0 if nested else at
        for block in range(row.num_res_blocks):
            result |= _residual(f"{prefix}{at}", wide_in if block == 0 else wide_out, wide_out)
            at += 1
        if stage != last:
            result |= _affine(f"{prefix}{at}.resample.1", wide_out, wide_out, 3, 3)
            if row.temporal_downsample[stage]:
                result |= _affine(f"{prefix}{at}.time_conv", wide_out, wide_out, 3, 1, 1)
            at += 1
    result |= _middle("encoder.middle", widths[-1])
    result |= {"encoder.head.0.gamma": (widths[-1], 1, 1, 1), **_affine("encoder.head.2", 2 * z, widths[-1], 3, 3, 3)}
    result |= _affine("conv1", 2 * z, 2 * z, 1, 1, 1) | _affine("conv2", z, z, 1, 1, 1)
    return result | _decoder(row, decoder_dim, pixels, nested)


def _decoder(row: VaeVariant, dim: int, pixels: int, nested: bool) -> dict[str, Shape]:
    widths = [dim * m for m in (row.dim_mult[-1], *row.dim_mult[::-1])]
    upward = row.temporal_downsample[::-1]
    result = _affine("decoder.conv1", widths[0], row.z_dim, 3, 3, 3) | _middle("decoder.middle", widths[0])
    last, at, wide_in = len(row.dim_mult) - 1, 0, widths[0]
    for stage, wide_out in enumerate(widths[1:]):
        prefix = f"decoder.upsamples.{stage}.upsamples." if nested else "decoder.upsamples."
        at = 0 if nested else at
        for block in range(row.num_res_blocks + 1):
            result |= _residual(f"{prefix}{at}", wide_in if block == 0 else wide_out, wide_out)
            at += 1
        wide_in = wide_out
        if stage != last:
            wide_in = wide_out if nested else wide_out // 2
            result |= _affine(f"{prefix}{at}.resample.1", wide_in, wide_out, 3, 3)
            if upward[stage]:
                result |= _affine(f"{prefix}{at}.time_conv", 2 * wide_out, wide_out, 3, 1, 1)
            at += 1
    head = {"decoder.head.0.gamma": (widths[-1], 1, 1, 1), **_affine("decoder.head.2", pixels, widths[-1], 3, 3, 3)}
    return result | head


def _residual(name: str, wide_in: int, wide_out: int) -> dict[str, Shape]:
    result = {
        f"{name}.residual.0.gamma": (wide_in, 1, 1, 1),
        **_affine(f"{name}.residual.2", wide_out, wide_in, 3, 3, 3),
        f"{name}.residual.3.gamma": (wide_out, 1, 1, 1),
        **_affine(f"{name}.residual.6", wide_out, wide_out, 3, 3, 3),
    }
    return result | (_affine(f"{name}.shortcut", wide_out, wide_in, 1, 1, 1) if wide_in != wide_out else {})


def _middle(name: str, wide: int) -> dict[str, Shape]:
    return {
        **_residual(f"{name}.0", wide, wide),
        f"{name}.1.norm.gamma": (wide, 1, 1),
        **_affine(f"{name}.1.to_qkv", 3 * wide, wide, 1, 1),
        **_affine(f"{name}.1.proj", wide, wide, 1, 1),
        **_residual(f"{name}.2", wide, wide),
    }


# The text encoder


def umt5_sizes(shapes: Shapes) -> Sizes:
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    vocabulary, dim = shapes["token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "dim": dim,
        "dim_attn": shapes["blocks.0.attn.q.weight"][0],
        "dim_ffn": shapes["blocks.0.ffn.fc1.weight"][0],
        "num_heads": heads,
        "num_buckets": buckets,
        "num_layers": _count(shapes, "blocks."),
    }


def umt5_tensors(sizes: Mapping[str, int]) -> dict[str, Shape]:
    dim, attn, ffn = sizes["dim"], sizes["dim_attn"], sizes["dim_ffn"]
    result: dict[str, Shape] = {"token_embedding.weight": (sizes["vocab_size"], dim), "norm.weight": (dim,)}
    for i in range(sizes["num_layers"]):
        block = f"blocks.{i}"
        result |= {f"{block}.norm1.weight": (dim,), f"{block}.norm2.weight": (dim,)}
        result |= {f"{block}.attn.{p}.weight": (attn, dim) for p in "qkv"}
        result |= {
            f"{block}.attn.o.weight": (dim, attn),
            f"{block}.ffn.gate.0.weight": (ffn, dim),
            f"{block}.ffn.fc1.weight": (ffn, dim),
            f"{block}.ffn.fc2.weight": (dim, ffn),
            f"{block}.pos_embedding.embedding.weight": (sizes["num_buckets"], sizes["num_heads"]),
        }
    return result


# The image encoder


def clip_sizes(shapes: Shapes) -> Sizes:
    width, _, patch, _ = shapes["visual.patch_embedding.weight"]
    return {
        "dim": width,
        "patch": patch,
        "tokens": shapes["visual.pos_embedding"][-2],
        "dim_ffn": shapes["visual.transformer.0.mlp.0.weight"][0],
        "num_layers": _count(shapes, "visual.transformer."),
    }


def clip_tensors(sizes: Mapping[str, int]) -> dict[str, Shape]:
    """Without visual.head and visual.post_norm: the features are taken before both (see layouts.UNUSED)."""
    dim, ffn, patch = sizes["dim"], sizes["dim_ffn"], sizes["patch"]
    result: dict[str, Shape] = {
        "visual.cls_embedding": (1, 1, dim),
        "visual.pos_embedding": (1, sizes["tokens"], dim),
        "visual.patch_embedding.weight": (dim, 3, patch, patch),
        **_affine("visual.pre_norm", dim),
    }
    for i in range(sizes["num_layers"]):
        block = f"visual.transformer.{i}"
        result |= _affine(f"{block}.norm1", dim) | _affine(f"{block}.norm2", dim)
        result |= _affine(f"{block}.attn.to_qkv", 3 * dim, dim) | _affine(f"{block}.attn.proj", dim, dim)
        result |= _affine(f"{block}.mlp.0", ffn, dim) | _affine(f"{block}.mlp.2", dim, ffn)
    return result
