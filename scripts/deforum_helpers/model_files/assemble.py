"""Parts put together to models: `inspect_model`.

Headers only, so a 60 GB folder takes well under a second.  A folder may be laid out as the official
releases, diffusers, ComfyUI or this project's demo have it: parts are found wherever they lie in it, by
their tensors.  Names of files and folders decide only what tensors can't tell: which of Wan 2.2's two
experts a file is, and whether an I2V-14B was made for 480p or 720p.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import ModelError
from ..variants import VAES, VARIANTS, Variant
from .fault import Fault
from .info import NAME_ONE, PART_TITLES, Missing, ModelInfo, gap
from .parts import PartInfo, variants_of
from .scan import Scan, scan_files, scan_folder

__all__ = ["inspect_model", "inspect_models"]

# Where single-file tools keep the other parts, seen from the folder of the backbone's file or one above it.
_NEIGHBOURS = (
    "vae", "text_encoders", "text_encoder", "clip", "clip_vision", "image_encoder", "image_encoders", "tokenizer",
    "tokenizers", "google",
)  # fmt: skip
_LEVELS_UP = 3
_NEXT = "download it again, or take another version of the model"
_NAMELESS = ("diffusion_pytorch_model", "model")  # every release calls its backbone so


def inspect_model(path: str | os.PathLike[str]) -> ModelInfo:
    """What a folder, a backbone's file, or a `ModelInfo.reference` holds.

    Raises ModelError if the path doesn't exist or holds several models; everything else that is wrong is
    in the result's problems.
    """
    path = os.fspath(path)
    if path.startswith("{"):
        return _from_reference(path)
    models = inspect_models(path)
    if len(models) > 1:
        names = ", ".join(model.path for model in models[:6])
        raise ModelError(f"holds {len(models)} models", where=path, next_step=f"name one of them: {names}")
    if Path(path).is_dir():
        return replace(models[0], path=path, name=_name(Path(path)))
    return models[0]


def inspect_models(path: str | os.PathLike[str], elsewhere: Iterable[Scan] = ()) -> list[ModelInfo]:
    """All models in a folder, or the one that a file belongs to; never none: nothing there is a problem, too.

    elsewhere: other folders, to take parts from that this one lacks.
    """
    root = Path(path)
    try:
        is_folder, is_there = root.is_dir(), os.path.lexists(root)
    except (OSError, ValueError):
        is_folder = is_there = False
    if is_there and not is_folder:
        _check_link(root)
    if not is_there:
        raise ModelError("doesn't exist", where=os.fspath(path), next_step="check the path, or download a model")
    if is_folder:
        return _assemble(root, scan_folder(root), [*_neighbours(root), *elsewhere])
    scan, beside = _around(root)
    models = _assemble(root, scan, [*beside, *_neighbours(root.parent), *elsewhere])
    mine = [model for model in models if any(os.fspath(root) in part.files for part in model.parts.values())]
    if mine and mine[0].variant:
        return mine[:1]
    faults = [fault for fault in scan.faults if fault.text.startswith(f"{root}: ")]
    no_backbone = Fault(f"{root}: is no Wan backbone", NAME_ONE)
    return mine[:1] or [ModelInfo(os.fspath(root), root.stem, problems=tuple(faults or [no_backbone]))]


def _check_link(file: Path) -> None:
    """Raises ModelError for a link that leads nowhere, or to itself."""
    try:
        file.stat()
    except OSError as error:
        raise ModelError(
            f"can't be read ({error.strerror or error})", where=os.fspath(file),
            next_step="mend the link or the folder's permissions, or name another folder",
        ) from error  # fmt: skip


def _around(file: Path) -> tuple[Scan, list[Scan]]:
    """The file's folder; and where the other expert may be in a folder beside it, the folder above as well."""
    scan = scan_folder(file.parent, depth=0)
    mine = [part for part in scan.parts if os.fspath(file) in part.files]
    if not mine or not _noise_level(mine[0]) or len(_group_backbones(scan.parts)[0]) > 1:
        return scan, []
    above = scan_folder(file.parent.parent, depth=1)
    experts = [part for part in above.parts if part.part == "dit" and part not in scan.parts]
    return Scan([*scan.parts, *experts], scan.tokenizers, scan.faults), [above]


def _neighbours(folder: Path) -> list[Scan]:
    """The folders that hold the other parts in single-file tools, nearest first."""
    scans: list[Scan] = []
    for _ in range(_LEVELS_UP):
        scans += [scan_folder(folder / name) for name in _NEIGHBOURS if (folder / name).is_dir()]
        folder = folder.parent
    return scans


def _from_reference(text: str) -> ModelInfo:
    try:
        content = json.loads(text)
        name = str(content.pop("name"))
        files = {part: [Path(file) for file in listed] for part, listed in content.items() if listed}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError("is not a reference to a model", got=text) from error
    whole, found = Scan(), {}
    for part, paths in files.items():
        key = tuple(paths)
        if key not in found:
            found[key] = scan_folder(paths[0], depth=0) if paths[0].is_dir() else scan_files(paths)
            whole.tokenizers += found[key].tokenizers
            whole.faults += found[key].faults
        whole.parts += [p for p in found[key].parts if p.part == part.removesuffix("_high").removesuffix("_low")]
    root = next((listed[0] for part, listed in files.items() if part.startswith("dit")), Path(name))
    return replace(_assemble(root, whole, [])[0], name=name)


