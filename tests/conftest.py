"""Tests import the package as `deforum_helpers`, the way the command line does."""

import sys
from pathlib import Path

from hypothesis import settings

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))

settings.register_profile("any machine", deadline=None)  # a busy one must not fail an example by its clock
settings.load_profile("any machine")
