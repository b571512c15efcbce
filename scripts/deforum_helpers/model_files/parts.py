"""Which parts of a Wan model a set of tensors holds, told from names and shapes alone.

A part is what one module is loaded from: dit, vae, text_encoder, image_encoder.  For each official tensor
it says where the bytes are (`Source`), so that the loader in the worker has nothing left to guess.
Standard library only: both processes use it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import first_few
from ..variants import VARIANTS
from . import tensors as expected
from .headers import TensorEntry, TensorFile
from .layouts import LAYOUTS, Layout, find_prefixes, tidy_name

__all__ = ["FOREIGN", "PartInfo", "Source", "identify_parts"]

_MOST_NAMED = 3  # tensors named in one line about missing, extra or misshapen ones


@dataclass(frozen=True, slots=True)
class Source:
    """Where an official tensor of that shape comes from: names in the file, stacked by rows if several.

    scales: one name for each of them, "" where the tensor is not scaled.
    """

    shape: tuple[int, ...]
    places: tuple[tuple[str, str], ...]  # (file, name)
    scales: tuple[str, ...]


@dataclass(frozen=True)
class PartInfo:
    """One part of a model.

    dtype: of most of its bytes.  quantization: "" or how its values have to be restored ("scaled", "gguf").
    sizes: what tensors.py reads off it.  problems: one line each; a part without any can be loaded.
    tokenizer: how a text encoder's file holds the tokenizer as well ("spiece_model", "gguf"), "" if it doesn't.
    """

    part: str
    layout: str
    format: str
    files: tuple[str, ...]
    dtype: str
    size: int
    prefix: str = ""
    quantization: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    tokenizer: str = ""
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False, compare=False)

    def describe(self) -> str:
        """For people: "official safetensors, 2 files, BF16"."""
        several = f", {len(self.files)} files" if len(self.files) > 1 else ""
        dtype = f", {self.dtype}" if self.dtype else ""
        scaled = " scaled" if self.quantization == "scaled" else ""
        return f"{self.layout} {self.format}{several}{dtype}{scaled}"


# What else lies in model folders, so that a refusal can say what a file is.
FOREIGN: tuple[tuple[str, str], ...] = (
    ("text_model.embeddings.token_embedding.weight", "a CLIP text encoder"),
    ("model.embed_tokens.weight", "a language model"),
    ("decoder.up.0.block.0.norm1.weight", "the VAE of a Stable Diffusion model"),
    ("input_blocks.0.0.weight", "a Stable Diffusion model"),
    ("double_blocks.0.img_attn.qkv.weight", "a Flux or Hunyuan model"),
    ("encoder.layers.0.self_attn.q_proj.weight", "another encoder"),
)

_SCALES = (".scale_weight", ".weight_scale", ".weight._scale")
_BESIDE_WEIGHTS = (".scale_input", ".input_scale", ".output_scale", ".comfy_quant", *_SCALES)
_UNSUPPORTED = {".weight_scale_2": "nvfp4", ".absmax": "bitsandbytes 4-bit", ".qweight": "GPTQ or AWQ"}

_RULES: dict[str, tuple[Callable[..., dict[str, int]], Callable[..., dict[str, tuple[int, ...]]]]] = {
    "dit": (expected.dit_sizes, expected.dit_tensors),
    "vae": (expected.vae_sizes, lambda sizes: expected.vae_tensors(*_vae_arguments(sizes))),
    "text_encoder": (expected.umt5_sizes, expected.umt5_tensors),
    "image_encoder": (expected.clip_sizes, expected.clip_tensors),
}


def _vae_arguments(sizes: Mapping[str, int]) -> tuple[object, int, int]:
    row = expected.vae_of_sizes(sizes)
    if row is None:
        raise KeyError("conv2.weight")
    return row, sizes["dim"], sizes["decoder_dim"]


def identify_parts(files: Iterable[TensorFile]) -> list[PartInfo]:
    """The parts that these files hold together; several files are shards of one set.

    A part that is recognised but not whole is returned with its problems; none at all: an empty list.
    """
    return list(_identify(tuple(files)))


@functools.lru_cache(maxsize=1024)
def _identify(files: tuple[TensorFile, ...]) -> tuple[PartInfo, ...]:
    where: dict[str, tuple[str, TensorEntry]] = {}
    twice = []
    for file in files:
        for name, entry in file.tensors.items():
            if name in where:
                twice.append(name)
            where[name] = (file.path, entry)
    parts = []
    for layout in LAYOUTS:
        for prefix in sorted(find_prefixes(layout, where)):
            part = _read_part(layout, prefix, where, files[0].format)
            if twice:
                part = replace(part, problems=(*part.problems, _line("is in two of its files", twice)))
            if part.part == "text_encoder":
                part = replace(part, tokenizer=_tokenizer_inside(prefix, where, files[0]))
            parts.append(part)
    return tuple(parts)


def _tokenizer_inside(prefix: str, where: Mapping[str, tuple[str, TensorEntry]], file: TensorFile) -> str:
    if prefix + "spiece_model" in where:
        return "spiece_model"
    return "gguf" if "tokenizer.ggml.tokens" in file.metadata else ""


def _read_part(layout: Layout, prefix: str, where: Mapping[str, tuple[str, TensorEntry]], form: str) -> PartInfo:
    raw, scales, unsupported = _sort_names(layout, prefix, where)
    pieces: dict[str, dict[int, str]] = {}  # official name -> which of its stacked parts -> name in the file
    extra = []
    for name in raw:
        official = layout.official(name)
        if official is None:
            extra.append(prefix + name)
        else:
            pieces.setdefault(official[0], {})[official[1]] = name
    shapes = {official: _stacked(sorted(by.items()), raw, where) for official, by in pieces.items()}
    missing: list[str] = []
    wrong: list[str] = []
    sources: dict[str, Source] = {}
    sizes_of, tensors_of = _RULES[layout.part]
    try:
        sizes = sizes_of(shapes)
        wanted = tensors_of(sizes)
    except (KeyError, IndexError, ValueError) as error:
        sizes, wanted, missing = {}, {}, [str(error).strip("'")]
    for official, shape in wanted.items():
        by = pieces.pop(official, {})
        if len(by) != len(layout.names_of(official)):
            missing.append(official)
            continue
        if _without_ones(shapes[official]) != _without_ones(shape):
            wrong.append(f"{official} is {list(shapes[official])}, must be {list(shape)}")
        names = [by[at] for at in sorted(by)]
        places = tuple((where[raw[name]][0], raw[name]) for name in names)
        sources[official] = Source(shape, places, tuple(scales.get(name, "") for name in names))
    if wanted:
        extra += [prefix + name for by in pieces.values() for name in by.values()]
    entries = [where[name] for name in raw.values()]
    problems = _problems(layout, sizes, missing, wrong, extra, unsupported)
    return PartInfo(
        part=layout.part, layout=layout.name, format=form, files=tuple(sorted({file for file, _ in entries})),
        dtype=_main_dtype(entry for _, entry in entries), size=sum(entry.nbytes for _, entry in entries), prefix=prefix,
        quantization="gguf" if form == "gguf" else "scaled" if scales else "", sizes=sizes, problems=problems,
        sources=sources,
    )  # fmt: skip


def _sort_names(
    layout: Layout, prefix: str, where: Mapping[str, tuple[str, TensorEntry]]
) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """(weight's name in the layout -> name in the file, same name -> name of its scale, unsupported schemes)."""
    raw, scales, unsupported = {}, {}, set()
    for full in where:
        if not full.startswith(prefix):
            continue
        name = tidy_name(full[len(prefix) :])
        for ending, scheme in _UNSUPPORTED.items():
            if name.endswith(ending):
                unsupported.add(scheme)
        for ending in _SCALES:
            if name.endswith(ending):
                scales[name[: -len(ending)] + ".weight"] = full
        if name == "scaled_fp8" or name.endswith(_BESIDE_WEIGHTS) or layout.ignores(name):
            continue
        raw[name.removesuffix("._data")] = full
    return raw, {name: scale for name, scale in scales.items() if name in raw}, unsupported


def _stacked(
    parts: list[tuple[int, str]], raw: Mapping[str, str], where: Mapping[str, tuple[str, TensorEntry]]
) -> tuple[int, ...]:
    """The shape of the parts, stacked by rows."""
    shapes = [where[raw[name]][1].shape for _, name in parts]
    if len(shapes) == 1 or not all(shapes):
        return shapes[0]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    """Axes of length one don't change where a value lies; layouts differ in them."""
    return [n for n in shape if n != 1]


def _main_dtype(entries: Iterable[TensorEntry]) -> str:
    weight: dict[str, int] = {}
    for entry in entries:
        weight[entry.dtype] = weight.get(entry.dtype, 0) + entry.nbytes
    return max(sorted(weight), key=weight.__getitem__, default="")


def _line(what: str, names: list[str]) -> str:
    """The first few names and how many more, in front of what is the matter with them."""
    return f"{first_few(names, _MOST_NAMED)} {what}"


def _problems(
    layout: Layout, sizes: Mapping[str, int], missing: list[str], wrong: list[str], extra: list[str],
    unsupported: set[str],
) -> tuple[str, ...]:  # fmt: skip
    lines = []
    if unsupported:
        return (f"is quantised as {', '.join(sorted(unsupported))}: take an fp8, fp16 or GGUF version instead",)
    if layout.part == "text_encoder" and missing and all("pos_embedding" in name for name in missing):
        return ("is a T5 text encoder, Wan needs UMT5 (position bias in every layer)",)
    if missing:
        lines.append(_line("missing" if len(missing) == 1 else f"missing ({len(missing)} tensors)", missing))
    if wrong:
        lines.append(_line("(wrong size)", wrong))
    if extra:
        lines.append(_line(f"do{'es' if len(extra) == 1 else ''} not belong there", extra))
    if layout.part == "dit" and sizes and not lines:
        lines += _unknown_variant(sizes)
    return tuple(lines)


def variants_of(sizes: Mapping[str, int]) -> list[str]:
    """The rows of the table with these sizes; more than one where the tensors are the same."""
    return [row.name for row in VARIANTS.values() if expected.dit_sizes_of_variant(row) == dict(sizes)]


def _unknown_variant(sizes: Mapping[str, int]) -> list[str]:
    if variants_of(sizes):
        return []

    def distance(name: str) -> float:
        row = expected.dit_sizes_of_variant(VARIANTS[name])
        return sum(1 + abs(math.log1p(row[key]) - math.log1p(n)) for key, n in sizes.items() if row[key] != n)

    nearest = min(VARIANTS, key=distance)
    row = expected.dit_sizes_of_variant(VARIANTS[nearest])
    differing = ", ".join(f"{key} {n} instead of {row[key]}" for key, n in sizes.items() if row[key] != n)
    return [f"is no known variant; nearest is {VARIANTS[nearest].title}, with {differing}"]
