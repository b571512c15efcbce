"""A LoRA file as data: which weights of a backbone it changes, told from its header in every common spelling.

The tensors themselves are the worker's business (wan/lora.py); a render is refused here, before it begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import ModelError, first_few
from .headers import TensorEntry, read_tensor_file
from .layouts import layout_of, tidy_name

# What trainers and tools put in front; longest first, so that none hides another.
_PREFIXES = (
    "base_model.model.diffusion_model.", "base_model.model.", "model.diffusion_model.", "diffusion_model.",
    "transformer.", "pipe.dit.", "lora_unet__", "lora_unet_", "lora_transformer_", "unet.", "model.", "dit.", "net.",
    "",
)  # fmt: skip
_ROLES = (
    ("down", re.compile(r"\.(?:lora_A|lora_down|lora\.down)(?:\.default)?(?:\.weight)?$")),
    ("up", re.compile(r"\.(?:lora_B|lora_up|lora\.up)(?:\.default)?(?:\.weight)?$")),
    ("alpha", re.compile(r"\.alpha$")),
    ("diff", re.compile(r"\.diff$")),
    ("diff_b", re.compile(r"\.diff_b$")),
    ("diff_m", re.compile(r"\.diff_m$")),
)
_MOST_NAMED = 3


@dataclass
class Change:
    """What a file does to one weight: names in the file, by role."""

    down: str = ""
    up: str = ""
    alpha: str = ""
    diff: str = ""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA for one backbone.  unmatched: names in the file that it has no place for."""

    path: str
    changes: Mapping[str, Change] = field(repr=False)
    unmatched: tuple[str, ...] = ()

    def note(self) -> str:
        """One line about what is left over, "" if nothing is."""
        if not self.unmatched:
            return ""
        return f"{self.path}: has no place for {first_few(self.unmatched, _MOST_NAMED)}"


def read_lora(path: str, shapes: Mapping[str, tuple[int, ...]]) -> LoraFile:
    """Match a LoRA's names to a backbone's.

    shapes: official name -> shape of the backbone's weights.  Raises ModelError if the file can't be read, if
    nothing in it fits, or if what fits by name has another size (a LoRA of another model).
    """
    entries = read_tensor_file(path).tensors
    aliases = _aliases(shapes)
    changes: dict[str, Change] = {}
    unmatched = []
    for name in entries:
        target, role = _place(name, aliases)
        if target:
            setattr(changes.setdefault(target, Change()), role, name)
        else:
            unmatched.append(name)
    for target, change in list(changes.items()):
        if bool(change.down) != bool(change.up) or not (change.down or change.diff):
            unmatched += [name for name in (change.down, change.up, change.alpha, change.diff) if name]
            del changes[target]
    sizes = {name: entry.shape for name, entry in entries.items()}
    wrong = {target: change for target, change in changes.items() if not _fits(change, sizes, shapes[target])}
    fitting = {target: change for target, change in changes.items() if target not in wrong}
    if not fitting:
        raise ModelError("is not a LoRA of this model", where=path, allowed=_example(wrong, sizes, shapes),
                         next_step="take one that was trained for the same backbone")  # fmt: skip
    unmatched += [f"{change.down or change.diff} (wrong size)" for change in wrong.values()]
    return LoraFile(path, fitting, tuple(sorted(unmatched)))


def _example(
    wrong: Mapping[str, Change], sizes: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]
) -> str:
    """What a change of the right size would have been, for the message."""
    for target, change in wrong.items():
        name = change.down or change.diff
        return f"for {target} {list(shapes[target])}, not {name} {list(sizes[name])}"
    return "names of Wan's layers with lora_A and lora_B, lora_down and lora_up, or diff"


def _aliases(shapes: Iterable[str]) -> dict[str, str]:
    """Every spelling of every weight -> its official name: with dots or underscores, ours or diffusers'."""
    diffusers, result = layout_of("dit", "diffusers"), {}
    for official in shapes:
        for name in (official, *diffusers.names_of(official)):
            for spelling in (name, name.removesuffix(".weight")):
                result[spelling] = official
                result[spelling.replace(".", "_")] = official
    return result


def _place(name: str, aliases: Mapping[str, str]) -> tuple[str, str]:
    """(official name of the weight, the role of this tensor), ("", "") if there is none."""
    for role, ending in _ROLES:
        match = ending.search(name)
        if match is None:
            continue
        base = name[: match.start()]
        for prefix in _PREFIXES:
            if not base.startswith(prefix):
                continue
            module = tidy_name(base[len(prefix) :])
            suffix = {"diff_b": ".bias", "diff_m": ".modulation"}.get(role, "")
            spelt = module + suffix
            target = aliases.get(spelt) or aliases.get(spelt.replace(".", "_"))
            if target:
                return target, "diff" if suffix else role
    return "", ""


def _fits(change: Change, sizes: Mapping[str, tuple[int, ...]], wanted: tuple[int, ...]) -> bool:
    """Whether a change has the size of its weight; down [rank, in ...], up [out, rank ...]."""
    if change.diff and math.prod(sizes[change.diff]) != math.prod(wanted):
        return False
    if not change.down:
        return True
    down, up = sizes[change.down], sizes[change.up]
    if len(down) < 2 or len(up) < 2 or up[0] != wanted[0] or math.prod(up[1:]) != down[0]:
        return False
    return math.prod(down[1:]) == math.prod(wanted[1:])


# Layers of Wan's blocks; Stable Diffusion's are "transformer_blocks" with "ff" where Wan has "ffn".
_WAN_LAYER = re.compile(r"(?:^|[._])blocks[._]\d+[._](?:self_attn|cross_attn|ffn)[._]|transformer\.blocks\.\d+\.attn")


def looks_like_wan_lora(tensors: Mapping[str, TensorEntry]) -> bool:
    """Whether names in a file are a LoRA's for some Wan backbone, which may not be the one at hand."""
    return any(_WAN_LAYER.search(name) and any(ending.search(name) for _, ending in _ROLES) for name in tensors)
