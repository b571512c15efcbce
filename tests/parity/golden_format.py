"""Reading fixtures of the official code, and how far from them is too far.

A fixture is a safetensors file whose metadata key "config" is JSON; tensors are w.* (weights), in.*, out.*, mid.*.
Limits are those of the reference data's own README.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

GOLDEN = Path(__file__).resolve().parent / "golden"

DIT, ENCODE, DECODE, TEXT, SOLVER, LATENTS, VIDEO = 1e-4, 1e-5, 5e-5, 5e-5, 1e-5, 2e-4, 5e-4


@dataclass(frozen=True)
class Fixture:
    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def case(self) -> str:
        return self.config["case"]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors under a prefix, the prefix removed."""
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference of one output and what is allowed."""

    output: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value <= self.limit  # false for NaN too


def load_fixture(path: Path) -> Fixture:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return Fixture(path, config, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def difference(output: str, got: Tensor, fixture: Fixture, limit: float) -> Difference:
    """Compare with the fixture's `output`; shapes must be equal."""
    wanted = fixture[output]
    if got.shape != wanted.shape:
        return Difference(f"{output} (shape {list(got.shape)}, not {list(wanted.shape)})", float("inf"), limit)
    return Difference(output, (got.double() - wanted.double()).abs().max().item(), limit)
