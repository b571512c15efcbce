"""Weights kept in 8 bits: half the memory of bfloat16, at a small change of what the model makes.

A linear layer's weight [out, in] lies as float8_e4m3fn with one float32 scale per row.  It is widened to the precision
of the work each time it is used ("fp8"), or, on cards that can, multiplied as it is with inputs rounded to 8 bits per
token ("fp8-matmul"), which is faster and changes the output more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import SettingsError

STORED = torch.float8_e4m3fn
LARGEST = torch.finfo(STORED).max  # 448
WEIGHTS = ("auto", "fp8", "fp8-matmul")


class EightBitLinear(nn.Module):
    """nn.Linear with its weight in 8 bits; a weight of another dtype (a LoRA mixed in) is used as it is.

    multiply: in 8 bits too, on a device that passed `check_multiply`.
    """

    def __init__(self, wide_in: int, wide_out: int, *, multiply: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(wide_out, wide_in, dtype=STORED), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(wide_out, 1, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(wide_out), requires_grad=False)
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out] in x's dtype."""
        if self.weight.dtype != STORED:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        if self.multiply:
            return multiply_eight_bit(x, self.weight, self.scale, self.bias)
        return F.linear(x, widen(self.weight, self.scale, x.dtype), self.bias)


def narrow(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] -> the nearest 8-bit weight and its scales [out, 1]: the largest of each row becomes 448."""
    wide = weight.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12) / LARGEST
    return (wide / scale).to(STORED), scale


def widen(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """8-bit weight [out, in] times its scales, in a wider dtype."""
    return weight.to(torch.float32).mul_(scale).to(dtype)


def multiply_eight_bit(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """x [..., in] rounded to 8 bits, a scale per token, times an 8-bit weight.  Returns [..., out] in x's dtype."""
    rows, row_scale = narrow(x.flatten(0, -2))
    out = torch._scaled_mm(
        rows, weight.t(), scale_a=row_scale, scale_b=scale.t(), bias=bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16, use_fast_accum=True,
    )  # fmt: skip
    return out.to(x.dtype).unflatten(0, x.shape[:-1])


def check_multiply(device: torch.device) -> None:
    """Raises SettingsError where 8-bit weights can't be multiplied as they are: tried once on a small product."""
    try:
        if device.type != "cuda":
            raise RuntimeError(f"not on {device.type}")
        weight, scale = narrow(torch.randn(64, 64, device=device))
        x = torch.randn(32, 64, device=device, dtype=torch.bfloat16)
        multiply_eight_bit(x, weight, scale, torch.zeros(64, device=device))
        torch.cuda.synchronize(device)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"this device can't multiply 8-bit weights ({str(error).splitlines()[0][:100]})", where="weights_dtype",
            got="fp8-matmul", allowed="auto, fp8",
        ) from error  # fmt: skip


def is_eight_bit(name: str, shape: tuple[int, ...]) -> bool:
    """Whether one of the backbone's tensors is kept in 8 bits: the weights of its blocks' linear layers."""
    return name.startswith(("blocks.", "vace_blocks.")) and name.endswith(".weight") and len(shape) == 2


def to_eight_bit(model: nn.Module, *, multiply: bool) -> nn.Module:
    """Put an EightBitLinear in the place of every linear layer of a backbone's blocks, on the meta device."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and is_eight_bit(f"{name}.weight", tuple(module.weight.shape)):
            parent, _, child = name.rpartition(".")
            layer = EightBitLinear(module.in_features, module.out_features, multiply=multiply)
            setattr(model.get_submodule(parent), child, layer)
    return model


def narrowed(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a backbone with the blocks' weights in 8 bits, each followed by its scale."""
    for name, tensor in tensors:
        if not is_eight_bit(name, tuple(tensor.shape)) or tensor.dtype == STORED:
            yield name, tensor
            continue
        weight, scale = narrow(tensor)
        yield name, weight
        yield name.removesuffix("weight") + "scale", scale
