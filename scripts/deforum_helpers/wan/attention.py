"""The one attention function, and which kernel it runs on.

Shape legend: B batch, L query tokens, S key tokens, H heads, D head width.

`pick_attention` probes the kernels once for a device and says why it chose what it chose; the model calls
whatever it returns, and never asks again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import SettingsError

AttentionFn = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Attention:
    """A probed kernel.  run(q [B, L, H, D], k [B, S, H, D], v [B, S, H, D]) -> [B, L, H, D]."""

    name: str
    reason: str
    run: AttentionFn


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's own choice of kernel.  q [B, L, H, D], k and v [B, S, H, D] -> [B, L, H, D]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def pick_attention(device: torch.device, dtype: torch.dtype, head_dim: int, wanted: str = "auto") -> Attention:
    """Choose the fastest kernel that really runs here: FlashAttention 3, cuDNN, then torch's own order.

    Each candidate is tried on a small input of the real dtype and head width, because an importable kernel
    may still refuse the card, the dtype or the width.
    wanted: "sage" for SageAttention, which works in 8 bits and so changes the output a little; raises SettingsError
    where it doesn't run.
    """
    if wanted == "sage":
        return _sage_or_raise(device, dtype, head_dim)
    if device.type != "cuda":
        return Attention("sdpa", f"torch's own attention on {device.type}", sdpa)
    refused = []
    for name, build in (("flash-attention-3", _flash_attention_3), ("cudnn", _cudnn)):
        try:
            run = build()
            _try(run, device, dtype, head_dim)
        except (ImportError, RuntimeError, AttributeError, TypeError) as error:
            refused.append(f"{name}: {str(error).splitlines()[0][:80] if str(error) else type(error).__name__}")
            continue
        return Attention(name, f"{name} runs on this card" + (f" ({'; '.join(refused)})" if refused else ""), run)
    return Attention("sdpa", f"torch's own choice ({'; '.join(refused)})", sdpa)


def _try(run: AttentionFn, device: torch.device, dtype: torch.dtype, head_dim: int) -> None:
    """Run a kernel once on a small input."""
    probe = torch.randn(1, 256, 2, head_dim, device=device, dtype=dtype)
    run(probe, probe, probe)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sage_or_raise(device: torch.device, dtype: torch.dtype, head_dim: int) -> Attention:
    try:
        run = _sage()
        _try(run, device, dtype, head_dim)
    except (ImportError, RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
        why = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise SettingsError(
            f"SageAttention doesn't run here ({why})", where="attention", got="sage", allowed="auto",
            next_step="pip install sageattention in the isolated environment, if the card supports it",
        ) from error  # fmt: skip
    return Attention("sage", "SageAttention, as set", run)


def _sage() -> AttentionFn:
    kernel = importlib.import_module("sageattention").sageattn

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q, k, v, tensor_layout="NHD")

    return run


def _flash_attention_3() -> AttentionFn:
    kernel = importlib.import_module("flash_attn_interface").flash_attn_func

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = kernel(q, k, v)
        return out[0] if isinstance(out, tuple) else out

    return run


def _cudnn() -> AttentionFn:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            return sdpa(q, k, v)

    return run