def _assemble(root: Path, scan: Scan, others: list[Scan]) -> list[ModelInfo]:
    groups = _group_backbones(scan.parts)
    if groups:
        return [_model(root, _home(root, group, groups, scan), group, scan, others) for group in groups]
    found = ", ".join(sorted({PART_TITLES[part.part] for part in scan.parts}))
    what = f"only {found} is there, no backbone" if found else "no Wan model is there"
    repository = VARIANTS["wan2.1-t2v-1.3B"].repository
    command = f"hf download {repository} --local-dir models/wan/{repository.split('/')[-1]}"
    return [
        ModelInfo(
            os.fspath(root), root.name, parts={part.part: part for part in scan.parts}, problems=tuple(scan.faults),
            missing=(Missing("dit", f"{root}: {what}", command),),
        )
    ]  # fmt: skip


# Which backbones belong together, and which row they are


_NOISE = re.compile(r"(?<![a-z])(high|low)(?![a-z])|(high|low)(?=noise)")


def noise_level_in_name(file: Path) -> str:
    """Which expert a file is for, "high" or "low", if its own or its folder's name says so: the tensors can't."""
    for text in (file.name.lower(), file.parent.name.lower()):
        match = _NOISE.search(text)
        if match:
            return match.group()
    return ""


def _noise_level(part: PartInfo) -> str:
    file = Path(part.files[0])
    if level := noise_level_in_name(file):
        return level
    # diffusers calls them transformer and transformer_2.
    if file.parent.name == "transformer_2":
        return "low"
    return "high" if file.parent.name == "transformer" and (file.parent.parent / "transformer_2").is_dir() else ""


def _pair_key(part: PartInfo) -> str:
    """What the paths of both experts have in common."""
    file = Path(part.files[0])
    if file.parent.name in ("transformer", "transformer_2"):
        return os.fspath(file.parent.parent)
    return _NOISE.sub("*", os.fspath(file).lower())


def _group_backbones(parts: Iterable[PartInfo]) -> list[list[PartInfo]]:
    """Backbones by model: one each, or the high- and the low-noise expert together, high first."""
    groups: dict[tuple[str, str], list[PartInfo]] = {}
    result: list[list[PartInfo]] = []
    for part in parts:
        if part.part != "dit":
            continue
        if _noise_level(part):
            groups.setdefault((_pair_key(part), str(sorted(part.sizes.items()))), []).append(part)
        else:
            result.append([part])
    for group in groups.values():
        pair = sorted(group, key=_noise_level)
        result += [pair] if [_noise_level(part) for part in pair] == ["high", "low"] else [[part] for part in group]
    return result


def _variant_of(group: list[PartInfo]) -> str:
    """The row of a model.  Where rows share their tensors, the number of experts or the name decides."""
    names = variants_of(group[0].sizes)
    experts = len(group) == 2 or bool(_noise_level(group[0]))
    names = [name for name in names if bool(VARIANTS[name].experts) == experts] or names
    said = re.findall(r"480p|720p", group[0].files[0].lower())[-1:]
    names = [name for name in names if said and said[0] in name.lower()] or names
    return names[0] if names else ""


def _home(root: Path, group: list[PartInfo], groups: list[list[PartInfo]], scan: Scan) -> Path:
    """The path by which a model is named: the smallest folder with all of its parts that no other model shares,
    or the backbone's file where that has a name of its own."""
    file = Path(group[0].files[0])
    if not root.is_dir():
        return root
    if len(group[0].files) == 1 and not file.stem.startswith(_NAMELESS):
        return file
    strangers = [Path(part.files[0]) for other in groups if other is not group for part in other]
    ours = [Path(part.files[0]) for part in [*scan.parts, *scan.tokenizers] if part.part != "dit" or part in group]
    home, most = file, 0
    for folder in file.parents:
        if any(stranger.is_relative_to(folder) for stranger in strangers):
            break
        held = sum(other.is_relative_to(folder) for other in ours)
        home, most = (folder, held) if held > most else (home, most)
        if folder == root:
            break
    return home


def _name(path: Path) -> str:
    """What people call it.  A Hugging Face cache names the folder by a hash, the repository two levels up."""
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.removeprefix("models--").replace("--", "/")
    return path.name if path.is_dir() else path.stem


