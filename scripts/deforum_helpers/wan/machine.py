"""Where a model runs and in what precision: chosen once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import SettingsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """device and dtype of the big parts; reason: why these, for the log."""

    device: torch.device
    dtype: torch.dtype
    name: str
    total_memory: int
    reason: str

    @property
    def free_memory(self) -> int:
        """Bytes free on the device now; 0 where its memory is the host's own."""
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0


def choose_machine(device: str = "auto", dtype: str = "auto") -> Machine:
    """Pick the device and the dtype.

    device: "auto", "cpu", "cuda", "cuda:N" or "mps".  dtype: "auto" or a name of DTYPES.
    Raises SettingsError for a device that isn't there.
    """
    found, why = _device(device)
    if dtype == "auto":
        chosen, because = _auto_dtype(found)
    elif dtype in DTYPES:
        chosen, because = DTYPES[dtype], "as set"
    else:
        raise SettingsError("unknown precision", where="dtype", got=dtype, allowed=", ".join(["auto", *DTYPES]))
    reason = f"{found} ({why}), {str(chosen).removeprefix('torch.')} ({because})"
    if found.type == "cuda":
        properties = torch.cuda.get_device_properties(found)
        return Machine(found, chosen, properties.name, properties.total_memory, reason)
    return Machine(found, chosen, f"{found.type}, {torch.get_num_threads()} threads", 0, reason)


def _device(wanted: str) -> tuple[torch.device, str]:
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0), "the first CUDA device"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's GPU"
        return torch.device("cpu"), "no GPU that torch can use"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        present = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SettingsError("no such device here", where="device", got=wanted, allowed=", ".join(present)) from error
    return device, "as set"


def _auto_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "what the weights were trained in"
    if device.type == "cuda":
        return torch.float16, "this card has no bfloat16"
    if device.type == "mps":
        return torch.bfloat16, "half the memory"
    return torch.float32, "exact, and no slower here"
