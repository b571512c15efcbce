#!/usr/bin/env python3
"""Compare the project's model with recorded outputs of the official code.

    python tests/parity/run_golden.py FILE.safetensors ...

Prints the largest absolute difference per output, and exits with 1 if any is past its limit, 2 if a file
can't be used.  Runs itself under the isolated environment if this interpreter has no torch.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "scripts")]


def main(names: list[str]) -> int:
    if not names:
        print(__doc__)
        return 2
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        return _in_isolated_environment(names)
    import torch
    from golden_format import load_fixture
    from golden_registry import CASES, runner
    from safetensors import SafetensorError

    torch.set_grad_enabled(False)
    worst = 0
    for name in names:
        try:
            fixture = load_fixture(Path(name))
            run = runner(fixture)
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            print(
                f"{name}: not a fixture this runner knows ({type(error).__name__}: {error}); known: {', '.join(CASES)}"
            )
            worst = 2
            continue
        differences = run(fixture)
        passed = all(d.passed for d in differences)
        print(f"{fixture.case}: {'passed' if passed else 'FAILED'}")
        for d in differences:
            print(f"  {'ok  ' if d.passed else 'FAIL'} {d.output:32s} {d.value:.3e}  (limit {d.limit:.0e})")
        worst = worst if passed else max(worst, 1)
    return worst


def _in_isolated_environment(names: list[str]) -> int:
    from deforum_helpers.errors import SetupError
    from deforum_helpers.wan_isolated_env import find_isolated_python

    try:
        python = find_isolated_python()
    except SetupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return subprocess.call([os.fspath(python), __file__, *names])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
