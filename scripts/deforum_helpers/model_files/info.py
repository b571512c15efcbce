"""A model as people and the other modules see it: its parts, what it can do, what is wrong or missing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ModelError
from ..variants import DEMO, VARIANTS, Variant
from .fault import Fault
from .parts import PartInfo

__all__ = ["NAME_ONE", "PART_TITLES", "Missing", "ModelInfo", "gap"]

PART_TITLES = {
    "dit": "the backbone", "dit_high": "the high-noise expert", "dit_low": "the low-noise expert", "vae": "the VAE",
    "text_encoder": "the text encoder", "image_encoder": "the image encoder", "tokenizer": "the tokenizer",
}  # fmt: skip

NAME_ONE = "name a model's folder, or its backbone's file"
_IN_REPOSITORY = {
    ("vae", "wan2.1"): "Wan2.1_VAE.pth",
    ("vae", "wan2.2"): "Wan2.2_VAE.pth",
    "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth",
    "image_encoder": "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "tokenizer": '--include "google/umt5-xxl/*"',
    "dit_high": '--include "high_noise_model/*"',
    "dit_low": '--include "low_noise_model/*"',
    "dit": '--include "diffusion_pytorch_model*"',
}


@dataclass(frozen=True)
class Missing:
    """A part that isn't there.  command: downloads it."""

    part: str
    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.reason}; get it with: {self.command}"


@dataclass(frozen=True)
class ModelInfo:
    """One model.

    path: its folder, or the backbone's file where a folder holds several models.
    variant: name of the row of VARIANTS, "" if none.
    parts: dit (or dit_high and dit_low), vae, text_encoder, tokenizer, image_encoder -> what it is loaded from.
    problems: any of them keeps the model from being loaded; notes: what is worth knowing.
    """

    path: str
    name: str
    variant: str = ""
    parts: Mapping[str, PartInfo] = field(default_factory=dict)
    problems: tuple[Fault, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return bool(self.variant) and not self.problems and not self.missing

    @property
    def row(self) -> Variant:
        return VARIANTS[self.variant]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(part.size for name, part in self.parts.items() if name != "tokenizer")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the variant can be asked for, in the words that are shown."""
        if not self.variant:
            return ()
        row = self.row
        able = {
            "text to video": row.text_input,
            "image to video": row.image_input,
            "first and last frame": row.last_image_input,
            "continue a clip": row.text_input or row.image_input,
            "edit a video": bool(row.vace_layers),
        }
        return tuple(name for name, can in able.items() if can)

    @property
    def reference(self) -> str:
        """Text by which `inspect_model` finds exactly these parts, also in another process: the folder where
        all of them lie in it, else the files as JSON."""
        root = Path(self.path).absolute()
        files = {name: [os.fspath(Path(f).absolute()) for f in part.files] for name, part in self.parts.items()}
        if root.is_dir() and all(Path(f).is_relative_to(root) for listed in files.values() for f in listed):
            return os.fspath(root)
        return json.dumps({"name": self.name, **files}, ensure_ascii=False)

    def require(self) -> ModelInfo:
        """Itself if it can be loaded; else raises ModelError with the first thing in the way."""
        if self.complete:
            return self
        faults = [*self.problems, *self.missing]
        first = faults[0] if faults else Fault(f"{self.path}: is no Wan model", NAME_ONE)
        if self.missing and isinstance(first, Fault) and not first.next_step:  # then the download is one
            first = Fault(first.text, f"get {PART_TITLES[self.missing[0].part]} with: {self.missing[0].command}")
        more = f" (and {len(faults) - 1} more: see check-model)" if len(faults) > 1 else ""
        raise ModelError(f"{first}{more}")


def gap(part: str, row: Variant, path: Path, why_not: str = "") -> Missing:
    """What to say about a missing part, and the command that downloads it."""
    reason = why_not or f"{path}: {PART_TITLES[part]} of {row.title} isn't there"
    if row.name == DEMO:
        return Missing(part, reason, "git checkout -- models/demo")
    folder = path if path.is_dir() else path.parent
    wanted = _IN_REPOSITORY.get(part) or _IN_REPOSITORY[part, row.vae]
    return Missing(part, reason, f'hf download {row.repository} {wanted} --local-dir "{folder}"')
