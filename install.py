"""Sets up the isolated environment of Deforum Wan: run `python install.py --help`.

This file only sees to a fitting Python, so it is written for old ones too; scripts/deforum_helpers/install_command.py
has what it does.
"""

# Each of these rules wants a newer Python than this file may count on.
# ruff: noqa: PTH100, PTH118, PTH120, RUF005, UP031, UP036

import os
import subprocess
import sys
import time

STARTED = time.time()
HERE = os.path.dirname(os.path.abspath(__file__))


def run():
    """Hand over to install_command, or to the Python that DEFORUM_WAN_PYTHON names if this one is too old."""
    if sys.version_info >= (3, 10):
        sys.path.insert(0, os.path.join(HERE, "scripts"))
        from deforum_helpers.install_command import main

        return main(sys.argv[1:], STARTED)
    named = os.environ.get("DEFORUM_WAN_PYTHON", "").strip()
    if named and not os.environ.get("DEFORUM_WAN_HANDED_OVER"):
        env = dict(os.environ, DEFORUM_WAN_HANDED_OVER="1")  # naming another old one must not go round for ever
        return subprocess.call([named, os.path.abspath(__file__)] + sys.argv[1:], env=env)
    sys.stderr.write(
        "Deforum Wan: this Python is too old; got Python %d.%d; allowed: Python 3.10 to 3.13; run install.py with one"
        " of these, or set DEFORUM_WAN_PYTHON to its path and run the same command again\n" % sys.version_info[:2]
    )
    # A WebUI answers any failure of this file with a traceback, at every launch.
    return 0 if "PYTHONPATH" in os.environ and len(sys.argv) == 1 else 3


if __name__ == "__main__":
    sys.exit(run())
