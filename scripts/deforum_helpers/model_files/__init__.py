"""Weights files as data: what a file or folder holds, told from headers alone.

    headers.py        a safetensors header, with torch_pickle.py (.pth) and gguf_header.py (.gguf)
    tensors.py        which tensors each part of a Wan model must have
    layouts.py        how other tools name them
    parts.py          tensors of a file -> parts of a model
    folders.py        through a folder, whatever is in it
    scan.py           a folder -> parts
    assemble.py       parts -> a model (info.py): `inspect_model`
    lora_header.py    a LoRA: which weights of a backbone it changes

Standard library only, and below everything else but errors.py and variants.py: both the UI's process and
the worker read models through it, so that they can't differ about what a folder is.
"""

from .assemble import inspect_model, inspect_models
from .folders import walk
from .headers import TensorEntry, TensorFile, read_tensor_file
from .info import PART_TITLES, Missing, ModelInfo
from .parts import PartInfo, Source, identify_parts
from .scan import Scan, scan_folder

__all__ = [
    "PART_TITLES", "Missing", "ModelInfo", "PartInfo", "Scan", "Source", "TensorEntry", "TensorFile", "identify_parts",
    "inspect_model", "inspect_models", "read_tensor_file", "scan_folder", "walk",
]  # fmt: skip
