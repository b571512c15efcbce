"""Where a run's time goes: attention, linear, convolution, norm and elementwise, rest; by torch's profiler."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

# First match wins; what no line names is the rest (copies, allocations, indexing).
KINDS = (
    ("attention", re.compile(r"scaled_dot_product|flash|fmha|_attention|sage", re.I)),
    ("convolution", re.compile(r"conv", re.I)),
    ("linear", re.compile(r"addmm|::mm\b|::bmm|linear|matmul|gemm|_scaled_mm", re.I)),
    (
        "norm and elementwise",
        re.compile(
            r"norm|::(add|mul|sub|div|addc|gelu|silu|rsqrt|square|pow|mean|neg|lerp|clamp|exp|tanh|sigmoid|fill|zero)"
            r"|triton|vectorized|elementwise|::(copy|to|_to_copy|cat|stack|clone|contiguous)",
            re.I,
        ),
    ),
)


def breakdown(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Kind -> share of the time of one warmed-up run, adding up to 1."""
    run()
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as result:
        run()
        if cuda:
            torch.cuda.synchronize(device)
    shares = {kind: 0.0 for kind, _ in KINDS} | {"rest": 0.0}
    for event in result.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        shares[kind_of(event.key)] += spent
    total = sum(shares.values()) or 1.0
    return {kind: spent / total for kind, spent in shares.items()}


def kind_of(operator: str) -> str:
    """The kind of an operator or a kernel, by its name."""
    return next((kind for kind, pattern in KINDS if pattern.search(operator)), "rest")
