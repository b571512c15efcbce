"""How other tools name the official tensors: one data table per layout.

A table maps an official name to the name or names it has elsewhere; several names are its rows, stacked.
"{}" stands for a block's number.  Everything that reads a foreign file, in the UI's process or in the
worker, goes by these tables, so a new layout is a new row here.

Sources: the published checkpoints' names as diffusers, transformers, ComfyUI, open_clip, llama.cpp and the
official releases write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["LAYOUTS", "Layout", "find_prefixes", "layout_of", "tidy_name"]

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """One way to write one part.

    markers: names of which any one gives the layout away (a shard may lack the others).
    table: None where names are the official ones.
    ignored: beginnings of names (behind the prefix) that carry nothing the part needs; ends of names with "*".
    """

    part: str
    name: str
    markers: tuple[str, ...]
    table: Names | None = None
    ignored: tuple[str, ...] = ()
    _inverse: dict[str, tuple[str, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = self.table or {}
        inverse = {name: (official, at) for official, names in table.items() for at, name in enumerate(names)}
        object.__setattr__(self, "_inverse", inverse)

    def ignores(self, name: str) -> bool:
        return name.startswith(self.ignored) or name.endswith(tuple(i[1:] for i in self.ignored if i[0] == "*"))

    def official(self, name: str) -> tuple[str, int] | None:
        """(official name, which of its stacked parts this is), None for a name of no meaning here."""
        if self.table is None:
            return name, 0
        if name in self._inverse:
            return self._inverse[name]
        pattern, number = _numbered(name)
        found = self._inverse.get(pattern)
        return found and (found[0].replace("{}", number), found[1])

    def names_of(self, official: str) -> tuple[str, ...]:
        """What an official tensor is called here; several are its rows, stacked."""
        if self.table is None:
            return (official,)
        pattern, number = _numbered(official)
        names = self.table.get(official) or self.table.get(pattern) or ()
        return tuple(name.replace("{}", number) for name in names)


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")


def _numbered(name: str) -> tuple[str, str]:
    """("blocks.{}.norm3.weight", "7"): the first number of a name taken out."""
    match = _NUMBER.search(name)
    return (name[: match.start()] + "{}" + name[match.end() :], match.group()) if match else (name, "")


_DOUBLED_LEVEL = re.compile(r"^((?:vace_)?blocks\.\d+)\.block\.")


def layout_of(part: str, name: str) -> Layout:
    """A layout by name, e.g. of the text encoder as transformers' module has it."""
    return next(layout for layout in LAYOUTS if (layout.part, layout.name) == (part, name))


def tidy_name(name: str) -> str:
    """Undo what some repacks add inside a name: a doubled block level."""
    return _DOUBLED_LEVEL.sub(r"\1.", name)


def find_prefixes(layout: Layout, names: Iterable[str]) -> set[str]:
    """What stands in front of the layout's names, e.g. "model.diffusion_model."; empty set: not this layout."""
    found = set()
    for name in names:
        for marker in layout.markers:
            if name.endswith(marker) and (len(name) == len(marker) or name[-len(marker) - 1] == "."):
                found.add(name[: len(name) - len(marker)])
    return found


