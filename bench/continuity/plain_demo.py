"""The demo's plain variant: its weights trained as plain text-to-video weights are, all latents at one timestep.

Made by `python demo/train_dit.py --plain`, for measuring only.  Its tensors are named and shaped as the demo's, so that
nothing in its files tells it apart: here the demo's row of the table is put right, in this process and in the worker's.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from deforum_helpers.progress import state_folder
from deforum_helpers.variants import DEMO, VARIANTS
from deforum_helpers.wan_isolated_env import SCRIPTS, worker_command, worker_environment
from deforum_helpers.worker_client import Worker
from deforum_helpers.worker_log import WorkerLog


def take_demo_for_plain() -> None:
    """From now on this process takes the demo's weights for plain ones."""
    VARIANTS[DEMO] = replace(VARIANTS[DEMO], pin="noised", image_input=False)


def new_plain_worker() -> Worker:
    """A worker that takes them so, too; not started yet."""
    take_demo_for_plain()
    python = worker_command()[0]
    log = WorkerLog(state_folder() / "worker.log")
    return Worker([python, str(Path(__file__).resolve())], worker_environment(), log=log, folder=SCRIPTS)


if __name__ == "__main__":
    from deforum_helpers import wan_worker

    take_demo_for_plain()
    wan_worker.main()