def _model(root: Path, path: Path, group: list[PartInfo], scan: Scan, others: list[Scan]) -> ModelInfo:
    first, name = Path(group[0].files[0]), _name(path)
    # Other models' broken files are not this one's.
    inside = next(place for place in (path, root, root.parent) if place.is_dir())
    spoilt = tuple(fault for fault in scan.faults if fault.text.startswith(os.fspath(inside)))
    faults = [Fault(f"{part.files[0]}: {line}", _NEXT) for part in group for line in part.problems]
    parts = dict(zip(("dit_high", "dit_low") if len(group) == 2 else ("dit",), group, strict=True))
    variant = _variant_of(group)
    if not variant:
        return ModelInfo(os.fspath(path), name, parts=parts, problems=(*spoilt, *faults))
    row, missing = VARIANTS[variant], []
    if bool(row.experts) != (len(group) == 2):
        parts, lacking = _lone_expert(row, group[0], path)
        missing.append(lacking)
    for part in ["vae", "text_encoder", "tokenizer", *(["image_encoder"] if row.image_tokens else [])]:
        chosen, why_not = _choose(part, row, first, parts, [scan, *others])
        if chosen is None:
            missing.append(gap(part, row, path, why_not))
        else:
            parts[part] = chosen
    # A broken file may be the very part that is missing; where nothing is missing it doesn't matter.
    problems = (*spoilt, *faults) if missing or faults else ()
    notes = (*_notes(row, group), *(map(str, spoilt) if path.is_dir() and not problems else ()))
    return ModelInfo(os.fspath(path), name, variant, parts, problems, tuple(missing), notes)


def _notes(row: Variant, group: list[PartInfo]) -> tuple[str, ...]:
    alike = [VARIANTS[name] for name in variants_of(group[0].sizes)]
    same = [other.title for other in alike if other is not row and bool(other.experts) == bool(row.experts)]
    return (f"taken for {row.title}; the tensors of {', '.join(same)} are the same",) if same else ()


def _lone_expert(row: Variant, dit: PartInfo, path: Path) -> tuple[dict[str, PartInfo], Missing]:
    """One backbone where two belong."""
    level = _noise_level(dit)
    if not level:
        reason = f"{path}: {row.title} has two experts, and which one this is must be in its name (high or low noise)"
        return {"dit": dit}, gap("dit_low", row, path, reason)
    return {f"dit_{level}": dit}, gap("dit_low" if level == "high" else "dit_high", row, path)


# Which of the parts at hand fit


def _choose(
    part: str, row: Variant, backbone: Path, parts: Mapping[str, PartInfo], scans: list[Scan]
) -> tuple[PartInfo | None, str]:
    """(the part that fits: nearest to the backbone, then in the highest precision; or why none does)."""
    encoder, refused = parts.get("text_encoder"), ""
    inside = part == "tokenizer" and encoder is not None and encoder.tokenizer
    if inside == "spiece_model":
        return _tokenizer_inside(encoder), ""
    for scan in scans:
        fitting = []
        for candidate in scan.tokenizers if part == "tokenizer" else scan.parts:
            unfit = "; ".join(candidate.problems) or _unfit(row, candidate, encoder)
            if candidate.part == part and unfit:
                refused = refused or f"{candidate.files[0]}: {unfit}"
            elif candidate.part == part:
                fitting.append(candidate)
        if fitting:
            return min(fitting, key=lambda c: (_distance(backbone, Path(c.files[0])), _coarseness(c), c.files)), ""
    return (_tokenizer_inside(encoder) if inside else None), refused


def _tokenizer_inside(encoder: PartInfo) -> PartInfo:
    return PartInfo("tokenizer", encoder.tokenizer, encoder.format, encoder.files, "", 0, encoder.prefix)


def _unfit(row: Variant, candidate: PartInfo, encoder: PartInfo | None) -> str:
    """Why a whole part is not this variant's, "" if it is."""
    if candidate.part == "tokenizer":
        # Bytes for each token of the encoder's vocabulary: 18 to 70 where they belong together.
        each = candidate.size / encoder.sizes["vocab_size"] if encoder else 20
        return "" if 5 < each < 500 else "is the tokenizer of another text encoder"
    sizes, vae = candidate.sizes, VAES[row.vae]
    if candidate.part == "vae" and sizes["z_dim"] != vae.z_dim:
        return f"is a VAE of {sizes['z_dim']} latent channels, {row.title} needs {vae.z_dim} ({vae.title})"
    if candidate.part == "vae":
        widths, wanted = (sizes["dim"], sizes["decoder_dim"]), (row.vae_dim or vae.dim, row.vae_dim or vae.decoder_dim)
        return "" if widths == wanted else f"is a VAE of widths {widths}, {row.title} needs {wanted}"
    if candidate.part == "text_encoder" and sizes["dim"] != row.text_dim:
        return f"is a text encoder of width {sizes['dim']}, {row.title} needs {row.text_dim}"
    if candidate.part == "image_encoder" and (sizes["dim"], sizes["tokens"], sizes["patch"]) != (
        row.image_dim,
        257,
        14,
    ):
        return f"is an image encoder of width {sizes['dim']}, {row.title} needs CLIP ViT-H/14"
    return ""


def _distance(a: Path, b: Path) -> int:
    """Steps from one file to the other in the tree of folders."""
    ours, theirs = a.absolute().parent.parts, b.absolute().parent.parts
    shared = sum(1 for x, y in zip(ours, theirs, strict=False) if x == y)
    return len(ours) + len(theirs) - 2 * shared


def _coarseness(part: PartInfo) -> int:
    return {"F32": 0, "BF16": 1, "F16": 1}.get(part.dtype, 2)
