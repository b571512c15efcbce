"""The backbone's blocks compiled by torch: fewer passes over memory between the large products, and the same numbers
but for rounding.

All blocks share one piece of compiled code.  It is made at the first clip's second step (the first makes the prompt's
keys and values), is announced, and is kept on disk for the next start.  Where it can't be made (no compiler, a driver
too old), the blocks go on as they were, and the reason is said.  They also do where several prompts share a window:
its runs are another program in every clip.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from .dit import BlockConditioning, WanFlowMatchingModel

Announce = Callable[[str, float, str], None]


class CompiledBlocks:
    """What the blocks' calls go through.  failed: why compiled code isn't used, "" while it is."""

    def __init__(self, cache: Path, announce: Announce) -> None:
        self.cache, self.announce = cache, announce
        self.failed, self._made = "", False

    def install(self, dits: Iterable[WanFlowMatchingModel]) -> None:
        """From now on the blocks of these backbones run compiled."""
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.cache))
        for dit in dits:
            for block in (*dit.blocks, *getattr(dit, "vace_blocks", ())):
                block.forward = self._call(block.forward)

    def _call(self, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        compiled = torch.compile(plain, dynamic=False)

        def forward(x: Tensor, rows: Tensor, conditioning: BlockConditioning, tables: Tensor) -> Tensor:
            if self.failed or not conditioning.keys_values or conditioning.runs:
                return plain(x, rows, conditioning, tables)
            if self._made:
                return compiled(x, rows, conditioning, tables)
            return self._first(plain, compiled, (x, rows, conditioning, tables))

        return forward

    def _first(self, plain: Callable[..., Tensor], compiled: Callable[..., Tensor], inputs: tuple) -> Tensor:
        """Make the code, or find out that it can't be made."""
        self.announce("compile", 0.0, "the backbone's blocks; kept for the next start")
        started = time.perf_counter()
        try:
            out = compiled(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler, a driver or a toolchain may raise: the render goes on
            cause = getattr(error, "inner_exception", None) or error.__cause__ or error  # dynamo wraps what went wrong
            self.failed = (str(cause).strip() or type(cause).__name__).splitlines()[0][:160]
            note = f"not possible here, going on without ({self.failed})"
            self.announce("compile", time.perf_counter() - started, note)
            return plain(*inputs)
        self._made = True
        self.announce("compile", time.perf_counter() - started, "the backbone's blocks")
        return out