def _affine(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Each row for both its weight and its bias."""
    return {f"{ours}.{p}": (f"{theirs}.{p}",) for ours, theirs in table.items() for p in ("weight", "bias")}


def _plain(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {ours: (theirs,) for ours, theirs in table.items()}


# The backbone as diffusers writes it (WanTransformer3DModel).

_DIFFUSERS_BLOCK_AFFINE = {
    **{f"self_attn.{p}": f"attn1.to_{p}" for p in "qkv"},
    **{f"cross_attn.{p}": f"attn2.to_{p}" for p in "qkv"},
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_DIFFUSERS_BLOCK_PLAIN = {
    "modulation": "scale_shift_table",
    **{f"{ours}.norm_{p}.weight": f"{theirs}.norm_{p}.weight" for p in "qk" for ours, theirs in
       (("self_attn", "attn1"), ("cross_attn", "attn2"))},
    "cross_attn.norm_k_img.weight": "attn2.norm_added_k.weight",
}  # fmt: skip


def _blocks(kind: str) -> dict[str, tuple[str, ...]]:
    return {
        **_affine({f"{kind}.{{}}.{ours}": f"{kind}.{{}}.{theirs}" for ours, theirs in _DIFFUSERS_BLOCK_AFFINE.items()}),
        **_plain({f"{kind}.{{}}.{ours}": f"{kind}.{{}}.{theirs}" for ours, theirs in _DIFFUSERS_BLOCK_PLAIN.items()}),
    }


_IMAGE_EMBEDDER = "condition_embedder.image_embedder"
_DIT_DIFFUSERS = {
    **_affine({
        "patch_embedding": "patch_embedding",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
        "img_emb.proj.0": f"{_IMAGE_EMBEDDER}.norm1",
        "img_emb.proj.1": f"{_IMAGE_EMBEDDER}.ff.net.0.proj",
        "img_emb.proj.3": f"{_IMAGE_EMBEDDER}.ff.net.2",
        "img_emb.proj.4": f"{_IMAGE_EMBEDDER}.norm2",
        "vace_patch_embedding": "vace_patch_embedding",
        "vace_blocks.{}.before_proj": "vace_blocks.{}.proj_in",
        "vace_blocks.{}.after_proj": "vace_blocks.{}.proj_out",
    }),
    **_plain({"head.modulation": "scale_shift_table", "img_emb.emb_pos": f"{_IMAGE_EMBEDDER}.pos_embed"}),
    **_blocks("blocks"),
    **_blocks("vace_blocks"),
}  # fmt: skip


# The autoencoders as diffusers writes them (AutoencoderKLWan).

_RESIDUAL_PLAIN = {"residual.0.gamma": "norm1.gamma", "residual.3.gamma": "norm2.gamma"}
_RESIDUAL_AFFINE = {"residual.2": "conv1", "residual.6": "conv2", "shortcut": "conv_shortcut"}
_RESAMPLE = {"resample.1": "resample.1", "time_conv": "time_conv"}


def _residual(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    return {
        **_plain({f"{ours}.{a}": f"{theirs}.{b}" for a, b in _RESIDUAL_PLAIN.items()}),
        **_affine({f"{ours}.{a}": f"{theirs}.{b}" for a, b in _RESIDUAL_AFFINE.items()}),
    }


def _resample(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    return _affine({f"{ours}.{a}": f"{theirs}.{b}" for a, b in _RESAMPLE.items()})


def _vae_ends() -> dict[str, tuple[str, ...]]:
    """What both VAEs share: all but the stages."""
    result = _affine({"conv1": "quant_conv", "conv2": "post_quant_conv"})
    for half in ("encoder", "decoder"):
        middle = f"{half}.mid_block"
        result |= _affine({f"{half}.conv1": f"{half}.conv_in", f"{half}.head.2": f"{half}.conv_out"})
        result |= _plain({f"{half}.head.0.gamma": f"{half}.norm_out.gamma"})
        result |= _residual(f"{half}.middle.0", f"{middle}.resnets.0")
        result |= _residual(f"{half}.middle.2", f"{middle}.resnets.1")
        result |= _plain({f"{half}.middle.1.norm.gamma": f"{middle}.attentions.0.norm.gamma"})
        result |= _affine({f"{half}.middle.1.{p}": f"{middle}.attentions.0.{p}" for p in ("to_qkv", "proj")})
    return result


def _vae_21_diffusers() -> dict[str, tuple[str, ...]]:
    """The encoder is one flat list on both sides; the decoder's 15 layers are grouped by stage there."""
    result = _vae_ends()
    for at in range(11):
        ours, theirs = f"encoder.downsamples.{at}", f"encoder.down_blocks.{at}"
        result |= _residual(ours, theirs) | _resample(ours, theirs)
    for at in range(15):
        stage, layer = divmod(at, 4)
        theirs = f"decoder.up_blocks.{stage}"
        result |= _residual(f"decoder.upsamples.{at}", f"{theirs}.resnets.{layer}")
        result |= _resample(f"decoder.upsamples.{at}", f"{theirs}.upsamplers.0") if layer == 3 else {}
    return result


def _vae_22_diffusers() -> dict[str, tuple[str, ...]]:
    """Stages on both sides."""
    result = _vae_ends()
    for stage in range(4):
        down, up = f"encoder.downsamples.{stage}.downsamples", f"decoder.upsamples.{stage}.upsamples"
        for block in range(2):
            result |= _residual(f"{down}.{block}", f"encoder.down_blocks.{stage}.resnets.{block}")
        for block in range(3):
            result |= _residual(f"{up}.{block}", f"decoder.up_blocks.{stage}.resnets.{block}")
        result |= _resample(f"{down}.2", f"encoder.down_blocks.{stage}.downsampler")
        result |= _resample(f"{up}.3", f"decoder.up_blocks.{stage}.upsampler")
    return result


# The text encoder as transformers (UMT5EncoderModel) and llama.cpp write it.

_T5_BLOCK = "encoder.block.{}.layer"
_UMT5_TRANSFORMERS = _plain({
    "token_embedding.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
    "blocks.{}.norm1.weight": f"{_T5_BLOCK}.0.layer_norm.weight",
    **{f"blocks.{{}}.attn.{p}.weight": f"{_T5_BLOCK}.0.SelfAttention.{p}.weight" for p in "qkvo"},
    "blocks.{}.pos_embedding.embedding.weight": f"{_T5_BLOCK}.0.SelfAttention.relative_attention_bias.weight",
    "blocks.{}.norm2.weight": f"{_T5_BLOCK}.1.layer_norm.weight",
    "blocks.{}.ffn.gate.0.weight": f"{_T5_BLOCK}.1.DenseReluDense.wi_0.weight",
    "blocks.{}.ffn.fc1.weight": f"{_T5_BLOCK}.1.DenseReluDense.wi_1.weight",
    "blocks.{}.ffn.fc2.weight": f"{_T5_BLOCK}.1.DenseReluDense.wo.weight",
})  # fmt: skip
_UMT5_LLAMA_CPP = _plain({
    "token_embedding.weight": "token_embd.weight",
    "norm.weight": "enc.output_norm.weight",
    "blocks.{}.norm1.weight": "enc.blk.{}.attn_norm.weight",
    **{f"blocks.{{}}.attn.{p}.weight": f"enc.blk.{{}}.attn_{p}.weight" for p in "qkvo"},
    "blocks.{}.pos_embedding.embedding.weight": "enc.blk.{}.attn_rel_b.weight",
    "blocks.{}.norm2.weight": "enc.blk.{}.ffn_norm.weight",
    "blocks.{}.ffn.gate.0.weight": "enc.blk.{}.ffn_gate.weight",
    "blocks.{}.ffn.fc1.weight": "enc.blk.{}.ffn_up.weight",
    "blocks.{}.ffn.fc2.weight": "enc.blk.{}.ffn_down.weight",
})  # fmt: skip


# The image encoder as transformers (CLIPVisionModel) and open_clip write it.

_CLIP_LAYER = "vision_model.encoder.layers.{}"
_CLIP_OURS = "visual.transformer.{}"
_CLIP_TRANSFORMERS = {
    **_plain({
        "visual.cls_embedding": "vision_model.embeddings.class_embedding",
        "visual.pos_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.patch_embedding.weight": "vision_model.embeddings.patch_embedding.weight",
    }),
    **_affine({
        "visual.pre_norm": "vision_model.pre_layrnorm",  # the library's own spelling
        f"{_CLIP_OURS}.norm1": f"{_CLIP_LAYER}.layer_norm1",
        f"{_CLIP_OURS}.norm2": f"{_CLIP_LAYER}.layer_norm2",
        f"{_CLIP_OURS}.attn.proj": f"{_CLIP_LAYER}.self_attn.out_proj",
        f"{_CLIP_OURS}.mlp.0": f"{_CLIP_LAYER}.mlp.fc1",
        f"{_CLIP_OURS}.mlp.2": f"{_CLIP_LAYER}.mlp.fc2",
    }),
    **{f"{_CLIP_OURS}.attn.to_qkv.{p}": tuple(f"{_CLIP_LAYER}.self_attn.{q}_proj.{p}" for q in "qkv")
       for p in ("weight", "bias")},
}  # fmt: skip
_OPEN_CLIP_LAYER = "visual.transformer.resblocks.{}"
_CLIP_OPEN_CLIP = {
    **_plain({
        "visual.cls_embedding": "visual.class_embedding",
        "visual.pos_embedding": "visual.positional_embedding",
        "visual.patch_embedding.weight": "visual.conv1.weight",
        **{f"{_CLIP_OURS}.attn.to_qkv.{p}": f"{_OPEN_CLIP_LAYER}.attn.in_proj_{p}" for p in ("weight", "bias")},
    }),
    **_affine({
        "visual.pre_norm": "visual.ln_pre",
        f"{_CLIP_OURS}.norm1": f"{_OPEN_CLIP_LAYER}.ln_1",
        f"{_CLIP_OURS}.norm2": f"{_OPEN_CLIP_LAYER}.ln_2",
        f"{_CLIP_OURS}.attn.proj": f"{_OPEN_CLIP_LAYER}.attn.out_proj",
        f"{_CLIP_OURS}.mlp.0": f"{_OPEN_CLIP_LAYER}.mlp.c_fc",
        f"{_CLIP_OURS}.mlp.2": f"{_OPEN_CLIP_LAYER}.mlp.c_proj",
    }),
}  # fmt: skip

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "dit", "official",
        ("head.modulation", "time_projection.1.weight", "blocks.0.self_attn.norm_q.weight"),
        # A combined checkpoint carries the other parts beside the backbone.
        ignored=("vae.", "text_encoders.", "first_stage_model.", "cond_stage_model.", "conditioner."),
    ),
    Layout(
        "dit", "diffusers",
        ("condition_embedder.time_proj.weight", "blocks.0.attn1.norm_q.weight"), _DIT_DIFFUSERS,
        ignored=("*.attn2.norm_added_q.weight",),
    ),
    Layout("vae", "official", ("encoder.middle.0.residual.0.gamma", "decoder.middle.0.residual.0.gamma")),
    Layout(
        "vae", "diffusers",
        ("encoder.down_blocks.0.norm1.gamma", "decoder.up_blocks.0.upsamplers.0.resample.1.weight"),
        _vae_21_diffusers(),
    ),
    Layout(
        "vae", "diffusers",
        ("encoder.down_blocks.0.resnets.0.norm1.gamma", "decoder.up_blocks.0.upsampler.resample.1.weight"),
        _vae_22_diffusers(),
    ),
    Layout("text_encoder", "official", ("blocks.0.ffn.gate.0.weight", "blocks.0.pos_embedding.embedding.weight")),
    Layout(
        "text_encoder", "transformers",
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight"), _UMT5_TRANSFORMERS,
        # The tied copy of shared.weight; the tokenizer's own file; the decoder of a whole UMT5.
        ignored=("encoder.embed_tokens.weight", "spiece_model", "decoder.", "lm_head.", "logit_scale"),
    ),
    Layout("text_encoder", "llama.cpp", ("enc.blk.0.attn_rel_b.weight",), _UMT5_LLAMA_CPP, ignored=("dec.", "output.")),
    # Features are taken before the last block, so the final norm and the projection are never used.
    Layout(
        "image_encoder", "official", ("visual.cls_embedding",),
        ignored=("visual.post_norm.", "visual.head", "textual.", "log_scale"),
    ),
    Layout(
        "image_encoder", "transformers", ("vision_model.embeddings.class_embedding",), _CLIP_TRANSFORMERS,
        ignored=(
            "vision_model.post_layernorm.", "visual_projection.", "vision_model.embeddings.position_ids",
            "text_model.", "text_projection.", "logit_scale",
        ),
    ),
    Layout(
        "image_encoder", "open_clip", ("visual.class_embedding",), _CLIP_OPEN_CLIP,
        ignored=(
            "visual.ln_post.", "visual.proj", "transformer.", "token_embedding.", "positional_embedding", "ln_final.",
            "text_projection", "logit_scale", "text.",
        ),
    ),
)  # fmt: skip
